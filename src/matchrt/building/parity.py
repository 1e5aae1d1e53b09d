"""The parity check: whether an exported graph gives the matches that torch gives."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from matchrt.bench.agreement import ENOUGH
from matchrt.bench.dense_agreement import compare_dense
from matchrt.bench.difference import Difference, compare_matches
from matchrt.building.textures import Size, texture_pair
from matchrt.errors import InternalError
from matchrt.export.contract import ExportOptions
from matchrt.export.passes.standard import run_standard
from matchrt.export.to_onnx import export_onnx
from matchrt.export.weights.network import LoadedNetwork
from matchrt.manifest import SIZELESS, InputContract, has_dense
from matchrt.models.parts.engine_graph import PLAIN_INPUTS, EngineGraph

Arrays = dict[str, npt.NDArray[Any]]
# Graphs of more bytes than this are compared with as few copies of them in memory as possible.
LARGE = 1 << 28


def sample_inputs(contract: InputContract, stride: int, seed: int = 0) -> list[Arrays]:
    """Inputs of an engine by name, made from textured pairs (`textures`).

    contract: the engine's input. stride: the coarse stride in pixels.
    A static engine gets one batch of pairs, and a single pair too if it takes any number of pairs. Their second images
    are padded, so that masks are tested. A dynamic engine
    gets a pair at the profile's best size and a pair of two other sizes, which reveals a size that the export froze.
    """
    if contract.profile is None:
        assert contract.height is not None and contract.width is not None
        size = (contract.height, contract.width)
        pairs = [_pair(contract, stride, (size, size), seed + 100 * index) for index in range(contract.batch)]
        inputs = {name: np.concatenate([pair[name] for pair in pairs]) for name in PLAIN_INPUTS}
        if contract.fitting in SIZELESS:
            return [inputs | _coarse_copies(inputs, contract.coarse)]
        narrower = (size[0], size[1] - contract.divisor)
        inputs["image1"][:, :, narrower[1] :] = 0
        sizes = {"size0": size, "size1": narrower}
        inputs |= {name: np.array([value] * contract.batch, np.int32) for name, value in sizes.items()}
        # A number of pairs that the export froze shows in a run of another number.
        return [inputs, {name: array[:1] for name, array in inputs.items()}] if contract.any_batch else [inputs]
    best, least, step = contract.profile.optimum, contract.profile.minimum, contract.divisor
    narrow = (best[0], max(least[1], best[1] // 2 // step * step))
    flat = (max(least[0], best[0] * 3 // 4 // step * step), best[1])
    return [_pair(contract, stride, sizes, seed) for sizes in ((best, best), (narrow, flat))]


def _coarse_copies(images: Arrays, size: tuple[int, int] | None) -> Arrays:
    """The inputs `coarse0` and `coarse1`, uint8 [B, h, w, C], for engines that take them."""
    if size is None:
        return {}
    copies = {}
    for index in (0, 1):
        image = torch.from_numpy(images[f"image{index}"]).permute(0, 3, 1, 2).float()
        small = torch.nn.functional.interpolate(image, size=size, mode="area").round().byte()
        copies[f"coarse{index}"] = np.ascontiguousarray(small.permute(0, 2, 3, 1).numpy())
    return copies


def _pair(contract: InputContract, stride: int, sizes: tuple[Size, Size], seed: int) -> Arrays:
    images = texture_pair(contract, stride, sizes, seed)
    return {name: image[None] for name, image in zip(PLAIN_INPUTS, images, strict=True)}


def run_torch(graph: EngineGraph, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Computes the graph's outputs with torch, by name, including `margin` if the network has it."""
    names = [name for name in graph.inputs if name in inputs]
    assert len(names) == len(inputs)
    with torch.inference_mode():
        values = graph.tensors(*(torch.from_numpy(inputs[name]) for name in names))
    return {name: value.numpy() for name, value in values.items()}


def run_onnx(model: onnx.ModelProto, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Computes the graph's outputs with ONNX Runtime on the CPU, by name."""
    return onnx_runner(model)(inputs)


def onnx_runner(model: onnx.ModelProto) -> Callable[[Mapping[str, npt.NDArray[Any]]], Arrays]:
    """A function like `run_onnx` for several inputs, which loads the graph once."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    if model.ByteSize() < LARGE:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    else:  # a session that is made from bytes keeps these bytes in memory
        options.enable_cpu_mem_arena = False
        with tempfile.TemporaryDirectory(prefix="matchrt-") as folder:
            path = Path(folder) / "graph.onnx"
            with path.open("wb") as stream:
                stream.write(model.SerializeToString())
            session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    names = [value.name for value in model.graph.output]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def compare(expected: Arrays, actual: Arrays, threshold: float) -> Difference:
    """How two results of one network differ.

    threshold: the score below which neither side returns matches.
    Graphs with a dense warp are compared by the warp, because their matches are the best pixels of cells, and rounding
    may prefer a neighbour of the same certainty. Other graphs are compared by their matches.
    """
    if has_dense(expected):
        return compare_dense(expected, actual)
    return compare_matches(expected, actual, threshold)


def require_parity(expected: Arrays, actual: Arrays, threshold: float, what: str) -> Difference:
    """Compares two results and returns the difference. what: the subject of the message. Error: parity."""
    difference = compare(expected, actual, threshold)
    if not difference.same:
        raise InternalError(
            "parity",
            f"{what} changed the matches: {difference}.",
            "Report this as a bug, with the model and its options.",
        )
    return difference


def prove_parity(
    loaded: LoadedNetwork, options: ExportOptions, contract: InputContract, model: onnx.ModelProto
) -> Difference:
    """Compares `model` with torch on the sample pairs and returns the largest difference.

    If the threshold leaves too few matches to prove anything, the same network is exported again with threshold 0 and
    compared too. Errors: parity, parity-empty.
    """
    threshold = loaded.spec.family.match_contract(options.max_matches, 0.0).threshold
    worst = _compare_pairs(loaded, options, contract, model, threshold)
    if worst.matches >= ENOUGH:
        return worst
    with loaded.spec.family.probing(loaded.network):
        probe, _ = run_standard(export_onnx(loaded, options))
        worst = _compare_pairs(loaded, options, contract, probe, 0.0)
    if worst.matches == 0:
        raise InternalError(
            "parity-empty",
            f"{loaded.spec.name} with these weights finds no match in the sample pair, so the export cannot be proven.",
            "Check that the checkpoint holds trained weights.",
        )
    return worst


def _compare_pairs(
    loaded: LoadedNetwork, options: ExportOptions, contract: InputContract, model: onnx.ModelProto, threshold: float
) -> Difference:
    family = loaded.spec.family
    graph, run = family.graph(loaded.network, options.max_matches), onnx_runner(model)
    results = [
        require_parity(run_torch(graph, inputs), run(inputs), threshold, "Exporting")
        for inputs in sample_inputs(contract, family.coarse_stride)
    ]
    worst = max(results, key=lambda result: result.pixels)
    return replace(
        worst,
        matches=min(r.matches for r in results),
        score=max(r.score for r in results),
        ties=sum(r.ties for r in results),
    )
