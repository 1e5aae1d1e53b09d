"""Whether two forms of the same network give the same matches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from matchrt.errors import InternalError
from matchrt.export.engine_graph import MASKED_INPUTS, OUTPUTS, PLAIN_INPUTS, EngineGraph
from matchrt.export.network import LoadedNetwork
from matchrt.export.passes.base import run_passes
from matchrt.export.passes.standard import standard_passes
from matchrt.export.to_onnx import ExportOptions, export_onnx
from matchrt.manifest import InputContract

Arrays = dict[str, npt.NDArray[Any]]
# DESIGN, fidelity: torch to ONNX to session, fp32.
MAX_PIXELS = 1e-3
# Scores closer to the threshold than this may fall on either side of it.
SCORE_TOLERANCE = 1e-4
# Fewer matches than this prove little.
ENOUGH = 20


@dataclass(frozen=True)
class Difference:
    """matches: in both results; lost, extra: beyond rounding at the threshold; pixels, score: largest differences."""

    matches: int
    lost: int
    extra: int
    pixels: float
    score: float

    @property
    def same(self) -> bool:
        """Whether this is rounding and nothing else."""
        return self.lost == self.extra == 0 and self.pixels <= MAX_PIXELS and self.score <= 10 * SCORE_TOLERANCE


def sample_inputs(contract: InputContract, stride: int, seed: int = 0) -> list[Arrays]:
    """Textured pairs, the second image shifted by two coarse cells, which trained and many random weights match.

    Static: one pair whose second image is padded, so that the masks are exercised. Dynamic: a pair at the profile's
    best size, and one of two other sizes, so that a size that was frozen by the export shows.
    """
    if contract.profile is None:
        assert contract.height is not None and contract.width is not None
        height, width = contract.height, contract.width
        inputs = _pair((height, width), (height, width), 2 * stride, seed)
        inputs["image1"][:, :, width - stride :] = 0
        sizes = {"size0": (height, width), "size1": (height, width - stride)}
        return [inputs | {name: np.array([size], np.int32) for name, size in sizes.items()}]
    best, least = contract.profile.optimum, contract.profile.minimum
    narrow = (best[0], max(least[1], best[1] // 2 // stride * stride))
    flat = (max(least[0], best[0] * 3 // 4 // stride * stride), best[1])
    return [_pair(best, best, 2 * stride, seed), _pair(narrow, flat, 2 * stride, seed)]


def _pair(size0: tuple[int, int], size1: tuple[int, int], shift: int, seed: int) -> Arrays:
    height, width = (max(sides) + shift for sides in zip(size0, size1, strict=True))
    texture = _texture(height, width, seed)
    images = {
        "image0": texture[: size0[0], : size0[1]],
        "image1": texture[shift : shift + size1[0], shift : shift + size1[1]],
    }
    return {name: np.ascontiguousarray(image)[None, :, :, None] for name, image in images.items()}


def _texture(height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """Noise on several scales, which looks a little like gravel: distinct everywhere."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 1, height, width)
    for scale in (2, 4, 8, 16, 32):
        noise = torch.rand(1, 1, height // scale + 2, width // scale + 2, generator=generator)
        image += torch.nn.functional.interpolate(noise, size=(height, width), mode="bilinear") * scale**0.5
    low, high = image.min(), image.max()
    return ((image[0, 0] - low) / (high - low) * 255).byte().numpy()


def run_torch(graph: EngineGraph, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """The graph's outputs by name, computed by torch."""
    names = [name for name in MASKED_INPUTS if name in inputs]
    assert tuple(names) in (MASKED_INPUTS, PLAIN_INPUTS)
    with torch.inference_mode():
        values = graph(*(torch.from_numpy(inputs[name]) for name in names))
    return {name: value.numpy() for name, value in zip(OUTPUTS, values, strict=True)}


def run_onnx(model: onnx.ModelProto, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """The graph's outputs by name, computed by ONNX Runtime on the CPU."""
    return onnx_runner(model)(inputs)


def onnx_runner(model: onnx.ModelProto) -> Callable[[Mapping[str, npt.NDArray[Any]]], Arrays]:
    """`run_onnx` for several inputs: the graph is loaded once."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda inputs: dict(zip(OUTPUTS, session.run(list(OUTPUTS), dict(inputs)), strict=True))


def compare(expected: Arrays, actual: Arrays, threshold: float) -> Difference:
    """Compares the matches of a single pair as sets: near-equal scores may swap places.

    A match that only one side has counts when its score is clearly above what the other side admits: the threshold,
    or its weakest match where all its slots are taken.
    """
    first, second = _as_map(expected), _as_map(actual)
    both = first.keys() & second.keys()
    pixels = max((float(np.abs(first[k][:4] - second[k][:4]).max()) for k in both), default=0.0)
    score = max((float(abs(first[k][4] - second[k][4])) for k in both), default=0.0)
    lost = sum(first[k][4] > _floor(actual, threshold) for k in first.keys() - both)
    extra = sum(second[k][4] > _floor(expected, threshold) for k in second.keys() - both)
    return Difference(len(both), int(lost), int(extra), pixels, score)


def _floor(outputs: Arrays, threshold: float) -> float:
    scores = outputs["scores"][0]
    full = int(outputs["num_matches"][0]) == len(scores)
    return (max(threshold, float(scores[-1])) if full else threshold) + SCORE_TOLERANCE


def _as_map(outputs: Arrays) -> dict[tuple[float, float], npt.NDArray[np.float64]]:
    count = int(outputs["num_matches"][0])
    parts = (outputs["keypoints0"][0], outputs["keypoints1"][0], outputs["scores"][0][:, None])
    rows = np.concatenate(parts, axis=1)[:count].astype(np.float64)
    # The point of image 0 lies on the coarse lattice and has at most one match, so it names the match.
    return {(row[0], row[1]): row for row in rows}


def require_parity(expected: Arrays, actual: Arrays, threshold: float, what: str) -> Difference:
    """Raises `parity` when the two differ by more than rounding."""
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
    """Compares `model` with torch on the sample pairs. Errors: parity, parity-empty.

    Where the threshold leaves too few matches to prove anything, the same network is exported once more with
    threshold 0, and compared too.
    """
    threshold = loaded.spec.family.match_contract(options.max_matches, 0.0).threshold
    worst = _compare_pairs(loaded, options, contract, model, threshold)
    if worst.matches >= ENOUGH:
        return worst
    with loaded.spec.family.probing(loaded.network):
        probe, _ = run_passes(export_onnx(loaded, options), standard_passes())
        worst = _compare_pairs(loaded, options, contract, probe, 0.0)
    if worst.matches == 0:
        raise InternalError(
            "parity-empty",
            f"{loaded.spec.name} with these weights finds no match in the sample pair, so nothing proves the export.",
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
    return Difference(
        min(r.matches for r in results), 0, 0, max(r.pixels for r in results), max(r.score for r in results)
    )
