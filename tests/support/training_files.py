"""Checkpoints as training frameworks write them. The frameworks' classes exist only while a file is written."""

from __future__ import annotations

import argparse
import enum
import functools
import sys
import types
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

State = Mapping[str, Tensor]


@contextmanager
def foreign(*classes: tuple[str, type]) -> Iterator[None]:
    """Gives classes dotted names of modules that exist inside the block only, so that no reader can import them."""
    made: list[str] = []
    for path, cls in classes:
        parts = path.split(".")
        for depth in range(1, len(parts)):
            module = ".".join(parts[:depth])
            if module not in sys.modules:
                sys.modules[module] = types.ModuleType(module)
                made.append(module)
        cls.__module__, cls.__qualname__, cls.__name__ = ".".join(parts[:-1]), parts[-1], parts[-1]
        setattr(sys.modules[".".join(parts[:-1])], parts[-1], cls)
    try:
        yield
    finally:
        for module in made:
            del sys.modules[module]


def lightning_1(state: State, path: Path, **how: Any) -> dict[str, int]:
    """As Lightning 1.3: callbacks keyed by class, a Namespace in an AttributeDict. Returns what is put aside."""
    callback, attributes = type("ModelCheckpoint", (), {}), type("AttributeDict", (dict,), {})
    named = (
        ("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint", callback),
        ("pytorch_lightning.utilities.parsing.AttributeDict", attributes),
    )
    with foreign(*named):
        arguments = argparse.Namespace(batch_size=4, ckpt_path=None, args=[1, 2])
        torch.save({
            **_training(state),
            "pytorch-lightning_version": "1.3.5",
            "state_dict": OrderedDict(state),
            "callbacks": {callback: {"monitor": "auc@10", "best_model_score": torch.tensor(0.6)}},
            "hparams_name": "kwargs",
            "hyper_parameters": attributes(args=arguments, lr=1e-3),
        }, path, **how)  # fmt: skip
    return {"argparse.Namespace": 1, **{name: 1 for name, _ in named}}


def lightning_2(state: State, path: Path, **how: Any) -> dict[str, int]:
    """As Lightning 2: callbacks keyed by a text, progress of loops, an enum, paths. Returns what is put aside."""
    precision = enum.Enum("PrecisionType", {"HALF": "16-mixed"})
    scheduler = type("WarmupCosine", (), {})
    with foreign(("lightning.fabric.enums.PrecisionType", precision), ("project.schedules.WarmupCosine", scheduler)):
        progress = {"total": {"ready": 10, "completed": 10}, "current": {"ready": 1, "completed": 1}}
        schedule = scheduler()
        schedule.__dict__.update(steps=5, best=(1.5, float("inf")), inner=scheduler())
        torch.save({
            **_training(state),
            "pytorch-lightning_version": "2.5.0",
            "state_dict": dict(state),
            "loops": {"fit_loop": {"epoch_progress": progress, "state_dict": {}}},
            "callbacks": {"ModelCheckpoint{'monitor': 'auc', 'mode': 'max'}": {"best": "x.ckpt", "k": {"a": 0.5}}},
            "MixedPrecision": {"scale": 65536.0, "_growth_tracker": 3},
            "hyper_parameters": {"precision": precision.HALF, "root": PurePosixPath("/data"), "schedule": schedule},
        }, path, **how)  # fmt: skip
    return {"lightning.fabric.enums.PrecisionType": 1, "project.schedules.WarmupCosine": 2, _path_class(): 1}


def omegaconf(state: State, path: Path, **how: Any) -> dict[str, int]:
    """Hyper-parameters of OmegaConf: nodes that name their parents, hence circles. Returns what is put aside."""
    names = ("dictconfig.DictConfig", "listconfig.ListConfig", "nodes.AnyNode", "base.ContainerMetadata")
    kinds = {name.split(".")[1]: type(name.split(".")[1], (), {}) for name in names}
    with foreign(*((f"omegaconf.{name}", kinds[name.split(".")[1]]) for name in names)):

        def node(kind: str, content: Any, parent: Any) -> Any:
            made, about = kinds[kind](), kinds["ContainerMetadata"]()
            about.__dict__.update(ref_type=Any, object_type=dict, key=None, flags={"struct": True})
            if isinstance(content, dict):
                content = {key: node("AnyNode", value, made) for key, value in content.items()}
            made.__dict__.update(_metadata=about, _parent=parent, _content=content)
            return made

        root = node("DictConfig", {"lr": 1e-3, "name": "x"}, None)
        root._content["sizes"] = node("ListConfig", [], root)
        torch.save({**_training(state), "state_dict": OrderedDict(state), "hyper_parameters": root}, path, **how)
    counts = {"DictConfig": 1, "ListConfig": 1, "AnyNode": 2, "ContainerMetadata": 4}
    return {f"omegaconf.{name}": counts[name.split(".")[1]] for name in names}


def averaged(state: State, path: Path, **how: Any) -> dict[str, int]:
    """With a twin of averaged weights, argparse, NumPy's numbers and a partial. Returns what is put aside."""
    ema, collate = type("ModelEMA", (), {}), type("Collate", (), {})
    with foreign(("trainer.ema.ModelEMA", ema), ("trainer.data.Collate", collate)):
        twin = ema()
        twin.__dict__.update(decay=0.999, shadow={key: tensor.clone() for key, tensor in state.items()}, updates=7)
        seen: defaultdict[str, list[int]] = defaultdict(list)
        seen["a"].append(1)
        torch.save({
            **_training(state),
            "model": {key: torch.nn.Parameter(t) if t.is_floating_point() else t for key, t in state.items()},
            "ema": twin,
            "args": argparse.Namespace(lr=1e-3, betas=(0.9, 0.999)),
            "best": np.float64(0.5),
            "history": np.arange(3.0),
            "collate": functools.partial(collate, 3, pad=True),
            "seen": seen,
            "tags": {"night", "day"},
            "random": (3, (1, 2, 3), None),
        }, path, **how)  # fmt: skip
    core = "numpy._core" if int(np.__version__.split(".")[0]) > 1 else "numpy.core"
    array: tuple[str, ...] = (f"{core}.multiarray._reconstruct", "numpy.ndarray")
    if how.get("pickle_protocol", 2) >= 5:
        array: tuple[str, ...] = (f"{core}.numeric._frombuffer",)
    return {
        **dict.fromkeys(("argparse.Namespace", "functools.partial", "numpy.dtype", *array), 1),
        f"{core}.multiarray.scalar": 1,
        "trainer.data.Collate": 1,
        "trainer.ema.ModelEMA": 1,
    }


STYLES: dict[str, Callable[..., dict[str, int]]] = {
    "lightning-1": lightning_1,
    "lightning-2": lightning_2,
    "omegaconf": omegaconf,
    "averaged": averaged,
}


def small_state(seed: int = 0) -> dict[str, Tensor]:
    """A few tensors of the types that networks have."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "matcher.conv.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "matcher.bn.running_mean": torch.randn(4, generator=generator),
        "matcher.bn.num_batches_tracked": torch.tensor(5),
        "matcher.head.weight": torch.randn(3, 4, generator=generator).half(),
        "matcher.head.bias": torch.randn(3, generator=generator).bfloat16(),
    }


def _training(state: State) -> dict[str, Any]:
    """Counters, and an optimizer that holds two tensors for each weight."""
    trained = [tensor for tensor in state.values() if tensor.is_floating_point()]
    moments = {i: {"step": torch.tensor(9.0), "exp_avg": t * 0.1, "exp_avg_sq": t * t} for i, t in enumerate(trained)}
    group = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "foreach": None, "params": list(moments)}
    return {
        "epoch": 29,
        "global_step": 46000,
        "optimizer_states": [{"state": moments, "param_groups": [group]}],
        "lr_schedulers": [{"milestones": {3: 1, 6: 1}, "gamma": 0.5, "_last_lr": [1e-4]}],
    }


def _path_class() -> str:
    return f"{PurePosixPath.__module__}.PurePosixPath"
