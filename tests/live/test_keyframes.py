"""Which frame is the keyframe, and where a cut is."""

from __future__ import annotations

import numpy as np
import pytest
from support.live import BLACK, StubPairing, frame

from matchrt.errors import MatchRTError
from matchrt.live.blank import blank_kind
from matchrt.live.keyframes import Policy, Step, Tracker


def steps(scenes: list[int], policy: str = "auto", reach: int = 0) -> list[Step]:
    tracker = Tracker(StubPairing(reach), Policy.parse(policy))
    return [tracker.step(frame(index, scene)) for index, scene in enumerate(scenes)]


def test_a_cut_is_at_the_first_frame_of_the_new_scene() -> None:
    found = steps([1, 1, 1, 90, 90, 90])
    assert [step.status for step in found] == ["keyframe", "tracked", "tracked", "lost", "tracked", "tracked"]
    assert [step.cut for step in found] == [None, None, None, None, 3, None]
    assert found[4].key is not None and found[4].key.index == 3 and found[4].renewed


def test_a_disturbed_frame_is_no_cut() -> None:
    found = steps([1, 1, 90, 1, 1])
    assert [step.status for step in found] == ["keyframe", "tracked", "lost", "tracked", "tracked"]
    assert not any(step.cut for step in found) and found[4].key is not None and found[4].key.index == 0


def test_a_camera_that_moves_on_renews_the_keyframe_without_a_cut() -> None:
    """Scenes 1 to 7 in steps that each match their neighbour only."""
    found = steps([1, 2, 3, 4, 5, 6, 7], reach=1)
    assert [step.status for step in found] == ["keyframe"] + ["tracked"] * 6
    assert not any(step.cut for step in found)
    assert [step.key.index for step in found if step.key] == [0, 1, 2, 3, 4, 5]


def test_black_frames_are_not_matched_and_are_no_cut() -> None:
    found = steps([BLACK, 1, 1, BLACK, BLACK, 1, 1])
    assert [step.status for step in found] == ["black", "keyframe", "tracked", "black", "black", "tracked", "tracked"]
    assert not any(step.cut for step in found)


def test_a_cut_under_black_frames_is_at_the_first_frame_that_shows_the_new_scene() -> None:
    assert [step.cut for step in steps([1, 1, BLACK, 90, BLACK, 90])] == [None] * 5 + [3]


def test_two_cuts_with_frames_that_match_nothing_between() -> None:
    cuts = [step.cut for step in steps([1, 1, 30, 60, 90, 90, 1, 1])]
    assert [cut for cut in cuts if cut is not None] == [4, 6]


def test_the_first_frame_stays_the_keyframe_if_asked() -> None:
    found = steps([1, 90, 90, 1], "first")
    assert [step.status for step in found] == ["keyframe", "lost", "lost", "tracked"]
    assert all(step.key.index == 0 for step in found if step.key)


def test_every_nth_frame_is_a_keyframe() -> None:
    found = steps([1] * 8, "3")
    assert [step.frame.index for step in found if step.renewed] == [0, 3, 6]
    assert [step.key.index for step in found if step.key] == [0, 0, 0, 3, 3, 3, 6]


def test_each_frame_is_prepared_once() -> None:
    pairing = StubPairing()
    tracker = Tracker(pairing)
    for index in range(20):
        tracker.step(frame(index, 1))
    assert pairing.prepared == 20 and pairing.matched == 19


@pytest.mark.parametrize("text", ["", "0", "-1", "last", "1.5", "²"])
def test_a_policy_that_is_none(text: str) -> None:
    with pytest.raises(MatchRTError) as caught:
        Policy.parse(text)
    assert caught.value.code == "live-keyframe"


def test_black_and_blank_frames() -> None:
    noise = np.random.default_rng(0).integers(0, 8, (480, 640, 3)).astype(np.uint8)
    assert blank_kind(noise) == "black" and blank_kind(noise + 16) == "black"
    assert blank_kind(noise // 2 + np.array([0, 0, 200], np.uint8)) == "blank"
    assert blank_kind(noise * 30) is None
    dark = noise.copy()
    dark[:100, :100] = 60  # a lit window at night
    assert blank_kind(dark) is None
