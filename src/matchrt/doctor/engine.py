"""One engine's self-test, run now: whether it computes here what its fp32 graph computes."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, SelfTest
from matchrt.runtime.engine_checks import build_command
from matchrt.runtime.engine_file import read_engine
from matchrt.runtime.opening import open_session
from matchrt.runtime.self_test.answer import SelfTestResult
from matchrt.runtime.self_test.prove import failed, prove_now
from matchrt.runtime.session import SessionOptions
from matchrt.store import EngineStore


@dataclass(frozen=True)
class TestedEngine:
    """An engine that answered its self-test on this machine.

    path: of the engine file.
    manifest: of the engine.
    where: the device that ran it, and with what.
    test: what was asked, with the limits.
    result: how the answer differs.
    seconds: for the whole test, with making the images and, where the backend does that, compiling kernels.
    error: what opening the engine would raise; None if it passed.
    """

    path: str
    manifest: EngineManifest
    where: str
    test: SelfTest
    result: SelfTestResult
    seconds: float
    error: MatchRTError | None

    def to_json(self) -> dict[str, Any]:
        """As JSON values. A figure is null where there is no match to take it from."""
        result, test, error = self.result, self.test, self.error
        return {
            "engine": self.path,
            "model": self.manifest.model,
            "precision": self.manifest.precision,
            "backend": self.manifest.backend,
            "judged": self.manifest.judged,
            "where": self.where,
            "kind": test.kind,
            "stored": test.matches,
            "compared": result.compared,
            "within": result.within,
            "pixels": result.pixels if math.isfinite(result.pixels) else None,
            "score": result.score if math.isfinite(result.score) else None,
            "limits": {"within": test.within, "pixels": test.pixels, "score": test.score},
            "seconds": self.seconds,
            "passed": error is None,
            "error": None if error is None else {"code": error.code, "message": error.message, "remedy": error.remedy},
        }


def check_engine(engine: str | Path, options: SessionOptions, store: EngineStore | None = None) -> TestedEngine:
    """Opens an engine and runs its self-test, whatever is remembered of it. A verdict on a GPU is remembered.

    engine: engine file, bundled model, or model in the store. options: where to run. store: None for the default one.
    Figures beyond the limits are in the result and raise nothing.
    Errors: self-test-missing, those of `read_engine`, of `open_session` but engine-self-test, and of a run.
    """
    file = read_engine(engine, store, None)
    manifest = file.manifest
    if manifest.self_test is None:
        raise MatchRTError(
            "self-test-missing",
            f"'{file.path}' has no self-test: it was built by an earlier matchrt, or its network matches no made pair.",
            f"Build it again: {build_command(manifest)}.",
        )
    with closing(open_session(file, replace(options, self_test=False))) as session:
        start = time.perf_counter()
        result = prove_now(session, manifest.self_test)
        seconds = time.perf_counter() - start
        where = session.device()
    failures = result.failures(manifest.self_test)
    error = failed(manifest, failures, where) if failures else None
    return TestedEngine(str(file.path), manifest, where, manifest.self_test, result, seconds, error)
