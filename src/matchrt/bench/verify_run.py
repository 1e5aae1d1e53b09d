"""The work of `matchrt verify ENGINE`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from matchrt.bench.drawn import HARD
from matchrt.bench.gate import LIMITS, Verdict
from matchrt.bench.judging import judge_engine, reference_matches
from matchrt.bench.overflow import with_reason
from matchrt.bench.pairs import JudgedPair, drawn_pairs, user_pairs
from matchrt.bench.reference import find_reference
from matchrt.bench.variant import open_judged, open_reference
from matchrt.bench.verify_report import worst_pictures
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.session import SessionOptions
from matchrt.store import EngineStore

Tell = Callable[[str, float], None]
_DRAWN = range(500, 508)


@dataclass(frozen=True)
class VerifyRequest:
    """Which engine is compared with which, and on what.

    engine: the engine's file or a model's name.
    reference: file or name of the engine to compare with; `fp32` for the one that `engine` was made from.
    pairs: list of pairs or folder, as `user_pairs` takes it; None for drawn scenes.
    first: how many of the pairs are used; None for all.
    worst: how many of the worst pairs are drawn as pictures.
    threads: CPU threads of each session; None for the backend's own choice.
    backend: which backend's engine is meant if a name has several; None if there is only one.
    """

    engine: str
    reference: str = "fp32"
    pairs: Path | None = None
    first: int | None = None
    worst: int = 0
    threads: int | None = None
    backend: str | None = None


def run_verify(request: VerifyRequest, store: EngineStore, tell: Tell) -> tuple[Verdict, list[tuple[str, bytes]]]:
    """Compares an engine with its reference. Returns the verdict, and captions and JPEGs of the worst pairs.

    tell: called with the step that begins and the share (0..1) of the work done.
    On ONNX Runtime's CPU provider, engines in fp16 are emulated, because it computes them in fp32 (`open_judged`).
    Errors: reference-*, engine-*, pairs-*, eval-*, image-*, package-missing.
    """
    engine = read_engine(request.engine, store, request.backend)
    reference = find_reference(engine.manifest, store, request.reference)
    pairs = verified_pairs(request.pairs, reference, request.first)
    options = SessionOptions(threads=request.threads)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        tell(f"pair {done} of {2 * len(pairs)}", done / (2 * len(pairs)))

    tell("opening engines", 0.0)
    names = (_name(reference), _name(engine))
    judged = open_judged(engine, options)
    with closing(judged.session) as second, closing(open_reference(reference, options)) as first:
        expected = reference_matches(first, pairs, advance)
        limits = LIMITS[judged.precision]
        verdict = judge_engine(expected, second, pairs, limits, names, advance, where=judged.where)
        if judged.emulated is not None:
            verdict = with_reason(verdict, engine, judged.emulated, pairs[0])
        pictures = worst_pictures(verdict, first, second, request.worst) if request.worst else []
    return verdict, pictures


def verified_pairs(source: Path | None, file: EngineFile, first: int | None) -> list[JudgedPair]:
    """The pairs to verify on: the first `first` of `source`, or drawn scenes if `source` is None.

    file: the engine whose input size drawn scenes have. Errors: pairs-*, eval-*.
    """
    pairs = drawn_pairs(file.manifest.input, _DRAWN, HARD) if source is None else user_pairs(source)
    return pairs[:first]


def _name(file: EngineFile) -> str:
    manifest = file.manifest
    return f"{file.path.name} ({manifest.precision}, {manifest.backend})"
