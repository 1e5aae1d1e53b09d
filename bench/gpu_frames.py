"""What a caller waits for with images of many sizes and places, beside the engine's own time on the GPU.

    python bench/gpu_frames.py [--engine FILE] [--runs 200] [--profile] [--json FILE]

One command on a machine with a GPU. Without --engine it builds loftr-lite 480x640 in fp16 from the package's graph for
tensorrt_rtx (45 s on an H100). It says whether the kernels give the host's pixels, whether the matches stay, what each
way of an image costs, where the copy of host memory pays from, and what `match_many` reaches. It needs torch, which
brings arrays on the GPU and page-locked ones. Rows are measured in turn and then each alone, medians are given, and the
exit code is 1 if something is wrong (a bar that is missed is not).
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from matchrt import Matcher, MatcherOptions, Matches, Nv12
from matchrt.bench.agreement import PairMatches
from matchrt.bench.latency import GPU, OVERHEAD, TOTAL, LatencyOptions, measure
from matchrt.bench.scene import image_pair
from matchrt.manifest import HOST_KERNELS, InputContract, Kernel
from matchrt.nvidia.device import current_gpu
from matchrt.runtime.gpu.frames import upload
from matchrt.runtime.gpu.frames.device_code import FrameKernels
from matchrt.runtime.gpu.frames.layouts import layout_of, layout_of_nv12
from matchrt.runtime.gpu.frames.plan import plan_frames
from matchrt.runtime.gpu.frames.stage import FrameStage
from matchrt.runtime.gpu.frames.upload import FrameUpload, HostFrame
from matchrt.runtime.gpu.stream import Stream
from matchrt.runtime.nearest import nearest_rows
from matchrt.runtime.preprocess import prepare_image

Pair = tuple[Any, Any]
SIZES = ((480, 640), (720, 1280), (1080, 1920), (2160, 3840))
# What the whole call may take beyond the engine's time, ms (issue 16), by row.
BARS = {
    "640x480 rgb, host": 0.3,
    "1920x1080 rgb, host": 2.0,
    "1920x1080 nv12, page-locked": 0.7,
    "1920x1080 rgb, GPU": 0.15,
    "1920x1080 rgb, GPU, caller's stream": 0.15,
}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, help="a loftr-lite engine of 480x640; built where it is missing")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.002, help="seconds between two calls")
    parser.add_argument("--profile", action="store_true", help="where Python's time goes in the leanest rows")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"gpu": current_gpu().name}
    print(found["gpu"])
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        engine = arguments.engine or Path(folder) / "lite.engine"
        if not engine.exists():
            build(engine)
        found["pixels"] = report("pixels beside the host's", pixels(wrong))
        found["copies"] = report("host memory to the GPU, two images of 1920x1080 RGB", copies())
        with (
            Matcher(engine) as auto,
            Matcher(auto.session.fork(), MatcherOptions(resize_on="host")) as host,
            Matcher(auto.session.fork(), MatcherOptions(resize_on="gpu")) as gpu,
        ):
            found["matches"] = report("matches beside the host's", matches(auto, host, gpu, wrong))
            found["latency"] = latency(auto, host, gpu, arguments)
            found["many"] = report("match_many, 1920x1080 RGB in host memory", many(auto, host, gpu, wrong))
            if arguments.profile:
                profile(auto)
    for problem in wrong:
        print("WRONG:", problem)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found | {"wrong": wrong}, indent=2) + "\n")
    return int(bool(wrong))


def build(engine: Path) -> None:
    """The engine of all rows."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "matchrt", "build", "loftr-lite", "--backend", "tensorrt_rtx"]
    subprocess.run([*command, "--precision", "fp16", "--output", str(engine)], check=True)
    print(f"built in {time.perf_counter() - start:.0f} s")


def report(title: str, rows: Iterator[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Prints rows as they come, and returns them."""
    print(f"\n{title}", flush=True)
    result: dict[str, Any] = {}
    for name, values in rows:
        result[name] = dict(values)
        told = (f"{key} {value:.5g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items())
        print(f"  {name:48} {', '.join(told)}", flush=True)
    return result


def scene(height: int, width: int) -> Pair:
    """The generated pair, RGB."""
    first, second, _ = image_pair(height, width)
    return first, second


def nv12_of(image: Any, pinned: bool = False) -> Nv12:
    """An image in NV12, from OpenCV's YUV; also in page-locked memory."""
    import cv2

    height, width = image.shape[:2]
    planar = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
    chroma = planar[height:].reshape(2, -1)
    planar[height:] = np.stack([chroma[0], chroma[1]], 1).reshape(height // 2, width)
    return Nv12(page_locked(planar) if pinned else planar, height, width)


def page_locked(array: Any) -> Any:
    """The array in page-locked memory of torch."""
    return torch.from_numpy(np.ascontiguousarray(array)).pin_memory().numpy()


# ------------------------------------------------------------------------------------------------- pixels


def pixels(wrong: list[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every kernel, many sizes and layouts, against `prepare_image`."""
    stage_of: dict[InputContract, FrameStage] = {}
    stream = Stream()
    kernels = FrameKernels()
    for name, contract, image, order in cases():
        manifest = _Engine(contract)
        stage = stage_of.setdefault(contract, FrameStage(kernels, contract, 0))
        options = MatcherOptions(channel_order=order)
        array = torch.from_numpy(image.array if isinstance(image, Nv12) else image).cuda()
        strides = tuple(step * array.element_size() for step in array.stride())
        dtype = np.dtype(str(array.dtype).removeprefix("torch."))
        if isinstance(image, Nv12):
            layout = layout_of_nv12(image, tuple(array.shape), strides, dtype, name)
        else:
            layout = layout_of(tuple(array.shape), strides, dtype, order, name)
        plan = plan_frames((layout, layout), manifest, options)  # type: ignore[arg-type]
        made = {key: torch.full(shape, 0xA5, dtype=torch.uint8, device="cuda") for key, shape in plan.shapes.items()}
        targets = {key: tensor.data_ptr() for key, tensor in made.items()}
        torch.cuda.synchronize()
        stage.run(plan, (array.data_ptr(), array.data_ptr()), targets, stream.handle)
        stream.wait()
        expected = prepare_image(image, "image", manifest, options).pixels  # type: ignore[arg-type]
        assert expected is not None
        gaps = [np.abs(made[key][0].cpu().numpy().astype(int) - expected) for key in ("image0", "image1")]
        values = {"largest": int(max(gap.max() for gap in gaps)), "share": float(np.mean(gaps[0] > 0))}
        # Sums near a half end either way.
        if values["largest"] > 1 or values["share"] > 0.01 or not np.array_equal(gaps[0], gaps[1]):
            wrong.append(f"pixels of {name}: {values}")
        yield name, values


class _Engine:
    """The part of a manifest that preparing images reads."""

    def __init__(self, contract: InputContract) -> None:
        self.input, self.inputs = contract, ()


def cases() -> Iterator[tuple[str, InputContract, Any, Any]]:
    """Names, contracts, images and orders of channels."""
    grey = InputContract(1, 8, "letterbox", "area-linear", height=480, width=640)
    for height, width in ((480, 640), (720, 1280), (1080, 1920), (1200, 1600), (300, 250), (1001, 777)):
        yield f"{width}x{height} rgb to grey", grey, scene(height, width)[0], "rgb"
    full, kernels = scene(1080, 1920)[0], [kernel for kernel in get_args(Kernel) if kernel not in HOST_KERNELS]
    for kernel in kernels:
        colour = InputContract(3, 14, "stretch", kernel, height=560, width=560)
        yield f"1920x1080 rgb, {kernel}", colour, full, "rgb"
        yield f"320x240 bgr enlarged, {kernel}", colour, scene(240, 320)[0], "bgr"
    for name, image in (
        ("rgba", np.dstack([full, full[:, :, :1]])),
        ("grey", full[:, :, 1].copy()),
        ("16 bits", full.astype(np.uint16) * 257),
        ("float32", full.astype(np.float32) / np.float32(255)),
        ("float16", (full / 255).astype(np.float16)),
        ("nv12", nv12_of(full)),
    ):
        yield f"1920x1080 {name} to grey", grey, image, "rgb"


# ------------------------------------------------------------------------------------------------- matches


def matches(auto: Matcher, host: Matcher, gpu: Matcher, wrong: list[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each way of the same images against the host's, and the same bits in every run."""
    for height, width in SIZES:
        pair = scene(height, width)
        expected = host.match(*pair)
        arrays = [torch.from_numpy(image).cuda() for image in pair]
        planes = [image.permute(2, 0, 1).contiguous().permute(1, 2, 0) for image in arrays]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        locked = [page_locked(image) for image in pair]
        ways: dict[str, Callable[[], Matches]] = {
            "from host memory": lambda pair=pair: gpu.match(*pair),
            "page-locked": lambda pair=locked: auto.match(*pair),
            "GPU": lambda pair=arrays: auto.match(*pair),
            "GPU, planes, caller's stream": lambda pair=planes, stream=stream: auto.match(*pair, stream=stream),
        }
        for name, call in ways.items():
            results = [call() for _ in range(20)]
            share = kept(expected, results[0])
            equal = all(np.array_equal(results[0].keypoints1, other.keypoints1) for other in results)
            yield f"{width}x{height} {name}", {"matches": len(results[0]), "within 0.05 px": share, "same bits": equal}
            if share < 0.995 or not equal or not len(expected):
                wrong.append(f"matches of {width}x{height} {name}: {share:.4f} within 0.05 px, same bits {equal}")
        lent = auto.match_on_gpu(*arrays)
        count, points = int(lent.num_matches.to_host()[0]), lent.keypoints1.to_host()[0]
        found = auto.match(*arrays)
        gap = float(np.abs(points[: len(found)] - found.keypoints1).max())
        yield f"{width}x{height} match_on_gpu", {"matches": count, "largest gap, px": gap}
        if gap > 1e-3 or count < len(found):
            wrong.append(f"match_on_gpu of {width}x{height}: {gap} px from match")
    pair = scene(1080, 1920)
    frames = tuple(nv12_of(image) for image in pair)
    share = kept(host.match(*frames), gpu.match(*frames))
    yield "1920x1080 nv12 from host memory", {"within 0.05 px": share}
    mixed = (pair[0], scene(480, 640)[1])
    second = kept(host.match(*mixed), gpu.match(*mixed))
    yield "1920x1080 and 640x480", {"within 0.05 px": second}
    if min(share, second) < 0.995:
        wrong.append(f"matches of nv12 {share:.4f}, of two sizes {second:.4f} within 0.05 px")


def kept(expected: Matches, actual: Matches) -> float:
    """The share of expected matches that are there with both points within 0.05 px of an image of 640 px."""
    if not len(expected) or not len(actual):
        return 0.0
    ours, theirs = (PairMatches.from_matches(found).points for found in (actual, expected))
    return float(np.mean(nearest_rows(theirs, ours)[1] <= 0.05))


# ------------------------------------------------------------------------------------------------- time


def latency(auto: Matcher, host: Matcher, gpu: Matcher, arguments: argparse.Namespace) -> dict[str, Any]:
    """All rows in turn; medians of the whole call, of the engine, and of what lies between."""
    subjects: dict[str, Callable[[], Mapping[str, float] | None]] = {}
    for height, width in SIZES:
        pair, size = scene(height, width), f"{width}x{height}"
        arrays = [torch.from_numpy(image).cuda() for image in pair]
        stream = torch.cuda.Stream()
        subjects |= {
            f"{size} rgb, host": row(auto, pair),
            f"{size} rgb, host, resized there": row(host, pair),
            f"{size} rgb, host, resized on the GPU": row(gpu, pair),
            f"{size} rgb, page-locked": row(auto, tuple(page_locked(image) for image in pair)),
            f"{size} rgb, GPU": row(auto, tuple(arrays)),
            f"{size} rgb, GPU, caller's stream": row(auto, tuple(arrays), stream=stream),
        }
        if (height, width) == (1080, 1920):
            subjects |= {
                f"{size} nv12, host": row(auto, tuple(nv12_of(image) for image in pair)),
                f"{size} nv12, page-locked": row(auto, tuple(nv12_of(image, pinned=True) for image in pair)),
                f"{size} nv12, GPU": row(auto, tuple(on_gpu(nv12_of(image)) for image in pair)),
                f"{size} rgb, GPU, match_on_gpu": lent(auto, tuple(arrays)),
            }
    torch.cuda.synchronize()
    options = LatencyOptions(runs=arguments.runs, warm_up=10, pause=arguments.pause)
    measured = measure(subjects, options)
    shown = (TOTAL, GPU, OVERHEAD, "copy", "upload", "resize", "download")
    print(f"\nmedians of {arguments.runs} interleaved runs, ms; over: the whole call less the engine's GPU time")
    print(f"  {'':48} {'total':>8} {'engine':>8} {'over':>8} {'copy':>8} {'upload':>8} {'resize':>8} {'down':>8}  bar")
    for subject in measured.subjects:
        cells = [f"{subject.stages[key].p50:8.3f}" if key in subject.stages else " " * 8 for key in shown]
        bar = BARS.get(subject.name)
        verdict = ""
        if bar is not None and OVERHEAD in subject.stages:
            verdict = f"{bar} {'holds' if subject.stages[OVERHEAD].p50 <= bar else 'MISSED'}"
        print(f"  {subject.name:48} {' '.join(cells)}  {verdict}")
    return measured.to_json() | {"back_to_back": back_to_back(subjects)}


def back_to_back(subjects: Mapping[str, Callable[[], Mapping[str, float] | None]], runs: int = 100) -> dict[str, Any]:
    """Medians of each row alone, call after call: what is left where the caches are warm."""
    print(f"\nmedians of {runs} runs call after call, ms; the first {runs // 5} are not counted")
    result: dict[str, Any] = {}
    for name, call in subjects.items():
        totals, over = [], []
        for _ in range(runs):
            start = time.perf_counter()
            timings = call() or {}
            totals.append((time.perf_counter() - start) * 1e3)
            over.append(totals[-1] - timings.get(GPU, float("nan")))
        result[name] = [float(np.median(each[runs // 5 :])) for each in (totals, over)]
        print(f"  {name:48} {result[name][0]:8.3f} over {result[name][1]:8.3f}", flush=True)
    return result


def row(matcher: Matcher, pair: Pair, **more: Any) -> Callable[[], Mapping[str, float]]:
    """A subject that matches one pair."""
    return lambda: matcher.match(*pair, **more).timings


def lent(matcher: Matcher, pair: Pair) -> Callable[[], None]:
    """A subject whose results stay on the GPU; the host waits."""

    def call() -> None:
        matcher.match_on_gpu(*pair)

    return call


def on_gpu(frame: Nv12) -> Nv12:
    """The frame with its array on the GPU."""
    return Nv12(torch.from_numpy(frame.array).cuda(), frame.height, frame.width)


def copies() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The copy of two images into page-locked memory and to the GPU, by the number of threads and the chunk."""
    stream = Stream()
    frames = [HostFrame(image, False) for image in scene(1080, 1920)]
    locked = [HostFrame(page_locked(frame.array), True) for frame in frames]
    chunk = upload.CHUNK
    for threads in (1, 2, 3, 4, 6):
        for size in (1 << 20, 1 << 21, 1 << 23):
            upload.CHUNK = size
            sender = FrameUpload(0)
            sender._threads = threads
            yield f"{threads} threads, {size >> 10} KiB", sent(sender, frames, stream)
            sender.close()
    upload.CHUNK = chunk
    sender = FrameUpload(0)
    yield "page-locked", sent(sender, locked, stream)
    sender.close()


def sent(sender: FrameUpload, frames: list[HostFrame], stream: Stream, runs: int = 40) -> dict[str, float]:
    """Medians: until the host is free, and until the images are there, ms."""
    free, there = [], []
    for _ in range(runs):
        start = time.perf_counter()
        sender.send(frames, stream.handle)
        free.append(time.perf_counter() - start)
        stream.wait()
        there.append(time.perf_counter() - start)
        time.sleep(0.002)
    return {"host ms": float(np.median(free[5:])) * 1e3, "there ms": float(np.median(there[5:])) * 1e3}


def many(auto: Matcher, host: Matcher, gpu: Matcher, wrong: list[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Pairs a second, the share of the time in which the engine works, and whether the matches are those of `match`."""
    pair = scene(1080, 1920)
    pairs = [tuple(image.copy() for image in pair) for _ in range(6)]  # memory of their own, as of a camera
    for name, matcher in (("automatic", auto), ("resized on the host", host), ("resized on the GPU", gpu)):
        expected = matcher.match(*pair)
        list(matcher.match_many(pairs[:4]))
        count = 300
        start = time.perf_counter()
        found = list(matcher.match_many(pairs[index % 6] for index in range(count)))
        elapsed = time.perf_counter() - start
        busy = sum(each.timings[GPU] for each in found) / 1e3 / elapsed
        waited = [each.timings["wait"] for each in found if "wait" in each.timings]
        values: dict[str, Any] = {"pairs/s": count / elapsed, "engine works": busy, "engine waits": 1 - busy}
        if waited:
            values["wait for images, ms"] = float(np.median(waited))
        differing = sum(not np.array_equal(each.keypoints1, expected.keypoints1) for each in found)
        yield name, values | {"differing": differing}
        if differing:
            wrong.append(f"match_many, {name}: {differing} of {count} results are not those of match")


def profile(matcher: Matcher) -> None:
    """Where Python's time goes, of 300 calls each."""
    small, large = scene(480, 640), [torch.from_numpy(image).cuda() for image in scene(1080, 1920)]
    for name, pair in (("640x480 rgb, host", small), ("1920x1080 rgb, GPU", large)):
        for _ in range(5):
            matcher.match(*pair)
        profiler = cProfile.Profile()
        profiler.enable()
        for _ in range(300):
            matcher.match(*pair)
        profiler.disable()
        print(f"\nprofile of 300 calls: {name}", flush=True)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(22)


if __name__ == "__main__":
    raise SystemExit(main())
