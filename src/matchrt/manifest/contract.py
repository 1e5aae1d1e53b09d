"""Whether a manifest's parts agree with one another and with the engine's contract (docs/engine-contract.md)."""

from __future__ import annotations

from collections.abc import Mapping

from matchrt._util.text import shown
from matchrt.manifest.fields import DENSE_OUTPUTS, Dimension, EngineManifest, InputContract, TensorSpec

_IMAGES = ("image0", "image1")
_SIZES = ("size0", "size1")
_COARSE = ("coarse0", "coarse1")
_MATCHES = ("keypoints0", "keypoints1", "scores", "num_matches")
_TYPES = {
    **dict.fromkeys((*_IMAGES, *_COARSE), "uint8"),
    **dict.fromkeys((*_SIZES, "num_matches"), "int32"),
    **dict.fromkeys(("keypoints0", "keypoints1", "scores", *DENSE_OUTPUTS), "float32"),
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
    _check_names(inputs, "inputs", _IMAGES, (_SIZES, _COARSE))
    _check_names(outputs, "outputs", _MATCHES, (DENSE_OUTPUTS,))
    if ("coarse0" in inputs) != (contract.coarse is not None):
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
    sides: tuple[Dimension, Dimension] = (_ANY, _ANY)
    if contract.height is not None and contract.width is not None:
        sides = (contract.height, contract.width)
    return {
        **dict.fromkeys(_IMAGES, (batch, *sides, channels)),
        **dict.fromkeys(_SIZES, (batch, 2)),
        **dict.fromkeys(_COARSE, (batch, *(contract.coarse or ()), channels)),
        **dict.fromkeys(("keypoints0", "keypoints1"), (batch, slots, 2)),
        "scores": (batch, slots),
        "num_matches": (batch,),
        "warp": (batch, _ANY, _ANY, 4),
        "certainty": (batch, _ANY, _ANY),
    }


def _fits(shape: tuple[Dimension, ...], wanted: tuple[Dimension, ...]) -> bool:
    return len(shape) == len(wanted) and all(want in (_ANY, have) for have, want in zip(shape, wanted, strict=True))
