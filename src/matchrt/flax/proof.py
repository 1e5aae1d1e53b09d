"""The proof that the Flax model computes what torch computes: every stage and the matches, on one pair."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from matchrt.bench.difference import MAX_PIXELS, Difference, compare_matches
from matchrt.bench.scene import image_pair
from matchrt.export.weights.locate import Selection
from matchrt.export.weights.network import load_network
from matchrt.flax.conversion import convert
from matchrt.flax.models import flax_spec
from matchrt.flax.session import MAX_MATCHES, flax_contract, jax_device
from matchrt.flax.stages import PairInput, Stages, TorchRun, flax_stages, torch_stages
from matchrt.flax.weights import create_abstract, fill
from matchrt.models.loftr.flax.attention import MASKED
from matchrt.models.loftr.flax.network import LoFTR as FlaxLoFTR
from matchrt.models.loftr.network import LoFTR as TorchLoFTR
from matchrt.runtime.fit import apply_fit, fit_image
from matchrt.runtime.image import as_image
from matchrt.runtime.session import Device

# Largest difference of a stage that counts as the same, as a share of the stage's largest value.
RELATIVE = 1e-5
Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class StageDifference:
    """How much one stage of the network differs between torch and Flax.

    name: the stage's name.
    values: how many values were compared.
    relative: largest difference divided by torch's largest value, if the stage in Flax gets torch's inputs.
    chained: the same if all stages run in Flax up to this one, so that rounding has grown.
    rounding: the distances of torch and of Flax from float64, for formulas that multiply rounding errors; None for
        other stages.
    """

    name: str
    values: int
    relative: float
    chained: float
    rounding: tuple[float, float] | None = None

    @property
    def verdict(self) -> Literal["same", "rounding", "differs"]:
        """Whether the stage computes the same.

        `rounding` means: torch and Flax differ by more than RELATIVE, but the distance of Flax from float64 is at most
        RELATIVE, or at most that of torch.
        """
        if self.relative <= RELATIVE:
            return "same"
        if self.rounding is not None and self.rounding[1] <= max(RELATIVE, self.rounding[0]):
            return "rounding"
        return "differs"


@dataclass(frozen=True)
class Arbiter:
    """The matches of both sides compared with torch in float64, to show whose rounding makes a difference.

    torch: the difference of torch in float32.
    flax: the difference of Flax in float32.
    """

    torch: Difference
    flax: Difference


@dataclass(frozen=True)
class FlaxProof:
    """The comparison of the Flax model with torch.

    model: the model's name.
    pair: what was matched: file names, or `generated`.
    size: (height, width) of the networks' input in pixels.
    padded: whether an image is padded, so that masks were tested.
    versions: torch's and JAX's version, by name.
    device: where JAX ran.
    weights: the account of the checkpoint in one line.
    stages: the differences of all stages, in torch's order.
    matches: the difference of the matches, compared as sets.
    arbiter: both sides compared with float64; None if the matches agree.
    """

    model: str
    pair: str
    size: tuple[int, int]
    padded: bool
    versions: dict[str, str]
    device: str
    weights: str
    stages: tuple[StageDifference, ...]
    matches: Difference
    arbiter: Arbiter | None = None

    @property
    def first(self) -> str | None:
        """The name of the first stage that differs by more than rounding; None if no stage does."""
        return next((stage.name for stage in self.stages if stage.verdict == "differs"), None)

    @property
    def same(self) -> bool:
        """Whether all stages and the matches agree. Without any match it is False, because nothing is proven then."""
        return self.first is None and self.matches.same and self.matches.matches > 0

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **asdict(self),
            "first_difference": self.first,
            "same": self.same,
            "max_pixels": MAX_PIXELS,
            "max_relative": RELATIVE,
        }


def prove_flax(
    model: str,
    checkpoint: Path | None = None,
    images: tuple[Path, Path] | None = None,
    *,
    size: tuple[int, int] | None = None,
    threshold: float | None = None,
    device: Device = "cpu",
    selection: Selection | None = None,
    tell: Tell | None = None,
) -> FlaxProof:
    """Compares Flax with torch stage by stage, both in float32 and with the same weights. torch runs on the CPU.

    model: the model's name. checkpoint: the weights; None for a bundled model. images: two files; None for a generated
    pair. size: (height, width) in pixels, None for the model's own; images are letterboxed into it, and padding is
    masked. threshold: smallest confidence (0..1), None for the model's own. device: where Flax runs.
    selection: which network of the checkpoint to take, if it holds several.
    tell: called with the step that begins and the share (0..1) of the work done.
    Errors: flax-model, those of `load_network`, image-*, device-missing.
    """
    say = tell or (lambda stage, done: None)
    spec = flax_spec(model)
    say("loading torch", 0.0)
    loaded = load_network(spec, checkpoint, selection=selection, threshold=threshold)
    assert isinstance(loaded.network, TorchLoFTR)
    config = loaded.spec.family.config
    flax_network = create_abstract(config)
    converted = convert(loaded.checkpoint, model, prefix=loaded.report.prefix)
    fill(flax_network, converted.arrays, str(loaded.checkpoint.path))
    pair = read_pair(images, flax_contract(spec, size or (spec.height, spec.width)))
    say("torch, stage by stage", 0.2)
    ours = torch_stages(loaded.network, pair, MAX_MATCHES)
    say("Flax, stage by stage", 0.3)
    place = jax_device(device)
    alone = flax_stages(flax_network, pair, ours.cells, place, ours.stages)
    say("Flax, all stages in a chain", 0.5)
    chained = flax_stages(flax_network, pair, ours.cells, place)
    say("both, whole", 0.7)
    found = _torch_matches(loaded.network, pair), _flax_matches(flax_network, pair, place)
    matches, arbiter = compare_matches(*found, config.match.threshold), None
    if not matches.same:
        say("torch in float64", 0.8)
        exact = _torch_matches(copy.deepcopy(loaded.network).double(), pair, torch.float64)
        arbiter = Arbiter(*(compare_matches(exact, side, config.match.threshold) for side in found))
    return FlaxProof(
        model=model,
        pair="generated" if images is None else " ".join(path.name for path in images),
        size=(pair.image0.shape[1], pair.image0.shape[2]),
        padded=pair.masked,
        versions={"torch": torch.__version__, "jax": jax.__version__},
        device=str(place),
        weights=converted.report.summary(),
        stages=compare_stages(ours, alone, chained),
        matches=matches,
        arbiter=arbiter,
    )


def read_pair(images: tuple[Path, Path] | None, contract: Any) -> PairInput:
    """Two images in the network's layout, or a generated pair if `images` is None. contract: the network's input.

    The sizes of the images are given if one of them is padded. Errors: image-*.
    """
    sources: tuple[Any, Any] = image_pair(contract.height, contract.width)[:2] if images is None else images
    pixels, sizes = [], []
    for source in sources:
        image = as_image(source)
        fit = fit_image((image.height, image.width), contract, max(contract.height, contract.width))
        pixels.append(apply_fit(image.grey(), fit, contract.kernel)[None])
        sizes.append(np.array([[fit.resized_height, fit.resized_width]], np.int32))
    canvas = (contract.height, contract.width)
    if all(tuple(size[0]) == canvas for size in sizes):
        return PairInput(pixels[0], pixels[1])
    return PairInput(pixels[0], pixels[1], sizes[0], sizes[1])


def compare_stages(run: TorchRun, alone: Stages, chained: Stages) -> tuple[StageDifference, ...]:
    """Compares all stages, in torch's order. All sides must have the same stages in the same layout.

    alone: Flax's stages on torch's inputs. chained: Flax's stages on Flax's inputs. Error: AssertionError, if the
    stages are not the same.
    """
    if not run.stages.keys() == alone.keys() == chained.keys():
        raise AssertionError(f"different stages: {run.stages.keys() ^ alone.keys()}")
    found = []
    for name, ours in run.stages.items():
        exact = run.exact.get(name)
        rounding = None if exact is None else (_relative(exact, ours), _relative(exact, alone[name]))
        differences = _relative(ours, alone[name]), _relative(ours, chained[name])
        found.append(StageDifference(name, _flat(ours).size, *differences, rounding))
    return tuple(found)


def _flat(value: Any) -> Any:
    parts = value if isinstance(value, tuple) else (value,)
    return np.concatenate([np.asarray(part).reshape(-1) for part in parts])


def _relative(ours: Any, theirs: Any) -> float:
    """The largest difference divided by the largest value. Similarities of padding, which are -1e9, are left out."""
    expected, found = _flat(ours), _flat(theirs)
    real = expected > MASKED / 2
    gap = np.abs(expected - found)[real].max(initial=0.0)
    return float(gap / max(np.abs(expected[real]).max(initial=0.0), 1e-30))


@torch.inference_mode()
def _torch_matches(network: TorchLoFTR, pair: PairInput, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    images = [torch.from_numpy(image).permute(0, 3, 1, 2).to(dtype) / 255.0 for image in (pair.image0, pair.image1)]
    sizes = [None if size is None else torch.from_numpy(size) for size in (pair.size0, pair.size1)]
    found = network(*images, *sizes, max_matches=MAX_MATCHES)
    return {name: value.numpy() for name, value in vars(found).items() if value is not None}


def _flax_matches(network: FlaxLoFTR, pair: PairInput, device: Any) -> dict[str, Any]:
    graph, state = nnx.split(network)

    def run(state: Any, image0: Any, image1: Any, size0: Any, size1: Any) -> Any:
        images = image0.astype(jnp.float32) / 255.0, image1.astype(jnp.float32) / 255.0
        return nnx.merge(graph, state)(*images, size0, size1, MAX_MATCHES)

    with jax.default_matmul_precision("highest"), jax.default_device(device):
        found = jax.jit(run)(jax.device_put(state, device), pair.image0, pair.image1, pair.size0, pair.size1)
    return {name: np.asarray(value) for name, value in found._asdict().items()}
