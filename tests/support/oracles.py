"""Independent implementations that networks are compared with: timm and Hugging Face's transformers."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

import pytest

_UNASKED = ("nms", "qnms")
# Kept alive: an operator is known to torch for as long as its library object lives.
_DECLARED: list[object] = []


def oracle(name: str) -> ModuleType:
    """The module of that name, or a skipped test where it is not installed.

    Both packages import torchvision. PyPI's torchvision is built for CUDA and finds its operators missing beside a
    torch for the CPU; then importing it stops at the operators that it describes unasked. No network here uses an
    operator of torchvision, so these are declared, by name and signature only, and the import goes on.
    """
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    _import_torchvision()
    return importlib.import_module(name)


def _import_torchvision() -> None:
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return  # transformers does without
    except RuntimeError:
        import torch

        for loaded in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
            del sys.modules[loaded]
        library = torch.library.Library("torchvision", "DEF")
        for operator in _UNASKED:
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)
        importlib.import_module("torchvision")
