"""Sizes and passes that a build asks for, by preset or one by one, and what the model has to be told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from matchrt.building.request import BuildRequest
from matchrt.errors import MatchRTError
from matchrt.export.to_onnx import ExportOptions
from matchrt.families.roma import RoMaFamily
from matchrt.families.specs import ModelSpec
from matchrt.models.roma.config import Size


@dataclass(frozen=True)
class Preset:
    """size: (height, width) of the last pass. coarse: of the first, None where it is the only one.

    symmetric: match both ways. description: for --help and docs/models/roma.md, which has the costs.
    """

    size: Size
    coarse: Size | None
    symmetric: bool
    description: str


ROMA_PRESETS: Mapping[str, Preset] = {
    "official": Preset((864, 864), (560, 560), True, "as published: 560 and 864, both ways"),
    "fast": Preset((560, 560), None, False, "560 without the upsample pass, image 0 to image 1 only"),
    "low-memory": Preset((448, 448), (280, 280), False, "280 and 448, image 0 to image 1 only"),
}


@dataclass(frozen=True)
class Arrangement:
    """The model's spec for a build, the options of its export, and the directions, where something was said of them."""

    spec: ModelSpec
    options: ExportOptions
    mutual: bool | None


def arrange(spec: ModelSpec, request: BuildRequest) -> Arrangement:
    """What a request means for a model. Errors: option-model, preset-unknown, preset-size."""
    if not isinstance(spec.family, RoMaFamily):
        _require_plain(spec, request)
        height = spec.height if request.height is None else request.height
        width = spec.width if request.width is None else request.width
        return Arrangement(
            spec, ExportOptions(height, width, request.max_matches, request.profile, request.batch), request.mutual
        )
    preset = _preset(request)
    size = (request.height or preset.size[0], request.width or preset.size[1])
    coarse = preset.coarse if request.coarse is None else request.coarse
    if request.single_pass:
        coarse = None
    mutual = request.mutual if request.preset is None or request.mutual is not None else preset.symmetric
    family = replace(spec.family, coarse=coarse)
    options = ExportOptions(*size, request.max_matches, request.profile, request.batch, coarse, request.dense)
    return Arrangement(replace(spec, family=family), options, mutual)


def _preset(request: BuildRequest) -> Preset:
    name = request.preset or "official"
    if name not in ROMA_PRESETS:
        known = ", ".join(ROMA_PRESETS)
        raise MatchRTError("preset-unknown", f"There is no preset '{name}'.", f"Known presets: {known}.")
    if request.single_pass and request.coarse is not None:
        raise MatchRTError(
            "preset-size",
            "--coarse gives the first of two passes its size; --single-pass leaves one.",
            "Give one of them.",
        )
    return ROMA_PRESETS[name]


def _require_plain(spec: ModelSpec, request: BuildRequest) -> None:
    given = {
        "--preset": request.preset is not None,
        "--coarse": request.coarse is not None,
        "--single-pass": request.single_pass,
        "--dense": request.dense,
    }
    for name, present in given.items():
        if present:
            raise MatchRTError(
                "option-model", f"{name} is for RoMa models; {spec.name} is none.", "Leave the option out."
            )
