"""Pairs that give little are matched again: turned, larger, with weaker matches; points come back to the half pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.turning import MarkSession, dynamic_manifest, frames_manifest, marked, static_manifest

from matchrt import Matcher, MatcherOptions, Matches, MatchRTError
from matchrt.manifest import FrameContract
from matchrt.runtime.image import Image
from matchrt.runtime.match_data import QUARTERS
from matchrt.runtime.nv12 import Nv12
from matchrt.runtime.options import MatcherOptions as Options
from matchrt.runtime.turning import turn_image, unturned_points

AUTO = MatcherOptions(rotate="auto")


def units(points: Any, height: int, width: int) -> Any:
    return (points + 0.5) / (width, height)


def require_turned(matches: Matches, degrees: int, tolerance: float = 1e-4) -> None:
    """The points of image 1 are those of image 0, turned clockwise the other way round: image 1 was given turned."""
    one = units(matches.keypoints1, matches.image1.height, matches.image1.width)
    x, y = one[:, 0], one[:, 1]
    back = {0: (x, y), 90: (1 - y, x), 180: (1 - x, 1 - y), 270: (y, 1 - x)}[degrees]
    zero = units(matches.keypoints0, matches.image0.height, matches.image0.width)
    assert len(matches) > 200
    assert np.abs(np.stack(back, 1) - zero).max() < tolerance
    assert matches.provenance.turned1 == degrees


@pytest.mark.parametrize("degrees", QUARTERS)
def test_a_turn_moves_every_pixel_to_where_its_point_says(degrees: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 3)).astype(np.uint8)
    turned = turn_image(Image(pixels, "i"), degrees)
    assert np.array_equal(turned.pixels, np.rot90(pixels, -degrees // 90))
    places = np.array([(x, y) for y in range(turned.height) for x in range(turned.width)], np.float32)
    back = unturned_points(places, degrees, 5, 8)
    for (x, y), (u, v) in zip(places.astype(int), back.astype(int), strict=True):
        assert np.array_equal(turned.pixels[y, x], pixels[v, u])
    assert np.array_equal(unturned_points(places + 0.25, degrees, 5, 8) % 0.25, np.zeros_like(places))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_dynamic_engine_looks_for_the_turn_at_half_the_size(degrees: int, tmp_path: Path) -> None:
    session = MarkSession(dynamic_manifest())
    given = marked(480, 640), marked(480, 640, -degrees % 360, seed=1)
    with Matcher(session, AUTO) as matcher:
        matches = matcher.match(*given)
    require_turned(matches, degrees)
    assert (matches.image1.height, matches.image1.width) == given[1].shape
    assert matches.provenance.network_size1 == ((480, 640) if degrees == 180 else (640, 480))
    assert max(session.sizes[0][0]) == 640 and max(session.sizes[-1][0]) == 640
    assert {max(first) for first, _ in session.sizes[1:-1]} == {320}
    assert len(session.sizes) == 2 + {90: 1, 270: 2, 180: 3}[degrees]
    assert matches.timings["judge"] > 0 and matches.timings["retry"] > 0 and not matches.advice
    assert matches.summary()["provenance"]["turned1"] == degrees
    matches.save(tmp_path / "m.npz")
    assert Matches.load(tmp_path / "m.npz").provenance == matches.provenance


def test_a_pair_that_matches_is_run_once() -> None:
    session = MarkSession(dynamic_manifest())
    with Matcher(session, MatcherOptions(rotate="auto", zoom="auto", effort="high")) as matcher:
        matches = matcher.match(marked(480, 640), marked(480, 640, seed=1))
    require_turned(matches, 0)
    assert len(session.sizes) == 1 and "retry" not in matches.timings and not matches.advice


@pytest.mark.parametrize("size", [(120, 640), (80, 640), (640, 64)])
def test_narrow_pictures_that_match_are_run_once_though_they_have_few_places(size: tuple[int, int]) -> None:
    session = MarkSession(dynamic_manifest())
    with Matcher(session, MatcherOptions(rotate="auto", zoom="auto")) as matcher:
        matches = matcher.match(marked(*size), marked(480, 640, seed=1))
    assert matches.judge().verdict == "match" and len(session.sizes) == 1


def test_without_the_option_nothing_is_tried() -> None:
    session = MarkSession(dynamic_manifest())
    with Matcher(session) as matcher:
        matches = matcher.match(marked(480, 640), marked(480, 640, 180))
    assert len(session.sizes) == 1 and "judge" not in matches.timings and matches.provenance.turned1 == 0


def test_unrelated_images_stay_without_a_match_and_get_advice() -> None:
    session = MarkSession(dynamic_manifest(), least=10_000)
    with Matcher(session, AUTO) as matcher:
        matches = matcher.match(marked(480, 640), marked(480, 640))
    assert len(matches) == 60 and matches.provenance.turned1 == 0
    assert len(session.sizes) == 4
    assert any("MatcherOptions(effort='high')" in text for text in matches.advice)
    assert any("MatcherOptions(resize=832, min_score=0.2)" in text for text in matches.advice)
    assert not any("rotate" in text for text in matches.advice)
    assert matches.summary()["advice"] == list(matches.advice)


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("size", [(300, 200), (100, 101)])
def test_an_engine_of_one_size_tries_turns_at_that_size(degrees: int, size: tuple[int, int]) -> None:
    session = MarkSession(static_manifest(96, 128))
    with Matcher(session, AUTO) as matcher:
        matches = matcher.match(marked(*size), marked(*size, -degrees % 360, seed=1))
    require_turned(matches, degrees, 2e-3)
    assert set(session.sizes) == {((96, 128), (96, 128))}


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("pixels", ["rgb", "grey", "nv12"])
def test_frames_that_are_turned_stay_frames(degrees: int, pixels: Any) -> None:
    size = (64, 96)
    session = MarkSession(frames_manifest(FrameContract(pixels, (size, size))))
    given = []
    for seed, turn in ((0, 0), (1, -degrees % 360)):
        luma = marked(*size, turn, seed)
        chroma = np.full((32, 96), 128, np.uint8)
        given.append({"rgb": np.stack([luma] * 3, 2), "grey": luma, "nv12": np.concatenate([luma, chroma])}[pixels])
    with Matcher(session, AUTO) as matcher:
        matches = matcher.match(*given)
        again = matcher.match(*(Nv12(image, *size) for image in given)) if pixels == "nv12" else matches
    # A turned frame of 96x64 is scaled to 43 columns, and its points are as coarse.
    require_turned(matches, degrees, 0.02)
    assert np.array_equal(again.keypoints1, matches.keypoints1)
    assert set(session.sizes) == {(size, size)}
    assert (matches.image1.height, matches.image1.width) == size


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_an_image_that_shows_things_larger_is_halved(ratio: float) -> None:
    session = MarkSession(dynamic_manifest(), ratio=ratio)
    with Matcher(session, MatcherOptions(zoom="auto")) as matcher:
        matches = matcher.match(marked(480, 640), marked(480, 640, seed=1))
    require_turned(matches, 0)
    sizes = [((240, 320), (480, 640)), ((480, 640), (240, 320))]
    assert session.sizes[1:] == (sizes[:1] if ratio == 0.5 else sizes)
    assert (matches.provenance.network_size0, matches.provenance.network_size1) == session.sizes[-1]


@pytest.mark.parametrize("ratio", [0.5, 2.0])
@pytest.mark.parametrize("stretch", ["none", "same"])
def test_an_engine_of_one_size_gets_halved_images_on_a_canvas(ratio: float, stretch: Any) -> None:
    session = MarkSession(static_manifest(96, 128), ratio=ratio)
    given = [image.astype(np.uint16) * 100 for image in (marked(192, 256), marked(192, 256, seed=1))]
    with Matcher(session, MatcherOptions(zoom="auto", stretch=stretch)) as matcher:
        matches = matcher.match(*given)
    require_turned(matches, 0, 2e-3)
    assert set(session.sizes) == {((96, 128), (96, 128))}
    # What the network saw of the image that was halved is half of its input.
    seen = ((48, 64), (96, 128)) if ratio == 0.5 else ((96, 128), (48, 64))
    assert (matches.provenance.network_size0, matches.provenance.network_size1) == seen


def test_frames_are_halved_within_frames() -> None:
    session = MarkSession(frames_manifest(FrameContract("rgb", ((64, 96), (64, 96)))), ratio=2.0)
    given = [np.stack([marked(64, 96, seed=seed)] * 3, 2) for seed in (0, 1)]
    with Matcher(session, MatcherOptions(zoom="auto")) as matcher:
        require_turned(matcher.match(*given), 0)
    assert len(session.sizes) == 3


@pytest.mark.parametrize(("size", "runs"), [((100, 140), 4), ((240, 320), 6), ((480, 640), 9)])
def test_what_the_network_would_see_again_is_not_run_again(size: tuple[int, int], runs: int) -> None:
    session = MarkSession(dynamic_manifest(), least=10_000)
    with Matcher(session, MatcherOptions(effort="high", min_score=0.5)) as matcher:
        # Small pictures are enlarged at most twice, so a larger size changes nothing, and half the size often neither.
        matcher.match(marked(*size), marked(*size, seed=1))
    assert len(session.sizes) == runs


def test_16_bit_images_that_are_stretched_together_are_turned_too() -> None:
    session = MarkSession(dynamic_manifest())
    given = [image.astype(np.uint16) * 4 for image in (marked(320, 320), marked(320, 320, 90, seed=1))]
    with Matcher(session, MatcherOptions(rotate="auto", stretch="same")) as matcher:
        require_turned(matcher.match(*given), 270)


def test_a_stream_turns_the_pairs_that_need_it() -> None:
    turns = (0, 90, 180, 0, 270)
    with Matcher(MarkSession(dynamic_manifest()), AUTO) as matcher:
        pairs: list[Any] = [(marked(320, 320), marked(320, 320, turn, seed=1)) for turn in turns]
        prepared = Matcher(MarkSession(dynamic_manifest())).prepare_image(marked(320, 320))
        found = list(matcher.match_many([*pairs, (prepared, prepared)], return_errors=True))
    for matches, turn in zip(found[:-1], turns, strict=True):
        assert isinstance(matches, Matches)
        require_turned(matches, -turn % 360)
        assert ("retry" in matches.timings) == (turn != 0)
    assert isinstance(found[-1], MatchRTError) and found[-1].code == "option-range"


def test_high_effort_takes_weaker_matches_before_it_runs_again() -> None:
    session = MarkSession(dynamic_manifest(), good=0.25)
    with Matcher(session, MatcherOptions(effort="high")) as matcher:
        matches = matcher.match(marked(480, 640), marked(480, 640, seed=1))
    require_turned(matches, 0)
    assert len(session.sizes) == 1
    with Matcher(session, MatcherOptions(effort="high", min_score=0.4)) as matcher:
        assert len(matcher.match(marked(480, 640), marked(480, 640, seed=1))) < 100


def test_high_effort_takes_a_larger_size_and_turns_at_it() -> None:
    session = MarkSession(dynamic_manifest(), least=800)
    with Matcher(session, MatcherOptions(effort="high")) as matcher:
        matches = matcher.match(marked(480, 640), marked(480, 640, seed=1))
    require_turned(matches, 0)
    assert [max(first) for first, _ in session.sizes] == [640, 832]
    assert matches.provenance.network_size0 == (624, 832)


def test_high_effort_leaves_out_what_is_off() -> None:
    def asked(**given: Any) -> tuple[Matches, Any]:
        session = MarkSession(dynamic_manifest())
        with Matcher(session, MatcherOptions(effort="high", **given)) as matcher:
            return matcher.match(marked(480, 640), marked(480, 640, 180, seed=1)), session.sizes

    matches, sizes = asked(rotate="off")
    assert (
        matches.provenance.turned1 == 0 and ((240, 320), (480, 640)) in sizes and ((240, 320), (240, 320)) not in sizes
    )
    matches, sizes = asked(rotate="off", zoom="off")
    assert matches.provenance.turned1 == 0 and [max(first) for first, _ in sizes] == [640, 832]
    assert asked(zoom="off")[0].provenance.turned1 == 180


def test_high_effort_keeps_the_size_that_was_given() -> None:
    session = MarkSession(dynamic_manifest(), least=800)
    with Matcher(session, MatcherOptions(effort="high", resize=640)) as matcher:
        matches = matcher.match(marked(480, 640), marked(480, 640, seed=1))
    assert {max(first) for first, _ in session.sizes} == {320, 640} and not matches.advice
    assert "retry" in matches.timings


def test_what_cannot_be_turned_is_refused_by_name() -> None:
    session = MarkSession(dynamic_manifest())
    prepared = Matcher(session).prepare_image(marked(320, 320))
    with Matcher(session, AUTO) as matcher:
        matcher.warm_up()
        for call in (
            lambda: matcher.match(prepared, marked(320, 320)),
            lambda: matcher.prepare_image(marked(320, 320)),
            lambda: matcher.match_on_gpu(marked(320, 320), marked(320, 320)),
        ):
            with pytest.raises(MatchRTError) as raised:
                call()
            assert raised.value.code == "option-range" and "rotate" in raised.value.message
    for name in ("rotate", "zoom", "effort"):
        with pytest.raises(MatchRTError) as raised:
            Options(**{name: "maybe"})
        assert raised.value.code == "option-range"


def test_a_sure_match_of_few_places_is_tried_again_and_kept_unless_there_is_more() -> None:
    class Thin(MarkSession):
        def run(self, inputs: Any) -> Any:
            found = super().run(inputs)
            if len(self.sizes) == 1 or max(self.sizes[-1][0]) == 320:
                found["num_matches"] = np.minimum(found["num_matches"], 40)
            return found

    alone = Thin(dynamic_manifest())
    with Matcher(alone, AUTO) as matcher:
        matches = matcher.match(marked(480, 640), marked(480, 640, seed=1))
    # No turn gives anything: the first run is kept, and no turn is matched at the whole size.
    assert len(matches) == 40 and matches.judge().verdict == "match" and matches.provenance.turned1 == 0
    assert [max(first) for first, _ in alone.sizes] == [640, 320, 320, 320] and not matches.advice
