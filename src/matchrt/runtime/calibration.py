"""The constants that make a probability of evidence: logistic models, fitted by `tools/verdict`.

They are in `assets/verdict.json`, by the names of the networks that were measured. All other networks share the
constants of `default`, which leave the scores out: those of two networks mean different things.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from matchrt._util.from_json import parse_json
from matchrt._util.strict_json import read_json

DEFAULT = "default"


@dataclass(frozen=True)
class Logistic:
    """A logistic model.

    intercept: the log-odds where all features are 0.
    weights: what each unit of a feature of `verdict.features` adds to the log-odds, by name; absent ones weigh nothing.
    """

    intercept: float
    weights: dict[str, float]

    def probability(self, values: Mapping[str, float]) -> float:
        """The probability, 0..1. values: those of `verdict.features`."""
        odds = self.intercept + sum(weight * values[name] for name, weight in self.weights.items())
        return 1.0 / (1.0 + math.exp(min(-odds, 700.0)))


@dataclass(frozen=True)
class Calibration:
    """The fitted constants.

    made_by: what fitted them, and when.
    models: by the network's name; `default` for networks that are not named.
    """

    made_by: str
    models: dict[str, Logistic]


@cache
def calibration() -> Calibration:
    """The constants that come with the package. Raises nothing."""
    text = (resources.files("matchrt") / "assets" / "verdict.json").read_bytes()
    found: Calibration = parse_json(Calibration, read_json(text), "verdict.json")
    return found


def constants(model: str) -> Logistic:
    """The constants of a network by its name, or the default ones. Raises nothing."""
    models = calibration().models
    return models.get(model, models[DEFAULT])
