"""What docs/contributing/add-weights.md says: one `ModelSpec` in a family's file adds weights to a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.commands import CommandLine
from support.pictures import texture
from support.weights import coarse_loftr_state

from matchrt import Matcher
from matchrt.families import loftr
from matchrt.families.definition import ModelSpec
from matchrt.families.keymap import Drop, Keep, KeyMap, Rename
from matchrt.manifest import manifest_path, read_manifest

# The file names the transformer in its own way, and holds a tensor of the training.
AERIAL_KEYS = KeyMap(
    (
        *(rule for rule in loftr.COARSE_LOFTR_KEYS.rules if rule != Keep("loftr_coarse.layers.**")),
        Rename("coarse_transformer.**", "loftr_coarse."),
        Drop("loss.**", "part of training"),
    )
)
AERIAL = ModelSpec(
    name="coarse-aerial",
    family=loftr.LoFTRFamily(loftr.COARSE_LOFTR),
    key_map=AERIAL_KEYS,
    preprocess=loftr.COARSE_LOFTR_INPUT,
    height=192,
    width=256,
    licence="CC-BY-4.0",
    origin="aerial.ckpt from the authors' page",
    description="coarse LoFTR trained on aerial photographs",
)


@pytest.fixture
def aerial_file(tmp_path: Path) -> Path:
    """The weights of the fixture `coarse_checkpoint` as their publisher might name them."""
    tensors = {
        key.replace("loftr_coarse.", "coarse_transformer."): value for key, value in coarse_loftr_state().items()
    }
    path = tmp_path / "aerial.ckpt"
    torch.save({"state_dict": {**tensors, "loss.weight": torch.ones(3)}}, path)
    return path


@pytest.fixture
def with_aerial(monkeypatch: pytest.MonkeyPatch) -> None:
    family = loftr.LOFTR_FAMILY
    monkeypatch.setattr(loftr, "LOFTR_FAMILY", replace(family, models=(*family.models, AERIAL)))


def test_without_the_spec_the_file_is_refused(cli: CommandLine, aerial_file: Path) -> None:
    cli.fails("model-unknown", "build", "coarse-aerial", "--checkpoint", aerial_file)
    ran = cli("diagnose", aerial_file, "--model", "coarse-loftr", "--json")
    assert ran.code == 2 and not ran.json["explained"] and ran.json["fits"] == []


@pytest.mark.usefixtures("with_aerial")
def test_one_spec_and_every_command_knows_the_model(cli: CommandLine, aerial_file: Path) -> None:
    listed = {entry["name"]: entry for entry in cli("models", "--json").json}
    assert listed["coarse-aerial"]["licence"] == "CC-BY-4.0" and list(listed).index("coarse-aerial") == 6
    assert "coarse-aerial" in cli("inspect", aerial_file).out
    ran = cli("diagnose", aerial_file, "--model", "coarse-aerial", "--json")
    assert ran.code == 0 and ran.json["explained"] and ran.json["fits"] == ["coarse-aerial"]
    assert ran.json["counts"]["file"] == {"loaded": 161, "dropped": 5}


@pytest.mark.slow
@pytest.mark.usefixtures("with_aerial")
def test_the_engine_matches_as_these_weights_do(
    cli: CommandLine, aerial_file: Path, coarse_engine: Path, tmp_path: Path
) -> None:
    path = tmp_path / "aerial.onnx"
    ran = cli(
        "build", "coarse-aerial", "--checkpoint", aerial_file, "--max-matches", "256", "--store", tmp_path / "store",
        "--output", path,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    manifest = read_manifest(manifest_path(path))
    assert (manifest.model, manifest.family, manifest.source.licence) == ("coarse-aerial", "loftr", "CC-BY-4.0")
    assert (manifest.input.height, manifest.input.width) == (192, 256)
    image = texture(192, 256)
    pair = image, np.roll(image, 16, axis=1)
    with Matcher(path) as ours, Matcher(coarse_engine) as same_weights:
        found, expected = ours.match(*pair), same_weights.match(*pair)
    assert len(found) > 0 and found.provenance.model == "coarse-aerial"
    assert np.array_equal(found.keypoints1, expected.keypoints1) and np.array_equal(found.scores, expected.scores)
