"""From a finished journal to the output, by its suffix.

| suffix       | written                                     | by          |
| ------------ | ------------------------------------------- | ----------- |
| .h5, .hdf5   | hloc's matches, and keypoints beside them   | `hloc`      |
| .db          | a COLMAP database                           | `colmap`    |
| .parquet     | a table, one row a pair                     | `parquet`   |

Pairs that failed are listed in `OUTPUT.failed.txt`: images, code and message, with tabs between; no such file where all
pairs were matched.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from matchrt._util.atomic import atomic_path, require_writable
from matchrt.batch.colmap import ColmapOptions, require_pycolmap, write_colmap
from matchrt.batch.hloc import Layout, default_features, require_distinct_names, require_h5py, write_hloc
from matchrt.batch.journal import Journal
from matchrt.batch.merged import merged
from matchrt.batch.merging import MergeOptions
from matchrt.batch.parquet import require_pyarrow, write_parquet
from matchrt.errors import MatchRTError

HDF5 = (".h5", ".hdf5")
COLMAP = (".db",)
PARQUET = (".parquet",)
SUFFIXES = (*HDF5, *COLMAP, *PARQUET)


@dataclass(frozen=True)
class OutputOptions:
    """merge: for .h5 and .db. layout, features: for .h5; features None for `feats_OUTPUT`. colmap: for .db."""

    merge: MergeOptions = field(default_factory=MergeOptions)
    layout: Layout = "dense"
    features: Path | None = None
    colmap: ColmapOptions = field(default_factory=ColmapOptions)


@dataclass(frozen=True)
class Output:
    """What to write, and how."""

    path: Path
    options: OutputOptions = field(default_factory=OutputOptions)

    @property
    def kind(self) -> str:
        """The suffix in lower case."""
        return self.path.suffix.lower()

    @property
    def files(self) -> list[Path]:
        """What is written, but for the list of failed pairs."""
        return [self.features, self.path] if self.kind in HDF5 else [self.path]

    @property
    def features(self) -> Path:
        """Where hloc's keypoints go."""
        return self.options.features or default_features(self.path)

    @property
    def failed(self) -> Path:
        """The list of failed pairs."""
        return self.path.with_name(f"{self.path.name}.failed.txt")

    def check(self) -> None:
        """Says before any work what could not be written after it.

        Errors: output-format, output-unwritable, package-missing, package-version, colmap-camera.
        """
        if self.kind not in SUFFIXES:
            raise MatchRTError(
                "output-format", f"'{self.path}' is of no known kind.", f"Use one of {', '.join(SUFFIXES)}."
            )
        for path in (*self.files, self.failed):
            require_writable(path)
        if self.kind in HDF5:
            require_h5py()
        elif self.kind in COLMAP:
            require_pycolmap(self.options.colmap)
        else:
            require_pyarrow()

    def check_names(self, names: Iterable[str]) -> None:
        """Raises `matches-name` where images of these names could not be told apart in the output."""
        if self.kind in HDF5:
            require_distinct_names(list(names))

    def require_own(self, journal: Journal) -> None:
        """Raises `output-exists` where writing would replace a file that this journal did not write."""
        strange = [path for path in self.files if path.exists()]
        if strange and journal.written(self._key) is None:
            raise MatchRTError(
                "output-exists",
                f"'{strange[0]}' is there already, and '{journal.path}' did not write it.",
                "Remove it, or choose another name.",
            )

    @property
    def _key(self) -> str:
        return str(self.path.absolute())

    def state(self, journal: Journal) -> Any:
        """What the output depends on, as JSON values."""
        options = {**asdict(self.options), "features": str(self.features)}
        return {"revision": journal.revision, "options": options}

    def is_written(self, journal: Journal) -> bool:
        """Whether the output is there already, as this journal would write it."""
        there = all(path.is_file() for path in self.files)
        return there and journal.written(self._key) == self.state(journal)

    def write(self, journal: Journal, root: Path) -> None:
        """Writes everything atomically. Errors: those of the formats' modules."""
        journal.mark_written(self._key, "begun")  # what is there from now on is ours, even if this is killed
        if self.kind in PARQUET:
            write_parquet(journal, self.path)
        else:
            with merged(journal, self.options.merge) as found:
                if self.kind in HDF5:
                    write_hloc(found, self.path, self.features, self.options.layout)
                else:
                    write_colmap(found, self.path, root, self.options.colmap)
        self._write_failed(journal)
        journal.mark_written(self._key, self.state(journal))

    def _write_failed(self, journal: Journal) -> None:
        if not journal.counts().failed:
            self.failed.unlink(missing_ok=True)
            return
        with atomic_path(self.failed, f".{self.failed.name}.part") as part, part.open("w", encoding="utf-8") as stream:
            for failure in journal.failures():
                message = " ".join(failure.message.split())
                stream.write(f"{failure.pair.first}\t{failure.pair.second}\t{failure.code}\t{message}\n")
