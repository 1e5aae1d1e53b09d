"""The stages of LoFTR in torch and in Flax, on the same pair and in the same layout.

A stage in Flax can get torch's values of the earlier stages. That shows the difference of this stage alone. It can also
get Flax's own values, which shows how rounding errors grow along the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import torch
from flax import nnx
from torch import Tensor

from matchrt.models.loftr.flax import coarse_matching as flax_matching
from matchrt.models.loftr.flax.network import LoFTR as FlaxLoFTR
from matchrt.models.loftr.network import LoFTR as TorchLoFTR
from matchrt.models.loftr.resnet_fpn import run_backbone
from matchrt.models.parts import coarse_matching as torch_matching

Array = npt.NDArray[Any]
# By name of stage: one array for both images (such as features [2, h, w, C]), or a tuple with one array for each.
Stages = dict[str, Any]
Step = tuple[str, Callable[[Mapping[str, Any]], Any]]
PRECISION = "highest"


@dataclass(frozen=True)
class PairInput:
    """A pair as the network gets it.

    image0, image1: uint8 [1, H, W, 1], both of the same size.
    size0, size1: int32 [1, 2], (height, width) in pixels of the part that is not padding; None if nothing is padding.
    """

    image0: Array
    image1: Array
    size0: Array | None = None
    size1: Array | None = None

    @property
    def masked(self) -> bool:
        """Whether an image is padded."""
        return self.size0 is not None


@dataclass(frozen=True)
class TorchRun:
    """What torch computed.

    stages: the values of all stages by name, in order, channels last.
    exact: float64 values of the formulas without weights that multiply rounding errors, from the same inputs.
    cells: indices [1, N] of the matched cells, of image 0 and image 1. The fine stages of both sides start from them,
        because slots of nearly equal scores may be in another order in Flax.
    """

    stages: Stages
    exact: Stages
    cells: tuple[Any, ...]


@torch.inference_mode()
def torch_stages(network: TorchLoFTR, pair: PairInput, max_matches: int) -> TorchRun:
    """Computes all stages in torch."""
    stages: Stages = {}
    images = [torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255.0 for image in (pair.image0, pair.image1)]
    sizes = [None if size is None else torch.from_numpy(size) for size in (pair.size0, pair.size1)]
    with _recorded(network.backbone, _backbone_names(network), stages):
        (coarse0, fine0), (coarse1, fine1) = run_backbone(network.backbone, images[0], images[1])
    grids = network.grid(coarse0, sizes[0]), network.grid(coarse1, sizes[1])
    masks: Any = (grids[0].mask(), grids[1].mask())
    tokens: Any = (network.tokens(coarse0), network.tokens(coarse1))
    stages["position encoding"] = _numpy(*tokens)
    with _recorded(network.loftr_coarse, _layer_names("coarse", network.loftr_coarse), stages):
        tokens = network.loftr_coarse(*tokens, *masks)
    scores = network.similarity(*tokens, *masks)
    # `dual_softmax` is the formula itself. `fast_dual_softmax` subtracts large sums, which costs digits.
    stages |= {"similarity": scores.numpy(), "confidence": torch_matching.dual_softmax(scores).numpy()}
    exact: Stages = {"confidence": torch_matching.dual_softmax(scores.double()).numpy()}
    fast = torch_matching.fast_dual_softmax(scores, scores.transpose(1, 2))
    matches = torch_matching.select_matches(fast, grids[0], grids[1], network.config.match, max_matches)
    count = int((matches.scores > 0).sum())
    cells = matches.index0[:, :count], matches.index1[:, :count]
    if fine0 is not None and fine1 is not None and count:
        widths = grids[0].width, grids[1].width
        windows = network.fine_windows((fine0, fine1), tokens, cells, widths)
        stages["fine windows"] = _numpy(*windows)
        with _recorded(network.loftr_fine, _layer_names("fine", network.loftr_fine), stages):
            windows = network.loftr_fine(*windows)
        expectation, deviation = network.fine_matching(*windows)
        stages |= {"fine expectation": expectation.numpy(), "fine deviation": deviation.numpy()}
        expectation, deviation = network.fine_matching(*(window.double() for window in windows))
        exact |= {"fine expectation": expectation.numpy(), "fine deviation": deviation.numpy()}
    return TorchRun(stages, exact, _numpy(*cells))


def _backbone_names(network: Any) -> dict[str, str]:
    """The backbone's modules whose outputs are stages. The output of the stem is the input of `layer1`."""
    count = network.backbone.n_stages
    names = {f"layer{stage}": f"backbone layer{stage}" for stage in range(1, count + 1)}
    names[f"layer{count}_outconv"] = "backbone coarse"
    return names | {f"layer{stage}_outconv2": f"backbone pyramid {stage}" for stage in network.backbone.pyramid_stages}


def _layer_names(which: str, transformer: Any) -> dict[str, str]:
    return {f"layers.{index}": f"{which} layer {index} ({kind})" for index, kind in enumerate(transformer.kinds)}


@contextmanager
def _recorded(module: Any, names: Mapping[str, str], stages: Stages) -> Iterator[None]:
    """Records the outputs of the named submodules for both images in `stages` while it is entered."""
    outputs: dict[str, list[Tensor]] = {}

    def keep(stage: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: outputs.setdefault(stage, []).append(output)

    hooks = [module.get_submodule(name).register_forward_hook(keep(stage)) for name, stage in names.items()]
    if "layer1" in names:
        hooks.append(module.layer1.register_forward_pre_hook(lambda _m, inputs: keep("backbone stem")(_m, (), *inputs)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    for stage, found in outputs.items():
        # The module was called once with both images in a batch, or once for each image.
        both = torch.cat(found)
        stages[stage] = both.permute(0, 2, 3, 1).numpy() if both.ndim == 4 else _numpy(*both.chunk(2))


def _numpy(*tensors: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.numpy() for tensor in tensors)


def flax_stages(
    network: FlaxLoFTR, pair: PairInput, cells: tuple[Any, ...], device: Any, given: Stages | None = None
) -> Stages:
    """Computes all stages in Flax, compiled. The fine stages start from `cells`, as `TorchRun.cells` has them.

    given: torch's values, from which each stage takes its inputs; None to take the Flax network's own.
    """
    graph, state = nnx.split(network)
    arrays = {name: value for name, value in vars(pair).items() if value is not None}

    def run(state: Any, arrays: Any, cells: Any, given: Any) -> Stages:
        own: Stages = {}
        for name, step in _steps(nnx.merge(graph, state), arrays, cells):
            own[name] = step(own if given is None else given)
        return own

    with jax.default_matmul_precision(PRECISION), jax.default_device(device):
        found: Stages = jax.tree.map(np.asarray, jax.jit(run)(jax.device_put(state, device), arrays, cells, given))
        return found


def _steps(network: FlaxLoFTR, arrays: Mapping[str, Any], cells: Any) -> Iterator[Step]:
    yield from _backbone_steps(network, arrays)
    last = network.config.coarse_stride
    height, width = (int(side) // last for side in arrays["image0"].shape[1:3])
    shape = jax.ShapeDtypeStruct((1, height, width, network.config.coarse.d_model), jnp.float32)
    grids: Any = network.grid(shape, arrays.get("size0")), network.grid(shape, arrays.get("size1"))
    masks: Any = (grids[0].mask(), grids[1].mask())
    yield "position encoding", lambda v: tuple(network.tokens(part) for part in jnp.split(v["backbone coarse"], 2))
    before = "position encoding"
    for name, layer in _layer_steps("coarse", network.loftr_coarse, masks, before):
        yield name, layer
        before = name
    tokens = before
    yield "similarity", lambda v: network.similarity(*v[tokens], *masks)
    yield "confidence", lambda v: flax_matching.dual_softmax(v["similarity"]).values
    if network.config.fine is None or not len(cells[0][0]):
        return
    fine = f"backbone pyramid {network.backbone.pyramid_stages[-1]}"
    yield "fine windows", lambda v: network.fine_windows(_halves(v[fine]), v[tokens], cells, (width, width))
    before = "fine windows"
    for name, layer in _layer_steps("fine", network.loftr_fine, (None, None), before):
        yield name, layer
        before = name
    windows = before
    yield "fine expectation", lambda v: network.fine_matching(*v[windows])[0]
    yield "fine deviation", lambda v: network.fine_matching(*v[windows])[1]


def _halves(both: Any) -> tuple[Any, Any]:
    """The values of image 0 and of image 1, from an array that holds both."""
    first, second = jnp.split(both, 2)
    return first, second


def _backbone_steps(network: FlaxLoFTR, arrays: Mapping[str, Any]) -> Iterator[Step]:
    backbone = network.backbone
    images = jnp.concatenate([arrays["image0"], arrays["image1"]]).astype(jnp.float32) / 255.0
    yield "backbone stem", lambda v: backbone.stem(images)
    before = "backbone stem"
    for stage in range(1, backbone.n_stages + 1):
        yield f"backbone layer{stage}", partial(_stage, backbone, stage, before)
        before = f"backbone layer{stage}"
    last = before
    yield "backbone coarse", lambda v: backbone.coarse(v[last])
    above = "backbone coarse"
    for stage in backbone.pyramid_stages:
        yield f"backbone pyramid {stage}", partial(_merge, backbone, stage, above)
        above = f"backbone pyramid {stage}"


def _layer_steps(which: str, transformer: Any, masks: Any, before: str) -> Iterator[Step]:
    for index, name in enumerate(_layer_names(which, transformer).values()):
        yield name, partial(_layer, transformer, index, masks, before)
        before = name


def _stage(backbone: Any, stage: int, before: str, values: Mapping[str, Any]) -> Any:
    return backbone.stage(stage, values[before])


def _merge(backbone: Any, stage: int, above: str, values: Mapping[str, Any]) -> Any:
    return backbone.merge(stage, values[f"backbone layer{stage}"], values[above])


def _layer(transformer: Any, index: int, masks: Any, before: str, values: Mapping[str, Any]) -> Any:
    return transformer.step(index, *values[before], *masks)
