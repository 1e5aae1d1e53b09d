"""The engine store: its folder, its size, and the engines in it that this machine cannot run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matchrt._util.atomic import why_unwritable
from matchrt.doctor.machine import Gpus
from matchrt.doctor.verdicts import BackendState
from matchrt.errors import MatchRTError, missing_package
from matchrt.manifest import EngineManifest
from matchrt.nvidia.modules import BACKENDS as NVIDIA
from matchrt.runtime.engine_checks import require_gpu, require_version
from matchrt.store import EngineStore, StoredEngine


@dataclass(frozen=True)
class Misfit:
    """An engine in the store that does not run here.

    path: the engine file.
    code: the code of the error that opening it would raise.
    message: why it does not run.
    remedy: what to do about it.
    """

    path: str
    code: str
    message: str
    remedy: str


@dataclass(frozen=True)
class StoreState:
    """The state of the store.

    root: the store's folder.
    engines: number of engines.
    size: of all files, in bytes.
    writable: whether engines can be added.
    misfits: the engines that do not run here.
    untested: the paths of engines without a self-test, whose results no session checks where they run.
    why_unwritable: why no engine can be added; None if one can.
    """

    root: str
    engines: int
    size: int
    writable: bool
    misfits: tuple[Misfit, ...]
    untested: tuple[str, ...] = ()
    why_unwritable: str | None = None


def examine_store(store: EngineStore, backends: Sequence[BackendState], gpus: Gpus) -> StoreState:
    """Examines the store. It reads every manifest, but no engine.

    backends: gives the installed versions. gpus: the GPUs that engines must fit.
    """
    engines, why = store.engines(), why_unwritable(store.root)
    versions = {backend.name: backend.version for backend in backends}
    checked = (_misfit(engine, versions.get(engine.manifest.backend), gpus) for engine in engines)
    return StoreState(
        root=str(store.root),
        engines=len(engines),
        size=sum(_size(path) for path in store.root.rglob("*")) if store.root.is_dir() else 0,
        writable=why is None,
        why_unwritable=why,
        misfits=tuple(misfit for misfit in checked if misfit is not None),
        untested=tuple(str(engine.path) for engine in engines if engine.manifest.self_test is None),
    )


def _misfit(engine: StoredEngine, version: str | None, gpus: Gpus) -> Misfit | None:
    try:
        _require_fit(engine.manifest, version, gpus)
    except MatchRTError as error:
        return Misfit(str(engine.path), error.code, error.message, error.remedy)
    return None


def _require_fit(manifest: EngineManifest, version: str | None, gpus: Gpus) -> None:
    """Makes the checks of loading an engine; without a GPU, only those that need none.

    Errors: package-missing, and those of `require_version` and `require_gpu`.
    """
    extra = NVIDIA.get(manifest.backend)
    if extra is None:
        return
    if version is None:
        raise missing_package(manifest.backend, extra, "The engine")
    require_version(manifest, version)
    errors = []
    for gpu in gpus.usable:
        try:
            require_gpu(manifest, str(gpu.compute_capability), gpu.name)
            return
        except MatchRTError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # the file was removed meanwhile
        return 0
