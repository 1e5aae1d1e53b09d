"""Refuses builds that would fail after minutes, for reasons that are known at once.

What a build needs at its end, or behind its export, is looked at here: places to write, pairs of images, rules of the
family, the GPU.
"""

from __future__ import annotations

from matchrt._util import atomic
from matchrt._util.packages import packages_for
from matchrt.bench.pairs import user_pairs
from matchrt.building.calibration.pairs import require_single_pairs
from matchrt.building.frames.refusals import require_frames
from matchrt.building.request import BuildRequest
from matchrt.building.source import source_path
from matchrt.errors import MatchRTError
from matchrt.export.precision import QUANTIZED
from matchrt.families.registry import find_family, get_spec, require_rules
from matchrt.manifest import manifest_path
from matchrt.runtime.backend import Builder
from matchrt.runtime.backends import DEFAULT_BACKEND
from matchrt.store import EngineStore


def require_possible(request: BuildRequest, builder: Builder, store: EngineStore) -> None:
    """Raises now what this build would raise later. It reads lists of pairs, but no weights and no image.

    Errors: output-unwritable, store-unwritable, pairs-*, eval-*, model-unknown, build-option, precision-family,
    calibration-batch, calibration-method, device-missing, frames-dynamic, frames-pixels, frames-batch, frames-sides,
    split-graph, split-dynamic.
    """
    if request.split:
        _require_split(request, builder)
    if request.frames is not None:
        require_frames(request.frames, request.profile is not None, request.batch, request.any_batch)
    _require_places(request, store)
    if request.pairs is not None:
        user_pairs(request.pairs)
    if request.precision in QUANTIZED:
        _require_calibration(request, builder)
    if source_path(request.model, store) is None:  # of an engine, `convert_engine` sees the same at once
        spec = get_spec(request.model)
        require_fp32_products(spec.name, spec.family.name, builder)
        _require_rules(spec.family.name, request.precision)


def _require_split(request: BuildRequest, builder: Builder) -> None:
    """Raises what `split.require_parts` raises once the engine is there."""
    if request.frames is not None or request.batch != 1 or request.any_batch:
        raise MatchRTError(
            "split-graph",
            "An engine that takes frames, or that matches several pairs in a run, has no parts: it takes its images "
            "together.",
            "Leave --split out, or --frames and --batch.",
        )
    if request.profile is not None:
        require_static_parts(builder)


def require_static_parts(builder: Builder) -> None:
    """Raises `split-dynamic` for a backend that needs to know the sizes of features before a run."""
    if builder.name != DEFAULT_BACKEND:
        raise MatchRTError(
            "split-dynamic",
            f"The parts of a dynamic engine run on backend {DEFAULT_BACKEND} and openvino only: for {builder.name}, "
            "the sizes of the features between them would have to be known before a run.",
            "Build a static engine with --height and --width, or leave --split out.",
        )


def require_fp32_products(model: str, family: str, builder: Builder) -> None:
    """Raises `build-option` if TF32 is asked for and the network does not tolerate it.

    model: its name, for the message. family: the name of its family.
    """
    found = find_family(family)
    if builder.tf32 and found is not None and not found.tf32:
        raise MatchRTError("build-option", f"{model} {found.float32_because}.", "Leave --tf32 out.")


def _require_places(request: BuildRequest, store: EngineStore) -> None:
    store.require_writable()
    places = [] if request.output is None else [request.output, manifest_path(request.output)]
    if request.builder.timing_cache is not None:
        places.append(request.builder.timing_cache)
    for place in places:
        atomic.require_writable(place)


def _require_calibration(request: BuildRequest, builder: Builder) -> None:
    with packages_for(f"Building {request.precision} engines"):
        from matchrt.export.quantization.ranges import check_method

    options = request.calibration
    check_method(options.method)
    require_single_pairs(request.batch)
    if options.source is not None:
        user_pairs(options.source)
    if options.only_faster and not builder.runs_here():
        raise MatchRTError(
            "device-missing",
            "--only-faster times products on the GPU that the engine is for, and it is not in this machine.",
            "Build there, or leave --only-faster out.",
        )


def _require_rules(family: str, precision: str) -> None:
    if precision in QUANTIZED:
        require_rules(family, "int8", lambda found: found.int8)
    if precision == "fp16":
        require_rules(family, "fp16", lambda found: found.fp16)
