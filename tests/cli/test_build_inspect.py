"""`matchrt build`, `inspect`, `models` and `engines` as users type them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.commands import CommandLine
from support.weights import coarse_loftr_state

from matchrt.runtime.backend import building_backends

pytestmark = pytest.mark.usefixtures("exported_once")
SMALL = ("--height", "128", "--width", "128", "--max-matches", "64")


@pytest.mark.slow
def test_build_then_hit_then_list_then_match(cli: CommandLine, coarse_checkpoint: Path, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store")
    ran = cli("build", "coarse-loftr", "--checkpoint", coarse_checkpoint, *SMALL, *store)
    assert ran.code == 0 and "161 loaded" in ran.out and "already" not in ran.out
    ran = cli("build", "coarse-loftr", "--checkpoint", coarse_checkpoint, *SMALL, *store, "--json")
    assert ran.json["cached"] and ran.json["manifest"]["input"]["height"] == 128
    assert ran.json["path"] in cli("engines", *store).out
    assert cli("engines", *store, "--json").json[0]["manifest"]["model"] == "coarse-loftr"
    assert "No engines" in cli("engines", "--store", tmp_path / "other").out


def test_inspect_checkpoint(cli: CommandLine, coarse_checkpoint: Path) -> None:
    ran = cli("inspect", coarse_checkpoint)
    assert ran.code == 0 and "coarse-loftr" in ran.out and "backbone.layer4" in ran.out
    found = cli("inspect", coarse_checkpoint, "--json").json
    assert found["models"] == ["coarse-loftr"] and found["prefix"] == "matcher."
    assert found["tensors"] == 165 and found["ignored"] == ["epoch"]
    assert sum(part["tensors"] for part in found["parts"]) == found["tensors"]
    assert sum(part["elements"] for part in found["parts"]) == found["elements"]


def test_safetensors_is_never_taken_for_onnx(cli: CommandLine, tmp_path: Path) -> None:
    state = {key: value.contiguous() for key, value in coarse_loftr_state().items()}
    for size in range(0, 257, 8):  # the first byte is the header's length modulo 256
        save_file(state, tmp_path / "x.safetensors", metadata={"note": "x" * size})
        if (tmp_path / "x.safetensors").read_bytes()[0] == 8:
            break
    else:
        pytest.fail("no header of the wanted length")
    assert cli("inspect", tmp_path / "x.safetensors", "--json").json["kind"] == "checkpoint"


def test_inspect_checkpoint_that_fits_nothing(cli: CommandLine, tmp_path: Path) -> None:
    state = coarse_loftr_state()
    state["other.weight"] = torch.ones(3)
    torch.save(state, tmp_path / "x.pt")
    ran = cli("inspect", tmp_path / "x.pt")
    assert ran.code == 0 and "closest is coarse-loftr" in ran.out and "other.weight" in ran.out


def test_inspect_engine_and_onnx(cli: CommandLine, coarse_engine: Path, tmp_path: Path) -> None:
    ran = cli("inspect", coarse_engine)
    assert ran.code == 0 and "192x256" in ran.out and "Apache-2.0" in ran.out
    assert cli("inspect", coarse_engine, "--json").json["kind"] == "engine"
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(coarse_engine.read_bytes())
    ran = cli("inspect", bare)
    assert ran.code == 0 and "MatMul" in ran.out
    found = cli("inspect", bare, "--json").json
    assert found["kind"] == "onnx" and found["opset"] == {"ai.onnx": 18} and found["operators"]["Conv"] >= 2
    bare.write_bytes(coarse_engine.read_bytes()[:1000])
    cli.fails("onnx-invalid", "inspect", bare)
    cli.fails("inspect-missing", "inspect", tmp_path / "missing")


class Runs:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("command", ["build", "inspect"])
def test_bad_checkpoints_are_named_errors(
    cli: CommandLine, coarse_checkpoint: Path, tmp_path: Path, command: str
) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"state_dict": Runs(marker)}))
    data = coarse_checkpoint.read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.ckpt").write_text("hello, I am not a checkpoint")
    before = set(tmp_path.iterdir())
    for name, code in (("evil.pt", "checkpoint-unsafe"), ("cut.ckpt", "checkpoint-truncated"),
                       ("text.ckpt", "checkpoint-format")):  # fmt: skip
        path, output = tmp_path / name, tmp_path / "engine.onnx"
        given = (path,) if command == "inspect" else ("coarse-loftr", "--checkpoint", path, "--output", output)
        assert name in cli.fails(code, command, *given).err
    assert set(tmp_path.iterdir()) == before and not marker.exists()


@pytest.mark.parametrize("kind", ["renamed", "extra", "missing", "reshaped"])
def test_checkpoints_with_wrong_tensors(cli: CommandLine, tmp_path: Path, kind: str) -> None:
    state, key = coarse_loftr_state(), "loftr_coarse.layers.1.merge.weight"
    if kind == "renamed":
        state["loftr_coarse.layers.1.linear_merge.weight"] = state.pop(key)
    elif kind == "extra":
        state["head.weight"] = torch.ones(2)
    elif kind == "missing":
        del state[key]
    else:
        state[key] = state[key].reshape(64, 16)
    torch.save(state, tmp_path / "x.ckpt")
    ran = cli.fails("weights-unaccounted", "build", "coarse-loftr", "--checkpoint", tmp_path / "x.ckpt",
                    "--output", tmp_path / "engine.onnx")  # fmt: skip
    assert (key if kind != "extra" else "head.weight") in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["x.ckpt"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("loftr-outdor",), "model-unknown"),
        (("loftr-outdoor",), "checkpoint-needed"),
        (("loftr-lite", "--height", "100"), "size-divisor"),
        (("loftr-lite", "--dynamic", "64"), "profile-syntax"),
        (("loftr-lite", "--dynamic", "axb,64,64"), "profile-syntax"),
        (("loftr-lite", "--dynamic", "128,64,256"), "size-range"),
        (("loftr-lite", "--dynamic", "64x64x9,128,256"), "profile-syntax"),
        (("loftr-lite", "--dynamic", "64,128,256", "--height", "128"), "profile-syntax"),
        (("loftr-lite", "--height", "2048", "--width", "4096"), "size-range"),
        (("loftr-lite", "--backend", "openvino"), "backend-unknown"),
        (("loftr-lite", "--threshold", "3"), "threshold-range"),
        (("loftr-lite", "--max-matches", "0"), "matches-range"),
        (("loftr-lite", "--checkpoint", "missing.ckpt"), "checkpoint-missing"),
    ],
)
def test_bad_options(cli: CommandLine, arguments: tuple[str, ...], code: str) -> None:
    cli.fails(code, "build", *arguments)


@pytest.mark.parametrize("backend", ["openvino", "jax"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_list_of_backends_to_build_for_has_none_that_builds_nothing(
    cli: CommandLine, backend: str, precision: str
) -> None:
    ran = cli.fails("backend-unknown", "build", "loftr-lite", "--backend", backend, "--precision", precision)
    assert ", ".join(building_backends()) in " ".join(ran.err.split()) and "rtx, jax" not in ran.err


def test_too_large_for_memory(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matchrt._util.memory.available_bytes", lambda: 10_000_000)
    cli.fails("size-memory", "build", "loftr-lite", "--height", "480", "--width", "640")


@pytest.mark.slow
def test_a_high_threshold_is_proven_too(cli: CommandLine, coarse_checkpoint: Path, tmp_path: Path) -> None:
    ran = cli("build", "coarse-loftr", "--checkpoint", coarse_checkpoint, *SMALL, "--threshold", "0.999",
              "--output", tmp_path / "e.onnx", "--json")  # fmt: skip
    assert ran.code == 0 and ran.json["manifest"]["checks"]["parity_matches"] > 0
    assert ran.json["manifest"]["matching"]["threshold"] == 0.999


@pytest.mark.slow
def test_an_engine_with_gaps_says_so(cli: CommandLine, tmp_path: Path) -> None:
    state = coarse_loftr_state()
    del state["loftr_coarse.layers.1.merge.weight"]
    torch.save(state, tmp_path / "x.ckpt")
    ran = cli("build", "coarse-loftr", "--checkpoint", tmp_path / "x.ckpt", *SMALL,
              "--allow-missing", "loftr_coarse.layers.1.*")  # fmt: skip
    assert ran.code == 0 and "UNTRAINED 1 tensors" in ran.out and "layers.1.merge.weight" in ran.out


def test_the_checkpoint_is_never_replaced(cli: CommandLine, coarse_checkpoint: Path) -> None:
    before = coarse_checkpoint.read_bytes()
    cli.fails(
        "output-is-input", "build", "coarse-loftr", "--checkpoint", coarse_checkpoint, "--output", coarse_checkpoint
    )
    assert coarse_checkpoint.read_bytes() == before


def test_models(cli: CommandLine) -> None:
    assert "loftr-outdoor" in cli("models").out
    rows = {row["name"]: row for row in cli("models", "--json").json}
    assert rows["loftr-lite"]["bundled"] and not rows["loftr-outdoor"]["bundled"]
    assert "outdoor_ds.ckpt" in rows["loftr-outdoor"]["weights"]
