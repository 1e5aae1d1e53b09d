"""What `matchrt verify` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from matchrt.bench.drawn import HARD
from matchrt.bench.gate import LIMITS, Verdict
from matchrt.bench.pairs import CalibrationPairs, JudgedPair, choose_pairs, drawn_pairs, user_pairs
from matchrt.bench.per_block import Sensitivity, measure_sensitivity
from matchrt.bench.reference import find_reference
from matchrt.bench.verify import compare_with, reference_matches
from matchrt.bench.verify_report import worst_pictures
from matchrt.building.calibration.advice import require_quantizable
from matchrt.building.calibration.options import CalibrationOptions
from matchrt.building.convert import require_source
from matchrt.errors import MatchRTError, missing_package
from matchrt.runtime.backends import DEFAULT_BACKEND
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.opening import open_session
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.session import SessionOptions
from matchrt.store import EngineStore

Tell = Callable[[str, float], None]
_DRAWN = range(500, 508)


@dataclass(frozen=True)
class VerifyRequest:
    """engine, reference: files or names. pairs: as `--calibration` takes them; None: drawn scenes.

    first: so many of the pairs. worst: so many pairs are drawn. threads: of the CPU.
    """

    engine: str
    reference: str = "fp32"
    pairs: Path | None = None
    first: int | None = None
    worst: int = 0
    threads: int | None = None
    backend: str | None = None


@dataclass(frozen=True)
class BlockRequest:
    """Which lowering is taken apart. backend: whose Q/DQ placement; calibration: of the ranges."""

    engine: str
    precision: str = "int8"
    backend: str = DEFAULT_BACKEND
    reference: str = "fp32"
    pairs: Path | None = None
    first: int | None = None
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)


def run_verify(request: VerifyRequest, store: EngineStore, tell: Tell) -> tuple[Verdict, list[tuple[str, bytes]]]:
    """The comparison, and pictures of the worst pairs. Errors: reference-*, engine-*, pairs-*, eval-*, image-*."""
    engine = read_engine(request.engine, store, request.backend)
    reference = find_reference(engine.manifest, store, request.reference)
    pairs = _pairs(request.pairs, reference, request.first)
    options, session = MatcherOptions(apply_exif=False), SessionOptions(threads=request.threads)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        tell(f"pair {done} of {2 * len(pairs)}", done / (2 * len(pairs)))

    tell("opening engines", 0.0)
    names = (_name(reference), _name(engine))
    with (
        Matcher(open_session(reference, session), options) as first,
        Matcher(open_session(engine, session), options) as second,
    ):
        expected = reference_matches(first, pairs, advance)
        verification = compare_with(expected, second.match, pairs, names, advance)
        verdict = Verdict(verification, LIMITS[engine.manifest.precision])
        pictures = worst_pictures(verdict, first, second, request.worst) if request.worst else []
    return verdict, pictures


def run_per_block(request: BlockRequest, store: EngineStore, tell: Tell) -> Sensitivity:
    """What each part costs. Errors: those of `run_verify` and of a quantised build."""
    engine = read_engine(request.engine, store)
    manifest = engine.manifest
    plain = (manifest.backend, manifest.precision) == (DEFAULT_BACKEND, "fp32")
    source = engine if plain else find_reference(manifest, store, request.reference)
    require_source(source)
    if request.precision not in ("int8", "fp8"):
        raise MatchRTError("precision-unknown", f"--per-block takes no {request.precision}.", "Use int8 or fp8.")
    require_quantizable(request.precision, request.backend, ("8.9",))
    chosen = choose_pairs(request.calibration.source, source.manifest.input, request.calibration.seed)
    if request.pairs is not None or request.first is not None:
        judging = _pairs(request.pairs, source, request.first)
        chosen = CalibrationPairs(chosen.calibrating, tuple(judging), True)
    try:
        return measure_sensitivity(source, request.precision, request.backend, request.calibration, chosen, store, tell)
    except ModuleNotFoundError as error:
        raise missing_package(str(error.name), "export", "Lowering a part of a network") from error


def _pairs(source: Path | None, file: EngineFile, first: int | None) -> list[JudgedPair]:
    pairs = drawn_pairs(file.manifest.input, _DRAWN, HARD) if source is None else user_pairs(source)
    return pairs[:first]


def _name(file: EngineFile) -> str:
    manifest = file.manifest
    return f"{file.path.name} ({manifest.precision}, {manifest.backend})"
