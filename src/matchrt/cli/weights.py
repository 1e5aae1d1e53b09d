"""What commands say of published files of weights, and where they take a model's weights from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matchrt.cli.options import store_at

if TYPE_CHECKING:
    from matchrt.downloads.folder import WeightsFolder
    from matchrt.families.definition import ModelSpec
    from matchrt.families.published import Licence, PublishedFile


def weights_folder(store: Path | None, output: Path | None = None) -> WeightsFolder:
    """The folder `output`, or else the folder of weights in the store that `--store` names."""
    from matchrt.downloads.folder import WeightsFolder

    return WeightsFolder(store_at(store).weights if output is None else output)


def weights_of(model: str, given: Path | None, store: Path | None) -> Path:
    """The checkpoint that was named, or else the model's bundled or downloaded one.

    given: a file, or where there is none of that name, the name of a model whose bundled or downloaded weights are
        meant; None for those of `model`.
    Errors: checkpoint-needed, model-unknown.
    """
    from matchrt.downloads.find import checkpoint_of
    from matchrt.families.registry import get_spec, model_specs

    if given is not None:
        if os.path.lexists(given) or str(given) not in model_specs():
            return given
        model = str(given)
    return checkpoint_of(get_spec(model), weights_folder(store))


def second_of(model: str, given: Path | None, store: Path | None) -> Path | None:
    """The second file that was named, or else the downloaded one; None if there is none. Error: model-unknown."""
    if given is not None:
        return given
    from matchrt.downloads.find import second_downloaded
    from matchrt.families.registry import get_spec

    return second_downloaded(get_spec(model), weights_folder(store))


def downloaded_of(model: str, store: Path | None) -> Path | None:
    """The model's downloaded checkpoint; None if there is none. Error: model-unknown."""
    from matchrt.downloads.find import downloaded
    from matchrt.families.registry import get_spec

    return downloaded(get_spec(model).published, weights_folder(store))


def parts_of(spec: ModelSpec) -> list[tuple[str, tuple[PublishedFile, ...]]]:
    """The files that a model needs: of each, the option that names it, and what it can be, the preferred one first."""
    from matchrt.families.registry import family_of

    second = family_of(spec.family.name).second_file
    parts = [("--checkpoint", spec.published)]
    if second is not None:
        parts.append((second.option, second.published))
    return [part for part in parts if part[1]]


def permitted_parts(spec: ModelSpec) -> list[tuple[str, tuple[PublishedFile, ...]]] | None:
    """`parts_of`, with only those files whose statements permit commercial use; None if a part has no such file.

    Bundled weights have the licence of matchrt, and no parts.
    """
    if spec.weights is not None:
        return []
    parts = [(option, tuple(f for f in files if f.licence.commercial)) for option, files in parts_of(spec)]
    return parts if parts and all(files for _, files in parts) else None


def licence_json(licence: Licence) -> dict[str, str | bool]:
    """A licence as JSON values."""
    return {
        "name": licence.name,
        "date": licence.date,
        "dated": licence.dated,
        "note": licence.note,
        "commercial": licence.commercial,
    }


def file_json(file: PublishedFile, folder: WeightsFolder) -> dict[str, Any]:
    """A published file as JSON values. Its digest is the published one, or else the one that was recorded here."""
    record, here = folder.record(file), folder.holds(file)
    return {
        "name": file.name,
        "title": file.title,
        "bytes": file.bytes if file.bytes is not None or record is None else record.bytes,
        "about_bytes": file.about_bytes,
        "sha256": folder.expected_sha256(file),
        "sha256_from": "published" if file.sha256 else "recorded" if record else None,
        "md5": file.md5,
        "licence": licence_json(file.licence),
        "page": file.page,
        "addresses": [
            {"url": a.url, "by": a.by, "member": None if a.archive is None else a.archive.member}
            for a in file.addresses
        ],
        "state": "downloaded" if here else "not here",
        "path": str(folder.path(file)) if here else None,
    }
