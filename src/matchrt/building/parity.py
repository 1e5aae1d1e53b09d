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
from matchrt.export.passes.standard import run_standard
from matchrt.export.to_onnx import ExportOptions, export_onnx
from matchrt.export.weights.network import LoadedNetwork
from matchrt.manifest import InputContract
from matchrt.models.parts.engine_graph import PLAIN_INPUTS, EngineGraph

Arrays = dict[str, npt.NDArray[Any]]
Rows = npt.NDArray[np.float64]
# DESIGN, fidelity: torch to ONNX to session, fp32.
MAX_PIXELS = 1e-3
# Scores closer to the threshold than this may fall on either side of it.
SCORE_TOLERANCE = 1e-4
# Matches of two results are the same one when their points are closer than this, in pixels; then they are compared.
SAME_MATCH = 0.5
# Where torch's own choice of a pixel was closer than this (relative), rounding may choose the other one, which lies
# within the same windows: not farther than this, in pixels.
TIE, TIE_PIXELS = 1e-4, 10.0
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

    ties: matches whose pixel the network chose by less than rounding, and the other result chose otherwise.
    pixel_limit, score_limit: of dense warps they are others (`compare_dense`).
    """

    matches: int
    lost: int
    extra: int
    pixels: float
    score: float
    ties: int = 0
    pixel_limit: float = MAX_PIXELS
    score_limit: float = 10 * SCORE_TOLERANCE

    @property
    def same(self) -> bool:
        """Whether this is rounding and nothing else."""
        few_ties = self.ties <= 1 + self.matches // 20
        close = self.pixels <= self.pixel_limit and self.score <= self.score_limit
        return self.lost == self.extra == 0 and few_ties and close


def sample_inputs(contract: InputContract, stride: int, seed: int = 0) -> list[Arrays]:
    """Textured pairs, the second image shifted, which trained and many random weights match.

    The shift is two coarse cells, or the divisor where networks see nothing finer. Static: one batch of pairs whose
    second images are padded, so that the masks are exercised. Dynamic: a pair at the profile's best size, and one of
    two other sizes, so that a size that was frozen by the export shows.
    """
    shift = max(2 * stride, contract.divisor)
    if contract.profile is None:
        assert contract.height is not None and contract.width is not None
        size = (contract.height, contract.width)
        pairs = [_pair(size, size, shift, seed + 100 * index, contract.channels) for index in range(contract.batch)]
        inputs = {name: np.concatenate([pair[name] for pair in pairs]) for name in PLAIN_INPUTS}
        if contract.fitting == "stretch":
            return [inputs | _coarse_copies(inputs, contract.coarse)]
        narrower = (size[0], size[1] - contract.divisor)
        inputs["image1"][:, :, narrower[1] :] = 0
        sizes = {"size0": size, "size1": narrower}
        return [inputs | {name: np.array([value] * contract.batch, np.int32) for name, value in sizes.items()}]
    best, least, step = contract.profile.optimum, contract.profile.minimum, contract.divisor
    narrow = (best[0], max(least[1], best[1] // 2 // step * step))
    flat = (max(least[0], best[0] * 3 // 4 // step * step), best[1])
    return [_pair(*sizes, shift, seed, contract.channels) for sizes in ((best, best), (narrow, flat))]


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
    texture = np.stack([_texture(height, width, seed + channel) for channel in range(channels)], axis=2)
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
    """The graph's outputs by name, computed by torch; with `margin`, where the network has one."""
    names = [name for name in graph.inputs if name in inputs]
    assert len(names) == len(inputs)
    with torch.inference_mode():
        values = graph.tensors(*(torch.from_numpy(inputs[name]) for name in names))
    return {name: value.numpy() for name, value in values.items()}


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
    """Compares the matches as sets, pair by pair: near-equal scores may swap places.

    A match that only one side has counts when its score is clearly above what the other side admits: the threshold,
    or its weakest match where all its slots are taken. Graphs with a dense warp are compared by that (`compare_dense`):
    their matches are the best pixels of cells, where rounding may prefer a neighbour of the same certainty.
    """
    if "warp" in expected:
        return compare_dense(expected, actual)
    results = [
        _compare_one(_one(expected, index), _one(actual, index), threshold)
        for index in range(len(expected["num_matches"]))
    ]
    return Difference(
        sum(r.matches for r in results),
        sum(r.lost for r in results),
        sum(r.extra for r in results),
        max(r.pixels for r in results),
        max(r.score for r in results),
        sum(r.ties for r in results),
    )


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
    return Difference(
        counts, lost, 0, pixels, max(scores, certainty), pixel_limit=MEDIAN_PIXELS, score_limit=MEAN_CERTAINTY
    )


def _one(outputs: Arrays, index: int) -> Arrays:
    return {name: value[index] for name, value in outputs.items()}


def _compare_one(expected: Arrays, actual: Arrays, threshold: float) -> Difference:
    first, second = _rows(expected), _rows(actual)
    partner = _partners(first, second)
    paired = np.flatnonzero(partner >= 0)
    gaps = np.abs(first[paired] - second[partner[paired]])
    lost = np.flatnonzero((partner < 0) & (first[:, 4] > _floor(actual, threshold)))
    alone = np.setdiff1d(np.arange(len(second)), partner)
    extra = alone[second[alone, 4] > _floor(expected, threshold)]
    ties = _ties(first, second, lost, alone, expected.get("margin"))
    left = [index for index in extra if index not in ties.values()]
    pixels, score = (float(part.max(initial=0.0)) for part in (gaps[:, :4], gaps[:, 4]))
    return Difference(len(paired), len(lost) - len(ties), len(left), pixels, score, len(ties))


def _partners(first: Rows, second: Rows) -> npt.NDArray[np.int64]:
    """Of every row of `first` the nearest row of `second` within SAME_MATCH, each used once; -1 where there is none."""
    partner = np.full(len(first), -1)
    if not len(first) or not len(second):
        return partner
    nearest, distance = np.empty(len(first), np.int64), np.empty(len(first))
    for start in range(0, len(first), 256):  # all pairs at once would not fit into memory where there are many
        block = slice(start, start + 256)
        gaps = np.max([np.abs(first[block, axis, None] - second[None, :, axis]) for axis in range(4)], axis=0)
        nearest[block], distance[block] = gaps.argmin(axis=1), gaps.min(axis=1)
    taken: set[int] = set()
    for index in np.argsort(distance, kind="stable"):
        if distance[index] > SAME_MATCH:
            break
        if nearest[index] not in taken:
            partner[index] = nearest[index]
            taken.add(int(nearest[index]))
    return partner


def _ties(
    first: Rows, second: Rows, lost: npt.NDArray[Any], alone: npt.NDArray[Any], margin: npt.NDArray[Any] | None
) -> dict[int, int]:
    """Lost matches whose pixel was chosen by a tie -> the other result's match with the pixel chosen otherwise."""
    found: dict[int, int] = {}
    if margin is None:
        return found
    for index in (index for index in lost if margin[index] < TIE):
        gaps = np.abs(second[alone] - first[index])
        near = (gaps[:, :4].max(axis=1, initial=0.0) <= TIE_PIXELS) & (gaps[:, 4] <= SCORE_TOLERANCE)
        free = [int(other) for other in alone[near] if other not in found.values()]
        if free:
            found[int(index)] = free[0]
    return found


def _floor(outputs: Arrays, threshold: float) -> float:
    scores = outputs["scores"]
    full = int(outputs["num_matches"]) == len(scores)
    return (max(threshold, float(scores[-1])) if full else threshold) + SCORE_TOLERANCE


def _rows(outputs: Arrays) -> Rows:
    """[N, 5]: both points and the score of every match."""
    parts = (outputs["keypoints0"], outputs["keypoints1"], outputs["scores"][:, None])
    return np.concatenate(parts, axis=1)[: int(outputs["num_matches"])].astype(np.float64)


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
    return replace(
        worst,
        matches=min(r.matches for r in results),
        score=max(r.score for r in results),
        ties=sum(r.ties for r in results),
    )
