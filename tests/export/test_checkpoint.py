"""Every way that a checkpoint file can be right or wrong."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from matchrt.errors import MatchRTError
from matchrt.export.weights.read import read_checkpoint

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}


class Runs:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize(
    ("wrap", "wrapper", "ignored"),
    [
        (lambda t: t, None, ()),
        (lambda t: {"state_dict": t}, "state_dict", ()),
        (lambda t: {"epoch": 3, "state_dict": t, "optimizer": {"lr": 1.0}}, "state_dict", ("epoch", "optimizer")),
        (lambda t: {"model_state_dict": t, "step": 7}, "model_state_dict", ("step",)),
        (lambda t: {"something": t}, "something", ()),
        (lambda t: {**t, "epoch": 3}, None, ("epoch",)),
        (lambda t: {"model": {"state_dict": t, "lr": 1.0}, "step": 7}, "model.state_dict", ("lr", "step")),
    ],
)
def test_wrappers(tmp_path: Path, wrap: Any, wrapper: str | None, ignored: tuple[str, ...]) -> None:
    path = tmp_path / "x.ckpt"
    torch.save(wrap(TENSORS), path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.wrapper == wrapper and checkpoint.ignored == ignored
    assert torch.equal(checkpoint.tensors["a.weight"], TENSORS["a.weight"])
    assert checkpoint.elements == 7


def test_formats_agree_on_the_digest(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "zip.pt")
    torch.save(TENSORS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(TENSORS, tmp_path / "misnamed.ckpt", metadata={"licence": "mine"})
    read = [read_checkpoint(tmp_path / name) for name in ("zip.pt", "old.pth", "misnamed.ckpt")]
    assert [c.format for c in read] == ["torch", "torch-legacy", "safetensors"]
    assert len({c.tensors_sha256 for c in read}) == 1
    assert len({c.file_sha256 for c in read}) == 3
    assert read[2].metadata == {"licence": "mine"}


@pytest.mark.parametrize("change", ["value", "key", "dtype", "shape"])
def test_digest_sees_every_change(tmp_path: Path, change: str) -> None:
    other = dict(TENSORS)
    if change == "value":
        other["a.weight"] = TENSORS["a.weight"] + 1e-7 * (TENSORS["a.weight"] == 1)
    elif change == "key":
        other["c"] = other.pop("b")
    elif change == "dtype":
        other["a.weight"] = TENSORS["a.weight"].double()
    else:
        other["a.weight"] = TENSORS["a.weight"].reshape(3, 2)
    torch.save(TENSORS, tmp_path / "one.pt")
    torch.save(other, tmp_path / "two.pt")
    one, two = (read_checkpoint(tmp_path / f"{n}.pt").tensors_sha256 for n in ("one", "two"))
    assert one != two


def _error(path: Path) -> MatchRTError:
    with pytest.raises(MatchRTError) as caught:
        read_checkpoint(path)
    assert len(caught.value.remedy) > 10 and path.name in caught.value.message
    assert len(caught.value.message) < 600
    return caught.value


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_refused_and_never_runs(tmp_path: Path, legacy: bool) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.pt"
    torch.save({"state_dict": TENSORS, "x": Runs(marker)}, path, _use_new_zipfile_serialization=not legacy)
    error = _error(path)
    assert error.code == "checkpoint-unsafe" and "mkdir" in error.message
    assert not marker.exists()


def test_bare_pickle_with_code(tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"x": Runs(marker)}))
    assert _error(path).code == "checkpoint-unsafe"
    assert not marker.exists()


def test_whole_module(tmp_path: Path) -> None:
    path = tmp_path / "module.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    assert _error(path).code == "checkpoint-unsafe"


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_every_truncation_is_named(tmp_path: Path, kind: str) -> None:
    whole, path = tmp_path / "whole", tmp_path / "cut.pt"
    tensors = {"a": torch.arange(500.0), "b": torch.ones(20)}
    if kind == "safetensors":
        save_file(tensors, whole)
    else:
        torch.save({"state_dict": tensors}, whole, _use_new_zipfile_serialization=kind == "zip")
    data = whole.read_bytes()
    for share in (0.02, 0.1, 0.3, 0.5, 0.9, 0.99):
        path.write_bytes(data[: int(len(data) * share)])
        assert _error(path).code in ("checkpoint-truncated", "checkpoint-format")


def test_bytes_that_are_no_checkpoint(tmp_path: Path) -> None:
    cases = {"text.pt": b"not a checkpoint at all", "empty.pt": b"", "zip.pt": b"PK\x03\x04" + b"0" * 99}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
    assert _error(tmp_path / "text.pt").code == "checkpoint-format"
    assert _error(tmp_path / "empty.pt").code == "checkpoint-format"
    assert _error(tmp_path / "zip.pt").code == "checkpoint-truncated"
    assert _error(tmp_path / "missing.pt").code == "checkpoint-missing"
    (tmp_path / "folder.pt").mkdir()
    assert _error(tmp_path / "folder.pt").code == "checkpoint-missing"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ([1, 2], "checkpoint-empty"),
        ({}, "checkpoint-empty"),
        ({"epoch": 3}, "checkpoint-empty"),
        ({"a": torch.tensor([1.0, float("nan")])}, "checkpoint-nonfinite"),
        ({0: TENSORS}, "checkpoint-empty"),
        ({"a": torch.eye(3).to_sparse()}, "checkpoint-tensor"),
        ({"a": torch.empty(3, device="meta")}, "checkpoint-tensor"),
        ({"a": torch.zeros(1).expand(10**7, 10**6)}, "checkpoint-tensor"),
        ({"a": torch.tensor([1.0, float("inf")], dtype=torch.float16)}, "checkpoint-nonfinite"),
    ],
)
def test_contents_that_are_no_network(tmp_path: Path, value: Any, code: str) -> None:
    torch.save(value, tmp_path / "x.pt")
    assert _error(tmp_path / "x.pt").code == code
