"""Runs all probes at once, each in its own process. A crash or a timeout is an answer too."""

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
# The child imports from the same folders as its parent, and nothing that lies in the working folder by chance.
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from matchrt.doctor.probe import main; main(sys.argv[2])"
)


@dataclass(frozen=True)
class Answer:
    """The answer of a probe. Exactly one of the two fields is set.

    value: what the probe found, by name; None if it failed.
    error: why it failed, as code, message and remedy; None if it did not.
    """

    value: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None


def ask(probes: Iterable[str], timeout: float = TIMEOUT_S) -> dict[str, Answer]:
    """Runs the probes side by side and returns their answers by name. timeout: seconds for each probe."""
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
        return _failed("probe-silent", f"It did not answer within {timeout:g} s.", "Check whether the driver hangs.")
    except OSError as error:
        return _failed("probe-silent", f"Python could not be started: {error}.", "Repair the Python installation.")
    return read_answer(ran.returncode, ran.stdout, ran.stderr)


def read_answer(code: int, out: str, err: str) -> Answer:
    """The answer from the probe's marked line; without that line, an error that says how the process ended.

    code: the exit code; negative for a signal. out, err: what the process printed on stdout and stderr.
    """
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
