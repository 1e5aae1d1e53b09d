"""NVIDIA's perf_analyzer, which tritonclient's wheels bring as a program of a Python environment."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

VARIABLE = "MATCHRT_PERF_ANALYZER_LIBRARIES"


def environment() -> dict[str, str]:
    """The environment in which it runs: with the folder of libraries that the variable names, if it does."""
    folder = os.environ.get(VARIABLE)
    return {**os.environ, **({"LD_LIBRARY_PATH": folder} if folder else {})}


def find() -> tuple[str | None, str]:
    """The program, or why it does not run."""
    program = shutil.which("perf_analyzer", path=os.pathsep.join((str(Path(sys.executable).parent), os.defpath)))
    if program is None:
        return None, "perf_analyzer is not installed (the wheel of tritonclient 2.41 brings it)"
    ran = subprocess.run([program, "--version"], env=environment(), capture_output=True, text=True, check=False)
    if ran.returncode != 0 and "error while loading" in ran.stderr:
        missing = ran.stderr.partition("libraries: ")[2].partition(":")[0]
        return (
            None,
            f"perf_analyzer lacks {missing} (Debian: libb64-0d; PyPI: nvidia-cuda-runtime-cu12), see ${VARIABLE}",
        )
    return program, ""


def analyze(program: str, folder: Path, *arguments: str) -> dict[str, float]:
    """Runs it until it has a stable figure, and gives the figures of its first line by name."""
    table = folder / "figures.csv"
    ran = subprocess.run(
        [program, "-f", str(table), *arguments],
        env=environment(), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    with table.open(newline="") as lines:
        row = next(csv.DictReader(lines))
    return {name: float(value) for name, value in row.items() if value}
