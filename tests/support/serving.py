"""A service in a process of its own, as `matchrt serve` starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Running:
    """A service that listens."""

    process: subprocess.Popen[str]
    http: int
    grpc: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def running(folder: Path, *arguments: str, descriptors: int | None = None, **environment: str) -> Iterator[Running]:
    """Starts `matchrt serve ARGUMENTS` on free ports and ends it after use; without an engine in front, of loftr-lite.

    descriptors: how many it may have open; None for as many as this process.
    """
    if not arguments or arguments[0].startswith("--"):
        arguments = ("loftr-lite", *arguments)
    limit = [] if descriptors is None else ["sh", "-c", f'ulimit -n {descriptors}; exec "$0" "$@"']
    command = [*limit, sys.executable, "-m", "matchrt", "serve", *arguments, "--http", "0", "--grpc", "0", "--json"]
    log = folder / "serve.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, env={**os.environ, **environment}
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            where = json.loads(line)
            assert "http" in where, line + process.stdout.read()
            yield Running(process, where["http"], where["grpc"], log)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(timeout=60)
            if process.stdout is not None:
                process.stdout.close()
