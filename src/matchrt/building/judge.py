"""The short form of `matchrt verify` that `build` runs on a graph of any precision before it becomes an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from matchrt.bench.gate import LIMITS, Verdict
from matchrt.bench.judging import judge_engine, reference_matches
from matchrt.bench.pairs import JudgedPair
from matchrt.building.variant import open_variant
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.opening import open_session

if TYPE_CHECKING:
    import onnx


def judge(
    file: EngineFile,
    model: onnx.ModelProto,
    precision: str,
    pairs: Sequence[JudgedPair],
    tell: Callable[[float], None] = lambda share: None,
) -> Verdict:
    """Compares a graph made from an fp32 ONNX engine with that engine, in ONNX Runtime on the CPU (`open_variant`).

    file: the fp32 engine. model: the graph. precision: the graph's, which decides the limits.
    tell: called with the share (0..1) of the pairs done.
    Figures beyond the limits raise nothing here; `Verdict.require` raises for them.
    Errors: image-*, size-memory, matches-invalid (of the fp32 engine).
    """
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        tell(done / (2 * len(pairs)))

    with closing(open_session(file)) as session:  # closed before the next one is opened, because networks may be large
        expected = reference_matches(session, pairs, advance)
    with closing(open_variant(file, model)) as session:
        return judge_engine(expected, session, pairs, LIMITS[precision], ("fp32", precision), advance)
