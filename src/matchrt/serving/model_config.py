"""What Triton's model configuration and model repository extensions say of our models.

The names are those of Triton's model_config.proto (github.com/triton-inference-server/common). Programs such as
perf_analyzer ask for them to learn whether a model batches, and which tensors it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matchrt.runtime.backend import get_backend
from matchrt.serving.models import PLATFORM, VERSION, EngineModel, Model
from matchrt.serving.options import ServeOptions
from matchrt.serving.tensors import TensorInfo


def model_config(model: Model, options: ServeOptions) -> dict[str, Any]:
    """The configuration of a model, as HTTP's JSON has it; ModelConfig has the same fields. Raises nothing.

    Only a model of the engine's own tensors takes several rows in one request. Then `max_batch_size` is not 0, and the
    sizes of tensors are without the rows.
    """
    manifest = model.engine.manifest
    largest = manifest.input.batch if isinstance(model, EngineModel) and manifest.input.batch > 1 else 0
    gpu = get_backend(manifest.backend).device(options.device) == "cuda"
    group = {
        "name": f"{model.name}_0",
        "count": options.workers,
        "kind": "KIND_GPU" if gpu else "KIND_CPU",
    }
    config: dict[str, Any] = {
        "name": model.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": largest,
        "input": [_tensor(info, largest) for info in model.inputs],
        "output": [_tensor(info, largest) for info in model.outputs],
        "instance_group": [group],
        "parameters": {"matchrt_engine_sha256": {"string_value": manifest.engine_sha256}},
        "model_transaction_policy": {"decoupled": False},
    }
    if largest:
        config["dynamic_batching"] = {
            "preferred_batch_size": [largest],
            "max_queue_delay_microseconds": round(options.batch_wait * 1e6),
        }
    return config


def repository_index(models: Mapping[str, Model], ready: bool, only_ready: bool) -> list[dict[str, str]]:
    """All models with their versions and states, in order. Raises nothing.

    ready: whether the service takes requests. only_ready: leave out models that take none.
    """
    if only_ready and not ready:
        return []
    state, reason = ("READY", "") if ready else ("UNAVAILABLE", "the service is shutting down")
    return [{"name": name, "version": VERSION, "state": state, "reason": reason} for name in models]


def _tensor(info: TensorInfo, largest: int) -> dict[str, Any]:
    kind = "TYPE_STRING" if info.datatype == "BYTES" else f"TYPE_{info.datatype}"
    return {"name": info.name, "data_type": kind, "dims": list(info.shape[1:] if largest else info.shape)}
