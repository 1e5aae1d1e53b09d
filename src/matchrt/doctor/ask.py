"""Runs probes in processes of their own, all at once, and takes a crash or a silence for an answer too."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from matchrt.doctor.probe import MARK

TIMEOUT_S = 30.0
# The child sees the very packages that its parent does, and nothing that lies in the working folder by chance.
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from matchrt.doctor.probe import main; main(sys.argv[2])"
)


@dataclass(frozen=True)
class Answer:
    """What a probe found, or why it did not: code, message, remedy."""

    value: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None


def ask(probes: Iterable[str], timeout: float = TIMEOUT_S) -> dict[str, Answer]:
    """Runs the probes side by side."""
    names = tuple(probes)
    with ThreadPoolExecutor(max_workers=max(len(names), 1)) as pool:
        return dict(zip(names, pool.map(lambda name: _ask_one(name, timeout), names), strict=True))


def _ask_one(name: str, timeout: float) -> Answer:
    command = [sys.executable, "-c", _CHILD, json.dumps(sys.path), name]
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return _failed("probe-silent", f"It did not answer within {timeout:g} s.", "Look for a hanging driver.")
    except OSError as error:
        return _failed("probe-silent", f"Python could not be started: {error}.", "Repair the Python installation.")
    return read_answer(ran.returncode, ran.stdout, ran.stderr)


def read_answer(code: int, out: str, err: str) -> Answer:
    """The probe's line among what was printed; without one, how the process ended."""
    for line in reversed(out.splitlines()):
        if line.startswith(MARK):
            found = json.loads(line.removeprefix(MARK))
            return Answer(found["value"], found["error"])
    words = (err.strip() or "it printed nothing").splitlines()[-1]
    return _failed(
        "probe-crashed",
        f"It crashed {_how(code)}: {words}",
        "Install the package again (pip install --force-reinstall), and update the driver.",
    )


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"with {signal.Signals(-code).name}"
    except ValueError:
        return f"with signal {-code}"


def _failed(code: str, message: str, remedy: str) -> Answer:
    return Answer(error={"code": code, "message": message, "remedy": remedy})
