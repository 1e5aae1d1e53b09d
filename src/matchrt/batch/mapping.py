"""A map of the images: COLMAP's incremental or global mapper on a database that `match-many` wrote.

COLMAP works in a process of its own (`mapping_process`), on a copy of the database, in a folder beside the map. When it
is done, that folder takes the map's place. So a killed run leaves no half of a map, and no half-used database; the
next one begins the mapping anew. A map that is there, and fits the database and the options, is not made again.

| in the folder      | what it is                                                                       |
| ------------------ | -------------------------------------------------------------------------------- |
| 0, 1, ...          | models as COLMAP writes them (cameras, frames, images, points3D), largest first  |
| matchrt.json       | what the models are made of, and the numbers of `Model`                          |

Errors: map-empty (COLMAP finds no two images to begin with), map-failed (its process ended before it was done),
map-busy (another process makes the same map), output-exists (the folder holds what we did not write),
output-twice, output-unwritable, package-missing, package-version.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from matchrt._util.atomic import require_writable
from matchrt.batch.colmap import python_path, reason_of, require_pycolmap
from matchrt.batch.locks import locked_folder
from matchrt.batch.options import ColmapOptions
from matchrt.errors import MatchRTError

Mapper = Literal["incremental", "global"]
FACTS = "matchrt.json"

# Called with the number of images registered so far and the number of all images.
Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Model:
    """A model of the map.

    registered: images with a pose.
    points: triangulated points.
    reprojection_px: mean reprojection error in pixels.
    track_length: mean number of images that see a point.
    """

    registered: int
    points: int
    reprojection_px: float
    track_length: float


@dataclass(frozen=True)
class MapReport:
    """The map that is in the folder now.

    images: images of the database.
    models: the largest one first.
    made: whether it was made in this run; False if it was up to date.
    """

    images: int
    models: tuple[Model, ...]
    made: bool

    def to_json(self) -> dict[str, Any]:
        """As JSON values. Raises nothing."""
        return {"images": self.images, "models": [asdict(model) for model in self.models], "made_now": self.made}


@dataclass(frozen=True)
class MapWork:
    """What a map is made of.

    database: the COLMAP database.
    images: the folder that its images' names start from.
    folder: where the map goes.
    mapper: COLMAP's `incremental` or `global` mapper.
    """

    database: Path
    images: Path
    folder: Path
    mapper: Mapper = "incremental"

    def check(self, others: Iterable[Path] = ()) -> None:
        """Checks before any work that the map can be made and written. Errors: the module's, but map-*.

        others: all other files that the command writes. Error: output-twice, if one of them is in the map's folder.
        """
        pycolmap = require_pycolmap(ColmapOptions())
        if not hasattr(pycolmap, f"{self.mapper}_mapping"):
            raise MatchRTError(
                "package-version",
                f"pycolmap {pycolmap.__version__} has no {self.mapper} mapper.",
                "Update it: pip install -U 'matchrt[colmap]'.",
            )
        own = Path(os.path.realpath(self.folder))
        for path in others:
            if Path(os.path.realpath(path)).is_relative_to(own):
                raise MatchRTError(
                    "output-twice",
                    f"'{path}' would be in the folder of the map, '{self.folder}', which is replaced as a whole.",
                    "Choose another name.",
                )
        require_writable(self.folder / FACTS)
        self._require_own()

    def _require_own(self) -> None:
        """Raises `output-exists` if making the map would replace what is not ours."""
        if not self.folder.exists():
            return
        strange = self.folder.name if not self.folder.is_dir() else ""
        if not strange:
            entries = sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))
            ours = FACTS in entries
            strange = next((name for name in entries if not (ours and (name == FACTS or name.isdecimal()))), "")
        if strange:
            raise MatchRTError(
                "output-exists",
                f"'{self.folder}' exists already, and matchrt did not write '{strange}' in it.",
                "Move it away, or choose another name.",
            )

    def run(self, content: str, tell: Tell | None = None) -> MapReport:
        """Makes the map, if it is not there already. content: digest of the database's content. Errors: the module's.

        tell: called when an image is registered.
        """
        import pycolmap

        state = {"database": content, "mapper": self.mapper, "pycolmap": pycolmap.__version__}
        kept = self._kept(state)
        if kept is not None:
            return kept
        part = self.folder.with_name(f".{self.folder.name}.part")
        try:
            with locked_folder(part, wait=False) as held:
                if not held:
                    raise MatchRTError(
                        "map-busy",
                        f"Another process makes the map '{self.folder}'.",
                        "Wait for it to end, and run the command again; the database is whole.",
                    )
                try:
                    return self._made(state, part, tell)
                except BaseException:
                    shutil.rmtree(part, ignore_errors=True)
                    raise
        except OSError as error:
            raise self._unwritable(error.strerror or str(error)) from error

    def _made(self, state: dict[str, str], part: Path, tell: Tell | None) -> MapReport:
        """Makes the map in `part`, whose lock this process has, and puts it in its place."""
        self._put_back()
        kept = self._kept(state)  # by a process that ended just now, or one that was killed
        if kept is not None:
            shutil.rmtree(part)
            return kept
        self._require_own()
        for left in part.iterdir():  # by a killed run
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        copy = part / "database.db"
        shutil.copyfile(self.database, copy)
        images, models = self._mapped(copy, part, tell)
        for left in part.glob("database.db*"):
            left.unlink()
        facts = {"state": state, "images": images, "models": [asdict(model) for model in models]}
        (part / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        if self.folder.exists():
            self.folder.rename(self._old)
        try:
            part.rename(self.folder)
        finally:
            self._put_back()
        return MapReport(images, models, made=True)

    @property
    def _old(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.old")

    def _put_back(self) -> None:
        """Settles what a run leaves that ended between its renames: a map is put back, or removed if there is another.

        Raises OSError.
        """
        if not self._old.exists():
            return
        if self.folder.exists():
            shutil.rmtree(self._old, ignore_errors=True)
        else:
            self._old.rename(self.folder)

    def _kept(self, state: dict[str, str]) -> MapReport | None:
        try:
            facts = json.loads((self.folder / FACTS).read_text(encoding="utf-8"))
            if facts["state"] != state or not all((self.folder / str(i)).is_dir() for i in range(len(facts["models"]))):
                return None
            return MapReport(int(facts["images"]), tuple(Model(**model) for model in facts["models"]), made=False)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _mapped(self, database: Path, part: Path, tell: Tell | None) -> tuple[int, tuple[Model, ...]]:
        """Runs the process, and returns the number of images and the models."""
        request = {"database": str(database), "images": str(self.images), "part": str(part), "mapper": self.mapper}
        answer: dict[str, Any] = {}
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(
                [sys.executable, "-m", "matchrt.batch.mapping_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env={**os.environ, "PYTHONPATH": python_path()},
            ) as process,
        ):
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                for line in process.stdout:
                    answer = json.loads(line)
                    if tell is not None and "registered" in answer:
                        tell(answer["registered"], answer["images"])
            except (BrokenPipeError, ValueError):
                answer = {}
            finally:
                process.kill()  # it has answered already, or this run has failed
            process.wait()
            said.seek(0)
            if "models" not in answer:
                raise self._failure(reason_of(said.read()))
        if not answer["models"]:
            raise MatchRTError(
                "map-empty",
                f"COLMAP registered none of the {answer['images']} images: no two of them are enough to begin with.",
                "A map needs views of one place from different sides: of one plane, or from a camera that only turned, "
                "there is none. Match more pairs of neighbouring images, or look at --report for the verified ones.",
            )
        return int(answer["images"]), tuple(Model(**model) for model in answer["models"])

    def _failure(self, reason: str) -> MatchRTError:
        if "disk is full" in reason or "disk I/O" in reason:
            return self._unwritable(reason)
        return MatchRTError(
            "map-failed",
            f"COLMAP ended before '{self.folder}' was whole: {reason}.",
            "Run the command again: it only makes the map. The database is whole.",
        )

    def _unwritable(self, reason: str) -> MatchRTError:
        return MatchRTError(
            "output-unwritable",
            f"Cannot write '{self.folder}': {reason}.",
            "Choose a place with room that you may write to.",
        )
