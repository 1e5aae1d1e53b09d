"""`matchrt inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from matchrt._util.packages import packages_for
from matchrt.cli.inspect_engine import inspect_engine
from matchrt.cli.inspect_onnx import print_onnx
from matchrt.cli.options import JsonOption
from matchrt.cli.output import facts, print_json, stdout
from matchrt.errors import MatchRTError
from matchrt.export.weights.files.inert import PutAside, tell_aside

EPILOG = "Example: matchrt inspect outdoor_ds.ckpt\n\nLayers of a TensorRT engine: matchrt inspect lite.engine --layers"


def inspect(
    file: Annotated[Path, typer.Argument(help="Checkpoint, ONNX file, or engine.")],
    layers: Annotated[
        bool,
        typer.Option(
            "--layers", help="Show an engine's layers, their precision and the memory (TensorRT needs a GPU)."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Show what a file is: models that it fits, tensors by part, digest, size. Exit code 2: layers cannot be shown."""
    if not file.is_file():
        raise MatchRTError(
            "inspect-missing", f"'{file}' is not a file.", "Name a checkpoint, an ONNX file or an engine."
        )
    if _is_engine(file):
        return inspect_engine(file, layers, as_json)
    if layers and file.suffix.lower() != ".onnx":
        raise MatchRTError("engine-layers", f"'{file}' is not an engine.", "Leave --layers out.")
    found = _describe(file)
    if as_json:
        print_json(found)
    elif found["kind"] == "onnx":
        print_onnx(found, layers)
    else:
        _print_checkpoint(found)
    return 0


def _is_engine(file: Path) -> bool:
    """Whether the .json beside the file is a manifest, and not another .json that lies there by chance."""
    from matchrt.manifest import manifest_path

    try:
        manifest = manifest_path(file)
        return manifest.is_file() and '"engine_sha256"' in manifest.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _describe(file: Path) -> dict[str, Any]:
    # An ONNX file begins with the field of its IR version. A safetensors file begins with a length, which may be the
    # same byte, but there a brace follows.
    with file.open("rb") as stream:
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
