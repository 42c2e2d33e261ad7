"""Data folders and data files of somebody hostile: nothing outside is read, no memory is taken on a header's word."""

import bz2
import gzip
import io
import os
import shutil
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from fmtda.domains import feature_files
from fmtda.domains.digit_five import DigitFive
from fmtda.domains.examples import DataError
from fmtda.domains.family import DataSpec
from fmtda.domains.feature_vectors import FeatureVectors
from fmtda.domains.image_folders import ImageFolders
from fmtda.domains.molecule_files import lines, located
from fmtda.domains.scene_folders import SceneFolders
from fmtda.domains.untrusted_files import MOST_ROWS, most_unpacked
from tests.domains.hostile_files import measured, measured_each, png
from tests.domains.refusals import refused
from tests.domains.test_digit_five import write_mnist, write_svhn, write_usps

ZEROS = bytes(2**20)


def picture(file, content=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        file.write_bytes(content)
        return
    Image.new("RGB", (9, 9), "red").save(file, "PNG")


@pytest.fixture
def photos(tmp_path):
    """A data folder of two domains with two classes."""
    for domain in ("photo", "sketch"):
        for class_name in ("cat", "dog"):
            for number in range(12):
                picture(tmp_path / "data" / domain / class_name / f"{number}.png")
    return tmp_path / "data"


@pytest.fixture
def streets(tmp_path):
    for domain in ("town", "tram"):
        for number in range(8):
            picture(tmp_path / "data" / domain / "images" / f"{number}.png")
            label_map = Image.fromarray(np.zeros((9, 9), np.uint8))
            (tmp_path / "data" / domain / "labels").mkdir(exist_ok=True)
            label_map.save(tmp_path / "data" / domain / "labels" / f"{number}.png")
    (tmp_path / "data" / "classes.txt").write_text("road\nsky\n")
    return tmp_path / "data"


def photo_spec(data):
    return DataSpec(data, 0, ("cat", "dog"), (3, 9, 9))


def street_spec(data):
    return DataSpec(data, 0, ("road", "sky"), (3, 9, 9))


def special(kind, place, elsewhere):
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "link to nothing":
        place.symlink_to(place.with_name("nothing"))
    else:
        picture(elsewhere / "secret.png")
        place.symlink_to(
            elsewhere / "secret.png" if kind == "link" else os.path.relpath(elsewhere / "secret.png", place.parent)
        )


SPECIAL = {
    "folder": "is a folder and no file",
    "pipe": "is a pipe and no file",
    "device": "is a link out of the data folder",
    "link to nothing": "is not there, or a link to nothing",
    "link": r"is a link out of the data folder.*cp -L",
    "relative link": r"is a link out of the data folder.*link all of .*(photo|town) instead",
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_called_as_a_picture_and_is_none_of_the_folder_is_refused(kind, photos, streets, tmp_path):
    special(kind, photos / "photo" / "cat" / "x.png", tmp_path / "elsewhere")
    refused(lambda: ImageFolders().check(["photo"], photo_spec(photos)), rf"cat/x\.png {SPECIAL[kind]}")
    refused(lambda: ImageFolders().load("photo", "train", photo_spec(photos)), rf"cat/x\.png {SPECIAL[kind]}")
    ImageFolders().load("sketch", "train", photo_spec(photos))


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("what", ["images", "labels"])
def test_the_same_goes_for_scenes_and_their_label_maps(kind, what, streets, tmp_path):
    (streets / "town" / what / "3.png").unlink()
    special(kind, streets / "town" / what / "3.png", tmp_path / "elsewhere")
    refused(lambda: SceneFolders().check(["town"], street_spec(streets)), rf"{what}/3\.png {SPECIAL[kind]}")
    SceneFolders().load("tram", "train", street_spec(streets))


def test_the_data_folder_and_its_folders_may_be_links_and_files_may_link_within(photos, tmp_path):
    expected = ImageFolders().load("photo", "train", photo_spec(photos)).inputs[:]
    shutil.move(photos / "photo", tmp_path / "disk" / "photo")
    (photos / "photo").symlink_to(tmp_path / "disk" / "photo")
    (tmp_path / "linked").symlink_to(photos)
    file = tmp_path / "disk" / "photo" / "cat" / "3.png"
    for target in (tmp_path / "disk" / "photo" / "dog" / "3.png", photos / "sketch" / "cat" / "3.png"):
        file.unlink()
        file.symlink_to(target)
        for data in (photos, tmp_path / "linked"):
            assert ImageFolders().load("photo", "train", photo_spec(data)).inputs[:].equal(expected)
    picture(tmp_path / "disk" / "other.png")
    file.unlink()
    file.symlink_to(tmp_path / "disk" / "other.png")
    refused(lambda: ImageFolders().check(["photo"], photo_spec(photos)), r"3\.png is a link out of the data folder")


def test_a_folder_deeper_down_does_not_lead_elsewhere(photos, streets, tmp_path):
    for data, place in ((photos, "photo/dog"), (streets, "town/images")):
        shutil.move(data / place, tmp_path / "disk" / place)
        (data / place).symlink_to(tmp_path / "disk" / place)
    refused(lambda: ImageFolders().check(["photo"], photo_spec(photos)), r"photo/dog is a link out .*or behind one")
    refused(lambda: SceneFolders().check(["town"], street_spec(streets)), r"town/images is a link out .*or behind one")


def test_lists_do_not_lead_elsewhere_and_are_not_endless(photos, streets, tmp_path):
    (tmp_path / "secret").write_text("root:x:0:0\n")
    for part in ("train", "test"):
        (photos / f"photo_{part}.txt").symlink_to(tmp_path / "secret")
    refused(lambda: ImageFolders().check(["photo"], photo_spec(photos)), r"photo_train\.txt is a link out")
    for part in ("train", "test"):
        (photos / f"photo_{part}.txt").unlink()
        with (photos / f"photo_{part}.txt").open("wb") as file:
            file.truncate(2**30)
    refused(lambda: ImageFolders().check(["photo"], photo_spec(photos)), r"photo_train\.txt has 1,024 MB; at most 64")
    (streets / "classes.txt").write_text("".join(f"{number}\n" for number in range(10**6)))
    refused(lambda: SceneFolders().check(["town"], street_spec(streets)), "has 1,000,000 class names")
    (streets / "classes.txt").unlink()
    os.mkfifo(streets / "classes.txt")
    refused(lambda: SceneFolders().check(["town"], street_spec(streets)), r"classes\.txt is a pipe")


def test_a_list_names_nothing_outside_of_its_domain(photos, tmp_path):
    for line in ("photo/../secret.png 0", "photo/cat/../../x.png 0", f"photo/cat/0.png {'9' * 5000}"):
        for part in ("train", "test"):
            (photos / f"photo_{part}.txt").write_text(f"photo/dog/{part == 'test':d}.png 1\n{line}\n")
        refused(lambda: ImageFolders().load("photo", "train", photo_spec(photos)), "photo")


@pytest.mark.parametrize("name", [b"do\x1b[31mg", b"do\ng", b"do\xffg", b"do\xe2\x80\xa8g"])
def test_domains_and_classes_have_names_that_can_be_shown(name, photos):
    (photos / "photo" / "dog").rename(photos / "photo" / os.fsdecode(name))
    refused(lambda: ImageFolders().defaults(photos, {"source": "photo"}), "control character, or what is no UTF-8")
    (photos / "sketch").rename(photos / os.fsdecode(name))
    refused(lambda: ImageFolders().domains_in(photos), "control character, or what is no UTF-8")


def test_folders_without_rights_are_named(photos, streets):
    (photos / "photo").chmod(0)
    (photos / "sketch" / "cat").chmod(0)
    user = os.geteuid()
    for folder in (photos.parent, *photos.parents[1:4]):
        if folder.is_dir() and folder.stat().st_uid == user and folder != photos:
            folder.chmod(folder.stat().st_mode | 0o055)
    if not user:
        os.seteuid(65534)
    try:
        refused(
            lambda: ImageFolders().check(["photo"], photo_spec(photos)), "can.*t be read|cannot be read|is no folder"
        )
    finally:
        os.seteuid(user)
        (photos / "photo").chmod(0o755)
        (photos / "sketch" / "cat").chmod(0o755)


# --- files of digits ---

DIGITS = {
    "mnist": (write_mnist, "MNIST/raw", "train-images-idx3-ubyte.gz"),
    "usps": (write_usps, "USPS", "usps.bz2"),
    "svhn": (write_svhn, "SVHN", "train_32x32.mat"),
}


def write_digits(domain, data):
    write, folder, name = DIGITS[domain]
    write(data / folder, *([True] if domain == "mnist" else []))
    return data / folder / name


@pytest.mark.parametrize("domain", DIGITS)
def test_files_of_digits_do_not_lead_elsewhere(domain, tmp_path):
    file = write_digits(domain, tmp_path / "data")
    DigitFive().check([domain], DataSpec(tmp_path / "data"))
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    refused(lambda: DigitFive().check([domain], DataSpec(tmp_path / "data")), f"{file.name} is a link out of the data")
    file.unlink()
    os.mkfifo(file)
    refused(lambda: DigitFive().check([domain], DataSpec(tmp_path / "data")), f"{file.name} is a pipe")
    file.unlink()
    file.touch()
    refused(lambda: DigitFive().load(domain, "train", DataSpec(tmp_path / "data")), f"{file.name} .*empty|ends|stops")
    top = file.parents[len(file.relative_to(tmp_path / "data").parts) - 2]
    shutil.move(top, tmp_path / "disk")
    top.symlink_to(tmp_path / "disk")
    file.unlink()
    write_digits(domain, tmp_path / "data")
    DigitFive().load(domain, "train", DataSpec(tmp_path / "data"))


def deflated(start, megabytes):
    """Raw deflate of a beginning and zeros; a piece is packed once and repeated."""
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = pack.compress(start) + pack.flush(zlib.Z_FULL_FLUSH)
    piece = pack.compress(ZEROS) + pack.flush(zlib.Z_FULL_FLUSH)
    return first + piece * megabytes + pack.flush()


def gzip_of(start, megabytes=3072):
    length = len(start) + megabytes * len(ZEROS)
    content = deflated(start, megabytes)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + content + bytes(4) + (length % 2**32).to_bytes(4, "little")


def loads(domain, data):
    return measured("family('digit-five').load(domain, 'train', DataSpec(Path(data)))", domain=domain, data=data)


def cheap(took, name, seconds=4):
    assert name in took["said"], took
    assert "\n" not in took["said"]
    assert took["megabytes"] < 400 and took["seconds"] < seconds, took


def test_a_header_of_mnist_is_not_believed(tmp_path):
    codes = {}
    for shape in ((2**31, 28, 28), (2**32 - 1, 28, 28), (1_000_000, 28, 28)):
        for packed in (True, False):
            data = tmp_path / f"{shape[0]}-{packed}"
            write_mnist(data, packed)
            for name, axes in (("images-idx3", shape), ("labels-idx1", shape[:1])):
                header = struct.pack(f">HBB{len(axes)}I", 0, 8, len(axes), *axes)
                file = data / f"train-{name}-ubyte{'.gz' if packed else ''}"
                length = (len(header) + int(np.prod(axes, dtype=object))) % 2**32
                file.write_bytes(gzip.compress(header)[:-4] + length.to_bytes(4, "little") if packed else header)
            codes[data.name] = f"family('digit-five').load('mnist', 'train', DataSpec(Path(data, '{data.name}')))"
    for took in measured_each(codes, data=tmp_path).values():
        cheap(took, "train-images-idx3-ubyte", 1)


def test_a_gzip_bomb_of_mnist_is_not_unpacked(tmp_path):
    write_mnist(tmp_path / "MNIST/raw", True)
    bomb = gzip_of(struct.pack(">HBB3I", 0, 8, 3, 6, 28, 28))
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte.gz").write_bytes(bomb[:-4] + (16 + 6 * 784).to_bytes(4, "little"))
    cheap(loads("mnist", tmp_path), "train-images-idx3-ubyte.gz")


def test_a_bzip2_bomb_of_usps_is_not_unpacked(tmp_path):
    write_usps(tmp_path / "USPS")
    (tmp_path / "USPS/usps.bz2").write_bytes(bz2.compress(ZEROS) * 1024)
    cheap(loads("usps", tmp_path), "usps.bz2 is damaged or truncated (it unpacks to more than", 10)


def test_short_lines_of_usps_do_not_become_large_pictures(tmp_path):
    write_usps(tmp_path / "USPS")
    (tmp_path / "USPS/usps.bz2").write_bytes(bz2.compress(b"1 1:1\n" * 1_000_000))
    cheap(loads("usps", tmp_path), "usps.bz2")


def subelement(kind, content):
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(name, shape, data, data_size=None, kind=9):
    flags = subelement(6, struct.pack("<II", kind, 0))
    dims = subelement(5, struct.pack(f"<{len(shape)}i", *shape))
    values = struct.pack("<II", 2, len(data) if data_size is None else data_size) + data
    body = flags + dims + subelement(1, name) + values
    return struct.pack("<II", 14, len(body) if data_size is None else 2**31) + body


def mat(*elements):
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM" + b"".join(elements)


def compressed(*parts, zeros=0):
    body = b"\x78\xda" + deflated(b"".join(parts), zeros) + zlib.adler32(b"".join(parts)).to_bytes(4)
    return struct.pack("<II", 15, len(body)) + body


START = struct.pack("<II", 14, 2**31) + subelement(6, struct.pack("<II", 9, 0))
MATLAB = {
    "announced, not there": mat(matrix(b"fts", (2**20, 2**10), b"", 2**31 - 8)),
    "announced, packed": mat(compressed(matrix(b"fts", (2**20, 2**10), b"", 2**31 - 8))),
    "a bomb of values": mat(compressed(matrix(b"fts", (4, 4), b"", 2**31), zeros=2048)),
    "a bomb that fits its shape": mat(compressed(matrix(b"fts", (2**21, 2**10), b"", 2**31), zeros=2048)),
    "a bomb of a name": mat(compressed(START, subelement(5, bytes(8)), struct.pack("<II", 1, 2**31 - 8), zeros=2048)),
    "a bomb of a shape": mat(compressed(START, struct.pack("<II", 5, 2**31 - 8), zeros=2048)),
    "an element beyond the end": mat(struct.pack("<II", 15, 2**31) + b"x"),
    "rows of nothing": mat(compressed(matrix(b"fts", (50 * 2**20, 1), bytes(50 * 2**20)))),
    "version 4": struct.pack("<5I", 0, 2**30, 2**10, 0, 4) + b"fts\0",
    "version 4, a name without end": struct.pack("<5I", 0, 2, 2, 0, 2**31 - 1) + b"fts\0",
    "version 7.3": b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<H", 0x0200) + b"IM" + bytes(800),
    "junk": b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM" + b"\xff" * 4000,
}


def test_sizes_in_a_matlab_file_are_not_believed(tmp_path):
    codes = {}
    for place, (kind, content) in enumerate(MATLAB.items()):
        (tmp_path / str(place)).mkdir()
        for name in ("x.mat", "train_32x32.mat", "test_32x32.mat"):
            (tmp_path / str(place) / name).write_bytes(content)
        for code in ("header", "read_features"):
            codes[f"{kind}, {code}, x.mat"] = f"feature_files.{code}(Path(data, '{place}/x.mat'))"
        load = f"family('digit-five').load('svhn', 'train', DataSpec(Path(data, '{place}')))"
        codes[f"{kind}, train_32x32.mat"] = load
    for what, took in measured_each(codes, data=tmp_path).items():
        # Deep in what is packed, or nothing but a name cut short: it shows when the values are read.
        hidden = ", header" in what and what.startswith(("a bomb of values", "version 4, a name"))
        cheap({**took, "what": what}, "" if hidden else what.split(", ")[-1])


def nested(levels):
    content = np.ones(3)
    for _ in range(levels):
        outer = np.empty((1, 1), object)
        outer[0, 0] = content
        content = outer
    return content


def test_cells_structures_and_sparse_arrays_are_no_vectors(tmp_path):
    import scipy.sparse

    for content in (nested(200), {"a": np.ones(3)}, scipy.sparse.eye(4).tocsc()):
        savemat(tmp_path / "x.mat", {"fts": content, "labels": np.arange(4)})
        refused(lambda: feature_files.header(tmp_path / "x.mat"), r"x\.mat holds labels; the vectors must be called")


def npz(file, **members):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def npy(shape, content=b"", kind="<f8", header=None):
    text = header or f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text.encode() + content


NPZ = {
    "announced": npy((2**40, 2)),
    "negative": npy((-1, 4), bytes(64)),
    "a bomb": npy((2**15, 2**10), bytes(2**28)),
    "a bomb of a header": b"\x93NUMPY\x02\0" + struct.pack("<I", 2**31 - 1) + bytes(2**28),
    "wide values": npy((4, 1), bytes(64), kind="S2000000000"),
    "deep": npy((), header="(" * 9000),
    "pickled": npy((4, 4), b"cos\nsystem\n(S'true'\ntR.".ljust(128), kind="|O"),
}


def test_sizes_in_an_npz_file_are_not_believed(tmp_path):
    codes = {}
    for place, (kind, content) in enumerate(NPZ.items()):
        npz(tmp_path / f"{place}.npz", features=content)
        for code in ("header", "read_features"):
            codes[f"{kind}, {code}, {place}.npz"] = f"feature_files.{code}(Path(data, '{place}.npz'))"
    took = measured_each(codes, data=tmp_path)
    assert took.pop("pickled, header, 6.npz")["said"] == "", "its header tells nothing yet"
    for what, each in took.items():
        cheap(each, what.split(", ")[-1])


def test_an_npz_file_holds_an_array_once(tmp_path):
    good = npy((4, 2), np.ones(8).tobytes())
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("features.npy", npy((2, 4), np.ones(8).tobytes()))
        archive.writestr("features.npy", good)
    refused(lambda: feature_files.header(tmp_path / "x.npz"), "holds an array twice")


def test_many_classes_are_split_as_ever_and_soon(tmp_path):
    count = 40_000
    features = np.arange(2 * count, dtype=np.float32)[:, None]
    np.savez(tmp_path / "x.npz", features=features, labels=np.repeat(np.arange(count), 2))
    took = measured("family('feature-vectors').load('x', 'train', DataSpec(Path(data)))", data=tmp_path)
    assert took["said"] == "" and took["seconds"] < 6
    train = FeatureVectors().load("x", "train", DataSpec(tmp_path))
    assert sorted(train.labels.tolist()) == list(range(count)), "of two different vectors of a class one is trained on"


def test_files_of_vectors_and_molecules_do_not_lead_elsewhere(tmp_path):
    np.savez(tmp_path / "secret.npz", features=np.ones((4, 2)))
    (tmp_path / "data").mkdir()
    for name in ("x.npz", "qm9.csv"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "secret.npz")
    refused(lambda: FeatureVectors().domains_in(tmp_path / "data"), r"x\.npz is a link out of the data folder")
    refused(lambda: located("qm9.csv", tmp_path / "data"), r"qm9\.csv is a link out of the data folder")
    (tmp_path / "data" / "qm9.csv").unlink()
    os.mkfifo(tmp_path / "data" / "qm9.csv")
    refused(lambda: located("qm9.csv", tmp_path / "data"), r"qm9\.csv is a pipe")


# --- archives and lines ---


def member(archive, name, content=b"", **fields):
    about = tarfile.TarInfo(name)
    about.size = len(content)
    for field, value in fields.items():
        setattr(about, field, value)
    archive.addfile(about, io.BytesIO(content))


def mnist_m(file, *members):
    with tarfile.open(file, "w:gz") as archive:
        for part in ("train", "test"):
            member(archive, f"mnist_m/mnist_m_{part}_labels.txt", b"0.png 1\n")
            member(archive, f"mnist_m/mnist_m_{part}/0.png", png(32, 32))
        for name, content, fields in members:
            member(archive, name, content, **fields)


def test_members_of_an_archive_are_never_written_or_followed(tmp_path):
    outside = [("../../evil.txt", b"x", {}), (str(tmp_path / "evil.txt"), b"x", {})]
    links = [("mnist_m/mnist_m_train/1.png", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})]
    (tmp_path / "data").mkdir()
    mnist_m(tmp_path / "data/mnist_m.tar.gz", *outside)
    assert len(DigitFive().load("mnist-m", "train", DataSpec(tmp_path / "data"))) == 1
    assert [path.name for path in tmp_path.rglob("*")].count("evil.txt") == 0
    mnist_m(tmp_path / "data/mnist_m.tar.gz", *links)
    refused(lambda: DigitFive().load("mnist-m", "train", DataSpec(tmp_path / "data")), r"mnist_m\.tar\.gz")


LARGE_MEMBERS = {
    "a large picture": ("mnist_m/mnist_m_train/1.png", png(13_000, 5_000, colour=0), {}),
    "a large file": ("mnist_m/mnist_m_train/1.png", bytes(2**26), {}),
    "an eps": ("mnist_m/mnist_m_train/1.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n", {}),
}


@pytest.mark.parametrize("kind", LARGE_MEMBERS)
def test_members_of_an_archive_are_small(kind, tmp_path):
    mnist_m(tmp_path / "mnist_m.tar.gz", LARGE_MEMBERS[kind])
    cheap(loads("mnist-m", tmp_path), "mnist_m.tar.gz", 2)


def test_an_archive_of_zeros_is_not_read_to_its_end(tmp_path):
    about = tarfile.TarInfo("zeros")
    about.size = 2**32
    (tmp_path / "mnist_m.tar.gz").write_bytes(gzip_of(about.tobuf()))
    cheap(loads("mnist-m", tmp_path), "mnist_m.tar.gz is damaged or truncated (it unpacks to more than")


def read_lines(file):
    return measured("list(molecule_files.lines(Path(file)))", file=file)


def test_lines_of_smiles_are_bounded(tmp_path):
    (tmp_path / "long.smi.gz").write_bytes(gzip_of(b"C"))
    cheap(read_lines(tmp_path / "long.smi.gz"), "long.smi.gz")
    with (tmp_path / "long.csv").open("wb") as file:
        file.truncate(2**31)
    cheap(read_lines(tmp_path / "long.csv"), "long.csv is damaged or no file of SMILES (line 1 has 10,000 characters")
    (tmp_path / "many.smi.gz").write_bytes(gzip.compress(b"C\n" * 10**7))
    took = read_lines(tmp_path / "many.smi.gz")
    cheap(took, "many.smi.gz")
    packed = (tmp_path / "many.smi.gz").stat().st_size
    assert f"more than {MOST_ROWS + packed:,} lines" in took["said"]
    (tmp_path / "few.csv").write_text("smiles\nC\nCC,1\n\nCCC")
    assert list(lines(tmp_path / "few.csv")) == [(2, "C"), (3, "CC"), (5, "CCC")]


def test_the_real_files_stay_far_below_the_bounds(real_data):
    """What is refused of a hostile file leaves room for the honest ones."""
    packed = gzip.decompress((real_data / "mnist_m.tar.gz").read_bytes())
    assert len(packed) < most_unpacked((real_data / "mnist_m.tar.gz").stat().st_size) / 10
    for file in sorted((real_data / "office_caltech_surf").glob("*.mat")):
        about = feature_files.header(file)
        assert 8 * about.count * about.size < most_unpacked(file.stat().st_size) / 5
        assert about.count < MOST_ROWS / 10


def test_an_error_is_one_line_of_what_can_be_shown_however_it_is_made():
    error = DataError("a\nb\x1b[0m\udcff" + "x" * 10**6)
    assert str(error).startswith(r"a\nb\x1b[0m\udcff") and len(str(error)) < 5_000
