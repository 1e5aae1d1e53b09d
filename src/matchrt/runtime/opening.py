"""Opens an engine as a session of its backend."""

from __future__ import annotations

from pathlib import Path

from matchrt.runtime.backend import get_backend
from matchrt.runtime.engine_checks import require_device
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.self_test.prove import prove
from matchrt.runtime.session import Session, SessionOptions
from matchrt.store import EngineStore


def open_session(engine: EngineFile, options: SessionOptions | None = None) -> Session:
    """Loads an engine with the runtime of its backend.

    options: how to run; None for the defaults.
    On a GPU, the engine's self-test runs first, unless it has passed there before (`runtime.self_test.prove`).
    Errors: device-backend, package-missing, engine-self-test, and those of the backend's session.
    """
    options = options or SessionOptions()
    backend = get_backend(engine.manifest.backend)
    require_device(engine.manifest, backend.devices, options.device)
    session = backend.open(engine, options)
    if options.self_test:
        try:
            prove(session)
        except BaseException:
            session.close()
            raise
    return session


def open_named(
    model_or_engine: str | Path,
    options: SessionOptions | None = None,
    store: EngineStore | None = None,
    backend: str | None = None,
) -> Session:
    """Opens an engine file, a bundled model, or a model that `store` has one engine of.

    store: where engines are looked for; None for the default store.
    backend: of the engine; None for any. For backend `jax`, `model_or_engine` is a bundled model's name or a file of
        weights.
    Errors: those of `read_engine` and `open_session`; package-missing.
    """
    options = options or SessionOptions()
    chosen = None if backend is None else get_backend(backend)
    if chosen is not None and chosen.takes_weights:
        return chosen.open_weights(model_or_engine, options)
    return open_session(read_engine(model_or_engine, store, backend), options)
