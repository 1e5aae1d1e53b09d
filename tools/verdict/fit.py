"""Fits the constants of the verdict to matches of `measure`, and says how the verdicts are on pairs never used for it.

    python -m tools.verdict.fit --fit PAIRS --test PAIRS EVALUATION --engine loftr-lite --write

Writes the constants into src/matchrt/assets/verdict.json: those of the engine's model, with its scores, and with
`--default` also those for all models that have none of their own, without scores. Prints a report in Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import softplus

from matchrt.runtime.calibration import DEFAULT, Logistic
from matchrt.runtime.matches import Matches
from matchrt.runtime.verdict import WORDS, Evidence, features, weigh, word_of
from tools.verdict.measure import listed, matches_folder

Array = NDArray[np.float64]
ASSET = Path("src/matchrt/assets/verdict.json")
# A true pair has evidence where at least so many of its matches are right: else no rule could find it from them.
ENOUGH_RIGHT = 20
_RIGHT_PX = 8.0
# Pulls the weights towards 0, in units of the standardised features.
_PENALTY = 3e-4


@dataclass(frozen=True)
class Sample:
    """A pair: its row of the list, the model that matched it, the evidence; how many are right (-1: unknown)."""

    row: dict[str, Any]
    model: str
    evidence: Evidence
    right: int

    @property
    def true(self) -> bool:
        """Whether both images show the same thing."""
        return bool(self.row["true"])


def read(folder: Path, engine: str) -> list[Sample]:
    """All pairs of a folder that were matched."""
    samples = []
    for row in listed(folder, None):
        path = matches_folder(folder, engine) / f"{row['id']}.npz"
        if path.exists():
            matches = Matches.load(path)
            right = _right(matches, folder / f"{row['id']}_there.npy")
            samples.append(Sample(row, matches.provenance.model, weigh(matches), right))
    return samples


def _right(matches: Matches, truth: Path) -> int:
    """How many matches are within 8 pixels of where the truth at the nearest cell puts their point; -1: unknown."""
    if not truth.exists():
        return -1
    columns = matches.image0.width // 8
    there = np.load(truth).reshape(-1, columns, 2)
    cells = np.rint(matches.keypoints0 / 8).astype(int)
    row, column = (np.minimum(cells[:, axis], there.shape[1 - axis] - 1) for axis in (1, 0))
    # A point lies a few pixels from its cell's: the same few pixels apart in the other image, more or less.
    true = there[row, column] + (matches.keypoints0 - 8 * cells)
    error = np.linalg.norm(matches.keypoints1 - true, axis=1)
    return int(np.count_nonzero(error < _RIGHT_PX))


def fit(samples: list[Sample], with_scores: bool) -> Logistic:
    """A logistic model with no negative weight; true and unrelated pairs weigh the same in all."""
    listed_features = [features(sample.evidence) for sample in samples]
    names = [name for name in listed_features[0] if with_scores or not name.startswith("score")]
    values = torch.tensor([[one[name] for name in names] for one in listed_features], dtype=torch.float64)
    truth = torch.tensor([float(sample.true) for sample in samples], dtype=torch.float64)
    weight = torch.where(truth > 0, 0.5 / truth.sum(), 0.5 / (1 - truth).sum())
    spread = values.std(dim=0).clamp(min=1e-6)
    raw = torch.zeros(len(names), dtype=torch.float64, requires_grad=True)
    intercept = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([raw, intercept], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        odds = (values / spread) @ softplus(raw) + intercept
        lost = torch.nn.functional.binary_cross_entropy_with_logits(odds, truth, weight, reduction="sum")
        total = lost + _PENALTY * softplus(raw).square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    weights = (softplus(raw) / spread).detach().numpy()
    kept = {name: round(float(one), 4) for name, one in zip(names, weights, strict=True) if one > 5e-3}
    return Logistic(round(float(intercept.detach()), 4), kept)


# ------------------------------------------------------------------------------------------------------ the report


def report(samples: list[Sample], model: Logistic) -> str:
    """A table of the verdicts by kind of pair, and how probabilities and truth agree."""
    probabilities = [model.probability(features(sample.evidence)) for sample in samples]
    lines = ["| pairs | number | match | doubtful | no match |", "| --- | ---: | ---: | ---: | ---: |"]
    groups: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        for name in _groups(sample):
            groups.setdefault(name, []).append(index)
    for name in sorted(groups, key=lambda name: (not name.startswith("true"), "all" not in name, name)):
        words = [word_of(probabilities[index], samples[index].evidence) for index in groups[name]]
        shares = " | ".join(f"{words.count(word)} ({words.count(word) / len(words):.1%})" for word in WORDS)
        lines.append(f"| {name} | {len(words)} | {shares} |")
    lines += ["", "| probability | pairs | mean probability | true, of equally many |", "| --- | ---: | ---: | ---: |"]
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.7), (0.7, 0.9), (0.9, 1.01)):
        inside = [index for index, value in enumerate(probabilities) if low <= value < high]
        if inside:
            share = _balanced(samples, inside)
            mean = np.mean([probabilities[index] for index in inside])
            lines.append(f"| {low:g} to {min(high, 1):g} | {len(inside)} | {mean:.2f} | {share:.2f} |")
    return "\n".join(lines)


def _balanced(samples: list[Sample], chosen: Iterable[int]) -> float:
    true = sum(sample.true for sample in samples)
    rates = [
        sum(samples[index].true is wanted for index in chosen) / max(number, 1)
        for wanted, number in ((True, true), (False, len(samples) - true))
    ]
    return rates[0] / max(sum(rates), 1e-9)


def _groups(sample: Sample) -> list[str]:
    kind = sample.row["kind"]
    if not sample.true:
        return ["unrelated, all", f"unrelated: {kind}"]
    names = ["true, all", f"true: {kind}"]
    if sample.right >= 0:
        enough = "at least" if sample.right >= ENOUGH_RIGHT else "fewer than"
        names.append(f"true: {kind}, {enough} {ENOUGH_RIGHT} right matches")
        names.append(f"true: {kind}, overlap {'from' if sample.row['overlap'] >= 0.3 else 'below'} 0.3")
        if not sample.row["seen_in_training"]:
            names.append(f"true: {kind}, photographs new to the network")
    return names


def wrong(samples: list[Sample], model: Logistic) -> list[str]:
    """The pairs with the opposite verdict, worst first."""
    judged = [(model.probability(features(sample.evidence)), sample) for sample in samples]
    bad = [(p, s) for p, s in judged if word_of(p, s.evidence) == ("no match" if s.true else "match")]
    return [
        f"{p:.3f} {s.row['kind']} {s.row['id']} right {s.right} overlap {s.row.get('overlap')} {s.evidence}"
        for p, s in sorted(bad, key=lambda one: one[0])
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fit", type=Path, required=True, help="folder of pairs to fit to")
    parser.add_argument("--test", type=Path, nargs="*", default=[], help="folders of pairs to report on")
    parser.add_argument("--engine", default="loftr-lite")
    parser.add_argument("--write", action="store_true", help=f"write the constants into {ASSET}")
    parser.add_argument("--default", action="store_true", help="write those for all other models too")
    parser.add_argument("--wrong", action="store_true", help="list pairs with the opposite verdict")
    arguments = parser.parse_args()
    samples = read(arguments.fit, arguments.engine)
    models = {samples[0].model: fit(samples, True), DEFAULT: fit(samples, False)}
    print(json.dumps({name: asdict(model) for name, model in models.items()}, indent=1))
    for folder in (arguments.fit, *arguments.test):
        tested = samples if folder == arguments.fit else read(folder, arguments.engine)
        for name, model in models.items():
            print(f"\n## {folder.name}, constants of {name}\n\n{report(tested, model)}")
            if arguments.wrong:
                print("\n".join(wrong(tested, model)))
    if arguments.write:
        _write(models, arguments, len(samples))


def _write(models: dict[str, Logistic], arguments: argparse.Namespace, count: int) -> None:
    stored = json.loads(ASSET.read_text())
    for name, model in models.items():
        if name != DEFAULT or arguments.default:
            stored["models"][name] = asdict(model)
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    day = datetime.now(timezone.utc).date()
    stored["made_by"] = f"tools/verdict/fit.py on {count} pairs, {day}, after {revision.stdout.strip()}"
    ASSET.write_text(json.dumps(stored, indent=2) + "\n")


if __name__ == "__main__":
    main()
