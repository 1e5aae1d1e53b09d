"""Matching of images that are resized on the GPU, on stubs: the same matches as by the host, in the right stream."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs
import pytest
from support.cuda_stub import OnGpu
from support.machines import KINDS, Machine, make_engine, save_engine

from matchrt import Matcher, MatcherOptions, Matches, MatchRTError, Nv12
from matchrt.runtime.gpu.frames.upload import FrameUpload, HostFrame
from matchrt.runtime.gpu.session import TensorRTSession

every_machine = pytest.mark.parametrize("machine", KINDS, indirect=True)
Array = npt.NDArray[Any]
ON_GPU, ON_HOST = MatcherOptions(resize_on="gpu"), MatcherOptions(resize_on="host")


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *names, **more: str(tmp_path))


@pytest.fixture
def engine(machine: Machine, tmp_path: Path) -> Path:
    return save_engine(make_engine(machine), tmp_path)


@pytest.fixture
def matcher(engine: Path) -> Iterator[Matcher]:
    with Matcher(engine, ON_GPU) as opened:
        yield opened


def grey(height: int, width: int, seed: int = 0) -> Array:
    """Shrunk by 3 or by a power of 2 along both axes, it gives the same integers on the GPU as on the host."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def colours(height: int, width: int, seed: int = 0) -> Array:
    """Without colour, so that every rule for grey gives the same."""
    return np.repeat(grey(height, width, seed)[:, :, None], 3, 2)


def pairs(count: int) -> list[tuple[Array, Array]]:
    return [(grey(64, 96, 2 * seed), colours(96, 144, 2 * seed + 1)) for seed in range(count)]


def by_the_host(engine: Path, *pair: Any, options: MatcherOptions = ON_HOST) -> Matches:
    with Matcher(engine, options) as matcher:
        return matcher.match(*pair)


def same(left: Any, right: Any) -> bool:
    return (
        isinstance(left, Matches)
        and isinstance(right, Matches)
        and np.array_equal(left.keypoints0, right.keypoints0)
        and np.array_equal(left.keypoints1, right.keypoints1)
        and np.array_equal(left.scores, right.scores)
        and (left.image0.height, left.image1.width) == (right.image0.height, right.image1.width)
    )


def refused(action: Any, *arguments: Any) -> MatchRTError:
    with pytest.raises(MatchRTError) as caught:
        action(*arguments)
    assert caught.value.remedy
    return caught.value


@every_machine
def test_host_arrays_are_resized_on_the_gpu(machine: Machine, engine: Path, matcher: Matcher) -> None:
    for pair in pairs(5):  # plainly, captured, replayed
        found = matcher.match(*pair)
        assert same(found, by_the_host(engine, *pair))
        assert {"copy", "upload", "resize", "gpu", "download", "inference"} <= set(found.timings)
    assert machine.cuda.count("cuLaunchKernel") == 15 and matcher.session.launch_mode() == "graph"
    assert machine.cuda.count("cuModuleLoadData") == 1


@every_machine
def test_arrays_on_the_gpu(machine: Machine, engine: Path, matcher: Matcher) -> None:
    for pair in pairs(4):
        given = [OnGpu(machine.cuda, image) for image in pair]
        found = matcher.match(*given)
        assert same(found, by_the_host(engine, *pair)) and found.image0.name == "image0"
        kept = matcher.match_on_gpu(*given)
        assert int(kept.num_matches.to_host()[0]) >= len(found)
        for index, points in enumerate((kept.keypoints0, kept.keypoints1)):
            expected = (found.keypoints0, found.keypoints1)[index]
            host = points.to_host()
            assert np.array_equal(host[0, : len(expected)], expected)
            assert not host[0, int(kept.num_matches.to_host()[0]) :].any()


def test_an_engine_for_any_number_of_pairs(machine: Machine, tmp_path: Path) -> None:
    """It takes single pairs from everywhere."""
    path = save_engine(make_engine(machine, pairs=4), tmp_path)
    with Matcher(path, ON_GPU) as matcher:
        for pair in pairs(3):
            expected = by_the_host(path, *pair)
            assert len(expected) and same(matcher.match(*pair), expected)
            assert same(matcher.match(*(OnGpu(machine.cuda, image) for image in pair)), expected)


def test_layouts_on_the_gpu(machine: Machine, engine: Path, matcher: Matcher) -> None:
    """Views, planes and a batch of one; arrays in another order of channels."""
    plain = colours(64, 96)
    expected = by_the_host(engine, plain, plain)
    planes = np.moveaxis(np.ascontiguousarray(np.moveaxis(plain, 2, 0)), 0, 2)
    for image in (plain[None], planes, np.asfortranarray(plain), np.pad(plain, ((0, 0), (0, 32), (0, 1)))[:, :96],
                  plain.astype(np.uint16) * 257, (plain / 255).astype(np.float32)):  # fmt: skip
        assert same(matcher.match(OnGpu(machine.cuda, image), OnGpu(machine.cuda, plain)), expected)
    red = plain.copy()
    red[..., 1:] = 0
    swapped = red[..., ::-1].copy()
    with Matcher(engine, MatcherOptions(channel_order="bgr")) as other:
        found = other.match(OnGpu(machine.cuda, swapped), OnGpu(machine.cuda, swapped))
    assert same(found, matcher.match(OnGpu(machine.cuda, red), OnGpu(machine.cuda, red)))


class Tensor(OnGpu):
    """What torch's tensors have."""

    is_cuda = True

    def __init__(self, cuda: Any, array: Array, dtype: str | None = None) -> None:
        super().__init__(cuda, array)
        self.dtype, self.shape = dtype or f"torch.{array.dtype}", array.shape

    def data_ptr(self) -> int:
        return self.pointer

    def element_size(self) -> int:
        return self.array.itemsize

    def stride(self) -> tuple[int, ...]:
        return tuple(step // self.array.itemsize for step in self.array.strides)


Tensor.__module__ = "torch"


def test_tensors_of_torch(machine: Machine, engine: Path, matcher: Matcher) -> None:
    plain = colours(64, 96)
    planes = np.moveaxis(np.ascontiguousarray(np.moveaxis(plain, 2, 0)), 0, 2)
    expected = by_the_host(engine, plain, plain)
    for image in (plain, planes, plain.astype(np.uint16) * 257, (plain / 255).astype(np.float32)):
        assert same(matcher.match(Tensor(machine.cuda, image), Tensor(machine.cuda, plain)), expected)
        assert same(matcher.match(Tensor(machine.cuda, image), OnGpu(machine.cuda, plain)), expected)
    odd = Tensor(machine.cuda, plain.astype(np.float16), "torch.bfloat16")
    assert refused(matcher.match, odd, odd).code == "image-array"


@every_machine
def test_nv12_in_host_memory_and_on_the_gpu(machine: Machine, engine: Path, matcher: Matcher) -> None:
    array = grey(96, 96, 3)
    array[64:] = 128  # no colour
    frame = Nv12(array, 64, 96)
    expected = by_the_host(engine, frame, frame)
    assert same(matcher.match(frame, frame), expected)
    on_gpu = Nv12(OnGpu(machine.cuda, array), 64, 96)
    assert same(matcher.match(on_gpu, on_gpu), expected)
    plain = grey(64, 96)
    assert same(matcher.match(frame, plain), by_the_host(engine, frame, plain))
    bad = Nv12(OnGpu(machine.cuda, array), 66, 96)
    assert refused(matcher.match, bad, on_gpu).code == "image-array"
    assert refused(matcher.match, Nv12(array, 66, 96), frame).code == "image-array"


@every_machine
def test_work_goes_into_the_callers_stream(machine: Machine, engine: Path, matcher: Matcher) -> None:
    cuda, pair = machine.cuda, pairs(1)[0]
    theirs = cuda.module.cudaStreamCreateWithFlags(1)[1]
    given = [OnGpu(cuda, image, theirs) for image in pair]
    expected = by_the_host(engine, *pair)
    for _ in range(3):
        assert same(matcher.match(*given, stream=theirs), expected)
        kept = matcher.match_on_gpu(*given, stream=theirs)
        assert len(cuda.streams[theirs].queue) > 0  # it returned before the work was done
        assert np.array_equal(kept.keypoints0.to_host()[0, : len(expected)], expected.keypoints0)
    matcher.match_on_gpu(*given, stream=theirs)
    assert same(matcher.match(*pair), expected) and cuda.streams[theirs].queue == []
    other = cuda.module.cudaStreamCreateWithFlags(1)[1]
    cuda.calls.clear()
    matcher.match(*(OnGpu(cuda, image, other) for image in pair), stream=theirs)
    assert cuda.count("cudaStreamSynchronize") >= 2  # for both images of another stream


@every_machine
def test_small_arrays_stay_on_the_host_unless_they_are_told(machine: Machine, engine: Path) -> None:
    small, large = grey(64, 96), grey(1080, 1920)
    with Matcher(engine) as matcher:
        matcher.match(small, small)
        assert machine.cuda.count("cuLaunchKernel") == 0
        matcher.match(small, large)
        assert machine.cuda.count("cuLaunchKernel") == 3
        for other in (large.astype(np.uint16), large / 255, Path("missing.png")):  # what the host must look at
            if isinstance(other, Path):
                assert refused(matcher.match, large, other).code == "image-missing"
            else:
                matcher.match(large, other)
        assert machine.cuda.count("cuLaunchKernel") == 3
    with Matcher(engine, MatcherOptions(stretch="each")) as matcher:
        matcher.match(large, large)
    assert machine.cuda.count("cuLaunchKernel") == 3


@every_machine
@pytest.mark.parametrize("cores", [1, 2, 8])
def test_threads_copy_all_rows(machine: Machine, monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    """Images above the size from which several threads copy, with odd numbers of rows and rows that lie apart."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    cuda = machine.cuda
    stream = cuda.module.cudaStreamCreateWithFlags(1)[1]
    upload = FrameUpload(0)
    frames = [grey(1201, 1700, seed) for seed in range(3)]
    arrays = [frames[0].copy(), np.pad(frames[1], ((0, 0), (3, 40)))[:, 3:1703], frames[2].copy()]
    block = arrays[2].__array_interface__["data"][0]
    cuda.pinned.append((block, arrays[2].nbytes))
    given = [HostFrame(arrays[0], False), HostFrame(arrays[1], False), HostFrame(arrays[2], True)]
    for _ in range(2):
        addresses = upload.send(given, stream)
        for array in arrays[:2]:
            array[...] = 0  # they have been read
        cuda.module.cudaStreamSynchronize(stream)
        for address, frame in zip(addresses, frames, strict=True):
            block = (np.ctypeslib.ctypes.c_uint8 * frame.size).from_address(address)
            assert np.array_equal(np.frombuffer(block, np.uint8).reshape(frame.shape), frame)
        arrays[0][...], arrays[1][...] = frames[0], frames[1]
    upload.close()


@every_machine
def test_page_locked_arrays_are_transferred_straight(machine: Machine, engine: Path, matcher: Matcher) -> None:
    pair = pairs(1)[0]
    expected = by_the_host(engine, *pair)
    whole = np.pad(pair[1], ((0, 0), (0, 8), (0, 0)))
    for array in (pair[0], whole):
        machine.cuda.pinned.append((array.__array_interface__["data"][0], array.nbytes))
    machine.cuda.calls.clear()
    assert same(matcher.match(pair[0], whole[:, :144]), expected)
    assert machine.cuda.count("cudaPointerGetAttributes") == 4
    assert matcher.session.memory().pinned >= pair[0].nbytes  # type: ignore[union-attr]


@every_machine
@pytest.mark.parametrize("options", [MatcherOptions(resize_on="gpu"), MatcherOptions()])
def test_match_many(machine: Machine, engine: Path, options: MatcherOptions) -> None:
    """Pairs for the GPU and for the host in turn keep their order."""
    given: list[tuple[Any, Any]] = [*pairs(4), (grey(64, 96) / 255, grey(32, 48)), (grey(512, 768), grey(1024, 1536))]
    expected = [by_the_host(engine, *pair) for pair in given]
    with Matcher(engine, options) as matcher:
        for _ in range(2):
            found = list(matcher.match_many([*given, ("missing.png", given[0][0])], return_errors=True))
            assert all(same(a, b) for a, b in zip(found[:-1], expected, strict=True))
            assert isinstance(found[-1], MatchRTError)
        assert same(matcher.match(*given[0]), expected[0])
    assert machine.cuda.device_memory == {} and machine.cuda.host_memory == {}


def test_while_the_engine_works_the_next_pair_is_copied(
    machine: Machine, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    start, collect = TensorRTSession.start_frames, TensorRTSession._collect
    monkeypatch.setattr(TensorRTSession, "start_frames", lambda *a: (events.append("start"), start(*a))[1])
    monkeypatch.setattr(TensorRTSession, "_collect", lambda *a: (events.append("collect"), collect(*a))[1])
    with Matcher(engine, ON_GPU) as matcher:
        list(matcher.match_many(pairs(3)))
    assert events == ["start", "start", "collect", "start", "collect", "collect"]


def test_runs_in_turn_wait_for_the_engine_and_not_for_copies(machine: Machine, engine: Path) -> None:
    """On GPUs that the vendor does not list: the copy and the resize of a pair are before the wait in its stream."""
    machine.script.validity = ("INVALID", 2)
    with Matcher(engine, ON_GPU) as matcher:
        list(matcher.match_many(pairs(6)))
        machine.cuda.calls.clear()
        list(matcher.match_many(pairs(2)))
    calls = [
        name for name in machine.cuda.calls if name in ("cudaStreamWaitEvent", "cuLaunchKernel", "cudaGraphLaunch")
    ]
    second = calls[calls.index("cudaGraphLaunch") + 1 :]
    # The last kernel of the first pair leads its keypoints back.
    assert second[1:5] == ["cuLaunchKernel", "cuLaunchKernel", "cudaStreamWaitEvent", "cudaGraphLaunch"]


@every_machine
def test_a_driver_that_refuses_the_kernels(machine: Machine, engine: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Host arrays are resized on the host then, which is told once; arrays on the GPU get the reason."""
    pair = pairs(1)[0]
    expected = by_the_host(engine, *pair)
    machine.cuda.failing["cuModuleLoadData"] = "cudaErrorInvalidValue"
    with Matcher(engine, ON_GPU) as matcher:
        for _ in range(3):
            assert same(matcher.match(*pair), expected)
        assert caplog.text.count("images are resized on the host") == 1 and "cuModuleLoadData" in caplog.text
        assert machine.cuda.count("cuModuleLoadData") == 1
        given = [OnGpu(machine.cuda, image) for image in pair]
        error = refused(matcher.match, *given)
        assert error.code == "kernels-refused" and "driver" in error.remedy
        assert refused(matcher.match_on_gpu, *given).code == "kernels-refused"
        assert same(matcher.match(*pair), expected)


@every_machine
@pytest.mark.parametrize("function", ["cudaMalloc", "cudaHostAlloc", "cuLaunchKernel", "cudaMemcpyAsync"])
def test_errors_on_the_way_leave_a_session_that_works(machine: Machine, engine: Path, function: str) -> None:
    first, second = pairs(2)
    larger = grey(512, 768), grey(1024, 1536)
    with Matcher(engine, ON_GPU) as matcher:
        matcher.match(*first)
        machine.cuda.failing[function] = "cudaErrorMemoryAllocation"
        assert refused(matcher.match, *larger).code == "out-of-memory"
        machine.cuda.failing.clear()
        for pair in (second, larger, first):
            assert same(matcher.match(*pair), by_the_host(engine, *pair))
        memory = matcher.session.memory()
        assert memory is not None
    assert machine.cuda.device_memory == {} and machine.cuda.host_memory == {}


@every_machine
def test_memory_is_accounted_for_and_given_back(machine: Machine, engine: Path) -> None:
    matcher = Matcher(engine, ON_GPU)
    for pair in [*pairs(2), (grey(512, 768), grey(1024, 1536)), *pairs(1)]:
        matcher.match(*pair)
    memory = matcher.session.memory()
    assert memory is not None
    assert memory.scratch + memory.tensors == sum(b.usable for b in machine.cuda.device_memory.values())
    assert memory.pinned == sum(b.usable for b in machine.cuda.host_memory.values())
    taken = machine.cuda.count("cudaMalloc", "cudaHostAlloc")
    for pair in [*pairs(2), (grey(512, 768), grey(1024, 1536))]:
        matcher.match(*pair)
    assert machine.cuda.count("cudaMalloc", "cudaHostAlloc") == taken
    matcher.close()
    assert machine.cuda.held() == 0


def test_what_is_refused(machine: Machine, engine: Path, matcher: Matcher) -> None:
    image = grey(64, 96)
    on_gpu = OnGpu(machine.cuda, image)

    class Broken:
        @property
        def __cuda_array_interface__(self) -> Any:
            raise RuntimeError("requires grad")

    for other, words in (
        (image, "not on the GPU"),
        (OnGpu(machine.cuda, np.zeros((3, 64, 96), np.uint8)), "channels last"),
        (OnGpu(machine.cuda, np.zeros((64, 96), np.int32)), "int32"),
        (OnGpu(machine.cuda, np.zeros((64, 96, 2), np.uint8)), "64, 96, 2"),
        (Broken(), "requires grad"),
    ):
        error = refused(matcher.match, on_gpu, other)
        assert error.code == "image-array" and words in f"{error.message} {error.remedy}"
    for code, shape in (("image-too-small", (8, 96)), ("image-too-large", (8000, 8000))):
        array = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), shape, (0, 0))
        assert refused(matcher.match, on_gpu, OnGpu(machine.cuda, array)).code == code
    with Matcher(engine, MatcherOptions(stretch="each")) as other:
        assert refused(other.match, on_gpu, on_gpu).code == "option-range"
    with pytest.raises(MatchRTError, match="resize_on"):
        MatcherOptions(resize_on="cpu")  # type: ignore[arg-type]


def test_little_contrast_is_told_as_on_the_host(machine: Machine, engine: Path, matcher: Matcher) -> None:
    flat = np.full((64, 96), 9, np.uint8)
    expected = by_the_host(engine, flat, grey(64, 96)).warnings
    assert matcher.match(flat, grey(64, 96)).warnings == expected and "image0" in expected[0]
