"""Whether a manifest's parts agree with one another and with the engine's contract (docs/engine-contract.md)."""

from __future__ import annotations

from collections.abc import Mapping

from matchrt._util.text import shown
from matchrt.manifest.fields import (
    DENSE_OUTPUTS,
    PRECISION_OUTPUT,
    Dimension,
    EngineManifest,
    InputContract,
    TensorSpec,
)
from matchrt.manifest.frames import FRAMES

_IMAGES = ("image0", "image1")
_SIZES = ("size0", "size1")
_COARSE = ("coarse0", "coarse1")
# What engines of a range of frame sizes take besides frames, for each of them (runtime.frames).
_RANGE = ("rows0", "columns0", "scale0", "rows1", "columns1", "scale1")
_RANGE_COARSE = ("coarse_rows0", "coarse_columns0", "coarse_rows1", "coarse_columns1")
_RANGE_ROUNDING, _COARSE_ROUNDING = ("rounding0", "rounding1"), ("coarse_rounding0", "coarse_rounding1")
_MATCHES = ("keypoints0", "keypoints1", "scores", "num_matches")
_TYPES = {
    **dict.fromkeys((*_IMAGES, *_COARSE, *FRAMES), "uint8"),
    **dict.fromkeys((*_RANGE, *_RANGE_COARSE, *_RANGE_ROUNDING, *_COARSE_ROUNDING), "float32"),
    **dict.fromkeys((*_SIZES, "num_matches"), "int32"),
    **dict.fromkeys(("keypoints0", "keypoints1", "scores", *DENSE_OUTPUTS, PRECISION_OUTPUT), "float32"),
}
# A dimension that depends on the images' size, and the first one of engines that take any number of pairs.
_ANY, _PAIRS = "any", "pairs"


def check_contract(manifest: EngineManifest) -> None:
    """Checks that inputs and outputs are those of the contract, with the sizes that the manifest's other parts say.

    Error: ValueError that names the tensor or the field.
    """
    contract = manifest.input
    inputs = {spec.name: spec for spec in manifest.inputs}
    outputs = {spec.name: spec for spec in manifest.outputs}
    if contract.frames is not None:
        ranged = contract.frames.sizes is None
        needed = (*FRAMES, *_RANGE) if ranged else FRAMES
        optional = (_SIZES, _RANGE_COARSE, _RANGE_ROUNDING, _COARSE_ROUNDING)
        _check_names(inputs, "inputs", needed, optional if ranged else ())
        if ranged and ("rounding0" in inputs) != (contract.kernel == "area-linear"):
            raise ValueError("manifest.input.kernel and the inputs rounding0 and rounding1 contradict each other")
        if ranged and ("coarse_rows0" in inputs) != (contract.coarse is not None):
            raise ValueError("manifest.input.coarse and the inputs coarse_rows0 and so on contradict each other")
    else:
        _check_names(inputs, "inputs", _IMAGES, (_SIZES, _COARSE))
    _check_names(outputs, "outputs", _MATCHES, (DENSE_OUTPUTS, (PRECISION_OUTPUT,)))
    if PRECISION_OUTPUT in outputs and not manifest.dense:
        raise ValueError(f"manifest.outputs has {PRECISION_OUTPUT} without {' and '.join(DENSE_OUTPUTS)}")
    if contract.frames is None and ("coarse0" in inputs) != (contract.coarse is not None):
        raise ValueError("manifest.input.coarse and the inputs coarse0 and coarse1 contradict each other")
    if contract.profile is not None and "size0" in inputs:
        raise ValueError("manifest.input.profile and the inputs size0 and size1 contradict each other")
    _check_sides(manifest)
    shapes = _shapes(contract, manifest.matching.max_matches)
    for spec in (*manifest.inputs, *manifest.outputs):
        if spec.dtype != _TYPES[spec.name]:
            raise ValueError(
                f"manifest: {spec.name} has the type {shown(spec.dtype)}; it should be {_TYPES[spec.name]}"
            )
        if not _fits(spec.shape, shapes[spec.name]):
            raise ValueError(
                f"manifest: {spec.name} has the shape {list(spec.shape)}; by the other fields it should be "
                f"{list(shapes[spec.name])}"
            )


def _check_sides(manifest: EngineManifest) -> None:
    contract, stride = manifest.input, manifest.matching.coarse_stride
    if contract.divisor % stride:
        raise ValueError(f"manifest.input.divisor is {contract.divisor}, no multiple of the coarse stride {stride}")
    for side in (contract.height, contract.width):
        if side is not None and side % contract.divisor:
            raise ValueError(f"manifest.input has the side {side}, no multiple of the divisor {contract.divisor}")


def _check_names(
    found: Mapping[str, TensorSpec], where: str, needed: tuple[str, ...], optional: tuple[tuple[str, ...], ...]
) -> None:
    """Checks that all `needed` tensors are there, and of each optional group all or none, and nothing else."""
    for group in (needed, *optional):
        missing = [name for name in group if name not in found]
        if missing and (group is needed or len(missing) < len(group)):
            raise ValueError(f"manifest.{where} lacks {', '.join(missing)}")
    known = {*needed, *(name for group in optional for name in group)}
    if unknown := sorted(set(found) - known):
        raise ValueError(f"manifest.{where} has {', '.join(unknown[:3])}, which engines do not have")


def _shapes(contract: InputContract, slots: int) -> dict[str, tuple[Dimension, ...]]:
    """The shape of each tensor of the contract."""
    batch: Dimension = _PAIRS if contract.any_batch else contract.batch
    channels = contract.channels
    coarse = contract.coarse or (_ANY, _ANY)
    sides: tuple[Dimension, Dimension] = (_ANY, _ANY)
    if contract.height is not None and contract.width is not None:
        sides = (contract.height, contract.width)
    return {
        **dict.fromkeys(_IMAGES, (batch, *sides, channels)),
        **dict.fromkeys(_SIZES, (batch, 2)),
        **dict.fromkeys(_COARSE, (batch, *(contract.coarse or ()), channels)),
        **_frame_shapes(contract),
        **dict.fromkeys((*_RANGE_ROUNDING, *_COARSE_ROUNDING), (3,)),
        **dict.fromkeys(("rows0", "rows1"), (_twice(sides[0], contract), _ANY)),
        **dict.fromkeys(("columns0", "columns1"), (_ANY, sides[1])),
        **dict.fromkeys(("coarse_rows0", "coarse_rows1"), (_twice(coarse[0], contract), _ANY)),
        **dict.fromkeys(("coarse_columns0", "coarse_columns1"), (_ANY, coarse[1])),
        **dict.fromkeys(("scale0", "scale1"), (2,)),
        **dict.fromkeys(("keypoints0", "keypoints1"), (batch, slots, 2)),
        "scores": (batch, slots),
        "num_matches": (batch,),
        "warp": (batch, _ANY, _ANY, 4),
        "certainty": (batch, _ANY, _ANY),
        PRECISION_OUTPUT: (batch, _ANY, _ANY, 3),
    }


def _twice(side: Dimension, contract: InputContract) -> Dimension:
    """The rows of a resize's matrix: `area-linear` has two of them below one another."""
    return 2 * side if isinstance(side, int) and contract.kernel == "area-linear" else side


def _frame_shapes(contract: InputContract) -> dict[str, tuple[Dimension, ...]]:
    frames = contract.frames
    if frames is None:
        return {}
    if frames.sizes is None:
        return dict.fromkeys(FRAMES, (contract.batch, _ANY, _ANY, frames.channels))
    return {name: (contract.batch, *frames.shape(size)) for name, size in zip(FRAMES, frames.sizes, strict=True)}


def _fits(shape: tuple[Dimension, ...], wanted: tuple[Dimension, ...]) -> bool:
    return len(shape) == len(wanted) and all(want in (_ANY, have) for have, want in zip(shape, wanted, strict=True))
