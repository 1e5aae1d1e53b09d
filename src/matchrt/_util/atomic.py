"""Writes files so that a reader sees either the old file or the whole new one."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matchrt.errors import MatchRTError


@contextmanager
def atomic_path(target: Path, part: str | None = None) -> Iterator[Path]:
    """Yields a temporary path beside `target`, and renames it onto `target` if the block ends without an error.

    After an error the temporary file is removed. If `target` is a symbolic link, the file that it names is replaced,
    and the link stays. An existing file's permissions stay too.
    part: the temporary file's name, for callers that are the only writer of this target. What a killed process left
        under that name is removed first, and no file is created there.
    Error: output-unwritable.
    """
    temporary: Path | None = None
    try:
        require_writable(target)
        real = Path(os.path.realpath(target))
        mode = stat.S_IMODE(real.stat().st_mode) if real.exists() else 0o666 & ~_umask()
        real.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_beside(real) if part is None else real.with_name(part)
        if part is not None:
            temporary.unlink(missing_ok=True)
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, real)
    except OSError as error:
        raise _unwritable(target, error.strerror or str(error)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _temporary_beside(real: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{real.stem}-", suffix=real.suffix, dir=real.parent)
    os.close(handle)
    return Path(name)


def require_writable(target: Path) -> None:
    """Raises `output-unwritable` if writing `target` must fail. Call it before long work."""
    try:
        if target.exists() and not target.is_file():
            raise _unwritable(target, "it is a folder" if target.is_dir() else "it is not a regular file")
    except (OSError, ValueError) as error:  # a name that the system does not take, such as one that is too long
        raise _unwritable(target, getattr(error, "strerror", None) or str(error)) from error
    parent = Path(os.path.realpath(target)).parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise _unwritable(target, f"'{parent}' is not a folder")
    if not os.access(parent, os.W_OK):
        raise _unwritable(target, f"'{parent}' may not be written")


def _unwritable(target: Path, reason: str) -> MatchRTError:
    return MatchRTError(
        "output-unwritable", f"Cannot write '{target}': {reason}.", "Choose a place with room that you may write to."
    )


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_bytes(target: Path, data: bytes) -> None:
    """Writes `data` to `target` atomically. Error: output-unwritable."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: Path, text: str) -> None:
    """Writes `text` as UTF-8 to `target` atomically. Error: output-unwritable."""
    write_bytes(target, text.encode())
