"""Training checkpoints of the published sizes, of every family: read whole, with a complete report."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.eloftr import manifest_state
from support.mutants import mutant
from support.training_files import STYLES

from matchrt.errors import MatchRTError
from matchrt.export.weights.network import account_files, checkpoint_path, expected_tensors
from matchrt.export.weights.read import digest_tensors, read_checkpoint, read_stored
from matchrt.families.registry import get_spec

pytestmark = pytest.mark.slow
FILES = {
    "loftr-outdoor": "loftr_outdoor_ds",
    "loftr-indoor": "loftr_indoor_ds",
    "eloftr": "eloftr_outdoor",
    "matchanything-eloftr": "matchanything_eloftr",
    "roma-outdoor": "roma_outdoor",
    "matchanything-roma": "matchanything_roma",
}
ROMA = ("roma-outdoor", "matchanything-roma")


@pytest.fixture(scope="module")
def dinov2(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dinov2") / "dinov2_vitl14_pretrain.pth"
    torch.save(manifest_state(shared, "dinov2_vitl14"), path)
    return path


@pytest.mark.parametrize("model", FILES)
def test_every_family_in_every_style(shared: Path, tmp_path: Path, dinov2: Path, model: str) -> None:
    spec, state, path = get_spec(model), manifest_state(shared, FILES[model]), tmp_path / "x.ckpt"
    digest = digest_tensors(state)
    second = read_checkpoint(dinov2) if model in ROMA else None
    for style, write in STYLES.items():
        aside = write(state, path)
        found = read_checkpoint(path)
        assert found.tensors_sha256 == digest, style
        assert {entry.name: entry.objects for entry in found.put_aside} == aside, style
        _, report = account_files(spec, expected_tensors(spec), found, second)
        assert report.complete, (style, report.summary())


def test_a_thousand_mutants_of_the_bundled_model(tmp_path: Path) -> None:
    """As test_mutants.py does, with weights of a real size and many more of them."""
    state = dict(read_checkpoint(checkpoint_path(get_spec("loftr-lite"), None)).tensors)
    digest, equal = digest_tensors(state), 0
    for style, write in STYLES.items():
        write(state, tmp_path / "x.ckpt")
        whole = (tmp_path / "x.ckpt").read_bytes()
        for seed in range(250):
            what, data = mutant(whole, seed)
            (tmp_path / "y.ckpt").write_bytes(data)
            try:
                found = read_stored(tmp_path / "y.ckpt")
            except MatchRTError as error:
                assert error.code.startswith("checkpoint-"), (style, seed, what)
                continue
            assert found.tensors_sha256 == digest, (style, seed, what)
            equal += 1
    assert 200 < equal < 800
