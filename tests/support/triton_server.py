"""A real Triton Inference Server, from the wheel of nvidia-pytriton, which brings its core and its Python backend.

The wheel has no onnxruntime backend. A backend written in Python stands in for it: `onnxruntime_backend.py`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "MATCHRT_PYTRITON"
BACKEND = Path(__file__).with_name("onnxruntime_backend.py")


def find() -> tuple[Path | None, str]:
    """The folder `tritonserver` of the wheel, or why there is none."""
    given = os.environ.get(VARIABLE)
    spec = importlib.util.find_spec("pytriton") if given is None else None
    if given is None and (spec is None or spec.origin is None):
        return None, f"nvidia-pytriton is not installed, and ${VARIABLE} names no folder `pytriton` of its wheel"
    package = Path(given) if given is not None else Path(str(spec and spec.origin)).parent
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = package / "tritonserver"
    stub = folder / "python_backend_stubs" / version / "triton_python_backend_stub"
    for path in (folder / "bin" / "tritonserver", stub):
        if not path.is_file():
            return None, f"there is no {path.relative_to(package)} in {package}: its wheel is for other Pythons"
    return folder, ""


@dataclass(frozen=True)
class Triton:
    """A server that is ready.

    runs: a file to which the stand-in writes one line for each run: the model, and the rows.
    """

    http: int
    log: Path
    runs: Path

    def rows(self, model: str) -> list[int]:
        """The rows of each run of a model so far, those of the warm-up first."""
        lines = [line.split() for line in self.runs.read_text().splitlines()]
        return [int(rows) for name, rows in lines if name == model]


@contextmanager
def triton(server: Path, repository: Path, work: Path, seconds: float = 180) -> Iterator[Triton]:
    """Serves a model repository on a free port.

    server: the wheel's folder. work: an empty folder for what the server needs.
    """
    backends = work / "backends"
    shutil.copytree(server / "backends" / "python", backends / "python")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
    (backends / "onnxruntime").mkdir()
    shutil.copy(BACKEND, backends / "onnxruntime" / "model.py")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = Triton(port, work / "triton.log", work / "runs.txt")
    found.runs.touch()
    # The wheel's own libraries, and this Python's, with the packages of this environment.
    libraries = [server.parents[1] / "nvidia_pytriton.libs", Path(sys.base_prefix) / "lib"]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONHOME": sys.base_prefix,
        "STAND_IN_RUNS": str(found.runs),
    }
    command = [
        str(server / "bin" / "tritonserver"), f"--model-repository={repository}", f"--backend-directory={backends}",
        "--http-address=127.0.0.1", f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false",
        "--exit-on-error=true", "--log-verbose=1",
    ]  # fmt: skip
    with found.log.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=work)
    try:
        _wait(process, found, seconds)
        yield found
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait(process: subprocess.Popen[bytes], server: Triton, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"Triton has ended:\n{server.log.read_text()[-6000:]}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{server.http}/v2/health/ready", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TimeoutError(f"Triton is not ready:\n{server.log.read_text()[-6000:]}")
