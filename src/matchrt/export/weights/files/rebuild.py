"""What torch's pickles say of tensors. Records come of it; torch is neither imported nor called.

The names and arguments are those of the functions in `torch._utils` and `torch._tensor` that torch.save names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matchrt.export.weights.files.elements import ALIASES, ELEMENTS, ODD_STORAGES, STORAGES
from matchrt.export.weights.files.names import Name
from matchrt.export.weights.files.problems import DamagedError, shown
from matchrt.export.weights.files.records import OddTensor, StorageRecord, TensorRecord, size, sizes

Tensor = TensorRecord | OddTensor

_PLAIN_BYTES = ("UntypedStorage", "_UntypedStorage")
# Subclasses whose values are those of the tensor inside.
_TENSORS = ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
_ODD = {
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_sparse_csr_tensor": "sparse",
    "_rebuild_qtensor": "quantised",
    "_rebuild_meta_tensor_no_storage": "empty (meta)",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_wrapper_subclass": "wrapped",
    "_rebuild_device_tensor_from_numpy": "on a device of another vendor",
    "_rebuild_device_tensor_from_cpu_tensor": "on a device of another vendor",
    "_rebuild_xla_tensor": "on a device of another vendor",
}


def storage(persistent: object) -> StorageRecord:
    """The storage that a persistent id names. Raises DamagedError.

    The id is ("storage", class, key, device, number of elements), and in the old format also the view of a storage in
    another one, which torch stopped writing before version 1.0.
    """
    if not isinstance(persistent, tuple) or len(persistent) not in (5, 6) or persistent[0] != "storage":
        raise DamagedError("the pickle refers to something that is no storage of a tensor")
    _, kind, key, _, number = persistent[:5]
    if len(persistent) == 6 and persistent[5] is not None:
        raise DamagedError("a storage is a view of another one, as torch wrote them before 1.0")
    if not isinstance(kind, Name) or not isinstance(key, str):
        raise DamagedError("a storage has no class or no name")
    if kind.name in _PLAIN_BYTES:
        return StorageRecord(key, None, size(number))
    if kind.name in ODD_STORAGES:
        return StorageRecord(key, None, size(number), ODD_STORAGES[kind.name], f"of {kind.name}")
    if kind.name not in STORAGES:
        raise DamagedError(f"a storage is of the unknown class {kind}")
    element = ELEMENTS[STORAGES[kind.name]]
    return StorageRecord(key, element, size(number), element.bytes)


def is_known(name: Name) -> bool:
    """Whether the name is one of torch's own for tensors, storages and types. Raises nothing."""
    return name in FUNCTIONS or str(name) in _TENSORS or is_type(name)


def is_type(name: Name) -> bool:
    """Whether it is the name of a storage, or of a type, layout or other constant of torch. Raises nothing."""
    if name.module in ("torch", "torch.storage") and name.name.endswith("Storage"):
        return True
    return name.module == "torch" and (
        name.name in ELEMENTS or name.name in ALIASES or name.name.startswith(("float8_", "float4_", "per_"))
    )


def _tensor(memory: object, offset: object, shape: object, stride: object, dtype: Name | None = None) -> Tensor:
    if not isinstance(memory, StorageRecord):
        raise DamagedError("a tensor has no storage")
    if memory.odd:
        return OddTensor(memory.odd)
    element = memory.element
    if dtype is not None:
        element = ELEMENTS.get(ALIASES.get(dtype.name, dtype.name))
        if element is None:
            return OddTensor(f"of {dtype.name}")
    if element is None:
        return OddTensor("without a type")
    record = TensorRecord(memory, element, size(offset), sizes(shape), sizes(stride))
    if len(record.shape) != len(record.stride):
        raise DamagedError("a tensor's shape and stride differ in length")
    return record


def _tensor_v1(memory: object, offset: object, shape: object, stride: object) -> Tensor:
    return _tensor(memory, offset, shape, stride)


def _tensor_v2(
    memory: object,
    offset: object,
    shape: object,
    stride: object,
    requires_grad: object = False,
    hooks: object = None,
    metadata: object = None,
) -> Tensor:
    return _pending(metadata) or _tensor(memory, offset, shape, stride)


def _tensor_v3(
    memory: object,
    offset: object,
    shape: object,
    stride: object,
    requires_grad: object,
    hooks: object,
    dtype: object,
    metadata: object = None,
) -> Tensor:
    if not isinstance(dtype, Name):
        raise DamagedError("a tensor has no type")
    return _pending(metadata) or _tensor(memory, offset, shape, stride, dtype)


def _pending(metadata: object) -> OddTensor | None:
    """Set for a tensor whose values are to be negated or conjugated when they are read."""
    if isinstance(metadata, dict) and (metadata.get("neg") or metadata.get("conj")):
        return OddTensor("lazily negated or conjugated")
    return None


def _parameter(data: object, *_: object) -> Tensor:
    if not isinstance(data, TensorRecord | OddTensor):
        raise DamagedError("a parameter holds no tensor")
    return data


def _from_type(function: object, kind: object, arguments: object, *_: object) -> Tensor:
    """A tensor with attributes, or of a subclass: what its base class rebuilds, if the subclass is one of torch's."""
    inner = FUNCTIONS.get(function) if isinstance(function, Name) else None
    if inner is None or inner is _from_type or not isinstance(arguments, tuple):
        return OddTensor(f"of the class {kind}" if isinstance(kind, Name) else "of a foreign class")
    found = inner(*arguments)
    return found if str(kind) in _TENSORS else OddTensor(f"of the class {kind}")


def _odd(why: str) -> Callable[..., Tensor]:
    def rebuild(*_: object) -> Tensor:
        return OddTensor(why)

    return rebuild


def _size(shape: object = ()) -> tuple[int, ...]:
    return sizes(shape)


def _text(*arguments: object) -> str:
    """A device or a layout. Of containers nothing is shown: one that holds itself twice over has no end."""
    return shown(arguments[0]) if arguments and isinstance(arguments[0], str | int) else ""


FUNCTIONS: dict[Name, Callable[..., Any]] = {
    Name("torch._utils", "_rebuild_tensor"): _tensor_v1,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor_v2,
    Name("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    Name("torch._utils", "_rebuild_parameter"): _parameter,
    Name("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    Name("torch._tensor", "_rebuild_from_type"): _from_type,
    Name("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    Name("torch", "Size"): _size,
    Name("torch", "device"): _text,
    Name("torch.serialization", "_get_layout"): _text,
    **{Name("torch._utils", name): _odd(why) for name, why in _ODD.items()},
}
