"""The short form of `matchrt verify` that `build` runs before an engine is kept.

Where a GPU can run the engine, the engine itself is judged. Elsewhere its graph is, in ONNX Runtime on the CPU, which
emulates fp16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from matchrt.bench.accuracy import AccuracyOptions, measure_pair
from matchrt.bench.gate import EMULATION, LIMITS, Verdict
from matchrt.bench.judging import Expected, judge_engine, reference_matches
from matchrt.bench.overflow import with_reason
from matchrt.bench.pairs import JudgedPair
from matchrt.bench.variant import Judged, open_judged, open_reference, open_variant
from matchrt.building.graphs import Graph
from matchrt.building.judging_pairs import PHOTOGRAPHS
from matchrt.building.request import Progress
from matchrt.building.self_test import with_limits
from matchrt.engines.build import Engine
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, SelfTest
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.matches import Matches
from matchrt.runtime.self_test.answer import SelfTestResult
from matchrt.runtime.self_test.prove import run_self_test
from matchrt.runtime.session import SessionOptions

if TYPE_CHECKING:
    import onnx

# A photograph judges where at least this share of fp32's own matches is right.
_MATCHED = 0.5
# The codes of errors that say that an engine cannot run on this machine, and nothing about whether it is right.
NOT_HERE = frozenset(
    {"device-missing", "engine-gpu", "engine-version", "engine-refused", "engine-rejected", "package-missing"}
)


@dataclass(frozen=True)
class Judgement:
    """What the judgement of one engine found.

    verdict: the gate's.
    self_test: the engine's own answer to its self-test; None if it has none.
    """

    verdict: Verdict
    self_test: SelfTestResult | None


@dataclass(frozen=True)
class Gate:
    """Judges the graph or the engine of one build, and refuses it unless it passes or its loss is accepted.

    file: the fp32 ONNX engine.
    precision: what is built.
    pairs: the pairs to judge on.
    accept_loss: whether to keep what loses too many matches.
    tell: called with the step and the share (0..1) of the build's work done.
    """

    file: EngineFile
    precision: str
    pairs: Sequence[JudgedPair]
    accept_loss: bool
    tell: Progress

    def judge_graph(self, graph: Graph, test: SelfTest | None) -> Judgement | None:
        """Judges a graph in ONNX Runtime; None if it computes what the fp32 graph computes.

        Errors: precision-gate, precision-gate-empty.
        """
        if not graph.rounded:
            return None
        import onnx

        model = onnx.load_model_from_string(graph.data)
        found = judge_graph(self.file, model, self.precision, self.pairs, self._told(0.1, 0.2), test)
        found = replace(found, verdict=with_reason(found.verdict, self.file, model, self.pairs[0]))
        self._require(found)
        return found

    def judge_engine(self, engine: Engine) -> Judgement | None:
        """Judges an engine on this machine's GPU; None if it does not run here.

        Errors: precision-gate, precision-gate-empty.
        """
        built = EngineFile(self.file.path, engine.data, engine.manifest)
        found = judge_built(self.file, built, self.pairs, self._told(0.8, 0.95))
        if found is not None:
            self._require(found)
        return found

    def _told(self, begin: float, end: float) -> Callable[[float], None]:
        what = f"comparing the matches of {self.precision} with those of fp32"
        self.tell(what, begin)
        return lambda share: self.tell(what, begin + (end - begin) * share)

    def _require(self, found: Judgement) -> None:
        # fp32 is judged where a GPU runs it, but a model whose images are of another kind, such as fingerprints, may
        # match nothing in the pairs. Its fp32 engine must build all the same.
        unproven = self.precision == "fp32" and not found.verdict.enough
        if not self.accept_loss and not unproven:
            found.verdict.require(self.precision)


def judged_manifest(manifest: EngineManifest, found: Judgement | None) -> EngineManifest:
    """The manifest with the verdict's figures, and the self-test with limits that the engine was seen to keep."""
    if found is None:
        return manifest
    test, where = manifest.self_test, found.verdict.where
    if test is not None:
        test = with_limits(test, manifest.precision, found.self_test, emulated=where == EMULATION)
    return replace(
        manifest,
        checks=manifest.checks | found.verdict.checks(),
        judged=where,
        self_test=test,
    )


def judge_graph(
    file: EngineFile,
    model: onnx.ModelProto,
    precision: str,
    pairs: Sequence[JudgedPair],
    tell: Callable[[float], None] = lambda share: None,
    test: SelfTest | None = None,
) -> Judgement:
    """Compares a graph made from an fp32 ONNX engine with that engine, in ONNX Runtime on the CPU (`open_variant`).

    file: the fp32 engine. model: the graph. precision: the graph's, which decides the limits.
    tell: called with the share (0..1) of the pairs done. test: the self-test of the fp32 engine, to be answered too.
    Figures beyond the limits raise nothing here; `Verdict.require` raises for them.
    Errors: image-*, size-memory, matches-invalid (of the fp32 engine).
    """
    return _judge(file, lambda: open_variant(file, model), precision, pairs, tell, test)


def judge_built(
    file: EngineFile,
    engine: EngineFile,
    pairs: Sequence[JudgedPair],
    tell: Callable[[float], None] = lambda share: None,
) -> Judgement | None:
    """Compares an engine with the fp32 ONNX engine that it was made from, on this machine's GPU.

    file: the fp32 engine. The other arguments and the errors are those of `judge_graph`.
    None if the engine does not run here.
    """
    try:
        judged = open_judged(engine, SessionOptions())
    except MatchRTError as error:
        if error.code in NOT_HERE:
            return None
        raise
    manifest = engine.manifest
    return _judge(file, lambda: judged, manifest.precision, pairs, tell, manifest.self_test)


def _telling(expected: Expected, pairs: Sequence[JudgedPair]) -> tuple[Expected, Sequence[JudgedPair]]:
    """The pairs without those of the package's photographs that the fp32 network itself does not match.

    A model for other images, such as fingerprints, or one with random weights finds matches there that are wrong, and
    what a precision does to these says nothing.
    """
    chosen = [
        index
        for index, (found, pair) in enumerate(zip(expected.matches, pairs, strict=True))
        if pair.truth.set != PHOTOGRAPHS or _right(found.filter(expected.matching.default_score), pair) >= _MATCHED
    ]
    matches = tuple(expected.matches[index] for index in chosen)
    warps = tuple(expected.warps[index] for index in chosen)
    return replace(expected, matches=matches, warps=warps), [pairs[index] for index in chosen]


def _right(found: Matches, pair: JudgedPair) -> float:
    """The share (0..1) of matches within 3 px of the truth; 0 without matches."""
    return measure_pair(pair.truth, found, AccuracyOptions())[1]["p3"] if len(found) else 0.0


def _judge(
    file: EngineFile,
    open_engine: Callable[[], Judged],
    precision: str,
    pairs: Sequence[JudgedPair],
    tell: Callable[[float], None],
    test: SelfTest | None,
) -> Judgement:
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        tell(done / (2 * len(pairs)))

    with closing(open_reference(file)) as session:  # closed before the next one is opened: networks may be large
        expected = reference_matches(session, pairs, advance)
    expected, pairs = _telling(expected, pairs)
    judged = open_engine()
    with closing(judged.session) as session:
        names = ("fp32", precision)
        verdict = judge_engine(expected, session, pairs, LIMITS[precision], names, advance, where=judged.where)
        answered = None if test is None else run_self_test(session, test)
    return Judgement(verdict, answered)
