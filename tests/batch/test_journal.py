"""The journal keeps what was committed, refuses what is not its own, and drops pairs that come again."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from matchrt.batch.journal import Journal
from matchrt.batch.results import Found, ImageFacts, Result, pack, unpack
from matchrt.errors import MatchRTError

PAIRS = [("a", "b"), ("b", "c"), ("b", "a"), ("a", "b"), ("c", "a")]
PLAN = {"pairs": "digest", "engine": "e1"}
ONE, TWO = ImageFacts(10, 20, 1, "one", "stamp"), ImageFacts(30, 40, 6, "two", "stamp")


def fails(code: str, call: Callable[..., object], *arguments: object) -> MatchRTError:
    with pytest.raises(MatchRTError) as caught:
        call(*arguments)
    assert caught.value.code == code
    return caught.value


def some(count: int) -> Found:
    values = np.linspace(1, 0.5, count, dtype=np.float32)
    points = np.column_stack([values, values])
    return Found(points, points + 1, values, ONE, TWO)


def test_packing_is_exact() -> None:
    for count in (0, 1, 7):
        wanted = some(count)
        keypoints0, keypoints1, scores = unpack(pack(wanted))
        assert np.array_equal(keypoints0, wanted.keypoints0) and keypoints0.shape == (count, 2)
        assert np.array_equal(keypoints1, wanted.keypoints1) and np.array_equal(scores, wanted.scores)


def test_pairs_are_kept_once_and_results_stay(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.begin(PLAN, PAIRS)
        waiting = list(journal.waiting())
        assert [pair[1:] for pair in waiting] == [("a", "b"), ("b", "c"), ("c", "a")]
        journal.commit([Result(waiting[0], some(5)), Result(waiting[2], MatchRTError("image-missing", "No.", "Do."))])
    with Journal(tmp_path / "j") as journal:
        journal.begin(PLAN, [("never", "read")])
        assert journal.counts() == (5, 3, 1, 1, 3)
        assert [pair[1:] for pair in journal.waiting()] == [("b", "c")]
        ((pair, data),) = journal.matches()
        assert pair == waiting[0] and data == pack(some(5))
        assert [(f.pair, f.code, f.message, f.remedy) for f in journal.failures()] == [
            (waiting[2], "image-missing", "No.", "Do.")
        ]
        assert [(row.name, row.facts) for row in journal.images()] == [("a", ONE), ("b", TWO), ("c", None)]
        revision = journal.revision
        assert journal.forget_failures() == 1 and journal.revision > revision and journal.counts().waiting == 2


def test_a_commit_is_whole_or_absent(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.begin(PLAN, PAIRS)
        first, second, _ = journal.waiting()
        broken = Result(second, MatchRTError(object(), "", ""))  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            journal.commit([Result(first, some(1)), broken])
        assert journal.counts().matched == 0


def test_a_list_that_fails_leaves_no_plan(tmp_path: Path) -> None:
    def listing():  # type: ignore[no-untyped-def]
        yield "a", "b"
        raise KeyboardInterrupt

    with Journal(tmp_path / "j") as journal:
        with pytest.raises(KeyboardInterrupt):
            journal.begin(PLAN, listing())
        assert journal.counts().pairs == 0
        fails("pairs-empty", journal.begin, PLAN, [])
        journal.begin(PLAN, PAIRS)
        assert journal.counts().pairs == 3


def test_another_plan_is_refused_by_name(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.begin(PLAN, PAIRS)
        error = fails("journal-plan", journal.begin, {**PLAN, "engine": "e2"}, PAIRS)
        assert "engine (e1 there, e2 here)" in error.message and "pairs" not in error.message


def test_one_process_at_a_time(tmp_path: Path) -> None:
    code = (
        f"from pathlib import Path; from matchrt.batch.journal import Journal; Journal(Path({str(tmp_path / 'j')!r}))"
    )
    with Journal(tmp_path / "j") as journal:
        journal.begin(PLAN, PAIRS)
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert ran.returncode == 1 and "[journal-busy]" in ran.stderr
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", ["text", "sqlite"])
def test_other_files_are_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "j"
    if kind == "text":
        path.write_text("precious " * 100)
    else:
        with closing(sqlite3.connect(path)) as base:
            base.execute("CREATE TABLE precious (x)")
    before = path.read_bytes()
    fails("journal-format", Journal, path)
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["j"]


def test_places_that_cannot_hold_a_journal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails("output-unwritable", Journal, tmp_path / "file" / "j")
    fails("output-unwritable", Journal, tmp_path)
