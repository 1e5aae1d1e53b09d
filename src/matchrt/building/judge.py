"""The short form of `verify` that `build` runs on a graph that is not an engine yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from matchrt._util.digest import sha256_bytes
from matchrt.bench.gate import LIMITS, Verdict
from matchrt.bench.pairs import JudgedPair
from matchrt.bench.verify import compare_with, reference_matches
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.opening import open_session
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.session import SessionOptions

if TYPE_CHECKING:
    import onnx


def judge(
    file: EngineFile,
    model: onnx.ModelProto,
    precision: str,
    pairs: Sequence[JudgedPair],
    tell: Callable[[float], None] = lambda share: None,
) -> Verdict:
    """Compares a graph made from an fp32 engine with that engine, in ONNX Runtime on the CPU.

    A graph with fp16 in it is run as `precision.emulation` has it, its Q/DQ pairs in floating point, as they are
    written; one without runs with the 8-bit kernels that users get.
    """
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        tell(done / (2 * len(pairs)))

    options = MatcherOptions(apply_exif=False)
    with Matcher(open_session(file), options) as matcher:
        expected = reference_matches(matcher, pairs, advance)
    with open_graph(file, model, options) as matcher:
        verification = compare_with(expected, matcher.match, pairs, ("fp32", precision), advance)
    return Verdict(verification, LIMITS[precision])


def open_graph(file: EngineFile, model: onnx.ModelProto, options: MatcherOptions) -> Matcher:
    """A matcher on a variant of the engine's graph, see `judge`."""
    from onnx import TensorProto

    from matchrt.export.precision.emulation import emulate

    halves = any(weight.data_type == TensorProto.FLOAT16 for weight in model.graph.initializer)
    data = (emulate(model) if halves else model).SerializeToString()
    manifest = replace(file.manifest, engine_sha256=sha256_bytes(data), engine_bytes=len(data))
    variant = EngineFile(file.path, data, manifest)
    return Matcher(open_session(variant, SessionOptions(integer_kernels=not halves)), options)
