"""The one comparator: nearest matches, one-to-one partners, and the figures on top of them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.matching import Row, made_matches, made_outputs

import matchrt
from matchrt.bench.agreement import Agreement, PairMatches, agree, nearest, partners, together

FIRST: list[Row] = [(8, 8, 20, 20, 0.9), (16, 8, 30, 20, 0.8), (24, 8, 40, 20, 0.7), (32, 8, 50, 20, 0.6),
                    (40, 8, 60, 20, 0.5)]  # fmt: skip


def pair(rows: list[Row], side: int = 640) -> PairMatches:
    return PairMatches.from_matches(made_matches(rows, side))


def plain(points: np.ndarray) -> PairMatches:
    return PairMatches(points, np.ones(len(points)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2, 9, 255, 256, 257, 600]), st.integers(0, 40))
def test_nearest_is_what_a_search_of_all_pairs_finds(seed: int, rows: int, others: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(0, 12, (count, 4)) / 4.0 for count in (rows, others))  # a grid: many are equally far
    index, distance = nearest(plain(first), plain(second))
    assert index.shape == distance.shape == (rows,)
    for row in range(rows):
        every = [max(math.dist(first[row, :2], x[:2]), math.dist(first[row, 2:], x[2:])) for x in second]
        assert distance[row] == pytest.approx(min(every, default=math.inf))
        if every:
            assert every[index[row]] == pytest.approx(min(every))


def test_one_end_alone_is_not_near_and_nan_is_far_from_everything() -> None:
    first = plain(np.array([[0.0, 0, 0, 0], [10, 10, 10, 10], [np.nan, 0, 0, 0]]))
    second = plain(np.array([[0.3, 0.4, 3, 4], [np.nan, 10, 10, 10], [np.inf, 0, 0, 0], [10, 10, 10, 12.0]]))
    index, distance = nearest(first, second)
    assert index[:2].tolist() == [0, 3] and distance.tolist() == [5.0, 2.0, math.inf]


def test_partners_are_one_to_one_and_the_nearer_one_gets_its_match() -> None:
    first = plain(np.array([[0.0, 0, 0, 0], [0.2, 0, 0, 0], [9, 9, 9, 9]]))
    second = plain(np.array([[0.3, 0, 0, 0], [9, 9, 9, 9.6]]))
    assert partners(first, second, 0.5).tolist() == [-1, 0, -1]
    assert partners(first, second, 0.7).tolist() == [-1, 0, 1]
    assert partners(first, plain(np.zeros((0, 4))), 0.5).tolist() == [-1, -1, -1]
    assert partners(plain(np.zeros((0, 4))), second, 0.5).tolist() == []


def test_rows_of_a_batch_are_read_apart_and_slots_behind_the_count_are_nothing() -> None:
    outputs = made_outputs(FIRST[:2], [], FIRST[3:])
    found = [PairMatches.from_outputs(outputs, row) for row in range(3)]
    assert [len(matches) for matches in found] == [2, 0, 2]
    assert found[2].points.tolist() == [[32, 8, 50, 20], [40, 8, 60, 20]] and found[2].points.dtype == np.float64
    assert found[0].points.tolist() == pair(FIRST[:2]).points.tolist()  # a long side of 640: the same pixels
    assert found[0].scores == pytest.approx([0.9, 0.8])


def test_a_score_counts_from_itself_on_and_nan_never() -> None:
    matches = PairMatches(np.zeros((4, 4)), np.array([0.5, np.nan, 0.4, 0.39]))
    assert matches.above(0.4).scores.tolist() == [0.5, 0.4] and len(matches.above(0.0)) == 3


def test_shares_count_and_rank() -> None:
    second: list[Row] = [(8, 8, 20.4, 20, 0.9), (24, 8, 40, 20.9, 0.85), (16, 8, 32, 20, 0.7), (32, 8, 58, 20, 0.6)]
    found = agree(pair(FIRST), pair(second))
    assert (found.expected, found.actual, found.kept) == (5, 4, (1, 2, 3)) and found.count_ratio == 0.8
    assert [found.share(pixels) for pixels in (0.5, 1.0, 3.0)] == [0.2, 0.4, 0.6]
    assert found.rank == pytest.approx(0.5)  # 1 2 3 against 1 3 2
    # At twice the size the same offsets are half as far.
    doubled = agree(pair(FIRST, 1280), pair(second, 1280))
    assert doubled.kept == (2, 3, 3)


def test_equal_scores_share_their_rank() -> None:
    level: list[Row] = [(*row[:4], 0.5) for row in FIRST]
    assert math.isnan(agree(pair(FIRST), pair(level)).rank)
    tied: list[Row] = [(*row[:4], score) for row, score in zip(FIRST, (0.9, 0.8, 0.8, 0.6, 0.5), strict=True)]
    assert agree(pair(FIRST), pair(tied)).rank == pytest.approx(0.974679)  # scipy.stats.spearmanr


def test_nothing_against_nothing_and_something() -> None:
    none, some = pair([]), pair(FIRST)
    assert agree(none, none).share(1.0) == 1 and agree(none, none).count_ratio == 1
    assert agree(none, some).share(1.0) == 0 and math.isinf(agree(none, some).count_ratio)
    assert agree(some, none).kept == (0, 0, 0) and math.isnan(agree(some, none).rank)
    both = together([agree(some, some), agree(some, none)])
    assert (both.expected, both.actual, both.kept[1]) == (10, 5, 5) and both.rank == pytest.approx(1.0)
    json.dumps(agree(none, some).to_json(), allow_nan=False)


def test_ranks_are_weighed_by_their_matches() -> None:
    found = together([Agreement(30, 30, (30, 30, 30), 1.0), Agreement(10, 10, (10, 10, 10), 0.2)])
    assert found.rank == pytest.approx(0.8)


def test_no_other_file_searches_for_the_nearest_match() -> None:
    """All rows less all others, in any form that the three searches had which this one replaced."""
    every = re.compile(r"None\]\s*-\s*[\w.]+\[None")
    assert every.search("gaps = first[block, axis, None] - second[None, :, axis]")
    root = Path(matchrt.__file__).parent
    found = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if every.search(path.read_text("utf-8"))}
    # The drawing of a view graph pushes all its nodes apart.
    assert found == {"runtime/nearest.py", "batch/graph_drawing.py"}
