"""Locks on folders, which end with the process that holds them, in whatever way it ends.

Where the system or the file system has no such locks, nobody is kept out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked_folder(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Makes a folder if it is not there, and holds its lock. Yields False if another process has it, else True.

    The lock is that of the folder and not of its name: a folder that is renamed takes its lock along, and who waited
    for it takes that of the folder that has the name by then.
    wait: whether to wait for another process. Raises OSError if the folder cannot be made.
    """
    try:
        import fcntl
    except ImportError:
        folder.mkdir(parents=True, exist_ok=True)
        yield True
        return
    how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # renamed in this moment
            continue
        except OSError:  # it may be written and not read
            yield True
            return
        try:
            try:
                fcntl.flock(handle, how)
            except BlockingIOError:
                yield False
                return
            except OSError:  # this file system has no locks
                yield True
                return
            if _is_named(handle, folder):
                yield True
                return
        finally:
            os.close(handle)


def _is_named(handle: int, folder: Path) -> bool:
    """Whether an open folder still has that name."""
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except OSError:
        return False
