"""torch to ONNX with torch's own `torch.export`-based exporter.

Every family uses this exporter. It gives the smaller graph, keeps the module path of every node, writes weights beyond
2 GB as external data and exports the operators of dense networks. The older TorchScript exporter does none of this, and
torch does not maintain it any more. The opset is 18, because opset 20's GridSample is reported wrong in some TensorRT
versions.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx
import torch

from matchrt.errors import InternalError
from matchrt.export.contract import ExportOptions
from matchrt.export.weights.network import LoadedNetwork
from matchrt.families.base import Preprocess
from matchrt.manifest import SIZELESS
from matchrt.models.parts.engine_graph import MASKED_INPUTS, OUTPUTS

OPSET = 18
# The name of the first dimension of engines that take any number of pairs.
PAIRS = "pairs"


def export_onnx(loaded: LoadedNetwork, options: ExportOptions) -> onnx.ModelProto:
    """The engine graph of a loaded network, before any pass. Input sizes are as in `contract.input_contract`."""
    graph = loaded.spec.family.graph(loaded.network, options.max_matches).eval()
    arguments, dynamic = _example(options, loaded.spec.preprocess)
    with _quiet():
        try:
            program = torch.onnx.export(
                graph,
                arguments,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(graph.inputs[: len(arguments)]),
                output_names=list(graph.outputs),
                dynamic_shapes=dynamic,
                external_data=False,
                optimize=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise InternalError(
                "export-failed", f"torch could not export {loaded.spec.name}: {error}", "Report this as a bug."
            ) from error
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    if options.profile is not None:
        _name_dimensions(model)
    elif options.any_batch:
        _name_pairs(model)
    return model


def drop_dense(model: onnx.ModelProto) -> None:
    """Takes the outputs that engines have only on request off the graph."""
    kept = [value for value in model.graph.output if value.name in OUTPUTS]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def _example(options: ExportOptions, preprocess: Preprocess) -> tuple[tuple[torch.Tensor, ...], Any]:
    """Arguments for `EngineGraph.forward`, and its dynamic dimensions."""
    divisor, channels = preprocess.divisor, preprocess.channels
    if options.profile is None:
        shape = (options.batch, options.height, options.width, channels)
        images = [torch.zeros(shape, dtype=torch.uint8) for _ in range(2)]
        if preprocess.static in SIZELESS:
            coarse = None if options.coarse is None else (options.batch, *options.coarse, channels)
            copies = [] if coarse is None else [torch.zeros(coarse, dtype=torch.uint8) for _ in range(2)]
            return (*images, *copies), None
        sizes = [torch.tensor([shape[1:3]] * options.batch, dtype=torch.int32) for _ in range(2)]
        return (*images, *sizes), _any_pairs(options) if options.any_batch else None
    height, width = options.profile.optimum
    # Four different sides, so that the exporter cannot take two of them for the same symbol.
    sides = ((height, width), (height + divisor, width + 2 * divisor))
    arguments = tuple(torch.zeros(1, h, w, channels, dtype=torch.uint8) for h, w in sides)
    dynamic = {}
    for index in (0, 1):
        (low_h, low_w), (high_h, high_w) = options.profile.minimum, options.profile.maximum
        rows = torch.export.Dim(f"rows{index}", min=low_h // divisor, max=high_h // divisor + 1)
        columns = torch.export.Dim(f"columns{index}", min=low_w // divisor, max=high_w // divisor + 2)
        dynamic[f"image{index}"] = {1: divisor * rows, 2: divisor * columns}
    return arguments, dynamic


def _any_pairs(options: ExportOptions) -> dict[str, dict[int, Any]]:
    pairs = torch.export.Dim(PAIRS, min=1, max=options.batch)
    return {name: {0: pairs} for name in MASKED_INPUTS}


def _name_pairs(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = PAIRS


def _name_dimensions(model: onnx.ModelProto) -> None:
    for index in (0, 1):
        shape = model.graph.input[index].type.tensor_type.shape
        shape.dim[1].dim_param, shape.dim[2].dim_param = f"height{index}", f"width{index}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's notes about packages that are not needed off the user's screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
