"""What the shell offers for arguments that are names: models, engines and backends.

The shell asks the program while somebody types, so nothing heavy is imported here, and a failure offers nothing. Where
no name fits, shells offer files.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from matchrt.errors import MatchRTError


def model_names(incomplete: str) -> list[str]:
    """Names of models that begin with `incomplete`. Raises nothing."""
    from matchrt.families.registry import model_specs

    return _fitting(incomplete, model_specs())


def engine_names(incomplete: str) -> list[str]:
    """Names that stand for engines: bundled models, and models of which the default store has an engine.

    Raises nothing.
    """
    from matchrt.runtime.bundled import BUNDLED
    from matchrt.store import open_store

    names = list(BUNDLED)
    with suppress(MatchRTError, OSError):
        names += [engine.manifest.model for engine in open_store(None).engines()]
    return _fitting(incomplete, names)


def backends(incomplete: str) -> list[str]:
    """Names of backends that begin with `incomplete`. Raises nothing."""
    from matchrt.runtime.backends import backend_names

    return _fitting(incomplete, backend_names())


def _fitting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]
