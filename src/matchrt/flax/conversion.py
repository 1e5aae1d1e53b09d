"""Converts torch checkpoints to Flax's layout and back, and states the fate of every tensor on both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from matchrt._util import atomic
from matchrt.errors import MatchRTError
from matchrt.export.weights.account import account, outside_entry
from matchrt.export.weights.locate import Located, Selection, locate, normalised
from matchrt.export.weights.network import expected_tensors, own_part, read_selected
from matchrt.export.weights.read import Checkpoint, digest_tensors
from matchrt.export.weights.report import Entry, LoadReport
from matchrt.families.definition import ModelSpec
from matchrt.flax import explain
from matchrt.flax.files import About, read_weights, require_kind, write_ifvit, write_weights
from matchrt.flax.layout import (
    COUNTER,
    PART_MODULES,
    PARTS,
    Array,
    Part,
    change,
    flax_name,
    flax_shape,
    is_torch_layout,
    to_flax,
    to_torch,
    torch_name,
)
from matchrt.flax.models import flax_spec, flax_specs
from matchrt.flax.weights import flax_shapes, transformer_shapes

Tensors = Mapping[str, torch.Tensor]
LAYOUTS = ("matchrt", "ifvit")


@dataclass(frozen=True)
class Converted:
    """A checkpoint in Flax's layout.

    spec: the model that the weights are of.
    arrays: by Flax's names, in Flax's layout.
    report: the fate of every tensor; the file's side has torch's keys, the network's side has Flax's names.
    about: what a file of these weights says of itself.
    """

    spec: ModelSpec
    arrays: dict[str, Array]
    report: LoadReport
    about: About


def require_part(part: str) -> Part:
    """The name, if it is the name of a part. Error: flax-part."""
    for known in PARTS:
        if part == known:
            return known
    raise MatchRTError("flax-part", f"There is no part '{part}'.", f"Use {', '.join(PARTS)}.")


def convert(
    checkpoint: Checkpoint,
    model: str | None = None,
    *,
    prefix: str | None = None,
    ema: bool = False,
    part: Part = "all",
) -> Converted:
    """Converts a checkpoint to Flax's layout. Types and values stay as they are in the file.

    model: the model's name; None for the first one that the shapes fit, because models of the same shapes convert
    alike. prefix, ema: which network of the file to take, as in `Selection`. Tensors beside the network and outside of
    the part are left out, and the report says so.
    Errors: flax-model, flax-no-transformer, flax-names, flax-shape, weights-unaccounted, checkpoint-ambiguous,
    checkpoint-no-average.
    """
    source = str(checkpoint.path)
    candidates = [flax_spec(model)] if model is not None else list(flax_specs().values())
    if prefix is not None:
        # `matcher`, `matcher.` and `matcher.loftr_coarse` mean the same.
        prefix = normalised(normalised(prefix).rstrip(".").removesuffix("loftr_coarse"))
    selection = Selection(prefix, ema)
    fits = [_fit(spec, checkpoint, selection, part) for spec in candidates]
    fit = min(fits, key=lambda fit: len(fit.report.problems))
    located = _find(fit.spec, checkpoint, selection, part, strict=True)
    spec, state = fit.spec, fit.state
    report = replace(
        fit.report,
        prefix=located.prefix,
        file=(*fit.report.file, *fit.outside),
        averaged=located.averaged,
        others=located.others,
    )
    if not report.complete:
        raise _refusal(source, spec, fit.inside, report)
    arrays = {flax_name(key, tensor.ndim): to_flax(_numpy(tensor), key) for key, tensor in state.items()}
    report = _flax_side(report, spec, arrays, part)
    report.require_complete(source)
    coarse = spec.family.config.coarse
    digest = own_part(checkpoint, report.file).tensors_sha256
    about = About(spec.name, part, report.prefix, coarse.attention, coarse.n_heads, coarse.layers, digest)
    return Converted(spec, arrays, report, about)


@dataclass(frozen=True)
class _Fit:
    """The account of a checkpoint for one model.

    It has the tensors in the part by their names, and the fates of the others.
    """

    spec: ModelSpec
    inside: Tensors
    outside: tuple[Entry, ...]
    state: dict[str, torch.Tensor]
    report: LoadReport


def _fit(spec: ModelSpec, checkpoint: Checkpoint, selection: Selection, part: Part) -> _Fit:
    located = _find(spec, checkpoint, selection, part, strict=False)
    inside, outside = _divide(checkpoint.tensors, located, part)
    state, report = _account(spec, inside, part)
    return _Fit(spec, inside, tuple(outside), state, report)


def _find(spec: ModelSpec, checkpoint: Checkpoint, selection: Selection, part: Part, strict: bool) -> Located:
    """Where the network is in the file. Errors: flax-no-transformer, those of `locate` but checkpoint-prefix."""
    source, expected = str(checkpoint.path), _expected(spec, part)
    try:
        located = locate(checkpoint.tensors, expected, spec.key_map, selection, source, strict)
    except MatchRTError as error:
        if error.code != "checkpoint-prefix":
            raise
        raise explain.no_transformer(source, checkpoint.tensors, selection.prefix) from error
    module = PART_MODULES[part] if part == "backbone" else "loftr_coarse.layers."
    if not any(name.startswith(module) for name in located.names.values()):
        raise explain.no_transformer(source, checkpoint.tensors, selection.prefix)
    return located


def _divide(tensors: Tensors, located: Located, part: Part) -> tuple[dict[str, torch.Tensor], list[Entry]]:
    """The network's tensors in the part, by their names; and the fates of the others."""
    inside: dict[str, torch.Tensor] = {}
    outside: list[Entry] = []
    for key, tensor in tensors.items():
        name, shape = located.names.get(key), tuple(tensor.shape)
        if name is None:
            outside.append(outside_entry(key, tensor, located))
        elif not name.startswith(PART_MODULES[part]):
            outside.append(Entry(key, shape, "dropped", f"not in --part {part}"))
        elif name in inside:
            outside.append(Entry(key, shape, "duplicated", f"fills {name}, which another tensor fills already"))
        else:
            inside[name] = tensor
    return inside, outside


def _expected(spec: ModelSpec, part: Part) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in expected_tensors(spec).items() if key.startswith(PART_MODULES[part])}


def _account(spec: ModelSpec, tensors: Tensors, part: Part) -> tuple[dict[str, torch.Tensor], LoadReport]:
    bare = Selection(prefix="")
    constants = spec.family.constants()
    return account(tensors, _expected(spec, part), spec.key_map, spec.name, constants=constants, selection=bare)


def _refusal(source: str, spec: ModelSpec, inside: Tensors, report: LoadReport) -> MatchRTError:
    """The error that explains best why a checkpoint does not fit."""
    unexpected = [entry.key for entry in report.file if entry.fate == "unexpected"]
    named = explain.wrong_names(source, unexpected)
    if named is not None:
        return named
    module = PART_MODULES["transformer"]
    have = {k.removeprefix(module): tuple(t.shape) for k, t in inside.items() if k.startswith(module)}
    reason = explain.explain_shapes(have, transformer_shapes(spec.family.config.coarse)) if have else None
    if reason is not None:
        return MatchRTError(
            "flax-shape",
            f"The transformer of '{source}' does not fit {spec.name}: {reason} ({report.summary()}).",
            f"Name another model with --model ({', '.join(flax_specs())}).",
        )
    try:
        report.require_complete(source)
    except MatchRTError as error:
        return error
    raise AssertionError("the report is complete")


def _numpy(tensor: torch.Tensor) -> Array:
    if tensor.dtype != torch.bfloat16:
        return tensor.detach().contiguous().numpy()
    import ml_dtypes

    return tensor.detach().contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def _torch(array: Array) -> torch.Tensor:
    if array.dtype.name != "bfloat16":
        return torch.from_numpy(np.array(array))
    return torch.from_numpy(np.array(array).view(np.int16)).view(torch.bfloat16)


def _flax_side(report: LoadReport, spec: ModelSpec, arrays: Mapping[str, Array], part: Part) -> LoadReport:
    """The report with the Flax network's arrays and their shapes as the network's side."""
    shapes = {n: s for n, s in flax_shapes(spec.family.config).items() if n.startswith(PART_MODULES[part])}
    network = [_network_entry(name, shape, arrays) for name, shape in shapes.items()]
    file = tuple(_file_entry(entry, shapes) for entry in report.file)
    return replace(report, model=f"{spec.name} (Flax)", file=file, network=tuple(network))


def _network_entry(name: str, shape: tuple[int, ...], arrays: Mapping[str, Array]) -> Entry:
    if name not in arrays:
        return Entry(name, shape, "missing")
    have = tuple(arrays[name].shape)
    if have != shape:
        return Entry(name, shape, "shape-mismatched", f"the file gives {list(have)}")
    return Entry(name, shape, "loaded", torch_name(name))


def _file_entry(entry: Entry, shapes: Mapping[str, tuple[int, ...]]) -> Entry:
    if entry.fate != "loaded":
        return entry
    key = entry.key
    name, how = flax_name(key, len(entry.shape)), change(key, len(entry.shape))
    if key.endswith(COUNTER):
        return replace(entry, fate="derived", detail=f"{name}, kept for --back: Flax's BatchNorm counts no steps")
    if name not in shapes or shapes[name] != flax_shape(entry.shape, key):
        return replace(entry, fate="unexpected", detail=f"the Flax network has no {name} of that shape")
    return replace(entry, detail=f"{name}, {how}" if how else name)


def convert_file(
    path: Path,
    output: Path,
    model: str | None = None,
    *,
    prefix: str | None = None,
    ema: bool = False,
    part: str = "all",
    layout: str = "matchrt",
) -> Converted:
    """Reads a torch checkpoint, converts it and writes `output`.

    model, prefix, ema: as in `convert`. part: `transformer`, `backbone` or `all`.
    layout: `matchrt`, or `ifvit` for the .npz file of IFViT-JAX's guide, which holds the transformer.
    Errors: those of `read_checkpoint`, `convert`, `write_weights` and `write_ifvit`; flax-part; flax-format for another
    layout.
    """
    require_kind(output)
    if layout not in LAYOUTS:
        raise MatchRTError("flax-format", f"There is no layout '{layout}'.", f"Use {', '.join(LAYOUTS)}.")
    if layout == "ifvit":
        part = "transformer" if part == "all" else part
        if part == "backbone":
            raise MatchRTError("flax-part", "IFViT's layout holds the transformer only.", "Leave --part out.")
    checkpoint, left = read_selected(path, Selection(prefix, ema))
    converted = convert(checkpoint, model, prefix=prefix, ema=left.ema, part=require_part(part))
    if layout == "ifvit":
        write_ifvit(output, converted.arrays)
    else:
        write_weights(output, converted.arrays, converted.about)
    return converted


@dataclass(frozen=True)
class Restored:
    """Weights back in torch's layout.

    tensors: by torch's keys, in torch's layout.
    report: the fate of every tensor; the file's side has Flax's names, the network's side has torch's keys.
    tensors_sha256: hex digest of the tensors, as of a checkpoint.
    """

    tensors: dict[str, torch.Tensor]
    report: LoadReport
    tensors_sha256: str


def restore(path: Path, model: str | None = None, *, prefix: str | None = None) -> Restored:
    """Converts a file in Flax's layout to torch's layout. Types and values stay as they are in the file.

    model, prefix: None for what the file says of itself. A file that Flax trained lacks counters of training steps;
    they become zero. Errors: those of `read_weights`, flax-model, flax-layout, flax-part, weights-unaccounted.
    """
    file = read_weights(path)
    if is_torch_layout(file.arrays):
        raise MatchRTError("flax-layout", f"'{path}' is in torch's layout already.", "Leave --back out.")
    about = file.about or About()
    if not (model or about.model):
        raise MatchRTError(
            "flax-model", f"'{path}' does not say which model its weights are of.", "Name the model with --model."
        )
    spec = flax_spec(model or about.model)
    module = PART_MODULES[require_part(about.part)]
    expected = {key: tensor for key, tensor in expected_tensors(spec).items() if key.startswith(module)}
    named = {torch_name(name): (name, _torch(to_torch(array, name))) for name, array in file.arrays.items()}
    state, report = account(
        {key: tensor for key, (_, tensor) in named.items()},
        expected,
        spec.key_map,
        spec.name,
        selection=Selection(prefix=""),
    )
    counters = {key: torch.zeros((), dtype=torch.int64) for key in expected if key.endswith(COUNTER)}
    report = replace(
        report,
        file=tuple(
            replace(e, key=named[e.key][0], shape=tuple(file.arrays[named[e.key][0]].shape)) for e in report.file
        ),
        network=tuple(
            replace(e, fate="derived", detail="zero: Flax counts no steps")
            if e.fate == "missing" and e.key in counters
            else e
            for e in report.network
        ),
    )
    report.require_complete(str(path))
    prefix = about.prefix if prefix is None else prefix
    tensors = {prefix + key: {**counters, **state}[key] for key in expected}
    return Restored(tensors, report, digest_tensors(tensors))


def restore_file(path: Path, output: Path, model: str | None = None, *, prefix: str | None = None) -> Restored:
    """Restores a file and writes it as .safetensors, or as .pt, .pth or .ckpt with the entry `state_dict`.

    Errors: flax-format, output-unwritable, and those of `restore`.
    """
    kinds = (".safetensors", ".pt", ".pth", ".ckpt")
    if output.suffix.lower() not in kinds:
        raise MatchRTError(
            "flax-format", f"Torch's layout cannot be written as '{output}'.", f"Use one of {', '.join(kinds)}."
        )
    restored = restore(path, model, prefix=prefix)
    with atomic.atomic_path(output) as temporary:
        if output.suffix.lower() == ".safetensors":
            from safetensors.torch import save

            temporary.write_bytes(save(restored.tensors, metadata={"format": "pt"}))
        else:
            torch.save({"state_dict": restored.tensors}, temporary)
    return restored
