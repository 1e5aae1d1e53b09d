"""From a caller's image to the engine's input: the same pixels whatever the way, without copies, in kept memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PILImage
from support.pictures import texture
from support.serving_stub import StubSession, manifest

from matchrt import Matcher, MatcherOptions
from matchrt.bench.folder import read_folder
from matchrt.manifest import EngineManifest, InputContract, Kernel
from matchrt.runtime.colours import Order, in_memory_order, to_grey, to_rgb
from matchrt.runtime.decoding.values import LEAST_CONTRAST, Values
from matchrt.runtime.filters import Job, filter_all
from matchrt.runtime.fit import apply_fit
from matchrt.runtime.image import as_frame, as_image
from matchrt.runtime.preprocess import PlannedPair, plan_image
from matchrt.runtime.workspace import Workspace, Workspaces

UInt8Array = npt.NDArray[np.uint8]
RANDOM = np.random.default_rng(16)
COLOURS = RANDOM.integers(0, 256, (90, 120, 3), np.uint8)


def luma(pixels: UInt8Array) -> npt.NDArray[np.int64]:
    """Pillow's, in its own integers."""
    return (pixels.astype(np.int64) @ (19595, 38470, 7471) + 32768) >> 16


def test_grey_has_the_weights_that_are_stated_and_is_pillows_within_a_level() -> None:
    line, other = np.arange(256, dtype=np.uint8), 0
    for red in range(0, 256, 5):
        colours = np.empty((256, 256, 3), np.uint8)
        colours[..., 0], colours[..., 1], colours[..., 2] = red, line[:, None], line
        grey = np.empty((256, 256), np.uint8)
        to_grey(colours, "rgb", grey)
        stated = (colours.astype(np.int64) @ (9798, 19235, 3735) + 16384) >> 15
        assert np.array_equal(grey, stated)
        difference = np.abs(grey.astype(int) - luma(colours))
        assert difference.max() <= 1
        other += np.count_nonzero(difference)
    assert other / (52 * 65536) < 0.0015


def test_grey_of_photographs_is_pillows_but_for_one_pixel_in_20_000(shared: Path) -> None:
    paths = sorted((shared / "eval").rglob("*.jpg"))[::8]
    other = pixels = 0
    for path in paths:
        colours = np.asarray(PILImage.open(path).convert("RGB"))
        grey = np.empty(colours.shape[:2], np.uint8)
        to_grey(colours, "rgb", grey)
        other, pixels = other + np.count_nonzero(grey != luma(colours)), pixels + grey.size
    assert paths and other / pixels < 1 / 20_000


@pytest.mark.parametrize("order", ["rgb", "bgr", "rgba", "bgra"])
def test_every_order_of_channels_gives_the_same_colours(order: Order) -> None:
    stored = np.dstack([COLOURS, RANDOM.integers(0, 256, (90, 120), np.uint8)])
    stored = stored[..., [2, 1, 0, 3]] if order.startswith("bgr") else stored
    stored = np.ascontiguousarray(stored[..., : len(order)])
    canvas = np.full((100, 150, 3), 9, np.uint8)  # its rows are apart
    to_rgb(stored, order, canvas[:90, :120])
    assert np.array_equal(canvas[:90, :120], COLOURS) and (canvas[90:] == 9).all()
    grey, expected = np.zeros((100, 150), np.uint8), np.empty((90, 120), np.uint8)
    to_grey(stored, order, grey[:90, :120])
    to_grey(COLOURS, "rgb", expected)
    assert np.array_equal(grey[:90, :120], expected) and not grey[90:].any()


def test_a_reversed_view_is_read_where_it_lies() -> None:
    pixels, order = in_memory_order(COLOURS[:, :, ::-1], "bgr")
    assert order == "rgb" and np.shares_memory(pixels, COLOURS) and pixels.flags.c_contiguous


def test_matches_do_not_feel_whose_grey_it_is(shared: Path) -> None:
    """Pillow's grey and OpenCV's of a pair of photographs: the same matches within 0.05 px for 99.5 %."""
    pair = read_folder(shared / "eval").homography[0]
    colours = [np.asarray(PILImage.open(path).convert("RGB")) for path in (pair.image0, pair.image1)]
    grey = [np.asarray(PILImage.fromarray(pixels).convert("L")) for pixels in colours]
    with Matcher("loftr-lite", MatcherOptions(resize=320)) as matcher:
        found, expected = matcher.match(*colours), matcher.match(*grey)
    rows = [np.concatenate([matches.keypoints0, matches.keypoints1], axis=1) for matches in (found, expected)]
    nearest = np.array([np.abs(rows[0] - row).max(1).min() for row in rows[1]])
    assert len(rows[1]) > 50 and np.mean(nearest <= 0.05) >= 0.995


# ------------------------------------------------------------------------------------------- the engine's input


def contract(channels: int, kernel: Kernel, coarse: tuple[int, int] | None = None) -> EngineManifest:
    fixed = InputContract(
        channels, 8, "stretch" if coarse else "letterbox", kernel, height=96, width=128, coarse=coarse
    )
    return replace(manifest(1), input=fixed)


def slowly(value: Any, engine: EngineManifest, options: MatcherOptions) -> UInt8Array:
    """The engine's input by whole images, one step after the other."""
    image = as_image(np.array(value), channel_order=options.channel_order)
    grey = np.empty(image.pixels.shape[:2], np.uint8)
    to_grey(image.pixels, "grey" if image.pixels.ndim == 2 else "rgb", grey)
    pixels = grey if engine.input.channels == 1 else image.rgb()
    fit = plan_image(value, "x", engine, options).fit
    return apply_fit(pixels, fit, engine.input.kernel)


@pytest.mark.parametrize("kernel", ["area-linear", "bicubic", "lanczos", "bicubic-aliased"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(96, 128), (90, 128), (200, 300), (96, 200), (40, 60), (250, 97)])
def test_the_input_is_that_of_one_step_after_the_other(kernel: Kernel, channels: int, size: tuple[int, int]) -> None:
    height, width = size
    colours = RANDOM.integers(0, 256, (height, width, 4), np.uint8)
    kinds = (colours[..., 0].copy(), colours[..., :3].copy(), colours, colours[..., :3], colours[:, ::-1, 2::-1])
    engine, workspace = contract(channels, kernel), Workspace(2)
    for value in kinds:
        for order in ("rgb", "bgr"):
            options = MatcherOptions(channel_order=order)  # type: ignore[arg-type]
            lent = {"image0": np.full((1, 96, 128, channels), 77, np.uint8)}
            image = plan_image(value, "x", engine, options)
            written, _ = PlannedPair(image, image).write(workspace, lent)
            assert written.pixels is not None
            assert np.array_equal(written.pixels, slowly(value, engine, options))
            assert image.is_ready() or np.shares_memory(written.pixels, lent["image0"])


def test_both_sizes_of_an_engine_with_a_smaller_copy_are_pillows() -> None:
    engine, options = contract(3, "bicubic", (48, 64)), MatcherOptions()
    pair = PlannedPair(plan_image(COLOURS, "a", engine, options), plan_image(COLOURS[::-1], "b", engine, options))
    lent = {name: np.zeros(shape, np.uint8) for name, shape in pair.shapes().items()}
    assert {name: array.shape for name, array in lent.items()} == {
        "image0": (1, 96, 128, 3), "image1": (1, 96, 128, 3), "coarse0": (1, 48, 64, 3), "coarse1": (1, 48, 64, 3),
    }  # fmt: skip
    pair.write(Workspace(3), lent)
    for index, pixels in enumerate((COLOURS, COLOURS[::-1])):
        for name in ("image", "coarse"):
            found = lent[f"{name}{index}"][0]
            picture = PILImage.fromarray(np.ascontiguousarray(pixels))
            expected = picture.resize(found.shape[1::-1], PILImage.Resampling.BICUBIC)
            assert np.array_equal(found, np.asarray(expected))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kernel", ["bicubic", "lanczos"])
def test_filters_give_pillows_integers(kernel: Kernel, threads: int) -> None:
    name = PILImage.Resampling[kernel.upper()]
    for source, target in (
        ((480, 640), (560, 560)),
        ((97, 301), (300, 97)),
        ((50, 40), (50, 90)),
        ((300, 30), (20, 30)),
    ):
        for shape in (source, (*source, 3)):
            pixels = RANDOM.integers(0, 256, shape, np.uint8)
            canvas = np.full((target[0] + 3, target[1] + 5, *shape[2:]), 3, np.uint8)
            out = canvas[: target[0], : target[1]]  # its rows are apart
            filter_all([Job(pixels, out)], kernel, Workspace(threads))
            assert np.array_equal(out, np.asarray(PILImage.fromarray(pixels).resize(target[::-1], name)))
            assert (canvas[target[0] :] == 3).all() and (canvas[:, target[1] :] == 3).all()


# ------------------------------------------------------------------------------------------- contrast


def test_a_first_look_never_says_more_than_the_whole_sample() -> None:
    proven = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        low, span = int(random.integers(0, 200)), int(random.integers(1, 56))
        shape = (int(random.integers(16, 300)), int(random.integers(16, 300)), 3)[: int(random.integers(2, 4))]
        pixels = random.integers(low, low + span, shape).astype(np.uint8)
        pixels.reshape(-1)[:: int(random.integers(2, 120))] = random.integers(0, 256)
        values = Values(pixels, 255.0)
        assert values.has_contrast() == (values.span().contrast >= LEAST_CONTRAST)
        proven += values._plainly_has_contrast()
    assert proven > 20
    wide = Values(RANDOM.integers(0, 4096, (100, 100)).astype(np.uint16), 4095.0)
    assert wide._plainly_has_contrast() and wide.has_contrast()


def test_an_array_of_little_contrast_is_told_when_it_is_asked_for() -> None:
    dull = (texture(64, 64) // 20 + 100).astype(np.uint8)
    frame = as_frame(dull, name="dull")
    assert frame.pixels is dull and "'dull' uses" in (frame.notice() or "")
    assert frame.notice() == as_image(dull, name="dull").notice
    assert as_frame(texture(64, 64)).notice() is None


# ------------------------------------------------------------------------------------------- memory


def test_memory_is_used_again_but_not_by_two_at_a_time() -> None:
    workspace = Workspace()
    first = workspace.take("x", (10, 20))
    assert np.shares_memory(first, workspace.take("x", (5, 7, 3))) and first.flags.c_contiguous
    assert not np.shares_memory(first, workspace.take("y", (10, 20)))
    huge = workspace.take("huge", (33 << 20,))
    assert not np.shares_memory(huge, workspace.take("huge", (33 << 20,)))  # not kept
    free = Workspaces()
    with free.borrowed() as outer, free.borrowed() as inner:
        assert outer is not inner
    with free.borrowed() as again:
        assert again in (outer, inner)


def test_work_is_shared_by_threads_and_its_errors_are_raised() -> None:
    workspace, seen = Workspace(3), []
    gate = threading.Barrier(3, timeout=30)

    def work(items: Any, index: int) -> None:
        gate.wait()  # only if all three run at the same time
        seen.append((index, list(items)))

    workspace.share(range(7), work)
    assert sorted(seen) == [(0, [0, 1]), (1, [2, 3]), (2, [4, 5, 6])]

    def fail(items: Any, index: int) -> None:
        if index == 2:
            raise ValueError("in a thread")

    with pytest.raises(ValueError, match="in a thread"):
        workspace.share(range(7), fail)
    workspace.share([], fail)


class _Lending(StubSession):
    """A session that lends memory, and notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.memory_of: dict[str, UInt8Array] = {}
        self.given: list[dict[str, Any]] = []

    def staging(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        for name, shape in shapes.items():
            self.memory_of.setdefault(name, np.full(shape, 200, np.uint8))
        return self.memory_of

    def run(self, inputs: Any) -> dict[str, npt.NDArray[Any]]:
        self.given.append(inputs)
        return super().run(inputs)


def test_images_are_written_into_what_the_session_lends() -> None:
    session = _Lending()
    session.manifest = contract(1, "area-linear")  # 96 x 128
    with Matcher(session) as matcher:
        matcher.match(np.full((64, 128, 3), 90, np.uint8), np.full((96, 64), 60, np.uint8))
        inputs = session.given[-1]
        for name, level, inner in (("image0", 90, np.s_[:64]), ("image1", 60, np.s_[:, :64])):
            assert np.shares_memory(inputs[name], session.memory_of[name])
            filled = np.zeros((96, 128, 1), np.uint8)
            filled[inner] = level
            assert np.array_equal(inputs[name][0], filled)  # what lay in the padding is gone


def test_matchers_take_no_fresh_memory_for_the_next_call() -> None:
    session = _Lending()
    session.staging = lambda shapes: None  # type: ignore[method-assign, assignment]
    side = session.manifest.input.height or 0
    with Matcher(session) as matcher:
        for level in (10, 20):
            matcher.match(*(np.full((side, side, 3), level + i, np.uint8) for i in (0, 1)))
    first, second = session.given
    assert np.shares_memory(first["image0"], second["image0"]) and not np.shares_memory(
        first["image0"], first["image1"]
    )
    assert second["image0"].min() == 20 and second["image1"].max() == 21


def test_images_that_users_prepare_or_read_are_their_own(tmp_path: Path) -> None:
    session = _Lending()
    side = session.manifest.input.height or 0
    with Matcher(session) as matcher:
        prepared = matcher.prepare_image(np.full((side, side, 3), 40, np.uint8))
        matcher.match(*(np.full((side, side, 3), 90, np.uint8),) * 2)
        assert prepared.pixels is not None and (prepared.pixels == 40).all()
        for suffix in ("png", "jpg"):
            PILImage.fromarray(COLOURS).save(tmp_path / f"a.{suffix}")
            image = matcher.read(tmp_path / f"a.{suffix}")
            image.pixels[0, 0] = 0  # a picture to draw on
