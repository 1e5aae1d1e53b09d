"""What must be true before a release is published: docs/releasing.md names the steps around it.

    python tools/check_release.py dist

It compares the versions in the package, the changelog, CITATION.cff and the archives' names, and looks into the
archives: the source archive holds every file that git tracks, so that its tests run. It prints what is wrong, and exits
with 1 if anything is.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_MODELS = ("eloftr-lite", "loftr-lite")
_KINDS = (".onnx", ".onnx.json", "-any-size.onnx", ".safetensors")
_ASSETS = (*(f"{model}{kind}" for model in _MODELS for kind in _KINDS), "engine-manifest-2.schema.json", "verdict.json")
_WHEEL_HAS = ("matchrt/py.typed", *(f"matchrt/assets/{name}" for name in _ASSETS))
RELATIVE = re.compile(r"\]\((?![a-z]+:|#)([^)\s]+)\)")
_NEVER = re.compile(r"(^|/)(shared|\.git|\.venv|site)/|\.(ckpt|pth|pt|engine)$|(^|/)\.(photos|train)/")


def problems(root: Path, archives: Path) -> Iterator[str]:
    """What is wrong with a release of the tree `root` whose archives lie in the folder `archives`."""
    version = _one(root / "src/matchrt/_version.py", r'__version__ = "([^"]+)"')
    cited = _one(root / "CITATION.cff", r"(?m)^version: (\S+)$")
    if cited != version:
        yield f"CITATION.cff says version {cited}, the package says {version}"
    if _find(root / "CITATION.cff", r"(?m)^date-released: \d{4}-\d{2}-\d{2}$") is None:
        yield "CITATION.cff has no date-released"
    heading = _one(root / "CHANGELOG.md", r"(?m)^## (.+)$")
    if re.fullmatch(re.escape(version) + r" \(\d{4}-\d{2}-\d{2}\)", heading) is None:
        yield f"the changelog begins with '{heading}', not with '{version} (YEAR-MONTH-DAY)'"
    if _find(root / "pyproject.toml", r"(?m)^\[project\.urls\]$") is None:
        yield "pyproject.toml has no [project.urls]: set the project's public addresses"
    yield from _archive_problems(root, version, archives)


def _archive_problems(root: Path, version: str, archives: Path) -> Iterator[str]:
    wheels, sources = sorted(archives.glob("*.whl")), sorted(archives.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sources) != 1:
        yield f"'{archives}' has {len(wheels)} wheels and {len(sources)} source archives, not one of each"
        return
    for path in (*wheels, *sources):
        if not path.name.startswith(f"matchrt-{version}"):
            yield f"{path.name} is not of version {version}"
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = wheel.namelist()
        yield from _description_problems(wheel, f"matchrt-{version}.dist-info/METADATA")
    yield from (f"{wheels[0].name} lacks {name}" for name in _WHEEL_HAS if name not in names)
    yield from (f"{wheels[0].name} holds {name}" for name in names if name.split("/")[0] == "tests")
    with tarfile.open(sources[0]) as source:
        kept = source.getnames()
    yield from (f"{sources[0].name} lacks {name}" for name in left_out(root, kept))
    names += kept
    yield from (f"{name} must not be published" for name in names if _NEVER.search(name))


def left_out(root: Path, names: list[str]) -> list[str]:
    """Files that git tracks in `root` and that an archive with these names lacks; none if `root` is no clone."""
    if not (root / ".git").exists():
        return []
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    held = {name.partition("/")[2] for name in names}
    return [name for name in listed.split("\0") if name and name not in held and (root / name).is_file()]


def _description_problems(wheel: zipfile.ZipFile, name: str) -> Iterator[str]:
    """What is wrong with the page that a package index will show."""
    if name not in wheel.namelist():
        yield f"the wheel lacks {name}"
        return
    text = wheel.read(name).decode("utf-8").partition("\n\n")[2]
    if not text.strip():
        yield "the wheel has no description: setup.py makes it of the README"
    links = list(dict.fromkeys(RELATIVE.findall(text)))
    if links:
        yield f"the description has {len(links)} relative links, such as {links[0]}: name Source in [project.urls]"


def _find(path: Path, pattern: str) -> str | None:
    found = re.search(pattern, path.read_text(encoding="utf-8"))
    return None if found is None else found[found.re.groups and 1]


def _one(path: Path, pattern: str) -> str:
    found = _find(path, pattern)
    if found is None:
        raise SystemExit(f"{path.name} has no line like {pattern}")
    return found


def main(arguments: list[str]) -> int:
    """Checks the folder of archives that is named; the exit code."""
    if len(arguments) != 1:
        print("usage: python tools/check_release.py FOLDER_OF_THE_ARCHIVES", file=sys.stderr)
        return 2
    found = list(problems(ROOT, Path(arguments[0])))
    for problem in found:
        print(problem)
    print("ready" if not found else f"{len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
