"""What a manifest holds."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from matchrt._util import atomic
from matchrt.manifest.frames import FrameContract

SCHEMA = 2
Dimension = int | str
# Outputs that dense networks have besides their matches, on request (docs/engine-contract.md).
DENSE_OUTPUTS = ("warp", "certainty")
# What RoMa v2 has besides these: the inverse covariance of each position of the warp.
PRECISION_OUTPUT = "precision"
# A match in a self-test's answer is five float32.
ROW_BYTES = 20
# The largest values with which the images of a self-test are made in 32-bit integers.
_MAX_SHIFT, _MAX_CONTRAST = 1 << 20, 1 << 16
Fitting = Literal["letterbox", "aspect", "pad-square", "square", "stretch"]
# Fittings whose static engines take no valid sizes: nothing is padded, or the network finds the padding by itself.
SIZELESS: frozenset[Fitting] = frozenset({"square", "stretch"})
Kernel = Literal["area-linear", "lanczos", "bicubic", "bicubic-aliased", "bilinear-aliased"]
# Kernels that only the host has: neither graphs for frames nor the kernels on GPUs.
HOST_KERNELS: tuple[Kernel, ...] = ("bilinear-aliased",)


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of an engine.

    name: of the tensor.
    dtype: NumPy's type of its elements, such as `uint8`.
    shape: in elements; a string is the name of a dynamic dimension.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...]


@dataclass(frozen=True)
class Profile:
    """The image sizes that a dynamic engine takes, each (height, width) in pixels.

    minimum: the smallest size.
    optimum: the size for which the engine is fastest.
    maximum: the largest size.
    """

    minimum: tuple[int, int]
    optimum: tuple[int, int]
    maximum: tuple[int, int]


@dataclass(frozen=True)
class InputContract:
    """How an image becomes the engine's input.

    channels: 1 for grey (ITU-R 601 luma of the 8-bit image, with OpenCV's integers: `runtime.colours`), 3 for RGB.
    divisor: the sides of the input, in pixels, are multiples of it.
    fitting: how an image comes to the input's size (`runtime.fit.fit_image`):
        letterbox    aspect ratio kept, top-left corner, zeros right and below
        aspect       the image's own aspect ratio, no padding; dynamic engines
        pad-square   sides cut down to multiples of `divisor`, then zeros right and below to a square
        square       zeros right and below make the image a square, and the square is resized
        stretch      to the input's size, whatever the aspect ratio
    kernel: the filter of the resize (`runtime.fit.apply_fit`):
        area-linear  OpenCV, averaging areas to shrink and linear to enlarge
        lanczos, bicubic  Pillow's, which average when they shrink
        bicubic-aliased  OpenCV's, four samples an axis whatever the factor
        bilinear-aliased  OpenCV's, two samples an axis whatever the factor
    batch: the number of pairs in one run; with `any_batch`, the largest.
    height, width: of a static engine's input, pixels; None for a dynamic one.
    profile: the sizes that a dynamic engine takes; None for a static one.
    coarse: (height, width) in pixels of a second, smaller copy of each image, also resized from the original, for
        engines that take `coarse0` and `coarse1` besides `image0` and `image1`; None for other engines.
    any_batch: whether a run takes any number of pairs from 1 to `batch`; all tensors then have that many rows.
    frames: what the engine takes in place of images, if it resizes them itself: `frame0` and `frame1`. The other fields
        are then about what it does with them inside. None for other engines.

    Error: ValueError unless there is either a height and a width, or a profile; and for frames with a profile.
    """

    channels: int
    divisor: int
    fitting: Fitting
    kernel: Kernel
    batch: int = 1
    height: int | None = None
    width: int | None = None
    profile: Profile | None = None
    coarse: tuple[int, int] | None = None
    any_batch: bool = False
    frames: FrameContract | None = None

    def __post_init__(self) -> None:
        if (self.profile is None) == (self.height is None) or (self.height is None) != (self.width is None):
            raise ValueError("an input has either height and width, or a profile")
        if self.frames is not None and self.profile is not None:
            raise ValueError("an input with frames has no profile")


@dataclass(frozen=True)
class MatchContract:
    """How the matching stage in the graph was built.

    max_matches: K, the number of match slots for each pair.
    threshold: the smallest confidence that the engine returns, 0..1.
    border: coarse cells along each edge of the valid area that match nothing.
    mutual: whether only mutually nearest cells match.
    coarse_stride: input pixels along a side of a coarse cell.
    default_score: the smallest confidence that users get unless they ask for less, 0..1; from there on, the model's
        matches are mostly right.
    """

    max_matches: int
    threshold: float
    border: int
    mutual: bool
    coarse_stride: int
    default_score: float = 0.0


@dataclass(frozen=True)
class Source:
    """The checkpoint that an engine was made from.

    name: the checkpoint's file name.
    tensors_sha256: digest of its tensors, whatever the file's name and format.
    licence: of the weights.
    origin: where they come from.
    allowed_missing: network tensors that the checkpoint lacks. They have untrained values, because the user allowed it.
    """

    name: str
    tensors_sha256: str
    licence: str
    origin: str
    allowed_missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Portability:
    """Where engine bytes run, besides their backend.

    compute_capabilities: of the GPUs that they were built for, as `8.9`; empty for engines that need no GPU.
    newer_gpus: whether GPUs of a higher capability than the lowest listed one will do too.
    version: `exact` is only the version of the backend that built them, `newer` that one and later ones, `any` all.
    """

    compute_capabilities: tuple[str, ...] = ()
    newer_gpus: bool = False
    version: Literal["exact", "newer", "any"] = "any"


@dataclass(frozen=True)
class PassRecord:
    """What one graph pass did.

    name: of the pass.
    changed: whether it changed the graph.
    summary: what it changed, as a line for people.
    """

    name: str
    changed: bool
    summary: str


@dataclass(frozen=True)
class SelfTestPair:
    """The image pair of a self-test, which `runtime.self_test.pair` makes of these integers.

    seed: of the noise that the images show.
    shift: how far the second image is moved, (rows, columns) in pixels.
    contrast: of the second image, in 256ths.

    Error: ValueError for numbers that 32-bit arithmetic would not hold.
    """

    seed: int
    shift: tuple[int, int]
    contrast: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed is {self.seed}; it should be 0 to 2147483647")
        if any(abs(by) > _MAX_SHIFT for by in self.shift):
            raise ValueError(f"shift is {self.shift}; each should be at most {_MAX_SHIFT}")
        if not 0 <= self.contrast <= _MAX_CONTRAST:
            raise ValueError(f"contrast is {self.contrast}; it should be 0 to {_MAX_CONTRAST}")


@dataclass(frozen=True)
class SelfTest:
    """What an engine must answer on a machine before its answers are believed there.

    pair: the images.
    kind: how answers are compared: `matches` as they are; `warp`, for dense networks, only where both sides have chosen
        the same pixel, because K matches chosen from a dense warp change with the last bit.
    answer: the fp32 graph's matches: base64 of little-endian float32 `[N, 5]`: x0, y0, x1, y1 in pixels of the input,
        and the score.
    within: smallest share (0..1) of these matches that the engine must have within 1 px.
    pixels: largest median of their distances, in pixels.
    score: largest mean difference of their scores.

    Error: ValueError for an answer that is not such a table, and for limits that are no finite numbers in range.
    """

    pair: SelfTestPair
    kind: Literal["matches", "warp"]
    answer: str
    within: float
    pixels: float
    score: float

    def __post_init__(self) -> None:
        if not 0 < self.within <= 1:
            raise ValueError(f"within is {self.within}; it should be above 0, and at most 1")
        for name, limit in (("pixels", self.pixels), ("score", self.score)):
            if not 0 <= limit < math.inf:
                raise ValueError(f"{name} is {limit}; it should be a finite number from 0 on")
        decode_rows(self.answer)

    @property
    def matches(self) -> int:
        """The number of matches in the answer."""
        return len(decode_rows(self.answer)) // ROW_BYTES


@dataclass(frozen=True)
class EngineManifest:
    """Everything that must fit before an engine is loaded, and everything that a result should be able to cite.

    model: name of the model.
    family: name of its family.
    precision: fp32, fp16, int8 or fp8.
    backend: name of the backend that runs the engine.
    backend_version: the version of it that built the engine.
    portability: on which GPUs and versions the engine runs.
    source: the checkpoint that it was made from.
    onnx_sha256: digest of the ONNX graph that it was built from.
    engine_sha256: digest of the engine's bytes.
    engine_bytes: their number.
    inputs: the engine's inputs, in order.
    outputs: the engine's outputs, in order.
    input: how an image becomes an input.
    matching: how the matching stage was built.
    matchrt_version: the version of matchrt that built the engine.
    passes: what each graph pass did, in order.
    checks: figures of the checks that the build made, by name.
    judged: where the build judged the precision: `emulation`, or the device and backend that ran the engine; empty if
        it did not judge it.
    self_test: what the engine must answer where it runs; None if there is no such test.
    options: the builder's options that differ from the defaults, for people to read.
    build_key: digest of everything that decides the engine; the store finds it by this.
    schema: the version of the manifest's form.
    """

    model: str
    family: str
    precision: str
    backend: str
    backend_version: str
    portability: Portability
    source: Source
    onnx_sha256: str
    engine_sha256: str
    engine_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input: InputContract
    matching: MatchContract
    matchrt_version: str
    passes: tuple[PassRecord, ...] = ()
    checks: dict[str, float] = field(default_factory=dict)
    judged: str = ""
    self_test: SelfTest | None = None
    options: dict[str, str] = field(default_factory=dict)
    build_key: str = ""
    schema: Literal[2] = 2

    @property
    def dense(self) -> bool:
        """Whether the engine returns a dense warp besides its matches."""
        return has_dense(spec.name for spec in self.outputs)

    def to_json(self) -> str:
        """The manifest as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def write(self, path: Path) -> None:
        """Writes the manifest atomically. Error: output-unwritable."""
        atomic.write_text(path, self.to_json())


def decode_rows(answer: str) -> bytes:
    """The bytes of a self-test's answer: finite little-endian float32, five a match.

    Error: ValueError if the text is not base64 of that.
    """
    data = base64.b64decode(answer, validate=True)
    if len(data) % ROW_BYTES:
        raise ValueError("answer is no table of five columns")
    if not all(map(math.isfinite, struct.unpack(f"<{len(data) // 4}f", data))):
        raise ValueError("answer has numbers that are not finite")
    return data


def has_dense(outputs: Iterable[str]) -> bool:
    """Whether outputs of these names contain the dense ones. Raises nothing."""
    return set(DENSE_OUTPUTS) <= set(outputs)
