"""`matchrt models` and `matchrt engines`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from matchrt.cli.options import JsonOption, StoreOption, store_at
from matchrt.cli.output import megabytes, print_json, print_lines, stdout
from matchrt.cli.weights import file_json, parts_of, permitted_parts, weights_folder

if TYPE_CHECKING:
    from matchrt.downloads.folder import WeightsFolder
    from matchrt.families.definition import ModelSpec

EPILOG = "Example: matchrt models --commercial"
ENGINES_EPILOG = "Example: matchrt engines --json"
# What `--commercial` answers, and what it does not.
_STATEMENTS = (
    "Statements of licences as of their dates, of the weights and of what they were trained on where that is known. "
    "They are no legal advice: read the licence itself before you rely on it."
)

CommercialOption = Annotated[
    bool,
    typer.Option(
        "--commercial",
        help="Only models all of whose files permit commercial use, as stated; with the statement and its date.",
    ),
]


def models(store: StoreOption = None, as_json: JsonOption = False, commercial: CommercialOption = False) -> None:
    """List the models by network: for whom each is, and its files of weights with digest, licence and address."""
    from matchrt.families.registry import families

    folder = weights_folder(store)
    groups = [
        (family.title, [spec for spec in family.models if not commercial or permitted_parts(spec) is not None])
        for family in families()
    ]
    if as_json:
        print_json([_json(spec, title, folder, commercial) for title, specs in groups for spec in specs])
        return
    for title, specs in groups:
        if specs:
            print_lines(stdout(), title, style="bold")
        for spec in specs:
            _print_model(spec)
    listed = [spec for _, specs in groups for spec in specs]
    known = {file["name"]: file for spec in listed for file in _files(spec, folder, commercial)}
    print_lines(stdout(), "\nFiles of weights", style="bold")
    for file in known.values():
        _print(file, commercial)
    if commercial:
        print_lines(stdout(), f"\n{_STATEMENTS}")


def _json(spec: ModelSpec, title: str, folder: WeightsFolder, commercial: bool) -> dict[str, Any]:
    """What is known of a model, as JSON values."""
    return {
        "name": spec.name,
        "family": spec.family.name,
        "network": title,
        "suits": list(spec.suits),
        "description": spec.description,
        "licence": spec.licence,
        "commercial": permitted_parts(spec) is not None,
        "weights": spec.origin,
        "bundled": spec.weights is not None,
        "files": _files(spec, folder, commercial),
    }


def _print_model(spec: ModelSpec) -> None:
    use = "commercial use stated" if permitted_parts(spec) is not None else "commercial use not stated, or forbidden"
    stdout().print(Text.assemble("  ", (spec.name, "bold"), f"  {spec.description}"))
    stdout().print(f"    for {', '.join(spec.suits) or 'nothing in particular'}; {spec.licence}; {use}")
    stdout().print(f"    {_needs(spec)}")


def _needs(spec: ModelSpec) -> str:
    """The files that the model needs, in words."""
    if spec.weights is not None:
        return spec.weights
    parts = (" or ".join(file.name for file in files) for _, files in parts_of(spec))
    return ", and ".join(parts) or spec.origin


def _files(spec: ModelSpec, folder: WeightsFolder, commercial: bool) -> list[dict[str, Any]]:
    """What is known of each file that the model can take, as JSON values. commercial: see `permitted_parts`."""
    from matchrt._util.digest import sha256_file
    from matchrt.downloads.find import bundled_path

    if (path := bundled_path(spec)) is not None:
        licence = {"name": spec.licence, "date": None, "dated": None, "note": spec.origin, "commercial": True}
        known = {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path), "licence": licence}
        return [{"option": "--checkpoint", **known, "state": "bundled", "path": str(path), "addresses": []}]
    parts = (permitted_parts(spec) or []) if commercial else parts_of(spec)
    return [{"option": option, **file_json(file, folder)} for option, files in parts for file in files]


def _print(file: dict[str, Any], note: bool) -> None:
    """A file in a few lines. note: whether the note on the licence is one of them."""
    licence = file["licence"]
    dated = f" ({licence['dated']} {licence['date']})" if licence["date"] else ""
    lines = [f"  {_size(file)}, {_digest(file)}, {file['state']}", f"  licence: {licence['name']}{dated}"]
    lines += [f"    {licence['note']}"] if note else []
    lines += [f"  {address['url']}" for address in file["addresses"][:1]]
    stdout().print(Text(file["name"], style="bold"))
    for line in lines:
        stdout().print(line)


def _size(file: dict[str, Any]) -> str:
    if file["bytes"] is not None:
        return megabytes(file["bytes"])
    return f"about {file['about_bytes'] / 1e6:.0f} MB" if file["about_bytes"] else "size unknown"


def _digest(file: dict[str, Any]) -> str:
    if file["sha256"] is None:
        return "no digest is published" if file["md5"] is None else f"md5 {file['md5']}, no sha256 is published"
    recorded = file.get("sha256_from") == "recorded"
    return f"sha256 {file['sha256']}" + (" (recorded here, none is published)" if recorded else "")


def engines(
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the engines in the store, newest first."""
    opened = store_at(store)
    found = opened.engines()
    if as_json:
        print_json([{"path": str(engine.path), "manifest": asdict(engine.manifest)} for engine in found])
        return
    console = stdout()
    if not found:
        console.print(f"No engines in {opened.root}. Build one: matchrt build MODEL --checkpoint FILE")
    for engine in found:
        manifest = engine.manifest
        console.print(str(engine.path))
        console.print(
            f"  {manifest.model}, {manifest.precision}, {manifest.backend} {manifest.backend_version}, "
            f"{manifest.engine_bytes / 1e6:.1f} MB"
        )
