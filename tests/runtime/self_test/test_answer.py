"""Answers are compared as sets of matches: what is the same passes, and nothing that is wrong does."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.self_tests import Matches, make_test

from matchrt.errors import MatchRTError
from matchrt.manifest import SelfTest, manifest_path, read_manifest
from matchrt.runtime.engine_file import engine_path
from matchrt.runtime.self_test.answer import (
    SelfTestResult,
    compare_answer,
    decode_answer,
    encode_answer,
    matches_of,
)

pytestmark = pytest.mark.filterwarnings("error")


def matches(count: int = 100, seed: int = 0) -> Matches:
    """Ends in image 0 on pixels, the others between them, far apart; scores fall."""
    random = np.random.default_rng(seed)
    cells = random.permutation(40 * 30)[:count]
    first = np.stack([cells % 40, cells // 40], axis=1) * 16.0
    second = first + random.uniform(0.2, 0.8, first.shape)
    return np.column_stack([first, second, np.linspace(0.9, 0.3, count)])


def outputs(*rows: Matches, slots: int = 200) -> dict[str, Any]:
    """An engine's outputs, a row of the batch for each."""
    table = np.zeros((len(rows), slots, 5), np.float32)
    for found, into in zip(rows, table, strict=True):
        into[: len(found)] = found
    return {
        "keypoints0": table[..., :2], "keypoints1": table[..., 2:4], "scores": table[..., 4],
        "num_matches": np.array([len(found) for found in rows], np.int32),
    }  # fmt: skip


def changed(found: Matches, rows: slice, column: int, value: float) -> Matches:
    made = found.copy()
    made[rows, column] = value
    return made


def moved(found: Matches, *by: float) -> Matches:
    """All matches with these numbers added: x0, y0, x1, y1, score."""
    return found + np.array(by)


GOOD = matches()
BOTH = pytest.mark.parametrize("kind", ["matches", "warp"])


def result(kind: Any, *actual: Matches) -> tuple[SelfTestResult, tuple[str, ...]]:
    test = make_test(GOOD, kind)
    found = compare_answer(test, outputs(*actual))
    return found, found.failures(test)


def test_answers_come_back() -> None:
    back = decode_answer(encode_answer(GOOD))
    assert np.array_equal(back, GOOD.astype(np.float32)) and back.dtype == np.float64
    assert decode_answer("").shape == (0, 5)
    assert base64.b64decode(encode_answer(np.array([[1.0, 2, 3, 4, 0.5]]))).hex() == (
        "0000803f00000040000040400000804000" + "00003f"
    ), "little-endian, in rows"


@BOTH
def test_the_same_answer_in_any_order_passes(kind: Any) -> None:
    shuffled = np.random.default_rng(1).permutation(GOOD)
    for actual in (GOOD, GOOD[::-1], shuffled, np.concatenate([moved(matches(50, 9), 8, 8, 8, 8, 0), shuffled])):
        found, failures = result(kind, actual)
        assert not failures, failures
        assert found.compared >= 100 and found.within == 1.0 and found.pixels < 1e-6 and found.score < 1e-6


@BOTH
@pytest.mark.parametrize(
    ("actual", "said"),
    [
        (changed(GOOD, slice(0, 10), 2, np.nan), "90.0% of 100 matches"),
        (changed(GOOD, slice(0, 10), 3, np.inf), "90.0% of 100 matches"),
        (changed(GOOD, slice(0, 100), 3, -np.inf), "0.0% of 100 matches"),
        (changed(GOOD, slice(0, 1), 4, np.nan), "mean score difference inf"),
        (changed(GOOD, slice(0, 100), 4, 0.25), "mean score difference 0.35"),
        (moved(GOOD, 0, 0, 0.1, 0, 0), "median distance 0.1 px"),
        (moved(GOOD, 0, 0, 0, 3, 0), "0.0% of 100 matches"),
    ],
)
def test_what_is_wrong_fails(kind: Any, actual: Matches, said: str) -> None:
    failures = result(kind, actual)[1]
    assert any(said in failure for failure in failures), failures


def test_matches_that_are_gone() -> None:
    for actual in (GOOD[:0], changed(GOOD, slice(0, 100), 0, np.nan), moved(GOOD, 3, 0, 0, 0, 0)):
        found, failures = result("matches", actual)
        assert found == SelfTestResult(100, 0.0, math.inf, math.inf) and len(failures) == 3
    assert any("95.0% of 100" in failure for failure in result("matches", GOOD[5:])[1])


def test_a_warp_needs_enough_pixels_that_both_sides_chose() -> None:
    for actual in (GOOD[:0], moved(GOOD, 0.5, 0, 0.5, 0, 0), changed(GOOD, slice(0, 100), 0, np.inf)):
        found, failures = result("warp", actual)
        assert found.compared == 0 and "only 0 matches can be compared" in failures[0]
    assert "only 19 matches" in result("warp", GOOD[:19])[1][0]
    assert not result("warp", GOOD[:20])[1], "K matches are chosen anew with every bit; that says nothing"


def test_a_warp_is_compared_in_both_directions() -> None:
    """Matches of the second direction lie on pixels of image 1, and their ends in image 0 between pixels."""
    turned = GOOD[:, [2, 3, 0, 1, 4]]
    test = make_test(np.concatenate([GOOD, turned]), "warp")
    assert compare_answer(test, outputs(turned)).compared == 100
    found = compare_answer(test, outputs(np.concatenate([GOOD, moved(turned, 0, 5, 0, 0, 0)])))
    assert found.compared == 200 and found.within == 0.5


@BOTH
def test_a_bad_count_is_no_match(kind: Any) -> None:
    for count in (-1, 201, np.iinfo(np.int32).min):
        broken = outputs(GOOD) | {"num_matches": np.array([count], np.int32)}
        assert matches_of(broken).shape == (0, 5)
        assert compare_answer(make_test(GOOD, kind), broken).within == 0.0


@BOTH
def test_every_row_of_a_batch_must_be_right(kind: Any) -> None:
    dim, apart = changed(GOOD, slice(0, 100), 4, 0.1), moved(GOOD, 0, 0, 0.1, 0, 0)
    lost = changed(GOOD, slice(0, 2), 2, np.nan)
    assert not result(kind, GOOD, lost)[1]
    for wrong, said in ((dim, "score"), (apart, "distance")):
        # The row with the smallest share is another one than the wrong one.
        failures = result(kind, lost, wrong, GOOD)[1]
        assert len(failures) == 1 and said in failures[0]


def broken_manifest(**changes: Any) -> Any:
    raw = json.loads(manifest_path(engine_path("loftr-lite")).read_text())
    raw["self_test"] |= changes
    return raw


def test_the_bundled_engine_has_a_self_test() -> None:
    test = read_manifest(manifest_path(engine_path("loftr-lite"))).self_test
    assert isinstance(test, SelfTest) and test.matches == 128 and test.kind == "matches"


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": "AAAA"}, {"answer": "not base64!"}, {"answer": "é"}, {"answer": None}, {"answer": "A" * 27},
        {"answer": base64.b64encode(np.full((20, 5), np.nan, "<f4").tobytes()).decode()},
        {"answer": base64.b64encode(np.full((20, 5), np.inf, "<f4").tobytes()).decode()},
        {"kind": "warps"}, {"within": math.nan}, {"within": 0.0}, {"within": 1.5}, {"pixels": math.inf},
        {"pixels": -1.0}, {"score": math.nan}, {"score": "0.1"}, {"within": None},
        {"pair": {"seed": 2**40, "shift": [0, 0], "contrast": 1}}, {"pair": {"seed": 1, "shift": [0], "contrast": 1}},
        {"pair": {"seed": 1, "shift": [2**62, 0], "contrast": 1}}, {"pair": None}, {"seeds": 3},
        {"pair": {"seed": 1, "shift": [0, 0], "contrast": 10**400}},
        {"pair": {"seed": 1.5, "shift": [0, 0], "contrast": 1}},
    ],
)  # fmt: skip
def test_a_damaged_self_test_makes_the_manifest_invalid(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "x.onnx.json"
    path.write_text(json.dumps(broken_manifest(**changes)))
    with pytest.raises(MatchRTError) as caught:
        read_manifest(path)
    assert caught.value.code == "manifest-invalid" and "self_test" in caught.value.message


def test_a_manifest_without_a_self_test_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx.json"
    raw = broken_manifest()
    for written in ({**raw, "self_test": None}, {name: raw[name] for name in raw if name != "self_test"}):
        path.write_text(json.dumps(written))
        assert read_manifest(path).self_test is None
