"""RoMa's two files: every tensor accounted for, whatever the naming, and nothing wrong taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.roma import TINY, register_tiny, roma_files, roma_state
from torch import Tensor

from matchrt.errors import MatchRTError
from matchrt.export.weights.diagnose import diagnose
from matchrt.export.weights.network import account_files, expected_tensors, load_network
from matchrt.export.weights.read import Checkpoint, digest_tensors
from matchrt.export.weights.report import LoadReport
from matchrt.families.definition import ModelSpec
from matchrt.families.dinov2 import recognise, translate
from matchrt.families.registry import get_spec
from matchrt.families.roma import ROMA, RoMaFamily
from matchrt.models.roma.config import DINOv2Config

State = dict[str, Tensor]


def _tiny(name: str = "matchanything-roma") -> ModelSpec:
    return replace(get_spec(name), family=RoMaFamily(TINY))


def _file(tensors: State, name: str = "x.ckpt") -> Checkpoint:
    return Checkpoint(Path(name), "torch", tensors, None, (), {}, "")


def _account(own: State, dinov2: State, spec: ModelSpec | None = None) -> tuple[State, LoadReport]:
    spec = spec or _tiny()
    return account_files(spec, expected_tensors(spec), _file(own), _file(dinov2, "dinov2.pth"))


@pytest.fixture(scope="module")
def state() -> State:
    return roma_state()


def chunked(dinov2: State, chunks: int = 2) -> State:
    """As DINOv2's own training code names blocks: `blocks.1.6` is block 6, in chunk 1."""
    depth = TINY.dinov2.depth
    result = {}
    for key, value in dinov2.items():
        names = key.split(".")
        if names[0] == "blocks":
            names.insert(1, str(int(names[1]) * chunks // depth))
        result[".".join(names)] = value
    return result


def hugging_face(dinov2: State) -> State:
    """As transformers' Dinov2Model names them; query, key and value apart."""
    result: State = {}
    for name, theirs in recognise(["embeddings.cls_token"], TINY.dinov2).table.items():
        for key, part in zip(theirs, dinov2[name].chunk(len(theirs)), strict=True):
            result[key] = part
    return result


@pytest.mark.parametrize("prefix", ["", "matcher.model.", "model.", "module.", "_orig_mod.model.", "module.matcher."])
def test_every_tensor_has_its_fate(state: State, prefix: str) -> None:
    own, dinov2 = roma_files(state)
    loaded, report = _account({prefix + key: value for key, value in own.items()}, dinov2)
    assert report.complete and report.prefix == prefix
    assert report.counts() == {
        "file": {"loaded": len(own)},
        "supplement": {"loaded": len(dinov2) - 1, "dropped": 1},
        "network": {"loaded": len(own), "supplemented": len(dinov2) - 1},
    }
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("convert", "derived"),
    [
        (lambda d: {k: v for k, v in d.items() if k != "mask_token"}, 0),  # timm
        (lambda d: {f"module.{k}": v for k, v in d.items()}, 0),
        (chunked, 0),
        (hugging_face, 3 * 2 * TINY.dinov2.depth),
        (lambda d: {f"dinov2.{k}": v for k, v in hugging_face(d).items()}, 3 * 2 * TINY.dinov2.depth),
    ],
)
def test_namings_of_dinov2(state: State, convert: Callable[[State], State], derived: int) -> None:
    own, dinov2 = roma_files(state)
    other = convert(dinov2)
    loaded, report = _account(own, other)
    assert report.complete and len(report.supplement) == len(other)
    assert report.counts()["supplement"].get("derived", 0) == derived
    assert {e.key for e in report.supplement} == set(other)
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def _under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


HEAD = {"dino_head.mlp.0.weight": torch.ones(3, 3), "dino_head.last_layer.weight": torch.ones(3)}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda d: _under("teacher.", _under("backbone.", d) | HEAD),
        lambda d: _under("backbone._orig_mod.", chunked(d)) | HEAD,
        lambda d: _under("dinov2.", hugging_face(d)) | {"classifier.weight": torch.ones(3)},
        lambda d: _under("model.visual.", {k.replace("blocks.1", "blocks.1.module"): v for k, v in d.items()}) | HEAD,
    ],
)
def test_neighbours_do_not_hide_dinov2(state: State, wrap: Callable[[State], State]) -> None:
    own, dinov2 = roma_files(state)
    file = wrap(dinov2)
    loaded, report = _account(own, file)
    assert report.complete and all(torch.equal(loaded[key], state[key]) for key in state)
    assert {e.key for e in report.supplement} == set(file)
    assert report.counts()["supplement"]["neighbour"] == sum("head" in key or "classifier" in key for key in file)
    for key in [key for key in file if "norm" in key][::3]:
        _, report = _account(own, {k: v for k, v in file.items() if k != key} | {f"x{key}": file[key]})
        assert not report.complete


def test_two_dinov2_must_be_told_apart(state: State) -> None:
    own, dinov2 = roma_files(state)
    with pytest.raises(MatchRTError) as caught:
        _account(own, _under("student.backbone.", dinov2) | _under("teacher.backbone.", dinov2))
    assert caught.value.code == "checkpoint-ambiguous" and "--prefix" not in caught.value.remedy


def test_the_chunked_and_the_flat_naming_are_each_others_inverse(state: State) -> None:
    _, dinov2 = roma_files(state)
    there = chunked(dinov2)
    assert any(key.startswith("blocks.1.1.") for key in there)
    assert translate(there, TINY.dinov2).tensors.keys() == dinov2.keys()
    assert translate(dinov2, TINY.dinov2).tensors.keys() == dinov2.keys()


def test_a_position_embedding_of_another_grid_is_resampled_and_said_so(state: State) -> None:
    own, dinov2 = roma_files(state)
    dinov2["pos_embed"] = torch.randn(1, 16 * 16 + 1, TINY.dinov2.dim)
    loaded, report = _account(own, dinov2)
    entry = next(e for e in report.supplement if e.key == "pos_embed")
    assert report.complete and entry.fate == "derived" and "16x16" in entry.detail
    assert loaded["dinov2.pos_embed"].shape == state["dinov2.pos_embed"].shape


def _meta(entries: list[dict[str, Any]]) -> State:
    return {e["key"]: torch.empty(e["shape"], dtype=getattr(torch, e["dtype"]), device="meta") for e in entries}


@pytest.mark.parametrize("second", ["dinov2_vitl14", "timm_vit_large_patch14_dinov2_lvd142m"])
@pytest.mark.parametrize(
    ("model", "manifest"), [("matchanything-roma", "matchanything_roma"), ("roma-outdoor", "roma_outdoor")]
)
def test_official_manifests_are_accounted_for(shared: Path, model: str, manifest: str, second: str) -> None:
    """603 of 603 and 343 of 343 (timm has no mask token: 342 of 342)."""
    own, dinov2 = (
        _meta(json.loads((shared / "manifests" / f"{n}.json").read_text())["tensors"]) for n in (manifest, second)
    )
    spec = get_spec(model)
    _, report = account_files(spec, expected_tensors(spec), _file(own), _file(dinov2))
    timm = second.startswith("timm")
    assert report.complete and len(report.file) == 603 and len(report.supplement) == (342 if timm else 343)
    assert report.counts() == {
        "file": {"loaded": 603},
        "supplement": {"loaded": 342} | ({} if timm else {"dropped": 1}),
        "network": {"loaded": 603, "supplemented": 342},
    }
    assert "mask_token" in {e.key for e in report.supplement if e.fate == "dropped"} or timm


def test_hugging_face_table_is_a_bijection_at_full_size() -> None:
    table = recognise(["encoder.layer.0.norm1.weight"], DINOv2Config()).table
    theirs = [key for keys in table.values() for key in keys]
    assert len(table) == 343 and len(theirs) == len(set(theirs)) == 343 + 2 * 2 * 24


# The three wrong mappings of converters that claimed success (FACTS, section 9).


def test_match_decoder_blocks_are_no_dinov2_blocks(state: State) -> None:
    """Shapes agree, meaning does not: filed under DINOv2's names they lack half of its tensors."""
    own, dinov2 = roma_files(state)
    decoder = {k.removeprefix("decoder.embedding_decoder."): v for k, v in own.items() if "embedding_decoder.bl" in k}
    for wrong in (own, decoder):
        _, report = _account(own, wrong)
        assert not report.complete
    rest = {k: v for k, v in dinov2.items() if not k.startswith("blocks.0.")}
    _, report = _account(own, {**rest, **decoder})
    assert {e.key for e in report.network if e.fate in ("missing", "shape-mismatched")} >= {
        "dinov2.blocks.0.attn.qkv.bias", "dinov2.blocks.0.ls1.gamma", "dinov2.blocks.0.ls2.gamma"
    }  # fmt: skip


def test_the_checkpoint_is_no_source_of_dinov2(state: State) -> None:
    own, dinov2 = roma_files(state)
    _, report = _account({**own, **dinov2}, dinov2)
    assert {e.key for e in report.problems} == set(dinov2) and all(e.fate == "unexpected" for e in report.problems)


def test_names_are_never_matched_by_their_ends(state: State) -> None:
    own, dinov2 = roma_files(state)
    strange = {f"some.wrapper{i}.{key}": value for i, (key, value) in enumerate(own.items())}
    loaded, report = _account(strange, dinov2)
    assert {e.fate for e in report.file} == {"unexpected"}
    assert not any(key.startswith(("encoder", "decoder")) for key in loaded)


def test_one_tensor_fills_one_place(state: State) -> None:
    """No rule gives a tensor two targets; two tensors for one target are an error, not a choice."""
    own, dinov2 = roma_files(state)
    loaded, report = _account(own, {**dinov2, **chunked({k: v for k, v in dinov2.items() if k.startswith("blocks.0")})})
    assert not report.complete
    targets = [e.detail.split(" ")[0] for e in (*report.file, *report.supplement) if e.fate in ("loaded", "derived")]
    assert len(targets) == len(set(targets))
    only = {"decoder.gps.16.pos_conv.bias": own["decoder.gps.16.pos_conv.bias"]}
    loaded, report = _account(only, dinov2)
    assert [key for key in loaded if not key.startswith("dinov2.")] == list(only)


# 200 mutations: each is refused or reported by name.


@dataclass(frozen=True)
class Mutation:
    kind: str
    key: str
    state: State
    second: State


KINDS = ("rename", "drop", "duplicate", "reshape", "transpose", "dtype", "swap")


def _mutation(seed: int, own: State, dinov2: State) -> Mutation:
    generator = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    first, second = dict(own), dict(dinov2)
    target = first if generator.random() < 0.6 else second
    keys = [k for k in target if k != "mask_token" and target[k].is_floating_point()]
    if kind in ("reshape", "transpose"):
        keys = [k for k in keys if target[k].ndim > 1 and max(target[k].shape[:2]) > 1]
    key = str(generator.choice(keys))
    value = target[key]
    if kind == "rename":
        target[f"{key}_old" if generator.random() < 0.5 else key.replace(".", "_", 1) + "2"] = target.pop(key)
    elif kind == "drop":
        del target[key]
    elif kind == "duplicate":
        target[f"copy.{key}"] = value.clone()
    elif kind == "reshape":
        target[key] = value.reshape(-1)
    elif kind == "transpose":
        target[key] = value.transpose(0, 1).contiguous()
    elif kind == "dtype":
        target[key] = value.to(torch.float16 if generator.random() < 0.5 else torch.int32)
    else:
        twins = [k for k in keys if k != key and target[k].shape == value.shape]
        key = key if twins else "decoder.proj.8.1.weight"
        other = str(generator.choice(twins)) if twins else "decoder.proj.8.1.bias"
        target = target if twins else first
        target[key], target[other] = target[other], target[key]
    return Mutation(kind, key, first, second)


def _digest(own: State, dinov2: State) -> str:
    return digest_tensors(own) + digest_tensors(dinov2)


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_mutations_are_refused_or_reported(state: State, start: int) -> None:
    own, dinov2 = roma_files(state)
    spec = _tiny()
    expected = expected_tensors(spec)
    digest = _digest(own, dinov2)
    for seed in range(start, start + 50):
        mutation = _mutation(seed, own, dinov2)
        _, report = account_files(spec, expected, _file(mutation.state), _file(mutation.second))
        named = [e for e in (*report.file, *report.supplement, *report.network) if mutation.key in e.key]
        if mutation.kind == "dtype" and any("converted from float16" in e.detail for e in named):
            continue  # taken, and said so
        same_shape = report.complete and mutation.kind in ("swap", "transpose")
        # Names and shapes cannot tell tensors of equal shape apart: there the digest does.
        assert same_shape or (not report.complete and any(e in report.problems for e in named)), (seed, mutation.kind)
        assert _digest(mutation.state, mutation.second) != digest, (seed, mutation.kind)


def _save(folder: Path, own: State, dinov2: State) -> tuple[Path, Path]:
    torch.save({"state_dict": {f"matcher.model.{k}": v for k, v in own.items()}}, folder / "ma.ckpt")
    torch.save(dinov2, folder / "dinov2.pth")
    return folder / "ma.ckpt", folder / "dinov2.pth"


def test_loading_takes_both_files(tmp_path: Path, state: State) -> None:
    checkpoint, dinov2 = _save(tmp_path, *roma_files(state))
    loaded = load_network(_tiny(), checkpoint, second_file=dinov2)
    network = loaded.network.state_dict()
    assert all(torch.equal(network[key], value) for key, value in state.items())
    assert loaded.weights_sha256 not in (loaded.checkpoint.tensors_sha256, "")
    with pytest.raises(MatchRTError, match="second file") as caught:
        load_network(_tiny(), checkpoint)
    assert caught.value.code == "dinov2-needed"
    with pytest.raises(MatchRTError) as caught:
        load_network(get_spec("loftr-lite"), None, second_file=dinov2)
    assert caught.value.code == "dinov2-unused"


def test_a_digest_that_was_asked_for_is_checked(tmp_path: Path, state: State) -> None:
    own, second = roma_files(state)
    checkpoint, dinov2 = _save(tmp_path, own, second)
    known = load_network(_tiny(), checkpoint, second_file=dinov2).weights_sha256
    load_network(_tiny(), checkpoint, second_file=dinov2, sha256=known)
    for a, b in (("blocks.0.norm1.weight", "blocks.1.norm1.weight"),):
        second[a], second[b] = second[b], second[a]
    _save(tmp_path, own, second)
    with pytest.raises(MatchRTError) as caught:
        load_network(_tiny(), checkpoint, second_file=dinov2, sha256=known)
    assert caught.value.code == "checkpoint-digest"


@pytest.fixture
def tiny_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)


@pytest.mark.usefixtures("tiny_registry")
def test_diagnosis_of_good_files(tmp_path: Path, state: State) -> None:
    own, second = roma_files(state)
    checkpoint, dinov2 = _save(tmp_path, own, second)
    found = diagnose(checkpoint, "matchanything-roma", dinov2)
    assert found.explained and not found.near_misses and not found.repeated
    assert sum(part.total for part in found.file_parts) == len(own)
    assert found.next_command.startswith("matchrt build matchanything-roma")
    alone = diagnose(checkpoint, "matchanything-roma")
    assert alone.state == "second-file-needed" and not alone.explained and "--dinov2" in alone.next_command


@pytest.mark.usefixtures("tiny_registry")
def test_diagnosis_of_the_wrong_family(tmp_path: Path, state: State, coarse_checkpoint: Path) -> None:
    found = diagnose(coarse_checkpoint, "matchanything-roma")
    assert found.state == "another-model" and found.fits == ("coarse-loftr",) and "coarse-loftr" in found.verdict
    checkpoint, _ = _save(tmp_path, *roma_files(state))
    found = diagnose(checkpoint, "loftr-outdoor")
    assert found.state == "another-model" and "matchanything-roma" in found.fits


@pytest.mark.usefixtures("tiny_registry")
def test_diagnosis_names_near_misses_and_their_rules(tmp_path: Path, state: State) -> None:
    own, second = roma_files(state)
    own["wrapped.decoder.proj.8.0.weight"] = own.pop("decoder.proj.8.0.weight")
    own["decoder.proj.four.0.bias"] = own.pop("decoder.proj.4.0.bias")
    own["decoder.proj.2.0.weigth"] = own.pop("decoder.proj.2.0.weight").transpose(0, 1)
    own["decoder.proj.1.0.weight"] = own["decoder.proj.1.0.weight"].reshape(-1)
    torch.save(own, tmp_path / "x.ckpt")
    torch.save(second, tmp_path / "d.pth")
    found = diagnose(tmp_path / "x.ckpt", "matchanything-roma", tmp_path / "d.pth")
    rules = {miss.network: miss.rule for miss in found.near_misses}
    assert found.state == "incomplete"
    assert "strip the prefix 'wrapped.'" in rules["decoder.proj.8.0.weight"]
    assert "'four' to '4'" in rules["decoder.proj.4.0.bias"]
    assert "transpose" in rules["decoder.proj.2.0.weight"] or "rename" in rules["decoder.proj.2.0.weight"]
    assert [e.key for e in found.conflicts] == ["decoder.proj.1.0.weight"]


@pytest.mark.usefixtures("tiny_registry")
def test_diagnosis_sees_one_tensor_in_many_places(tmp_path: Path, state: State) -> None:
    own, second = roma_files(state)
    for block in range(TINY.dinov2.depth):
        second[f"blocks.{block}.norm1.bias"] = second["blocks.0.norm2.bias"].clone()
    checkpoint, dinov2 = _save(tmp_path, own, second)
    found = diagnose(checkpoint, "matchanything-roma", dinov2)
    assert found.state == "repeated" and len(found.repeated[0]) == TINY.dinov2.depth + 1
    assert load_network(_tiny(), checkpoint, second_file=dinov2).report.complete  # names and shapes do fit


@pytest.mark.usefixtures("tiny_registry")
def test_diagnose_command(tmp_path: Path, state: State, cli: Any) -> None:
    checkpoint, dinov2 = _save(tmp_path, *roma_files(state))
    page = tmp_path / "report.html"
    arguments = ("diagnose", checkpoint, "--model", "matchanything-roma", "--dinov2", dinov2)
    ran = cli(*arguments, "--html", page)
    assert ran.code == 0 and "Every tensor is explained" in ran.out
    assert "decoder.conv_refiner" in page.read_text() and "class='bar'" in page.read_text()
    document = cli(*arguments, "--json").json
    assert document["explained"] and len(document["tensors"]["checkpoint"]) == len(roma_files(state)[0])
    ran = cli("diagnose", checkpoint, "--model", "loftr-outdoor")
    assert ran.code == 2 and "matchanything-roma" in ran.out.replace("\n", "")


def test_full_configuration_is_the_published_one() -> None:
    assert [ROMA.refiner(s).channels for s in (16, 8, 4, 2, 1)] == [1377, 1137, 569, 144, 24]
