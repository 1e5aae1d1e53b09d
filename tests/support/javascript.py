"""Node.js for tests: scripts that import our JavaScript example, and the folder of npm packages that it uses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "javascript"
VARIABLE = "MATCHRT_NODE_MODULES"


def node() -> str:
    """The program; the test is skipped without it."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("Node.js is not installed")
    return found


def node_modules(*packages: str) -> Path:
    """The folder that has these npm packages; the test is skipped without them."""
    given = os.environ.get(VARIABLE)
    folder = EXAMPLE / "node_modules" if given is None else Path(given)
    missing = [name for name in packages if not (folder / name).is_dir()]
    if missing:
        pytest.skip(f"npm's {' and '.join(missing)} not found: run npm install in {EXAMPLE.name}, or set {VARIABLE}")
    return folder.resolve()


def evaluate(expression: str, given: Any) -> Any:
    """The value of a JavaScript expression over our modules' names and `given`, which travels as JSON."""
    script = f"""
        import * as matchrt from {json.dumps((EXAMPLE / "matchrt.mjs").as_uri())};
        import {{ fitImage }} from {json.dumps((EXAMPLE / "fit.mjs").as_uri())};
        import {{ resize }} from {json.dumps((EXAMPLE / "resize.mjs").as_uri())};
        import {{ toGrey }} from {json.dumps((EXAMPLE / "image.mjs").as_uri())};
        import {{ readFileSync }} from "node:fs";
        const given = JSON.parse(readFileSync(0, "utf8"));
        process.stdout.write(JSON.stringify({expression}));
    """
    command = [node(), "--input-type=module", "--eval", script]
    ran = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)
