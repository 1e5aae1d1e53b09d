"""What a run is: read from JSON, checked, frozen."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from matchrt.errors import MatchRTError
from matchrt.models.loftr.config import AttentionKind, TransformerConfig

STRIDE = 8


@dataclass(frozen=True)
class Config:
    """A model and its training: of module 1 (dense registration), and of module 2 (verification) on top of it.

    use_loftr: put LoFTR's transformer behind the backbone; False matches the backbone's features as they are.
    attention_type, transformer_layers, num_heads, hidden_dim: of the transformer; layers are self and cross in turn.
    loftr_pretrained_ckpt: weights to start the transformer from: a bundled model's name or a file that `matchrt
    convert-flax` wrote; None starts it at random. image_size: side in pixels, a multiple of 8.
    validate_every, validation_batches: steps between evaluations on pairs that are never trained on, and their batches.
    embedding_dim, lambda_d: of module 2: the length of the vector that stands for a print, and the weight of the dense
    loss beside that of the verdict.
    """

    use_loftr: bool = True
    attention_type: AttentionKind = "linear"
    loftr_pretrained_ckpt: str | None = None
    transformer_layers: int = 8
    num_heads: int = 4
    hidden_dim: int = 128
    image_size: int = 128
    batch_size: int = 32
    steps: int = 3000
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup_steps: int = 200
    temperature: float = 0.1
    validate_every: int = 50
    validation_batches: int = 4
    embedding_dim: int = 64
    lambda_d: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.attention_type not in ("linear", "full"):
            raise ValueError(f"attention_type is '{self.attention_type}'; use linear or full")
        if self.image_size % STRIDE or self.image_size < 4 * STRIDE:
            raise ValueError(f"image_size {self.image_size} is not a multiple of {STRIDE} from {4 * STRIDE} on")
        if self.transformer_layers % 2:
            raise ValueError(
                f"transformer_layers {self.transformer_layers} is odd; layers come in pairs of self and cross"
            )
        if self.hidden_dim % 4 or self.hidden_dim % self.num_heads:
            raise ValueError(f"hidden_dim {self.hidden_dim} is not a multiple of 4 and of num_heads {self.num_heads}")
        if self.loftr_pretrained_ckpt and not self.use_loftr:
            raise ValueError("loftr_pretrained_ckpt needs use_loftr")

    @property
    def transformer(self) -> TransformerConfig:
        """The transformer, as matchrt's Flax networks are configured."""
        layers = ("self", "cross") * (self.transformer_layers // 2)
        return TransformerConfig(self.hidden_dim, self.num_heads, layers, self.attention_type)


def read_config(path: Path) -> Config:
    """Reads JSON; an unknown key is an error, not ignored."""
    values = json.loads(path.read_text(encoding="utf-8"))
    unknown = sorted(set(values) - {field.name for field in fields(Config)})
    if unknown:
        raise ValueError(f"'{path}' has unknown keys {', '.join(unknown)}")
    return Config(**values)


def run(main: Callable[[], None]) -> None:
    """Runs a script's `main`; what the user can mend ends it with a line instead of a traceback."""
    try:
        main()
    except (ValueError, FileNotFoundError, MatchRTError) as error:
        sys.exit(f"error: {error}")
