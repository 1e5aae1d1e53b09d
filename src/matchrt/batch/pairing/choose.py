"""Chooses the pairs of a folder's images, and writes them as a list that `match-many` reads.

Errors: pairs-empty (no pair is left), pairs-exif, pairs-missing, pairs-option; of retrieval, those of `describing` and
package-missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from matchrt._util.atomic import atomic_path
from matchrt.batch.names import readable, unfit
from matchrt.batch.pairing.describing import Descriptors
from matchrt.batch.pairing.exif import read_taken
from matchrt.batch.pairing.nearest import pairs_by_similarity, require_index
from matchrt.batch.pairing.options import PairingOptions
from matchrt.batch.pairing.taken import pairs_by_place, pairs_by_time
from matchrt.batch.pairing.windows import IndexPair, all_pairs, window_pairs
from matchrt.errors import MatchRTError
from matchrt.runtime.pairs import Skipped, no_pairs, read_folder

# Names that a list has as they are; others stand in double quotes.
_PLAIN = re.compile(r"[A-Za-z0-9_./+@=-][A-Za-z0-9_./+@=#-]*")

Describe = Callable[[Sequence[str]], Descriptors]


@dataclass(frozen=True)
class FolderImages:
    """The images of a folder.

    folder: the folder, without those inside it.
    names: file names, in natural order.
    skipped: what else the folder holds.
    failed: images that no list can name, by name, and why.
    """

    folder: Path
    names: tuple[str, ...]
    skipped: list[Skipped]
    failed: dict[str, MatchRTError]


@dataclass(frozen=True)
class Chosen:
    """The pairs that were chosen.

    images: how many images the folder has.
    pairs: how many pairs were written.
    alone: the images in no pair, in the folder's order; those of `failed` are among them.
    failed: the images that could not be read or named, by name, and why.
    skipped: what else the folder holds.
    described: descriptors computed now; None where the pairs do not come from retrieval.
    seconds: for these descriptors.
    """

    images: int
    pairs: int
    alone: list[str]
    failed: dict[str, MatchRTError]
    skipped: list[Skipped]
    described: int | None = None
    seconds: float = 0.0

    @property
    def share(self) -> float:
        """The chosen share of all pairs of the images, 0..1. Raises nothing."""
        return self.pairs / max(1, self.images * (self.images - 1) // 2)


@dataclass
class _Counted:
    """The pairs that pass through, counted, with the images that they have."""

    pairs: Iterable[IndexPair]
    count: int = 0
    seen: set[int] = field(default_factory=set)

    def __iter__(self) -> Iterator[IndexPair]:
        for pair in self.pairs:
            self.count += 1
            self.seen.update(pair)
            yield pair


def images_of(folder: Path) -> FolderImages:
    """The images of a folder. Errors: pairs-missing; pairs-folders if it is a file."""
    if not folder.exists():
        raise MatchRTError("pairs-missing", f"There is no folder '{folder}'.", "Check the path.")
    if not folder.is_dir():
        raise MatchRTError("pairs-folders", f"'{folder}' is a file.", "Name a folder of images.")
    paths, skipped = read_folder(folder)
    failed = {path.name: error for path in paths if (error := _unlisted(path.name)) is not None}
    return FolderImages(folder, tuple(path.name for path in paths if path.name not in failed), skipped, failed)


def require_ready(options: PairingOptions, images: FolderImages) -> None:
    """Checks what retrieval needs before descriptors are computed. Errors: package-missing, pairs-empty."""
    if len(images.names) < 2:
        raise no_pairs(images.folder, images.skipped)
    if options.how == "retrieval":
        require_index(len(images.names))


def write_chosen(
    images: FolderImages, options: PairingOptions, output: Path, describe: Describe, below: str = ""
) -> Chosen:
    """Chooses the pairs and writes them atomically, two names a line.

    describe: gives the descriptors of images by their names; called for `retrieval` alone. below: what precedes names
        in the list, such as `folder/`.
    Errors: the module's, output-unwritable.
    """
    require_ready(options, images)
    failed = dict(images.failed)
    described = describe(images.names) if options.how == "retrieval" else None
    if described is not None:
        failed |= {images.names[number]: error for number, error in described.failed.items()}
    pairs = _Counted(_retrieved(described, options) if described is not None else _by_order(images, options))
    ahead = iter(pairs)
    first = next(ahead, None)
    if first is None:
        raise _none_left(images, failed)
    with atomic_path(output) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        for i, j in chain([first], ahead):
            lines.write(f"{_quoted(below + images.names[i])} {_quoted(below + images.names[j])}\n")
    alone = [name for number, name in enumerate(images.names) if number not in pairs.seen]
    computed, seconds = (None, 0.0) if described is None else (described.computed, described.seconds)
    count = len(images.names) + len(images.failed)
    return Chosen(count, pairs.count, [*alone, *images.failed], failed, images.skipped, computed, seconds)


def _none_left(images: FolderImages, failed: Mapping[str, MatchRTError]) -> MatchRTError:
    """The error (pairs-empty) where the way of choosing leaves no pair. It is not raised here."""
    count, lost = len(images.names), [name for name in images.names if name in failed]
    if count - len(lost) < 2:
        why = f"{len(lost)} of its {count} images cannot be read; '{readable(lost[0])}': {failed[lost[0]].message}"
        remedy = failed[lost[0]].remedy
    else:
        why = f"no two of its {count} images are as near or as much alike as the options ask for."
        remedy = "Allow more by --max-distance, --max-seconds or --min-similarity."
    return MatchRTError("pairs-empty", f"'{images.folder}' gives no pair of images: {why}", remedy)


def _by_order(images: FolderImages, options: PairingOptions) -> Iterable[IndexPair]:
    count = len(images.names)
    if options.how == "exhaustive":
        return all_pairs(count)
    if options.how == "window":
        return window_pairs(count, options.window, options.loop)
    taken = [read_taken(images.folder / name) for name in images.names]
    if options.how == "gps":
        return pairs_by_place(taken, options.neighbours, options.max_distance)
    return pairs_by_time(taken, options.neighbours, options.max_seconds)


def _retrieved(described: Descriptors, options: PairingOptions) -> list[IndexPair]:
    known = np.flatnonzero(described.values.any(1))
    pairs = pairs_by_similarity(described.values[known], options.neighbours, options.min_similarity)
    return [(int(known[i]), int(known[j])) for i, j in pairs]


def _unlisted(name: str) -> MatchRTError | None:
    """Why no list can name an image; None if one can. Its code is matches-name."""
    if '"' in name or any(character in name for character in "\n\r\t"):
        return MatchRTError(
            "matches-name",
            f"The file name '{readable(name)}' has a double quote or a line break.",
            "Rename the file: lists of pairs cannot have it.",
        )
    return unfit(name)


def _quoted(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else f'"{name}"'
