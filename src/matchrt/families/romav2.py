"""RoMa v2: one network with one or two refinements, and one file of weights with DINOv3 in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matchrt.families import published_files, reasons
from matchrt.families.base import Preprocess
from matchrt.families.definition import FamilyDefinition, ModelSpec, Preset
from matchrt.families.dense import DenseFamily, Size
from matchrt.families.keymap import Constant, Drop, Fuse, Fused, Keep, KeyMap, RejectedPartsError, Tied
from matchrt.families.keymap import Rule as KeyRule
from matchrt.families.rules import Nodes, PrecisionRules, QuantRule, QuantRules, Rule
from matchrt.models.romav2.config import RoMaV2Config

if TYPE_CHECKING:
    from torch import Tensor, nn

    from matchrt.models.parts.engine_graph import EngineGraph

# Sides are multiples of a patch.
PATCH = 16
ROMAV2_INPUT = Preprocess(
    channels=3,
    divisor=PATCH,
    static="stretch",
    dynamic=None,
    kernel="bicubic",
    coarse=None,
    coarse_divisor=PATCH,
)
# DINOv3's blocks in the file; the network has the first ones.
BLOCKS = 24


@dataclass(frozen=True)
class RoMaV2Family(DenseFamily):
    """RoMa v2 with one configuration; see `DenseFamily`.

    config: the network's configuration.
    size: (height, width) of the images in the last pass, in pixels.
    coarse: (height, width) of the images in the first pass, in pixels; None if there is only one pass.
    name: the family's name.
    """

    config: RoMaV2Config
    size: Size = (640, 640)
    coarse: Size | None = None
    name: str = "romav2"

    @property
    def coarse_stride(self) -> int:
        """The stride of the patches, all of which are matched with all."""
        return self.config.dinov3.patch

    def create(self) -> nn.Module:
        """See `Family`."""
        from matchrt.models.romav2.network import RoMaV2

        return RoMaV2(self.config)

    def constants(self) -> Mapping[str, Callable[[tuple[int, ...]], Tensor]]:
        """The constants that the file has and the network computes."""
        import torch

        from matchrt.models.romav2.matcher import TEMPERATURE
        from matchrt.models.romav2.rotary import periods

        backbone, view = self.config.dinov3, self.config.multi_view
        return {
            "temperature": lambda shape: torch.tensor(TEMPERATURE),
            "scale of positions": lambda shape: torch.tensor(1.0),
            "backbone's periods": lambda shape: periods(backbone.dim // backbone.heads).float(),
            "matcher's periods": lambda shape: periods(view.dim // view.heads).float(),
        }

    def graph(self, network: nn.Module, max_matches: int, published: bool = False) -> EngineGraph:
        """See `Family`."""
        from matchrt.models.romav2.engine_graph import RoMaV2Graph
        from matchrt.models.romav2.network import RoMaV2

        assert isinstance(network, RoMaV2)
        return RoMaV2Graph(network, max_matches, self.size, self.coarse, published)


# Keys of checkpoints.

_BEHIND = "one of DINOv3's last six blocks: no feature is read behind the eighteenth, so nothing depends on it"
_MASK = "stands for hidden patches in DINOv3's training; inference hides none"


def mask_bias(parts: Mapping[str, Tensor]) -> Fused:
    """Multiplies the bias of DINOv3's queries, keys and values by its mask.

    parts: `bias` and `mask`, `[3C]`: queries, keys, values. DINOv3's keys have no bias, so their part of the mask is 0.
    The published file has zeros for bias and mask. Errors: ValueError if the shapes differ, RejectedPartsError for
    another mask.
    """
    bias, mask = parts["bias"].float(), parts["mask"].float()
    if bias.shape != mask.shape or bias.ndim != 1 or len(bias) % 3:
        raise ValueError(f"a bias of {list(bias.shape)} and a mask of {list(mask.shape)}")
    if not ((mask == 0) | (mask == 1)).all():
        raise RejectedPartsError("the mask has other values than 0 and 1")
    if (mask.chunk(3)[1] != 0).any():
        raise RejectedPartsError("the mask lets the keys have a bias, which DINOv3's have not")
    masked = bias * mask
    difference = (masked.double() - parts["bias"].double() * parts["mask"].double()).abs().max()
    return Fused({"bias": masked}, float(difference))


def romav2_keys(config: RoMaV2Config) -> KeyMap:
    """The key map of a network of that configuration, for files with all blocks of DINOv3."""
    rules: list[KeyRule] = [
        *(Keep(f"f.{name}") for name in ("cls_token", "storage_tokens", "patch_embed.proj.*", "norm.*")),
        Drop("f.mask_token", _MASK),
        Constant("f.rope_embed.periods", "backbone's periods"),
    ]
    for block in range(config.dinov3.depth):
        module = f"f.blocks.{block}"
        rules += [Keep(f"{module}.{name}") for name in ("norm?.*", "ls?.gamma", "mlp.*.*", "attn.proj.*")]
        rules.append(Keep(f"{module}.attn.qkv.weight"))
        qkv = f"{module}.attn.qkv"
        rules.append(Fuse(qkv, (("bias", "bias"), ("bias_mask", "mask")), qkv, mask_bias))
    rules += [Drop(f"f.blocks.{block}.**", _BEHIND) for block in range(config.dinov3.depth, BLOCKS)]
    rules += [
        Keep("matcher.omega"),
        Constant("matcher.temp", "temperature"),
        Constant("matcher.scale", "scale of positions"),
        Constant("matcher.mv_vit.rope_embed.periods", "matcher's periods"),
        *(Keep(f"matcher.mv_vit.{name}") for name in ("projector.*", "blocks.**", "norm.*", "output_projector.*")),
        Keep("matcher.head.**"),
        Keep("refiners.**"),
        Keep("refiner_features.layers.**"),
    ]
    equal = (
        Tied(("f.rope_embed.periods", "matcher.mv_vit.rope_embed.periods")),
        Tied(tuple(f"f.blocks.{block}.attn.qkv.bias_mask" for block in range(BLOCKS))),
    )
    return KeyMap(tuple(rules), ("module.", "_orig_mod.", "model.", "net.", "network."), equal)


# The model and its presets. docs/models/romav2.md says what the presets cost.

ROMAV2 = RoMaV2Config()
ROMAV2_KEYS = romav2_keys(ROMAV2)
_OLDER = (
    "Version 2.0.0 of RoMa v2 has weights with the same names and shapes for another network, which gives a wrong warp "
    "here: in that version the local correlation reads features that are warped already. Only the file's sha256 tells "
    "the two apart. Weights that you trained yourself must come from version 2.0.1 of the code or later."
)
ROMAV2_MODELS = (
    ModelSpec(
        "romav2",
        RoMaV2Family(ROMAV2),
        ROMAV2_KEYS,
        ROMAV2_INPUT,
        640,
        640,
        "MIT; DINOv3's weights in it: DINOv3 License",
        "romav2.0.1.pt from the release v2.0.1 of github.com/Parskatt/RoMaV2",
        "RoMa v2, dense, with overlap and precision",
        published=(published_files.ROMAV2,),
        unless_published=_OLDER,
        suits=("outdoor", "indoor"),
    ),
)
ROMAV2_PRESETS = (
    Preset("base", (640, 640), False, "640, image 0 to image 1 only", {"coarse": None}),
    Preset("precise", (1280, 1280), True, "800 and 1280, both ways: the authors' default", {"coarse": (800, 800)}),
    Preset("fast", (512, 512), False, "512, image 0 to image 1 only", {"coarse": None}),
    Preset("turbo", (320, 320), False, "320, image 0 to image 1 only", {"coarse": None}),
)

# Rules of fp16. docs/models/romav2.md says what they cost.

_REFINER = ("refiners.*",)

_IMAGE = Rule(
    "image",
    "fp32",
    "bytes / 255 and ImageNet's mean, rounded once at the first convolution",
    (Nodes(("graph",)),),
)
_MATCHING = Rule(
    "matching",
    "fp32",
    "cosines divided by 0.1 are exponents, and the softmax over all patches weighs positions: as in the official code",
    (Nodes(("matcher.match",)),),
)
_FIRST_WARP = Rule(
    "first-warp",
    "fp32",
    "the head's last two convolutions give the warp itself: as in the official code",
    (Nodes(("matcher.head.scratch.output_conv2", "matcher.head.scratch.output_conv2.*")),),
)
_POSITIONS = Rule(
    "positions",
    "fp32",
    "pixel positions up to 1280: fp16 values are a pixel apart there",
    (
        Nodes(("refiners.*.sample.positions", "refiners.*.correlation.positions")),
        Nodes(_REFINER, ("Sub", "Mul", "Add")),
    ),
)
_INTERPOLATION = Rule(
    "window-interpolation",
    "fp32",
    "correlations are weighted by fractions of pixels here, with a few values for each pixel",
    (Nodes(("refiners.*.correlation.interpolate",)),),
)
_HEADS = Rule(
    "heads",
    "fp32",
    "the refiners' last layer, the warp, the overlap and the precision: these are summed over all scales and returned",
    (Nodes(("refiners.*.merged_heads", "refiners.*.precision", "network")),),
)
_REFINER_INPUT = Rule(
    "refiner-input",
    "fp16",
    "features, sampled features, embedded displacements and correlations, all of order 1 to 10, are joined in one type",
    (Nodes(_REFINER, ("Concat",)),),
)
_SAMPLING = Rule(
    "sampling",
    "fp16",
    "features times weights in 0..1, or times the other image's features divided by sqrt(C): sums of order 10",
    (Nodes(("refiners.*.sample", "refiners.*.correlation", "refiners.*.proj")),),
)
_REFINER_BLOCKS = Rule(
    "refiner-blocks",
    "fp16",
    "most of the refiners' arithmetic, on tensor cores",
    (Nodes(("refiners.*.block1", "refiners.*.block1.**", "refiners.*.hidden_blocks.**")),),
)
_MATCHER = Rule(
    "matcher",
    "fp16",
    "the official code runs it in bfloat16, which has 3 bits less; norms compute in fp32 inside",
    (Nodes(("matcher", "matcher.mv_vit", "matcher.mv_vit.**", "matcher.head", "matcher.head.**")),),
)
_ENCODERS = Rule(
    "encoders",
    "fp16",
    "the official code runs them in bfloat16, which has 3 bits less; norms compute in fp32 inside",
    (Nodes(("f", "f.**", "refiner_features", "refiner_features.**")),),
)

ROMAV2_FP16 = PrecisionRules(
    "romav2",
    (
        *(_IMAGE, _MATCHING, _FIRST_WARP, _POSITIONS, _INTERPOLATION, _HEADS),
        *(_REFINER_INPUT, _SAMPLING, _REFINER_BLOCKS, _MATCHER, _ENCODERS),
    ),
)

# Rules of int8.

ROMAV2_INT8 = QuantRules(
    "romav2",
    (
        QuantRule(
            "stem", False, reasons.STEM, (Nodes(("refiner_features.layers.0", "f.patch_embed.proj"), ("Conv",)),)
        ),
        QuantRule("convolution", True, reasons.CONVOLUTION, (Nodes(("refiner_features.layers.*",), ("Conv",)),)),
        QuantRule(
            "attention",
            False,
            "products of two activations: the errors of both multiply, and a sum over all patches follows",
            (Nodes(("f.blocks.*.attn", "matcher.mv_vit.blocks.*.attn"), ("MatMul",)),),
        ),
        QuantRule(
            "linear",
            True,
            reasons.LINEAR,
            (Nodes(("f.blocks.**", "matcher.mv_vit.**"), ("MatMul", "Gemm")),),
        ),
        QuantRule("matching", False, reasons.SIMILARITY, (Nodes(("matcher.match",), ("MatMul", "Gemm")),)),
        QuantRule(
            "first-warp",
            False,
            reasons.COORDINATES,
            (Nodes(("matcher.head.scratch.output_conv2.*",), ("Conv",)),),
        ),
        QuantRule(
            "head",
            False,
            "a twelfth of the arithmetic, and every error of its features is one of the first warp",
            (Nodes(("matcher.head.**",), ("Conv",)),),
        ),
        QuantRule(
            "refiner-input",
            False,
            "features, displacements and correlations side by side, which have different scales in one tensor",
            (Nodes(("refiners.*.block1.*",), ("Conv",)), Nodes(("refiners.*.proj",), ("MatMul", "Gemm", "Conv"))),
        ),
        QuantRule(
            "flow",
            False,
            reasons.COORDINATES,
            (Nodes(("refiners.*.merged_heads",), ("Conv",)),),
        ),
        QuantRule(
            "refiner-blocks",
            True,
            "most of the refiners' arithmetic",
            (Nodes(("refiners.*.hidden_blocks.**",), ("Conv",)),),
        ),
        QuantRule("correlation", False, reasons.SIMILARITY, (Nodes(("refiners.*.correlation",), ("MatMul",)),)),
    ),
    reasons.FLOAT_PARTS,
)

ROMAV2_FAMILY = FamilyDefinition(
    "romav2",
    "RoMa v2",
    ROMAV2_MODELS,
    ROMAV2_FP16,
    ROMAV2_INT8,
    presets=ROMAV2_PRESETS,
    options=("coarse", "single_pass"),
    dense=True,
    float32_because="takes float32 products where it takes no 16-bit ones: its authors' code refuses TF32 too",
)
