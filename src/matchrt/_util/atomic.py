"""Writes files so that a reader sees either the old file or the whole new one."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matchrt.errors import MatchRTError

# Characters of a name that go into that of a temporary file; in UTF-8, four times as many bytes.
_LONGEST_PART = 24
# A path that does not exist, or a part of it that is no folder.
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
# Bytes that show whether a file system has room: on a full one an empty file can still be made.
_PROBE = 4096


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
        _require_place(target)
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
    # Writers go by the suffix. A name that is nearly as long as names can be must not become too long by this.
    suffix = real.suffix if len(real.suffix) <= _LONGEST_PART else ""
    handle, name = tempfile.mkstemp(prefix=f".{real.stem[:_LONGEST_PART]}-", suffix=suffix, dir=real.parent)
    os.close(handle)
    return Path(name)


def require_writable(target: Path) -> None:
    """Raises `output-unwritable` if writing `target` must fail. Call it before long work."""
    _require_place(target)
    if (reason := why_unwritable(Path(os.path.realpath(target)).parent)) is not None:
        raise _unwritable(target, reason)


def why_unwritable(folder: Path) -> str | None:
    """Why no file can be made in a folder, which need not exist yet; None if one can. Raises nothing.

    A file is made in the nearest folder that exists, and removed again: what the rights say is not enough, because root
    may do everything but where the file system does not take it.
    """
    nearest, reason = _nearest(folder)
    if reason is not None:
        return reason
    try:
        with tempfile.NamedTemporaryFile(prefix=".matchrt-", dir=nearest) as stream:
            stream.write(bytes(_PROBE))
            stream.flush()
    except OSError as error:
        return f"'{nearest}' may not be written ({error.strerror})"
    return None


def _require_place(target: Path) -> None:
    """Raises `output-unwritable` if the target is no regular file, or cannot become one."""
    try:
        mode = target.stat().st_mode
    except OSError as error:
        if error.errno not in _ABSENT:
            raise _unwritable(target, error.strerror or str(error)) from error
    except ValueError as error:  # the name has a null character
        raise _unwritable(target, str(error)) from error
    else:
        if not stat.S_ISREG(mode):
            raise _unwritable(target, "it is a folder" if stat.S_ISDIR(mode) else "it is not a regular file")
    _, reason = _nearest(Path(os.path.realpath(target)).parent)
    if reason is not None:
        raise _unwritable(target, reason)


def _nearest(folder: Path) -> tuple[Path, str | None]:
    """The nearest folder above that exists, or the folder itself; and why nothing can be made there, or None."""
    nearest = Path(os.path.realpath(folder))
    while nearest != nearest.parent:
        try:
            nearest.lstat()
            break
        except OSError as error:
            if error.errno not in _ABSENT:  # the name is too long
                return nearest, error.strerror or str(error)
        except ValueError as error:  # the name has a null character
            return nearest, str(error)
        nearest = nearest.parent
    return nearest, None if nearest.is_dir() else f"'{nearest}' is not a folder"


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
