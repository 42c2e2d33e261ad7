"""Scene folders: each layout out of tiny files made here, label ids, what is refused, and the real CamVid."""

import time

import numpy as np
import pytest
import torch
from PIL import Image

from fmtda.domains import scene_folders
from fmtda.domains.examples import DataError
from fmtda.domains.family import DataSpec
from fmtda.domains.label_ids import CAMVID, CITYSCAPES, lookup_table
from fmtda.domains.scene_folders import SceneFolders
from fmtda.domains.scene_layouts import layout_of
from fmtda.strategies.composition import resolve
from tests.domains.refusals import refused

CAMVID_CLASSES, CITY_CLASSES = tuple(CAMVID.values()), tuple(CITYSCAPES.values())
CAMVID_COUNTS = {"0016E5": (305, 91), "0006R0": (101, 30), "0001TP": (124, 37), "Seq05VD": (171, 51)}


@pytest.fixture
def family():
    return SceneFolders()


def write(file, brightness=100, size=(8, 6)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (brightness, 0, 255 - brightness)).save(file)


def write_map(file, ids, palette=False):
    file.parent.mkdir(parents=True, exist_ok=True)
    label_map = Image.fromarray(np.asarray(ids, dtype=np.uint8))
    if palette:
        label_map.putpalette([(7 * value) % 256 for value in range(768)])
    label_map.save(file)


def ids_of(value, size=(8, 6)):
    return np.full(size[::-1], value, dtype=np.uint8)


def spec(root, classes=CITY_CLASSES, shape=(3, 6, 8)):
    return DataSpec(root, 0, classes, shape)


def brightness(examples):
    return examples.inputs[:, 0, 3, 4].tolist()


def labels_seen(examples):
    return [sorted(set(labels.flatten().tolist())) for labels in examples.labels]


def both_parts(family, domain, given):
    return tuple(family.load(domain, part, given) for part in ("train", "test"))


def write_camvid(root, counts, label=3):
    """Frames dealt to the three official parts in turn; the brightness is the frame's number."""
    for sequence, count in counts.items():
        for number in range(count):
            part = ("train", "val", "test")[number % 3]
            write(root / part / f"{sequence}_{number:05}.png", number)
            write_map(root / f"{part}annot" / f"{sequence}_{number:05}.png", ids_of(label))


def write_city_set(root, label=7):
    for number in range(60):
        write(root / "gta5" / "images" / f"{number:05}.png", number)
        write_map(root / "gta5" / "labels" / f"{number:05}.png", ids_of(label), palette=True)
    for city, part, value in (("aachen", "train", 1), ("bochum", "train", 2), ("lindau", "val", 3)):
        write(root / "cityscapes" / "leftImg8bit" / part / city / f"{city}_000000_000019_leftImg8bit.png", value)
        maps = root / "cityscapes" / "gtFine" / part / city
        write_map(maps / f"{city}_000000_000019_gtFine_labelIds.png", ids_of(label))
        write_map(maps / f"{city}_000000_000019_gtFine_instanceIds.png", ids_of(26))
    for city, ending in (("Rome", "_eval"), ("Rio", "")):
        for number in range(3):
            write(root / "crosscity" / city / "Images" / "Train" / f"pano_{number}.png", number)
            write(root / "crosscity" / city / "Images" / "Test" / f"pano_{9 - number}.png", 10 + number)
            write_map(root / "crosscity" / city / "Labels" / "Test" / f"pano_{9 - number}{ending}.png", ids_of(label))


def write_own(root, domain, count=10, classes=("road", "tram"), label=1):
    (root / "classes.txt").write_text("\n".join(classes) + "\n")
    for number in range(count):
        write(root / domain / "images" / f"{number:03}.jpg", number)
        write_map(root / domain / "labels" / f"{number:03}.png", ids_of(label))


# --- label ids ---


def test_cityscapes_ids_are_its_19_train_ids():
    """The train id of each of the 34 label ids, as the data set's authors number them; 255 is ignored."""
    train_ids = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13}
    train_ids |= {27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
    table = lookup_table(CITYSCAPES, CITY_CLASSES)
    assert table.dtype == np.int8 and table.tolist() == [train_ids.get(value, -1) for value in range(256)]
    assert [CITY_CLASSES[i] for i in (0, 6, 10, 18)] == ["road", "traffic light", "sky", "bicycle"]


def test_camvid_ids_are_kept_and_11_is_void():
    table = lookup_table(CAMVID, CAMVID_CLASSES)
    assert table[:13].tolist() == [*range(11), -1, -1] and set(table[13:].tolist()) == {-1}
    assert (CAMVID_CLASSES[0], CAMVID_CLASSES[8], CAMVID_CLASSES[10]) == ("sky", "car", "bicyclist")


def test_labels_follow_the_order_of_the_classes_and_the_rest_is_void():
    table = lookup_table(CITYSCAPES, ("car", "road"))
    assert (table[26], table[7], table[8], table[0]) == (0, 1, -1, -1)


# --- layouts ---


def test_camvid_is_read_by_sequence_and_split_in_time(family, tmp_path):
    write_camvid(tmp_path, {"0016E5": 20, "0001TP": 7})
    given = spec(tmp_path, CAMVID_CLASSES)
    assert family.domains_in(tmp_path) == ("0001TP", "0016E5")
    family.check(["0001TP", "0016E5"], given)
    train, test = both_parts(family, "0016E5", given)
    assert (brightness(train), brightness(test)) == ([*range(14)], [*range(14, 20)])
    train, test = both_parts(family, "0001TP", given)
    assert (brightness(train), brightness(test)) == ([*range(5)], [5, 6])
    assert train.inputs.dtype == torch.uint8 and train.inputs.shape == (5, 3, 6, 8)
    assert train.labels.dtype == torch.int8 and train.labels.shape == (5, 6, 8)
    assert labels_seen(train) == 5 * [[3]]


def test_gta5_palette_maps_are_read_as_ids(family, tmp_path):
    write_city_set(tmp_path, label=26)
    train, test = both_parts(family, "gta5", spec(tmp_path))
    assert sorted(brightness(train) + brightness(test)) == [*range(60)]
    assert 0 < len(test) < 20
    assert labels_seen(train) == len(train) * [[13]]


def test_the_split_of_gta5_is_the_hash_of_its_name(tmp_path):
    """By sha256sum: gta5/00001 is 086b..., gta5/00002 is 9df7...; 1999 is a tenth."""
    for name in ("00001", "00002"):
        write(tmp_path / "gta5" / "images" / f"{name}.png")
    assert [scene.part for scene in layout_of(tmp_path).scenes_of("gta5")] == ["test", "train"]


def test_cityscapes_keeps_its_own_parts(family, tmp_path):
    write_city_set(tmp_path, label=33)
    train, test = both_parts(family, "cityscapes", spec(tmp_path))
    assert (brightness(train), brightness(test)) == ([1, 2], [3])
    assert labels_seen(train) + labels_seen(test) == 3 * [[18]]


@pytest.mark.parametrize("city", ["rome", "rio"])
def test_crosscity_trains_unlabelled_and_tests_labelled(family, tmp_path, city):
    write_city_set(tmp_path, label=25)
    train, test = both_parts(family, city, spec(tmp_path))
    assert brightness(train) == [0, 1, 2] and not train.labelled and train.labels.shape == (3, 6, 8)
    assert brightness(test) == [12, 11, 10] and labels_seen(test) == 3 * [[12]]


def test_own_scenes_are_read_with_their_classes(family, tmp_path):
    write_own(tmp_path, "tram")
    write_map(tmp_path / "tram" / "labels" / "000.png", [[0, 1, 2, 255]])
    write(tmp_path / "tram" / "images" / "000.jpg", 0, size=(4, 1))
    (tmp_path / "tram" / "labels" / "001.png").unlink()
    train, test = both_parts(family, "tram", spec(tmp_path, ("tram", "road"), (3, 1, 4)))
    assert len(train) == 7 and len(test) == 3
    assert train.labels[0].tolist() == [[1, 0, -1, -1]]
    assert labels_seen(train)[1:] == [[-1]] + 5 * [[0]]


def test_a_client_with_pictures_alone_needs_no_classes(family, tmp_path):
    for number in range(4):
        write(tmp_path / "car7" / "images" / f"{number}.png", number)
    given = spec(tmp_path, ("road", "moon"))
    family.check(["car7"], given)
    train, test = both_parts(family, "car7", given)
    assert (brightness(train), brightness(test)) == ([0, 1, 2], [3]) and not train.labelled


@pytest.mark.parametrize("folder", ["gta5/labels", "cityscapes/gtFine", "trainannot"])
def test_official_pictures_without_any_label_map_are_unlabelled(family, tmp_path, folder):
    write(tmp_path / "gta5" / "images" / "00002.png")
    write(tmp_path / "cityscapes" / "leftImg8bit" / "train" / "ulm" / "ulm_0_leftImg8bit.png")
    if folder == "trainannot":
        write(tmp_path / "train" / "drive_1.png")
    domain = {"trainannot": "drive"}.get(folder, folder.partition("/")[0])
    classes = CAMVID_CLASSES if domain == "drive" else CITY_CLASSES
    examples = family.load(domain, "train", spec(tmp_path, classes))
    assert len(examples) == 1 and not examples.labelled


def test_what_is_no_picture_is_passed_over(family, tmp_path):
    write_own(tmp_path, "tram")
    for name in ("tram/images/notes.txt", "tram/images/.hidden.png", "tram/labels/a.json", "docs/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no picture")
    write(tmp_path / "__MACOSX" / "images" / "0.png")
    assert family.domains_in(tmp_path) == ("tram",)
    assert sum(map(len, both_parts(family, "tram", spec(tmp_path, ("road",))))) == 10


# --- sizes ---


def test_pictures_and_maps_are_brought_to_the_input_shape(family, tmp_path):
    """Halved: a picture's 2x2 blocks are averaged over their neighbourhood, a map's are one of their own ids."""
    write_own(tmp_path, "tram", count=1)
    ids = np.kron([[0, 1, 2], [1, 0, 1]], np.ones((2, 2)))
    write_map(tmp_path / "tram" / "labels" / "000.png", ids)
    columns = np.zeros((4, 6, 3), dtype=np.uint8)
    columns[:, ::2] = 200
    (tmp_path / "tram" / "images" / "000.jpg").unlink()
    Image.fromarray(columns).save(tmp_path / "tram" / "images" / "000.png")
    examples = family.load("tram", "train", spec(tmp_path, ("road", "tram"), (3, 2, 3)))
    assert examples.labels[0].tolist() == [[0, 1, -1], [1, 0, 1]]
    middle = examples.inputs[0, :, :, 1].float()
    assert ((middle - 100).abs() <= 1).all()  # antialiasing: stripes of 0 and 200 don't survive


def test_a_picture_of_the_right_size_is_unchanged(family, tmp_path):
    write_own(tmp_path, "tram", count=1)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    ids = np.random.default_rng(1).integers(0, 2, (6, 8), dtype=np.uint8)
    (tmp_path / "tram" / "images" / "000.jpg").unlink()
    Image.fromarray(pixels).save(tmp_path / "tram" / "images" / "000.png")
    write_map(tmp_path / "tram" / "labels" / "000.png", ids)
    examples = family.load("tram", "train", spec(tmp_path, ("road", "tram")))
    assert np.array_equal(examples.inputs[0].numpy(), pixels.transpose(2, 0, 1))
    assert np.array_equal(examples.labels[0].numpy(), ids)


def test_a_part_may_be_empty_for_testing_but_not_for_training(family, tmp_path):
    write_own(tmp_path, "tram", count=1)
    empty = family.load("tram", "test", spec(tmp_path, ("road",)))
    assert empty.inputs.shape == (0, 3, 6, 8) and empty.labels.shape == (0, 6, 8) and len(empty) == 0
    write(tmp_path / "city" / "cityscapes" / "leftImg8bit" / "val" / "ulm" / "ulm_0_leftImg8bit.png")
    with pytest.raises(DataError, match="none of the 1 scenes of domain 'cityscapes' is for training"):
        family.load("cityscapes", "train", spec(tmp_path / "city"))


# --- defaults ---


def defaults_fit(family, root, given=None):
    defaults = family.defaults(root, given)
    asked = {f"data.{key}": value for key, value in (given or {}).items()}
    settings = resolve({"data.name": "scene-folders", "data.dir": str(root), **asked})
    family.check([settings.data.source], spec(root, settings.class_names, settings.shape))
    return defaults["source"], defaults["targets"], settings.class_names


def test_defaults_of_camvid(family, tmp_path):
    write_camvid(tmp_path, dict.fromkeys([*CAMVID_COUNTS, "0099XX"], 3))
    assert defaults_fit(family, tmp_path) == ("0016E5", "0006R0,0001TP,Seq05VD,0099XX", CAMVID_CLASSES)
    assert defaults_fit(family, tmp_path, {"source": "0001TP"})[:2] == ("0001TP", "0016E5,0006R0,Seq05VD,0099XX")
    assert family.defaults(tmp_path)["input-shape"] == "3x180x240"


def test_defaults_of_the_city_sets(family, tmp_path):
    write_city_set(tmp_path)
    assert defaults_fit(family, tmp_path) == ("gta5", "cityscapes,rio,rome", CITY_CLASSES)
    assert defaults_fit(family, tmp_path, {"source": "cityscapes"})[:2] == ("cityscapes", "gta5,rio,rome")


def test_defaults_of_own_scenes_take_a_labelled_source(family, tmp_path):
    write(tmp_path / "bus" / "images" / "0.png")
    write_own(tmp_path, "tram")
    assert defaults_fit(family, tmp_path) == ("tram", "bus", ("road", "tram"))


# --- the cache ---


def test_scenes_are_decoded_once_and_again_when_a_map_is_replaced(family, tmp_path, monkeypatch):
    write_own(tmp_path, "tram")
    calls = []
    monkeypatch.setattr(scene_folders, "decoded", lambda *a, of=scene_folders.decoded: calls.append(a) or of(*a))
    given = spec(tmp_path, ("road", "tram"))
    first, again = (family.load("tram", "train", given) for _ in range(2))
    assert len(calls) == 1 and torch.equal(first.labels, again.labels) and labels_seen(first)[0] == [1]
    write_map(tmp_path / "tram" / "labels" / "000.png", np.eye(6, 8))
    assert labels_seen(family.load("tram", "train", given))[0] == [0, 1] and len(calls) == 2
    (tmp_path / "classes.txt").write_text("tram\nroad\n")
    assert labels_seen(family.load("tram", "train", given))[1] == [0] and len(calls) == 3


# --- what is refused ---


def test_a_missing_folder_is_refused_with_the_layouts(family, tmp_path):
    refused(lambda: family.defaults(), "give --data-dir.*CamVid.*classes.txt")
    refused(lambda: family.domains_in(tmp_path / "absent"), "absent is no folder.*CamVid")
    refused(lambda: family.domains_in(tmp_path), "holds no scenes; .*CamVid")
    write_own(tmp_path, "tram")
    refused(lambda: family.check(["bus"], spec(tmp_path)), "'bus' is not in the family .*allowed: tram")
    refused(lambda: family.defaults(tmp_path, {"source": "bus"}), "source=bus: no such domain.*allowed: tram")
    refused(lambda: family.defaults(tmp_path), "holds one domain, tram; .*--targets")
    assert family.defaults(tmp_path, {"targets": "bus"})["source"] == "tram"


def test_an_empty_domain_is_refused(family, tmp_path):
    (tmp_path / "bus" / "images").mkdir(parents=True)
    refused(lambda: family.check(["bus"], spec(tmp_path)), "'bus' has no picture in")


def test_a_name_with_a_comma_is_refused(family, tmp_path):
    write_own(tmp_path, "tram,bus")
    refused(lambda: family.domains_in(tmp_path), "'tram,bus' in .* has a comma")


@pytest.mark.parametrize(
    ("missing", "domain", "classes"),
    [
        ("gta5/labels/00007.png", "gta5", CITY_CLASSES),
        (
            "cityscapes/gtFine/train/bochum/bochum_000000_000019_gtFine_labelIds.png",
            "cityscapes",
            CITY_CLASSES,
        ),
        ("crosscity/Rome/Labels/Test/pano_8_eval.png", "rome", CITY_CLASSES),
        ("camvid/valannot/0016E5_00004.png", "0016E5", CAMVID_CLASSES),
    ],
)
def test_a_missing_label_map_is_refused(family, tmp_path, missing, domain, classes):
    write_city_set(tmp_path)
    write_camvid(tmp_path / "camvid", {"0016E5": 6})
    (tmp_path / missing).unlink()
    root = tmp_path / "camvid" if domain == "0016E5" else tmp_path
    refused(lambda: family.check([domain], spec(root, classes)), f"'{domain}' .* 1 of them have no label map, .*anew")


def test_a_frame_in_two_official_parts_is_refused(family, tmp_path):
    write_camvid(tmp_path, {"0016E5": 3})
    write(tmp_path / "val" / "0016E5_00000.jpg")
    refused(lambda: family.check(["0016E5"], spec(tmp_path, CAMVID_CLASSES)), "are the same frame of 0016E5; remove")


def test_label_maps_without_classes_are_refused(family, tmp_path):
    write_own(tmp_path, "tram")
    (tmp_path / "classes.txt").unlink()
    refused(lambda: family.check(["tram"], spec(tmp_path)), "'tram' has label maps, but there is no .*classes.txt")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"road\n\ntram\n", "classes.txt, line 2: '' is empty"),
        (b"road\ntram, bus\n", "line 2: 'tram, bus' .* has a comma"),
        (b"road\ntram\nroad\n", "line 3: 'road' .* is there twice"),
        (b"road\n", "has 1 class names; allowed are 2 to 127"),
        ("\n".join(map(str, range(128))).encode(), "has 128 class names; allowed are 2 to 127"),
        (b"road\n\xff\xfe\n", "can't be read as UTF-8 text"),
    ],
)
def test_damaged_classes_are_refused(family, tmp_path, content, match):
    write_own(tmp_path, "tram")
    (tmp_path / "classes.txt").write_bytes(content)
    refused(lambda: family.domains_in(tmp_path), match)


def test_classes_that_the_maps_do_not_know_are_refused(family, tmp_path):
    write_own(tmp_path, "tram")
    refused(
        lambda: family.check(["tram"], spec(tmp_path, ("road", "moon"))), "'tram' know no class moon; allowed: road,"
    )
    many = tuple(map(str, range(128)))
    refused(lambda: family.check(["tram"], spec(tmp_path, many)), "128 classes given; scenes have at most 127")


@pytest.mark.parametrize(("shape", "text"), [((1, 8, 8), "1x8x8"), ((800,), "800")])
def test_another_shape_than_a_picture_is_refused(family, tmp_path, shape, text):
    write_own(tmp_path, "tram")
    refused(lambda: family.check(["tram"], spec(tmp_path, ("road",), shape)), f"input-shape={text}: pictures are 3x")


@pytest.mark.parametrize("damaged", ["images/000.jpg", "labels/000.png"])
def test_a_damaged_file_is_named_and_leaves_no_cache(family, tmp_path, cache_folder, damaged):
    write_own(tmp_path, "tram")
    file = tmp_path / "tram" / damaged
    file.write_bytes(file.read_bytes()[:40])
    refused(lambda: family.load("tram", "train", spec(tmp_path, ("road",))), f"{damaged} is damaged or no picture")
    assert list(cache_folder.iterdir()) == []


def test_a_map_of_colours_or_of_another_picture_is_refused(family, tmp_path):
    write_own(tmp_path, "tram")
    write(tmp_path / "tram" / "labels" / "000.png")
    refused(lambda: family.load("tram", "train", spec(tmp_path, ("road",))), "000.png has the mode RGB; .* 8-bit PNG")
    write_map(tmp_path / "tram" / "labels" / "000.png", ids_of(0, size=(6, 8)))
    refused(lambda: family.load("tram", "train", spec(tmp_path, ("road",))), "000.png is 6x8 and its picture 8x6; mend")


# --- real data ---


@pytest.fixture
def camvid(real_data):
    if not (real_data / "CamVid").is_dir():
        pytest.skip(f"no CamVid in {real_data}")
    return real_data / "CamVid"


def test_camvid_passes_the_check_in_a_second(family, camvid):
    defaults = family.defaults(camvid)
    assert (defaults["source"], defaults["targets"]) == ("0016E5", "0006R0,0001TP,Seq05VD")
    start = time.process_time()
    family.check(tuple(CAMVID_COUNTS), spec(camvid, CAMVID_CLASSES, (3, 180, 240)))
    assert time.process_time() - start < 1


@pytest.mark.parametrize("domain", CAMVID_COUNTS)
def test_camvid_has_each_frame_in_one_part_and_the_test_part_is_later(camvid, domain):
    scenes = layout_of(camvid).scenes_of(domain)
    names = {part: [scene.picture.stem for scene in scenes if scene.part == part] for part in ("train", "test")}
    assert (len(scenes), len(names["test"])) == CAMVID_COUNTS[domain]
    assert max(names["train"]) < min(names["test"])


def test_camvid_is_read(family, camvid):
    examples = family.load("0006R0", "test", spec(camvid, CAMVID_CLASSES, (3, 180, 240)))
    scenes = [scene for scene in layout_of(camvid).scenes_of("0006R0") if scene.part == "test"]
    assert examples.inputs.shape == (30, 3, 180, 240) and examples.labels.shape == (30, 180, 240)
    with Image.open(scenes[0].picture) as image, Image.open(scenes[0].label_map) as label_map:
        assert np.array_equal(examples.inputs[0].numpy(), np.asarray(image.convert("RGB")).transpose(2, 0, 1))
        ids = np.asarray(label_map).astype(int)
    assert np.array_equal(examples.labels[0].numpy(), np.where(ids == 11, -1, ids))
    share = np.bincount(examples.labels.flatten() + 1, minlength=12) / examples.labels.numel()
    assert (share[1:] > 0).sum() >= 9 and share[CAMVID_CLASSES.index("road") + 1] > 0.15
