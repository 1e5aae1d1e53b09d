"""What the values of a manifest may be. The one place that checks them, whoever wrote the file.

Names become paths, lines of Triton's configuration and commands to copy; texts reach terminals and logs. So names have
an alphabet, texts have no control characters, both have a length, and numbers have ranges.
docs/engine-contract.md states the rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from matchrt._util.text import is_printable, shown
from matchrt.manifest.fields import EngineManifest, InputContract, MatchContract, Profile, TensorSpec
from matchrt.manifest.frames import FrameContract

# A name neither begins with a dot or a dash nor has a slash: it is one step of a path, and no option of a command.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
# The name of a dimension, which may be an expression of torch.
_DIMENSION = re.compile(r"[A-Za-z0-9_?+*/(). -]{1,100}")
_DIGEST = re.compile(r"[0-9a-f]{1,64}")
_KEY = re.compile(r"[0-9A-Za-z]{1,64}")
_CAPABILITY = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")
_PRECISIONS = ("fp32", "fp16", "int8", "fp8")
LONGEST_TEXT = 4096
_MOST_ENTRIES = 4096
_LARGEST_SIDE = 1 << 16
# As for images (`runtime.image.MIN_SIDE`).
LEAST_FRAME_SIDE = 16
_LARGEST_SIZE = 1 << 31
MOST_MATCHES = 1 << 16
# The store keeps downloaded weights in a folder of this name, beside those of the models.
RESERVED = ("weights",)


def check_values(manifest: EngineManifest) -> None:
    """Checks every name, text and number of a manifest by itself. Error: ValueError that names the field."""
    for where, value in _names(manifest):
        _require(_NAME.fullmatch(value) is not None, where, value, "a name: at most 100 letters, digits, and . _ + -")
    _require(manifest.model not in RESERVED, "model", manifest.model, "another name, because the store needs this one")
    _require(manifest.precision in _PRECISIONS, "precision", manifest.precision, f"one of {', '.join(_PRECISIONS)}")
    for where, value in _digests(manifest):
        _require(_DIGEST.fullmatch(value) is not None, where, value, "a digest in lower-case hexadecimal digits")
    _require(_KEY.fullmatch(manifest.build_key or "0") is not None, "build_key", manifest.build_key, "a digest")
    for where, value in _texts(manifest):
        fits = is_printable(value) and len(value) <= LONGEST_TEXT
        _require(fits, where, value, f"at most {LONGEST_TEXT} characters without control characters")
    for capability in manifest.portability.compute_capabilities:
        _require(
            _CAPABILITY.fullmatch(capability) is not None,
            "portability.compute_capabilities",
            capability,
            "compute capabilities such as 8.9",
        )
    _check_counts(manifest)
    for where, specs in (("inputs", manifest.inputs), ("outputs", manifest.outputs)):
        _check_tensors(specs, where)
    _within("engine_bytes", manifest.engine_bytes, 0, 1 << 50)
    _check_input(manifest.input)
    _check_matching(manifest.matching)


def _names(manifest: EngineManifest) -> Iterator[tuple[str, str]]:
    yield "model", manifest.model
    yield "family", manifest.family
    yield "backend", manifest.backend
    yield "backend_version", manifest.backend_version
    yield "matchrt_version", manifest.matchrt_version
    yield from (("checks", name) for name in manifest.checks)
    yield from (("options", name) for name in manifest.options)


def _digests(manifest: EngineManifest) -> Iterator[tuple[str, str]]:
    yield "onnx_sha256", manifest.onnx_sha256
    yield "engine_sha256", manifest.engine_sha256
    yield "source.tensors_sha256", manifest.source.tensors_sha256


def _texts(manifest: EngineManifest) -> Iterator[tuple[str, str]]:
    source = manifest.source
    yield "source.name", source.name
    yield "source.licence", source.licence
    yield "source.origin", source.origin
    yield from (("source.allowed_missing", name) for name in source.allowed_missing)
    yield "judged", manifest.judged
    yield from ((f"options.{name}", value) for name, value in manifest.options.items())
    for record in manifest.passes:
        yield "passes.name", record.name
        yield "passes.summary", record.summary


def _check_counts(manifest: EngineManifest) -> None:
    for where, entries in (
        ("inputs", manifest.inputs),
        ("outputs", manifest.outputs),
        ("passes", manifest.passes),
        ("checks", manifest.checks),
        ("options", manifest.options),
        ("source.allowed_missing", manifest.source.allowed_missing),
        ("portability.compute_capabilities", manifest.portability.compute_capabilities),
    ):
        if len(entries) > _MOST_ENTRIES:
            raise ValueError(f"manifest.{where} has {len(entries):,} entries; {_MOST_ENTRIES} are allowed")


def _check_tensors(specs: tuple[TensorSpec, ...], where: str) -> None:
    names = [spec.name for spec in specs]
    for spec in specs:
        _require(_IDENTIFIER.fullmatch(spec.name) is not None, f"{where}.name", spec.name, "letters, digits and _")
        _require(_IDENTIFIER.fullmatch(spec.dtype) is not None, f"{where}.dtype", spec.dtype, "the name of a type")
        if len(spec.shape) > 8:
            raise ValueError(f"manifest.{where}: {spec.name} has {len(spec.shape)} dimensions; 8 are allowed")
        for side in spec.shape:
            if isinstance(side, int):
                _within(f"{where}.shape", side, 1, _LARGEST_SIZE)
            else:
                _require(_DIMENSION.fullmatch(side) is not None, f"{where}.shape", side, "a number or a name")
    if len(set(names)) < len(names):
        raise ValueError(f"manifest.{where} has a tensor twice")


def _check_input(contract: InputContract) -> None:
    if contract.channels not in (1, 3):
        raise ValueError(f"manifest.input.channels is {shown(contract.channels)}; it should be 1 or 3")
    _within("input.divisor", contract.divisor, 1, 1024)
    _within("input.batch", contract.batch, 1, 1024)
    if contract.any_batch and (contract.batch == 1 or contract.profile is not None or contract.frames is not None):
        raise ValueError("manifest.input.any_batch is for static engines of images with a batch above 1")
    fixed = (("height", contract.height), ("width", contract.width))
    sides = [(name, side) for name, side in fixed if side is not None]
    sides += [("coarse", side) for side in contract.coarse or ()]
    for where, side in sides:
        _within(f"input.{where}", side, 1, _LARGEST_SIDE)
    if contract.profile is not None:
        _check_profile(contract.profile, contract.divisor)
    if contract.frames is not None:
        _check_frames(contract.frames)


def _check_frames(frames: FrameContract) -> None:
    sizes = frames.sizes or (frames.minimum, frames.maximum)
    for size in sizes:
        assert size is not None
        for side in size:
            _within("input.frames", side, LEAST_FRAME_SIDE, _LARGEST_SIDE)
            if side % frames.step:
                raise ValueError(f"manifest.input.frames has the side {side}; those of {frames.pixels} are even")
    low, high = frames.minimum, frames.maximum
    if low is not None and high is not None and (low[0] > high[0] or low[1] > high[1]):
        raise ValueError("manifest.input.frames: minimum and maximum are out of order")


def _check_profile(profile: Profile, divisor: int) -> None:
    for low, best, high in zip(profile.minimum, profile.optimum, profile.maximum, strict=True):
        if not low <= best <= high:
            raise ValueError("manifest.input.profile: minimum, optimum and maximum are out of order")
    for side in (*profile.minimum, *profile.optimum, *profile.maximum):
        _within("input.profile", side, 1, _LARGEST_SIDE)
        if side % divisor:
            raise ValueError(f"manifest.input.profile has the side {side}, no multiple of the divisor {divisor}")


def _check_matching(matching: MatchContract) -> None:
    _within("matching.max_matches", matching.max_matches, 1, MOST_MATCHES)
    _within("matching.threshold", matching.threshold, 0, 1)
    _within("matching.default_score", matching.default_score, 0, 1)
    _within("matching.border", matching.border, 0, 1024)
    _within("matching.coarse_stride", matching.coarse_stride, 1, 1024)


def _within(where: str, value: float, least: float, most: float) -> None:
    _require(least <= value <= most, where, value, f"{least} to {most}")


def _require(fits: bool, where: str, value: object, wanted: str) -> None:
    if not fits:
        raise ValueError(f"manifest.{where} is {shown(value)}; it should be {wanted}")
