"""The files of images: reading one for its pairs, and noticing later that another picture has its name.

Whatever goes wrong while one image is read concerns its pairs only. So every exception becomes an error that is kept
as a value: an exception that is raised again and again would hold the frames of every place that raised it.

A file is known by the sha256 of its bytes. Its stamp (device, inode, size, times of change) saves reading the file
again: an equal stamp is an equal file. A file that changed within the last seconds has no stamp, because some file
systems count time in seconds, and a second change would not show.

Errors: image-failed (a decoder failed in a way that nobody thought of), image-changed (the file changed while it was
read), and those of `PairAdapter.share`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from matchrt._util.digest import sha256_file
from matchrt.batch.results import ImageFacts
from matchrt.errors import MatchRTError
from matchrt.runtime.image import Image
from matchrt.runtime.preprocess import PreparedImage

# The coarsest clock of the file systems that we know (FAT) has steps of two seconds.
_YOUNG_SECONDS = 3.0
_READERS = 4
# A file whose rights or links changed while it was read is read once more.
_TRIES = 2
# No decoder reads more of an image. What stands behind it may be a hole of gigabytes.
_COUNTED_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class SourceImage:
    """An image that was read for its pairs.

    prepared: the image as the engine takes it, or decoded, if images are stretched in pairs (`PairAdapter.share`).
    facts: its size, its orientation, and by what its file is known again.
    """

    prepared: PreparedImage | Image
    facts: ImageFacts


Read = SourceImage | MatchRTError


def read_source(prepare: Callable[[Path], PreparedImage | Image], path: Path) -> Read:
    """Reads one image; an error that concerns it is returned, and not raised.

    prepare: decodes a file for the engine. Errors that are raised: those of the engine or the GPU.
    """
    try:
        for _ in range(_TRIES):
            before = stamp_of(path)
            prepared = prepare(path)
            content = sha256_file(path, _COUNTED_BYTES)
            if before == stamp_of(path):
                ref = prepared if isinstance(prepared, Image) else prepared.ref
                facts = ImageFacts(
                    ref.height, ref.width, ref.orientation or 1, content, _trusted(path, before), prepared.notice or ""
                )
                return SourceImage(prepared, facts)
        return MatchRTError(
            "image-changed", f"'{path}' changes while it is read.", "Wait until it is whole, and use --retry-failed."
        )
    except Exception as error:  # whatever a decoder raises for one file must not end the run for all
        return image_error(error, str(path))


def image_error(error: Exception, name: str) -> MatchRTError:
    """The error of one image, for whatever was raised while it was read, without the frames of a traceback.

    name: what messages call the image. An error of the engine or the GPU is raised again.
    """
    if isinstance(error, MatchRTError):
        if error.exit_code != MatchRTError.exit_code:
            raise error
        return MatchRTError(error.code, error.message, error.remedy)
    if isinstance(error, OSError):
        return MatchRTError(
            "image-unreadable",
            f"Cannot read '{name}': {error.strerror or error}.",
            "Check the file and the disk, and try again with --retry-failed.",
        )
    detail = " ".join(str(error).split()).rstrip(".")
    return MatchRTError(
        "image-failed",
        f"'{name}' cannot be read: {type(error).__name__}{': ' + detail if detail else ''}.",
        "Convert it to an 8-bit PNG or JPEG, and report it with this message.",
    )


def stamp_of(path: Path) -> str:
    """What the file system says of a file: an equal stamp later is an equal file. Empty if there is no such file."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


def _trusted(path: Path, stamp: str) -> str:
    """The stamp; empty if the file is so young that it may change without a change of its stamp."""
    stat = path.stat()
    return stamp if time.time() - max(stat.st_mtime, stat.st_ctime) > _YOUNG_SECONDS else ""


def changed_since(path: Path, facts: ImageFacts) -> ImageFacts | None:
    """What is known of an image whose file is still the same, with its newest stamp; None if its content has changed.

    A file that is gone or cannot be read counts as the same: its matches are still those of its only picture.
    """
    stamp = stamp_of(path)
    if not stamp or stamp == facts.stamp:
        return facts
    try:
        if sha256_file(path, _COUNTED_BYTES) != facts.content:
            return None
        return replace(facts, stamp=_trusted(path, stamp))
    except OSError:
        return facts


def check_all(
    known: list[tuple[Path, ImageFacts]],
) -> list[ImageFacts | None]:
    """`changed_since` for many images; files that must be read are read side by side."""
    with ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda item: changed_since(*item), known))
