"""Judges a verifier on fingers that it never saw: equal error rate, and pictures of matches.

    python -m examples.ifvit.evaluate --module2 run2 --output results
    python -m examples.ifvit.evaluate --module1 run --output results      # before module 2: by the matches' certainty

Run from the repository's root; needs `pip install '.[flax]' optax`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import matchrt
from examples.ifvit.config import STRIDE, Config, read_config, run
from examples.ifvit.dataset import OwnPrints, Source, Synthetic
from examples.ifvit.matcher import Verifier, confidence, inherit, restore
from examples.ifvit.train import VALIDATION
from matchrt.runtime.draw import draw_matches, save_picture
from matchrt.runtime.match_data import ImageRef, MatchData, Provenance

PICTURES = 3
_LEAST = 0.2  # score of a match that is drawn


@dataclass(frozen=True)
class Verification:
    """eer: share of wrong verdicts where as many impostors pass as genuine pairs fail; threshold: there, in log-odds.

    genuine, impostors: how many pairs of each were judged.
    """

    eer: float
    threshold: float
    genuine: int
    impostors: int

    def summary(self) -> str:
        """The evaluation in one line."""
        return f"EER {100 * self.eer:.1f} % over {self.genuine} genuine and {self.impostors} impostor pairs"


def equal_error_rate(genuine: np.ndarray, impostors: np.ndarray) -> tuple[float, float]:
    """The equal error rate of scores, and its threshold: pairs from it on are taken to be of one finger.

    The rates are steps; where they do not meet, it is the mean of the two at the threshold where they are nearest.
    """
    thresholds = np.unique(np.concatenate([genuine, impostors]))
    missed = np.searchsorted(np.sort(genuine), thresholds) / len(genuine)
    passed = 1 - np.searchsorted(np.sort(impostors), thresholds) / len(impostors)
    nearest = int(np.abs(missed - passed).argmin())
    return float((missed[nearest] + passed[nearest]) / 2), float(thresholds[nearest])


@nnx.jit
def _odds(verifier: Verifier, image0: jax.Array, image1: jax.Array) -> tuple[jax.Array, jax.Array]:
    odds, scores = verifier(image0, image1)
    return odds, confidence(scores)


def verify(verifier: Verifier, config: Config, source: Source, by_certainty: bool = False) -> Verification:
    """Judges pairs of the validation fingers; each print 0 also meets the prints 1 of all others of its batch.

    by_certainty: judge by the certainty of the matches alone, for a verifier that was not trained.
    """
    judge = nnx.merge(*nnx.split(verifier))
    judge.eval()
    genuine: list[float] = []
    impostors: list[float] = []
    for index in range(config.validation_batches):
        pairs = source.genuine(jax.random.key(VALIDATION + index), config.batch_size, validation=True)
        for shift in range(config.batch_size):
            same = np.asarray(pairs.finger == jnp.roll(pairs.finger, shift))
            if shift and same.all():
                continue
            odds, certain = _odds(judge, pairs.image0, jnp.roll(pairs.image1, shift, axis=0))
            values = np.asarray(certain.max(axis=2).mean(axis=1) if by_certainty else odds)
            (genuine if shift == 0 else impostors).extend(values[same] if shift == 0 else values[~same])
    rate, threshold = equal_error_rate(np.array(genuine), np.array(impostors))
    return Verification(rate, threshold, len(genuine), len(impostors))


def matches_of(certain: np.ndarray, size: int, name: str) -> MatchData:
    """Mutual best cells of the confidence `[L,L]` of one pair, as matches of pixels."""
    best0, best1 = certain.argmax(axis=1), certain.argmax(axis=0)
    rows = np.flatnonzero(best1[best0] == np.arange(len(best0)))
    scores = certain[rows, best0[rows]]
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= _LEAST]
    cells = size // STRIDE
    places = [np.stack([index % cells, index // cells], axis=1) * float(STRIDE) for index in (rows, best0[rows])]
    reference = ImageRef("print", size, size)
    provenance = Provenance(name, "", "fp32", "jax", matchrt.__version__, (size, size), (size, size))
    return MatchData(
        places[0][order], places[1][order], np.clip(scores[order], 0, 1), reference, reference, {}, provenance
    )


def draw(verifier: Verifier, config: Config, source: Source, output: Path) -> list[Path]:
    """Pictures of the matches of genuine pairs, and of as many impostor pairs."""
    judge = nnx.merge(*nnx.split(verifier))
    judge.eval()
    pairs = source.genuine(jax.random.key(VALIDATION), config.batch_size, validation=True)
    written = []
    for name, shift in (("genuine", 0), ("impostor", 1)):
        second = jnp.roll(pairs.image1, shift, axis=0)
        _, certain = _odds(judge, pairs.image0, second)
        for index in range(min(PICTURES, config.batch_size)):
            images = [(255 * np.asarray(images[index])).astype(np.uint8) for images in (pairs.image0, second)]
            picture = draw_matches(*images, matches_of(np.asarray(certain[index]), config.image_size, name))
            written.append(output / f"{name}-{index}.png")
            save_picture(written[-1], picture)
    return written


def main() -> None:
    """Reads the arguments, judges, writes `evaluation.json` and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--module2", type=Path, help="checkpoint_dir of examples.ifvit.train_match")
    which.add_argument("--module1", type=Path, help="checkpoint_dir of examples.ifvit.train")
    parser.add_argument("--dataset_root", type=Path, help="folder of your own prints, one folder a finger (README.md)")
    parser.add_argument("--output", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    if arguments.module1 is not None:
        verifier, config, _ = inherit(arguments.module1)
    else:
        config = read_config(arguments.module2 / "config.json")
        verifier = Verifier(config, rngs=nnx.Rngs(config.seed))
        restore(arguments.module2, verifier)
    root = arguments.dataset_root
    source: Source = Synthetic(config.image_size) if root is None else OwnPrints.read(root, config.image_size)
    found = verify(verifier, config, source, by_certainty=arguments.module1 is not None)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "evaluation.json").write_text(json.dumps(asdict(found), indent=1) + "\n")
    print(found.summary())
    for path in draw(verifier, config, source, arguments.output):
        print(path)


if __name__ == "__main__":
    run(main)
