"""EfficientLoFTR and MatchAnything-ELoFTR: one network, three namings of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from matchrt.families.base import GridFamily, Preprocess, configured
from matchrt.families.keymap import Drop, Fuse, Keep, KeyMap, Rename, Rule
from matchrt.models.parts.config import ELOFTR, ELoFTRConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

ELOFTR_INPUT = Preprocess(channels=1, divisor=32)
MATCHANYTHING_ELOFTR_INPUT = Preprocess(channels=1, divisor=32, static="pad-square", dynamic=None, kernel="lanczos")


@dataclass(frozen=True)
class ELoFTRFamily(GridFamily):
    """See `Family`."""

    config: ELoFTRConfig
    name: str = "eloftr"

    def at(self, height: int, width: int) -> ELoFTRFamily:
        """Positions are scaled by the longer side, as the authors' evaluation does it for both axes."""
        return replace(self, config=replace(self.config, built_side=max(height, width)))

    def create(self) -> nn.Module:
        """See `Family`."""
        from matchrt.models.eloftr.network import ELoFTR

        return ELoFTR(self.config)

    def constants(self) -> Mapping[str, Callable[[tuple[int, ...]], Tensor]]:
        """The files hold none."""
        return {}

    def probing(self, network: nn.Module) -> AbstractContextManager[None]:
        """Threshold 0 and no mutual test, which leaves untrained weights only a handful of matches."""
        from matchrt.models.eloftr.network import ELoFTR

        assert isinstance(network, ELoFTR)
        return configured(network, match=replace(network.config.match, threshold=0.0, mutual=False))


_COUNTER = "BatchNorm's count of training steps, which inference does not read"
_NORM = ("weight", "bias", "running_mean", "running_var")


def _blocks(config: ELoFTRConfig) -> Iterator[tuple[str, str, bool]]:
    """Of every RepVGG block: its module in official files, in Hugging Face files, and whether it has an identity."""
    for stage, count in enumerate(config.blocks):
        for block in range(count):
            official = "backbone.layer0" if stage == 0 else f"backbone.layer{stage}.{block}"
            hugging_face = f"efficientloftr.backbone.stages.{stage}.blocks.{block}"
            yield official, hugging_face, stage == 1 or (stage > 1 and block > 0)


def _fusion(source: str, target: str, names: Mapping[str, tuple[str, str]], identity: str | None) -> list[Rule]:
    """The rules of one block in training form; names: of its 3x3 and 1x1 branch, where (convolution, norm) lie."""
    parts = {}
    for branch, (convolution, norm) in names.items():
        parts[f"{convolution}.weight"] = f"{branch}.conv.weight"
        parts.update({f"{norm}.{name}": f"{branch}.bn.{name}" for name in _NORM})
    norms = [norm for _, norm in names.values()]
    if identity is not None:
        parts.update({f"{identity}.{name}": f"rbr_identity.{name}" for name in _NORM})
        norms.append(identity)
    fuse = Fuse(source, tuple(parts.items()), f"{target}.rbr_reparam", "repvgg")
    return [fuse, *(Drop(f"{source}.{norm}.num_batches_tracked", _COUNTER) for norm in norms)]


def _backbone_rules(config: ELoFTRConfig) -> list[Rule]:
    rules: list[Rule] = []
    for official, hugging_face, identity in _blocks(config):
        branches = {branch: (f"{branch}.conv", f"{branch}.bn") for branch in ("rbr_dense", "rbr_1x1")}
        rules += _fusion(official, official, branches, "rbr_identity" if identity else None)
        rules.append(Keep(f"{official}.rbr_reparam.*"))
        branches = {"rbr_dense": ("conv1.conv", "conv1.norm"), "rbr_1x1": ("conv2.conv", "conv2.norm")}
        rules += _fusion(hugging_face, official, branches, "identity" if identity else None)
    return rules


# Hugging Face's name of each tensor of a transformer layer -> the official one.
_LAYER = {
    "aggregation.q_aggregation.weight": "aggregate.weight",
    "aggregation.norm.weight": "norm1.weight",
    "aggregation.norm.bias": "norm1.bias",
    "attention.q_proj.weight": "q_proj.weight",
    "attention.k_proj.weight": "k_proj.weight",
    "attention.v_proj.weight": "v_proj.weight",
    "attention.o_proj.weight": "merge.weight",
    "mlp.fc1.weight": "mlp.0.weight",
    "mlp.fc2.weight": "mlp.2.weight",
    "mlp.layer_norm.weight": "norm2.weight",
    "mlp.layer_norm.bias": "norm2.bias",
}


def _transformer_rules(config: ELoFTRConfig) -> list[Rule]:
    rules: list[Rule] = [Keep("loftr_coarse.layers.**")]
    for pair in range(config.layer_pairs):
        for offset, kind in enumerate(("self_attention", "cross_attention")):
            source = f"efficientloftr.local_feature_transformer.layers.{pair}.{kind}"
            target = f"loftr_coarse.layers.{2 * pair + offset}"
            rules += [Rename(f"{source}.{theirs}", f"{target}.{ours}") for theirs, ours in _LAYER.items()]
    return rules


def _fine_rules() -> list[Rule]:
    rules: list[Rule] = [
        Keep("fine_preprocess.**"),
        Rename("refinement_layer.out_conv.weight", "fine_preprocess.layer3_outconv.weight"),
    ]
    for index, stage in enumerate((2, 1)):
        source, target = f"refinement_layer.out_conv_layers.{index}", f"fine_preprocess.layer{stage}_outconv"
        rules += [
            Rename(f"{source}.out_conv1.weight", f"{target}.weight"),
            Rename(f"{source}.out_conv2.weight", f"{target}2.0.weight"),
            Rename(f"{source}.batch_norm.*", f"{target}2.1."),
            Rename(f"{source}.out_conv3.weight", f"{target}2.3.weight"),
        ]
    return rules


# Of all three namings: the authors' files (training form), the same reparameterised, and Hugging Face's.
ELOFTR_KEYS = KeyMap((*_backbone_rules(ELOFTR), *_transformer_rules(ELOFTR), *_fine_rules()))
