"""Building: faithful, atomic, and cached by content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from matchrt.building.pipeline import BuildRequest, build
from matchrt.errors import MatchRTError
from matchrt.export.weights.read import read_checkpoint
from matchrt.manifest import read_manifest
from matchrt.store import EngineStore

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("exported_once")]
REQUEST = BuildRequest("coarse-loftr", height=128, width=128, max_matches=64)


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "store")


def test_manifest_says_what_was_built(coarse_engine: Path, coarse_checkpoint: Path) -> None:
    manifest = read_manifest(coarse_engine.with_name(coarse_engine.name + ".json"))
    assert (manifest.model, manifest.backend, manifest.precision) == ("coarse-loftr", "onnxruntime", "fp32")
    assert manifest.source.tensors_sha256 == read_checkpoint(coarse_checkpoint).tensors_sha256
    assert (manifest.input.height, manifest.input.width, manifest.matching.max_matches) == (192, 256, 256)
    assert [spec.name for spec in manifest.inputs] == ["image0", "image1", "size0", "size1"]
    assert manifest.outputs[0].shape == (1, 256, 2)
    assert "stable-names" in [record.name for record in manifest.passes]


def test_cache_is_by_content_not_by_name(tmp_path: Path, coarse_checkpoint: Path, store: EngineStore) -> None:
    first = build(replace(REQUEST, checkpoint=coarse_checkpoint), store)
    assert not first.cached and first.path.is_file()
    renamed = tmp_path / "renamed.pth"
    torch.save(dict(read_checkpoint(coarse_checkpoint).tensors), renamed)  # other name, wrapper and bytes
    second = build(replace(REQUEST, checkpoint=renamed), store)
    assert second.cached and second.path == first.path
    tensors = dict(read_checkpoint(coarse_checkpoint).tensors)
    key = "matcher.backbone.conv1.weight"
    torch.save(tensors | {key: tensors[key] + 0.001}, renamed)  # same name, other weights
    third = build(replace(REQUEST, checkpoint=renamed), store)
    assert not third.cached and third.path != first.path
    fourth = build(replace(REQUEST, checkpoint=coarse_checkpoint, max_matches=32), store)
    assert not fourth.cached


def test_two_networks_of_a_file_are_two_engines(tmp_path: Path, coarse_checkpoint: Path, store: EngineStore) -> None:
    own = dict(read_checkpoint(coarse_checkpoint).tensors)
    twin = {f"ema_{key}": value * 1.01 if value.is_floating_point() else value for key, value in own.items()}
    torch.save({"state_dict": own | twin | {"loss.pos_weight": torch.ones(1)}}, tmp_path / "twin.ckpt")
    request = replace(REQUEST, checkpoint=tmp_path / "twin.ckpt")
    plain, averaged = build(request, store), build(replace(request, ema=True), store)
    assert plain.manifest.build_key != averaged.manifest.build_key
    assert any("--ema takes it" in note for note in plain.notes)
    # What stands beside the network changes nothing.
    assert build(replace(REQUEST, checkpoint=coarse_checkpoint), store).path == plain.path
    named = build(replace(request, prefix="ema_matcher", sha256=averaged.manifest.source.tensors_sha256), store)
    assert named.cached and named.path == averaged.path


def test_output_file_and_progress(tmp_path: Path, coarse_checkpoint: Path, store: EngineStore) -> None:
    told: list[tuple[str, float]] = []
    request = replace(REQUEST, checkpoint=coarse_checkpoint, output=tmp_path / "out" / "engine.onnx")
    result = build(request, store, lambda stage, done: told.append((stage, done)))
    assert result.path == request.output and result.path.is_file()
    assert read_manifest(tmp_path / "out" / "engine.onnx.json") == result.manifest
    assert [done for _, done in told] == sorted(done for _, done in told) and told[-1][1] == 1.0
    again = build(request, store)
    assert again.cached and again.path == request.output
    elsewhere = build(replace(request, output=tmp_path / "elsewhere.onnx"), store)
    assert elsewhere.cached and elsewhere.path.read_bytes() == result.path.read_bytes()


def test_a_failed_build_writes_nothing(tmp_path: Path, store: EngineStore) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "x.ckpt")
    output = tmp_path / "out" / "engine.onnx"
    with pytest.raises(MatchRTError):
        build(replace(REQUEST, checkpoint=tmp_path / "x.ckpt", output=output), store)
    with pytest.raises(MatchRTError):
        build(replace(REQUEST, checkpoint=tmp_path / "x.ckpt"), store)
    assert not output.exists() and not store.root.exists()


def test_interrupted_build_leaves_nothing(
    coarse_checkpoint: Path, store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("matchrt.manifest.fields.atomic.write_text", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(replace(REQUEST, checkpoint=coarse_checkpoint), store)
    assert [p for p in store.root.rglob("*") if p.is_file()] == []


def test_damaged_entry_is_built_again(coarse_checkpoint: Path, store: EngineStore) -> None:
    request = replace(REQUEST, checkpoint=coarse_checkpoint)
    first = build(request, store)
    first.path.write_bytes(b"damaged")
    again = build(request, store)
    assert not again.cached and again.manifest.engine_sha256 == first.manifest.engine_sha256


def test_backend_and_unwritable_output(coarse_checkpoint: Path, store: EngineStore, tmp_path: Path) -> None:
    with pytest.raises(MatchRTError) as caught:
        build(replace(REQUEST, checkpoint=coarse_checkpoint, backend="openvino"), store)
    assert caught.value.code == "backend-unknown" and "onnxruntime" in caught.value.remedy
    (tmp_path / "file").write_text("x")
    with pytest.raises(MatchRTError) as caught:
        build(replace(REQUEST, checkpoint=coarse_checkpoint, output=tmp_path / "file" / "e.onnx"), store)
    assert caught.value.code == "output-unwritable"
