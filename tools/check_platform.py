"""Whether wheels of all that matchrt needs exist for another platform: NVIDIA's Jetsons, by default.

    python tools/check_platform.py
    python tools/check_platform.py --extra onnx --extra serve --python 3.12 --glibc 2.39

pip resolves the base requirements and those of the extras for the platform and Python (`--dry-run`, so that nothing is
installed). Nothing may need a compiler, so only wheels count. TensorRT itself is left out: JetPack has it. The exit
code is 1 if a package has no wheel.

pip looks at conditions such as `python_version < "3.11"` with the Python that it runs on. So it is run with a python3.X
of that very version where there is one, and the output says which was taken.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
# What pip is asked for besides the requirements.
_LEFT_OUT = ("tensorrt",)


@dataclass(frozen=True)
class Platform:
    """A platform that wheels are looked for.

    name: as people call it. python: its version. glibc: (major, minor). machine: as wheels name it. more: requirements
    that only this platform has.
    """

    name: str
    python: str
    glibc: tuple[int, int]
    machine: str = "aarch64"
    more: tuple[str, ...] = ()

    @property
    def tags(self) -> list[str]:
        """The platform tags of wheels that run there, the newest first."""
        major, minor = self.glibc
        tags = [f"manylinux_{major}_{number}_{self.machine}" for number in range(minor, 16, -1)]
        return [*tags, f"manylinux2014_{self.machine}", f"linux_{self.machine}"]


JETSONS = (
    # CUDA 12.6: cuda-python 13 wants a driver for CUDA 13.
    Platform("JetPack 6 (Ubuntu 22.04)", "3.10", (2, 35), more=("cuda-python>=12.6,<13",)),
    Platform("JetPack 7 (Ubuntu 24.04)", "3.12", (2, 39)),
)
EXTRAS = ("tensorrt", "serve")


def requirements(extras: tuple[str, ...]) -> list[str]:
    """The base requirements and those of the extras, with the extras that these name, less TensorRT."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def listed(found: list[str]) -> list[str]:
        flat: list[str] = []
        for requirement in found:
            own = re.fullmatch(rf"{project['name']}\[(.+)\]", requirement)
            if own:
                for extra in own[1].split(","):
                    flat += listed(project["optional-dependencies"][extra.strip()])
            elif re.split(r"[^\w.-]", requirement)[0] not in _LEFT_OUT:
                flat.append(requirement)
        return flat

    chosen = [requirement for extra in extras for requirement in project["optional-dependencies"][extra]]
    return listed([*project["dependencies"], *chosen])


def interpreter(version: str) -> str:
    """A Python of that version that has pip, else this one."""
    found = shutil.which(f"python{version}")
    if (
        found is not None
        and subprocess.run([found, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    ):
        return found
    return sys.executable


def resolve(platform: Platform, wanted: list[str]) -> tuple[dict[str, str], str]:
    """The versions that pip chooses by name, and what it says if it finds none."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = [
            interpreter(platform.python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--dry-run",
        ]
        words += ["--ignore-installed", "--only-binary=:all:", "--target", folder, "--report", str(report)]
        words += ["--implementation", "cp", "--python-version", platform.python]
        words += [word for tag in platform.tags for word in ("--platform", tag)]
        ran = subprocess.run([*words, *wanted, *platform.more], capture_output=True, text=True, check=False)
        if ran.returncode:
            lines = [line for line in ran.stderr.splitlines() if line.startswith("ERROR")]
            return {}, "\n".join(lines) or ran.stderr[-2000:]
        found = json.loads(report.read_text())["install"]
    return {entry["metadata"]["name"]: entry["metadata"]["version"] for entry in found}, ""


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extra", action="append", help=f"an extra; repeat for several (default: {' '.join(EXTRAS)})")
    parser.add_argument("--python", help="a version such as 3.12, in place of the Jetsons'")
    parser.add_argument("--glibc", default="2.35", help="with --python: the platform's glibc (default: 2.35)")
    parser.add_argument("--machine", default="aarch64", help="with --python: the machine (default: aarch64)")
    parser.add_argument("--json", action="store_true", help="print versions as JSON")
    given = parser.parse_args()
    platforms = JETSONS
    if given.python:
        major, minor = given.glibc.split(".")
        name = f"{given.machine}, Python {given.python}"
        platforms = (Platform(name, given.python, (int(major), int(minor)), given.machine),)
    wanted, failed, document = requirements(tuple(given.extra or EXTRAS)), False, {}
    for platform in platforms:
        versions, said = resolve(platform, wanted)
        document[platform.name] = versions
        failed |= bool(said)
        if not given.json:
            print(f"{platform.name}, Python {platform.python}, {platform.machine}")
            print(f"  pip of {interpreter(platform.python)}")
            print(f"  {said}" if said else "  " + ", ".join(f"{k} {v}" for k, v in sorted(versions.items())))
    if given.json:
        print(json.dumps(document, indent=2))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
