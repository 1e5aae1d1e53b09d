"""Options that several commands have: declared once, and the same everywhere."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any, get_args

import pytest
import typer

from matchrt.batch import mapping, options
from matchrt.batch.pairing import options as pairing_options
from matchrt.cli import match_many, pairing
from matchrt.cli.app import app
from matchrt.cli.options import matcher_options
from matchrt.errors import MatchRTError

# Commands whose option of this name means something else, and says so.
OTHERWISE = {
    ("serve", "--json"), ("match-many", "--threads"), ("pairs", "--threads"), ("serve", "--threads"),
    ("verify", "--device"),
}  # fmt: skip


def declared(option: str) -> dict[str, tuple[str, Any]]:
    """By command, the option's help and default."""
    group: Any = typer.main.get_command(app)
    return {
        name: (param.help, param.default)
        for name, command in group.commands.items()
        for param in command.params
        if option in param.opts and (name, option) not in OTHERWISE
    }


@pytest.mark.parametrize(
    ("option", "commands"),
    [
        (
            "--store",
            {"match", "match-many", "build", "bench", "serve", "export-triton", "verify", "doctor", "engines"}
            | {"download", "models", "diagnose", "convert-flax", "inspect", "live", "pairs"},
        ),
        ("--device", {"match", "match-many", "live", "bench", "serve", "doctor", "pairs"}),
        ("--threads", {"match", "live", "bench", "verify"}),
        ("--min-score", {"match", "match-many", "live", "bench"}),
        ("--resize", {"match", "match-many", "live", "bench"}),
        ("--max-megapixels", {"match", "match-many", "live", "serve", "pairs"}),
        ("--ignore-exif", {"match", "match-many", "pairs"}),
        ("--stretch", {"match", "match-many"}),
        ("--sample", {"match", "match-many"}),
        ("--seed", {"match", "match-many"}),
        ("--window", {"match", "match-many", "pairs"}),
        ("--loop", {"match-many", "pairs"}),
        ("--neighbours", {"match-many", "pairs"}),
        ("--no-cuda-graph", {"match", "live", "bench"}),
    ],
)
def test_a_shared_option_is_the_same_everywhere(option: str, commands: set[str]) -> None:
    found = declared(option)
    assert set(found) == commands
    assert len(set(found.values())) == 1


def test_every_command_prints_json() -> None:
    found = declared("--json")
    assert len(found) == 15
    assert len(set(found.values())) == 1


def test_options_become_the_matchers() -> None:
    given: dict[str, Any] = {
        "resize": 640, "min_score": 0.3, "sample": 500, "seed": 7, "threads": 2, "device": "cpu",
        "backend": "onnxruntime",
    }  # fmt: skip
    full = matcher_options(**given, ignore_exif=True, max_megapixels=1.5, no_cuda_graph=True)
    assert {name: getattr(full, name) for name in given} == given
    assert (full.apply_exif, full.max_pixels, full.cuda_graph) == (False, 1_500_000, False)
    plain = matcher_options(**given, ignore_exif=False, max_megapixels=50.0)
    assert (plain.apply_exif, plain.max_pixels, plain.cuda_graph) == (True, 50_000_000, True)


def test_choices_are_those_of_the_options_that_they_set() -> None:
    assert tuple(layout.value for layout in match_many.Layout) == get_args(options.Layout)
    assert tuple(cameras.value for cameras in match_many.Cameras) == get_args(options.Cameras)


def test_an_unknown_device_is_refused() -> None:
    given: dict[str, Any] = dict.fromkeys(("resize", "min_score", "sample", "threads", "backend"))
    with pytest.raises(MatchRTError) as caught:
        matcher_options(**given, seed=0, ignore_exif=False, max_megapixels=50.0, device="tpu")
    assert caught.value.code == "device-unknown"


def test_the_command_line_starts_without_heavy_packages(
    run_python: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    heavy = ["torch", "jax", "onnxruntime", "onnx", "cv2", "numpy", "PIL", "h5py", "cuda", "tensorrt"]
    ran = run_python(f"import sys, matchrt.cli.app; print([m for m in {heavy!r} if m in sys.modules])")
    assert ran.stdout.strip() == "[]", ran.stderr
    assert tuple(way.value for way in pairing.By) == pairing_options.HOWS
    assert tuple(mapper.value for mapper in match_many.MapperChoice) == get_args(mapping.Mapper)
