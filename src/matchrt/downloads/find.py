"""Which files of weights a model has here: bundled ones, and those that were downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from matchrt.downloads.folder import WeightsFolder, default_folder
from matchrt.errors import MatchRTError
from matchrt.families.definition import ModelSpec
from matchrt.families.published import PublishedFile
from matchrt.families.registry import family_of


def bundled_path(spec: ModelSpec) -> Path | None:
    """The model's weights in the package; None if the package has none."""
    return None if spec.weights is None else Path(str(resources.files("matchrt") / "assets" / spec.weights))


def downloaded(files: Sequence[PublishedFile], folder: WeightsFolder | None = None) -> Path | None:
    """The first of these files that is in the folder and has the digest that it should have; None if none is.

    folder: None for that of the default store. A file with wrong bytes is passed over; `matchrt download` says so.
    """
    folder = folder or default_folder()
    return next((path for file in files if (path := folder.verified(file)) is not None), None)


def second_downloaded(spec: ModelSpec, folder: WeightsFolder | None = None) -> Path | None:
    """The downloaded second file of the model; None if it takes none, or none is there. Error: family-unknown.

    folder: None for that of the default store.
    """
    second = family_of(spec.family.name).second_file
    return None if second is None else downloaded(second.published, folder)


def checkpoint_of(spec: ModelSpec, folder: WeightsFolder | None = None) -> Path:
    """The model's checkpoint: the bundled one, or else a downloaded one.

    folder: None for that of the default store. Error: checkpoint-needed.
    """
    found = bundled_path(spec) or downloaded(spec.published, folder)
    if found is None:
        first = f"Run: matchrt download {spec.name} — or download" if spec.published else "Download"
        raise MatchRTError(
            "checkpoint-needed",
            f"matchrt does not ship the weights of {spec.name}, and they have not been downloaded.",
            f"{first} {spec.origin}, then pass --checkpoint FILE.",
        )
    return found
