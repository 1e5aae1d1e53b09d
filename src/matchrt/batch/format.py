"""What an output format of `match-many` has to do. Formats stand in the table `output.FORMATS`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from matchrt.batch.journal import Journal
from matchrt.batch.options import OutputOptions

_BLOCK = 1 << 20


class OutputFormat(ABC):
    """One kind of output. A format must say how it is written; the other methods suit one file that needs no package.

    Objects hold no state: one writes every output of its kind.
    """

    def files(self, path: Path, options: OutputOptions) -> list[Path]:
        """All files that `write` makes for the output `path`."""
        return [path]

    def check(self, options: OutputOptions) -> None:  # noqa: B027 - most formats have nothing to check
        """Says before any work what would make `write` fail: a package that is missing, an option that is wrong."""

    def check_names(self, names: Iterable[str]) -> None:  # noqa: B027 - as above
        """Raises `matches-name` where images of these names could not be told apart in the output."""

    @abstractmethod
    def write(self, journal: Journal, path: Path, root: Path, options: OutputOptions) -> None:
        """Writes what the journal holds to `path`, atomically: at any moment the old file or the whole new one.

        root: the folder that image names start from. Error: output-unwritable, and those of the format.
        """

    def content(self, path: Path) -> Iterator[bytes]:
        """A file's content in a canonical form, piece by piece, for `--digest`; unless told otherwise, its bytes.

        Two runs must give the same pieces. A format whose bytes may differ for one content has to say its own.
        """
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                yield block
