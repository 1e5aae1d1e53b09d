"""Whether two forms of the same network give the same matches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from matchrt.errors import InternalError
from matchrt.export.engine_graph import MASKED_INPUTS, OUTPUTS, PLAIN_INPUTS, LoFTRGraph
from matchrt.manifest import InputContract

Arrays = dict[str, npt.NDArray[Any]]
# DESIGN, fidelity: torch to ONNX to session, fp32.
MAX_PIXELS = 1e-3
# Scores closer to the threshold than this may fall on either side of it.
SCORE_TOLERANCE = 1e-4


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


def sample_inputs(contract: InputContract, stride: int, seed: int = 0) -> Arrays:
    """A textured image and the same shifted by two coarse cells: a pair that trained and many random weights match."""
    if contract.profile is None:
        assert contract.height is not None and contract.width is not None
        height, width = contract.height, contract.width
    else:
        height, width = contract.profile.optimum
    shift = 2 * stride
    texture = _texture(height + shift, width + shift, seed)
    images = {"image0": texture[:height, :width], "image1": texture[shift:, shift:]}
    inputs: Arrays = {name: np.ascontiguousarray(image)[None, :, :, None] for name, image in images.items()}
    if contract.profile is None:
        # A padded second image, so that the masks are exercised.
        valid = np.array([[height, width - stride]], np.int32)
        inputs["image1"][:, :, width - stride :] = 0
        inputs |= {"size0": np.array([[height, width]], np.int32), "size1": valid}
    return inputs


def _texture(height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """Noise on several scales, which looks a little like gravel: distinct everywhere."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 1, height, width)
    for scale in (2, 4, 8, 16, 32):
        noise = torch.rand(1, 1, height // scale + 2, width // scale + 2, generator=generator)
        image += torch.nn.functional.interpolate(noise, size=(height, width), mode="bilinear") * scale**0.5
    low, high = image.min(), image.max()
    return ((image[0, 0] - low) / (high - low) * 255).byte().numpy()


def run_torch(graph: LoFTRGraph, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """The graph's outputs by name, computed by torch."""
    names = [name for name in MASKED_INPUTS if name in inputs]
    assert tuple(names) in (MASKED_INPUTS, PLAIN_INPUTS)
    with torch.inference_mode():
        values = graph(*(torch.from_numpy(inputs[name]) for name in names))
    return {name: value.numpy() for name, value in zip(OUTPUTS, values, strict=True)}


def run_onnx(model: onnx.ModelProto, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """The graph's outputs by name, computed by ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), dict(inputs)), strict=True))


def compare(expected: Arrays, actual: Arrays, threshold: float) -> Difference:
    """Compares the matches of a single pair as sets: near-equal scores may swap places."""
    first, second = _as_map(expected), _as_map(actual)
    both = first.keys() & second.keys()
    clear = threshold + SCORE_TOLERANCE
    pixels = max((float(np.abs(first[k][:4] - second[k][:4]).max()) for k in both), default=0.0)
    score = max((float(abs(first[k][4] - second[k][4])) for k in both), default=0.0)
    lost = sum(first[k][4] > clear for k in first.keys() - both)
    extra = sum(second[k][4] > clear for k in second.keys() - both)
    return Difference(len(both), int(lost), int(extra), pixels, score)


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
