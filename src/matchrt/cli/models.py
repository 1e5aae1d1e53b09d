"""`matchrt models` and `matchrt engines`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from matchrt.cli.options import JsonOption, StoreOption, store_at
from matchrt.cli.output import megabytes, print_json, print_lines, stdout
from matchrt.cli.weights import file_json, parts_of, weights_folder

if TYPE_CHECKING:
    from matchrt.downloads.folder import WeightsFolder
    from matchrt.families.definition import ModelSpec

EPILOG = "Example: matchrt models"
ENGINES_EPILOG = "Example: matchrt engines --json"


def models(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the models, and their files of weights with size, digest, licence and its date, and address."""
    from matchrt.families.registry import model_specs

    specs, folder = list(model_specs().values()), weights_folder(store)
    if as_json:
        rows = [(s.name, s.family.name, s.description, s.licence, s.origin, s.weights is not None) for s in specs]
        keys = ("name", "family", "description", "licence", "weights", "bundled")
        files = [_files(spec, folder) for spec in specs]
        print_json([dict(zip(keys, row, strict=True)) | {"files": f} for row, f in zip(rows, files, strict=True)])
        return
    for spec in specs:
        stdout().print(Text.assemble((spec.name, "bold"), f"  {spec.description}"))
        stdout().print(f"  {_needs(spec)}")
    known = {file["name"]: file for spec in specs for file in _files(spec, folder)}
    print_lines(stdout(), "\nFiles of weights", style="bold")
    for file in known.values():
        _print(file)


def _needs(spec: ModelSpec) -> str:
    """The files that the model needs, in words."""
    if spec.weights is not None:
        return spec.weights
    parts = (" or ".join(file.name for file in files) for _, files in parts_of(spec))
    return ", and ".join(parts) or spec.origin


def _files(spec: ModelSpec, folder: WeightsFolder) -> list[dict[str, Any]]:
    """What is known of each file that the model can take, as JSON values."""
    from matchrt._util.digest import sha256_file
    from matchrt.downloads.find import bundled_path

    if (path := bundled_path(spec)) is not None:
        licence = {"name": spec.licence, "date": None, "dated": None, "note": spec.origin}
        known = {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path), "licence": licence}
        return [{"option": "--checkpoint", **known, "state": "bundled", "path": str(path), "addresses": []}]
    return [{"option": option, **file_json(file, folder)} for option, files in parts_of(spec) for file in files]


def _print(file: dict[str, Any]) -> None:
    licence = file["licence"]
    dated = f" ({licence['dated']} {licence['date']})" if licence["date"] else ""
    lines = [f"  {_size(file)}, {_digest(file)}, {file['state']}", f"  licence: {licence['name']}{dated}"]
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
