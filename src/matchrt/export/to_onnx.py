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
from dataclasses import dataclass
from typing import Any

import onnx
import torch

from matchrt.errors import InternalError, MatchRTError
from matchrt.export.weights.network import LoadedNetwork
from matchrt.families.base import Preprocess
from matchrt.manifest import SIZELESS, InputContract, Profile
from matchrt.models.parts.engine_graph import MASKED_INPUTS, OUTPUTS

OPSET = 18
# The name of the first dimension of engines that take any number of pairs.
PAIRS = "pairs"


@dataclass(frozen=True)
class ExportOptions:
    """What the graph is built for.

    height: the height of both images, in pixels; padding is masked by the inputs `size0` and `size1`.
    width: the width of both images, in pixels.
    max_matches: the number of matches that one pair can give at most.
    profile: where given, images of any size within it, each at its own size, without padding and size inputs.
    batch: the number of pairs that one run matches; with `any_batch`, the largest.
    coarse: (height, width) of the smaller copies of the images, for models that take such.
    dense: whether the dense outputs are returned too, for models that have them.
    any_batch: whether a run takes any number of pairs from 1 to `batch`.
    """

    height: int
    width: int
    max_matches: int = 2048
    profile: Profile | None = None
    batch: int = 1
    coarse: tuple[int, int] | None = None
    dense: bool = False
    any_batch: bool = False


def input_contract(preprocess: Preprocess, options: ExportOptions) -> InputContract:
    """The contract that the manifest states.

    Errors: size-divisor, size-range, size-square, dynamic-unsupported, matches-range, batch-range.
    """
    sizes = [(options.height, options.width)]
    if options.profile is not None:
        profile = options.profile
        sizes = [profile.minimum, profile.optimum, profile.maximum]
        if not all(a <= b <= c for a, b, c in zip(*sizes, strict=True)):
            raise MatchRTError("size-range", "A profile must have MIN <= OPT <= MAX.", "Reorder the three sizes.")
    divisor = preprocess.divisor if options.coarse is not None else max(preprocess.divisor, preprocess.coarse_divisor)
    for height, width in sizes:
        _require_size(height, width, divisor)
    if options.coarse is not None:
        _require_size(*options.coarse, preprocess.coarse_divisor, "coarse ")
    if not 1 <= options.max_matches <= 65536:
        raise MatchRTError(
            "matches-range", f"--max-matches {options.max_matches} is outside 1..65536.", "Use 2048, say."
        )
    if not 1 <= options.batch <= 64 or (options.batch > 1 and options.profile is not None):
        raise MatchRTError(
            "batch-range",
            f"--batch {options.batch} is outside 1..64, or above 1 in a dynamic engine.",
            "Use e.g. --batch 8 with --height and --width.",
        )
    if options.any_batch and (options.batch == 1 or preprocess.static in SIZELESS):
        raise MatchRTError(
            "batch-range",
            f"--batch 1..{options.batch} is no range, or this model's graph takes a fixed number of pairs only.",
            "Use e.g. --batch 1..8 with a model of the LoFTR or EfficientLoFTR family, or --batch 8.",
        )
    channels, kernel, batch = preprocess.channels, preprocess.kernel, options.batch
    if options.profile is None:
        if preprocess.static in ("pad-square", "square") and options.height != options.width:
            raise MatchRTError(
                "size-square",
                f"This model pads images to a square; {options.height}x{options.width} is not a square.",
                "Give --height and --width the same value.",
            )
        size = (options.height, options.width)
        return InputContract(
            channels,
            divisor,
            preprocess.static,
            kernel,
            batch,
            *size,
            coarse=options.coarse,
            any_batch=options.any_batch,
        )
    if preprocess.dynamic is None:
        raise MatchRTError(
            "dynamic-unsupported",
            "This model's input has a fixed size, and its preprocessing brings every image to it.",
            "Leave --dynamic out; choose the size with --height and --width.",
        )
    return InputContract(channels, divisor, preprocess.dynamic, kernel, profile=options.profile)


def _require_size(height: int, width: int, divisor: int, which: str = "") -> None:
    for name, side in (("height", height), ("width", width)):
        if side % divisor:
            low = max(divisor, side // divisor * divisor)
            raise MatchRTError(
                "size-divisor",
                f"The {which}{name} {side} is not a multiple of {divisor}.",
                f"The nearest multiples are {low} and {low + divisor}.",
            )
        # Below that, hardly a cell is left inside the border. Patches of 14 pixels have no border.
        low = max(64, 4 * divisor) if divisor < 56 else 2 * divisor
        if not low <= side <= 256 * divisor:
            raise MatchRTError(
                "size-range",
                f"The {which}{name} {side} is outside {low}..{256 * divisor}.",
                "Position codes end at 256 cells; choose a size within that range.",
            )


def export_onnx(loaded: LoadedNetwork, options: ExportOptions) -> onnx.ModelProto:
    """The engine graph of a loaded network, before any pass. Input sizes are as in `input_contract`."""
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
