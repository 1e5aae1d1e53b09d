"""The base class of the output formats of `match-many`. The table `output.FORMATS` lists the formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from matchrt.batch.journal import Journal
from matchrt.batch.journal_rows import ImageRow
from matchrt.batch.options import OutputOptions
from matchrt.errors import MatchRTError

_BLOCK = 1 << 20


class OutputFormat(ABC):
    """An output format. A subclass must define `write`; the other methods suit formats of one file without packages.

    Objects have no state, so one object writes all outputs of its format.
    """

    def files(self, path: Path, options: OutputOptions) -> list[Path]:
        """All files that `write` makes for the output `path`."""
        return [path]

    def check(self, options: OutputOptions) -> None:  # noqa: B027 - most formats have nothing to check
        """Raises before any work if `write` would fail because of a missing package or a wrong option."""

    def refused(self, images: Iterable[ImageRow]) -> Iterator[tuple[int, MatchRTError]]:
        """The images, by their numbers, that cannot be beside the others in the output because of their names.

        Their pairs fail with that error, and the others are written. Names that are not UTF-8 never come here.
        """
        yield from ()

    @abstractmethod
    def write(self, journal: Journal, path: Path, root: Path, options: OutputOptions) -> None:
        """Writes the journal's results to `path` atomically: a reader sees the old file or the whole new file.

        An image that cannot be written, whatever the reason, is given to `journal.refuse`, and the others are written.
        root: the folder that image names start from. Errors: output-unwritable, and those of the format.
        """

    def content(self, path: Path) -> Iterator[bytes]:
        """A file's content in a canonical form, piece by piece, for `--digest`. By default these are the file's bytes.

        Two runs must give the same pieces. A format whose bytes may differ for the same content must override this.
        """
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                yield block
