"""What tests of self-tests share, in Python and in C++: digests of made images, and engines whose answer is known."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from matchrt.manifest import SelfTest, SelfTestPair
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.opening import open_session
from matchrt.runtime.self_test.answer import encode_answer, matches_of
from matchrt.runtime.self_test.pair import self_test_inputs
from matchrt.runtime.session import SessionOptions

# (height, width, channels, seed, shift, contrast) -> sha256 of the image's bytes, in rows.
DIGESTS = {
    (480, 640, 1, 1, (0, 0), 256): "3b8bbb92bf789fe20765dd7b07bd66069e22e0be5f1015df2d9e7323176b76c2",
    (480, 640, 1, 1, (61, 81), 96): "6b73b695e7d863e94a426d9e15b8d637373b89d0c5498a68b787d9d19682ee79",
    (48, 64, 1, 1, (7, 9), 96): "599d981a7b49ac7bb4c0ecd848032411a3e589afb925ae23ad92c413f598af09",
    (33, 47, 3, 2147483647, (-21, -33), 256): "5bedf42d67d9564441481df56a6b07e76f5df50d386f4b22b48803403a9b15e9",
    (560, 560, 3, 7, (16, -16), 65536): "d00805ac4f437a075815fc0700cb63cfee66d98428f7c58e411bac515106d35b",
    (16, 16, 1, 0, (1048576, -1048576), 0): "5a5f307aa9ce504d9235634f15cf382e8914c49fbd8dd4d4c47136c917886f7b",
}
PAIR = SelfTestPair(seed=1, shift=(5, 7), contrast=96)
Matches = npt.NDArray[np.float64]


def make_test(matches: npt.NDArray[Any], kind: Literal["matches", "warp"] = "matches", **changes: Any) -> SelfTest:
    """A self-test with the limits of fp16 whose answer is these matches `[N, 5]`."""
    return replace(SelfTest(PAIR, kind, encode_answer(matches), 0.97, 0.02, 0.005), **changes)


def with_self_test(file: EngineFile) -> EngineFile:
    """The engine with what it answers here and now as its self-test."""
    with closing(open_session(file, SessionOptions(self_test=False))) as session:
        answer = matches_of(session.run(self_test_inputs(file.manifest, PAIR)))
    return replace(file, manifest=replace(file.manifest, self_test=make_test(answer)))
