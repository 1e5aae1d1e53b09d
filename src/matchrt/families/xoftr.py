"""XoFTR and MINIMA-XoFTR: models, key map, and the rules of fp16 and int8."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from matchrt.families import published_files, reasons
from matchrt.families.base import GridFamily, Preprocess, adjusted, configured, require_threshold
from matchrt.families.definition import FamilyDefinition, ModelSpec
from matchrt.families.keymap import Constant, Keep, KeyMap, Tied
from matchrt.families.loftr import POSITION_ADD, SHARED_INT8, TRANSFORMER_FP16
from matchrt.families.published import PublishedFile
from matchrt.families.rules import Nodes, PrecisionRules, QuantRule, QuantRules, Rule
from matchrt.manifest import MatchContract
from matchrt.models.xoftr.config import XoFTRConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

XOFTR_INPUT = Preprocess(channels=1, divisor=8)
XOFTR = XoFTRConfig()


@dataclass(frozen=True)
class XoFTRFamily(GridFamily):
    """XoFTR with one configuration; see `Family`.

    config: the network's configuration.
    name: the family's name.
    """

    config: XoFTRConfig
    name: str = "xoftr"

    def create(self) -> nn.Module:
        """See `Family`."""
        from matchrt.models.xoftr.network import XoFTR

        return XoFTR(self.config)

    def with_matching(self, threshold: float | None, mutual: bool | None) -> XoFTRFamily:
        """See `Family`. threshold: of the score, which is the fine confidence; the coarse threshold stays."""
        config = replace(self.config, match=adjusted(self.config.match, None, mutual))
        if threshold is not None:
            config = replace(config, fine_threshold=require_threshold(threshold))
        return replace(self, config=config)

    def constants(self) -> Mapping[str, Callable[[tuple[int, ...]], Tensor]]:
        """The position encoding, as LoFTR's: a 2-D table, or the frequencies from which the table is made."""
        from matchrt.models.loftr.position import sine_encoding, sine_frequencies

        def position_encoding(shape: tuple[int, ...]) -> Tensor:
            frequencies = sine_frequencies(self.config.coarse.d_model, fixed_divisor=True)
            return sine_encoding(shape[-2], shape[-1], frequencies) if len(shape) > 1 else frequencies

        return {"position encoding": position_encoding}

    def deployed(self, network: nn.Module) -> nn.Module:
        """See `GridFamily`."""
        from matchrt.models.xoftr.deployed import deployed
        from matchrt.models.xoftr.network import XoFTR

        assert isinstance(network, XoFTR)
        return deployed(network)

    def probing(self, network: nn.Module) -> AbstractContextManager[None]:
        """See `Family`. Both thresholds are off."""
        return configured(network, match=replace(self.config.match, threshold=0.0), fine_threshold=0.0)

    def match_contract(self, max_matches: int, default_score: float) -> MatchContract:
        """See `Family`. The threshold is the fine one, because scores are fine confidences."""
        return replace(super().match_contract(max_matches, default_score), threshold=self.config.fine_threshold)


XOFTR_KEYS = KeyMap(
    (
        Keep("backbone.**"),
        Keep("loftr_coarse.layers.**"),
        Constant("pos_encoding.pe", "position encoding"),
        Keep("coarse_matching.final_proj.*"),
        Keep("fine_process.**"),
        Keep("fine_matching.**"),
    ),
    # The last norms of a residual block's two branches.
    tied=(Tied(("backbone.*.*.bn2.bias", "backbone.*.*.downsample.1.bias")),),
)


# Models.


def _xoftr(name: str, description: str, origin: str, files: tuple[PublishedFile, ...]) -> ModelSpec:
    return ModelSpec(
        name,
        XoFTRFamily(XOFTR),
        XOFTR_KEYS,
        XOFTR_INPUT,
        480,
        640,
        "Apache-2.0",
        origin,
        description,
        published=files,
        suits=("thermal", "cross-modal", "outdoor"),
    )


XOFTR_MODELS = (
    _xoftr(
        "xoftr",
        "XoFTR, for pairs of a visible and a thermal image; one-to-many matches",
        "weights_xoftr_640.ckpt from the authors' weights linked from github.com/OnderT/XoFTR, or a safetensors copy",
        published_files.XOFTR,
    ),
    _xoftr(
        "minima-xoftr",
        "XoFTR trained across modalities by MINIMA; one-to-many matches",
        "minima_xoftr.ckpt from the authors' weights linked from github.com/LSXI7/MINIMA",
        (published_files.MINIMA_XOFTR,),
    ),
)

# Rules of fp16. Their effect was measured: docs/models/xoftr.md.

_WINDOWS = (
    "fine_process",
    "fine_process.conv_merge.*",
    "fine_process.out_conv_*",
    "fine_process.down_proj_m_f",
    "fine_process.self_attn_*",
    "fine_process.self_attn_*.**",
    "fine_process.cross_attn_*",
    "fine_process.cross_attn_*.**",
)

_IMAGE = Rule(
    "image",
    "fp32",
    "bytes / 255, mean and deviation: sums over all pixels, rounded once at the first convolution",
    (Nodes(("graph", "normalisation")),),
)
_COARSE_MATCHING = Rule(
    "coarse-matching",
    "fp32",
    "an exponent, whose rounding error the temperature multiplies by 10; sums of exponentials; probabilities near the "
    "threshold, where a match appears or goes",
    (Nodes(("coarse_matching", "coarse_matching.final_proj")),),
)
_FINE_MATCHING = Rule(
    "fine-matching",
    "fp32",
    "the score itself, one of 625 pairs of pixels that may hardly differ, and the sub-pixel result",
    (Nodes(("fine_matching", "fine_matching.**")),),
)
_COORDINATES = Rule(
    "selection-and-coordinates",
    "fp32",
    "the order of scores, cell numbers, pixels, and arguments of sine and cosine: fp16 holds whole numbers up to 2048",
    (Nodes(("network", "selection", "fine_process.cut")),),
)
_CONVOLUTION = Rule(
    "convolution", "fp16", "most of the arithmetic, on tensor cores", (Nodes(("backbone", "backbone.**")),)
)
_WINDOW_ATTENTION = Rule(
    "window-attention",
    "fp16",
    "sums over at most 34 tokens; norms compute in fp32 inside",
    (Nodes(_WINDOWS),),
)

XOFTR_FP16 = PrecisionRules(
    "xoftr",
    (
        *(POSITION_ADD, _IMAGE, _COARSE_MATCHING, _FINE_MATCHING, _COORDINATES, _CONVOLUTION, _WINDOW_ATTENTION),
        *TRANSFORMER_FP16,
    ),
)

# Rules of int8. What LoFTR has too follows LoFTR's measurements; docs/models/xoftr.md says what was measured here.

_LINEAR = ("loftr_coarse.layers.**", "fine_process.**")
_ATTENTION = ("fine_process.self_attn_*.attn", "fine_process.cross_attn_*.cross_attn")

XOFTR_INT8 = QuantRules(
    "xoftr",
    (
        *SHARED_INT8,
        QuantRule("convolution", True, reasons.CONVOLUTION, (Nodes(("backbone.**", "fine_process.**"), ("Conv",)),)),
        QuantRule(
            "window-attention",
            False,
            "products of two activations: the errors of both multiply",
            (Nodes(_ATTENTION, ("MatMul",)),),
        ),
        QuantRule("linear", True, reasons.LINEAR, (Nodes(_LINEAR, ("MatMul", "Gemm")),)),
        QuantRule(
            "similarity",
            False,
            reasons.SIMILARITY,
            (Nodes(("coarse_matching", "coarse_matching.final_proj"), ("MatMul",)),),
        ),
        QuantRule("masks", False, reasons.MASKS, (Nodes(("network", "selection"), ("MatMul",)),)),
        QuantRule(
            "fine-matching",
            False,
            "the score itself, one of 625 pairs of pixels that may hardly differ, and the sub-pixel result",
            (Nodes(("fine_matching", "fine_matching.**"), ("MatMul", "Gemm")),),
        ),
    ),
    reasons.FLOAT_PARTS,
)

XOFTR_FAMILY = FamilyDefinition("xoftr", "XoFTR", XOFTR_MODELS, XOFTR_FP16, XOFTR_INT8)
