"""Puts weights into Flax modules. Every array of both sides must be used, or an error says which one is not and why."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import jax.numpy as jnp
from flax import nnx

from matchrt._util.text import printable
from matchrt.errors import MatchRTError
from matchrt.export.weights.averaged import has_averaged_part
from matchrt.flax.explain import explain_shapes, no_transformer, prefixes, wrong_names
from matchrt.flax.files import About, WeightFile, read_weights
from matchrt.flax.layout import COUNTER, PART_MODULES, Array, Arrays, flax_name, is_torch_layout, to_flax, torch_name
from matchrt.models.loftr.config import LOFTR_LITE, LoFTRConfig, TransformerConfig
from matchrt.models.loftr.flax.network import LoFTR

# Bundled models -> their file, which is in torch's layout, and the configuration of their coarse transformer.
BUNDLED = {"loftr-lite": ("loftr-lite.safetensors", LOFTR_LITE.coarse)}
_TRANSFORMER = PART_MODULES["transformer"]
ModuleT = TypeVar("ModuleT", bound=nnx.Module)


@dataclass(frozen=True, eq=False)
class LoFTRWeights(Mapping[str, Array]):
    """The weights of LoFTR's coarse transformer: a mapping of names to arrays, with `len`, `.items()` and the rest.

    path: the file that they were read from.
    arrays: in Flax's layout, by name below the transformer, such as `layers.0.q_proj.kernel`.
    about: what the file says about them; None if it says nothing.
    """

    path: Path
    arrays: Arrays
    about: About | None

    def __len__(self) -> int:
        return len(self.arrays)

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    @property
    def elements(self) -> int:
        """Number of values in all arrays."""
        return sum(int(array.size) for array in self.arrays.values())


def arrays_of(module: nnx.Module) -> dict[str, Any]:
    """A module's parameters and BatchNorm statistics by dotted name; for an abstract module, their shapes."""
    return {".".join(map(str, path)): variable[...] for path, variable in _flat(module)}


def shapes_of(module: nnx.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of a module's parameters and BatchNorm statistics by dotted name. Abstract modules have them too."""
    return {".".join(map(str, path)): tuple(variable.shape) for path, variable in _flat(module)}


def _flat(module: nnx.Module) -> Any:
    return nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat)))


@cache
def flax_shapes(config: LoFTRConfig) -> Mapping[str, tuple[int, ...]]:
    """The shapes of the arrays of a configuration's Flax network, by dotted name."""
    return MappingProxyType(shapes_of(create_abstract(config)))


def create_abstract(config: LoFTRConfig, dtype: Any = None) -> LoFTR:
    """The Flax network in evaluation mode, with shapes but no values; `fill` gives it values.

    dtype: JAX's type that it computes in; None for float32.
    """
    network: LoFTR = nnx.eval_shape(lambda: LoFTR(config, rngs=nnx.Rngs(0), dtype=dtype))
    network.eval()
    return network


def fill(module: nnx.Module, arrays: Arrays, source: str) -> None:
    """Puts all `arrays` into the module, as float32. source: the file's name, for messages.

    Error: weights-unaccounted, if an array is missing, left over or of another shape.
    """
    flat = list(_flat(module))
    wanted = {".".join(map(str, path)): tuple(variable.shape) for path, variable in flat}
    given = {name: tuple(array.shape) for name, array in arrays.items() if not name.endswith(COUNTER)}
    if wanted != given:
        raise _unfit(source, wanted, given)
    values = [
        (path, variable.replace(jnp.asarray(arrays[".".join(map(str, path))], jnp.float32))) for path, variable in flat
    ]
    nnx.update(module, nnx.from_flat_state(values))


def _unfit(source: str, wanted: Mapping[str, Any], given: Mapping[str, Any]) -> MatchRTError:
    lines = [f"  missing: {name} {list(wanted[name])}" for name in sorted(wanted.keys() - given.keys())]
    lines += [f"  unexpected: {name} {list(given[name])}" for name in sorted(given.keys() - wanted.keys())]
    lines += [
        f"  shape-mismatched: {name} is {list(given[name])}, not {list(wanted[name])}"
        for name in sorted(wanted.keys() & given.keys())
        if wanted[name] != given[name]
    ]
    shown = "\n".join(map(printable, lines[:20])) + (f"\n  … and {len(lines) - 20} more" if len(lines) > 20 else "")
    return MatchRTError(
        "weights-unaccounted",
        f"'{source}' does not fit this network: {len(lines)} arrays are unexplained.\n{shown}",
        "Name the model that the weights are of, or convert its checkpoint again: matchrt convert-flax CHECKPOINT.",
    )


def read_flax_weights(source: str | Path) -> WeightFile:
    """Reads weights and returns them in Flax's layout.

    source: a bundled model's name, a converted file, or a .safetensors file in torch's layout.
    Errors: those of `read_weights`.
    """
    bundled = BUNDLED.get(str(source))
    path = Path(str(resources.files("matchrt") / "assets" / bundled[0])) if bundled is not None else Path(source)
    file = read_weights(path)
    if not is_torch_layout(file.arrays):
        return file
    found = list(prefixes(file.arrays))
    # A running average beside the network is not meant; `matchrt convert-flax --ema` takes it.
    prefix = next((prefix for prefix in found if not has_averaged_part(prefix, file.arrays)), "".join(found[:1]))
    arrays = {
        flax_name(key[len(prefix) :], array.ndim): to_flax(array, key)
        for key, array in file.arrays.items()
        if key.startswith(prefix)
    }
    about = file.about or About(prefix=prefix)
    if bundled is not None:
        coarse = bundled[1]
        about = replace(
            about, model=str(source), attention=coarse.attention, n_heads=coarse.n_heads, layers=coarse.layers
        )
    return WeightFile(path, arrays, about)


def load_loftr_weights(
    source: str | Path, config: TransformerConfig | None = None, *, accept_other_attention: bool = False
) -> LoFTRWeights:
    """Reads the weights of LoFTR's coarse transformer, from which the training of another model can start.

    source: a bundled model's name, or a file that `matchrt convert-flax` wrote.
    config: the transformer that will get the weights; None to check nothing. All shapes are checked against it, and
    also the attention type and the number of heads that the file states.
    accept_other_attention: skip the check of attention type and heads; with others, the weights compute something else.
    Errors: those of `read_weights`, flax-no-transformer, flax-names, flax-shape, flax-config.
    """
    file = read_flax_weights(source)
    if not any(name.startswith(_TRANSFORMER + "layers.") for name in file.arrays):
        raise no_transformer(str(source), [torch_name(name) for name in file.arrays])
    arrays = {
        name.removeprefix(_TRANSFORMER): array for name, array in file.arrays.items() if name.startswith(_TRANSFORMER)
    }
    weights = LoFTRWeights(file.path, arrays, file.about)
    if config is not None:
        _require_shapes(str(source), arrays, config)
        if not accept_other_attention:
            _require_same_attention(str(source), weights.about, config)
    return weights


def transformer_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of a LoFTR transformer's tensors in torch's layout, by names such as `layers.0.q_proj.weight`."""
    d, double = config.d_model, 2 * config.d_model
    layer: dict[str, tuple[int, ...]] = {f"{name}.weight": (d, d) for name in ("q_proj", "k_proj", "v_proj", "merge")}
    layer |= {"mlp.0.weight": (double, double), "mlp.2.weight": (d, double)}
    layer |= {f"{norm}.{leaf}": (d,) for norm in ("norm1", "norm2") for leaf in ("weight", "bias")}
    return {
        f"layers.{index}.{name}": shape for index in range(len(config.layers)) for name, shape in layer.items()
    }  # fmt: skip


def torch_shapes(arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """The shapes that Flax arrays have in torch's layout, by torch's keys."""
    return {
        torch_name(name): tuple(array.shape[::-1] if array.ndim == 2 else array.shape) for name, array in arrays.items()
    }


def _require_shapes(source: str, arrays: Arrays, config: TransformerConfig) -> None:
    have, want = torch_shapes(arrays), transformer_shapes(config)
    reason = explain_shapes(have, want)
    if reason is None:
        return
    named = wrong_names(source, [name for name in have if name not in want])
    if named is not None:
        raise named
    raise MatchRTError(
        "flax-shape",
        f"The transformer of '{source}' does not fit: {reason}.",
        "Give the model the weights' width, heads, attention type and number of layers, or use other weights.",
    )


def _require_same_attention(source: str, about: About | None, config: TransformerConfig) -> None:
    if about is None or not about.attention:
        return
    wanted = replace(about, attention=config.attention, n_heads=config.n_heads, layers=config.layers)
    if wanted == about:
        return
    pairs = (
        ("attention type", about.attention, config.attention),
        ("heads", about.n_heads, config.n_heads),
        ("layers", ", ".join(about.layers), ", ".join(config.layers)),
    )
    differs = "; ".join(
        f"{what}: trained with {theirs}, wanted {ours}" for what, theirs, ours in pairs if theirs != ours
    )
    raise MatchRTError(
        "flax-config",
        f"The shapes of the weights of '{source}' fit, but they would compute something else: {differs}.",
        "Configure the model as the weights were trained, or start from them anyway with accept_other_attention=True.",
    )


def initialize_with_loftr(module: ModuleT, weights: LoFTRWeights) -> ModuleT:
    """Fills a `LocalFeatureTransformer` with all of the weights and returns it. Error: weights-unaccounted."""
    fill(module, weights.arrays, str(weights.path))
    return module


@dataclass(frozen=True)
class MergeReport:
    """What became of a model's arrays when weights were put into it.

    source: the file that the weights were read from.
    loaded: names of the model's arrays that got their values from the file: all of the file's.
    fresh: names of the model's other arrays, which keep the values that they had.
    loaded_values, fresh_values: numbers of values in them.
    """

    source: str
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    loaded_values: int
    fresh_values: int

    def summary(self) -> str:
        """The report in one line. Raises nothing."""
        groups: dict[str, int] = {}
        for name in self.fresh:
            group = ".".join(name.split(".")[:2])
            groups[group] = groups.get(group, 0) + 1
        rest = f": {', '.join(f'{group} ({count})' for group, count in groups.items())}" if groups else ""
        return (
            f"{len(self.loaded)} arrays ({self.loaded_values:,} values) loaded from '{self.source}'; {len(self.fresh)} "
            f"arrays ({self.fresh_values:,} values) stay fresh{rest}"
        )


def merge_loftr(model: nnx.Module, weights: LoFTRWeights, at: str = "transformer") -> MergeReport:
    """Fills the transformer of a larger model with all of the weights, and says what was loaded and what stays fresh.

    at: dotted path of the `LocalFeatureTransformer` in the model, such as `transformer` or `matcher.coarse`.
    Errors: flax-no-transformer if nothing is there, weights-unaccounted.
    """
    part: Any = model
    for name in at.split("."):
        part = getattr(part, name, None)
    if part is None:
        have = ", ".join(sorted({name.split(".")[0] for name in shapes_of(model)}))
        raise MatchRTError(
            "flax-no-transformer", f"The model has no '{at}'; it has {have}.", "Name the transformer in it."
        )
    initialize_with_loftr(part, weights)
    return merged(model, {f"{at}.{name}" for name in weights}, str(weights.path))


def merged(model: nnx.Module, loaded: Collection[str], source: str) -> MergeReport:
    """The report on a model of which the arrays `loaded` were filled from `source`."""
    sizes = {name: math.prod(shape) for name, shape in shapes_of(model).items()}
    fresh = tuple(name for name in sizes if name not in loaded)
    filled = tuple(name for name in sizes if name in loaded)
    return MergeReport(source, filled, fresh, sum(map(sizes.__getitem__, filled)), sum(map(sizes.__getitem__, fresh)))


def load_network(source: str | Path, config: LoFTRConfig, dtype: Any = None) -> LoFTR:
    """The Flax network with its weights, in evaluation mode. source: as in `read_flax_weights`.

    dtype: JAX's type that it computes in; None for float32. Errors: those of `read_flax_weights`, weights-unaccounted.
    """
    network = create_abstract(config, dtype)
    fill(network, read_flax_weights(source).arrays, str(source))
    return network
