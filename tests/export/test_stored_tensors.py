"""Tensors of every type and layout: what torch reads is read to the bit, and what cannot be read is named."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.pickles import archive, named, saved, state, storage, tensor

from matchrt.errors import MatchRTError
from matchrt.export.weights.read import digest_tensors, read_checkpoint, read_stored

TYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32",
         "uint64", "bool", "complex64", "complex128"]  # fmt: skip


def _values(kind: str) -> torch.Tensor:
    return torch.tensor([[0, 1, 2], [3, 4, 100]]).to(getattr(torch, kind))


def _error(path: Path) -> MatchRTError:
    with pytest.raises(MatchRTError) as caught:
        read_checkpoint(path)
    assert path.name in caught.value.message and len(caught.value.message) < 600
    return caught.value


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_every_type_is_read_to_the_bit(tmp_path: Path, kind: str, form: str) -> None:
    value, path = _values(kind), tmp_path / "x"
    if form == "safetensors":
        if kind == "complex128":
            pytest.skip("safetensors has no such type")
        save_file({"a": value}, path)
    else:
        torch.save({"a": value}, path, _use_new_zipfile_serialization=form == "zip")
    found = read_checkpoint(path)
    assert found.tensors["a"].dtype == value.dtype and torch.equal(found.tensors["a"], value)
    assert found.tensors_sha256 == digest_tensors({"a": value})
    assert read_stored(path).tensors["a"].shape == (2, 3)


LAYOUTS: dict[str, Any] = {
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "channels last": torch.arange(48.0).reshape(2, 3, 2, 4).contiguous(memory_format=torch.channels_last),
    "a slice": torch.arange(20.0).reshape(4, 5)[1:3, ::2],
    "a scalar": torch.tensor(3.5),
    "no values": torch.empty(0, 3),
    "a slice without values": torch.arange(6.0)[6:],
    "32 axes": torch.ones((1,) * 31 + (2,)),
    "a parameter": torch.nn.Parameter(torch.ones(3)),
    "a buffer": torch.nn.Buffer(torch.ones(3)),
    "repeated in place": torch.arange(8.0)[:2].expand(3, 2),
}


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read(tmp_path: Path, name: str, form: str) -> None:
    value = LAYOUTS[name]
    torch.save({"a": value}, tmp_path / "x.pt", _use_new_zipfile_serialization=form == "zip")
    found = read_checkpoint(tmp_path / "x.pt").tensors["a"]
    assert found.shape == value.shape and torch.equal(found, value.detach())


def test_tensors_of_one_storage_share_memory(tmp_path: Path) -> None:
    whole = torch.arange(1000.0)
    torch.save({"a": whole, "b": whole[500:], "tied": whole}, tmp_path / "x.pt")
    found = read_checkpoint(tmp_path / "x.pt").tensors
    assert torch.equal(found["b"], whole[500:])
    assert found["tied"].data_ptr() == found["a"].data_ptr() == found["b"].data_ptr() - 500 * 4


def test_tensors_with_attributes_are_tensors(tmp_path: Path) -> None:
    value = torch.arange(3.0)
    value.note = {"a": 1}  # type: ignore[attr-defined]
    torch.save({"a": value}, tmp_path / "x.pt")
    assert torch.equal(read_checkpoint(tmp_path / "x.pt").tensors["a"], torch.arange(3.0))


class Tagged(torch.Tensor):
    """A subclass that is not torch's."""


def _odd() -> dict[str, Any]:
    warnings.simplefilter("ignore")
    ones = torch.ones(2, 2)
    return {
        "sparse": ones.to_sparse(),
        "compressed": ones.to_sparse_csr(),
        "quantised": torch.quantize_per_tensor(ones, 1.0, 0, torch.qint8),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "meta": torch.empty(3, device="meta"),
        "float8": ones.to(torch.float8_e4m3fn),
        "float8 of five": ones.to(torch.float8_e5m2),
        "float4": torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        "conjugate": torch.ones(2, dtype=torch.complex64).conj(),
        "negative": torch.ones(2, dtype=torch.complex64).conj().imag,
        "expanded": torch.zeros(1).expand(10**7, 10**6),
        "33 axes": torch.ones((1,) * 33),
        "a subclass": torch.ones(2).as_subclass(Tagged),
    }


@pytest.mark.parametrize("name", _odd())
def test_what_is_no_dense_tensor_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.pt").write_bytes(saved({"fine": torch.ones(2), "odd.weight": _odd()[name]}))
    error = _error(tmp_path / "x.pt")
    assert error.code == "checkpoint-tensor" and "odd.weight" in error.message and "fine" not in error.message
    # Among what is ignored it does no harm.
    (tmp_path / "x.pt").write_bytes(saved({"state_dict": {"a": torch.ones(2)}, "odd": [_odd()[name]]}))
    assert list(read_checkpoint(tmp_path / "x.pt").tensors) == ["a"]


def test_types_of_safetensors_that_are_not_read(tmp_path: Path) -> None:
    save_file({"odd.weight": torch.ones(4).to(torch.float8_e4m3fn), "fine": torch.ones(1)}, tmp_path / "x.safetensors")
    error = _error(tmp_path / "x.safetensors")
    assert error.code == "checkpoint-tensor" and "odd.weight (of F8_E4M3)" in error.message


@pytest.mark.parametrize(
    ("pushed", "code"),
    [
        (tensor("0", (5,), (1,)), "checkpoint-tensor"),
        (tensor("0", (4,), (1,), offset=1), "checkpoint-tensor"),
        (tensor("0", (2,), (4,)), "checkpoint-tensor"),
        (tensor("0", (1 << 40, 1 << 40), (0, 0)), "checkpoint-tensor"),
        (tensor("0", (4,), (1,), offset=1 << 70), "checkpoint-truncated"),
        (tensor("0", (4,), (-1 & 0xFFFFFFFFFFFFFFFFFF,)), "checkpoint-truncated"),
        (tensor("0", (4,), (1, 1)), "checkpoint-truncated"),
        (tensor("0", (1,) * 33, (1,) * 33), "checkpoint-tensor"),
        (tensor("0", (1,) * 65, (1,) * 65), "checkpoint-truncated"),
        (tensor("0", (8,), (1,), number=8), "checkpoint-truncated"),
        (tensor("0", (2,), (1,), number=2), "checkpoint-truncated"),
        (tensor("0", (2,), (1,), number=1 << 62), "checkpoint-truncated"),
        (tensor("1", (4,), (1,)), "checkpoint-truncated"),
        (tensor("../version", (4,), (1,)), "checkpoint-truncated"),
        (tensor("0", (4,), (1,), kind="DoubleStorage", number=4), "checkpoint-truncated"),
        (tensor("0", (4,), (1,), kind="QInt8Storage", number=16), "checkpoint-tensor"),
        (tensor("0", (4,), (1,), kind="UnknownStorage"), "checkpoint-truncated"),
        (tensor("0", (0, 1 << 62), (1, 1)), "checkpoint-tensor"),
        (storage("0", 4), "checkpoint-empty"),
        (named("torch._utils", "_rebuild_tensor_v2") + b"(tR", "checkpoint-truncated"),
        (named("torch._utils", "_rebuild_parameter") + b"(K\x01K\x01K\x01tR", "checkpoint-truncated"),
    ],
)  # fmt: skip
def test_tensors_that_are_lies(tmp_path: Path, pushed: bytes, code: str) -> None:
    archive(tmp_path / "x.pt", state({"a": pushed}))
    assert _error(tmp_path / "x.pt").code == code


def test_two_types_of_one_storage_are_refused(tmp_path: Path) -> None:
    archive(tmp_path / "x.pt", state({"a": tensor("0", (4,), (1,)), "b": tensor("0", (4,), (1,), kind="IntStorage")}))
    assert _error(tmp_path / "x.pt").code == "checkpoint-truncated"


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int64", "complex64"])
def test_files_of_big_endian_machines(tmp_path: Path, kind: str) -> None:
    """torch itself is the judge: it writes such a file, and reads it."""
    value = torch.tensor([1, 2, 300]).to(getattr(torch, kind))
    native = saved({"a": value})
    torch.save({"a": value}, tmp_path / "little.pt")
    with zipfile.ZipFile(io.BytesIO(native)) as file, zipfile.ZipFile(tmp_path / "big.pt", "w") as swapped:
        for name in file.namelist():
            data = file.read(name)
            if name.endswith("byteorder"):
                data = b"big"
            elif "/data/" in name:
                step = 4 if kind == "complex64" else value.element_size()
                data = b"".join(data[i : i + step][::-1] for i in range(0, len(data), step))
            swapped.writestr(name, data)
    assert torch.equal(torch.load(tmp_path / "big.pt", weights_only=True)["a"], value)
    big, little = read_checkpoint(tmp_path / "big.pt"), read_checkpoint(tmp_path / "little.pt")
    assert torch.equal(big.tensors["a"], value) and big.tensors_sha256 == little.tensors_sha256


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "bfloat16", "complex64"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_no_network_has(tmp_path: Path, kind: str, value: float) -> None:
    torch.save({"a": torch.ones(3), "b": torch.tensor([1.0, value, 3.0]).to(getattr(torch, kind))}, tmp_path / "x.pt")
    error = _error(tmp_path / "x.pt")
    assert error.code == "checkpoint-nonfinite" and ": b." in error.message


def test_the_largest_values_are_finite(tmp_path: Path) -> None:
    state = {
        kind: torch.tensor(torch.finfo(getattr(torch, kind)).max, dtype=getattr(torch, kind)) for kind in TYPES[:4]
    }
    torch.save(state, tmp_path / "x.pt")
    assert len(read_checkpoint(tmp_path / "x.pt").tensors) == 4


def test_old_tensors_without_hooks(tmp_path: Path) -> None:
    """torch before 0.2 wrote `_rebuild_tensor`, and Python 2 wrote its own kind of texts."""
    rebuilt = named("torch._utils", "_rebuild_tensor") + b"(" + storage("0", 4) + b"K\x00(K\x04t(K\x01ttR"
    pickled = b"\x80\x02}U\x03k\xc3\xa9" + rebuilt + b"s."
    found = read_checkpoint(archive(tmp_path / "x.pt", pickled)).tensors
    assert list(found) == ["k\N{LATIN SMALL LETTER E WITH ACUTE}"] and found.popitem()[1].tolist() == [1, 2, 3, 4]


def test_weights_larger_than_the_memory_are_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(1000), "b": torch.ones(2)}, tmp_path / "x.pt")
    save_file({"a": torch.ones(1000)}, tmp_path / "x.safetensors")
    monkeypatch.setattr("matchrt.export.weights.files.stored.available_bytes", lambda: 3999)
    for name in ("x.pt", "x.safetensors"):
        assert _error(tmp_path / name).code == "checkpoint-memory"


def test_a_sparse_file_of_a_hundred_terabytes(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (10**14, 10**14)
    with (tmp_path / "x.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        try:
            file.truncate(8 + len(header) + 10**14)
        except OSError:
            pytest.skip("the file system has no files of that size")
    assert _error(tmp_path / "x.safetensors").code == "checkpoint-memory"


def test_arrays_of_numpy_are_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2).numpy()}}, tmp_path / "x.pt")
    error = _error(tmp_path / "x.pt")
    assert error.code == "checkpoint-empty" and "arrays of NumPy under a" in error.message


def test_text_of_the_device_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(
        saved(
            {
                "state_dict": {"a": torch.ones(2)},
                "device": torch.device("cuda:0"),
                "type": torch.float16,
                "size": torch.Size([2]),
            }
        )
    )
    assert read_checkpoint(tmp_path / "x.pt").put_aside == ()
