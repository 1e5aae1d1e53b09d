"""Wheel and source archive on each Python and each NumPy: installed, matched with, tested.

    python tools/check_pythons.py                              # every interpreter that is found here
    python tools/check_pythons.py --only 3.10 --only 3.13 --numpy 2
    python tools/check_pythons.py --quick                      # install and match, no tests

It builds the source archive, and from that the wheel. For each interpreter and each NumPy it makes an environment,
installs the wheel without extras, matches the example pair with the command, and runs the tests of the base install
with pytest alone, from the unpacked source archive. Once, pip installs the source archive itself. Where there is no
interpreter, pip only says whether wheels of everything exist for it. It prints a table, and exits with 1 if a row
fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
NUMPYS = {"1.26": "numpy==1.26.*", "2": "numpy>=2"}
# What runs engines: these folders need no package of an extra, except for tests that say so (support/base_only.py).
TESTS = ("runtime", "cli", "batch", "doctor", "nvidia", "_util")
# Fewer tests than this would mean that they were skipped and not run.
LEAST_TESTS = 1000
LEAST_MATCHES = 1000
_NO_WHEEL = re.compile(r"No matching distribution found for (\S+)|ResolutionImpossible|no matching distributions", re.I)


@dataclass(frozen=True)
class Row:
    """One line of the table. ok: None if there was nothing to try."""

    python: str
    numpy: str
    source: str
    installed: str
    matches: str
    tests: str
    seconds: float
    ok: bool | None


def interpreters() -> dict[str, Path]:
    """The interpreter of each version that works here: on the path, or of pyenv."""
    found: dict[str, Path] = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        on_path = shutil.which(f"python{version}")
        candidates = [*([Path(on_path)] if on_path else []), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
        for path in candidates:
            code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
            ran = subprocess.run([str(path), "-c", code], capture_output=True, text=True, check=False)
            if ran.returncode == 0 and ran.stdout.strip() == version:
                found[version] = path
                break
    return found


def build(folder: Path) -> tuple[Path, Path, Path]:
    """The source archive, the wheel that is built from it, and the folder of the unpacked archive."""
    environment = folder / "build"
    python = _environment(Path(sys.executable), environment)
    _run([str(python), "-m", "pip", "install", "-q", "build"])
    tree = folder / "tree"  # building writes into the tree
    shutil.copytree(
        ROOT, tree, ignore=shutil.ignore_patterns(".git", ".*_cache", ".venv", "node_modules", "__pycache__")
    )
    _run([str(python), "-m", "build", "-q", "--outdir", str(folder / "dist"), str(tree)])
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    return sdist, wheel, source


def check(python: Path, version: str, numpy: str, archive: Path, source: Path, folder: Path, tests: bool) -> Row:
    """One row: an environment of `python` with this NumPy, and what is done in it."""
    start = time.monotonic()
    kind = "wheel" if archive.suffix == ".whl" else "sdist"

    def row(installed: str, matches: str = "", tested: str = "", ok: bool | None = False) -> Row:
        return Row(version, numpy, kind, installed, matches, tested, time.monotonic() - start, ok)

    environment = folder / f"{version}-{numpy}-{kind}"
    own = _environment(python, environment)
    pip = [str(own), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    binary = ["--only-binary", ":all:"] if kind == "wheel" else ["--prefer-binary"]
    ran = _try([*pip, *binary, str(archive), NUMPYS[numpy], "pytest"])
    if ran.returncode:
        said = _NO_WHEEL.search(ran.stderr)
        return row("no wheels" if said else _last(ran.stderr), ok=None if said else False)
    installed = _versions(own)
    pictures = [str(source / "examples" / "images" / f"cup_{side}.jpg") for side in (0, 1)]
    ran = _try([str(own.parent / "matchrt"), "match", *pictures, "--json"], cwd=folder)
    if ran.returncode:
        return row(installed, _last(ran.stderr))
    count = json.loads(ran.stdout)["matches"]
    summary, passed = _tested(own, source) if tests else ("not run", True)
    shutil.rmtree(environment)
    return row(installed, str(count), summary, ok=count > LEAST_MATCHES and passed)


def resolve(version: str, numpy: str, wheel: Path, folder: Path) -> Row:
    """A row for a version without an interpreter here: whether pip finds wheels of everything."""
    start = time.monotonic()
    options = ["--dry-run", "--ignore-installed", "--only-binary", ":all:", "--python-version", version]
    pip = [str(folder / "build" / "bin" / "python"), "-m", "pip", "install", "-q", *options]
    ran = _try([*pip, "--target", str(folder / "nowhere"), str(wheel), NUMPYS[numpy]])
    said = "wheels exist" if ran.returncode == 0 else "no wheels" if _NO_WHEEL.search(ran.stderr) else _last(ran.stderr)
    return Row(version, numpy, "wheel", said, "", "no interpreter here", time.monotonic() - start, None)


def _tested(python: Path, source: Path) -> tuple[str, bool]:
    folders = [f"tests/{name}" for name in TESTS]
    options = [
        "-o",
        "addopts=",
        "--import-mode=importlib",
        "-m",
        "not slow and not gpu",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    command = [str(python), "-m", "pytest", *options, "-p", "support.base_only", *folders]
    # The installed package is tested: nothing of the checkout's src is on the path.
    variables = {**os.environ, "PYTHONPATH": str(source / "tests"), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False, env=variables)
    failed = [line for line in ran.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    print("\n".join(failed), file=sys.stderr)
    summary = ran.stdout.strip().splitlines()[-1] if ran.stdout.strip() else _last(ran.stderr)
    count = re.search(r"(\d+) passed", summary)
    return summary, ran.returncode == 0 and count is not None and int(count[1]) >= LEAST_TESTS


def _environment(python: Path, folder: Path) -> Path:
    _run([str(python), "-m", "venv", str(folder)])
    own = folder / "bin" / "python"
    _run([str(own), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--upgrade", "pip"])
    return own


def _versions(python: Path) -> str:
    names = ("numpy", "opencv-python-headless", "onnxruntime", "pillow")
    code = f"import importlib.metadata as m; print(', '.join(m.version(name) for name in {names}))"
    return _try([str(python), "-c", code]).stdout.strip()


def _run(command: list[str]) -> None:
    ran = _try(command)
    if ran.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{ran.stdout}{ran.stderr}")


def _try(command: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=variables)


def _last(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:120] if lines else "no message"


def _print(rows: list[Row]) -> None:
    head = ("python", "numpy", "from", "numpy, opencv, onnxruntime, pillow", "matches", "tests", "s", "")
    lines = [
        (r.python, r.numpy, r.source, r.installed, r.matches, r.tests, f"{r.seconds:.0f}",
         {True: "ok", False: "FAILED", None: "-"}[r.ok])
        for r in rows
    ]  # fmt: skip
    widths = [max(len(line[i]) for line in (head, *lines)) for i in range(len(head))]
    for line in (head, *lines):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def main() -> int:
    """Checks what was asked for; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=VERSIONS, help="Python version; default: all")
    parser.add_argument("--numpy", action="append", choices=list(NUMPYS), help="NumPy version; default: both")
    parser.add_argument("--quick", action="store_true", help="install and match only")
    given = parser.parse_args()
    here, rows = interpreters(), []
    with tempfile.TemporaryDirectory(prefix="matchrt-pythons-") as name:
        folder = Path(name)
        sdist, wheel, source = build(folder)
        versions, numpys = given.only or VERSIONS, given.numpy or list(NUMPYS)
        for version in versions:
            for numpy in numpys:
                python = here.get(version)
                if python is None:
                    rows.append(resolve(version, numpy, wheel, folder))
                else:
                    rows.append(check(python, version, numpy, wheel, source, folder, not given.quick))
                _print(rows[-1:])
        first = next((version for version in versions if version in here), None)
        if first is not None:
            rows.append(check(here[first], first, numpys[-1], sdist, source, folder, tests=False))
    _print(rows)
    return 1 if any(row.ok is False for row in rows) or not any(row.ok for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
