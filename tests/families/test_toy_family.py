"""A network of its own goes through everything by two files and one line of the table of families."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import cv2
import pytest
import torch
from support.commands import CommandLine
from support.pictures import shifted_pair
from support.toy.network import Toy, ToyConfig

from matchrt.building.request import BuildRequest
from matchrt.families import registry


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line."""
    monkeypatch.setattr(registry, "FAMILIES", {**registry.FAMILIES, "toy": "support.toy.family:TOY"})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Random filters whose inputs' means cancel out: what is left tells patches of texture apart."""
    generator = torch.Generator().manual_seed(0)
    state = Toy(ToyConfig()).state_dict()
    for layer, axes in (("stem", (2, 3)), ("body", (1,))):
        weight = torch.randn(state[f"{layer}.weight"].shape, generator=generator)
        state[f"{layer}.weight"] = weight - weight.mean(dim=axes, keepdim=True)
        state[f"{layer}.bias"].zero_()
    path = tmp_path / "toy.ckpt"
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A list of pairs that are shifted by whole cells."""
    lines = []
    for seed in range(2):
        names = [tmp_path / f"{seed}{side}.png" for side in "ab"]
        for name, image in zip(names, shifted_pair(128, 160, (16, 8), seed), strict=True):
            cv2.imwrite(str(name), image)
        lines.append(" ".join(str(name) for name in names))
    path = tmp_path / "pairs.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_a_family_of_two_files_goes_through_everything(
    cli: CommandLine, tmp_path: Path, checkpoint: Path, pairs: Path
) -> None:
    store = ("--store", tmp_path / "store")
    build = ("build", "toy-8", "--checkpoint", checkpoint, "--max-matches", 256, *store)
    engines = {}
    for precision in ("fp32", "fp16", "int8"):
        more = ("--calibration", pairs, "--calibration-method", "max") if precision == "int8" else ()
        ran = cli(*build, "--precision", precision, *more, "--json")
        assert ran.code == 0, ran.err
        engines[precision] = Path(ran.json["path"])
        assert ran.json["manifest"]["family"] == "toy" and ran.json["manifest"]["checks"]["parity_matches"] > 50
        if precision != "fp32":
            assert ran.json["manifest"]["checks"]["precision_kept"] >= 0.95
    _matches(cli, engines, tmp_path)
    _inspects(cli, engines, checkpoint)

    ran = cli("verify", engines["int8"], "--pairs", pairs, *store, "--gate", "--json")
    assert ran.code == 0, ran.err
    ran = cli("bench", *engines.values(), "--pairs", tmp_path / "0a.png", tmp_path / "0b.png", "--runs", 2, "--json")
    assert ran.code == 0 and "toy-8" in ran.out, ran.err
    ran = cli("diagnose", checkpoint, "--model", "toy-8", "--json")
    assert ran.code == 0 and ran.json["explained"] and ran.json["prefix"] == "module."
    assert cli("diagnose", checkpoint, "--model", "loftr-outdoor", "--json").json["closest"] == "toy-8"
    assert "toy-8" in {row["name"] for row in cli("models", "--json").json}


def _matches(cli: CommandLine, engines: dict[str, Path], folder: Path) -> None:
    """The shift is found, in every precision."""
    for engine in engines.values():
        ran = cli("match", folder / "0a.png", folder / "0b.png", "--engine", engine, "--save", folder / "m.npz")
        assert ran.code == 0, ran.err
        import numpy as np

        found = np.load(folder / "m.npz")
        moved = found["keypoints0"] - found["keypoints1"]
        assert len(moved) > 100 and (np.abs(moved - (16, 8)).max(axis=1) < 1).mean() > 0.95


def _inspects(cli: CommandLine, engines: dict[str, Path], checkpoint: Path) -> None:
    found = cli("inspect", checkpoint, "--json").json
    assert found["models"] == ["toy-8"] and found["problems"] == []
    types = {precision: cli("inspect", engine, "--layers", "--json").json for precision, engine in engines.items()}
    assert {kind["kind"] for kind in types.values()} == {"engine"}


def test_refusals_name_what_a_family_lacks(cli: CommandLine, toy: None, checkpoint: Path, tmp_path: Path) -> None:
    build = ("build", "toy-8", "--checkpoint", checkpoint, "--store", tmp_path / "store")
    for option in (("--preset", "fast"), ("--coarse", "112"), ("--single-pass",), ("--dense",)):
        assert "RoMa" in cli.fails("option-model", *build, *option).err
    cli.fails("dinov2-unused", *build, "--second-file", checkpoint)
    cli.fails("flax-model", "verify", "--flax", "toy-8")


def test_the_general_request_knows_no_family() -> None:
    names = " ".join(field.name for field in fields(BuildRequest))
    for word in ("roma", "dinov2", "coarse", "single_pass", "loftr"):
        assert word not in names
