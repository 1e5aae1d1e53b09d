"""What a session adds to its engine's time, and whether it holds: latency, memory and threads over thousands of calls.

    python bench/gpu_soak.py ENGINE [--calls 10000] [--threads 8] [--each 1000] [--json FILE]

Grey host images of the engine's size in, host matches out; no pause between calls.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from matchrt.bench.scene import image_pair
from matchrt.nvidia.device import current_gpu, free_memory
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.matches import Matches
from matchrt.runtime.options import MatcherOptions


def grey_pair(height: int = 480, width: int = 640) -> tuple[Any, Any]:
    """The generated pair as grey images."""
    first, second = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in image_pair(height, width)[:2])
    return first, second


def percentiles(samples: list[float]) -> dict[str, float]:
    """p50, p90, p99 and the slowest."""
    p50, p90, p99 = np.percentile(samples, (50, 90, 99))
    return {"p50": round(p50, 4), "p90": round(p90, 4), "p99": round(p99, 4), "max": round(max(samples), 4)}


def latency(matcher: Matcher, pair: tuple[Any, Any], calls: int) -> dict[str, Any]:
    """Host to host, the GPU's own time of the same calls, and the difference."""
    total, gpu = [], []
    for _ in range(calls):
        start = time.perf_counter()
        matches = matcher.match(*pair)
        total.append((time.perf_counter() - start) * 1e3)
        gpu.append(matches.timings["gpu"])
    over = [whole - engine for whole, engine in zip(total, gpu, strict=True)]
    return {
        "calls": calls,
        "total_ms": percentiles(total),
        "gpu_ms": percentiles(gpu),
        "overhead_ms": percentiles(over),
        "launch": matcher.session.launch_mode(),
    }


def memory(matcher: Matcher, pair: tuple[Any, Any], calls: int) -> dict[str, Any]:
    """Free GPU memory before and after, and what Python still holds of what it allocated in between."""
    for _ in range(20):
        matcher.match(*pair)
    before = free_memory()
    tracemalloc.start()
    matcher.match(*pair)
    held, _ = tracemalloc.get_traced_memory()
    for _ in range(200):
        matcher.match(*pair)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    lowest = before
    for index in range(calls):
        matcher.match(*pair)
        if index % 100 == 0:
            lowest = min(lowest, free_memory())
    return {
        "calls": calls,
        "gpu_bytes_lost": before - free_memory(),
        "gpu_bytes_lost_at_worst": before - lowest,
        "python_bytes_kept_by_200_calls": after - held,
    }


def same(first: Matches, second: Matches) -> bool:
    """To the bit."""
    names = ("keypoints0", "keypoints1", "scores")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)


def threads(matcher: Matcher, pair: tuple[Any, Any], count: int, each: int) -> dict[str, Any]:
    """Every thread's every result against a serial one."""
    expected, differing = matcher.match(*pair), [0] * count
    start = threading.Barrier(count + 1)

    def work(index: int) -> None:
        with matcher.fork() as mine:
            mine.match(*pair)
            mine.match(*pair)
            start.wait()
            differing[index] = sum(not same(mine.match(*pair), expected) for _ in range(each))

    workers = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for worker in workers:
        worker.start()
    start.wait()
    begun = time.perf_counter()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - begun
    rate = round(count * each / seconds, 1)
    return {"threads": count, "calls_each": each, "differing": sum(differing), "pairs_per_second": rate}


def many(matcher: Matcher, pair: tuple[Any, Any], count: int) -> dict[str, float]:
    """`match_many` against one call after another, both with their sessions made ready."""
    sum(1 for _ in matcher.match_many([pair] * 8))
    start = time.perf_counter()
    for _ in range(count):
        matcher.match(*pair)
    serial = time.perf_counter() - start
    start = time.perf_counter()
    found = sum(len(matches) for matches in matcher.match_many([pair] * count) if isinstance(matches, Matches))
    return {
        "match_ms_a_pair": round(serial / count * 1e3, 4),
        "match_many_ms_a_pair": round((time.perf_counter() - start) / count * 1e3, 4),
        "matches": found,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine")
    parser.add_argument("--calls", type=int, default=10000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--each", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    document: dict[str, Any] = {"engine": arguments.engine, "gpu": current_gpu().name}
    for name, graph in (("graph", True), ("enqueue", False)):
        with Matcher(arguments.engine, MatcherOptions(cuda_graph=graph)) as matcher:
            contract = matcher.manifest.input
            pair = grey_pair(contract.height or 480, contract.width or 640)
            start = time.perf_counter()
            matcher.match(*pair)
            document[f"first_call_{name}_ms"] = round((time.perf_counter() - start) * 1e3, 1)
            latency(matcher, pair, 100)
            document[name] = latency(matcher, pair, 1000)
            if graph:
                document["session_bytes"] = vars(matcher.session.memory())
                document["many"] = many(matcher, pair, 300)
                document["memory"] = memory(matcher, pair, arguments.calls)
                document["threads"] = threads(matcher, pair, arguments.threads, arguments.each)
    text = json.dumps(document, indent=1)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
