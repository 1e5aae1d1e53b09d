"""The stub's halves put together as the modules `tensorrt` 10 and 11 and `tensorrt_rtx`."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from support.tensorrt_stub import building, running
from support.tensorrt_stub.script import Recorded, Script

_BOTH = ("IBuilderConfig", "ICudaEngine", "IExecutionContext", "Runtime")
_PLAIN = (building.ILogger, building.IProgressMonitor, building.IHostMemory, building.ITensor,
          building.INetworkDefinition, building.ParserError)  # fmt: skip
_RECORDED = (building.Builder, building.OnnxParser, building.IOptimizationProfile, building.ITimingCache)
_TENSORRT = (building.IBuilderConfig, running.ICudaEngine, running.IExecutionContext, running.Runtime)
_RTX = (building.RtxBuilderConfig, running.RtxCudaEngine, running.RtxExecutionContext, running.RtxRuntime)


def make_tensorrt(script: Script, version: str) -> ModuleType:
    """The module `tensorrt` of that version; it becomes the script's."""
    later = tuple(int(part) for part in version.split(".")[:2]) >= (10, 9)
    kinds = {kind.__name__: kind for kind in (*_RECORDED, *_TENSORRT)}
    return _module(
        "tensorrt", version, script, kinds, [building.building_enums(False, later), running.running_enums(False)]
    )


def make_tensorrt_rtx(script: Script, version: str = "1.7.1.116") -> ModuleType:
    """The module `tensorrt_rtx`; it becomes the script's."""
    kinds: dict[str, type] = {kind.__name__: kind for kind in _RECORDED}
    kinds |= dict(zip(_BOTH, _RTX, strict=True))
    kinds |= {"IRuntimeConfig": running.IRuntimeConfig, "IRuntimeCache": running.IRuntimeCache}
    return _module(
        "tensorrt_rtx", version, script, kinds, [building.building_enums(True, True), running.running_enums(True)]
    )


def _module(name: str, version: str, script: Script, kinds: dict[str, type], enums: list[Any]) -> ModuleType:
    module = ModuleType(name)
    module.__version__ = version  # type: ignore[attr-defined]
    for kind in _PLAIN:
        setattr(module, kind.__name__, kind)
    for public, kind in kinds.items():
        assert issubclass(kind, Recorded)
        setattr(module, public, type(public, (kind,), {"_script": script}))
    for group in enums:
        for public, enum in vars(group).items():
            setattr(module, public, enum)
    script.module = module
    return module
