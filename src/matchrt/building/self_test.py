"""Makes an engine's self-test: what the fp32 graph answers on a made pair, and how far the engine may be from it."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.families.registry import is_dense
from matchrt.manifest import EngineManifest, SelfTest, SelfTestPair
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.opening import open_session
from matchrt.runtime.self_test.answer import ENOUGH, SelfTestResult, encode_answer, matches_of
from matchrt.runtime.self_test.pair import self_test_inputs, self_test_size
from matchrt.runtime.session import Session

# So many matches are stored: 3.4 kB. Of a dense warp only those count whose pixel both sides chose, so more are stored.
_STORED, _STORED_DENSE = 128, 512
# (smallest share within 1 px, largest median distance in pixels, largest mean difference of scores). Measured on made
# pairs with loftr-lite: fp16 has 0.003 px and 0.001, int8 0.03 to 0.12 px and 0.005 to 0.04, fp8 0.08 px and 0.012.
_FLOAT = (0.97, 0.02, 0.005)
_EIGHT_BITS = (0.9, 0.3, 0.1)
# What the limits of a judged engine leave besides: 128 matches are a sample.
_SPARE = (0.02, 0.005, 0.0005)
_LIMITS = {"fp32": _FLOAT, "fp16": _FLOAT, "int8": _EIGHT_BITS, "fp8": _EIGHT_BITS}


def make_self_test(session: Session) -> SelfTest | None:
    """The self-test of an fp32 engine and of all engines made from it; None if its network matches no made pair.

    session: of the fp32 engine. The limits are those of fp32. Errors: those of a run.
    """
    manifest = session.manifest
    for pair in _pairs(manifest):
        found = matches_of(session.run(self_test_inputs(manifest, pair)))
        answer = _spread(found, manifest)
        if len(answer) >= ENOUGH:
            return SelfTest(pair, "warp" if is_dense(manifest.family) else "matches", encode_answer(answer), *_FLOAT)
    return None


def self_test_of(file: EngineFile) -> SelfTest | None:
    """The self-test of an fp32 ONNX engine; engines of earlier versions have none in their manifest, so it is made.

    None as of `make_self_test`, and for a graph that ONNX Runtime does not load: the backend that is built for says
    what is wrong with it. Errors: those of a run.
    """
    if file.manifest.self_test is not None:
        return file.manifest.self_test
    try:
        session = open_session(file)
    except MatchRTError as error:
        if error.code != "engine-rejected":
            raise
        return None
    with closing(session):
        return make_self_test(session)


def with_limits(test: SelfTest, precision: str, seen: SelfTestResult | None, emulated: bool = True) -> SelfTest:
    """The same test with the limits of a precision.

    seen: the result of the engine, or of its emulation, when it was judged; None if it was not.
    emulated: whether `seen` is of an emulation, from which a GPU may differ more than from another GPU.
    8-bit engines differ from fp32 by what their scales cost, which is the same on every GPU: they may differ by little
    more than was seen. A network with random weights decides nearly everything by the last digit: where its judged
    engine is beyond the usual limits of fp16, these are widened to what was seen and half as much again.
    """
    within, pixels, score = _LIMITS[precision]
    if seen is not None and seen.compared >= ENOUGH and seen.within > 0 and math.isfinite(seen.score):
        factor = 1.5 if emulated or precision in ("fp32", "fp16") else 1.25
        near = 1 - factor * (1 - seen.within)
        allowed = (near - _SPARE[0], factor * seen.pixels + _SPARE[1], factor * seen.score + _SPARE[2])
        if precision in ("fp32", "fp16"):
            allowed = (min(within, allowed[0]), max(pixels, allowed[1]), max(score, allowed[2]))
        within, pixels, score = allowed
    return replace(test, within=round(max(within, 0.05), 4), pixels=round(pixels, 4), score=round(score, 5))


def _pairs(manifest: EngineManifest) -> tuple[SelfTestPair, ...]:
    """A pair of low contrast, in which digits matter; and one that random weights match: moved by whole cells."""
    height, width = self_test_size(manifest.input)
    cells = max(2 * manifest.matching.coarse_stride, manifest.input.divisor)
    return (
        SelfTestPair(seed=1, shift=(height // 8 | 1, width // 8 | 1), contrast=96),
        SelfTestPair(seed=1, shift=(cells, cells), contrast=256),
    )


def _spread(found: npt.NDArray[np.float64], manifest: EngineManifest) -> npt.NDArray[np.float64]:
    """Matches of all ranks from the default score on, without the last ones where a slot decides which are returned."""
    good = found[found[:, 4] >= manifest.matching.default_score]
    if len(found) == manifest.matching.max_matches:
        good = good[: int(0.8 * len(found))]
    stored = _STORED_DENSE if is_dense(manifest.family) else _STORED
    ranks = np.linspace(0, len(good) - 1, min(stored, len(good))).astype(int)
    spread: npt.NDArray[np.float64] = good[ranks]
    return spread
