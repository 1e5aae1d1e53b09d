"""Consoles that lack characters, full disks, closed streams and readers that have gone, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny_engines import tiny_engine

from matchrt.manifest import manifest_path
from matchrt.runtime.bundled import photographs_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shells and devices of Unix")
PROGRAM = f"{sys.executable} -m matchrt"
PHOTOGRAPHS = [str(photographs_folder() / f"cup_{i}.jpg") for i in (0, 1)]


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash, in which `matchrt` is the program."""
    line = f'matchrt() {{ {PROGRAM} "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, **environment}, errors="replace",
    )  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_engine(tmp_path_factory.mktemp("engine"))


@pytest.mark.parametrize("encoding", ["cp932", "ascii", "latin-1", "utf-8"])
def test_a_console_that_lacks_a_character(engine: Path, encoding: str) -> None:
    line = f"matchrt match {' '.join(PHOTOGRAPHS)} --engine {engine} && matchrt inspect {engine} && matchrt models"
    ran = shell(line, PYTHONIOENCODING=encoding)
    assert ran.returncode == 0 and "inference" in ran.stdout and "loftr-lite" in ran.stdout, ran.stderr
    ran = shell("matchrt match 日本·.png b.png", PYTHONIOENCODING=encoding)
    assert ran.returncode == 2 and "error[image-missing]" in ran.stderr and "Traceback" not in ran.stderr


def test_the_plainest_locale(engine: Path) -> None:
    ran = shell(f"matchrt inspect {engine}; matchrt match é.png b.png", LC_ALL="C", PYTHONUTF8="0",
                PYTHONCOERCECLOCALE="0")  # fmt: skip
    assert ran.returncode == 2 and "tensors in" in ran.stdout and "error[image-missing]" in ran.stderr


@pytest.mark.parametrize("command", ["models", "models --json", "--help", "--version", "match --help", "MATCH --json"])
@pytest.mark.parametrize("stdout", ["> /dev/full", ">&-"])
def test_results_that_cannot_be_written(engine: Path, command: str, stdout: str) -> None:
    if stdout == "> /dev/full" and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    command = command.replace("MATCH", f"match {' '.join(PHOTOGRAPHS)} --engine {engine}")
    ran = shell(f"matchrt {command} {stdout}")
    assert ran.returncode == 2 and ran.stderr.startswith("error[output-unwritable]: "), ran.stderr
    assert len(ran.stderr.splitlines()) == 2, "the error in one line, and the remedy"


def test_an_error_whose_json_cannot_be_written_is_still_told() -> None:
    ran = shell("matchrt match x y --json > /dev/full")
    assert ran.returncode == 2 and ran.stderr.startswith("error[image-missing]"), ran.stderr
    assert shell("matchrt match x y --json > /dev/full 2> /dev/full").returncode == 2
    assert shell("matchrt match x y 2>&-").returncode == 2


@pytest.mark.parametrize("command", ["models", "--help", "--version", "models --json"])
def test_a_reader_that_has_gone(command: str) -> None:
    ran = shell(f"matchrt {command} | true; exit ${{PIPESTATUS[0]}}")
    assert (ran.returncode, ran.stderr) == (141, "")


def test_stderr_that_cannot_be_written_ends_nothing(engine: Path, tmp_path: Path) -> None:
    for number, stderr in enumerate(("2> /dev/full", "2>&-", "2>&- <&-")):
        saved = tmp_path / f"{number}.npz"
        ran = shell(f"matchrt match {' '.join(PHOTOGRAPHS)} --engine {engine} --save {saved} {stderr}")
        assert ran.returncode == 0 and "wrote" in ran.stdout and saved.stat().st_size > 0


@pytest.mark.parametrize(
    ("options", "name"),
    [("--save", "m.npz"), ("--save", "m.json"), ("--save", "m.h5"), ("--draw", "m.png"), ("--draw", "m.jpg")],
)
def test_files_on_a_full_disk(tmp_path: Path, options: str, name: str) -> None:
    if name.endswith(".h5"):
        pytest.importorskip("h5py")
    command = f"matchrt match {' '.join(PHOTOGRAPHS)} --resize 320 {options} {tmp_path / name}"
    ran = shell(f"ulimit -f 4; {command}")
    assert ran.returncode == 2 and ran.stderr.startswith("error[output-unwritable]"), ran.stderr
    assert list(tmp_path.iterdir()) == [], "nothing half-written"
    (tmp_path / name).write_bytes(b"")
    if not name.endswith(".h5"):
        assert shell(f"ulimit -f 4; {command}").returncode == 2 and (tmp_path / name).stat().st_size == 0


def test_names_in_files_do_not_reach_the_terminal_as_they_are(engine: Path, tmp_path: Path) -> None:
    evil = tmp_path / "a\x1b]0;t\x07\u202eb\nwrote everything.onnx"
    evil.write_bytes(engine.read_bytes())
    manifest_path(evil).write_bytes(manifest_path(engine).read_bytes())
    ran = subprocess.run([sys.executable, "-m", "matchrt", "inspect", str(evil)], capture_output=True, check=False)
    assert ran.returncode == 0 and b"\x1b" not in ran.stdout and "\u202e".encode() not in ran.stdout
    assert not any(line.startswith(b"wrote") for line in ran.stdout.splitlines())
    ran = subprocess.run(
        [sys.executable, "-m", "matchrt", "match", os.fsencode(tmp_path) + b"/caf\xe9\n\x1b.png", "b"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2 and len(ran.stderr.splitlines()) == 2 and b"caf\\xe9\\n\\x1b.png" in ran.stderr
