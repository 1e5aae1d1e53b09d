"""The containers' health check: asks the service if one runs here, and is content with anything else.

    python tools/docker/health.py          # exit code 0: well, 1: it serves and is not ready

The ports are those of the service's own command line, as the kernel shows it. Needs no package.
"""

from __future__ import annotations

import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE = 5.0
_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def serving(processes: Path = Path("/proc")) -> list[str] | None:
    """The words after `serve` of a running `matchrt serve`; None if none runs."""
    for entry in sorted(processes.glob("[0-9]*/cmdline"), key=lambda path: int(path.parent.name)):
        try:
            words = [word.decode(errors="replace") for word in entry.read_bytes().split(b"\0")]
        except OSError:  # it has just ended, or belongs to somebody else
            continue
        for place, word in enumerate(words[:-1]):
            if Path(word).name in ("matchrt", "__main__.py") and words[place + 1] == "serve":
                return words[place + 2 :]
    return None


def option(words: list[str], name: str, default: str) -> str:
    """The value of `--name VALUE` or `--name=VALUE`; the last one counts."""
    found = default
    for place, word in enumerate(words):
        if word == f"--{name}" and place + 1 < len(words):
            found = words[place + 1]
        elif word.startswith(f"--{name}="):
            found = word.split("=", 1)[1]
    return found


def healthy(words: list[str]) -> str | None:
    """Asks the service with these options. None if it is ready; else what is wrong."""
    host = option(words, "host", "127.0.0.1")
    host = _HERE.get(host, host)
    http, grpc = (int(option(words, name, default)) for name, default in (("http", "8000"), ("grpc", "8001")))
    try:
        if http > 0:
            name = f"[{host}]" if ":" in host else host
            with urllib.request.urlopen(f"http://{name}:{http}/v2/health/ready", timeout=PATIENCE) as answer:
                return None if answer.status == 200 else f"the service answers {answer.status}"
        if grpc > 0:
            socket.create_connection((host, grpc), PATIENCE).close()
    except urllib.error.HTTPError as error:
        return f"the service answers {error.code}"
    except OSError as error:
        return f"the service does not answer: {error}"
    return None  # it chose its ports itself, and only it knows them


def main() -> int:
    """Returns the exit code."""
    words = serving()
    if words is None:
        print("no service runs here")
        return 0
    wrong = healthy(words)
    print(wrong or "ready")
    return 0 if wrong is None else 1


if __name__ == "__main__":
    sys.exit(main())
