"""Key maps and the account of every tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.weights import coarse_loftr_state, sharp_state

from matchrt.errors import InternalError, MatchRTError
from matchrt.export.weights.account import account, fill
from matchrt.export.weights.network import expected_tensors, fitting_models, load_network
from matchrt.families.keymap import Drop, Keep, KeyMap, Rename, matches
from matchrt.families.loftr import COARSE_LOFTR, LOFTR_OUTDOOR
from matchrt.families.registry import get_spec, model_specs
from matchrt.models.loftr.network import LoFTR
from matchrt.models.loftr.position import sine_encoding, sine_frequencies


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.**", "a.b.c", True),
        ("a.**", "a", False),
        ("a.layer[1-3].w", "a.layer2.w", True),
        ("a.layer[1-3].w", "a.layer4.w", False),
        ("a.layer[1-3].**", "a.layer3_outconv.w", False),
    ],
)
def test_patterns(pattern: str, key: str, expected: bool) -> None:
    assert matches(pattern, key) is expected


def _account(tensors: dict[str, torch.Tensor], rules: tuple[Any, ...], expected: dict[str, tuple[int, ...]]) -> Any:
    return account(tensors, {key: torch.empty(shape) for key, shape in expected.items()}, KeyMap(rules), "model")


def test_rename_and_drop() -> None:
    tensors = {"old.x.w": torch.ones(2), "extra.y": torch.ones(3)}
    state, report = _account(tensors, (Rename("old.**", "new."), Drop("extra.*", "unused")), {"new.x.w": (2,)})
    assert report.complete and list(state) == ["new.x.w"]
    assert [(e.fate, e.detail) for e in report.file] == [("loaded", "new.x.w"), ("dropped", "unused")]
    assert report.network[0].detail == "old.x.w"


def test_two_keys_for_one_tensor() -> None:
    tensors = {"a": torch.ones(2), "b": torch.zeros(2)}
    _, report = _account(tensors, (Keep("a"), Rename("b", "a")), {"a": (2,)})
    assert [e.fate for e in report.file] == ["loaded", "duplicated"] and not report.complete


def test_two_rules_for_one_key_are_our_mistake() -> None:
    with pytest.raises(InternalError, match="claimed by"):
        _account({"a.b": torch.ones(1)}, (Keep("a.*"), Keep("a.b")), {"a.b": (1,)})


@pytest.mark.parametrize("prefix", ["", "matcher.", "module.matcher.", "_orig_mod.module.", "model."])
def test_prefixes_are_found(prefix: str) -> None:
    spec = get_spec("coarse-loftr")
    tensors = {prefix + key: value for key, value in coarse_loftr_state().items()}
    _, report = account(tensors, expected_tensors(spec), spec.key_map, spec.name)
    assert report.prefix == prefix and report.complete
    assert report.counts() == {"file": {"loaded": 161, "dropped": 4}, "network": {"loaded": 161}}


def test_half_precision_weights_load(tmp_path: Path) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in coarse_loftr_state().items()}
    torch.save(state, tmp_path / "half.pt")
    loaded = load_network(get_spec("coarse-loftr"), tmp_path / "half.pt")
    weight = loaded.network.state_dict()["backbone.conv1.weight"]
    assert weight.dtype == torch.float32 and torch.equal(weight, state["backbone.conv1.weight"].float())


def _damage(kind: str, state: dict[str, torch.Tensor]) -> str:
    """Damages the state; returns the key that the error must name."""
    key = "loftr_coarse.layers.2.merge.weight"
    if kind == "renamed":
        state["loftr_coarse.layers.2.fusion.weight"] = state.pop(key)
        return "loftr_coarse.layers.2.fusion.weight"
    if kind == "missing":
        del state[key]
    elif kind == "extra":
        state["head.weight"] = torch.ones(2)
        return "head.weight"
    elif kind == "reshaped":
        state[key] = state[key].reshape(16, 64)
    else:
        state["coarse_matching.bin_score"] = torch.tensor(1.0)
        return "optimal-transport"
    return key


@pytest.mark.parametrize("kind", ["renamed", "missing", "extra", "reshaped", "optimal-transport"])
def test_damage_is_an_error_that_lists_it(tmp_path: Path, kind: str) -> None:
    state = coarse_loftr_state()
    key = _damage(kind, state)
    torch.save({"state_dict": state}, tmp_path / "x.ckpt")
    with pytest.raises(MatchRTError) as caught:
        load_network(get_spec("coarse-loftr"), tmp_path / "x.ckpt")
    assert caught.value.code == "weights-unaccounted" and key in caught.value.message


def test_allow_missing_names_what_it_allows(tmp_path: Path) -> None:
    state = coarse_loftr_state()
    del state["loftr_coarse.layers.2.merge.weight"]
    torch.save(state, tmp_path / "x.ckpt")
    spec = get_spec("coarse-loftr")
    loaded = load_network(spec, tmp_path / "x.ckpt", allow_missing=["loftr_coarse.layers.2.merge.*"])
    assert loaded.report.counts()["network"] == {"loaded": 160, "allowed-missing": 1}
    twin = load_network(spec, tmp_path / "x.ckpt", allow_missing=["loftr_coarse.layers.2.merge.*"])
    key = "loftr_coarse.layers.2.merge.weight"
    assert torch.equal(loaded.network.state_dict()[key], twin.network.state_dict()[key])
    with pytest.raises(MatchRTError) as caught:
        load_network(spec, tmp_path / "x.ckpt", allow_missing=["loftr_coarse.layers.3.*"])
    assert caught.value.code == "allow-missing-unused"
    with pytest.raises(MatchRTError, match="unexplained"):
        load_network(spec, tmp_path / "x.ckpt")


@pytest.mark.parametrize(("fixed", "fits"), [(False, ["loftr-outdoor", "loftr-indoor"]), (True, ["loftr-indoor-new"])])
def test_a_stored_position_encoding_tells_variants_apart(fixed: bool, fits: list[str]) -> None:
    with torch.device("meta"):
        tensors = dict(LoFTR(LOFTR_OUTDOOR).state_dict())
    tensors["pos_encoding.pe"] = sine_encoding(64, 64, sine_frequencies(256, fixed))
    complete = []
    for name in ("loftr-outdoor", "loftr-indoor", "loftr-indoor-new"):
        spec = get_spec(name)
        constants = spec.family.constants()
        _, report = account(tensors, expected_tensors(spec), spec.key_map, spec.name, constants=constants)
        complete += [name] if report.complete else []
    assert complete == fits


@pytest.mark.parametrize(
    ("dtype", "good"),
    [(torch.float64, True), (torch.bfloat16, True), (torch.bool, False), (torch.int8, False), (torch.complex64, False)],
)
def test_types(tmp_path: Path, dtype: torch.dtype, good: bool) -> None:
    state = coarse_loftr_state()
    key = "backbone.conv1.weight"
    state[key] = state[key].to(dtype)
    torch.save(state, tmp_path / "x.pt")
    spec = get_spec("coarse-loftr")
    if good:
        entries = {entry.key: entry for entry in load_network(spec, tmp_path / "x.pt").report.file}
        assert f"converted from {str(dtype)[6:]}" in entries[key].detail
    else:
        with pytest.raises(MatchRTError, match=r"type-mismatched: backbone\.conv1\.weight"):
            load_network(spec, tmp_path / "x.pt")


def test_every_loaded_value_is_the_files_value(coarse_checkpoint: Path) -> None:
    loaded = load_network(get_spec("coarse-loftr"), coarse_checkpoint)
    expected = sharp_state(LoFTR(COARSE_LOFTR))
    actual = loaded.network.state_dict()
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], value) for key, value in expected.items())


@pytest.mark.parametrize("name", ["loftr_outdoor_ds", "loftr_indoor_ds"])
def test_official_manifests_are_accounted_for(shared: Path, name: str) -> None:
    entries = json.loads((shared / "manifests" / f"{name}.json").read_text())["tensors"]
    tensors = {e["key"]: torch.empty(e["shape"], dtype=getattr(torch, e["dtype"]), device="meta") for e in entries}
    for model in ("loftr-outdoor", "loftr-indoor", "loftr-indoor-new"):
        spec = get_spec(model)
        _, report = account(tensors, expected_tensors(spec), spec.key_map, spec.name)
        assert report.complete and report.prefix == "matcher."
        assert report.counts() == {"file": {"loaded": 211}, "network": {"loaded": 211}}


@pytest.mark.parametrize("file", ["LoFTR_teacher.pt", "LoFTR_no_teacher.pt", "LoFTR_teacher.safetensors"])
def test_trained_coarse_weights_are_accounted_for(shared: Path, file: str) -> None:
    loaded = load_network(get_spec("coarse-loftr"), shared / "weights" / "kolkir_coarse_loftr" / file)
    assert loaded.report.counts() == {"file": {"loaded": 161, "dropped": 16}, "network": {"loaded": 161}}
    assert [n for n, r in fitting_models(loaded.checkpoint).items() if r.complete] == ["coarse-loftr"]


def test_wrong_model_and_unknown_model(coarse_checkpoint: Path) -> None:
    with pytest.raises(MatchRTError) as caught:
        load_network(get_spec("loftr-outdoor"), coarse_checkpoint)
    assert caught.value.code == "weights-unaccounted" and "inspect" in caught.value.remedy
    with pytest.raises(MatchRTError, match="Did you mean 'loftr-outdoor'"):
        get_spec("loftr-outdor")
    with pytest.raises(MatchRTError) as caught:
        load_network(get_spec("loftr-outdoor"))
    assert caught.value.code == "checkpoint-needed" and "outdoor_ds.ckpt" in caught.value.remedy


def test_registry_is_complete() -> None:
    for name, spec in model_specs().items():
        assert spec.name == name and spec.licence and spec.origin and spec.description
        divisor = spec.preprocess.divisor
        assert spec.height % divisor == 0 and spec.width % divisor == 0
        assert divisor % spec.family.coarse_stride == 0


def test_tensors_that_fit_are_not_copied() -> None:
    """Of a network of gigabytes, copies would not fit into memory."""
    network = torch.nn.Linear(3, 2)
    state = {"weight": torch.ones(2, 3), "bias": torch.ones(2, dtype=torch.float16)}
    fill(network, state)
    assert network.weight.data_ptr() == state["weight"].data_ptr()
    assert network.bias.dtype == torch.float32 and bool((network.bias == 1).all())
