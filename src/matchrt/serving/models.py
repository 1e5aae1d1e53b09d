"""The models of the protocol: three views of each engine.

| model         | inputs                              | outputs                                  |
| ------------- | ----------------------------------- | ---------------------------------------- |
| `NAME`        | two images, UINT8 `[H, W, 1 or 3]`  | matches in pixels of the images as given |
| `NAME-files`  | two image files, BYTES `[1]`        | the same                                 |
| `NAME-engine` | the engine's own tensors            | the engine's own tensors                 |

The first two give the matches of `matchrt match`. The third has the engine's contract (docs/engine-contract.md), as
Triton has it with a repository of `matchrt export-triton`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.image import Image, as_image
from matchrt.runtime.matches import Matches
from matchrt.runtime.preprocess import PreparedImage
from matchrt.runtime.session import check_inputs
from matchrt.runtime.trials import Trials, first_options
from matchrt.serving.call import Call
from matchrt.serving.failures import bad_request
from matchrt.serving.service import Job, ServedEngine, Service
from matchrt.serving.statistics import ModelStatistics
from matchrt.serving.tensors import InferCall, Tensor, TensorInfo
from matchrt.serving.wishes import Wishes
from matchrt.serving.workers import Run

VERSION = "1"
PLATFORM = "matchrt"
# Triton's path for the statistics of all models, in the place of a model's name.
_STATISTICS = "stats"
Tensors = Mapping[str, Tensor]
_MATCHES = (
    TensorInfo("keypoints0", "FP32", (-1, 2)),
    TensorInfo("keypoints1", "FP32", (-1, 2)),
    TensorInfo("scores", "FP32", (-1,)),
)


class Model(Protocol):
    """One view of an engine."""

    @property
    def name(self) -> str:
        """The model's name in the protocol."""
        ...

    @property
    def engine(self) -> ServedEngine:
        """The engine that runs it."""
        ...

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The declared inputs."""
        ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The declared outputs."""
        ...

    @property
    def statistics(self) -> ModelStatistics:
        """Its counters."""
        ...

    def job(self, request: InferCall, call: Call) -> Job[list[Tensor]]:
        """The request as a job: it has rows for the engine, and makes the model's outputs from the engine's.

        call: how long it may take. Error: request-invalid.
        """
        ...


def models_of(service: Service) -> dict[str, Model]:
    """All models of a service by name. Error: serve-name if two would have the same name, or one a reserved one."""
    models: dict[str, Model] = {}
    for engine in service.engines.values():
        batch = engine.manifest.input.batch
        plain, files, own = engine.name, files_model(engine.name), f"{engine.name}-engine"
        pixels = tuple(TensorInfo(f"image{i}", "UINT8", (-1, -1, -1)) for i in (0, 1))
        whole_files = tuple(TensorInfo(f"image{i}", "BYTES", (1,)) for i in (0, 1))
        views: tuple[Model, ...] = (
            PairModel(plain, engine, ModelStatistics(plain), pixels),
            PairModel(files, engine, ModelStatistics(files), whole_files),
            EngineModel(
                own,
                engine,
                ModelStatistics(own),
                tuple(TensorInfo.of(spec, batch) for spec in engine.manifest.inputs),
                tuple(TensorInfo.of(spec, batch) for spec in engine.manifest.outputs),
            ),
        )
        for model in views:
            if model.name == _STATISTICS:
                what = f"No model can be named '{_STATISTICS}': /v2/models/{_STATISTICS} has the statistics of all."
                raise MatchRTError("serve-name", what, "Rename the engine.")
            if model.name in models:
                raise MatchRTError("serve-name", f"Two models would be named '{model.name}'.", "Rename an engine.")
            models[model.name] = model
    return models


def files_model(engine: str) -> str:
    """The name of the model that takes image files, of an engine of that name."""
    return f"{engine}-files"


def find(models: Mapping[str, Model], name: str, version: str = VERSION) -> Model:
    """The model of that name and version. Error: model-not-served."""
    if name not in models or version not in ("", VERSION):
        what = f"'{name[:80]}'" if name not in models else f"version '{version[:20]}' of '{name}'"
        raise MatchRTError("model-not-served", f"No model {what} is served.", f"Served: {', '.join(models)}.")
    return models[name]


@dataclass(frozen=True)
class PairModel:
    """A model that takes two images, or image files, and gives matches.

    name: the model's name in the protocol.
    engine: what runs it.
    statistics: its counters.
    inputs: the declared inputs: UINT8 `[H, W, C]`, or BYTES `[1]` for files.
    outputs: the declared outputs: keypoints FP32 `[N, 2]` in pixels of the images as given, and scores FP32 `[N]`.
    """

    name: str
    engine: ServedEngine
    statistics: ModelStatistics
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...] = _MATCHES

    def job(self, request: InferCall, call: Call) -> Job[list[Tensor]]:
        """The request as a pair of images. Errors: request-invalid, and those of `pair_job`."""
        _require_tensors(request.tensors, self.inputs)
        read0, read1 = (partial(_image, request.tensors[info.name], self.engine, call) for info in self.inputs)
        pair, _ = pair_job(self.engine, (read0, read1), Wishes.of(request.parameters), call)

        def finish(run: Run) -> list[Tensor]:
            matches = pair.finish(run)
            return [Tensor(name, "FP32", getattr(matches, name)) for name in ("keypoints0", "keypoints1", "scores")]

        return Job(pair.inputs, finish)


@dataclass(frozen=True)
class EngineModel:
    """A model that takes and gives the engine's own tensors, in rows up to the engine's batch.

    name: the model's name in the protocol.
    engine: what runs it.
    statistics: its counters.
    inputs: the declared inputs, as the engine's manifest lists them.
    outputs: the declared outputs, likewise.
    """

    name: str
    engine: ServedEngine
    statistics: ModelStatistics
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def job(self, request: InferCall, call: Call) -> Job[list[Tensor]]:
        """The request's tensors as the engine takes them. Errors: request-invalid, session-input."""
        _require_tensors(request.tensors, self.inputs)
        if not Wishes.of(request.parameters).none:
            raise bad_request(
                "An engine's own outputs are as one run gives them.",
                "Leave 'min_score', 'rotate', 'zoom' and 'effort' out, or ask NAME.",
            )
        inputs = {name: tensor.array for name, tensor in request.tensors.items()}
        rows = {len(array) for array in inputs.values()}
        batch = self.engine.manifest.input.batch
        if len(rows) != 1 or not 1 <= max(rows) <= batch:
            raise bad_request("The inputs' first sizes differ or are out of range.", f"Send 1 to {batch} rows of each.")
        _check_rows(inputs, self.engine.manifest)

        def finish(run: Run) -> list[Tensor]:
            return [Tensor(info.name, info.datatype, run.outputs[info.name]) for info in self.outputs]

        return Job(inputs, finish)


def pair_job(
    engine: ServedEngine, reads: tuple[Callable[[], Image], Callable[[], Image]], wishes: Wishes, call: Call
) -> tuple[Job[Matches], tuple[Image, Image]]:
    """The job that matches two images as `Matcher.match` does, and the images.

    reads: decode the images to uint8 `[H, W]` or `[H, W, 3]`. Both are decoded and resized at the same time.
    wishes: what the request asks for. Only if it asks for further runs, the job keeps the images.
    call: how long it may take, further runs included.

    The matches' timings `decode` and `resize` are times that the pair waited, and not sums over its images: until both
    were decoded, and from then until both were resized. Errors: image-* of image0, or else those of image1; fit-size,
    size-memory.
    """
    options = wishes.options(engine.max_pixels)
    adapter = engine.adapter(first_options(options))
    start = time.perf_counter()

    def prepare(read: Callable[[], Image]) -> tuple[Image, float, PreparedImage]:
        image = read()
        return image, time.perf_counter(), adapter.prepare(image)

    (image0, end0, first), (image1, end1, second) = engine.helpers.both(*(partial(prepare, read) for read in reads))
    decoded, end = max(end0, end1), time.perf_counter()
    before = {"decode": (decoded - start) * 1e3, "resize": (end - decoded) * 1e3}
    again = (image0, image1) if options.tries_more else None

    def finish(run: Run) -> Matches:
        matches = adapter.matches((first, second), run.outputs, {**before, "inference": run.milliseconds})
        if again is None:
            return matches
        return Trials(engine.manifest, options).improved(matches, *again, partial(_run, engine, call))

    return Job(adapter.inputs(first, second), finish), (image0, image1)


def _run(engine: ServedEngine, call: Call, adapter: PairAdapter, image0: Image, image1: Image) -> Matches:
    """A further run of a pair, which waits for its turn as a request of its own does."""
    call.check()
    images = adapter.prepare_pair(image0, image1)
    run = call.wait(engine.workers.submit(adapter.inputs(*images)))
    return adapter.matches(images, run.outputs, {"inference": run.milliseconds})


def _require_tensors(tensors: Tensors, infos: tuple[TensorInfo, ...]) -> None:
    wanted = [info.name for info in infos]
    if sorted(tensors) != sorted(wanted):
        raise bad_request(f"The inputs are not {', '.join(wanted)}.", "GET the model's metadata for its inputs.")
    for info in infos:
        tensor = tensors[info.name]
        shape = tensor.array.shape
        fits = len(shape) == len(info.shape) and all(
            want in (-1, have) for want, have in zip(info.shape, shape, strict=True)
        )
        if tensor.datatype != info.datatype or not fits:
            raise bad_request(
                f"'{info.name}' is {tensor.datatype} {list(shape)}, not {info.datatype} {list(info.shape)}.",
                "GET the model's metadata for its inputs.",
            )


def _image(tensor: Tensor, engine: ServedEngine, call: Call) -> Image:
    if tensor.datatype == "BYTES":
        return engine.decoders.decode(tensor.array.item(), tensor.name, call)
    return as_image(tensor.array, name=tensor.name, max_pixels=engine.max_pixels)


def _check_rows(inputs: Mapping[str, Any], manifest: EngineManifest) -> None:
    """Raises what `Session.run` would raise, before the rows can spoil a run that other requests share."""
    batch = manifest.input.batch
    # These views take no memory; only names, types and shapes are checked.
    full = {
        name: np.broadcast_to(array[:1], (batch, *array.shape[1:])) if batch > 1 else array
        for name, array in inputs.items()
    }
    check_inputs(full, manifest)
