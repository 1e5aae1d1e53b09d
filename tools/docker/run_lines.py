"""Runs the RUN lines of Dockerfile.trt in a temporary folder in the place of the image, where no Docker daemon is.

    python tools/docker/run_lines.py [--stage serve]

COPY, ENV, WORKDIR and RUN are followed from the first stage to the named one; the image's folders become folders below
the temporary one. Lines that need the image or its administrator are named and left out. An empty module stands for the
image's TensorRT: what is shown is that all else installs, matches, converts and serves.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The image's folders that lines write to.
_FOLDERS = ("/usr/local/src/matchrt", "/opt/matchrt", "/var/lib/matchrt", "/data")
# Beginnings of lines that need the image, with the reason.
_LEFT_OUT = {"useradd": "it makes a user, as the image's administrator"}


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Keyword and arguments of each instruction; continued lines are joined, and comments gone."""
    bare = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n", " ", bare).splitlines():
        if line.strip():
            keyword, _, arguments = line.strip().partition(" ")
            yield keyword, " ".join(arguments.split())


@dataclass
class Image:
    """The folder that stands for the image, and where the instructions have come to."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    workdir: Path = Path()
    ran: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def here(self, text: str) -> str:
        """The text with the image's folders replaced by ours."""
        for name in _FOLDERS:
            text = re.sub(rf"(?<![\w/]){re.escape(name)}(?![\w-])", str(self.folder / name.lstrip("/")), text)
        return text

    def follow(self, keyword: str, arguments: str) -> None:
        """Does what an instruction says, as far as it can be done here. Error: CalledProcessError."""
        if keyword == "WORKDIR":
            self.workdir = Path(self.here(arguments))
            self.workdir.mkdir(parents=True, exist_ok=True)
        elif keyword == "ENV":
            for name, value in re.findall(r"(\w+)=(\S+)", self.here(arguments)):
                self.environment[name] = value.replace("$PATH", self.environment["PATH"])
        elif keyword == "COPY":
            *sources, target = arguments.split()
            for source in sources:
                _copy(ROOT / source, self.workdir / target, source, target)
        elif keyword == "RUN":
            self._run(arguments)

    def _run(self, line: str) -> None:
        reason = next((why for start, why in _LEFT_OUT.items() if line.startswith(start)), None)
        if reason is not None:
            self.left_out.append((line, reason))
            return
        print(f"+ {line}", flush=True)
        command = ["bash", "-euo", "pipefail", "-c", self.here(line)]
        subprocess.run(command, cwd=self.workdir, env=self.environment, check=True)
        self.ran.append(line)
        for own in Path(self.environment["PREFIX"]).glob("lib/python*/site-packages"):
            (own / "tensorrt.py").touch()  # in the place of the image's


def _copy(source: Path, target: Path, name: str, into: str) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        return
    if into.endswith("/"):
        target.mkdir(parents=True, exist_ok=True)
        target = target / Path(name).name
    shutil.copy2(source, target)


def run(stage: str, folder: Path, pip_flags: str = "--quiet") -> Image:
    """Follows the Dockerfile to the end of a stage. Error: CalledProcessError of the line that fails."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    image = Image(
        folder, environment | {"PYTHON": sys.executable, "PIP_FLAGS": pip_flags, "MATCHRT_STORE": str(folder)}
    )
    current = ""
    for keyword, arguments in instructions((ROOT / "Dockerfile.trt").read_text(encoding="utf-8")):
        if keyword == "FROM":
            if current == stage:
                break
            current = arguments.rsplit(" AS ", 1)[1]
        image.follow(keyword, arguments)
    if current != stage:
        raise SystemExit(f"Dockerfile.trt has no stage {stage}")
    return image


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", default="serve", help="the last stage to follow (default: serve)")
    with tempfile.TemporaryDirectory(prefix="matchrt-image-") as folder:
        image = run(parser.parse_args().stage, Path(folder))
    print(f"{len(image.ran)} RUN lines ran.")
    for line, reason in image.left_out:
        print(f"not run: {line}\n  because {reason}")


if __name__ == "__main__":
    main()
