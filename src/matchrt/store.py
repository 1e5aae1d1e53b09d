"""The folder of built engines, keyed by what they were built from. Building fills it, and the runtime reads it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from matchrt._util.atomic import why_unwritable
from matchrt._util.digest import sha256_file
from matchrt._util.text import shown
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, manifest_path, read_manifest

ENVIRONMENT = "MATCHRT_STORE"
# No model has this name.
_WEIGHTS = "weights"
# A step of a path below the store. It begins with no dot, as the folders that the store makes for itself do.
_STEP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_KEY = re.compile(r"[0-9a-f]{16,64}")


@dataclass(frozen=True)
class StoredEngine:
    """An engine in the store.

    path: the engine file.
    manifest: read from the file beside it.
    """

    path: Path
    manifest: EngineManifest


@dataclass(frozen=True)
class EngineStore:
    """A folder of engines: `root/<model>/<first 16 of the build key>/<model>-<size>-<precision>.<suffix>`.

    Downloaded weights are beside the models, in `root/weights`.

    root: the store's folder, which need not exist yet. Each engine has its manifest beside it.
    """

    root: Path

    @property
    def weights(self) -> Path:
        """The folder of downloaded weights, which need not exist yet."""
        return self.root / _WEIGHTS

    def find(self, model: str, build_key: str) -> StoredEngine | None:
        """The engine of this model with exactly this build key, if its bytes are whole; None otherwise.

        Error: manifest-invalid, for a name or a key that no engine in a store can have.
        """
        folder = self.folder(model, build_key)
        found = next(self._read(folder), None)
        if found is None or found.manifest.build_key != build_key:
            return None
        try:
            whole = sha256_file(found.path) == found.manifest.engine_sha256
        except OSError:  # it is missing, or being replaced at this moment
            return None
        return found if whole else None

    def require_writable(self) -> None:
        """Raises `store-unwritable` if adding an engine must fail. Call it before long work."""
        if (reason := why_unwritable(self.root)) is not None:
            raise _unwritable(self.root, reason)

    def put(self, data: bytes, manifest: EngineManifest, file_name: str) -> StoredEngine:
        """Adds an engine, so that nobody ever reads half of it: a temporary folder is written and then renamed.

        Errors: store-unwritable, store-busy; manifest-invalid, for names that are no names of a folder and a file.
        """
        folder = self.folder(manifest.model, manifest.build_key)
        _require_step(file_name, "file name")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
        except OSError as error:
            raise _unwritable(self.root, str(error.strerror)) from error
        try:
            temporary.chmod(0o755)
            (temporary / file_name).write_bytes(data)
            manifest.write(manifest_path(temporary / file_name))
            self._replace(temporary, folder, manifest)
        except OSError as error:
            raise MatchRTError(
                "store-unwritable",
                f"Cannot write to the engine store '{self.root}': {error.strerror}.",
                f"Free some space, or set {ENVIRONMENT} or --store to another folder.",
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return StoredEngine(folder / file_name, manifest)

    def engines(self, model: str | None = None) -> list[StoredEngine]:
        """Every readable engine, newest first; only those of `model`, if it is given. Raises nothing."""
        models = [folder for folder in _listed(self.root) if not folder.name.startswith(".") and folder != self.weights]
        folders = [entry for folder in models for entry in _listed(folder) if not entry.name.startswith(".")]
        folders.sort(key=_modified, reverse=True)
        found = [engine for folder in folders for engine in self._read(folder)]
        return [engine for engine in found if model is None or engine.manifest.model == model]

    def folder(self, model: str, build_key: str) -> Path:
        """The folder of an engine, which is always two steps below the root, whoever wrote the model's name.

        Error: manifest-invalid, for a name that is more than one step of a path, and a key that is no digest.
        """
        _require_step(model, "model")
        if model == _WEIGHTS or _KEY.fullmatch(build_key) is None:
            raise _no_place("model" if model == _WEIGHTS else "build key", model if model == _WEIGHTS else build_key)
        return self.root / model / build_key[:16]

    @staticmethod
    def _read(folder: Path) -> Iterator[StoredEngine]:
        for path in sorted(path for path in _listed(folder) if path.suffix == ".json"):
            try:
                yield StoredEngine(path.with_suffix(""), read_manifest(path))
            except MatchRTError:
                # A damaged entry counts as absent; the next build of the same engine replaces it.
                continue

    def _replace(self, temporary: Path, folder: Path, manifest: EngineManifest) -> None:
        """Moves the new entry into place.

        A whole entry of the same bytes stays as it is; a damaged one is moved out of the way.
        """
        for _ in range(5):
            with contextlib.suppress(OSError):
                os.replace(temporary, folder)
                return
            present = self.find(manifest.model, manifest.build_key)
            if present is not None and present.manifest.engine_sha256 == manifest.engine_sha256:
                return
            aside = Path(tempfile.mkdtemp(prefix=".old-", dir=folder.parent))
            with contextlib.suppress(FileNotFoundError):  # whoever builds the same thing may have moved it first
                os.replace(folder, aside / "entry")
            shutil.rmtree(aside, ignore_errors=True)
        raise MatchRTError(
            "store-busy",
            f"Another process keeps replacing '{folder}'.",
            "Wait for the other build to end, and try again.",
        )


def _require_step(name: str, what: str) -> None:
    if _STEP.fullmatch(name) is None:
        raise _no_place(what, name)


def _no_place(what: str, value: str) -> MatchRTError:
    return MatchRTError(
        "manifest-invalid",
        f"The {what} {shown(value)} cannot be part of a path in the engine store.",
        "Build the engine again with matchrt, whose names are letters, digits, and . _ + -.",
    )


def _unwritable(root: Path, reason: str) -> MatchRTError:
    return MatchRTError(
        "store-unwritable",
        f"Cannot write to the engine store '{root}': {reason}.",
        f"Set {ENVIRONMENT} or --store to a folder that you may write to.",
    )


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # there is no folder, or it has just been removed
        return []


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def open_store(root: Path | None = None) -> EngineStore:
    """The store at `root`, or at $MATCHRT_STORE, or in the platform's cache folder. Raises nothing."""
    if root is None:
        given = os.environ.get(ENVIRONMENT)
        root = Path(given) if given else Path(platformdirs.user_cache_dir("matchrt", appauthor=False)) / "engines"
    return EngineStore(root.expanduser())
