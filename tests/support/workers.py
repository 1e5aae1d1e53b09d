"""What the processes of one test run share: the machine's cores, and folders that only one of them fills."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def take_own_cores() -> None:
    """Gives this worker of pytest-xdist its share of the cores, before anything starts threads.

    torch, OpenCV, ONNX Runtime, XLA and OpenMP ask how many cores a process may use, and so do the programs that tests
    start. Without this, every worker would start as many threads as the machine has cores.
    """
    worker, count = os.environ.get("PYTEST_XDIST_WORKER", ""), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if not worker.startswith("gw") or not hasattr(os, "sched_setaffinity"):
        return
    assert "torch" not in sys.modules and "cv2" not in sys.modules
    index, cores = int(worker[2:]), sorted(os.sched_getaffinity(0))
    share = cores[index::count] or [cores[index % len(cores)]]
    os.sched_setaffinity(0, share)
    for name in THREADS:
        os.environ[name] = str(len(share))


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """The one temporary folder of all workers of this run."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def once(folder: Path, fill: Callable[[Path], object]) -> Path:
    """The folder, filled by the first worker that asks; the others wait for that one."""
    from filelock import FileLock

    done = folder.with_name(f"{folder.name}.done")
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            folder.mkdir(parents=True, exist_ok=True)
            fill(folder)
            done.touch()
    return folder
