"""Load on a service: latency alone, at twice its capacity, refusals, memory over many requests, and its overhead.

    python bench/serve_load.py load --seconds 60             # unloaded, capacity, twice the capacity
    python bench/serve_load.py memory --requests 20000       # memory from the first tenth to the last
    python bench/serve_load.py overhead --rounds 40          # against the same call in this process

Starts `matchrt serve` itself, on this machine, which the clients share. Arrivals at twice the capacity are open: each
comes at its time whether the ones before it were answered or not, on a connection of its own. `overhead` takes turns
in random order: a call in this process, and one by each protocol, so that other work on the machine hits all alike.
Both sides are warmed up alike. The call in the process and `/v1/match` say what the engine took of their time: they are
also compared without it, for its noise is larger than what a service adds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import math
import random
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
    """`matchrt serve` on free ports: its ports and process; without an engine in front, of loftr-lite."""
    if not arguments or arguments[0].startswith("--"):
        arguments = ("loftr-lite", *arguments)
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
    from matchrt import Matcher
    from matchrt.runtime.engine_file import read_engine
    from matchrt.runtime.image import decode_image
    from matchrt.runtime.opening import open_session
    from matchrt.runtime.session import SessionOptions

    files = pair(*options.size)
    images = [decode_image(data, "image") for data in files]
    # Idle threads sleep, as they do in the service, and the engine has run on its best size, as there: ONNX Runtime's
    # memory then is laid out for that, which costs other sizes about 2 %. Neither is the service's doing.
    with Matcher(open_session(read_engine(options.engine), SessionOptions(spin=False))) as matcher:
        matcher.warm_up()
        ways = {
            "in process": lambda: matcher.match(*images),
            "decoding": lambda: [decode_image(data, "image") for data in files],
            **asking_triton(where, [image.pixels for image in images], files),
            "/v1/match": asking_match(where, files),
        }
        taken = in_turns(ways, options)
    decoding = statistics.median(way.whole for way in taken.pop("decoding"))
    over_local = {
        name: over(rows, taken["in process"], decoding if "files" in name else 0.0)
        for name, rows in taken.items() if name != "in process"
    }  # fmt: skip
    return {
        "milliseconds": {name: stages(rows) for name, rows in taken.items()},
        "decoding_one_after_the_other": round(decoding, 2),
        "over_in_process": over_local,
    }


@dataclass(frozen=True)
class Taken:
    """Milliseconds of a call: whole; what it says itself of decoding and of the engine, None where it does not."""

    whole: float
    decode: float | None = None
    engine: float | None = None

    @property
    def rest(self) -> float:
        """All but decoding and the engine; NaN where they are not known."""
        return self.whole - (math.nan if self.decode is None or self.engine is None else self.decode + self.engine)


def in_turns(ways: dict[str, Callable[[], Any]], options: argparse.Namespace) -> dict[str, list[Taken]]:
    """All ways once a round, in an order that chance decides; the first round does not count."""
    order, rng = list(ways), random.Random(0)
    taken: dict[str, list[Taken]] = {name: [] for name in ways}
    for turn in range(options.rounds + 1):
        rng.shuffle(order)
        for name in order:
            time.sleep(options.pause)
            start = time.perf_counter()
            answer = ways[name]()
            whole = (time.perf_counter() - start) * 1e3
            if turn:
                said = getattr(answer, "timings", None) or {}
                if isinstance(answer, bytes):  # read after the clock stopped: that is the client's
                    said = json.loads(answer)["timings_ms"]
                taken[name].append(Taken(whole, said.get("decode"), said.get("inference")))
    return taken


def over(rows: list[Taken], local: list[Taken], decoding: float) -> dict[str, float]:
    """What a way takes longer than the call in the process, without decoding: p50 of the whole, in which the engine's
    noise is, and, where the way says what the engine took, p50 and least of what is left without the engine.
    """
    decoding = decoding if rows[0].decode is None else statistics.median(way.decode or 0.0 for way in rows)
    whole = statistics.median(way.whole for way in rows) - statistics.median(way.whole for way in local)
    result = {"whole_p50": round(whole - decoding, 2)}
    if rows[0].engine is not None:
        for name, pick in (("p50", statistics.median), ("least", min)):
            rest = pick([way.rest for way in rows]) - pick([way.rest for way in local])
            result[f"without_engine_{name}"] = round(rest, 2)
    return result


def stages(rows: list[Taken]) -> dict[str, dict[str, float]]:
    """The whole, and where they are known the engine's part and the rest but decoding."""
    result = {"whole": spread([way.whole for way in rows])}
    if rows[0].engine is not None:
        result["engine"] = spread([way.engine or 0.0 for way in rows])
        result["rest"] = spread([way.rest for way in rows])
    return result


def spread(values: list[float]) -> dict[str, float]:
    """p50 and least."""
    return {"p50": round(statistics.median(values), 2), "least": round(min(values), 2)}


def asking_match(where: dict[str, Any], files: tuple[bytes, bytes]) -> Callable[[], bytes]:
    """`/v1/match` with a body made once, sent by the standard library: making it is not the service's work."""
    boundary = b"--x-boundary\r\n"
    head = 'Content-Disposition: form-data; name="image{0}"; filename="{0}.jpg"\r\n\r\n'
    parts = [boundary + head.format(index).encode() + data + b"\r\n" for index, data in enumerate(files)]
    body = b"".join(parts) + b"--x-boundary--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x-boundary"}
    plain = HTTPConnection("127.0.0.1", where["http"], timeout=60)

    def post() -> bytes:
        plain.request("POST", "/v1/match", body, kind)
        return plain.getresponse().read()

    return post


def asking_triton(
    where: dict[str, Any], pixels: list[Any], files: tuple[bytes, bytes]
) -> dict[str, Callable[[], None]]:
    """tritonclient by both protocols, with images as arrays and as files."""
    import tritonclient.grpc as triton_grpc
    import tritonclient.http as triton_http

    def way(module: Any, client: Any, model: str, kind: str, arrays: list[Any]) -> Callable[[], None]:
        def infer() -> None:
            inputs = []
            for index, array in enumerate(arrays):
                inputs.append(module.InferInput(f"image{index}", list(array.shape), kind))
                inputs[-1].set_data_from_numpy(array)
            client.infer(model, inputs)

        return infer

    ways = {}
    for name, module, port in (("grpc", triton_grpc, where["grpc"]), ("http", triton_http, where["http"])):
        client = module.InferenceServerClient(f"127.0.0.1:{port}")
        encoded = [np.array([data], object) for data in files]
        ways[f"{name}, arrays"] = way(module, client, "loftr-lite", "UINT8", pixels)
        ways[f"{name}, files"] = way(module, client, "loftr-lite-files", "BYTES", encoded)
    return ways


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
    parser.add_argument("--pause", type=float, default=0.0, help="overhead: seconds before every call")
    parser.add_argument("--engine", default="loftr-lite", help="what is served; small ones show the service's own time")
    parser.add_argument("--serve", default="", help="further arguments of `matchrt serve`, in one text")
    options = parser.parse_args()
    options.size = options.size or ((64, 64) if options.what == "memory" else (480, 640))
    options.rounds = options.rounds or (4 if options.what == "load" else 40)
    with serving(f"loftr-lite={options.engine}", *options.serve.split()) as where:
        if options.what == "overhead":
            result = overhead(where, options)
        else:
            result = asyncio.run((load if options.what == "load" else memory)(where, options))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
