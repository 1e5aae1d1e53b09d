"""Which modules are there: missing, broken and unknown versions are named errors."""

from __future__ import annotations

import importlib.abc
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.cuda_stub import CudaStub
from support.machines import Machine, install_cuda, make_machine

from matchrt.errors import InternalError, MatchRTError
from matchrt.nvidia.cuda import call, cuda_runtime
from matchrt.nvidia.device import current_gpu, find_gpus, free_memory
from matchrt.nvidia.modules import BACKENDS, make_dialect, open_dialect


class _Hidden(importlib.abc.MetaPathFinder):
    def __init__(self, *names: str) -> None:
        self.names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".", maxsplit=1)[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def hide(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As if it was not installed."""
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [_Hidden(name), *sys.meta_path])


@pytest.mark.parametrize(("backend", "extra"), [("tensorrt", "tensorrt"), ("tensorrt_rtx", "rtx")])
def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch, backend: str, extra: str) -> None:
    hide(monkeypatch, backend)
    with pytest.raises(MatchRTError) as caught:
        open_dialect(backend)
    assert caught.value.code == "package-missing" and f"'matchrt[{extra}]'" in caught.value.remedy
    assert BACKENDS[backend] == extra


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_package_whose_libraries_do_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: str) -> None:
    monkeypatch.delitem(sys.modules, backend, raising=False)
    (tmp_path / f"{backend}.py").write_text("raise ImportError('libnvinfer.so.11: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MatchRTError) as caught:
        open_dialect(backend)
    assert caught.value.code == "package-broken" and "libnvinfer.so.11" in caught.value.message
    assert f"matchrt[{BACKENDS[backend]}]" in caught.value.remedy


@pytest.mark.parametrize(
    ("backend", "version"),
    [("tensorrt", "8.6.1"), ("tensorrt", "10.0.1"), ("tensorrt", "12.0.0.1"), ("tensorrt_rtx", "1.3.0.35")],
)
def test_versions_that_nobody_tried(backend: str, version: str) -> None:
    module = ModuleType(backend)
    module.__version__ = version  # type: ignore[attr-defined]
    with pytest.raises(MatchRTError) as caught:
        make_dialect(backend, module)
    assert caught.value.code == "package-version" and version in caught.value.message


@pytest.mark.parametrize(
    ("kind", "version", "name"),
    [("tensorrt-10", "10.1.0", "TensorRT10"), ("tensorrt-10", "10.16.1.11", "TensorRT10"),
     ("tensorrt-11", "11.0.0.114", "TensorRT11"), ("rtx", "1.4.0.76", "TensorRTRTX"), ("rtx", "2.0", "TensorRTRTX")],
)  # fmt: skip
def test_each_version_has_its_dialect(monkeypatch: pytest.MonkeyPatch, kind: str, version: str, name: str) -> None:
    machine = make_machine(monkeypatch, kind, version)
    dialect = open_dialect(machine.backend)
    assert type(dialect).__name__ == name and dialect.version == version


def test_cuda_python_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "cuda")
    for asking in (cuda_runtime, find_gpus, current_gpu):
        with pytest.raises(MatchRTError) as caught:
            asking()
        assert caught.value.code == "package-missing" and "matchrt[" in caught.value.remedy


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = CudaStub(capability=(12, 0), gpus=2)
    install_cuda(monkeypatch, cuda)
    first, second = find_gpus()
    assert (first.index, first.name, first.compute_capability, first.driver) == (0, "Stub 0", "12.0", "13.0")
    assert first.runtime == "12.9" and first.memory == 2**33 and second.index == 1
    assert current_gpu() == first and free_memory() == 2**32
    cuda.gpus = 0
    assert find_gpus() == ()
    with pytest.raises(MatchRTError) as caught:
        current_gpu()
    assert caught.value.code == "device-missing"
    cuda.failing["cudaGetDeviceCount"] = "cudaErrorLaunchFailure"
    with pytest.raises(MatchRTError) as caught:
        find_gpus()
    assert caught.value.code == "cuda-failed"


@pytest.mark.parametrize(
    ("name", "code"),
    [("cudaErrorInsufficientDriver", "device-missing"), ("cudaErrorMemoryAllocation", "out-of-memory"),
     ("cudaErrorLaunchFailure", "cuda-failed")],
)  # fmt: skip
def test_errors_of_cuda(machine: Machine, name: str, code: str) -> None:
    machine.cuda.failing["cudaMalloc"] = name
    with pytest.raises(MatchRTError) as caught:
        call(cuda_runtime().cudaMalloc, 8)
    assert caught.value.code == code
    if code == "cuda-failed":
        assert isinstance(caught.value, InternalError) and caught.value.message == f"cudaMalloc failed: {name}."
