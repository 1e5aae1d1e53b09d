"""Writing files so that a reader sees the old file or the whole new one, never a part."""

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
    """Yields a temporary path beside `target`; renames it onto `target` when the block ends well, else removes it.

    A symbolic link is followed: the file that it names is replaced, the link stays. Permissions of an existing file
    stay too. part: the temporary file's name, for callers that alone write this target: what a killed process left
    under it is removed first, and the path is yielded without a file there. Error: output-unwritable.
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
    """Raises `output-unwritable` where writing `target` is bound to fail: to be called before long work."""
    if target.exists() and not target.is_file():
        raise _unwritable(target, "it is a folder" if target.is_dir() else "it is not a regular file")
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
    """Writes `data` to `target` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: Path, text: str) -> None:
    """Writes `text` as UTF-8 to `target` atomically."""
    write_bytes(target, text.encode())
