"""Runs an engine's self-test before its first use on a machine, and remembers that it passed.

The runtime, the driver and the GPU decide what an engine computes as much as its bytes do: a fused kernel may overflow
on one GPU only, or kernels that were compiled earlier may no longer fit. So the verdict is kept for all of these
together, and any change asks again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from dataclasses import asdict
from pathlib import Path

import platformdirs

from matchrt._util import atomic
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, SelfTest
from matchrt.runtime.self_test.answer import SelfTestResult, compare_answer
from matchrt.runtime.self_test.pair import self_test_inputs
from matchrt.runtime.session import Session

LOGGER = logging.getLogger("matchrt.runtime")
# A test that takes longer than this is mentioned, in seconds.
_LONG = 0.5
_OUTPUTS = {"keypoints0", "keypoints1", "scores", "num_matches"}


def prove(session: Session) -> SelfTestResult | None:
    """Runs the engine's self-test, unless it has passed in these circumstances before.

    Returns its result; None if it need not run: it has passed, the engine has none, or the backend's results do not
    depend on the machine. If the test fails with kernels that were kept from an earlier start, these are dropped, and
    the test runs once more. Errors: engine-self-test, and those of a run.
    """
    test = session.manifest.self_test
    if test is None:
        return None
    before = session.circumstances()
    if before is None or _passed(session.manifest, test, before):
        return None
    start = time.perf_counter()
    result = prove_now(session, test)
    if failures := result.failures(test):
        raise failed(session.manifest, failures, session.device())
    if (seconds := time.perf_counter() - start) > _LONG:
        LOGGER.warning("the self-test of %s took %.1f s; it runs once on this machine", _name(session), seconds)
    return result


def prove_now(session: Session, test: SelfTest) -> SelfTestResult:
    """Runs the engine's self-test, whatever is remembered, and remembers whether it passed.

    Kept kernels with which it fails are dropped, as by `prove`. Errors: those of `run_self_test`.
    """
    before = session.circumstances()
    result = run_self_test(session, test)
    if result.failures(test) and session.drop_kept_kernels():
        LOGGER.warning("%s failed its self-test with kernels of an earlier start; they are dropped", _name(session))
        result = run_self_test(session, test)
    after = session.circumstances()
    if not result.failures(test):
        _remember(session.manifest, test, after, result)
        return result
    for where in (before, after):
        _forget(session.manifest, test, where)
    return result


def run_self_test(session: Session, test: SelfTest) -> SelfTestResult:
    """Runs the engine on the made pair and compares.

    Errors: manifest-invalid for a manifest with inputs or outputs that no engine has, and those of a run.
    """
    try:
        inputs = self_test_inputs(session.manifest, test.pair)
    except ValueError as error:
        raise _unlike_engines(str(error)) from error
    outputs = session.run(inputs)
    if missing := _OUTPUTS - outputs.keys():
        raise _unlike_engines(f"there is no output {', '.join(sorted(missing))}")
    return compare_answer(test, outputs)


def failed(manifest: EngineManifest, failures: tuple[str, ...], where: str) -> MatchRTError:
    """The error (engine-self-test) for an engine whose answers are wrong. It is returned, not raised."""
    return MatchRTError(
        "engine-self-test",
        f"This {manifest.precision} engine of {manifest.model} does not compute here what its fp32 graph computes "
        f"({where}): {'; '.join(failures)}.",
        "Build it on this machine, where it is judged on this GPU: matchrt build, with --precision fp16 or fp32; or "
        "update the driver. `matchrt doctor ENGINE` repeats the test.",
    )


def _unlike_engines(what: str) -> MatchRTError:
    return MatchRTError("manifest-invalid", f"The engine's self-test cannot be run: {what}.", "Build the engine again.")


def _name(session: Session) -> str:
    return f"{session.manifest.model} {session.manifest.precision}"


def _record(manifest: EngineManifest, test: SelfTest, where: str) -> Path:
    text = json.dumps([manifest.engine_sha256, asdict(test), where])
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    return Path(platformdirs.user_cache_dir("matchrt", appauthor=False)) / "self-tests" / f"{name}.json"


def _passed(manifest: EngineManifest, test: SelfTest, where: str) -> bool:
    """Whether there is a record. One that cannot be looked for, because of a folder's rights, counts as missing."""
    with contextlib.suppress(OSError):
        return _record(manifest, test, where).is_file()
    return False


def _remember(manifest: EngineManifest, test: SelfTest, where: str | None, result: SelfTestResult) -> None:
    """Writes the record. Where that is not possible, the next start tests again."""
    if where is None:
        return
    path = _record(manifest, test, where)
    with contextlib.suppress(OSError, MatchRTError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, json.dumps({"where": where, **asdict(result)}) + "\n")


def _forget(manifest: EngineManifest, test: SelfTest, where: str | None) -> None:
    if where is not None:
        with contextlib.suppress(OSError):
            _record(manifest, test, where).unlink(missing_ok=True)
