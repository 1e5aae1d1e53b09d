"""The number of false alarms against chance itself: random points, and all geometries that can be made of them."""

from __future__ import annotations

import math
from itertools import combinations

import cv2
import numpy as np
import pytest

from matchrt.runtime.false_alarms import OUTCOMES, SAMPLE, cell_numbers, chances, count_false_alarms, thin
from matchrt.runtime.geometry import Kind

SIZES = (480, 640), (600, 800)
H = np.array([[1.1, 0.1, 5], [-0.05, 0.9, 20], [1e-4, 2e-5, 1]])
F = np.array([[0.0, -1e-6, 4e-4], [2e-6, 0, -9e-3], [-6e-4, 8e-3, 1.0]])


def random_points(dice: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = (dice.uniform((0, 0), (width, height), (count, 2)) for height, width in SIZES)
    return first, second


@pytest.mark.parametrize(("kind", "matrix"), [("homography", H), ("fundamental", F), ("essential", F)])
def test_random_matches_fit_no_better_than_their_chance_says(kind: Kind, matrix: np.ndarray) -> None:
    chance = chances(kind, matrix, random_points(np.random.default_rng(1), 200_000), SIZES)
    for wanted in (0.3, 0.03, 0.003):
        assert 0 < np.mean(chance <= wanted) <= 1.1 * wanted


def test_false_alarms_are_as_rare_as_they_say() -> None:
    """All homographies of eight random matches: the share of trials with one below an NFA is at most this NFA."""
    dice, trials = np.random.default_rng(2), 150
    least = np.full(trials, np.inf)
    for trial in range(trials):
        points = random_points(dice, 8)
        for sample in combinations(range(8), 4):
            first, second = (side[list(sample)].astype(np.float32) for side in points)
            matrix = np.asarray(cv2.getPerspectiveTransform(first, second), np.float64)
            found = count_false_alarms("homography", chances("homography", matrix, points, SIZES))
            least[trial] = min(least[trial], found.log10_nfa)
    for nfa in (0.03, 0.1, 0.3):
        assert np.mean(least < math.log10(nfa)) <= nfa + 2 * math.sqrt(nfa / trials)
    # The bound is no empty one: chance alone comes near it.
    assert least.min() < 0.5


@pytest.mark.parametrize("kind", ["homography", "fundamental", "essential"])
def test_the_formula(kind: Kind) -> None:
    dice = np.random.default_rng(3)
    for n in (SAMPLE[kind] + 1, 20, 60):
        chance = dice.uniform(0, 1, n) ** 3
        s, nearest = SAMPLE[kind], np.sort(chance)
        plain = {
            k: math.log10(OUTCOMES[kind] * (n - s) * math.comb(n, k) * math.comb(k, s))
            + (k - s) * math.log10(nearest[k - 1])
            for k in range(s + 1, n + 1)
        }
        found = count_false_alarms(kind, chance)
        assert found.inliers == min(plain, key=plain.__getitem__)
        assert found.log10_nfa == pytest.approx(min(plain.values()))


@pytest.mark.parametrize("kind", ["homography", "fundamental", "essential"])
def test_too_few_matches_are_no_evidence(kind: Kind) -> None:
    for n in range(SAMPLE[kind] + 1):
        assert count_false_alarms(kind, np.zeros(n)).inliers == 0
        assert count_false_alarms(kind, np.zeros(n)).log10_nfa == 0


def test_more_and_closer_matches_are_more_evidence() -> None:
    dice = np.random.default_rng(4)

    def alarms(inliers: int, others: int, spread: float) -> float:
        points0, points1 = random_points(dice, inliers + others)
        mapped = np.column_stack([points0, np.ones(len(points0))]) @ H.T
        true = mapped[:, :2] / mapped[:, 2:] + dice.normal(0, spread, (len(points0), 2))
        points1[:inliers] = true[:inliers]
        return count_false_alarms("homography", chances("homography", H, (points0, points1), SIZES)).log10_nfa

    assert alarms(40, 40, 1.0) < alarms(20, 40, 1.0) < alarms(10, 40, 1.0) < -3
    assert alarms(20, 20, 1.0) < alarms(20, 100, 1.0)
    assert alarms(20, 40, 0.5) < alarms(20, 40, 4.0) < alarms(20, 40, 16.0)


def test_what_is_not_finite_is_no_inlier() -> None:
    points = random_points(np.random.default_rng(5), 30)
    for matrix in (np.zeros((3, 3)), np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]]), np.full((3, 3), np.inf)):
        for kind in ("homography", "fundamental"):
            chance = chances(kind, matrix, points, SIZES)
            assert ((chance >= 0) & (chance <= 1)).all() and count_false_alarms(kind, chance).log10_nfa > -2


def test_blur_is_the_least_error() -> None:
    points0, _ = random_points(np.random.default_rng(6), 10)
    chance = chances("homography", np.eye(3), (points0, points0), (SIZES[0], SIZES[0]), (0.0, 2.0))
    assert np.allclose(chance, np.pi * 4 / (480 * 640))


def test_one_match_for_each_cell_of_either_image() -> None:
    points0, points1 = random_points(np.random.default_rng(7), 3000)
    kept = thin(points0, points1, SIZES, 10)
    assert 20 < len(kept) <= 80 and (np.diff(kept) > 0).all()
    for points, size in zip((points0[kept], points1[kept]), SIZES, strict=True):
        assert len(np.unique(cell_numbers(points, size, 10))) == len(kept)
    # A patch of neighbours that agree is one match.
    patch = np.full((50, 2), 100.0) + np.random.default_rng(8).uniform(0, 10, (50, 2))
    assert list(thin(patch, patch + 5, SIZES, 10)) == [0]
    assert len(thin(points0[:0], points1[:0], SIZES, 10)) == 0


def test_points_beyond_an_edge_are_in_the_last_cell() -> None:
    numbers = cell_numbers(np.array([[-0.5, -0.5], [639.5, 479.5], [0, 0]]), (480, 640), 10)
    assert numbers[0] == numbers[2] == 0 and numbers[1] == 79 - 0
