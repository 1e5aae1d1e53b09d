"""`inspect`, `diagnose` and `build` of a training checkpoint: what they list, and what works without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.commands import CommandLine
from support.training_files import STYLES, lightning_1
from support.weights import coarse_loftr_state

ASIDE = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint, 1 object"


@pytest.fixture
def lightning(tmp_path: Path) -> Path:
    path = tmp_path / "lightning.ckpt"
    lightning_1({f"matcher.{key}": tensor for key, tensor in coarse_loftr_state().items()}, path)
    return path


def test_inspect_lists_what_was_put_aside(cli: CommandLine, lightning: Path) -> None:
    ran = cli("inspect", lightning)
    assert ran.code == 0 and "coarse-loftr" in ran.out and "put aside" in ran.out
    assert ASIDE in " ".join(ran.out.split())
    found = cli("inspect", lightning, "--json").json
    assert found["models"] == ["coarse-loftr"] and found["lacks"] is None
    assert {"name": ASIDE.split(",", maxsplit=1)[0], "objects": 1} in found["put_aside"]
    torch.save(coarse_loftr_state(), lightning)
    assert "put aside" not in cli("inspect", lightning).out
    assert cli("inspect", lightning, "--json").json["put_aside"] == []


def test_diagnose_lists_what_was_put_aside(cli: CommandLine, lightning: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    ran = cli("diagnose", lightning, "--model", "coarse-loftr", "--html", page)
    assert ran.code == 0 and ASIDE in " ".join(ran.out.split()) and "optimizer_states" in ran.out
    assert "ModelCheckpoint" in page.read_text()
    found = cli("diagnose", lightning, "--model", "coarse-loftr", "--json").json
    assert "hyper_parameters" in found["ignored"]
    assert {"name": "argparse.Namespace", "objects": 1} in found["put_aside"]


@pytest.mark.slow
def test_build_lists_what_was_put_aside(cli: CommandLine, lightning: Path, tmp_path: Path) -> None:
    ran = cli("build", "coarse-loftr", "--checkpoint", lightning, "--height", "128", "--width", "128",
              "--max-matches", "64", "--output", tmp_path / "e.onnx", "--store", tmp_path / "store")  # fmt: skip
    assert ran.code == 0 and "161 loaded" in ran.out and ASIDE in " ".join(ran.out.split())


WITHOUT = "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnx', 'onnxscript', 'onnx_graphsurgeon')))\n"
MAIN = "from matchrt.cli.app import main; main()"


def _without_torch(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT + MAIN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("style", [*STYLES, "legacy", "safetensors"])
def test_inspect_needs_no_torch(cli: CommandLine, tmp_path: Path, style: str) -> None:
    path, state = tmp_path / "x.ckpt", coarse_loftr_state()
    state["extra"] = torch.ones(3).bfloat16()
    if style == "safetensors":
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path, {"note": "x"})
    elif style == "legacy":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        STYLES[style](state, path)
    ran = _without_torch("inspect", path, "--json")
    assert ran.returncode == 0, ran.stderr
    found, whole = json.loads(ran.stdout), cli("inspect", path, "--json").json
    assert found["models"] is None and found["closest"] is None and found["lacks"] == "torch"
    same = set(whole) - {"models", "closest", "account", "problems", "notes", "lacks"}  # these need the networks
    assert {key: found[key] for key in same} == {key: whole[key] for key in same}
    ran = _without_torch("inspect", path)
    assert ran.returncode == 0 and "unknown: that needs the package 'torch'" in ran.stdout


def test_without_torch_the_others_say_what_is_missing(lightning: Path) -> None:
    for command in (
        ("diagnose", lightning, "--model", "coarse-loftr"),
        ("build", "loftr-lite", "--checkpoint", lightning),
    ):
        ran = _without_torch(*command)
        assert ran.returncode == 2 and "error[package-missing]" in ran.stderr
        assert "matchrt[export]" in ran.stderr and "Traceback" not in ran.stderr


def test_a_bad_file_is_named_without_torch(lightning: Path) -> None:
    lightning.write_bytes(lightning.read_bytes()[:-1000])
    ran = _without_torch("inspect", lightning)
    assert ran.returncode == 2 and "error[checkpoint-truncated]" in ran.stderr
