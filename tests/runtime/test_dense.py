"""RoMa's sampler and the dense warp in pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from matchrt.errors import MatchRTError
from matchrt.runtime.dense import DenseMatches, balance, density, draw, precision_in_pixels, without_padding
from matchrt.runtime.fit import fit_square
from matchrt.runtime.match_data import ImageRef


def _dense(certainty: np.ndarray, size: tuple[int, int] = (100, 200)) -> DenseMatches:
    height, width = certainty.shape
    x, y = np.meshgrid((np.arange(width) * 2 + 1) / width - 1, (np.arange(height) * 2 + 1) / height - 1)
    warp = np.stack([x, y, -x, y], axis=2).astype(np.float32)
    return DenseMatches(warp, certainty.astype(np.float32), ImageRef("a", *size), ImageRef("b", *size))


@pytest.mark.parametrize("case", ["real_280_448", "real_560_864"])
def test_density_and_pixels_are_the_official_ones(shared: Path, case: str) -> None:
    vectors = np.load(shared / "reference" / "matchanything_roma.npz")
    rows = vectors[f"{case}/kde_in"]
    expected = vectors[f"{case}/kde_density"]
    assert np.abs(density(rows) - expected).max() <= 1e-3 * expected.max()
    size = vectors["real/rgb0"].shape[:2]
    dense = DenseMatches(rows[None], np.ones((1, len(rows))), ImageRef("a", *size), ImageRef("b", *size))
    for points, name in zip(dense.to_pixels(rows), ("pixel0", "pixel1"), strict=True):
        # The official code has pixel centres at .5.
        assert np.abs(points + 0.5 - vectors[f"{case}/{name}"]).max() <= 1e-3


def test_drawing_is_proportional_and_without_replacement() -> None:
    weights = np.array([0.0, 1.0, 2.0, 4.0])
    counts = np.zeros(4)
    generator = np.random.default_rng(0)
    for _ in range(4000):
        counts[draw(weights, 1, generator)] += 1
    assert counts[0] == 0 and np.abs(counts / 4000 - weights / 7).max() < 0.03
    assert sorted(draw(weights, 10, generator).tolist()) == [1, 2, 3]


def test_what_stands_alone_is_hardly_drawn_and_crowds_are_evened_out() -> None:
    weights = balance(np.array([1.0, 9.9, 10.0, 99.0]))
    assert np.allclose(weights, [1e-7, 1e-7, 1 / 11, 1 / 100])


def test_sample_is_reproducible_sorted_and_in_pixels() -> None:
    certainty = np.linspace(0, 1, 40 * 80).reshape(40, 80)
    dense = _dense(certainty)
    first, second = dense.sample(300, seed=4), dense.sample(300, seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    keypoints0, keypoints1, scores = first
    assert keypoints0.shape == (300, 2) and (np.diff(scores) <= 0).all() and keypoints0.dtype == np.float32
    assert np.allclose(keypoints0[:, 0] + keypoints1[:, 0], 199.0, atol=1e-3)  # the warp mirrors x
    assert len(dense.sample(10**6)[2]) == int((certainty > 0).sum())
    assert len(_dense(np.zeros((8, 8))).sample(5)[2]) == 0


def test_a_warp_of_padded_images_is_brought_back_to_the_images() -> None:
    """Image 0 is 60 x 100 in a square of 100, image 1 fills its square."""
    fits = fit_square((60, 100), (50, 50)), fit_square((80, 80), (50, 50))
    dense = _dense(np.ones((50, 50)))
    warp, certainty = without_padding(dense.warp, dense.certainty, fits)
    back = DenseMatches(warp, certainty, ImageRef("a", 60, 100), ImageRef("b", 80, 80))
    points0, points1 = back.to_pixels(warp)
    columns, rows = np.meshgrid(np.arange(50), np.arange(50))
    assert np.abs(points0 - np.stack([columns * 2 + 0.5, rows * 2 + 0.5], axis=2)).max() < 1e-4
    assert np.abs(points1[..., 0] - ((49 - columns + 0.5) * 1.6 - 0.5)).max() < 1e-4
    assert (certainty[:30] == 1).all() and (certainty[30:] == 0).all()
    assert fits[0].to_original(np.array([[10.0, 20.0]])).tolist() == [[20.5, 40.5]]
    inside = back.image0.holds(np.array([[99.4, 59.4], [99.6, 10.0], [10.0, 59.6], [-0.6, 0.0], [np.nan, 0.0]]))
    assert inside.tolist() == [True, False, False, False, True]


def test_a_precision_is_that_of_errors_in_the_other_images_pixels() -> None:
    """Errors drawn with a covariance on a grid of 40x30, and their covariance where the image has 120x150 pixels."""
    generator = np.random.default_rng(0)
    covariance = np.array([[0.5, 0.2], [0.2, 0.3]])
    errors = generator.multivariate_normal([0, 0], covariance, 200_000)
    expected = np.linalg.inv(np.cov((errors * [120 / 40, 150 / 30]).T))
    xx, xy, yy = np.linalg.inv(covariance)[[0, 0, 1], [0, 1, 1]]
    found = precision_in_pixels(np.full((30, 40, 3), (xx, xy, yy), np.float32), 40, ((7, 9), (150, 120)))
    assert found.shape == (30, 40, 2, 2) and np.allclose(found[3, 4], expected, rtol=0.02)


def test_sample_needs_a_count() -> None:
    with pytest.raises(MatchRTError) as caught:
        _dense(np.ones((4, 4))).sample(0)
    assert caught.value.code == "sample-range"


def test_dense_warps_are_saved(tmp_path: Path) -> None:
    dense = _dense(np.ones((4, 6)))
    dense.save(tmp_path / "dense.npz")
    loaded = np.load(tmp_path / "dense.npz")
    assert np.array_equal(loaded["warp"], dense.warp)
    assert loaded["name1"] == "b" and tuple(loaded["size0"]) == (100, 200)
    assert loaded["orientation0"] == loaded["orientation1"] == 1 and "precision" not in loaded
    precise = replace(dense, precision=np.ones((4, 6, 2, 2), np.float32))
    precise.save(tmp_path / "precise.npz")
    assert np.load(tmp_path / "precise.npz")["precision"].shape == (4, 6, 2, 2)
    with pytest.raises(MatchRTError):
        dense.save(tmp_path / "dense.png")
