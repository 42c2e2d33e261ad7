"""Pictures and maps of the report from arrays made by hand."""

import numpy as np

from fmtda.face.report.illustration import _coloured, _overlay, embedded


def test_a_label_map_stands_beside_picture_and_truth_with_the_share_of_pixels_that_are_right():
    labels = np.array([[[0, 0], [1, -1]]], dtype=np.int16)
    arrays = {
        "pictures": np.zeros((1, 3, 2, 2), dtype=np.uint8),
        "labels": labels,
        "predicted-before": np.zeros_like(labels),
        "predicted-after": np.maximum(labels, 0),
        "confidence-after": np.array([0.75], dtype=np.float32),
    }
    picture = _overlay(arrays, 0)
    assert list(picture.caption) == ["100 % of pixels right, before 67 %", "sure by 75 %"]
    arrays["labels"] = np.array([-1], dtype=np.int16)
    assert list(_overlay(arrays, 0).caption) == ["sure by 75 %"]


def test_pixels_without_a_label_keep_the_picture():
    picture = np.full((1, 2, 3), 200, dtype=np.uint8)
    coloured = _coloured(picture, np.array([[-1, 0]]))
    assert (coloured[0, 0] == 200).all() and (coloured[0, 1] != 200).any()


def test_a_map_keeps_groups_apart_and_equal_seeds_give_equal_points():
    draws = np.random.default_rng(0)
    features = np.concatenate([draws.normal(0, 1, (40, 16)), draws.normal(30, 1, (40, 16))]).astype(np.float32)
    points = embedded(features, 3)
    assert (points == embedded(features, 3)).all()
    near, far = points[:40], points[40:]
    spread = max(part.std(axis=0).max() for part in (near, far))
    assert np.linalg.norm(near.mean(axis=0) - far.mean(axis=0)) > 2 * spread


def test_collapsed_features_and_a_handful_of_points_have_a_place_too():
    assert (embedded(np.ones((20, 5)), 0) == 0).all()
    assert embedded(np.random.default_rng(0).normal(size=(5, 4)), 0).shape == (5, 2)
