"""The frame: what importing costs, what is public, and that the runtime stands alone."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import matchrt
from matchrt._util.atomic import atomic_path, write_bytes
from matchrt.errors import InternalError, MatchRTError

Run = Callable[[str], "subprocess.CompletedProcess[str]"]

PUBLIC = [
    "BuildRequest", "BuildResult", "Features", "Geometry", "Image", "MatchRTError", "Matcher", "MatcherOptions",
    "Matches", "Nv12", "Profile", "__version__", "build", "read_image",
]  # fmt: skip


def test_importing_pulls_in_nothing_heavy(run_python: Run) -> None:
    heavy = ["torch", "jax", "onnxruntime", "onnx", "cv2", "numpy", "PIL", "rich", "typer", "cuda", "tensorrt",
             "tensorrt_rtx"]  # fmt: skip
    ran = run_python(f"import sys, matchrt; print([m for m in {heavy!r} if m in sys.modules])")
    assert ran.stdout.strip() == "[]", ran.stderr


def test_public_names_are_frozen() -> None:
    assert sorted(matchrt.__all__) == PUBLIC == dir(matchrt)
    for name in PUBLIC:
        assert getattr(matchrt, name) is not None
    with pytest.raises(AttributeError):
        _ = matchrt.nonsense  # type: ignore[attr-defined]


def test_matching_needs_no_torch(run_python: Run) -> None:
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'onnx', 'onnxscript', 'safetensors', 'onnx_graphsurgeon', 'jax', 'cuda',
                                  'tensorrt', 'tensorrt_rtx'):
            raise ImportError(f'{name} is blocked')
sys.meta_path.insert(0, Blocked())
import numpy as np
from matchrt import Matcher
image = np.random.default_rng(0).integers(0, 255, (128, 160), dtype=np.uint8)
print(len(Matcher().match(image, image)))
"""
    ran = run_python(code)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 10


def test_commands_without_the_export_extra_say_what_to_install(run_python: Run, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"\x08\x0a")
    diagnose = ["diagnose", str(tmp_path / "x.ckpt"), "--model", "loftr-lite"]
    for arguments, extra in (
        (["build", "loftr-lite"], "onnx"),
        (["inspect", str(tmp_path / "x.onnx")], "onnx"),
        (["build", "loftr-lite", "--max-matches", "512"], "export"),
        (diagnose, "export"),
    ):
        code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'onnx'):
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name.split('.')[0])
sys.meta_path.insert(0, Blocked())
sys.argv = ['matchrt', *{arguments!r}]
from matchrt.cli.app import main
main()
"""
        ran = run_python(code)
        assert ran.returncode == 2 and f"matchrt[{extra}]" in ran.stderr, ran.stderr
        assert "Traceback" not in ran.stderr


def test_atomic_writing(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.bin"
    write_bytes(target, b"one")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"one"
    assert [p.name for p in target.parent.iterdir()] == ["file.bin"]
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()
    target.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(target)
    write_bytes(link, b"two")
    assert target.read_bytes() == b"two" and link.is_symlink() and target.stat().st_mode & 0o777 == 0o600
    for bad in (tmp_path, Path("/dev/null"), target / "below", tmp_path / ("x" * 300)):
        with pytest.raises(MatchRTError) as caught:
            write_bytes(bad, b"three")
        assert caught.value.code == "output-unwritable"


def _umask() -> int:
    import os

    current = os.umask(0)
    os.umask(current)
    return current


def test_errors_survive_pickling_and_carry_exit_codes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(MatchRTError("a-code", "What.", "Do this.")))
    assert (error.code, error.message, error.remedy, error.exit_code) == ("a-code", "What.", "Do this.", 2)
    assert InternalError("x", "y", "z").exit_code == 1
    assert str(error) == "What. [a-code] Do this."


def test_every_error_code_is_documented() -> None:
    import re

    root = Path(matchrt.__file__).parent
    codes = set()
    for path in root.rglob("*.py"):
        codes |= set(re.findall(r'(?:MatchRT|Internal)Error\(\s*"([a-z0-9-]+)"', path.read_text()))
    text = (Path(__file__).parents[1] / "docs" / "errors.md").read_text()
    documented = set(re.findall(r"^\| `([a-z0-9-]+)`", text, re.M))
    assert len(codes) > 40 and not codes - documented
