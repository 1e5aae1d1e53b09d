"""Which sizes are trained when, and the learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tools.train_lite.pairs import Recipe, Shape
from tools.train_lite.photometric import Strength
from tools.train_lite.scene import Difficulty

GENTLE = Recipe(
    Difficulty(
        easy=0.5,
        negative=0.06,
        strong_slant=0.1,
        wide_scale=0.1,
        narrow_overlap=0.0,
        any_rotation=0.05,
        steep_rotation=0.0,
        wide_rotation=0.1,
        bounded=0.0,
        patches=(0.3, 0.15),
    ),
    Strength(untouched=0.4, modality=0.08, shade=0.2, blur=0.15, resample=0.05, noise=0.2, jpeg=0.2),
    cross_spectral=0.06,
)


@dataclass(frozen=True)
class Stage:
    """Shapes used until `until` (share of the whole run), drawn with the given weights."""

    until: float
    shapes: tuple[Shape, ...]
    weights: tuple[float, ...]
    recipe: Recipe = field(default_factory=Recipe)


def _square(side: int, batch: int) -> Shape:
    return Shape(batch, (side, side), (side, side))


# The two shapes that are compiled; the others are rare and run eagerly.
SQUARE = _square(320, 64)
STANDARD = Shape(24, (480, 640), (480, 640))
COMPILED = (SQUARE, STANDARD)

FIRST = Stage(0.08, (SQUARE,), (1.0,), GENTLE)
SMALL = Stage(0.52, (SQUARE,), (1.0,))
LARGE = Stage(
    1.0,
    (
        STANDARD,
        Shape(20, (480, 640), (640, 480), padded=0.5),
        Shape(8, (640, 832), (640, 832)),
        Shape(4, (768, 1024), (768, 1024)),
    ),
    (0.88, 0.06, 0.04, 0.02),
)
RECIPES: dict[str, tuple[Stage, ...]] = {
    "full": (FIRST, SMALL, LARGE),
    "finetune": (LARGE,),
    "tiny": (Stage(0.5, (_square(64, 2),), (1.0,)), Stage(1.0, (Shape(2, (64, 96), (96, 64), padded=0.5),), (1.0,))),
}


def stage_at(stages: tuple[Stage, ...], progress: float) -> Stage:
    """The stage of a moment, progress in 0..1."""
    return next((stage for stage in stages if progress < stage.until), stages[-1])


def learning_rate(progress: float, peak: float, warmup: float) -> float:
    """Linear warm-up over the share `warmup`, then a cosine to 1/200 of the peak."""
    if progress < warmup:
        return peak * (progress + 1e-3) / (warmup + 1e-3)
    rest = min(1.0, (progress - warmup) / (1 - warmup))
    return peak * (0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * rest)))
