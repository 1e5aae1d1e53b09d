"""A place where a page's commands run: a copy of the tree with the example files, and an environment of its own.

The environment is new, and sees the packages of the environment that runs this script: so `pip install` runs word for
word, and takes seconds where everything that it asks for is there. Settings of the user do not count.
"""

from __future__ import annotations

import os
import shutil
import signal
import site
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from dataclasses import dataclass, field
from pathlib import Path

READY = "http://127.0.0.1:8000/v2/health/ready"


@dataclass
class Place:
    """Where commands run. folder: the copy of the tree; home: beside it, for settings, caches and the store.

    service: the first `matchrt serve` of the page. It runs again after others, for the requests further down the page.
    """

    folder: Path
    home: Path
    service: str = ""
    _running: str = ""
    _process: subprocess.Popen[bytes] | None = field(default=None)

    def run(self, text: str, language: str, seconds: float) -> tuple[int, str]:
        """Runs a command to its end: exit code and output, stderr included. A service goes on in the background."""
        if language == "sh" and text.startswith("matchrt serve ") and "&" not in text:
            self.service = self.service or text
            return self._serve(text, seconds)
        if self._running != self.service:
            self._serve(self.service, seconds)
        words = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else ["python", "-c", text]
        return self._finish(words, seconds)

    def close(self) -> None:
        """Ends the service, if one runs."""
        if self._process is not None:
            _end(self._process)
            self._process, self._running = None, ""

    def _finish(self, words: list[str], seconds: float) -> tuple[int, str]:
        log = self.home / "output.txt"
        with log.open("wb") as stream:
            process = self._start(words, stream)
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = 124
            finally:
                _end(process)  # also what it left in the background
        return code, log.read_text(encoding="utf-8", errors="replace")

    def _serve(self, text: str, seconds: float) -> tuple[int, str]:
        self.close()
        if _answers():
            return 1, f"Another service answers at {READY}; stop it first."
        log = self.home / "service.txt"
        with log.open("wb") as stream:
            self._process = self._start(["bash", "-euo", "pipefail", "-c", text], stream)
        self._running = text
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._process.poll() is None:
            if _answers():
                return 0, ""
            time.sleep(0.2)
        code = 124 if self._process.poll() is None else self._process.returncode or 1
        self.close()
        return code, log.read_text(encoding="utf-8", errors="replace")

    def _start(self, words: list[str], stream: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,  # type: ignore[arg-type]
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _environment(self) -> dict[str, str]:
        base = Path(sys.executable).parent
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MATCHRT_", "PIP_REQUIRE", "PYTEST_")) and name not in ("PYTHONHOME", "VIRTUAL_ENV")
        }
        if "PYTHONPATH" in kept:  # the package is not installed, but read from a tree: then from this copy
            kept["PYTHONPATH"] = str(self.folder / "src")
        return kept | {
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "MATCHRT_STORE": str(self.home / "store"),
            "PATH": os.pathsep.join([str(self.home / "environment/bin"), str(base), os.environ["PATH"]]),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "COLUMNS": "120",
        }


def make_place(template: Path, folder: Path, with_environment: bool) -> Place:
    """A place with a copy of the folder `template`.

    with_environment: with an environment of its own that has pip, which takes seconds to make.
    """
    tree, home = folder / "matchrt", folder / "home"
    shutil.copytree(template, tree)
    home.mkdir()
    # A request that the service refuses fails, as it does not by curl's own defaults.
    (home / ".curlrc").write_text("fail-with-body\n")
    if with_environment:
        venv.create(home / "environment", with_pip=True)
        own = next((home / "environment/lib").glob("python3*/site-packages"))
        # `addsitedir` reads the .pth files of the folder too, so packages that are installed as editable are seen.
        lines = [f"import site; site.addsitedir({name!r})" for name in site.getsitepackages()]
        (own / "base.pth").write_text("\n".join(lines) + "\n")
    return Place(tree, home)


def _answers() -> bool:
    try:
        with urllib.request.urlopen(READY, timeout=1):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401  # it runs, and asks for a token
    except OSError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and everything that it started."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signal_number)
        except ProcessLookupError:
            break
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
