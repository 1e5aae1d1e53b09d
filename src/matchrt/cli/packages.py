"""Packages that a command needs and that an extra brings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from matchrt.errors import missing_package

_OF_FLAX = ("jax", "flax", "ml_dtypes")


@contextmanager
def packages_for(purpose: str) -> Iterator[None]:
    """Around imports: a package that is missing becomes an error that says which extra brings it.

    purpose: what needs the package, as the subject of a sentence. Error: package-missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name)
        raise missing_package(package, "flax" if package in _OF_FLAX else "export", purpose) from error
