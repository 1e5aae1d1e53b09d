"""The models that matchrt knows: network, key map, input contract, licence and where the weights come from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from matchrt.errors import MatchRTError
from matchrt.families.base import Family, Preprocess
from matchrt.families.eloftr import ELOFTR_INPUT, ELOFTR_KEYS, MATCHANYTHING_ELOFTR_INPUT, ELoFTRFamily
from matchrt.families.keymap import Constant, Drop, Keep, KeyMap, Reject
from matchrt.families.loftr import COARSE_LOFTR_INPUT, LOFTR_INPUT, LoFTRFamily
from matchrt.families.roma import ROMA_INPUT, ROMA_KEYS, RoMaFamily
from matchrt.models.parts import config
from matchrt.models.roma.config import MATCHANYTHING_ROMA, ROMA, RoMaConfig

_OPTIMAL_TRANSPORT = "an optimal-transport (_ot) variant; the dual-softmax (_ds) checkpoints are supported"
_LOFTR_RULES = (
    Keep("loftr_coarse.layers.**"),
    Constant("pos_encoding.pe", "position encoding"),
    Reject("coarse_matching.bin_score", _OPTIMAL_TRANSPORT),
)
LOFTR_KEYS = KeyMap(
    (*_LOFTR_RULES, Keep("backbone.**"), Keep("fine_preprocess.**"), Keep("loftr_fine.layers.**")),
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
    )
)


@dataclass(frozen=True)
class ModelSpec:
    """One model variant.

    height, width: default input size. default_score: confidence from which matches are mostly right, where that is
    above the threshold that engines are built with. weights: file that the packaged model uses, relative to
    `matchrt/assets`, or None where the user brings the checkpoint; origin says where from.
    """

    name: str
    family: Family
    key_map: KeyMap
    preprocess: Preprocess
    height: int
    width: int
    licence: str
    origin: str
    description: str
    weights: str | None = None
    default_score: float = 0.0


_OFFICIAL = "the authors' weights folder linked from github.com/zju3dv/LoFTR"


def _loftr(name: str, network: config.LoFTRConfig, checkpoint: str, description: str) -> ModelSpec:
    origin, family = f"{checkpoint} from {_OFFICIAL}", LoFTRFamily(network)
    return ModelSpec(name, family, LOFTR_KEYS, LOFTR_INPUT, 480, 640, "Apache-2.0", origin, description)


_ROMA = "the releases of github.com/Parskatt/RoMa"


def _roma(name: str, network: RoMaConfig, licence: str, origin: str, description: str) -> ModelSpec:
    return ModelSpec(name, RoMaFamily(network), ROMA_KEYS, ROMA_INPUT, 864, 864, licence, origin, description)


def model_specs() -> Mapping[str, ModelSpec]:
    """Every known model by name."""
    specs = (
        ModelSpec(
            "loftr-lite",
            LoFTRFamily(config.LOFTR_LITE),
            LOFTR_KEYS,
            LOFTR_INPUT,
            480,
            640,
            "Apache-2.0",
            "in the package, trained by the matchrt authors (docs/models/loftr-lite.md)",
            "small LoFTR for CPUs, bundled",
            weights="loftr-lite.safetensors",
            default_score=0.4,  # chosen on held-out training tiles: docs/models/loftr-lite.md
        ),
        _loftr("loftr-outdoor", config.LOFTR_OUTDOOR, "outdoor_ds.ckpt", "LoFTR trained on MegaDepth"),
        _loftr("loftr-indoor", config.LOFTR_INDOOR, "indoor_ds.ckpt", "LoFTR trained on ScanNet"),
        _loftr(
            "loftr-indoor-new",
            config.LOFTR_INDOOR_NEW,
            "indoor_ds_new.ckpt",
            "LoFTR trained on ScanNet with the position encoding of the paper",
        ),
        ModelSpec(
            "coarse-loftr",
            LoFTRFamily(config.COARSE_LOFTR),
            COARSE_LOFTR_KEYS,
            COARSE_LOFTR_INPUT,
            480,
            640,
            "Apache-2.0",
            "LoFTR_teacher.pt or LoFTR_no_teacher.pt from github.com/Kolkir/Coarse_LoFTR_TRT",
            "coarse-only LoFTR at 1/16 for low-end devices",
        ),
        _roma("roma-outdoor", ROMA, "MIT", f"roma_outdoor.pth from {_ROMA}", "RoMa trained on MegaDepth, dense"),
        _roma("roma-indoor", ROMA, "MIT", f"roma_indoor.pth from {_ROMA}", "RoMa trained on ScanNet, dense"),
        _roma(
            "matchanything-roma",
            MATCHANYTHING_ROMA,
            "Apache-2.0",
            "matchanything_roma.ckpt from the authors' weights linked from github.com/zju3dv/MatchAnything",
            "RoMa trained across modalities by MatchAnything, dense",
        ),
        *_eloftr_specs(),
    )
    return {spec.name: spec for spec in specs}


def _eloftr_specs() -> tuple[ModelSpec, ...]:
    origin = "eloftr_outdoor.ckpt from the authors' weights folder linked from github.com/zju3dv/EfficientLoFTR, "
    origin += "or model.safetensors of zju-community/efficientloftr"
    full, opt = ELoFTRFamily(config.ELOFTR), ELoFTRFamily(config.ELOFTR_OPT)
    licence = "Apache-2.0"
    return (
        ModelSpec(
            "eloftr", full, ELOFTR_KEYS, ELOFTR_INPUT, 480, 640, licence, origin, "EfficientLoFTR, full configuration"
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
        ),
        ModelSpec(
            "matchanything-eloftr",
            ELoFTRFamily(config.MATCHANYTHING_ELOFTR),
            ELOFTR_KEYS,
            MATCHANYTHING_ELOFTR_INPUT,
            832,
            832,
            licence,
            "matchanything_eloftr.ckpt from the authors' weights linked from github.com/zju3dv/MatchAnything, "
            "or model.safetensors of zju-community/matchanything_eloftr",
            "EfficientLoFTR trained across modalities by MatchAnything; one-to-many matches",
        ),
    )


def get_spec(name: str) -> ModelSpec:
    """The model of that name. Error: model-unknown, which lists the names."""
    specs = model_specs()
    if name in specs:
        return specs[name]
    close = difflib.get_close_matches(name, specs, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise MatchRTError("model-unknown", f"There is no model '{name}'.{hint}", f"Known models: {', '.join(specs)}.")
