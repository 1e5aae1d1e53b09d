"""Writes the output from a finished journal, in the format of its suffix.

Failed pairs are listed in `OUTPUT.failed.txt`, a line each: images, code and message, separated by tabs. Line breaks,
tabs and backslashes in them, and bytes that are not UTF-8, are escaped (`names.one_line`). If all pairs were matched,
there is no such file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from matchrt._util.atomic import atomic_path, require_writable
from matchrt.batch import names
from matchrt.batch.colmap import ColmapOutput
from matchrt.batch.format import OutputFormat
from matchrt.batch.hloc import HlocOutput
from matchrt.batch.journal import Journal
from matchrt.batch.locks import locked_folder
from matchrt.batch.options import OutputOptions
from matchrt.batch.parquet import ParquetOutput
from matchrt.errors import MatchRTError

FORMATS: Mapping[str, OutputFormat] = {
    ".h5": HlocOutput(),
    ".hdf5": HlocOutput(),
    ".db": ColmapOutput(),
    ".parquet": ParquetOutput(),
}


def format_of(path: Path) -> OutputFormat:
    """The format that a file's suffix stands for. Error: output-format."""
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise MatchRTError("output-format", f"'{path}' has no known suffix.", f"Use one of {', '.join(FORMATS)}.")
    return found


@dataclass(frozen=True)
class Output:
    """An output of a run.

    path: the output file, whose suffix says the format.
    options: the options of all formats.
    """

    path: Path
    options: OutputOptions = field(default_factory=OutputOptions)

    @property
    def format(self) -> OutputFormat:
        """The format of the output. Error: output-format."""
        return format_of(self.path)

    @property
    def files(self) -> list[Path]:
        """All files that are written, except for the list of failed pairs. Error: output-format."""
        return self.format.files(self.path, self.options)

    @property
    def failed(self) -> Path:
        """The file that lists failed pairs."""
        return self.path.with_name(f"{self.path.name}.failed.txt")

    def check(self) -> None:
        """Checks before any work that the output can be written.

        Errors: output-format, output-unwritable, package-missing, package-version, colmap-camera.
        """
        for path in (*self.files, self.failed):
            require_writable(path)
        self.format.check(self.options)

    def refuse_names(self, journal: Journal) -> None:
        """Refuses the images whose names the output cannot hold: all of their pairs fail with `matches-name`."""
        unfit = ((row.id, names.unfit(row.name)) for row in journal.images())
        journal.refuse({number: error for number, error in unfit if error is not None})
        journal.refuse(dict(self.format.refused(journal.images())))

    def require_own(self, journal: Journal) -> None:
        """Raises `output-exists` if writing would replace a file that this journal did not write."""
        strange = [path for path in self.files if path.exists()]
        if strange and journal.written(self._key) is None:
            raise MatchRTError(
                "output-exists",
                f"'{strange[0]}' exists already, and '{journal.path}' did not write it.",
                "Remove the file, or choose another name.",
            )

    @property
    def _key(self) -> str:
        return str(self.path.absolute())

    def state(self, journal: Journal) -> Any:
        """Everything that the output depends on, as JSON values."""
        options = {**asdict(self.options), "features": str(self.options.features_of(self.path))}
        return {"revision": journal.revision, "options": options}

    def is_written(self, journal: Journal) -> bool:
        """Whether the output exists already as this journal would write it.

        If so, the images that were refused when it was written are refused now too.
        """
        noted = journal.written(self._key)
        if not all(path.is_file() for path in self.files) or not isinstance(noted, dict):
            return False
        if noted["state"] != self.state(journal):
            return False
        journal.refuse({image: MatchRTError(*error) for image, *error in noted["refused"]})
        return True

    def forget_refusals(self, journal: Journal) -> None:
        """Has the output written again if images were refused when it was written: they may fit by now."""
        noted = journal.written(self._key)
        if isinstance(noted, dict) and noted["refused"]:
            journal.mark_written(self._key, "begun")

    def write(self, journal: Journal, root: Path) -> None:
        """Writes all files atomically. root: folder of the images. Errors: those of the format, output-unwritable."""
        with locked_folder(self.path.parent, wait=True):  # two journals may have the same output
            self.require_own(journal)
            by_name = journal.refused()
            journal.mark_written(self._key, "begun")  # from now on the files are ours, even if this run is killed
            self.format.write(journal, self.path, root, self.options)
            self._write_failed(journal)
            later = {image: error for image, error in journal.refused().items() if image not in by_name}
            refused = [[image, error.code, error.message, error.remedy] for image, error in later.items()]
            journal.mark_written(self._key, {"state": self.state(journal), "refused": refused})

    def _write_failed(self, journal: Journal) -> None:
        if not journal.counts().failed:
            self.failed.unlink(missing_ok=True)
            return
        with (
            atomic_path(self.failed, f".{self.failed.name}.part") as part,
            part.open("w", encoding="utf-8", newline="\n") as stream,
        ):
            for failure in journal.failures():
                fields = (failure.pair.first, failure.pair.second, failure.code, failure.message)
                stream.write("\t".join(map(names.one_line, fields)) + "\n")
