"""RoMa v2's file: every tensor accounted for, nothing wrong taken, and older weights told from newer ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.commands import CommandLine
from support.romav2 import TINY_SPEC, register_tiny, romav2_file, romav2_state
from torch import Tensor

from matchrt._util.digest import sha256_file
from matchrt.errors import MatchRTError
from matchrt.export.weights.diagnose import diagnose
from matchrt.export.weights.network import account_files, expected_tensors, load_network
from matchrt.export.weights.read import Checkpoint, digest_tensors
from matchrt.export.weights.report import Entry, LoadReport
from matchrt.families.keymap import RejectedPartsError
from matchrt.families.registry import get_spec
from matchrt.families.romav2 import ROMAV2_KEYS, mask_bias
from matchrt.models.romav2.rotary import periods

State = dict[str, Tensor]


def _account(tensors: State) -> tuple[State, LoadReport]:
    file = Checkpoint(Path("x.pt"), "torch", tensors, None, (), {}, "")
    return account_files(TINY_SPEC, expected_tensors(TINY_SPEC), file)


@pytest.fixture(scope="module")
def state() -> State:
    return romav2_state()


@pytest.fixture(scope="module")
def file(state: State) -> State:
    return romav2_file(state)


def test_every_tensor_of_the_published_file_has_its_fate(shared: Path) -> None:
    """907 tensors: 776 loaded, 36 fused into 18, 91 of parts that nothing depends on, 4 constants."""
    manifest = json.loads((shared / "manifests" / "romav2.json").read_text())["tensors"]
    constants = {"matcher.temp": torch.tensor(0.1), "matcher.scale": torch.tensor(1)}
    tensors = {}
    for entry in manifest:
        kind = getattr(torch, entry["dtype"])
        value = torch.empty(entry["shape"], dtype=kind, device="meta")
        if entry["key"].endswith("periods"):
            value = periods(64)
        if entry["key"].endswith(("qkv.bias", "qkv.bias_mask")):  # zeros, as in the published file
            value = torch.zeros(entry["shape"], dtype=kind)
        tensors[entry["key"]] = constants.get(entry["key"], value)
    spec = get_spec("romav2")
    file = Checkpoint(Path("x.pt"), "torch", tensors, None, (), {}, "")
    _, report = account_files(spec, expected_tensors(spec), file)
    assert report.complete and len(report.file) == len(manifest) == 907
    assert report.counts() == {
        "file": {"loaded": 776, "derived": 36, "dropped": 95},
        "network": {"loaded": 776, "derived": 18},
    }
    dropped = {e.key: e.detail for e in report.file if e.fate == "dropped"}
    assert len([key for key in dropped if key.startswith("f.blocks.")]) == 90 and all(dropped.values())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.model.", "network."])
def test_a_files_tensors_become_the_networks(state: State, file: State, prefix: str) -> None:
    loaded, report = _account({prefix + key: value for key, value in file.items()})
    assert report.complete and report.prefix == prefix and report.difference == 0.0
    assert loaded.keys() == state.keys()
    for key, value in state.items():
        expected = value.bfloat16().float() if key.startswith("f.") else value
        if key.endswith("qkv.bias") and key.startswith("f."):
            expected = expected * file[f"{key}_mask"].float()
            assert not loaded[key].chunk(3)[1].any()
        assert torch.equal(loaded[key].float(), expected.float()), key


def test_each_key_has_one_rule() -> None:
    manifest = [*romav2_file(romav2_state())]
    assert all(len(TINY_SPEC.key_map.claims(key)) == 1 for key in manifest)
    assert all(len(ROMAV2_KEYS.claims(f"f.blocks.{block}.norm1.weight")) == 1 for block in range(24))


def test_masks_that_are_not_dinov3s_are_refused(file: State) -> None:
    key = "f.blocks.1.attn.qkv.bias_mask"
    for mask, what in ((torch.ones(192), "keys"), (file[key].float() * 0.5, "other values than 0 and 1")):
        _, report = _account({**file, key: mask})
        said = [e for e in report.problems if e.key == key]
        assert said and said[0].fate == "rejected" and what in said[0].detail
    with pytest.raises(ValueError, match="a mask of"):
        mask_bias({"bias": torch.zeros(6), "mask": torch.zeros(7)})
    with pytest.raises(RejectedPartsError):
        mask_bias({"bias": torch.zeros(6), "mask": torch.full((6,), float("nan"))})
    _, report = _account({k: v for k, v in file.items() if k != key})
    assert not report.complete and any("lacks f.blocks.1.attn.qkv.bias_mask" in e.detail for e in report.problems)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("matcher.temp", torch.tensor(0.2)),
        ("matcher.scale", torch.tensor(2)),
        ("matcher.temp", torch.full((2,), 0.1)),
        ("f.rope_embed.periods", periods(64) * 1.01),
        ("matcher.mv_vit.rope_embed.periods", periods(32)),
        ("matcher.mv_vit.rope_embed.periods", torch.tensor(1.0)),
    ],
)
def test_other_constants_are_refused(file: State, key: str, value: Tensor) -> None:
    _, report = _account({**file, key: value})
    assert [(e.key, e.fate) for e in report.problems] == [(key, "rejected")]


KINDS = ("rename", "drop", "duplicate", "reshape", "transpose", "dtype", "swap")


def _mutated(seed: int, file: State) -> tuple[str, str, State]:
    generator = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    result = dict(file)
    unused = ("f.mask_token", *(f"f.blocks.{block}." for block in range(3, 24)))
    keys = [k for k in file if not k.startswith(unused) and file[k].is_floating_point() and file[k].ndim]
    if kind in ("reshape", "transpose"):
        keys = [k for k in keys if file[k].ndim > 1 and max(file[k].shape[:2]) > 1]
    key = str(generator.choice(keys))
    if kind == "rename":
        result[f"{key}_old"] = result.pop(key)
    elif kind == "drop":
        del result[key]
    elif kind == "duplicate":
        result[f"copy.{key}"] = file[key].clone()
    elif kind == "reshape":
        result[key] = file[key].reshape(-1)
    elif kind == "transpose":
        result[key] = file[key].transpose(0, 1).contiguous()
    elif kind == "dtype":
        result[key] = file[key].to(torch.int32)
    else:
        twins = [
            k for k in keys if k != key and file[k].shape == file[key].shape and not torch.equal(file[k], file[key])
        ]
        other = str(generator.choice(twins)) if twins else "refiners.2.warp_head.bias"
        result[key], result[other] = file[other], file[key]
    return kind, key, result


@pytest.mark.parametrize("start", range(0, 210, 70))
def test_mutations_are_refused_or_reported(file: State, start: int) -> None:
    digest = digest_tensors(file)
    constants = ("periods", "temp", "scale")
    for seed in range(start, start + 70):
        kind, key, mutated = _mutated(seed, file)
        _, report = _account(mutated)
        named: list[Entry] = [e for e in (*report.file, *report.network) if key.removesuffix("_mask") in e.key]
        # Names and shapes cannot tell tensors of equal shape apart: there the digest does. A constant that is missing
        # is computed.
        silent = (report.complete and kind in ("swap", "transpose")) or (kind == "drop" and key.endswith(constants))
        assert silent or (not report.complete and any(e in report.problems for e in named)), (seed, kind, key)
        assert digest_tensors(mutated) != digest, (seed, kind, key)


@pytest.fixture
def saved(tmp_path: Path, file: State, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    register_tiny(monkeypatch)
    torch.save(file, tmp_path / "romav2.pt")
    yield tmp_path / "romav2.pt"


def test_a_file_that_is_not_the_published_one_is_said_so(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2.0.0 has the same names and shapes: only the digest tells."""
    loaded = load_network(TINY_SPEC, saved, size=(64, 64))
    assert len(loaded.notes) == 1 and "2.0.0" in loaded.notes[0] and sha256_file(saved) in loaded.notes[0]
    assert diagnose(saved, "romav2").notes == loaded.notes
    known = replace(TINY_SPEC.published[0], sha256=sha256_file(saved))
    assert load_network(replace(TINY_SPEC, published=(known,)), saved, size=(64, 64)).notes == ()


def test_diagnosis_of_a_good_file(saved: Path, cli: CommandLine) -> None:
    found = diagnose(saved, "romav2")
    assert found.explained and not found.repeated and found.fits[0] == "romav2"
    assert any("bias_mask" in key for group in found.tied for key in group)
    ran = cli("inspect", saved)
    assert ran.code == 0 and "romav2" in ran.out and "2.0.0" in ran.out.replace("\n", " ")


def test_the_digest_of_swapped_tensors_is_refused(saved: Path, file: State) -> None:
    known = load_network(TINY_SPEC, saved, size=(64, 64)).weights_sha256
    a, b = "refiners.4.hidden_blocks.0.norm.weight", "refiners.4.hidden_blocks.1.norm.weight"
    torch.save({**file, a: file[b], b: file[a]}, saved)
    with pytest.raises(MatchRTError) as caught:
        load_network(TINY_SPEC, saved, size=(64, 64), sha256=known)
    assert caught.value.code == "checkpoint-digest"
