"""The tool that looks for wheels for another platform; pip itself is asked by .ci/run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

if sys.version_info < (3, 11):
    pytest.skip("the tool reads pyproject.toml with tomllib", allow_module_level=True)

spec = importlib.util.spec_from_file_location(
    "check_platform", Path(__file__).parents[2] / "tools" / "check_platform.py"
)
assert spec is not None and spec.loader is not None
check = importlib.util.module_from_spec(spec)
sys.modules["check_platform"] = check
spec.loader.exec_module(check)


def test_requirements_are_flat_and_without_tensorrt_itself() -> None:
    found = check.requirements(("tensorrt", "serve"))
    names = [requirement.split(">")[0].split("<")[0] for requirement in found]
    assert {"numpy", "onnxruntime", "onnx", "onnx-graphsurgeon", "cuda-python", "fastapi"} <= set(names)
    assert not {"tensorrt", "torch", "matchrt[onnx]"} & set(names)


def test_a_platform_takes_wheels_of_older_systems_and_of_no_newer_one() -> None:
    tags = check.Platform("x", "3.10", (2, 35)).tags
    assert tags[0] == "manylinux_2_35_aarch64" and "manylinux_2_17_aarch64" in tags and "manylinux2014_aarch64" in tags
    assert not any("2_36" in tag or "x86" in tag for tag in tags)


def test_jetsons_have_their_pythons_and_their_cuda() -> None:
    six, seven = check.JETSONS
    assert (six.python, seven.python) == ("3.10", "3.12") and any("<13" in more for more in six.more)


def test_pips_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ran:
        returncode, stderr = 1, "noise\nERROR: No matching distribution found for nothing\n"

    monkeypatch.setattr(check.subprocess, "run", lambda *words, **options: Ran())
    assert check.resolve(check.JETSONS[1], ["nothing"]) == ({}, "ERROR: No matching distribution found for nothing")
