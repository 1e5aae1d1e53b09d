"""The bundled model on videos whose motion is known: every cut and black frame is reported, and frames are placed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from support.made_video import MadeVideo, make_video

from matchrt.errors import MatchRTError
from matchrt.live.drawing import Painter
from matchrt.live.keyframes import Policy, Tracker
from matchrt.live.matching import FramePairing
from matchrt.live.run import Outcome, RunOptions, run_live
from matchrt.live.source import open_feed
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.options import MatcherOptions

# Pixels of a frame 640 pixels wide.
_WITHIN = 3.0


def _run(made: MadeVideo, folder: Path, policy: str, resize: int | None) -> tuple[Outcome, list[dict[str, Any]]]:
    lines = folder / "frames.jsonl"
    with Matcher(options=MatcherOptions(resize=resize)) as matcher:
        tracker = Tracker(FramePairing(matcher), Policy.parse(policy))
        outcome = run_live(open_feed(str(made.path)), tracker, Painter("m"), RunOptions(jsonl=lines))
    return outcome, [json.loads(line) for line in lines.read_text().splitlines()]


def _judge(made: MadeVideo, outcome: Outcome, lines: list[dict[str, Any]]) -> float:
    """Checks what is reported; returns the share of the other frames that are placed within the limit."""
    assert outcome.error is None and outcome.report.frames == len(made.views)
    assert outcome.report.cuts == list(made.cuts)
    spans = [range(span.first, span.last + 1) for span in outcome.report.spans]
    assert sorted(itertools.chain(*spans)) == list(made.black)
    placed = []
    for line in lines:
        if line["frame"] in (*made.black, *made.cuts, 0):
            continue
        same = line.get("homography") is not None and made.scenes[line["keyframe"]] == made.scenes[line["frame"]]
        error = made.corner_error(line["homography"], line["keyframe"], line["frame"]) if same else float("inf")
        placed.append(error * 640 / made.size[0] <= _WITHIN and line["verdict"] == "match")
    return sum(placed) / len(placed)


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_a_short_video(tmp_path: Path, suffix: str) -> None:
    made = make_video(tmp_path / f"made{suffix}", 8, (320, 240), black=(2, 4), motion=0.3)
    assert made.cuts == (5,)
    outcome, lines = _run(made, tmp_path, "auto", 256)
    assert _judge(made, outcome, lines) == 1.0
    assert [line["status"] for line in lines if line["frame"] in made.black] == ["black"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["auto", "10"])
def test_a_video_of_four_seconds(tmp_path: Path, policy: str) -> None:
    made = make_video(tmp_path / "made.mp4", 100, (640, 480), black=(0, 30, 31, 50, 51, 99))
    outcome, lines = _run(made, tmp_path, policy, None)
    assert _judge(made, outcome, lines) >= 0.95


def test_an_engine_without_parts_matches_whole_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Matcher, image: object, name: str = "array", *, on_host: bool = False) -> None:
        raise MatchRTError("split-missing", "The engine was built without its parts.", "Build it with --split.")

    monkeypatch.setattr(Matcher, "features", refused)
    made = make_video(tmp_path / "made.avi", 3, (320, 240), motion=0.1)
    with Matcher(options=MatcherOptions(resize=256)) as matcher:
        pairing = FramePairing(matcher)
        outcome = run_live(open_feed(str(made.path)), Tracker(pairing), Painter("m"))
    assert pairing.whole_pairs == "The engine was built without its parts."
    assert outcome.report.statuses == {"keyframe": 1, "tracked": 1, "lost": 1}


def test_features_are_computed_once_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_video(tmp_path / "made.avi", 5, (320, 240), photographs=None, motion=0.1)
    calls: list[str] = []
    kept = Matcher.features

    def counted(self: Matcher, image: object, name: str = "array", *, on_host: bool = False) -> object:
        calls.append(name)
        return kept(self, image, name, on_host=on_host)

    def whole(self: Matcher, *given: object, **more: object) -> None:
        raise AssertionError("a whole pair was matched")

    monkeypatch.setattr(Matcher, "features", counted)
    monkeypatch.setattr(Matcher, "match", whole)
    outcome, _ = _run(made, tmp_path, "auto", 256)
    assert outcome.report.cuts == [3] and calls == [f"frame {index}" for index in range(5)]
