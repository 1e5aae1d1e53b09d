"""`matchrt download`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from matchrt.cli.completion import model_names
from matchrt.cli.options import JsonOption, StoreOption
from matchrt.cli.output import bytes_progress, megabytes, print_json, print_lines, stderr, stdout
from matchrt.cli.weights import licence_json, parts_of, weights_folder
from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.downloads.download import Downloaded
    from matchrt.downloads.folder import WeightsFolder
    from matchrt.families.definition import ModelSpec
    from matchrt.families.published import PublishedFile

EPILOG = (
    "Example: matchrt download loftr-outdoor\n\n"
    "A model in two files, without questions: matchrt download roma-outdoor --accept-licence\n\n"
    "From a mirror that has the files under their names: matchrt download eloftr --from https://mirror.example/weights/"
)


def download(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Name of a model (`matchrt models` lists them).", autocompletion=model_names
        ),
    ],
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the licence of each file, and remember that.")
    ] = False,
    file: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Take this one of the files that hold the weights; default: the first."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the files; default: the store's `weights`.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="URL", help="Other address of the checkpoint, or, with a `/` at its end, of a folder."
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download a model's published weights into the store: resumed, verified, and under a licence that you accept.

    A file that is there already is verified, and not downloaded again.
    """
    from matchrt.downloads.download import addresses_at, require_address
    from matchrt.downloads.download import download as run
    from matchrt.families.registry import get_spec

    spec = get_spec(model)
    if _bundled(spec, as_json):
        return
    chosen = _chosen(spec, file)
    folder = weights_folder(store, output)
    remembered = weights_folder(store)
    files = [found for _, found in chosen]
    addresses = {} if source is None else addresses_at(source, files)
    for found in files:
        require_address(found, addresses.get(found.name, found.addresses), folder)
    _require_licences(files, remembered, accept_licence, as_json)
    again = shlex.join(["matchrt", "download", model, *_repeated(file, output, store)])
    results = []
    for found in files:
        with bytes_progress(found.name, quiet=as_json) as tell:
            try:
                results.append(run(found, folder, addresses=addresses.get(found.name), again=again, tell=tell))
            except KeyboardInterrupt:
                stderr().print(f"What has come of {found.name} is kept; the same command goes on from there.")
                raise
    _show(spec, chosen, results, as_json)


def _bundled(spec: ModelSpec, as_json: bool) -> bool:
    """Whether the model's weights are in the package; then that is printed."""
    if spec.weights is None:
        return False
    command = f"matchrt build {spec.name}"
    if as_json:
        print_json({"model": spec.name, "bundled": True, "files": [], "next": command})
    else:
        stdout().print(f"The weights of {spec.name} are in the package; there is nothing to download.")
        stdout().print(f"next: {command}")
    return True


def _chosen(spec: ModelSpec, name: str | None) -> list[tuple[str, PublishedFile]]:
    """The files to get, each with the option that `build` takes it by. Errors: download-unknown, download-file."""
    parts = parts_of(spec)
    if not parts or parts[0][0] != "--checkpoint":
        raise MatchRTError(
            "download-unknown",
            f"matchrt knows no address of the weights of {spec.name}.",
            f"Get {spec.origin}, then pass --checkpoint FILE.",
        )
    known = [file.name for _, files in parts for file in files]
    if name is not None and name not in known:
        raise MatchRTError("download-file", f"{spec.name} has no file '{name}'.", f"Its files are: {', '.join(known)}.")
    return [(option, next((f for f in files if f.name == name), files[0])) for option, files in parts]


def _repeated(file: str | None, output: Path | None, store: Path | None) -> list[str]:
    """The options that decide where the command looks for a file."""
    given = (("--file", file), ("--output", output), ("--store", store))
    return [text for name, value in given if value is not None for text in (name, str(value))]


def _require_licences(files: list[PublishedFile], folder: WeightsFolder, accepted: bool, as_json: bool) -> None:
    """Shows the licences that were not accepted before, and asks, on a terminal. Error: licence-not-accepted."""
    new = [file for file in files if not folder.accepted(file)]
    if not as_json:
        for file in new:
            _show_licence(file)
    if not new:
        return
    names = ", ".join(file.name for file in new)
    if not accepted and not (not as_json and sys.stdin.isatty() and typer.confirm(f"Accept for {names}?", err=True)):
        stated = " ".join(f"{file.name}: {file.licence}. {file.licence.note}" for file in new)
        raise MatchRTError(
            "licence-not-accepted",
            f"No licence was accepted for {names}. {stated}",
            "Read it, and add --accept-licence if you accept it; it is then remembered for each file and date.",
        )
    for file in new:
        folder.accept(file)


def _show_licence(file: PublishedFile) -> None:
    console = stderr()
    console.print(f"{file.name}: {file.title}", style="bold")
    print_lines(console, f"  licence   {file.licence}\n  {file.licence.note}\n  page      {file.page}")


def _show(spec: ModelSpec, chosen: list[tuple[str, PublishedFile]], results: list[Downloaded], as_json: bool) -> None:
    named = [text for (option, _), found in zip(chosen, results, strict=True) for text in (option, str(found.path))]
    command = shlex.join(["matchrt", "build", spec.name, *named])
    if as_json:
        files = [_document(found) for found in results]
        print_json({"model": spec.name, "bundled": False, "files": files, "next": command})
        return
    states = {"there": "was there already", "put-there": "was put there, and is recorded", "downloaded": "downloaded"}
    console = stdout()
    for found in results:
        pinned = "as published" if found.file.sha256 else "not published: recorded, and compared from now on"
        console.print(str(found.path), style="bold")
        console.print(f"  state     {states[found.state]}, verified")
        console.print(f"  size      {megabytes(found.bytes)}")
        console.print(f"  sha256    {found.sha256} ({pinned})")
        console.print(f"  licence   {found.file.licence}")
    console.print(f"next: {command}")


def _document(found: Downloaded) -> dict[str, Any]:
    return {
        "name": found.file.name,
        "path": str(found.path),
        "bytes": found.bytes,
        "sha256": found.sha256,
        "sha256_from": "published" if found.file.sha256 else "recorded",
        "state": found.state,
        "address": found.address or None,
        "licence": licence_json(found.file.licence),
    }
