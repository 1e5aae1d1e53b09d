"""Packages that a part of the program needs and that an extra installs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from matchrt.errors import missing_package

_OF_FLAX = ("jax", "flax", "ml_dtypes")


@contextmanager
def packages_for(purpose: str) -> Iterator[None]:
    """Turns a missing package in the imports inside into an error that says which extra installs it.

    purpose: what needs the package, as the subject of a sentence. Error: package-missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name)
        raise missing_package(package, "flax" if package in _OF_FLAX else "export", purpose) from error
