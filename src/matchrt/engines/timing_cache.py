"""The timing cache: kernel timings of earlier builds, which make the next build faster. Only full TensorRT has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matchrt._util import atomic
from matchrt._util.reading import read_regular
from matchrt.errors import MatchRTError


def load_timings(config: Any, path: Path) -> Any:
    """Gives the builder's configuration the timings in `path`, or none if the file does not exist.

    Errors: timing-cache; output-unwritable, which is raised before the build so that no work is lost.
    """
    atomic.require_writable(path)
    try:
        known = read_regular(path) if path.exists() else b""
    except OSError as error:
        raise MatchRTError(
            "timing-cache", f"'{path}' cannot be read: {error.strerror}.", "Name another --timing-cache."
        ) from error
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, False):
        raise MatchRTError(
            "timing-cache",
            f"TensorRT does not accept '{path}' as a timing cache for this GPU and version.",
            "Remove the file, or name another --timing-cache.",
        )
    return cache


def save_timings(config: Any, path: Path) -> None:
    """Writes the builder's timings to `path`. If several builds write at once, the last whole file stays.

    Error: output-unwritable.
    """
    atomic.write_bytes(path, bytes(config.get_timing_cache().serialize()))
