"""PairAdapter: images in and matches out around runs of the caller's own, without a session."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.pictures import shifted_pair
from support.serving_stub import StubSession, manifest

from matchrt import Matcher, MatcherOptions, MatchRTError
from matchrt.manifest import TensorSpec
from matchrt.manifest.contract import check_contract
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.engine_file import read_engine


def test_around_a_run_of_ones_own_it_gives_what_match_gives(coarse_engine: Path) -> None:
    images = shifted_pair(120, 160, (16, 8))
    with Matcher(coarse_engine) as matcher:
        expected = matcher.match(*images)
        adapter = PairAdapter(matcher.manifest)
        first, second = (adapter.prepare(image, name) for image, name in zip(images, ("image0", "image1"), strict=True))
        outputs = matcher.session.run(adapter.inputs(first, second))
    matches = adapter.matches((first, second), outputs, {"inference": 1.5})
    assert len(matches) and matches.timings["inference"] == 1.5 and matches.provenance == expected.provenance
    for name in ("keypoints0", "keypoints1", "scores"):
        np.testing.assert_array_equal(getattr(matches, name), getattr(expected, name))
    assert (matches.image0, matches.image1) == (expected.image0, expected.image1)


def test_each_row_of_a_batch_is_a_pair_of_its_own() -> None:
    session = StubSession(batch=2)
    adapter = PairAdapter(session.manifest)
    values = ((8, 16), (24, 32))
    images = [tuple(adapter.prepare(np.full((128, 128), value, np.uint8)) for value in pair) for pair in values]
    rows = [adapter.inputs(*pair) for pair in images]
    assert all(array.shape[0] == 1 for row in rows for array in row.values())
    outputs = session.run({name: np.concatenate([row[name] for row in rows]) for name in rows[0]})
    found = [adapter.matches(pair, outputs, {}, row) for row, pair in enumerate(images)]  # type: ignore[arg-type]
    # The stub's only match lies at the images' mean values; the images are twice as large as the engine's input.
    assert [(m.keypoints0.tolist(), m.keypoints1.tolist()) for m in found] == [
        ([[2 * first + 0.5] * 2], [[2 * second + 0.5] * 2]) for first, second in values
    ]


def test_options_that_the_engine_cannot_follow_are_refused_and_a_batch_is_not() -> None:
    dynamic = read_engine("loftr-lite").manifest
    for options, about, code in (
        (MatcherOptions(resize=320), manifest(1), "resize-static"),
        (MatcherOptions(resize=100_000), dynamic, "resize-range"),
        (MatcherOptions(sample=10), dynamic, "dense-missing"),
    ):
        with pytest.raises(MatchRTError) as caught:
            PairAdapter(about, options)
        assert caught.value.code == code
    assert PairAdapter(manifest(8)).manifest.input.batch == 8


def test_a_dense_warp_is_read_by_row() -> None:
    plain = manifest(2)
    warp, certainty = TensorSpec("warp", "float32", (2, 4, 4, 4)), TensorSpec("certainty", "float32", (2, 4, 4))
    dense = replace(plain, outputs=(*plain.outputs, warp, certainty))
    adapter = PairAdapter(dense, MatcherOptions(sample=3))
    blank = adapter.blank()
    outputs = {"warp": np.zeros((2, 4, 4, 4), np.float32), "certainty": np.zeros((2, 4, 4), np.float32)}
    outputs["certainty"][1] = 1.0
    assert [len(adapter.matches((blank, blank), outputs, {}, row)) for row in (0, 1)] == [0, 3]
    assert adapter.dense((blank, blank), outputs, 1).certainty.min() == 1.0
    with pytest.raises(MatchRTError) as caught:
        PairAdapter(plain).dense((blank, blank), outputs)
    assert caught.value.code == "dense-missing"


def test_a_precision_is_in_pixels_of_the_images_as_given() -> None:
    plain = manifest(1)
    height, width = plain.input.height, plain.input.width
    assert height is not None and width is not None
    shape = (1, height, 2 * width)
    specs = (("warp", (*shape, 4)), ("certainty", shape), ("precision", (*shape, 3)))
    dense = replace(plain, outputs=(*plain.outputs, *(TensorSpec(name, "float32", size) for name, size in specs)))
    outputs = {name: np.zeros(size, np.float32) for name, size in specs}
    outputs["precision"][..., :width, :] = (1.0, 0.5, 2.0)
    outputs["precision"][..., width:, :] = (4.0, -1.0, 3.0)
    adapter = PairAdapter(dense)
    # Image 0 is twice as high and four times as wide as the input, image 1 half as high and as wide.
    sizes = ((2 * height, 4 * width), (height // 2, width))
    images = [adapter.blank() for _ in sizes]
    images = [replace(b, ref=replace(b.ref, height=h, width=w)) for b, (h, w) in zip(images, sizes, strict=True)]
    found = adapter.dense((images[0], images[1]), outputs).precision
    assert found is not None and found.shape == (height, 2 * width, 2, 2) and found.dtype == np.float32
    # A pixel of image 1 is half as many rows of the input: errors are half as many, the precision is 4 times.
    assert np.allclose(found[:, :width], [[1.0, 1.0], [1.0, 8.0]])
    assert np.allclose(found[:, width:], [[4 / 16, -1 / 8], [-1 / 8, 3 / 4]])
    del outputs["precision"]
    assert adapter.dense((images[0], images[1]), outputs).precision is None


def test_a_precision_without_a_warp_is_no_contract() -> None:
    plain = manifest(1)
    alone = replace(plain, outputs=(*plain.outputs, TensorSpec("precision", "float32", (1, 4, 4, 3))))
    with pytest.raises(ValueError, match="precision without warp and certainty"):
        check_contract(alone)


def test_warming_up_does_not_count_as_a_large_image() -> None:
    adapter = PairAdapter(manifest(1), MatcherOptions(max_pixels=10))
    assert adapter.blank().pixels is not None
    with pytest.raises(MatchRTError) as caught:
        adapter.prepare(np.zeros((64, 64), np.uint8))
    assert caught.value.code == "image-too-large"


def test_a_matcher_takes_an_open_session_and_closes_it_where_it_is_refused() -> None:
    for session, options, code in (
        (StubSession(batch=2), None, "engine-batch"),
        (StubSession(), MatcherOptions(resize=320), "resize-static"),
    ):
        with pytest.raises(MatchRTError) as caught:
            Matcher(session, options)
        assert caught.value.code == code and session.closed == 1
    session = StubSession()
    with Matcher(session) as matcher:
        assert matcher.session is session and matcher.manifest is session.manifest and not session.closed
    assert session.closed == 1


class _Overlapping(StubSession):
    """A stub whose forks are counted, and whose runs are said to overlap."""

    asynchronous = True

    def __init__(self) -> None:
        super().__init__()
        self.forks: list[StubSession] = []

    def fork(self) -> StubSession:
        self.forks.append(StubSession())
        return self.forks[-1]


def test_pairs_take_turns_on_two_forks_which_are_kept() -> None:
    session = _Overlapping()
    pairs = [(np.full((64, 64), value, np.uint8),) * 2 for value in (10, 20, 30)]
    with Matcher(session) as matcher:
        for _ in range(2):
            assert [found.keypoints0[0, 0] for found in matcher.match_many(pairs)] == [10, 20, 30]
        stopped = matcher.match_many(itertools.cycle(pairs))
        next(stopped)
        stopped.close()  # type: ignore[attr-defined]
        assert len(session.forks) == 2 and not session.runs and all(fork.runs for fork in session.forks)
    assert [fork.closed for fork in session.forks] == [1, 1] and session.closed == 1


def test_an_image_that_another_engine_would_see_otherwise_is_refused_by_name() -> None:
    image = np.full((120, 160), 99, np.uint8)
    dynamic, static = read_engine("loftr-lite").manifest, manifest(1)
    prepared = PairAdapter(dynamic).prepare(image, "left")
    assert PairAdapter(dynamic).prepare(prepared) is prepared
    assert PairAdapter(replace(dynamic, model="renamed")).prepare(prepared) is prepared
    others = (
        PairAdapter(static),
        PairAdapter(dynamic, MatcherOptions(resize=256)),
        PairAdapter(replace(dynamic, input=replace(dynamic.input, channels=3))),
        PairAdapter(replace(dynamic, input=replace(dynamic.input, kernel="lanczos"))),
    )
    for other in others:
        with pytest.raises(MatchRTError) as caught:
            other.inputs(prepared, prepared)
        assert caught.value.code == "image-prepared" and "left" in caught.value.message


def test_pairs_are_stretched_together() -> None:
    cold = np.linspace(20000, 21000, 128 * 128).reshape(128, 128).astype(np.uint16)
    adapter = PairAdapter(manifest(1), MatcherOptions(stretch="same"))
    first, second = adapter.prepare_pair(cold, cold + 1000)
    apart = PairAdapter(manifest(1), MatcherOptions(stretch="each")).prepare_pair(cold, cold + 1000)
    assert first.pixels is not None and second.pixels is not None
    assert second.pixels.mean() - first.pixels.mean() > 100
    assert all(image.pixels is not None and 100 < image.pixels.mean() < 155 for image in apart)
    shared = adapter.share(cold), adapter.share(cold + 1000)
    again = adapter.prepare_pair(*shared)
    assert np.array_equal(again[0].pixels, first.pixels) and np.array_equal(again[1].pixels, second.pixels)
    with pytest.raises(MatchRTError) as caught:
        adapter.prepare(cold)
    assert caught.value.code == "option-range"
    adapter.inputs(adapter.blank(), adapter.blank())
