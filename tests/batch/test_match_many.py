"""`matchrt match-many`: resumed, with failures, on a pool and on Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.commands import CommandLine

from matchrt import Matcher, MatcherOptions
from matchrt.batch.journal import Journal
from matchrt.batch.pool import PoolSize, match_in_pool
from matchrt.batch.results import ListedPair, unpack
from matchrt.errors import InternalError, MatchRTError
from matchrt.runtime.adapter import PairAdapter

SMALL = ("--resize", "96", "--json")
BENCH = Path(__file__).resolve().parents[2] / "bench"


def test_a_list_with_a_bad_image(cli: CommandLine, pair_list: Path, scene: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    output = tmp_path / "m.h5"
    command = ("match-many", pair_list, "--root", scene, "--output", output, *SMALL)
    ran = cli(*command, "--digest")
    counts = {key: ran.json[key] for key in ("listed", "pairs", "matched", "failed", "tried_now")}
    assert ran.code == 2, ran.err
    assert counts == {"listed": 11, "pairs": 10, "matched": 6, "failed": 4, "tried_now": 10}
    assert {failure["error"]["code"] for failure in ran.json["failures"]} == {"image-truncated"}
    failed = (tmp_path / "m.h5.failed.txt").read_text().splitlines()
    assert len(failed) == 4 and all("db/3.png" in line and "image-truncated" in line for line in failed)
    # Again: nothing to do. Then with the image mended: only the failed pairs.
    again = cli(*command, "--digest")
    assert again.json["tried_now"] == 0 and not again.json["output_written"]
    assert again.json["content_sha256"] == ran.json["content_sha256"]
    (scene / "db" / "3.png").write_bytes((scene / "db" / "2.png").read_bytes())
    assert cli(*command).json["tried_now"] == 0
    mended = cli(*command, "--retry-failed", "--digest")
    assert mended.code == 0 and mended.json["tried_now"] == 4 and mended.json["matched"] == 10
    assert not (tmp_path / "m.h5.failed.txt").exists()
    assert mended.json["content_sha256"] != ran.json["content_sha256"]


def test_matches_are_those_of_match(pair_list: Path, scene: Path, tmp_path: Path, cli: CommandLine) -> None:
    pytest.importorskip("h5py")
    cli("match-many", pair_list, "--root", scene, "--output", tmp_path / "m.h5", "--workers", 2, *SMALL)
    with Matcher(options=MatcherOptions(resize=96)) as matcher, Journal(tmp_path / "m.h5.journal") as journal:
        for pair, data in journal.matches():
            wanted = matcher.match(scene / pair.first, scene / pair.second)
            for one, other in zip(unpack(data), (wanted.keypoints0, wanted.keypoints1, wanted.scores), strict=True):
                assert np.array_equal(one, other)


def test_one_journal_for_several_outputs(pair_list: Path, scene: Path, tmp_path: Path, cli: CommandLine) -> None:
    pytest.importorskip("h5py")
    pytest.importorskip("pyarrow")
    common = ("match-many", pair_list, "--root", scene, "--journal", tmp_path / "j", *SMALL)
    assert cli(*common, "--output", tmp_path / "m.h5").json["tried_now"] == 10
    ran = cli(*common, "--output", tmp_path / "m.parquet")
    assert ran.json["tried_now"] == 0 and ran.json["output_written"] and (tmp_path / "m.parquet").is_file()
    # What is off unless it is asked for may be said.
    assert cli(*common, "--rotate", "off", "--zoom", "off", "--output", tmp_path / "m.h5").json["tried_now"] == 0
    cli.fails("journal-plan", *common, "--rotate", "auto", "--output", tmp_path / "m.h5")
    cli.fails("journal-plan", *common[:-3], "--resize", "192", "--output", tmp_path / "m.h5")


def test_what_people_read(pair_list: Path, scene: Path, tmp_path: Path, cli: CommandLine) -> None:
    pytest.importorskip("h5py")
    engine = ("--engine", "loftr-lite")  # which is sure of such small images
    ran = cli("match-many", pair_list, "--root", scene, "--output", tmp_path / "m.h5", "--resize", 96, *engine)
    assert "6 pairs matched, 4 failed" in ran.out and "verdicts: 6 match, 0 doubtful, 0 no match" in ran.out
    assert "5 images, 10 pairs" in ran.err and "failed by reason: 4 image-truncated" in ran.err
    assert "view graph: 1 connected component of 4 images" in ran.out and "without a partner: db/3.png" in ran.out
    assert "1 lines named a pair again" in ran.out
    assert "feats_m.h5" in ran.out and "db/3.png" in ran.err
    assert "Example: matchrt match-many" in cli("match-many", "--help").out


def test_mistakes_are_named_before_any_work(pair_list: Path, scene: Path, tmp_path: Path, cli: CommandLine) -> None:
    pytest.importorskip("h5py")
    start = ("match-many", pair_list, "--root", scene, "--output")
    cli.fails("output-format", *start, tmp_path / "m.npz")
    cli.fails("output-is-input", "match-many", pair_list, "--output", tmp_path / "m.h5", "--journal", pair_list)
    cli.fails("usage", *start, tmp_path / "m.h5", "--ray-address", "auto")
    cli.fails("option-range", *start, tmp_path / "m.h5", "--cell-size", 0)
    cli.fails("engine-missing", *start, tmp_path / "m.h5", "--engine", "nothing")
    cli.fails("pairs-missing", "match-many", tmp_path / "none.txt", "--output", tmp_path / "m.h5")
    cli.fails("pairs-window", *start, tmp_path / "m.h5", "--window", 2)
    assert not list(tmp_path.glob("m.h5*"))


def test_an_engine_that_fails_ends_the_run_and_keeps_what_was_done(
    pair_list: Path, scene: Path, tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("h5py")
    match, calls = Matcher.match_features, []

    def failing(self: Matcher, *images: object, **options: object) -> object:
        calls.append(images)
        if len(calls) == 3:
            raise InternalError("session-failed", "The engine failed.", "Report it.")
        return match(self, *images, **options)

    monkeypatch.setattr(Matcher, "match_features", failing)
    command = ("match-many", pair_list, "--root", scene, "--output", tmp_path / "m.h5", "--workers", 1, *SMALL)
    ran = cli(*command)
    assert ran.code == 1 and ran.json["error"]["code"] == "session-failed" and not (tmp_path / "m.h5").exists()
    monkeypatch.undo()
    with Journal(tmp_path / "m.h5.journal") as journal:
        kept = journal.counts()
    assert kept.matched == 2
    assert cli(*command).json["matched"] == 6


def test_images_are_decoded_once_while_they_are_near(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[str] = []
    prepare = PairAdapter.prepare

    def counted(self: PairAdapter, value: Path, name: str = "array") -> object:
        if isinstance(value, Path):
            prepared.append(value.name)
        return prepare(self, value, name)

    monkeypatch.setattr(PairAdapter, "prepare", counted)
    names = [f"db/{index}.png" for index in (0, 1, 2)]
    pairs = [ListedPair(i, first, second) for i, (first, second) in enumerate([names[:2], names[1:], names[::2]])]
    with Matcher(options=MatcherOptions(resize=96, threads=1)) as matcher:
        results = list(match_in_pool(matcher, scene, pairs, PoolSize(2, 1, 1)))
        assert [result.pair for result in results] == pairs and sorted(prepared) == ["0.png", "1.png", "2.png"]
        stopped = match_in_pool(matcher, scene, pairs * 20, PoolSize(2, 1, 1))
        next(stopped)
        stopped.close()  # type: ignore[attr-defined]
        missing = ListedPair(9, "db/none.png", names[0])
        (result,) = match_in_pool(matcher, scene, [missing], PoolSize(1, 1, 1))
        assert isinstance(result.outcome, MatchRTError) and result.outcome.code == "image-missing"


@pytest.mark.slow
def test_killed_and_resumed_is_equal_to_one_run(tmp_path: Path) -> None:
    """The short form of bench/kill_resume.py."""
    pytest.importorskip("h5py")
    command = [sys.executable, str(BENCH / "kill_resume.py"), "--kills", "2", "--images", "6", "--seed", "4"]
    ran = subprocess.run([*command, "--json", str(tmp_path / "t.json")], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    tally = json.loads((tmp_path / "t.json").read_text())
    assert tally["kills"] == 2 and tally["pairs"] == 15 and tally["compared"] and not tally["faults"]


@pytest.mark.slow
def test_killed_in_every_stage_is_equal_to_one_run(tmp_path: Path, shared: Path) -> None:
    """The short form of bench/kill_stages.py: descriptors, features, matching, writing and mapping."""
    pytest.importorskip("pycolmap")
    photographs = shared / "eval" / "pose" / "reichstag"
    command = [sys.executable, str(BENCH / "kill_stages.py"), str(photographs), "--rounds", "1", "--resize", "480"]
    ran = subprocess.run([*command, "--json", str(tmp_path / "t.json")], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    tally = json.loads((tmp_path / "t.json").read_text())
    assert sum(tally["kills"].values()) >= 5 and tally["registered"] and not tally["faults"]


@pytest.mark.slow
def test_ray_gives_what_one_process_gives(pair_list: Path, scene: Path, tmp_path: Path, cli: CommandLine) -> None:
    pytest.importorskip("h5py")
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    command = ("match-many", pair_list, "--root", scene, *SMALL, "--digest", "--output")
    here = cli(*command, tmp_path / "here.h5")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        there = cli(*command, tmp_path / "there.h5", "--ray", "--workers", 2)
    finally:
        ray.shutdown()
    assert there.code == 2, there.err
    for key in ("matched", "failed", "content_sha256", "failures"):
        assert there.json[key] == here.json[key]
