"""`matchrt convert-flax`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from matchrt._util.packages import packages_for
from matchrt.cli.options import EmaOption, JsonOption, StoreOption, require_new_output
from matchrt.cli.output import print_json, print_written, stages, stdout, tensor_json
from matchrt.cli.weights import weights_of
from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.export.weights.report import LoadReport

EPILOG = "Example: matchrt convert-flax outdoor_ds.ckpt --output outdoor.npz --part transformer"


def convert_flax(
    output: Annotated[
        Path,
        typer.Option(
            help="File to write: .npz, .safetensors or .orbax (a folder); with --back: .safetensors or .ckpt."
        ),
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="LoFTR weights: .ckpt, .pth, .pt or .safetensors, by default the downloaded ones of --model; with "
            "--back: weights in Flax's layout."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model that the weights are of; default: the first LoFTR model that the shapes fit."),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(help="Prefix of LoFTR's keys in the file; default: found. With --back: prefix to write."),
    ] = None,
    ema: EmaOption = False,
    part: Annotated[str, typer.Option(help="Part to convert: transformer (the coarse one), backbone or all.")] = "all",
    layout: Annotated[
        str,
        typer.Option(help="Names in the file: matchrt, or ifvit for the .npz of IFViT-JAX's guide (the transformer)."),
    ] = "matchrt",
    back: Annotated[bool, typer.Option("--back", help="Convert from Flax's layout to torch's.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List the fate of every tensor.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Convert LoFTR weights to Flax's layout, or back, without loss, and report the fate of every tensor."""
    with packages_for("Converting weights to Flax"):
        from matchrt.flax.conversion import convert_file, restore_file
    if back and ema:
        raise MatchRTError(
            "usage", "--ema is about torch's checkpoints, and --back reads another file.", "Leave it out."
        )
    if back and layout != "matchrt":
        raise MatchRTError("usage", "--layout is about the file to write, and --back writes torch's.", "Leave it out.")
    if checkpoint is None and (back or model is None):
        raise MatchRTError(
            "usage", "There is nothing to convert.", "Name a file, or the --model whose downloaded weights are meant."
        )
    checkpoint = weights_of(model or "", checkpoint, store)
    require_new_output(output, [checkpoint])
    with stages(as_json) as tell:
        tell("converting", 0.1)
        if back:
            restored = restore_file(checkpoint, output, model, prefix=prefix)
            report, model_name, digest = restored.report, restored.report.model, restored.tensors_sha256
        else:
            converted = convert_file(checkpoint, output, model, prefix=prefix, ema=ema, part=part, layout=layout)
            report, model_name, digest = converted.report, converted.spec.name, converted.about.tensors_sha256
    if as_json:
        print_json(_document(report, output, model_name, digest))
        return 0
    console = stdout()
    console.print(f"{checkpoint}, as {model_name}, prefix '{report.prefix}'", style="bold")
    console.print(report.summary())
    for note in report.notes():
        console.print(Text(f"note: {note}"))
    if verbose:
        for entry in report.file:
            console.print(f"  {entry.fate}: {entry.key} {list(entry.shape)} -> {entry.detail}")
    print_written(output)
    return 0


def _document(report: LoadReport, output: Path, model: str, digest: str) -> dict[str, Any]:
    return {
        "output": str(output),
        "model": model,
        "prefix": report.prefix,
        "tensors_sha256": digest,
        "counts": report.counts(),
        "complete": report.complete,
        "notes": list(report.notes()),
        "checkpoint": [tensor_json(entry) for entry in report.file],
        "network": [tensor_json(entry) for entry in report.network],
    }
