"""Image folders: each layout out of tiny files made here, what is refused, and the real PACS."""

import time

import numpy as np
import pytest
import torch
from PIL import Image

from fmtda.domains import image_folders
from fmtda.domains.examples import DataError
from fmtda.domains.family import DataSpec
from fmtda.domains.image_folders import ImageFolders
from fmtda.domains.image_listing import pictures_of
from fmtda.strategies.composition import resolve
from tests.domains.refusals import refused

CLASSES = ("cat", "dog")
PACS_COUNTS = {"art_painting": 2048, "cartoon": 2344, "photo": 1670, "sketch": 3929}


@pytest.fixture
def family():
    return ImageFolders()


def write(file, brightness=100, size=(12, 12)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (brightness, 0, 255 - brightness)).save(file)


def write_domain(folder, classes=CLASSES, count=12, ending="png"):
    """`count` pictures a class; the brightness, 10 times the class and the picture's number on top, tells them."""
    for label, name in enumerate(classes):
        for number in range(count):
            write(folder / name / f"{number}.{ending}", 100 * label + number)


def spec(root, classes=CLASSES, shape=(3, 8, 8)):
    return DataSpec(root, 0, classes, shape)


def brightness(examples):
    return examples.inputs[:, 0, 4, 4].tolist()


def both_parts(family, domain, spec):
    train, test = (family.load(domain, part, spec) for part in ("train", "test"))
    return sorted(brightness(train) + brightness(test)), train, test


# --- layouts ---


@pytest.mark.parametrize("below", ["", "images"], ids=["class folders", "Office-31's images"])
@pytest.mark.parametrize("ending", ["png", "PNG", "bmp"])
def test_class_folders_are_read(family, tmp_path, below, ending):
    write_domain(tmp_path / "amazon" / below, ending=ending)
    assert family.domains_in(tmp_path) == ("amazon",)
    family.check(["amazon"], spec(tmp_path))
    seen, train, test = both_parts(family, "amazon", spec(tmp_path))
    assert seen == [*range(12), *range(100, 112)]
    for part in (train, test):
        assert part.inputs.dtype == torch.uint8 and part.inputs.shape[1:] == (3, 8, 8)
        assert part.labels.tolist() == [b // 100 for b in brightness(part)]


def test_the_lists_decide_over_parts_and_the_order_of_classes(family, tmp_path):
    write_domain(tmp_path / "real", classes=("bus", "ant"), count=4)
    (tmp_path / "real_train.txt").write_text("real/bus/0.png 0\nreal/bus/1.png 0\nreal/ant/0.png 1\n\n")
    (tmp_path / "real_test.txt").write_text("real/bus/3.png 0\nreal/ant/2.png 1\n")
    assert family.defaults(tmp_path, {"targets": "art"})["classes"] == "bus,ant"
    given = spec(tmp_path, ("bus", "ant"))
    train, test = (family.load("real", part, given) for part in ("train", "test"))
    assert brightness(train) == [100, 0, 1] and train.labels.tolist() == [1, 0, 0]
    assert brightness(test) == [102, 3] and test.labels.tolist() == [1, 0]


def test_pictures_without_a_class_folder_are_unlabelled(family, tmp_path):
    write_domain(tmp_path / "clinic")
    for number in range(10):
        write(tmp_path / "clinic" / f"{number}.png", 200 + number)
        write(tmp_path / "camera" / f"{number}.jpg")
    assert family.domains_in(tmp_path) == ("camera", "clinic")
    seen, train, test = both_parts(family, "clinic", spec(tmp_path))
    assert len(seen) == 34
    for part in (train, test):
        assert part.labels.tolist() == [-1 if b >= 200 else b // 100 for b in brightness(part)]
    assert not family.load("camera", "train", spec(tmp_path)).labelled


def test_what_is_no_picture_is_passed_over(family, tmp_path):
    write_domain(tmp_path / "photo")
    for name in ("photo/cat/notes.txt", "photo/cat/.hidden.png", "photo/.DS_Store", "readme.txt", "docs/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no picture")
    write(tmp_path / "__MACOSX" / "cat" / "0.png")
    assert family.domains_in(tmp_path) == ("photo",)
    assert len(both_parts(family, "photo", spec(tmp_path))[0]) == 24


def test_pictures_are_brought_to_the_input_shape(family, tmp_path):
    for number in range(8):
        file = tmp_path / "photo" / "cat" / f"{number}.png"
        write(file, size=(40, 10))
        with Image.open(file) as image:
            pixels = np.array(image)
        pixels[:, 15:25] = (0, 200, 0)  # the middle square is what covering 5x5 leaves
        Image.fromarray(pixels).save(file)
    examples = family.load("photo", "train", spec(tmp_path, shape=(3, 5, 5)))
    assert examples.inputs.shape[1:] == (3, 5, 5)
    assert torch.equal(examples.inputs[:, :, 2, 2], torch.tensor([[0, 200, 0]]).expand(len(examples), -1).byte())


# --- parts ---


def part_of(root, domain):
    return {picture.file: picture.part for picture in pictures_of(root, domain)}


def test_a_fifth_is_for_testing_and_more_files_move_none(tmp_path):
    for number in range(1000):
        file = tmp_path / "photo" / "cat" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    before = part_of(tmp_path, "photo")
    assert 150 < list(before.values()).count("test") < 250
    for name in ("0a.png", "zz.png"):
        (tmp_path / "photo" / "cat" / name).touch()
    (tmp_path / "photo" / "dog").mkdir()
    (tmp_path / "photo" / "dog" / "0.png").touch()
    after = part_of(tmp_path, "photo")
    assert len(after) == 1003 and before.items() <= after.items()


def test_the_split_is_the_hash_of_domain_class_and_file(tmp_path):
    """By sha256sum: photo/cat/0.png a510..., 8.png 1d77..., photo/dog/0.png e299..., 9.png 0501...; 3333 is a fifth.

    Another rule would give runs that go on other training pictures.
    """
    for name in ("cat/0.png", "cat/8.png", "dog/0.png", "dog/9.png"):
        write(tmp_path / "photo" / name)
        write(tmp_path / "office" / "photo" / "images" / name)
    for root in (tmp_path, tmp_path / "office"):
        assert [picture.part for picture in pictures_of(root, "photo")] == ["train", "test", "train", "test"]


def test_a_part_may_be_empty_for_testing_but_not_for_training(family, tmp_path):
    file = tmp_path / "photo" / "cat" / "0.png"  # a training picture, and a test picture when it is called 8.png
    write(file)
    assert len(family.load("photo", "train", spec(tmp_path))) == 1
    empty = family.load("photo", "test", spec(tmp_path))
    assert empty.inputs.shape == (0, 3, 8, 8) and len(empty) == 0
    file.rename(file.with_name("8.png"))
    with pytest.raises(DataError, match="none of the 1 pictures of domain 'photo' is for training"):
        family.load("photo", "train", spec(tmp_path))


# --- defaults ---


@pytest.mark.parametrize(
    ("domains", "given", "source"),
    [
        (("art", "photo"), {}, "photo"),
        (("clipart", "real", "sketch"), {}, "real"),
        (("Art", "Real World"), {}, "Real World"),
        (("amazon", "dslr"), {}, "amazon"),
        (("amazon", "dslr"), {"source": "dslr"}, "dslr"),
        (("art", "photo"), {"source": "auto"}, "photo"),
    ],
)
def test_defaults_are_found_in_the_files(family, tmp_path, domains, given, source):
    for domain in domains:
        write_domain(tmp_path / domain, classes=("a", domain), count=1)
    defaults = family.defaults(tmp_path, given)
    assert defaults["source"] == source and defaults["classes"] == ",".join(sorted(("a", source)))
    assert defaults["targets"] == ",".join(domain for domain in domains if domain != source)
    asked = {f"data.{key}": value for key, value in given.items()}
    settings = resolve({"data.name": "image-folders", "data.dir": str(tmp_path), **asked})
    assert (settings.data.source, settings.data.targets) == (source, defaults["targets"])
    assert settings.shape == (3, 96, 96) and settings.class_names == tuple(sorted(("a", source)))


# --- the cache ---


def test_pictures_are_decoded_once_and_again_when_one_is_replaced(family, tmp_path, monkeypatch):
    write_domain(tmp_path / "photo")
    calls = []
    monkeypatch.setattr(image_folders, "decoded", lambda *a, of=image_folders.decoded: calls.append(a) or of(*a))
    first, again = (family.load("photo", "train", spec(tmp_path)) for _ in range(2))
    assert len(calls) == 1 and torch.equal(first.inputs, again.inputs)
    family.load("photo", "train", spec(tmp_path, shape=(3, 6, 6)))
    assert family.load("photo", "train", spec(tmp_path, classes=("dog", "cat"))).labels.tolist() == [
        1 - label for label in first.labels.tolist()
    ]
    file = next(picture.file for picture in pictures_of(tmp_path, "photo") if picture.part == "train")
    write(tmp_path / file, 77)
    assert 77 in brightness(family.load("photo", "train", spec(tmp_path))) and len(calls) == 4


# --- what is refused ---


def test_a_missing_folder_is_refused_with_the_layout(family, tmp_path):
    layout = "ROOT/DOMAIN/CLASS/"
    refused(lambda: family.defaults(), f"give --data-dir.*{layout}")
    refused(lambda: family.domains_in(tmp_path / "absent"), f"absent is no folder.*{layout}")
    refused(lambda: family.domains_in(tmp_path), f"holds no domain.*{layout}")
    write_domain(tmp_path / "photo")
    refused(lambda: family.check(["art"], spec(tmp_path)), "'art' is not in the family .*allowed: photo")
    refused(lambda: family.defaults(tmp_path, {"source": "art"}), "source=art: no such domain.*allowed: photo")


def test_a_domain_given_as_the_root_is_refused(family, tmp_path):
    write_domain(tmp_path / "photo")
    refused(lambda: family.defaults(tmp_path / "photo"), "'cat' .* has 0 class folders, .*labelled source")


def test_one_domain_alone_needs_named_targets(family, tmp_path):
    write_domain(tmp_path / "photo")
    refused(lambda: family.defaults(tmp_path), "holds one domain, photo, and no target.*--targets")
    assert family.defaults(tmp_path, {"targets": "clinic"})["source"] == "photo"


def test_classes_that_the_source_lacks_are_refused(family, tmp_path):
    write_domain(tmp_path / "art", classes=("cat", "dog", "emu"))
    for call in (family.check, lambda domains, spec: family.load(domains[0], "train", spec)):
        refused(lambda call=call: call(["art"], spec(tmp_path)), "'art' has emu beside the 2 classes.*open-set")
    write_domain(tmp_path / "few", classes=("dog",))
    assert set(both_parts(family, "few", spec(tmp_path))[1].labels.tolist()) == {1}


@pytest.mark.parametrize(
    ("folder", "named"), [("a,b/cat", "a,b"), ("photo/cat,big", "cat,big"), ("photo/ cat", " cat")]
)
def test_names_that_a_comma_list_cannot_hold_are_refused(family, tmp_path, folder, named):
    write_domain(tmp_path / "photo")
    write(tmp_path / folder / "0.png")
    refused(lambda: family.defaults(tmp_path, {"targets": "art"}), f"{named} has a comma, or a blank")


def test_another_shape_than_a_picture_is_refused(family, tmp_path):
    write_domain(tmp_path / "photo")
    for shape, text in (((1, 8, 8), "1x8x8"), ((800,), "800")):
        refused(
            lambda shape=shape: family.check(["photo"], spec(tmp_path, shape=shape)), f"input-shape={text}: pictures"
        )


def test_a_damaged_picture_is_named_and_leaves_no_cache(family, tmp_path, cache_folder):
    write_domain(tmp_path / "photo")
    file = next(picture.file for picture in pictures_of(tmp_path, "photo") if picture.part == "train")
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:40])
    refused(lambda: family.load("photo", "train", spec(tmp_path)), f"{file} is damaged or no picture")
    assert list(cache_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("train", "test", "match"),
    [
        ("real/cat/0.png 0\n", None, "one of its lists, but .*real_test.txt is missing"),
        ("real/cat/0.png 0\n", "real/cat/0.png 0\n", "real_test.txt names real/cat/0.png, which is named before"),
        ("real/cat/0.png 0\n", "real/cat/99.png 0\n", "name 2 pictures, but 1 of them are not in .*real/cat/99.png"),
        ("real/cat/0.png\n", "real/dog/0.png 1\n", "real_train.txt, line 1: 'real/cat/0.png' is not real/CLASS/FILE"),
        ("art/cat/0.png 0\n", "real/dog/0.png 1\n", "line 1: .* is not real/CLASS/FILE LABEL"),
        ("real/cat/0.png 0\n", "real/dog/0.png 0\n", "gives label 0 to cat and to dog"),
        ("real/cat/0.png 0\n", "real/cat/1.png 1\n", "give the class cat two labels"),
    ],
)
def test_damaged_lists_are_refused(family, tmp_path, train, test, match):
    write_domain(tmp_path / "real")
    (tmp_path / "real_train.txt").write_text(train)
    if test is not None:
        (tmp_path / "real_test.txt").write_text(test)

    def everything():
        family.check(["real"], spec(tmp_path))
        family.defaults(tmp_path, {"targets": "art"})

    refused(everything, match)


# --- real data ---


@pytest.fixture
def pacs(real_data):
    if not (real_data / "PACS").is_dir():
        pytest.skip(f"no PACS in {real_data}")
    return real_data / "PACS"


def test_pacs_passes_the_check_in_a_second(family, pacs):
    defaults = family.defaults(pacs)
    assert (defaults["source"], defaults["targets"]) == ("photo", "art_painting,cartoon,sketch")
    assert defaults["classes"] == "dog,elephant,giraffe,guitar,horse,house,person"
    start = time.process_time()
    family.check(tuple(PACS_COUNTS), spec(pacs, tuple(defaults["classes"].split(",")), (3, 96, 96)))
    assert time.process_time() - start < 1


def test_pacs_has_each_picture_in_one_part(family, pacs):
    for domain, count in PACS_COUNTS.items():
        pictures = pictures_of(pacs, domain)
        assert len(pictures) == len({picture.file for picture in pictures}) == count
        share = sum(picture.part == "test" for picture in pictures) / count
        assert 0.18 < share < 0.22


def test_pacs_is_read(family, pacs):
    given = spec(pacs, tuple(family.defaults(pacs)["classes"].split(",")), (3, 96, 96))
    photos = family.load("photo", "test", given)
    listed = [picture for picture in pictures_of(pacs, "photo") if picture.part == "test"]
    assert len(photos) == len(listed) and photos.labels.tolist() == [given.classes.index(p.class_name) for p in listed]
    with Image.open(pacs / listed[0].file) as image:
        assert np.array_equal(photos.inputs[0].numpy(), np.asarray(image.convert("RGB")).transpose(2, 0, 1))
