"""The embedded street scenes: geometry and drawing against cases computed by hand, and what the family promises."""

import itertools

import numpy as np
import pytest
import torch

from fmtda.domains import streets
from fmtda.domains.examples import DataError
from fmtda.domains.family import DataSpec
from fmtda.domains.street_looks import LOOKS, Look, render
from fmtda.domains.street_scenes import HEIGHT, WIDTH, StreetScene, draw_scene
from fmtda.domains.street_shapes import CLASS_OF, CLASSES, Camera, Shape
from fmtda.domains.streets import COUNTS, LAYOUTS, Streets

SOME = {"train": 24, "test": 8}
SKY, BUILDING, POLE = (CLASSES.index(name) for name in ("sky", "building", "pole"))
CAMERA = Camera(height=1.5, focal=60, column=48, horizon=30, bend=0)


@pytest.fixture
def family():
    return Streets()


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """Fewer examples of every domain and part, drawn once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMTDA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(streets, "COUNTS", SOME)
        pairs = itertools.product(LAYOUTS, SOME)
        return {(domain, part): Streets().load(domain, part, DataSpec(seed=0)) for domain, part in pairs}


# --- what a camera sees ---


def test_a_point_is_projected_as_by_a_pinhole():
    assert CAMERA.project(0, 1.5, 7) == (48, 30)  # at the camera's height: on the horizon
    assert CAMERA.project(2, 0, 10) == (48 + 60 * 2 / 10, 30 + 60 * 1.5 / 10)
    bent = Camera(height=1.5, focal=60, column=48, horizon=30, bend=0.001)
    assert bent.project(2, 0, 10) == pytest.approx((60 + 60 * 0.001 * 10, 39))


def test_a_row_tells_the_distance_of_its_ground():
    assert CAMERA.distance(np.array([39.0, 30.0, 12.0])).tolist() == pytest.approx([10, np.inf, np.inf])
    far = np.array([3.0, 25.0, 80.0])
    rows = np.array([CAMERA.project(1, 0, z)[1] for z in far])
    assert CAMERA.distance(rows) == pytest.approx(far)


@pytest.mark.parametrize("domain", LAYOUTS)
def test_what_stands_farther_away_is_drawn_first(domain):
    depths = [shape.depth for shape in draw_scene(LAYOUTS[domain], np.random.default_rng(0)).shapes]
    solid = [depth for depth in depths if depth is not None]
    assert depths[: len(depths) - len(solid)] == [None] * (len(depths) - len(solid))
    assert len(solid) > 50 and solid == sorted(solid, reverse=True) and solid[-1] > 1


# --- drawing ---


def plain(**settings):
    """A look of flat colours: all materials grey, but walls red and signs from red to green."""
    palette = {material: ((100, 100, 100),) for material in CLASS_OF}
    palette |= {"wall": ((200, 0, 50),), "sign": ((100, 0, 0), (0, 100, 0))}
    return Look(palette, sky=((0, 0, 255), (0, 0, 255)), **settings)


def rectangle(left, top, right, bottom, material, depth=5.0, tone=0.5, shade=1.0):
    return Shape(((left, top), (right, top), (right, bottom), (left, bottom)), material, tone, depth, shade)


def drawn(look, *shapes):
    return render(StreetScene(CAMERA, shapes), look, np.random.default_rng(0))


def colour(look, *shapes, row=12, column=12):
    return drawn(look, *shapes)[0][:, row, column].astype(float)


def test_shapes_are_drawn_in_place_with_their_colour_and_class():
    picture, labels = drawn(plain(), rectangle(10, 5, 20, 15, "wall", 30), rectangle(14, 0, 16, 64, "post", 8))
    assert picture.shape == (3, HEIGHT, WIDTH) and labels.shape == (HEIGHT, WIDTH)
    for row, column, expected, label in (
        (10, 12, (200, 0, 50), BUILDING),
        (10, 15, (100, 100, 100), POLE),
        (2, 12, (0, 0, 255), SKY),
        (10, 22, (0, 0, 255), SKY),
    ):
        assert (tuple(picture[:, row, column]), labels[row, column]) == (expected, label)
    walls = np.count_nonzero(labels == BUILDING)
    assert walls == pytest.approx(10 * 10 - 2 * 10, abs=12)  # give or take its edges


@pytest.mark.parametrize(
    "tone, shade, expected",
    [(0, 1, (100, 0, 0)), (0.5, 1, (50, 50, 0)), (1, 1, (0, 100, 0)), (1, 0.5, (0, 50, 0))],
)
def test_a_tone_lies_between_the_materials_colours_and_shade_darkens_it(tone, shade, expected):
    sign = Shape(((0, 0), (40, 40)), "sign", tone, 5, shade, ellipse=True)
    assert tuple(colour(plain(), sign)) == expected


def test_light_tints_what_does_not_shine_and_not_the_sky():
    look = plain(light=(0.5, 0.5, 1.0), lit={"lamp": (0.6, (255, 220, 160))})
    assert tuple(colour(look, rectangle(5, 5, 20, 20, "wall"))) == (100, 0, 50)
    assert tuple(colour(look)) == (0, 0, 255)
    assert tuple(colour(look, rectangle(5, 5, 20, 20, "lamp", tone=0.5))) == (255, 220, 160)
    assert tuple(colour(look, rectangle(5, 5, 20, 20, "lamp", tone=0.7))) == (50, 50, 100), (
        "beyond the share that is lit"
    )


def test_light_spreads_around_a_lamp_unless_something_hides_it():
    look = plain(lit={"lamp": (1.0, (255, 255, 255))}, glow=1.0)
    lamp, wall = rectangle(10, 10, 14, 14, "lamp", 20), rectangle(5, 5, 30, 30, "wall", 5)
    beside = colour(look, lamp, row=12, column=17)
    assert (beside[:2] > 10).all()
    assert tuple(colour(look, lamp, wall, row=12, column=17)) == (200, 0, 50)


def test_haze_hides_by_a_power_of_the_distance():
    """Koschmieder: exp(-0.05 d) of the contrast against the sky is left, of the ground as of what stands on it."""
    look, sky = plain(haze=(0.05, 0.05)), np.array([0, 0, 255])
    for depth in (4, 8, 40):
        expected = sky + np.exp(-0.05 * depth) * (np.array([200, 0, 50]) - sky)
        assert colour(look, rectangle(5, 5, 20, 20, "wall", depth)) == pytest.approx(expected, abs=0.5)
    ground = Shape(((0, 30), (WIDTH, 30), (WIDTH, HEIGHT), (0, HEIGHT)), "asphalt", 0.5)
    # Row 39 is averaged over rows 39.25 and 39.75, whose ground is 60 x 1.5 / 9.25 and / 9.75 metres away.
    left = np.mean([np.exp(-0.05 * 60 * 1.5 / below) for below in (9.25, 9.75)])
    assert colour(look, ground, row=39) == pytest.approx(sky + left * (100 - sky), abs=0.5)


def test_texture_is_on_rough_materials_alone():
    look = plain(texture=0.2)
    wall, pane = (drawn(look, rectangle(0, 0, 40, 25, material))[0][0, 2:22, 2:38] for material in ("wall", "window"))
    assert wall.std() > 5 and wall.mean() == pytest.approx(200, abs=10) and pane.std() == 0


def test_a_look_changes_pictures_and_never_labels():
    scene = draw_scene(LAYOUTS["game"], np.random.default_rng(5))
    seen = [render(scene, look, np.random.default_rng(1)) for look in LOOKS.values()]
    for (one, labels), (other, same) in itertools.combinations(seen, 2):
        assert np.array_equal(labels, same)
        assert np.abs(one.astype(int) - other).mean() > 10


# --- the family ---


def test_a_part_has_its_number_of_pictures_and_label_maps(family):
    assert COUNTS == {"train": 200, "test": 100}
    examples = family.load("palette", "test", DataSpec(seed=1))
    assert examples.inputs.shape == (100, 3, HEIGHT, WIDTH) and examples.inputs.dtype == torch.uint8
    assert examples.labels.shape == (100, HEIGHT, WIDTH) and examples.labels.dtype == torch.int8


def shares(examples):
    return torch.bincount(examples.labels.flatten().int(), minlength=len(CLASSES)) / examples.labels.numel()


@pytest.mark.parametrize("domain", LAYOUTS)
def test_every_class_is_in_every_domain_and_no_pixel_is_void(some, domain):
    for part in SOME:
        labels = some[domain, part].labels
        assert labels.min() == 0 and labels.max() == len(CLASSES) - 1
        assert shares(some[domain, part]).min() > 0.002


def test_classes_are_as_frequent_in_all_domains(some):
    """Half the sum of differences: the share of pixels that would have to change class."""
    source = shares(some["game", "train"])
    for domain in LAYOUTS:
        assert (shares(some[domain, "train"]) - source).abs().sum() / 2 < 0.1


def test_a_seed_fixes_every_pixel_and_another_seed_changes_them(family, monkeypatch, cache_folder):
    monkeypatch.setattr(streets, "COUNTS", {"train": 3})
    for domain in family.domains:
        monkeypatch.setenv("FMTDA_CACHE", str(cache_folder / "first"))
        first = family.load(domain, "train", DataSpec(seed=3))
        monkeypatch.setenv("FMTDA_CACHE", str(cache_folder / "second"))
        again = family.load(domain, "train", DataSpec(seed=3))
        other = family.load(domain, "train", DataSpec(seed=4))
        assert torch.equal(first.inputs, again.inputs) and torch.equal(first.labels, again.labels)
        assert not torch.equal(first.inputs, other.inputs) and not torch.equal(first.labels, other.labels)


def test_no_scene_is_in_two_parts_or_domains(some):
    maps = torch.cat([examples.labels.flatten(1) for examples in some.values()])
    assert len(maps) == len(LAYOUTS) * sum(SOME.values())
    nearest = min(int((maps[:place] != maps[place]).sum(1).min()) for place in range(1, len(maps)))
    assert nearest > 0.03 * maps.shape[1], "two scenes share nearly all of their labels"


def test_domains_look_as_they_are_called(some):
    mean = {domain: some[domain, "train"].inputs.float().mean() for domain in LAYOUTS}
    contrast = {domain: some[domain, "train"].inputs.float().flatten(1).std(dim=1).mean() for domain in LAYOUTS}
    assert mean["dusk"] < 0.6 * mean["game"]
    assert contrast["fog"] < 0.8 * contrast["game"]
    inside = some["game", "train"].inputs[:, :, -8:, WIDTH // 4].float()  # road, below everything else
    rough = some["palette", "train"].inputs[:, :, -8:, WIDTH // 4].float()
    assert rough.std(dim=2).mean() > 3 * inside.std(dim=2).mean()


def test_what_the_family_does_not_have_is_refused(family):
    with pytest.raises(DataError, match="'night' is not in the family 'streets'; allowed: game, palette, dusk, fog"):
        family.check(["night"], DataSpec())
    with pytest.raises(DataError, match="can't be set to .*; leave it at auto"):
        family.load("fog", "test", DataSpec(input_shape=(3, 32, 32)))
