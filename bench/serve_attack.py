"""Honest load and attacks on a service at the same time, and the bars that it must keep.

    python bench/serve_attack.py --minutes 10 --engine tiny.onnx --json attack.json
    python bench/serve_attack.py --minutes 2 --only gRPC          # attacks whose name has that word

Starts `matchrt serve` itself, on this machine, which clients and attackers share with it: they run in processes of
their own, the attackers with less priority. Twelve honest clients ask `/v1/match` and both protocols' inference, each
on a connection that it keeps, with a pause after each answer: first without attacks (unloaded), then while every attack
of `serve_attacks.py` is sent in turn, over and over. A refusal (429, RESOURCE_EXHAUSTED) is an answer; anything else
but a result is a failure. The end is measured too: SIGTERM while attacks and clients go on.
Exits 1 if a bar is not kept.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import http.client
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from serve_attacks import Target, attacks, form, part, send_health
from serve_load import pair, percentiles, serving

SERVICE = "inference.GRPCInferenceService"
DRAIN = 2.0
PAUSE = (0.05, 0.15)
REFUSED = ("429", "RESOURCE_EXHAUSTED")
Rows = list[tuple[float, str, str, float]]  # when, who, status, seconds
Sent = list[tuple[float, float, str, dict[str, int]]]  # from when, to when, which attack, answers by status
spawn = multiprocessing.get_context("spawn")


# ------------------------------------------------------------------------------------------------------ honest clients


def honest(number: int, target: Target, side: int, stop: Any, results: Any) -> None:
    """One client, until it is told to stop. Puts what it saw."""
    files = pair(side, side)
    ask = (ask_match, ask_binary, ask_grpc)[number % 3](target, files, side)
    rng, rows = random.Random(number), []
    while not stop.is_set():
        start = time.perf_counter()
        status = ask()
        rows.append((time.time(), ask.__name__, status, time.perf_counter() - start))
        time.sleep(rng.uniform(*PAUSE))
    results.put(rows)


def _kept(port: int, path: str, body: bytes, headers: dict[str, str]) -> Any:
    """A function that posts on one connection, as browsers and libraries do, and gives the status."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask() -> str:
        try:
            link.request("POST", path, body, headers)
            answer = link.getresponse()
            answer.read()
            return str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            link.close()
            return repr(error)

    return ask


def ask_match(target: Target, files: tuple[bytes, bytes], side: int) -> Any:
    """`/v1/match` with two files."""
    body = form(part("image0", files[0]), part("image1", files[1]))
    ask = _kept(target.http, "/v1/match", body, {"Content-Type": "multipart/form-data; boundary=BB"})
    ask.__name__ = "/v1/match"
    return ask


def ask_binary(target: Target, files: tuple[bytes, bytes], side: int) -> Any:
    """Inference over HTTP with binary data."""
    size = {"binary_data_size": side * side}
    entries = [{"name": f"image{i}", "datatype": "UINT8", "shape": [side, side, 1], "parameters": size} for i in (0, 1)]
    head = json.dumps({"inputs": entries}).encode()
    kind = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    pixels = np.random.default_rng(0).integers(0, 255, side * side, np.uint8).tobytes()
    ask = _kept(target.http, f"/v2/models/{target.model}/infer", head + pixels * 2, kind)
    ask.__name__ = "HTTP infer"
    return ask


def ask_grpc(target: Target, files: tuple[bytes, bytes], side: int) -> Any:
    """Inference over gRPC."""
    import grpc

    from matchrt.serving.grpc_messages import message

    wish = message("ModelInferRequest")(model_name=target.model)
    for index in (0, 1):
        wish.inputs.add(name=f"image{index}", datatype="UINT8", shape=[side, side, 1])
        wish.raw_input_contents.append(bytes(side * side))
    raw = wish.SerializeToString()
    call = grpc.insecure_channel(f"127.0.0.1:{target.grpc}").unary_unary(f"/{SERVICE}/ModelInfer")

    def ask() -> str:
        try:
            call(raw, timeout=60)
        except grpc.RpcError as error:
            code = str(error.code().name)
            return code if code in REFUSED else f"{code}: {error.details()}"
        return "200"

    ask.__name__ = "gRPC infer"
    return ask


def health(target: Target, stop: Any, results: Any) -> None:
    """Asks for health ten times a second, each time on a new connection."""
    rows: Rows = []
    while not stop.is_set():
        start = time.perf_counter()
        status = send_health(target)
        rows.append((time.time(), "health", status, time.perf_counter() - start))
        time.sleep(0.1)
    results.put(rows)


def attack(target: Target, only: str, stop: Any, results: Any) -> None:
    """All attacks in turn, over and over. Puts when each was sent, and what was answered."""
    os.nice(5)
    rows = []
    while not stop.is_set():
        for name, send in attacks().items():
            if only in name and not stop.is_set():
                begun = time.time()
                seen = dict(send(target))
                rows.append((begun, time.time(), name, seen))
    results.put(rows)


# ------------------------------------------------------------------------------------------------------------- service


def usage(pid: int) -> dict[str, int]:
    """Memory of the service and its children in MB; threads, descriptors and children."""
    children = [
        int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()
    ]
    memory = threads = 0
    for one in (pid, *children):
        with contextlib.suppress(OSError):
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{one}/status").read_text().splitlines())
            memory += int(status["VmRSS"].split()[0]) // 1024
            threads += int(status["Threads"]) if one == pid else 0
    descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return {"rss_mb": memory, "threads": threads, "descriptors": descriptors, "children": len(children)}


class Crowd:
    """Processes that run one of the functions above until they are told to stop."""

    def __init__(self) -> None:
        self._stop = spawn.Event()
        self._results = spawn.Queue()
        self._processes: list[Any] = []

    def add(self, work: Any, *arguments: Any) -> None:
        """Starts a process."""
        self._processes.append(spawn.Process(target=work, args=(*arguments, self._stop, self._results), daemon=True))
        self._processes[-1].start()

    def end(self) -> list[Any]:
        """Stops them, and gives the rows of all."""
        self._stop.set()
        rows = [row for _ in self._processes for row in self._results.get(timeout=180)]
        for process in self._processes:
            process.join()
        return rows


def summary(rows: Rows) -> dict[str, Any]:
    """What honest clients saw."""
    answered = [seconds for _, _, status, seconds in rows if status == "200"]
    refused = [seconds for _, _, status, seconds in rows if status in REFUSED]
    failures = collections.Counter(f"{who}: {status}" for _, who, status, _ in rows if status not in ("200", *REFUSED))
    return {
        "answered": len(answered), "refused": len(refused), "failed": sum(failures.values()),
        "failures": dict(failures), "answer_ms": percentiles(answered), "refusal_ms": percentiles(refused),
    }  # fmt: skip


def calm(target: Target, options: argparse.Namespace, clients: int, seconds: float) -> Rows:
    """Honest clients alone."""
    crowd = Crowd()
    for number in range(clients):
        crowd.add(honest, number, target, options.side)
    time.sleep(seconds)
    return [row for row in crowd.end() if row[0] > row[3]]


def run(where: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Unloaded, under attack, and the end."""
    target, pid = Target(where["http"], where["grpc"]), where["process"].pid
    calm(target, options, options.clients, 3.0)
    quiet = calm(target, options, options.clients, options.unloaded)
    before = usage(pid)
    crowd = Crowd()
    for number in range(options.clients):
        crowd.add(honest, number, target, options.side)
    prober, attackers = Crowd(), Crowd()
    prober.add(health, target)
    attackers.add(attack, target, options.only)
    most, end = dict(before), time.monotonic() + options.minutes * 60
    while time.monotonic() < end and where["process"].poll() is None:
        time.sleep(0.1)
        most = {name: max(value, most[name]) for name, value in usage(pid).items()}
    sent = attackers.end()
    rows, waits = crowd.end(), prober.end()
    time.sleep(2.0)
    after = usage(pid)
    ending = at_the_end(where, target, options)
    return {
        "unloaded": summary(quiet), "under_attack": summary(rows), "health": summary(waits),
        "before": before, "most": most, "after": after, "end_seconds": round(ending, 2), "drain_seconds": DRAIN,
        "attacks": answers(sent), "slow_health": slow(waits, sent),
    }  # fmt: skip


def answers(sent: Sent) -> dict[str, dict[str, int]]:
    """What was answered to each attack, all together."""
    seen: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for _, _, name, statuses in sent:
        seen[name].update(statuses)
    return {name: dict(counts) for name, counts in seen.items()}


def slow(waits: Rows, sent: Sent) -> list[tuple[str, int]]:
    """The attacks during which health took more than 100 ms, and the milliseconds."""
    return [
        (name, round(seconds * 1e3))
        for at, _, _, seconds in waits if seconds > 0.1
        for begun, ended, name, _ in sent if begun <= at <= ended + seconds
    ]  # fmt: skip


def at_the_end(where: dict[str, Any], target: Target, options: argparse.Namespace) -> float:
    """Seconds from SIGTERM to the end of the process, while clients and attackers go on."""
    crowd = Crowd()
    crowd.add(attack, target, options.only or "body")
    for number in range(options.clients):
        crowd.add(honest, number, target, options.side)
    time.sleep(3.0)
    start = time.monotonic()
    where["process"].send_signal(signal.SIGTERM)
    where["process"].wait(timeout=120)
    seconds = time.monotonic() - start
    crowd.end()
    return seconds


def bars(result: dict[str, Any], options: argparse.Namespace) -> dict[str, bool]:
    """Which bars were kept."""
    attacked, quiet, before = result["under_attack"], result["unloaded"], result["before"]
    admitted = options.places * options.body_mb
    return {
        "no honest request fails": attacked["failed"] == 0,
        "p99 of honest requests at most 3 x unloaded": attacked["answer_ms"]["p99"] <= 3 * quiet["answer_ms"]["p99"],
        "p99 of refusals within 50 ms": attacked["refusal_ms"].get("p99", 0.0) <= 50,
        "health always within 100 ms": result["health"]["failed"] == 0 and result["health"]["answer_ms"]["max"] <= 100,
        "memory at most 1.5 x idle + admitted bodies": result["most"]["rss_mb"] <= 1.5 * before["rss_mb"] + admitted,
        "no thread, descriptor or child leaked": all(
            result["after"][name] <= before[name] + slack
            for name, slack in (("threads", options.places), ("descriptors", 4), ("children", 0))
        ),
        "ends within drain + 1 s": result["end_seconds"] <= DRAIN + 1.0,
    }


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--unloaded", type=float, default=20.0, help="seconds without attacks")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--side", type=int, default=64, help="of the honest clients' images")
    parser.add_argument("--engine", default="loftr-lite")
    parser.add_argument("--queue", type=int, default=15, help="places beside the one worker's")
    parser.add_argument("--serve", default="", help="further arguments of `matchrt serve`, in one text")
    parser.add_argument("--only", default="", help="a word in the names of the attacks to send")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    options.places, options.body_mb = options.queue + 1, 64
    arguments = ("--drain", str(DRAIN), "--queue", str(options.queue), *options.serve.split())
    with serving(f"loftr-lite={options.engine}", *arguments) as where:
        result = run(where, options)
    kept = bars(result, options)
    text = json.dumps({**result, "bars": kept}, indent=2)
    if options.json:
        options.json.write_text(text)
    print(text)
    sys.exit(0 if all(kept.values()) else 1)


if __name__ == "__main__":
    main()
