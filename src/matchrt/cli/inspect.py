"""`matchrt inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from matchrt._util.packages import packages_for
from matchrt._util.reading import NotRegularError, TooLargeError, is_regular, open_regular, read_regular
from matchrt._util.text import shortened
from matchrt.cli.completion import engine_names
from matchrt.cli.inspect_engine import inspect_engine
from matchrt.cli.inspect_onnx import print_onnx
from matchrt.cli.options import BackendOption, JsonOption, StoreOption, store_at
from matchrt.cli.output import facts, print_json, stdout
from matchrt.errors import MatchRTError
from matchrt.export.weights.files.inert import PutAside, tell_aside

_MOST_MANIFEST = 16 << 20
EPILOG = (
    "Example: matchrt inspect outdoor_ds.ckpt\n\nLayers of a TensorRT engine: matchrt inspect lite.engine --layers\n\n"
    "The JSON Schema of engines' manifests: matchrt inspect --schema"
)


def inspect(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="Checkpoint, ONNX file, or engine; also a bundled model or a model in the store.",
            autocompletion=engine_names,
        ),
    ] = None,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers", help="Show an engine's layers, their precision and the memory (TensorRT needs a GPU)."
        ),
    ] = False,
    schema: Annotated[
        bool,
        typer.Option("--schema", help="Print the JSON Schema (draft 2020-12) of engines' manifests; needs no FILE."),
    ] = False,
    backend: BackendOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show what a file is: models that it fits, tensors by part, digest, size. Exit code 2: layers cannot be shown."""
    if schema:
        return _print_schema(file)
    if file is None:
        raise typer.BadParameter("Name a checkpoint, an ONNX file or an engine.", param_hint="FILE")
    path = _path(file, store, backend)
    if _is_engine(path):
        return inspect_engine(path, layers, as_json, backend)
    if layers and path.suffix.lower() != ".onnx":
        raise MatchRTError("engine-layers", f"'{path}' is not an engine.", "Leave --layers out.")
    found = _describe(path)
    if as_json:
        print_json(found)
    elif found["kind"] == "onnx":
        print_onnx(found, layers)
    else:
        _print_checkpoint(found)
    return 0


def _print_schema(file: str | None) -> int:
    """Prints the schema, which is JSON with or without --json."""
    from matchrt.manifest import manifest_schema

    if file is not None:
        raise typer.BadParameter("--schema takes no FILE.", param_hint="FILE")
    print_json(manifest_schema())
    return 0


def _path(name: str, store: Path | None, backend: str | None) -> Path:
    """The file of that path, or else the engine of that name. Errors: inspect-missing, those of `engine_path`."""
    from matchrt.runtime.engine_file import engine_path

    if is_regular(name):
        return Path(name)
    try:
        return engine_path(name, store_at(store), backend)
    except MatchRTError as error:
        if error.code != "engine-missing" or backend is not None:
            raise
    raise MatchRTError(
        "inspect-missing",
        f"'{shortened(name)}' is not a file, nor a bundled model, nor a model in the store.",
        "Name a checkpoint, an ONNX file or an engine; `matchrt engines` lists the engines in the store.",
    )


def _is_engine(file: Path) -> bool:
    """Whether the .json beside the file is a manifest, and not another .json that lies there by chance.

    What is no regular file, or larger than any manifest, counts as one, so that it is refused and not passed over.
    """
    from matchrt.manifest import manifest_path

    try:
        return b'"engine_sha256"' in read_regular(manifest_path(file), _MOST_MANIFEST)
    except (NotRegularError, TooLargeError):
        return True
    except OSError:
        return False


def _describe(file: Path) -> dict[str, Any]:
    # An ONNX file begins with the field of its IR version. A safetensors file begins with a length, which may be the
    # same byte, but there a brace follows.
    with open_regular(file) as stream:
        head = stream.read(9)
    if file.suffix.lower() == ".onnx" or (head[:1] == b"\x08" and head[8:] != b"{"):
        with packages_for("Inspecting ONNX files"):
            from matchrt.export.inspect_onnx import inspect_onnx
        return inspect_onnx(file)
    from matchrt.export.weights.inspect import inspect_checkpoint

    return inspect_checkpoint(file)


def _print_checkpoint(found: dict[str, Any]) -> None:
    wrapper = found["wrapper"] or "none"
    aside = tell_aside([PutAside(**entry) for entry in found["put_aside"]])
    facts(
        [
            ("checkpoint", found["path"]),
            ("fits", _fits(found)),
            ("account", found["account"] or "none"),
            ("format", f"{found['format']}, wrapper {wrapper}, key prefix '{found['prefix']}'"),
            ("tensors", f"{found['tensors']} with {found['elements']:,} values ({found['dtypes']})"),
            ("not tensors", ", ".join(found["ignored"]) or "nothing"),
            *([("put aside", aside)] if aside else []),
            ("size", f"{found['bytes'] / 1e6:.2f} MB"),
            ("sha256", found["sha256"]),
            ("weights", found["tensors_sha256"]),
        ]
    )
    for note in found["notes"]:
        stdout().print(Text(f"note: {note}"))
    table = Table("part", "tensors", "values")
    for part in found["parts"]:
        table.add_row(part["name"], str(part["tensors"]), f"{part['elements']:,}")
    stdout().print(table)
    if not found["models"]:  # or they are unknown, and so are the problems
        for problem in found["problems"][:10]:
            stdout().print(f"  {problem['fate']}: {problem['key']} {problem['shape']} {problem['detail']}")


def _fits(found: dict[str, Any]) -> str:
    if found["lacks"]:
        return f"unknown: that needs the package '{found['lacks']}' (pip install 'matchrt[export]')"
    models = ", ".join(found["models"]) or f"none completely; closest is {found['closest']}"
    several = " (these have the same tensors; ask the file's publisher which one it is)"
    return models + several * (len(found["models"]) > 1)
