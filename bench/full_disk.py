"""Fills the disk under `matchrt match-many`, gives it room again, and compares the output with a clean run's.

    sudo python bench/full_disk.py [--limits 20] [--format h5] [--engine ENGINE] [--json FILE]

Journal and output lie on a file system in memory (tmpfs, so Linux and its root only) of a size from 20 kB to more than
the clean run needs. A run that finds no room must end with exit code 2 and an error by name; with room, the same
command must end as a clean run does. Exits 1 at a difference.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from kill_resume import make_images

_LEAST = 20_000
_MORE_THAN_NEEDED = 2.5


def run(pairs: Path, output: Path, engine: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, report and what was printed to stderr."""
    command = [sys.executable, "-m", "matchrt", "match-many", str(pairs), "--output", str(output), "--engine", engine]
    ran = subprocess.run([*command, "--json", "--digest"], capture_output=True, text=True, check=False)
    return ran.returncode, json.loads(ran.stdout), ran.stderr


def mount(folder: Path, options: str) -> None:
    """Mounts or resizes the file system in memory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def main() -> None:
    """Prints how the runs ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limits", type=int, default=20)
    parser.add_argument("--images", type=int, default=12, help="of 160x120; all their pairs are matched")
    parser.add_argument("--format", choices=("h5", "db", "parquet"), default="h5")
    parser.add_argument("--engine", default="loftr-lite")
    parser.add_argument("--json", type=Path, help="write the tally here too")
    arguments = parser.parse_args()
    ends: Counter[str] = Counter()
    faults = []
    with tempfile.TemporaryDirectory() as name:
        work, output = Path(name), f"m.{arguments.format}"
        pairs = make_images(work / "images", arguments.images, 0)
        code, clean, _ = run(pairs, work / "clean" / output, arguments.engine)
        needed = _MORE_THAN_NEEDED * sum(path.stat().st_size for path in (work / "clean").iterdir())
        small = work / "small"
        small.mkdir()
        for index in range(arguments.limits):
            size = int(_LEAST + (needed - _LEAST) * index / max(1, arguments.limits - 1))
            mount(small, f"size={size}")
            try:
                first, report, said = run(pairs, small / output, arguments.engine)
                end = report.get("error", {}).get("code", "done")
                mount(small, "remount,size=1g")
                again, resumed, _ = run(pairs, small / output, arguments.engine)
            finally:
                subprocess.run(["umount", str(small)], check=True)
            ends[end] += 1
            print(f"{size} bytes: {end}", flush=True)
            if first != 2 or "Traceback" in said:
                faults.append(f"{size} bytes: exit code {first}, {end}: {said}")
            if again != code or resumed.get("content_sha256") != clean["content_sha256"]:
                faults.append(f"{size} bytes: the resumed run differs: {resumed.get('error')}")
    print(dict(ends), *(f"FAULT: {fault}" for fault in faults), sep="\n")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"ends": ends, "faults": faults}, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
