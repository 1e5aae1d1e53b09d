"""What parity forgives, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest
from support.matching import Row, made_outputs

from matchrt.bench.dense_agreement import compare_dense
from matchrt.bench.difference import MAX_PIXELS, Difference, Outputs, compare_matches

ROWS: list[Row] = [(8, 8, 20, 20, 0.9), (16, 8, 30, 20, 0.8), (24, 8, 40, 20, 0.7), (32, 8, 50, 20, 0.2003)]
THRESHOLD = 0.2


def changed(index: int, *values: float) -> Outputs:
    """ROWS with the values of one match added to."""
    rows = [tuple(np.add(row, values)) if at == index else row for at, row in enumerate(ROWS)]
    return made_outputs(rows)  # type: ignore[arg-type]


def test_the_same_in_another_order_is_the_same() -> None:
    found = compare_matches(made_outputs(ROWS), made_outputs([ROWS[1], ROWS[0], *ROWS[2:]]), THRESHOLD)
    assert found == Difference(4, 0, 0, 0.0, 0.0) and found.same


@pytest.mark.parametrize(
    ("values", "same"),
    [
        ((0, 0, 0.0005, 0, 0), True),
        ((0, 0, 0, 0.002, 0), False),
        ((0.002, 0, 0, 0, 0), False),
        ((0, 0, 0, 0, 0.0005), True),
        ((0, 0, 0, 0, 0.002), False),
        ((0, 0, 0.49, 0.49, 0), False),  # paired, and too far
    ],
)
def test_matches_that_both_have_may_differ_by_rounding(values: tuple[float, ...], same: bool) -> None:
    found = compare_matches(made_outputs(ROWS), changed(0, *values), THRESHOLD)
    assert found.same is same and (found.matches, found.lost, found.extra) == (4, 0, 0)
    assert found.pixels == pytest.approx(max(values[:4]), abs=2e-6)
    assert found.score == pytest.approx(values[4], abs=1e-6)


def test_a_match_of_one_side_counts_where_rounding_at_the_threshold_does_not_explain_it() -> None:
    weak: Row = (99, 99, 9, 9, 0.20005)
    clear: Row = (99, 99, 9, 9, 0.2002)
    every = made_outputs(ROWS)
    for row, counted in ((weak, 0), (clear, 1)):
        more = made_outputs([*ROWS, row])
        assert compare_matches(every, more, THRESHOLD) == Difference(4, 0, counted, 0.0, 0.0)
        assert compare_matches(more, every, THRESHOLD) == Difference(4, counted, 0, 0.0, 0.0)


def test_a_full_result_admits_what_is_stronger_than_its_weakest_match() -> None:
    full = made_outputs(ROWS[:3], slots=3)
    more: list[Row] = [*ROWS[:3], (99, 99, 9, 9, 0.6)]
    assert compare_matches(full, made_outputs(more), THRESHOLD).extra == 0
    assert compare_matches(full, made_outputs([(99, 99, 9, 9, 0.95), *ROWS[:3]]), THRESHOLD).extra == 1
    assert compare_matches(made_outputs(more), made_outputs(ROWS[:3]), THRESHOLD).lost == 1


def test_rows_of_a_batch_are_compared_apart() -> None:
    expected, actual = made_outputs(ROWS, ROWS[:2]), made_outputs(ROWS[:2], ROWS)
    assert compare_matches(expected, expected, THRESHOLD) == Difference(6, 0, 0, 0.0, 0.0)
    assert compare_matches(expected, actual, THRESHOLD) == Difference(4, 2, 2, 0.0, 0.0)


def test_a_tie_may_fall_on_the_other_pixel() -> None:
    moved = changed(2, 0, 0, 4, 0, 0)
    expected = dict(made_outputs(ROWS))
    assert not compare_matches(expected, moved, THRESHOLD).same
    expected["margin"] = np.full((1, 8), 1e-6, np.float32)
    assert compare_matches(expected, moved, THRESHOLD) == Difference(3, 0, 0, 0.0, 0.0, ties=1)
    assert compare_matches(expected, moved, THRESHOLD).same
    for far in (changed(2, 0, 0, 11, 0, 0), changed(2, 0, 0, 4, 0, -0.01)):  # another place, another score: no tie
        assert compare_matches(expected, far, THRESHOLD).lost == 1
    expected["margin"] = np.full((1, 8), 1e-3, np.float32)
    assert compare_matches(expected, moved, THRESHOLD).ties == 0


def test_rounding_at_a_tie_may_change_what_depends_on_it() -> None:
    rows: list[Row] = [*ROWS[:2], (24, 8, 140, 20, 0.66), (32, 8, 50, 20, 0.2103)]
    expected = dict(made_outputs(ROWS)) | {"margin": np.full((1, 8), 1e-6, np.float32)}
    assert compare_matches(expected, made_outputs(rows), THRESHOLD).lost == 1  # each score is a match's own
    expected["reach"] = np.array([10.0], np.float32)
    assert compare_matches(expected, made_outputs(rows), THRESHOLD) == Difference(3, 0, 0, 0.0, 0.0, ties=1)
    assert compare_matches(expected, made_outputs(ROWS[:2]), THRESHOLD).lost == 0
    farther: list[Row] = [(8, 8, 20, 20, 0.89), *rows[1:]]  # a score that the tie does not reach
    assert not compare_matches(expected, made_outputs(farther), THRESHOLD).same
    assert compare_matches(expected, changed(3, 0, 0, 0, 0, 0.01), THRESHOLD).score > 9e-3  # no tie, no excuse
    expected["margin"] = np.full((1, 8), 1e-3, np.float32)
    found = compare_matches(expected, made_outputs(rows), THRESHOLD)
    assert (found.lost, found.extra, found.ties) == (1, 1, 0)
    del expected["margin"]
    found = compare_matches(expected, made_outputs(rows), THRESHOLD)
    assert (found.lost, found.extra, found.ties) == (1, 1, 0)  # slots were left
    taken = {name: array[:, :4] if array.ndim > 1 else array for name, array in made_outputs(ROWS).items()}
    others = {name: array[:, :4] if array.ndim > 1 else array for name, array in made_outputs(rows).items()}
    found = compare_matches(taken | {"reach": expected["reach"]}, others, THRESHOLD)
    assert (found.lost, found.extra, found.ties) == (0, 0, 1)
    assert compare_matches(taken, others, THRESHOLD).lost == 1
    broken: list[Row] = [*ROWS[:2], (24, 8, np.nan, 20, 0.66), ROWS[3]]
    expected["margin"] = np.full((1, 8), 1e-6, np.float32)
    assert not compare_matches(expected, made_outputs(broken), THRESHOLD).same


def test_few_ties_only() -> None:
    assert Difference(100, 0, 0, 0.0, 0.0, ties=6).same and not Difference(100, 0, 0, 0.0, 0.0, ties=7).same


@pytest.mark.parametrize("column", range(5))
def test_nan_is_never_the_same(column: int) -> None:
    values = [0.0] * 5
    values[column] = np.nan
    for index in (0, 3):  # the last one is at the threshold, where others are forgiven
        broken = changed(index, *values)
        assert not compare_matches(made_outputs(ROWS), broken, THRESHOLD).same
        assert not compare_matches(broken, made_outputs(ROWS), THRESHOLD).same
    batch = made_outputs(ROWS, ROWS)
    assert not compare_matches(batch, {name: np.concatenate([batch[name][:1], changed(0, *values)[name]])
                                       for name in batch}, THRESHOLD).same  # fmt: skip


def dense(shift: float = 0.0, where: slice = slice(None), certainty: float = 0.9) -> Outputs:
    """A warp of 20x40 pixels, moved by so many pixels along x in these rows."""
    warp = np.zeros((1, 20, 40, 4), np.float32)
    warp[:, where, :, 2] += 2 * shift / 40
    return {
        "warp": warp, "certainty": np.full((1, 20, 40), certainty, np.float32),
        "scores": np.full((1, 8), certainty, np.float32), "num_matches": np.array([8], np.int32),
    }  # fmt: skip


def test_dense_warps_are_compared_by_their_median_and_by_what_moved() -> None:
    assert compare_dense(dense(), dense()).same
    assert compare_dense(dense(), dense(0.01)).same and not compare_dense(dense(), dense(0.03)).same
    assert compare_dense(dense(), dense(5.0, slice(1))).same  # a twentieth
    assert compare_dense(dense(), dense(5.0, slice(2))).lost == 40
    assert not compare_dense(dense(), dense(certainty=0.89)).same
    assert compare_dense(dense(certainty=0.01), dense(9.0, certainty=0.01)).same  # nothing is sure: nothing to compare
    assert compare_dense(dense(), dense()).pixel_limit > MAX_PIXELS


def test_precisions_are_compared_where_both_have_one() -> None:
    def precise(*matrix: float) -> Outputs:
        return {**dense(), "precision": np.full((1, 20, 40, 3), matrix, np.float32)}

    base = precise(4.0, 1.0, 2.0)
    assert compare_dense(base, precise(4.004, 1.001, 2.002)).same and compare_dense(base, dense()).same
    assert not compare_dense(base, precise(4.04, 1.01, 2.02)).same
    assert not compare_dense(base, precise(4.0, -1.0, 2.0)).same  # the same determinant, another direction
    unsure = {**base, "certainty": np.zeros((1, 20, 40), np.float32)}
    assert compare_dense(unsure, {**unsure, "precision": 2 * base["precision"]}).same
