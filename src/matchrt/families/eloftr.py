"""EfficientLoFTR and MatchAnything-ELoFTR: one network, whose tensors have three namings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from matchrt.families import published_files, reasons
from matchrt.families.base import GridFamily, Preprocess, configured
from matchrt.families.definition import FamilyDefinition, ModelSpec
from matchrt.families.keymap import Drop, Fuse, Fused, Keep, KeyMap, Rename, Tied
from matchrt.families.keymap import Rule as KeyRule
from matchrt.families.rules import Nodes, PrecisionRules, QuantRule, QuantRules, Rule
from matchrt.models.eloftr.config import ELOFTR_LITE, ELoFTRConfig
from matchrt.models.parts.config import CoarseMatchConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

ELOFTR_INPUT = Preprocess(channels=1, divisor=32)
MATCHANYTHING_ELOFTR_INPUT = Preprocess(channels=1, divisor=32, static="pad-square", dynamic=None, kernel="lanczos")

ELOFTR = ELoFTRConfig()
ELOFTR_OPT = ELoFTRConfig(softmax=False, match=CoarseMatchConfig(threshold=0.5))
MATCHANYTHING_ELOFTR = ELoFTRConfig(match=CoarseMatchConfig(threshold=0.1, mutual=False))


@dataclass(frozen=True)
class ELoFTRFamily(GridFamily):
    """EfficientLoFTR with one configuration; see `Family`.

    config: the network's configuration.
    name: the family's name.
    """

    config: ELoFTRConfig
    name: str = "eloftr"

    @property
    def score_reach(self) -> float:
        """See `Family`."""
        return self.config.score_reach

    def at(self, height: int, width: int) -> ELoFTRFamily:
        """The family for an input of that size. Positions are scaled by its longer side, as in the authors' code."""
        return replace(self, config=replace(self.config, built_side=max(height, width)))

    def create(self) -> nn.Module:
        """See `Family`."""
        from matchrt.models.eloftr.network import ELoFTR

        return ELoFTR(self.config)

    def deployed(self, network: nn.Module) -> nn.Module:
        """See `GridFamily`."""
        from matchrt.models.eloftr.deployed import deployed
        from matchrt.models.eloftr.network import ELoFTR

        assert isinstance(network, ELoFTR)
        return deployed(network)

    def probing(self, network: nn.Module) -> AbstractContextManager[None]:
        """See `Family`. The mutual test is off too, because with it untrained weights find only a few matches."""
        return configured(network, match=replace(self.config.match, threshold=0.0, mutual=False))


# Keys of checkpoints.

_COUNTER = "BatchNorm's count of training steps, which inference does not read"
_NORM = ("weight", "bias", "running_mean", "running_var")


def fuse_repvgg(parts: Mapping[str, Tensor]) -> Fused:
    """Fuses a RepVGG block in training form into one convolution; see `matchrt.models.eloftr.repvgg`.

    Error: ValueError, if the parts do not fit together.
    """
    from matchrt.models.eloftr import repvgg

    return Fused(*repvgg.fuse_repvgg(parts))


def _blocks(config: ELoFTRConfig) -> Iterator[tuple[str, str, bool]]:
    """For every RepVGG block: its module in official files, in Hugging Face files, and whether it has an identity."""
    for stage, count in enumerate(config.blocks):
        for block in range(count):
            official = "backbone.layer0" if stage == 0 else f"backbone.layer{stage}.{block}"
            hugging_face = f"efficientloftr.backbone.stages.{stage}.blocks.{block}"
            yield official, hugging_face, stage == 1 or (stage > 1 and block > 0)


def _fusion(source: str, target: str, names: Mapping[str, tuple[str, str]], identity: str | None) -> list[KeyRule]:
    """The rules of one block in training form. names: of (convolution, norm) for its 3x3 and 1x1 branches."""
    parts = {}
    for branch, (convolution, norm) in names.items():
        parts[f"{convolution}.weight"] = f"{branch}.conv.weight"
        parts.update({f"{norm}.{name}": f"{branch}.bn.{name}" for name in _NORM})
    norms = [norm for _, norm in names.values()]
    if identity is not None:
        parts.update({f"{identity}.{name}": f"rbr_identity.{name}" for name in _NORM})
        norms.append(identity)
    fuse = Fuse(source, tuple(parts.items()), f"{target}.rbr_reparam", fuse_repvgg)
    return [fuse, *(Drop(f"{source}.{norm}.num_batches_tracked", _COUNTER) for norm in norms)]


def _backbone_rules(config: ELoFTRConfig) -> list[KeyRule]:
    rules: list[KeyRule] = []
    for official, hugging_face, identity in _blocks(config):
        branches = {branch: (f"{branch}.conv", f"{branch}.bn") for branch in ("rbr_dense", "rbr_1x1")}
        rules += _fusion(official, official, branches, "rbr_identity" if identity else None)
        rules.append(Keep(f"{official}.rbr_reparam.*"))
        branches = {"rbr_dense": ("conv1.conv", "conv1.norm"), "rbr_1x1": ("conv2.conv", "conv2.norm")}
        rules += _fusion(hugging_face, official, branches, "identity" if identity else None)
    return rules


def _branches(config: ELoFTRConfig) -> Iterator[Tied]:
    """The biases of the norms of a block's branches, which are added."""
    for official, hugging_face, identity in _blocks(config):
        theirs = [f"{official}.rbr_dense.bn.bias", f"{official}.rbr_1x1.bn.bias"]
        others = [f"{hugging_face}.conv1.norm.bias", f"{hugging_face}.conv2.norm.bias"]
        if identity:
            theirs.append(f"{official}.rbr_identity.bias")
            others.append(f"{hugging_face}.identity.bias")
        yield from (Tied(tuple(theirs)), Tied(tuple(others)))


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


def _transformer_rules(config: ELoFTRConfig) -> list[KeyRule]:
    rules: list[KeyRule] = [Keep("loftr_coarse.layers.**")]
    for pair in range(config.layer_pairs):
        for offset, kind in enumerate(("self_attention", "cross_attention")):
            source = f"efficientloftr.local_feature_transformer.layers.{pair}.{kind}"
            target = f"loftr_coarse.layers.{2 * pair + offset}"
            rules += [Rename(f"{source}.{theirs}", f"{target}.{ours}") for theirs, ours in _LAYER.items()]
    return rules


def _fine_rules() -> list[KeyRule]:
    rules: list[KeyRule] = [
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


# The rules of all three namings: the authors' files in training form, the same reparameterised, and Hugging Face's.
ELOFTR_KEYS = KeyMap(
    (*_backbone_rules(ELOFTR), *_transformer_rules(ELOFTR), *_fine_rules()), tied=tuple(_branches(ELOFTR))
)
ELOFTR_LITE_KEYS = KeyMap(
    (
        *_backbone_rules(ELOFTR_LITE),
        Keep("loftr_coarse.layers.**"),
        Keep("fine_preprocess.**"),
        Keep("coarse_matching.scale"),
        Keep("rescoring.layers.**"),
    ),
    tied=tuple(_branches(ELOFTR_LITE)),
)


# Models.


def _models() -> tuple[ModelSpec, ...]:
    origin = "eloftr_outdoor.ckpt from the authors' weights folder linked from github.com/zju3dv/EfficientLoFTR, "
    origin += "or model.safetensors of zju-community/efficientloftr"
    full, opt = ELoFTRFamily(ELOFTR), ELoFTRFamily(ELOFTR_OPT)
    licence = "Project Registration License v1.0 since 2026-09-15, Apache-2.0 before"
    return (
        ModelSpec(
            "eloftr-lite",
            ELoFTRFamily(ELOFTR_LITE),
            ELOFTR_LITE_KEYS,
            ELOFTR_INPUT,
            480,
            640,
            "Apache-2.0",
            "in the package, trained by the matchrt authors (docs/models/eloftr-lite.md)",
            "small EfficientLoFTR for CPUs, bundled",
            weights="eloftr-lite.safetensors",
            default_score=0.35,  # docs/models/eloftr-lite.md
            suits=("speed", "outdoor", "indoor"),
            int8=ELOFTR_LITE_INT8,
        ),
        ModelSpec(
            "eloftr",
            full,
            ELOFTR_KEYS,
            ELOFTR_INPUT,
            480,
            640,
            licence,
            origin,
            "EfficientLoFTR, full configuration",
            published=published_files.ELOFTR,
            suits=("outdoor", "speed"),
        ),
        ModelSpec(
            "eloftr-opt",
            opt,
            ELOFTR_KEYS,
            ELOFTR_INPUT,
            480,
            640,
            licence,
            origin,
            "EfficientLoFTR, the authors' optimised configuration: no dual softmax",
            published=published_files.ELOFTR,
            suits=("speed", "outdoor"),
        ),
        ModelSpec(
            "matchanything-eloftr",
            ELoFTRFamily(MATCHANYTHING_ELOFTR),
            ELOFTR_KEYS,
            MATCHANYTHING_ELOFTR_INPUT,
            832,
            832,
            licence,
            "matchanything_eloftr.ckpt from the authors' weights linked from github.com/zju3dv/MatchAnything, "
            "or model.safetensors of zju-community/matchanything_eloftr",
            "EfficientLoFTR trained across modalities by MatchAnything; one-to-many matches",
            published=published_files.MATCHANYTHING_ELOFTR,
            suits=("cross-modal",),
        ),
        ModelSpec(
            "minima-eloftr",
            full,
            ELOFTR_KEYS,
            ELOFTR_INPUT,
            480,
            640,
            "Apache-2.0",
            "minima_eloftr.ckpt from the authors' weights linked from github.com/LSXI7/MINIMA",
            "EfficientLoFTR trained across modalities by MINIMA; its authors ship no loader, so threshold 0.2 and "
            "scale of positions are EfficientLoFTR's and unofficial",
            published=(published_files.MINIMA_ELOFTR,),
            suits=("cross-modal", "speed"),
        ),
    )


# Rules of fp16. Their effect was measured: docs/models/eloftr.md.

_LAYERS = ("loftr_coarse.layers.*",)

_IMAGE = Rule(
    "image",
    "fp32",
    "bytes / 255, rounded once at the first convolution; the number of kernels is the same",
    (Nodes(("graph",), ("Cast", "Div")),),
)
_PADDING = Rule(
    "padding",
    "fp32",
    "a few hundred cell numbers and interpolation weights of the valid part; fp16 holds all results exactly",
    (Nodes(("loftr_coarse",), ("Cast", "Div", "Floor", "Sub", "Min", "Abs", "Clip")),
     Nodes(("loftr_coarse",), ("Mul",), operands=("loftr_coarse/Cast_*",))),
)  # fmt: skip
_POSITIONS = Rule(
    "positions",
    "fp32",
    "cell numbers, from which dynamic graphs compute interpolation weights; Range has no fp16 form",
    (Nodes(("loftr_coarse",), ("Range",)),
     Nodes(("loftr_coarse",), ("Add",), operands=("loftr_coarse/Cast_*",))),
)  # fmt: skip
_ATTENTION = Rule(
    "attention",
    "fp16",
    "sums over 16 cells and softmax over the 1/32 grid; the queries are scaled before",
    (Nodes((*_LAYERS, *(f"{module}.mlp.*" for module in _LAYERS), "loftr_coarse")),),
)
_NORMS = Rule(
    "norm",
    "fp16",
    "ONNX computes mean and variance of LayerNormalization in fp32 (stash_type 1) for any type of input",
    (Nodes(tuple(f"{module}.norm*" for module in _LAYERS), ("LayerNormalization",)),),
)
_COARSE = Rule(
    "coarse-matching",
    "fp32",
    "an exponent, whose rounding error the temperature multiplies by 10; sums of exponentials; scores that are nearly "
    "equal and must keep their order",
    (Nodes(("coarse_matching",)),),
)
_RESCORING = Rule(
    "rescoring",
    "fp32",
    "moments of points, of which differences are taken; scores that are nearly equal and must keep their order",
    (Nodes(("rescoring", "rescoring.**")),),
)
_WINDOWS = Rule(
    "windows",
    "fp16",
    "interpolation between four neighbours with weights that fp16 holds exactly",
    (Nodes(("fine_windows",), ("MatMul",)),),
)
_FINE = Rule(
    "fine-matching",
    "fp32",
    "one of 4096 pairs of pixels is chosen, whose confidences are 1/6400 on average and hardly differ: with products "
    "in fp16, as the authors run them on GPUs, 8 of 100 matches of untrained weights moved; with fp32, 2 of 100",
    (Nodes(("fine_matching",)),),
)
_COORDINATES = Rule(
    "selection-and-coordinates",
    "fp32",
    "the order of scores, cell numbers and pixels: fp16 holds all whole numbers only up to 2048",
    (Nodes(("network", "fine_windows")),),
)
_CONVOLUTION = Rule(
    "convolution",
    "fp16",
    "nine tenths of the arithmetic, on tensor cores",
    (Nodes(("backbone", "backbone.**", "fine_preprocess", "fine_preprocess.**")),),
)
_SCALE = Rule(
    "scale",
    "fp16",
    "coarse features divided by 16 at the input of the pyramid: a power of two, which is exact",
    (Nodes(("network",), ("Mul",), operands=("loftr_coarse/*", "loftr_coarse.**")),),
)

ELOFTR_FP16 = PrecisionRules(
    "eloftr",
    (
        *(_IMAGE, _PADDING, _POSITIONS, _ATTENTION, _NORMS, _COARSE, _RESCORING, _WINDOWS, _FINE),
        *(_SCALE, _COORDINATES, _CONVOLUTION),
    ),
)

# Rules of int8. Their effect was measured: docs/quantization.md.

ELOFTR_INT8 = QuantRules(
    "eloftr",
    (
        QuantRule("stem", False, reasons.STEM, (Nodes(("backbone.layer0**",), ("Conv",)),)),
        QuantRule("convolution", True, reasons.CONVOLUTION, (Nodes(("backbone.**", "fine_preprocess.**"), ("Conv",)),)),
        QuantRule("linear", True, reasons.LINEAR, (Nodes(("loftr_coarse.layers.**",), ("MatMul", "Gemm")),)),
        QuantRule("similarity", False, reasons.SIMILARITY, (Nodes(("coarse_matching",), ("MatMul",)),)),
        QuantRule("masks", False, reasons.MASKS, (Nodes(("network",), ("MatMul",)),)),
        QuantRule("windows", False, "interpolation with exact weights", (Nodes(("fine_windows",), ("MatMul",)),)),
        QuantRule("fine-matching", False, reasons.COORDINATES, (Nodes(("fine_matching",), ("MatMul",)),)),
    ),
    reasons.FLOAT_PARTS,
)

# eloftr-lite's own. Its refinement picks one of 16 pixels of the half-resolution map in image 0, so that a little noise
# in any feature moves a match by 2 px. Figures: docs/models/eloftr-lite.md.
ELOFTR_LITE_INT8 = QuantRules(
    "eloftr",
    (
        QuantRule(
            "deep-convolution",
            True,
            "a sixth of the time in fp32, and a thirtieth in 8 bits; their rounding reaches the refined pixels only "
            "through the coarse features",
            (Nodes(tuple(f"backbone.layer3.{block}.**" for block in (1, 2, 3, 4)), ("Conv",)),),
        ),
        QuantRule(
            "fine-features",
            False,
            "read by the refinement, which compares pixels that hardly differ: each of these convolutions alone loses "
            "3 to 15 % of the matches",
            (
                Nodes(("backbone.layer0.**", "backbone.layer1.**", "backbone.layer2.**"), ("Conv",)),
                Nodes(("backbone.layer3.0.**", "fine_preprocess.**"), ("Conv",)),
            ),
        ),
        QuantRule(
            "linear",
            False,
            "3 % of the matches for 2 % of the time: products of 112 channels, each with a tensor to round before",
            (Nodes(("loftr_coarse.layers.**",), ("MatMul",)),),
        ),
        QuantRule("similarity", False, reasons.SIMILARITY, (Nodes(("coarse_matching",), ("MatMul",)),)),
        QuantRule("rescoring", False, reasons.COORDINATES, (Nodes(("rescoring**",), ("Conv", "MatMul", "Gemm")),)),
        QuantRule("masks", False, reasons.MASKS, (Nodes(("network",), ("MatMul",)),)),
        QuantRule("fine-matching", False, reasons.COORDINATES, (Nodes(("fine_matching",), ("MatMul",)),)),
    ),
    reasons.FLOAT_PARTS,
    compensated=True,
)

ELOFTR_FAMILY = FamilyDefinition("eloftr", "EfficientLoFTR", _models(), ELOFTR_FP16, ELOFTR_INT8)
