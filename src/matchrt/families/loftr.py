"""LoFTR and its relatives: models, key maps, and the rules of fp16 and int8."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matchrt.families import published_files, reasons
from matchrt.families.base import GridFamily, Preprocess
from matchrt.families.definition import FamilyDefinition, ModelSpec, Use
from matchrt.families.keymap import Constant, Drop, Keep, KeyMap, Reject, Tied
from matchrt.families.published import PublishedFile
from matchrt.families.rules import Nodes, PrecisionRules, QuantRule, QuantRules, Rule
from matchrt.models.loftr.config import LOFTR_LITE, LoFTRConfig, TransformerConfig
from matchrt.models.parts.config import CoarseMatchConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

LOFTR_INPUT = Preprocess(channels=1, divisor=8)
COARSE_LOFTR_INPUT = Preprocess(channels=1, divisor=16)

LOFTR_OUTDOOR = LoFTRConfig()
LOFTR_INDOOR = LOFTR_OUTDOOR
LOFTR_INDOOR_NEW = LoFTRConfig(fixed_position_divisor=True)
MINIMA_LOFTR = LOFTR_INDOOR_NEW
COARSE_LOFTR = LoFTRConfig(
    initial_dim=8,
    block_dims=(8, 16, 32, 32),
    coarse=TransformerConfig(d_model=32, n_heads=1, layers=("self", "cross") * 2, norm_eps=1e-7),
    fine=None,
    match=CoarseMatchConfig(threshold=0.1, border=0),
)


@dataclass(frozen=True)
class LoFTRFamily(GridFamily):
    """LoFTR with one configuration; see `Family`.

    config: the network's configuration.
    name: the family's name.
    """

    config: LoFTRConfig
    name: str = "loftr"

    def create(self) -> nn.Module:
        """See `Family`."""
        from matchrt.models.loftr.network import LoFTR

        return LoFTR(self.config)

    def constants(self) -> Mapping[str, Callable[[tuple[int, ...]], Tensor]]:
        """The position encoding, either as a 2-D table or as the frequencies from which the table is made."""
        from matchrt.models.loftr.position import sine_encoding, sine_frequencies

        def position_encoding(shape: tuple[int, ...]) -> Tensor:
            frequencies = sine_frequencies(self.config.coarse.d_model, self.config.fixed_position_divisor)
            return sine_encoding(shape[-2], shape[-1], frequencies) if len(shape) > 1 else frequencies

        return {"position encoding": position_encoding}

    def deployed(self, network: nn.Module) -> nn.Module:
        """See `GridFamily`."""
        from matchrt.models.loftr.deployed import deployed
        from matchrt.models.loftr.network import LoFTR

        assert isinstance(network, LoFTR)
        return deployed(network)


# Keys of checkpoints.

_OPTIMAL_TRANSPORT = (
    "the dustbin score of an optimal-transport (_ot) checkpoint: these weights were trained for matching by optimal "
    "transport, and matchrt matches by dual softmax only, for which they were not trained; take a dual-softmax (_ds) "
    "checkpoint instead, such as the authors' outdoor_ds.ckpt or indoor_ds.ckpt"
)
# The last norms of a residual block's two branches.
_BRANCHES = (Tied(("backbone.*.*.bn2.bias", "backbone.*.*.downsample.1.bias")),)
_LOFTR_RULES = (
    Keep("loftr_coarse.layers.**"),
    Constant("pos_encoding.pe", "position encoding"),
    Reject("coarse_matching.bin_score", _OPTIMAL_TRANSPORT),
)
LOFTR_KEYS = KeyMap(
    (*_LOFTR_RULES, Keep("backbone.**"), Keep("fine_preprocess.**"), Keep("loftr_fine.layers.**")),
    tied=_BRANCHES,
)
_PYRAMID = "part of the training graph's feature pyramid, which a coarse-only network does not compute"
COARSE_LOFTR_KEYS = KeyMap(
    (
        *_LOFTR_RULES,
        Keep("backbone.conv1.**"),
        Keep("backbone.bn1.**"),
        Keep("backbone.layer[1-4].**"),
        Keep("backbone.layer4_outconv.weight"),
        Drop("backbone.layer[23]_outconv.**", _PYRAMID),
        Drop("backbone.layer[23]_outconv2.**", _PYRAMID),
    ),
    tied=_BRANCHES,
)


# Models.

_OFFICIAL = "the authors' weights folder linked from github.com/zju3dv/LoFTR"


def _loftr(
    name: str, network: LoFTRConfig, file: PublishedFile, description: str, use: Use, origin: str = _OFFICIAL
) -> ModelSpec:
    return ModelSpec(
        name,
        LoFTRFamily(network),
        LOFTR_KEYS,
        LOFTR_INPUT,
        480,
        640,
        "Apache-2.0",
        f"{file.name} from {origin}",
        description,
        published=(file,),
        suits=(use,),
    )


LOFTR_MODELS = (
    ModelSpec(
        "loftr-lite",
        LoFTRFamily(LOFTR_LITE),
        LOFTR_KEYS,
        LOFTR_INPUT,
        480,
        640,
        "Apache-2.0",
        "in the package, trained by the matchrt authors (docs/models/loftr-lite.md)",
        "small LoFTR for CPUs, bundled",
        weights="loftr-lite.safetensors",
        default_score=0.4,  # chosen on held-out training tiles: docs/models/loftr-lite.md
        suits=("speed", "outdoor", "indoor"),
    ),
    _loftr("loftr-outdoor", LOFTR_OUTDOOR, published_files.LOFTR_OUTDOOR, "LoFTR trained on MegaDepth", "outdoor"),
    _loftr("loftr-indoor", LOFTR_INDOOR, published_files.LOFTR_INDOOR, "LoFTR trained on ScanNet", "indoor"),
    _loftr(
        "loftr-indoor-new",
        LOFTR_INDOOR_NEW,
        published_files.LOFTR_INDOOR_NEW,
        "LoFTR trained on ScanNet with the position encoding of the paper",
        "indoor",
    ),
    _loftr(
        "minima-loftr",
        MINIMA_LOFTR,
        published_files.MINIMA_LOFTR,
        "LoFTR trained across modalities by MINIMA",
        "cross-modal",
        "the authors' weights linked from github.com/LSXI7/MINIMA",
    ),
    ModelSpec(
        "coarse-loftr",
        LoFTRFamily(COARSE_LOFTR),
        COARSE_LOFTR_KEYS,
        COARSE_LOFTR_INPUT,
        480,
        640,
        "Apache-2.0",
        "LoFTR_teacher.pt or LoFTR_no_teacher.pt from github.com/Kolkir/Coarse_LoFTR_TRT",
        "coarse-only LoFTR at 1/16 for low-end devices",
        published=published_files.COARSE_LOFTR,
        suits=("speed",),
    ),
)

# Rules of fp16. Their effect was measured: docs/precision.md.

_COARSE = ("loftr_coarse.layers.*",)
_FINE = ("loftr_fine.layers.*",)
_NETWORK = ("network",)

_POSITION_CODES = Rule(
    "position-codes",
    "fp32",
    "arguments of sine and cosine reach 256, where fp16 values are 0.125 to 0.25 radians apart",
    (Nodes(_NETWORK, ("Range", "Sin", "Cos")), Nodes(_NETWORK, ("Mul",), operands=("network/Range_*",))),
)
POSITION_ADD = Rule(
    "position-add",
    "fp16",
    "a sum of two features of order 1",
    (Nodes(_NETWORK, ("Add",), operands=("backbone.**",)),),
)

_ATTENTION = Rule(
    "attention",
    "fp32",
    "sums over thousands of cells: kernels may add fp16 products in fp16, and then the last products are lost in the "
    "sum (TensorRT-RTX does so; on an H100 this rule raises the kept matches from 98.1 % to 99.7 %)",
    (Nodes(("loftr_coarse.layers.*.attend",)),),
)
_COARSE_MATCHING = Rule(
    "coarse-matching",
    "fp32",
    "an exponent, whose rounding error the temperature multiplies by 10; sums of exponentials; scores that are nearly "
    "equal and must keep their order",
    (Nodes(("coarse_matching",)),),
)
_MASKS = Rule(
    "masks",
    "fp32",
    "products of zeros and ones, computed once in each run",
    (Nodes(_NETWORK, ("MatMul", "Less")),),
)
_SELECTION = Rule(
    "selection",
    "fp32",
    "thresholds, maxima and the order of scores: in fp16, equal scores would be ordered by index",
    (
        Nodes(_NETWORK, ("Sub", "ReduceMax", "ArgMax", "Greater", "GreaterOrEqual", "TopK", "ConstantOfShape", "Exp")),
        Nodes(_NETWORK, ("Where",), operands=("network/Exp_*",)),
    ),
)
_COORDINATES = Rule(
    "coordinates",
    "fp32",
    "cell numbers and pixels: fp16 holds all whole numbers only up to 2048",
    (
        Nodes(_NETWORK, ("Cast", "Ceil", "Div", "Floor", "Mul", "Add", "Where")),
        Nodes(("graph",), ("Cast",), operands=("network/Floor_*",)),
    ),
)
_IMAGE = Rule(
    "image",
    "fp32",
    "bytes / 255, rounded once at the first convolution; the number of kernels is the same",
    (Nodes(("graph",), ("Cast", "Div")),),
)

_SOFT_ARGMAX = Rule(
    "soft-argmax",
    "fp32",
    "the expectation over the window is the sub-pixel result, and it has only 25 values for each match",
    (Nodes(("fine_matching",)),),
)
_NORMS = Rule(
    "norm",
    "fp16",
    "ONNX computes mean and variance of LayerNormalization in fp32 (stash_type 1) for any type of input",
    (Nodes((*(f"{module}.norm*" for module in (*_COARSE, *_FINE)),), ("LayerNormalization",)),),
)
_RESIDUAL = Rule(
    "residual",
    "fp16",
    "features of order 1 to 100, in one region with the linear layers",
    (Nodes((*_COARSE, *_FINE), ("Add", "Concat")),),
)
_FINE_ATTENTION = Rule(
    "fine-attention",
    "fp16",
    "sums over only 25 positions stay small, and the fine transformer needs no cast",
    (Nodes(_FINE),),
)
_CONVOLUTION = Rule(
    "convolution", "fp16", "most of the arithmetic, on tensor cores", (Nodes(("backbone", "backbone.**")),)
)
_LINEAR = Rule(
    "linear",
    "fp16",
    "matrix products, on tensor cores; also the softmax of full attention, which no published weights use",
    (
        Nodes(("loftr_coarse.layers.**", "loftr_fine.layers.**", "fine_preprocess**"), ("MatMul", "Add", "Relu")),
        Nodes(_COARSE),
    ),
)

# The rules of the coarse transformer, which XoFTR has too.
TRANSFORMER_FP16 = (_NORMS, _ATTENTION, _RESIDUAL, _LINEAR)

LOFTR_FP16 = PrecisionRules(
    "loftr",
    (
        *(POSITION_ADD, _POSITION_CODES),
        *(_COARSE_MATCHING, _MASKS, _SELECTION, _COORDINATES, _IMAGE),
        *(_SOFT_ARGMAX, _NORMS, _ATTENTION, _RESIDUAL, _FINE_ATTENTION, _CONVOLUTION, _LINEAR),
    ),
)

# Rules of int8. Their effect was measured: docs/quantization.md.

_FIRST_STAGE = (
    "values reach 15 with a median of 0.15: half of them would be 0 or 1 of signed int8's 127 steps, which costs more "
    "matches than all other products together; unsigned steps are half as wide, and that is enough"
)
_LAST_MLP = (
    "features that are compared next: with the three bits behind fp8's point, these six products lose 2.0 % of the "
    "matches, of 3.1 % that all products of matrices together lose, for 3 % of the arithmetic; int8 is finer"
)
# Products that XoFTR has too: of the image, the backbone's ends and the coarse transformer.
SHARED_INT8 = (
    QuantRule(
        "merge",
        False,
        "a product of weights and of a small matrix that sums over all cells: no arithmetic to save",
        (Nodes(("loftr_coarse.layers.*.attend",), ("MatMul",)),),
    ),
    QuantRule("stem", False, reasons.STEM, (Nodes(("backbone.conv1",), ("Conv",)),)),
    QuantRule("first-stage", True, _FIRST_STAGE, (Nodes(("backbone.layer1.**",), ("Conv",)),), kinds=("uint8",)),
    QuantRule(
        "coarse-features",
        True,
        "the features on which all matching depends, after one 1 x 1 convolution at an eighth of the size: hardly "
        "any arithmetic, and the second highest cost in matches; unsigned as above",
        (Nodes(("backbone.layer3_outconv",), ("Conv",)),),
        kinds=("uint8",),
    ),
    QuantRule(
        "last-mlp",
        True,
        _LAST_MLP,
        (Nodes(("loftr_coarse.layers.6.mlp.*", "loftr_coarse.layers.7.mlp.*"), ("MatMul", "Gemm")),),
        kinds=("int8", "uint8"),
    ),
)
LOFTR_INT8 = QuantRules(
    "loftr",
    (
        *SHARED_INT8,
        QuantRule("convolution", True, reasons.CONVOLUTION, (Nodes(("backbone.**",), ("Conv",)),)),
        QuantRule(
            "linear",
            True,
            reasons.LINEAR,
            (Nodes(("loftr_coarse.layers.**", "loftr_fine.layers.**", "fine_preprocess**"), ("MatMul", "Gemm")),),
        ),
        QuantRule("similarity", False, reasons.SIMILARITY, (Nodes(("coarse_matching",), ("MatMul",)),)),
        QuantRule("masks", False, reasons.MASKS, (Nodes(("network",), ("MatMul",)),)),
        QuantRule("soft-argmax", False, reasons.COORDINATES, (Nodes(("fine_matching",), ("MatMul",)),)),
    ),
    reasons.FLOAT_PARTS,
)

LOFTR_FAMILY = FamilyDefinition("loftr", "LoFTR", LOFTR_MODELS, LOFTR_FP16, LOFTR_INT8, flax=True)
