"""Packages that a part of the program needs and that an extra installs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from matchrt.errors import missing_package

# Which extra installs a package; the extra `export` installs all others, torch among them.
_EXTRAS = {
    "jax": "flax",
    "flax": "flax",
    "ml_dtypes": "flax",
    "onnx": "onnx",
    "onnx_graphsurgeon": "onnx",
}


@contextmanager
def packages_for(purpose: str) -> Iterator[None]:
    """Turns a missing package in the imports inside into an error that says which extra installs it.

    purpose: what needs the package, as the subject of a sentence. Error: package-missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name)
        raise missing_package(package, _EXTRAS.get(package, "export"), purpose) from error
