"""Whether two forms of the same network give the same matches."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from matchrt.errors import InternalError
from matchrt.export.engine_graph import EngineGraph
from matchrt.export.network import LoadedNetwork
from matchrt.export.passes.standard import run_standard
from matchrt.export.to_onnx import ExportOptions, export_onnx
from matchrt.manifest import InputContract

Arrays = dict[str, npt.NDArray[Any]]
# DESIGN, fidelity: torch to ONNX to session, fp32.
MAX_PIXELS = 1e-3
# Scores closer to the threshold than this may fall on either side of it.
SCORE_TOLERANCE = 1e-4
# Matches further apart than this, in pixels, are not the same match.
SAME_PLACE = 0.5
# A dense warp is compared where its certainty is above this: half of it within so many pixels, and all but a share of
# it within one. Where features are much alike, the Gaussian process has no more than three digits in float32 (a
# float32 Cholesky too), which flips one to three of 1600 patches to another anchor of nearly the same logit; through
# the refiners that moves everything a little. Measured at 560 and 864 with random weights: docs/models/roma.md.
SURE = 0.05
MEDIAN_PIXELS = 0.02
MEAN_CERTAINTY = 5e-3
FLIPPED = 0.05
# Graphs of more bytes than this are compared with as few copies of them as possible.
LARGE = 1 << 28
# Fewer matches than this prove little.
ENOUGH = 20


@dataclass(frozen=True)
class Difference:
    """matches: in both results; lost, extra: beyond rounding at the threshold; pixels, score: largest differences.

    Of dense warps as `compare_dense` has it, with its limits.
    """

    matches: int
    lost: int
    extra: int
    pixels: float
    score: float
    pixel_limit: float = MAX_PIXELS
    score_limit: float = 10 * SCORE_TOLERANCE

    @property
    def same(self) -> bool:
        """Whether this is rounding and nothing else."""
        return self.lost == self.extra == 0 and self.pixels <= self.pixel_limit and self.score <= self.score_limit


def sample_inputs(contract: InputContract, stride: int, seed: int = 0) -> list[Arrays]:
    """Textured pairs, the second image shifted by two coarse cells, which trained and many random weights match.

    Static: one pair whose second image is padded, so that the masks are exercised. Dynamic: a pair at the profile's
    best size, and one of two other sizes, so that a size that was frozen by the export shows.
    """
    if contract.profile is None:
        assert contract.height is not None and contract.width is not None
        height, width = contract.height, contract.width
        inputs = _pair((height, width), (height, width), 2 * stride, seed, contract.channels)
        if contract.fitting == "stretch":
            return [inputs | _coarse_copies(inputs, contract.coarse)]
        inputs["image1"][:, :, width - stride :] = 0
        sizes = {"size0": (height, width), "size1": (height, width - stride)}
        return [inputs | {name: np.array([size], np.int32) for name, size in sizes.items()}]
    best, least = contract.profile.optimum, contract.profile.minimum
    narrow = (best[0], max(least[1], best[1] // 2 // stride * stride))
    flat = (max(least[0], best[0] * 3 // 4 // stride * stride), best[1])
    channels = contract.channels
    return [_pair(best, best, 2 * stride, seed, channels), _pair(narrow, flat, 2 * stride, seed, channels)]


def _coarse_copies(images: Arrays, size: tuple[int, int] | None) -> Arrays:
    """`coarse0` and `coarse1` for engines that take them."""
    if size is None:
        return {}
    copies = {}
    for index in (0, 1):
        image = torch.from_numpy(images[f"image{index}"]).permute(0, 3, 1, 2).float()
        small = torch.nn.functional.interpolate(image, size=size, mode="area").round().byte()
        copies[f"coarse{index}"] = np.ascontiguousarray(small.permute(0, 2, 3, 1).numpy())
    return copies


def _pair(size0: tuple[int, int], size1: tuple[int, int], shift: int, seed: int, channels: int) -> Arrays:
    height, width = (max(sides) + shift for sides in zip(size0, size1, strict=True))
    # One texture is worth the same as three, but for colour, which the networks may not ignore.
    texture = np.stack([_texture(height, width, seed + 100 * channel) for channel in range(channels)], axis=2)
    images = {
        "image0": texture[: size0[0], : size0[1]],
        "image1": texture[shift : shift + size1[0], shift : shift + size1[1]],
    }
    return {name: np.ascontiguousarray(image)[None] for name, image in images.items()}


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
    names = [name for name in graph.inputs if name in inputs]
    assert len(names) == len(inputs)
    with torch.inference_mode():
        values = graph(*(torch.from_numpy(inputs[name]) for name in names))
    return {name: value.numpy() for name, value in zip(graph.outputs, values, strict=True)}


def run_onnx(model: onnx.ModelProto, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """The graph's outputs by name, computed by ONNX Runtime on the CPU."""
    return onnx_runner(model)(inputs)


def onnx_runner(model: onnx.ModelProto) -> Callable[[Mapping[str, npt.NDArray[Any]]], Arrays]:
    """`run_onnx` for several inputs: the graph is loaded once."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    if model.ByteSize() < LARGE:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    else:  # a session made from bytes keeps them
        options.enable_cpu_mem_arena = False
        with tempfile.TemporaryDirectory(prefix="matchrt-") as folder:
            path = Path(folder) / "graph.onnx"
            with path.open("wb") as stream:
                stream.write(model.SerializeToString())
            session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    names = [value.name for value in model.graph.output]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def compare(expected: Arrays, actual: Arrays, threshold: float) -> Difference:
    """Compares the matches of a single pair as sets: near-equal scores may swap places.

    A match that only one side has counts when its score is clearly above what the other side admits: the threshold,
    or its weakest match where all its slots are taken. Graphs with a dense warp are compared by that (`compare_dense`):
    their matches are the best pixels of cells, where rounding may prefer a neighbour of the same certainty.
    """
    if "warp" in expected:
        return compare_dense(expected, actual)
    first, second = _rows(expected), _rows(actual)
    pairs = _pairs(first, second)
    difference = np.abs(first[pairs[:, 0]] - second[pairs[:, 1]])
    pixels, score = (float(difference[:, part].max(initial=0.0)) for part in (slice(0, 4), slice(4, 5)))
    lost = _unpaired(first, pairs[:, 0], _floor(actual, threshold))
    extra = _unpaired(second, pairs[:, 1], _floor(expected, threshold))
    return Difference(len(pairs), lost, extra, pixels, score)


def compare_dense(expected: Arrays, actual: Arrays) -> Difference:
    """Compares dense warps and certainties, and the number and scores of the matches that were selected from them.

    pixels: median distance of the sure part of the warp. score: mean difference of the certainties, or of the sorted
    scores where that is more. lost: pixels of the warp that moved by more than one, beyond the share `FLIPPED`.
    """
    sure = expected["certainty"] > SURE
    height, width = expected["certainty"].shape[1:]
    # With both directions the map is twice as wide as an image: distances along x then count double.
    half = np.array([width, height, width, height], np.float32) / 2.0
    distance = (np.abs(expected["warp"] - actual["warp"]) * half).max(axis=3)[sure]
    pixels = float(np.median(distance)) if distance.size else 0.0
    scores = float(np.abs(expected["scores"] - actual["scores"]).mean())
    certainty = float(np.abs(expected["certainty"] - actual["certainty"]).mean())
    lost = max(0, int((distance > 1.0).sum()) - int(FLIPPED * distance.size))
    counts = min(int(arrays["num_matches"][0]) for arrays in (expected, actual))
    return Difference(counts, lost, 0, pixels, max(scores, certainty), MEDIAN_PIXELS, MEAN_CERTAINTY)


def _rows(outputs: Arrays) -> npt.NDArray[np.float64]:
    """[N, 5]: x0, y0, x1, y1, score of the matches."""
    count = int(outputs["num_matches"][0])
    parts = (outputs["keypoints0"][0], outputs["keypoints1"][0], outputs["scores"][0][:, None])
    return np.concatenate(parts, axis=1)[:count].astype(np.float64)


def _pairs(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """[P, 2]: rows that are each other's nearest and less than half a pixel apart in all four coordinates."""
    if not len(first) or not len(second):
        return np.zeros((0, 2), np.int64)
    chunks = [np.abs(part[:, None, :4] - second[None, :, :4]).max(axis=2) for part in np.array_split(first, 32)]
    distance = np.concatenate(chunks)
    best, back = distance.argmin(axis=1), distance.argmin(axis=0)
    rows = np.arange(len(first))
    near = (distance[rows, best] < SAME_PLACE) & (back[best] == rows)
    return np.stack([rows[near], best[near]], axis=1)


def _unpaired(rows: npt.NDArray[np.float64], paired: npt.NDArray[np.int64], floor: float) -> int:
    """How many rows outside `paired` have a score above `floor`."""
    alone = np.delete(rows[:, 4], paired)
    return int((alone > floor).sum())


def _floor(outputs: Arrays, threshold: float) -> float:
    scores = outputs["scores"][0]
    full = int(outputs["num_matches"][0]) == len(scores)
    return (max(threshold, float(scores[-1])) if full else threshold) + SCORE_TOLERANCE


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
        probe, _ = run_standard(export_onnx(loaded, options))
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
    worst = max(results, key=lambda result: result.pixels)
    return replace(worst, matches=min(r.matches for r in results), score=max(r.score for r in results))
