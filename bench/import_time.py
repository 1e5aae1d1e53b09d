"""What `import matchrt` costs: seconds in fresh interpreters, and the heavy modules that it pulls in (none, it should).

Exits 1 when the median is over the bar or a heavy module was imported.

    python bench/import_time.py [--runs 15] [--statement "import matchrt"] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

BAR_SECONDS = 0.3
HEAVY = ("torch", "jax", "flax", "onnxruntime", "onnx", "tensorrt", "cv2", "numpy", "scipy", "PIL", "rich", "typer")

_PROBE = """
import json, sys, time
before = set(sys.modules)
start = time.perf_counter()
{statement}
elapsed = time.perf_counter() - start
new = sorted({{name.split(".")[0] for name in set(sys.modules) - before}})
print(json.dumps({{"seconds": elapsed, "modules": new}}))
"""


def probe(statement: str) -> dict[str, Any]:
    """Seconds of the statement in a new interpreter, and the top-level modules that it added."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE.format(statement=statement)], capture_output=True, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(statement: str, runs: int) -> dict[str, Any]:
    """Median and extremes over `runs` interpreters, after one that warms the file cache."""
    probe(statement)
    results = [probe(statement) for _ in range(runs)]
    seconds = [result["seconds"] for result in results]
    modules = {module for result in results for module in result["modules"]}
    return {
        "statement": statement,
        "runs": runs,
        "median_s": round(statistics.median(seconds), 4),
        "fastest_s": round(min(seconds), 4),
        "slowest_s": round(max(seconds), 4),
        "bar_s": BAR_SECONDS,
        "heavy": sorted(modules & set(HEAVY)),
    }


def main() -> int:
    """Measures and prints; the exit code says whether the bar is held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--statement", default="import matchrt")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    result = measure(arguments.statement, arguments.runs)
    heavy = ", ".join(result["heavy"]) or "none"
    print(f"{result['statement']}: median {result['median_s'] * 1e3:.1f} ms of {result['runs']} runs "
          f"({result['fastest_s'] * 1e3:.1f} to {result['slowest_s'] * 1e3:.1f}); heavy modules: {heavy}")  # fmt: skip
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if result["median_s"] < BAR_SECONDS and not result["heavy"] else 1


if __name__ == "__main__":
    sys.exit(main())
