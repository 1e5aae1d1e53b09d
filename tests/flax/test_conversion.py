"""Weights to Flax and back: nothing lost, everything accounted for, every mistake explained."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra 'flax' is not installed")

import torch
from flax import nnx
from support.commands import CommandLine
from torch import Tensor

from matchrt.errors import MatchRTError
from matchrt.export.weights.network import checkpoint_path
from matchrt.export.weights.read import read_checkpoint
from matchrt.families.loftr import LOFTR_OUTDOOR
from matchrt.families.registry import get_spec
from matchrt.flax.conversion import convert_file, restore_file
from matchrt.flax.files import About, read_weights, write_weights
from matchrt.flax.weights import arrays_of, load_loftr_weights, merge_loftr, shapes_of, transformer_shapes
from matchrt.models.loftr.config import LOFTR_LITE, TransformerConfig
from matchrt.models.loftr.flax.attention import LocalFeatureTransformer

BUNDLED = checkpoint_path(get_spec("loftr-lite"), None)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".orbax"])
def test_there_and_back_is_bit_identical(tmp_path: Path, suffix: str) -> None:
    output, back = tmp_path / f"lite{suffix}", tmp_path / "back.safetensors"
    converted = convert_file(BUNDLED, output)
    counts = converted.report.counts()
    assert converted.report.complete and converted.spec.name == "loftr-lite"
    assert counts == {"file": {"loaded": 194, "derived": 17}, "network": {"loaded": 194}}
    restored = restore_file(output, back)
    assert restored.report.complete and restored.report.counts()["network"] == {"loaded": 211}
    first, second = read_checkpoint(BUNDLED), read_checkpoint(back)
    # Keys, types, shapes and bytes of all tensors.
    assert first.tensors_sha256 == second.tensors_sha256 == restored.tensors_sha256


def test_outdoor_manifest_is_accounted_for(shared: Path, tmp_path: Path) -> None:
    import importlib.util
    import json

    spec = importlib.util.spec_from_file_location("make_checkpoint", shared / "make_checkpoint.py")
    assert spec is not None and spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    manifest = json.loads((shared / "manifests" / "loftr_outdoor_ds.json").read_text())
    checkpoint = tmp_path / "outdoor.ckpt"
    torch.save({"state_dict": {k: torch.as_tensor(v) for k, v in maker.state_dict(manifest).items()}}, checkpoint)
    converted = convert_file(checkpoint, tmp_path / "outdoor.npz")
    assert converted.report.complete and converted.about.prefix == "matcher."
    restored = restore_file(tmp_path / "outdoor.npz", tmp_path / "back.ckpt")
    assert restored.tensors_sha256 == read_checkpoint(checkpoint).tensors_sha256


@pytest.mark.parametrize(("part", "arrays"), [("transformer", 80), ("backbone", 107)])
def test_parts(tmp_path: Path, part: str, arrays: int) -> None:
    converted = convert_file(BUNDLED, tmp_path / "part.npz", part=part)
    assert len(converted.arrays) == arrays and converted.report.complete
    assert sum(converted.report.counts()["file"].values()) == 211
    restored = restore_file(tmp_path / "part.npz", tmp_path / "part.ckpt", prefix="")
    state = read_checkpoint(BUNDLED).tensors
    assert all(torch.equal(tensor, state["matcher." + key]) for key, tensor in restored.tensors.items())
    assert len(restored.tensors) == arrays


def test_kernels_are_transposed_not_only_renamed(lite_file: Path, lite_state: dict[str, Tensor]) -> None:
    arrays = read_weights(lite_file).arrays
    kernel = arrays["loftr_coarse.layers.3.mlp.2.kernel"]
    assert np.array_equal(kernel.T, lite_state["matcher.loftr_coarse.layers.3.mlp.2.weight"].numpy())
    convolution = arrays["backbone.layer2.0.conv1.kernel"]
    assert np.array_equal(convolution, lite_state["matcher.backbone.layer2.0.conv1.weight"].permute(2, 3, 1, 0).numpy())
    variance = arrays["backbone.bn1.var"]
    assert np.array_equal(variance, lite_state["matcher.backbone.bn1.running_var"].numpy())


def test_bfloat16_survives(tmp_path: Path, lite_state: dict[str, Tensor]) -> None:
    state = {k: v.bfloat16() if v.is_floating_point() else v for k, v in lite_state.items()}
    checkpoint = _saved(state, tmp_path)
    convert_file(checkpoint, tmp_path / "x.safetensors")
    restored = restore_file(tmp_path / "x.safetensors", tmp_path / "back.safetensors")
    assert restored.tensors_sha256 == read_checkpoint(checkpoint).tensors_sha256
    _fails("flax-format", checkpoint, tmp_path / "x.npz")


def _saved(state: dict[str, Tensor], folder: Path) -> Path:
    path = folder / "given.ckpt"
    torch.save({"state_dict": state}, path)
    return path


def _fails(code: str, checkpoint: Path, output: Path, **options: str) -> MatchRTError:
    with pytest.raises(MatchRTError) as caught:
        convert_file(checkpoint, output, **options)
    assert caught.value.code == code, caught.value
    assert not output.exists()
    return caught.value


# The key table of the guide that this replaces: none of its names exist.
WRONG = (("q_proj", "linear_q"), ("k_proj", "linear_k"), ("v_proj", "linear_v"), ("layer_merge", "linear_out"))


def _wrong_table(state: dict[str, Tensor], container: str) -> dict[str, Tensor]:
    renamed = {}
    for key, tensor in state.items():
        wrong = key
        for right, name in WRONG:
            wrong = wrong.replace(right, name)
        if "loftr_coarse" in wrong:
            wrong = wrong.replace("merge", "linear_out").replace("mlp.", "ffn.").replace("layers", container)
        renamed[wrong] = tensor
    return renamed


@pytest.mark.parametrize("container", ["layers", "coarse_transformer.layers"])
@pytest.mark.parametrize("part", ["transformer", "all"])
def test_the_wrong_key_table_is_told_the_right_names(
    tmp_path: Path, lite_state: dict[str, Tensor], container: str, part: str
) -> None:
    checkpoint = _saved(_wrong_table(lite_state, container), tmp_path)
    code = "flax-names" if container == "layers" else "flax-no-transformer"
    error = _fails(code, checkpoint, tmp_path / "x.npz", part=part)
    said = error.message + error.remedy
    for right in ("linear_q is q_proj", "linear_out is merge", "ffn.0 is mlp.0", "loftr_coarse.layers.N.", "norm1"):
        assert right in said, right


def test_prefixes(tmp_path: Path, lite_state: dict[str, Tensor]) -> None:
    error = _fails(
        "flax-no-transformer", BUNDLED, tmp_path / "x.npz", prefix="loftr_coarse.coarse_transformer"
    )  # fmt: skip
    assert "'matcher.' (80 tensors)" in error.message
    assert convert_file(BUNDLED, tmp_path / "a.npz", prefix="matcher.loftr_coarse", part="transformer").report.complete
    twin = {f"teacher.{key}": tensor for key, tensor in lite_state.items()}
    two = _saved({**{f"student.{key}": tensor for key, tensor in lite_state.items()}, **twin}, tmp_path)
    assert "'teacher.matcher.'" in _fails("checkpoint-ambiguous", two, tmp_path / "x.npz").message
    chosen = convert_file(two, tmp_path / "y.npz", prefix="teacher.matcher")
    counts = {"loaded": 194, "derived": 17, "neighbour": 211}
    assert chosen.report.complete and chosen.report.counts()["file"] == counts
    # Beside the authors' prefix, another network does not hide the plain one.
    plain = convert_file(_saved({**lite_state, **twin}, tmp_path), tmp_path / "z.npz")
    assert plain.report.prefix == "matcher." and plain.report.counts()["file"] == counts
    averaged = _saved({**lite_state, **{f"ema_{key}": 2 * tensor for key, tensor in lite_state.items()}}, tmp_path)
    ema, own = convert_file(averaged, tmp_path / "e.npz", ema=True), convert_file(averaged, tmp_path / "o.npz")
    assert (ema.report.prefix, own.report.prefix) == ("ema_matcher.", "matcher.")
    name = "backbone.conv1.kernel"
    assert np.array_equal(ema.arrays[name], 2 * own.arrays[name])
    assert restore_file(tmp_path / "e.npz", tmp_path / "e.ckpt").tensors_sha256 == ema.about.tensors_sha256
    backbone = {key: tensor for key, tensor in lite_state.items() if "backbone" in key}
    nothing = _fails("flax-no-transformer", _saved(backbone, tmp_path), tmp_path / "x.npz")
    assert "matcher.backbone." in nothing.message


def test_shape_errors_say_what_explains_them(tmp_path: Path, lite_state: dict[str, Tensor]) -> None:
    key = "matcher.loftr_coarse.layers.0.{}"
    wide = _fails("flax-shape", BUNDLED, tmp_path / "x.npz", model="loftr-outdoor")
    assert "width: the file's transformer is 128 channels wide" in wide.message
    heads = {k: v[:64] if "coarse" in k and "k_proj" in k else v for k, v in lite_state.items()}
    assert "heads: " in _fails("flax-shape", _saved(heads, tmp_path), tmp_path / "x.npz").message
    other = {**lite_state, key.format("aggregate.weight"): torch.zeros(128, 1, 4, 4)}
    assert "attention type: " in _fails("flax-shape", _saved(other, tmp_path), tmp_path / "x.npz").message
    short = {k: v for k, v in lite_state.items() if "coarse.layers.7" not in k}
    assert "depth: " in _fails("flax-shape", _saved(short, tmp_path), tmp_path / "x.npz").message
    _fails("flax-model", BUNDLED, tmp_path / "x.npz", model="eloftr")
    _fails("flax-format", BUNDLED, tmp_path / "x.pkl")
    _fails("flax-part", BUNDLED, tmp_path / "x.npz", part="head")


def test_load_loftr_weights(lite_file: Path, tmp_path: Path) -> None:
    for source in ("loftr-lite", BUNDLED, lite_file):
        weights = load_loftr_weights(source, LOFTR_LITE.coarse)
        assert len(weights.arrays) == 80 and weights.elements == 8 * 164_352

    def fails(code: str, source: str | Path, config: TransformerConfig | None = None) -> str:
        with pytest.raises(MatchRTError) as caught:
            load_loftr_weights(source, config)
        assert caught.value.code == code, caught.value
        return caught.value.message

    fails("checkpoint-missing", tmp_path / "none.npz")
    fails("checkpoint-format", Path(__file__))
    assert "width" in fails("flax-shape", lite_file, LOFTR_OUTDOOR.coarse)
    full = TransformerConfig(128, 4, ("self", "cross") * 4, attention="full")
    assert "attention type: trained with linear, wanted full" in fails("flax-config", lite_file, full)
    assert load_loftr_weights(lite_file, full, accept_other_attention=True).arrays
    assert "heads" in fails("flax-config", "loftr-lite", TransformerConfig(128, 8, ("self", "cross") * 4))
    convert_file(BUNDLED, tmp_path / "b.npz", part="backbone")
    assert "backbone.bn1" in fails("flax-no-transformer", tmp_path / "b.npz")
    # What the other converter wrote: query kernels and the like, none of LoFTR's names.
    alien = {f"loftr_coarse.layers.{i}.linear_q.kernel": np.zeros((128, 128), np.float32) for i in range(8)}
    write_weights(tmp_path / "alien.npz", alien, About())
    assert "linear_q is q_proj" in fails("flax-names", tmp_path / "alien.npz", LOFTR_LITE.coarse)


def test_damaged_files(lite_file: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.npz"
    cut.write_bytes(lite_file.read_bytes()[:5000])
    with pytest.raises(MatchRTError) as caught:
        read_weights(cut)
    assert caught.value.code == "checkpoint-truncated"
    torch.save({"a": torch.zeros(2)}, tmp_path / "torch.ckpt")
    with pytest.raises(MatchRTError) as caught:
        read_weights(tmp_path / "torch.ckpt")
    assert caught.value.code == "checkpoint-format" and "convert-flax" in caught.value.remedy
    (tmp_path / "folder").mkdir()
    with pytest.raises(MatchRTError):
        read_weights(tmp_path / "folder")


def test_the_flax_shapes_are_the_tables(lite_file: Path) -> None:
    from matchrt.flax.weights import create_abstract, torch_shapes

    wanted = transformer_shapes(LOFTR_LITE.coarse)
    weights = load_loftr_weights(lite_file)
    assert torch_shapes(weights.arrays) == wanted
    flax_network = {k: v for k, v in shapes_of(create_abstract(LOFTR_LITE)).items() if k.startswith("loftr_coarse.")}
    assert len(flax_network) == len(wanted) == 80


def test_command(cli: CommandLine, tmp_path: Path) -> None:
    output = tmp_path / "lite.npz"
    ran = cli("convert-flax", BUNDLED, "--output", output, "--verbose")
    assert ran.code == 0 and "211" in ran.out and "OIHW to HWIO" in ran.out and output.is_file()
    ran = cli("convert-flax", output, "--back", "--output", tmp_path / "back.safetensors", "--json")
    assert ran.code == 0 and ran.json["complete"] and ran.json["counts"]["network"] == {"loaded": 211}
    assert ran.json["tensors_sha256"] == read_checkpoint(BUNDLED).tensors_sha256
    cli.fails("checkpoint-missing", "convert-flax", tmp_path / "none.ckpt", "--output", output)
    cli.fails("output-is-input", "convert-flax", output, "--output", output)
    cli.fails("usage", "convert-flax", output, "--back", "--ema", "--output", tmp_path / "b.ckpt")
    cli.fails("flax-layout", "convert-flax", BUNDLED, "--back", "--output", tmp_path / "b.ckpt")


def test_loaded_weights_are_a_mapping(lite_file: Path) -> None:
    """The lines of IFViT-JAX's guide work on what `load_loftr_weights` returns."""
    weights = load_loftr_weights(lite_file)
    assert len(weights) == 80 and dict(weights.items()) == {name: weights[name] for name in weights}
    assert all(value.shape for _, value in weights.items()) and "layers.0.q_proj.kernel" in weights


def test_the_layout_of_ifvit(cli: CommandLine, tmp_path: Path, lite_file: Path) -> None:
    guide = tmp_path / "guide.npz"
    ran = cli("convert-flax", BUNDLED, "--output", guide, "--layout", "ifvit")
    assert ran.code == 0, ran.err
    ours = load_loftr_weights(lite_file)
    with np.load(guide) as theirs:
        assert len(theirs.files) == 160
        for image in (0, 1):
            assert np.array_equal(theirs[f"layers.3.{image}/mlp.0/kernel"], ours["layers.3.mlp.0.kernel"])
            assert np.array_equal(theirs[f"layers.7.{image}/norm2/scale"], ours["layers.7.norm2.scale"])
        first_only = {name: theirs[name] for name in theirs.files if re.match(r"layers\.\d+\.0/", name)}
        trained = {name: theirs[name] + (name == "layers.2.1/merge/kernel") for name in theirs.files}
    again = load_loftr_weights(guide, LOFTR_LITE.coarse)
    assert set(again) == set(ours) and all(np.array_equal(again[name], ours[name]) for name in ours)
    # The guide's own converter fills the first image's layers only.
    np.savez(tmp_path / "first.npz", **first_only)
    assert set(load_loftr_weights(tmp_path / "first.npz", LOFTR_LITE.coarse)) == set(ours)
    np.savez(tmp_path / "trained.npz", **trained)
    with pytest.raises(MatchRTError, match=r"merge\.kernel") as caught:
        load_loftr_weights(tmp_path / "trained.npz")
    assert caught.value.code == "flax-layout"
    back = tmp_path / "back.safetensors"
    assert cli("convert-flax", guide, "--back", "--model", "loftr-lite", "--output", back).code == 0
    cli.fails("flax-part", "convert-flax", BUNDLED, "--output", guide, "--layout", "ifvit", "--part", "backbone")
    cli.fails("flax-format", "convert-flax", BUNDLED, "--output", tmp_path / "x.safetensors", "--layout", "ifvit")
    cli.fails("flax-format", "convert-flax", BUNDLED, "--output", guide, "--layout", "other")
    cli.fails("usage", "convert-flax", guide, "--back", "--layout", "ifvit", "--output", back)


def test_merging_says_what_was_loaded(lite_file: Path) -> None:
    class Model(nnx.Module):
        def __init__(self) -> None:
            self.head = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
            self.inner = nnx.Module()
            self.inner.transformer = LocalFeatureTransformer(LOFTR_LITE.coarse, rngs=nnx.Rngs(0))

    model, weights = Model(), load_loftr_weights(lite_file, LOFTR_LITE.coarse)
    before = arrays_of(model)["head.kernel"]
    report = merge_loftr(model, weights, "inner.transformer")
    assert len(report.loaded) == 80 and report.loaded_values == weights.elements
    assert set(report.fresh) == {"head.kernel", "head.bias"} and report.fresh_values == 10
    assert "80 arrays (1,314,816 values) loaded" in report.summary() and "head.kernel" in report.summary()
    found = arrays_of(model)
    assert np.array_equal(found["inner.transformer.layers.0.q_proj.kernel"], weights["layers.0.q_proj.kernel"])
    assert np.array_equal(found["head.kernel"], before)
    with pytest.raises(MatchRTError) as caught:
        merge_loftr(model, weights, "transformer")
    assert caught.value.code == "flax-no-transformer" and "head" in caught.value.message
