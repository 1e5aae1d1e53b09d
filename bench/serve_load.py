"""Load on a service: latency alone, at twice its capacity, refusals, memory over many requests, and its overhead.

    python bench/serve_load.py load --seconds 60             # unloaded, capacity, twice the capacity
    python bench/serve_load.py memory --requests 20000       # memory from the first tenth to the last
    python bench/serve_load.py overhead --rounds 40          # against the same call in this process

Starts `matchrt serve` itself, on this machine, which the clients share. Arrivals at twice the capacity are open: each
comes at its time whether the ones before it were answered or not, on a connection of its own. `overhead` takes turns:
one call in the process, one by each protocol, so that other work on the machine hits all alike; of `/v1/match` it also
takes, request by request, what the answer says of decoding, resizing, running and scaling back from what the client
waited: that is the service's own share, whatever else the machine does to the engine's time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Seen:
    """What clients saw: seconds of answers and of refusals, and what went wrong."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def add(self, status: int, seconds: float) -> None:
        """Counts one answer."""
        if status == 200:
            self.answered.append(seconds)
        elif status == 429:
            self.refused.append(seconds)
        else:
            self.failed.append(str(status))

    def summary(self) -> dict[str, Any]:
        """Counts, and milliseconds."""
        return {
            "answered": len(self.answered), "refused": len(self.refused), "failed": len(self.failed),
            "failures": sorted(set(self.failed)), "answer_ms": percentiles(self.answered),
            "refusal_ms": percentiles(self.refused),
        }  # fmt: skip


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p99 and the largest, in milliseconds."""
    if not seconds:
        return {}
    values = np.array(seconds) * 1e3
    p50, p99 = (round(float(np.percentile(values, share)), 2) for share in (50, 99))
    return {"p50": p50, "p99": p99, "max": round(float(values.max()), 2)}


def pair(height: int, width: int) -> tuple[bytes, bytes]:
    """Two JPEG files of one photograph, of that size, the second shifted."""
    with Image.open(ROOT / "examples" / "images" / "cup_0.jpg") as photo:
        large = photo.convert("RGB").resize((width + 16, height + 8), Image.Resampling.LANCZOS)
    files = []
    for left, top in ((0, 0), (16, 8)):
        buffer = io.BytesIO()
        large.crop((left, top, left + width, top + height)).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files[0], files[1]


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[dict[str, Any]]:
    """`matchrt serve` on free ports: its ports and process."""
    command = [sys.executable, "-m", "matchrt", "serve", *arguments, "--http", "0", "--grpc", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield {**json.loads(process.stdout.readline()), "process": process}
        finally:
            process.terminate()


def rss(pid: int) -> int:
    """Resident memory of a process, kB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def asker(client: httpx.AsyncClient, url: str, files: tuple[bytes, bytes]) -> Callable[[Seen], Awaitable[None]]:
    """What sends one request and counts its answer."""

    async def ask(seen: Seen) -> None:
        sent = {"image0": ("a.jpg", files[0]), "image1": ("b.jpg", files[1])}
        start = time.perf_counter()
        try:
            answer = await client.post(f"{url}/v1/match", files=sent)
        except httpx.HTTPError as error:
            seen.failed.append(repr(error))
            return
        seen.add(answer.status_code, time.perf_counter() - start)

    return ask


async def one_by_one(ask: Callable[[Seen], Awaitable[None]], seconds: float) -> Seen:
    """Requests one after another."""
    seen = Seen()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        await ask(seen)
    return seen


async def arriving(ask: Callable[[Seen], Awaitable[None]], rate: float, seconds: float) -> Seen:
    """Requests at random times, `rate` a second on average, whatever becomes of them."""
    seen = Seen()
    rng = np.random.default_rng(0)
    tasks = []
    start = time.perf_counter()
    at = 0.0
    while at < seconds:
        await asyncio.sleep(max(0.0, start + at - time.perf_counter()))
        tasks.append(asyncio.ensure_future(ask(seen)))
        at += rng.exponential(1 / rate)
    await asyncio.gather(*tasks)
    return seen


async def load(where: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Unloaded, then twice the capacity, in turns."""
    files = pair(*options.size)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    alone, crowd = Seen(), Seen()
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:
        ask = asker(client, f"http://127.0.0.1:{where['http']}", files)
        await one_by_one(ask, 2.0)
        for _ in range(options.rounds):
            quiet = await one_by_one(ask, options.seconds / options.rounds)
            capacity = 1 / statistics.mean(quiet.answered)
            busy = await arriving(ask, 2 * capacity, options.seconds / options.rounds)
            for total, part in ((alone, quiet), (crowd, busy)):
                total.answered += part.answered
                total.refused += part.refused
                total.failed += part.failed
    ratio = percentiles(crowd.answered)["p99"] / percentiles(alone.answered)["p50"]
    same = percentiles(crowd.answered)["p99"] / percentiles(alone.answered)["p99"]
    return {
        "unloaded": alone.summary(), "twice_capacity": crowd.summary(),
        "p99_over_unloaded_p50": round(ratio, 2), "p99_over_unloaded_p99": round(same, 2),
    }  # fmt: skip


async def memory(where: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Resident memory while many requests come, by HTTP, four clients at a time."""
    files = pair(*options.size)
    seen, samples = Seen(), []
    async with httpx.AsyncClient(timeout=120) as client:
        ask = asker(client, f"http://127.0.0.1:{where['http']}", files)

        async def work() -> None:
            while len(seen.answered) + len(seen.refused) + len(seen.failed) < options.requests:
                await ask(seen)
                done = len(seen.answered) + len(seen.refused) + len(seen.failed)
                if done % max(options.requests // 100, 1) == 0:
                    samples.append((done, rss(where["process"].pid)))

        await asyncio.gather(*(work() for _ in range(4)))
    tenth = len(samples) // 10
    first, last = (
        statistics.median(size for _, size in part) for part in (samples[tenth : 2 * tenth], samples[-tenth:])
    )
    return {
        **seen.summary(), "rss_second_tenth_kb": first, "rss_last_tenth_kb": last,
        "drift_percent": round((last / first - 1) * 100, 3), "rss_kb": [size for _, size in samples[:: max(tenth, 1)]],
    }  # fmt: skip


def overhead(where: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One call each in turn: in this process on decoded images, and over each protocol."""
    import tritonclient.grpc as triton_grpc
    import tritonclient.http as triton_http

    from matchrt import Matcher
    from matchrt.runtime.engine_file import read_engine
    from matchrt.runtime.image import decode_image
    from matchrt.runtime.session import SessionOptions, open_session

    files = pair(*options.size)
    images = [decode_image(data, "image") for data in files]
    pixels = [image.pixels for image in images]
    http, grpc = (module.InferenceServerClient(f"127.0.0.1:{port}")
                  for module, port in ((triton_http, where["http"]), (triton_grpc, where["grpc"])))  # fmt: skip
    seconds: dict[str, list[float]] = {}

    def infer(module: Any, client: Any, model: str, kind: str, arrays: list[Any]) -> None:
        inputs = []
        for index, array in enumerate(arrays):
            inputs.append(module.InferInput(f"image{index}", list(array.shape), kind))
            inputs[-1].set_data_from_numpy(array)
        client.infer(model, inputs)

    # A body made once, sent by the standard library: what a client spends on making it is not the service's.
    boundary = b"--x-boundary\r\n"
    head = 'Content-Disposition: form-data; name="image{0}"; filename="{0}.jpg"\r\n\r\n'
    parts = [boundary + head.format(index).encode() + data + b"\r\n" for index, data in enumerate(files)]
    body = b"".join(parts) + b"--x-boundary--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x-boundary"}
    plain = HTTPConnection("127.0.0.1", where["http"], timeout=60)

    def post() -> bytes:
        plain.request("POST", "/v1/match", body, kind)
        return plain.getresponse().read()

    # Idle threads sleep, as they do in the service: what they win an engine that is alone is not the service's cost.
    with Matcher.on(open_session(read_engine("loftr-lite"), SessionOptions(spin=False))) as matcher:
        encoded = [np.array([data], object) for data in files]
        ways: dict[str, Callable[[], Any]] = {
            "in process": lambda: matcher.match(*images),
            "decoding": lambda: [decode_image(data, "image") for data in files],
            "grpc, arrays": lambda: infer(triton_grpc, grpc, "loftr-lite", "UINT8", pixels),
            "http, arrays": lambda: infer(triton_http, http, "loftr-lite", "UINT8", pixels),
            "grpc, files": lambda: infer(triton_grpc, grpc, "loftr-lite-files", "BYTES", encoded),
            "http, files": lambda: infer(triton_http, http, "loftr-lite-files", "BYTES", encoded),
            "/v1/match": post,
        }
        own: list[float] = []
        for _ in range(options.rounds):
            for name, way in ways.items():
                # Both sides' idle threads spin for a while after a run; what is measured begins when they sleep.
                time.sleep(options.pause)
                start = time.perf_counter()
                answer = way()
                seconds.setdefault(name, []).append(time.perf_counter() - start)
                if name == "/v1/match":
                    own.append(seconds[name][-1] * 1e3 - sum(json.loads(answer)["timings_ms"].values()))
    medians = {name: statistics.median(values) * 1e3 for name, values in seconds.items()}
    within = {name: medians["decoding"] if name.endswith("files") or name == "/v1/match" else 0.0 for name in medians}
    return {
        "service_share_of_v1_match_ms": {"p50": round(statistics.median(own), 2), "min": round(min(own), 2)},
        "median_ms": {name: round(value, 2) for name, value in medians.items()},
        "overhead_ms": {
            name: round(value - medians["in process"] - within[name], 2)
            for name, value in medians.items() if name not in ("in process", "decoding")
        },
    }  # fmt: skip


def size(text: str) -> tuple[int, int]:
    """`480x640` to (480, 640)."""
    height, width = text.split("x")
    return int(height), int(width)


def main() -> None:
    """Runs one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("load", "memory", "overhead"))
    parser.add_argument("--size", type=size, default=None, help="of the images; default 480x640, memory 64x64")
    parser.add_argument("--seconds", type=float, default=60.0, help="load: of each of both parts")
    parser.add_argument("--rounds", type=int, default=None, help="turns; load 4, overhead 40")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--pause", type=float, default=0.05)
    parser.add_argument("--serve", default="", help="further arguments of `matchrt serve`, in one text")
    options = parser.parse_args()
    options.size = options.size or ((64, 64) if options.what == "memory" else (480, 640))
    options.rounds = options.rounds or (4 if options.what == "load" else 40)
    with serving(*options.serve.split()) as where:
        if options.what == "overhead":
            result = overhead(where, options)
        else:
            result = asyncio.run((load if options.what == "load" else memory)(where, options))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
