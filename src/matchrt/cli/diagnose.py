"""`matchrt diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from matchrt._util.packages import packages_for
from matchrt.cli.completion import model_names
from matchrt.cli.options import (
    EmaOption,
    JsonOption,
    PrefixOption,
    SecondFileOption,
    StoreOption,
    require_new_output,
)
from matchrt.cli.output import print_json, print_written, stdout, tensor_json
from matchrt.cli.weights import second_of, weights_of
from matchrt.export.weights.files.inert import PutAside, tell_aside

if TYPE_CHECKING:
    from matchrt.export.weights.diagnose import Diagnosis, PartFates

EPILOG = (
    "Example: matchrt diagnose matchanything_roma.ckpt --model matchanything-roma --dinov2 dinov2_vitl14_pretrain.pth"
    "\n\nOne of several networks in a file: matchrt diagnose last.ckpt --model loftr-outdoor --prefix student"
)
_SHOWN = 12


def diagnose(
    model: Annotated[
        str,
        typer.Option(
            help="The model that the weights should fit; `matchrt models` lists them.", autocompletion=model_names
        ),
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="Weights: .ckpt, .pth, .pt or .safetensors; default: the model's bundled or downloaded ones."
        ),
    ] = None,
    second_file: SecondFileOption = None,
    prefix: PrefixOption = None,
    ema: EmaOption = False,
    html: Annotated[
        Path | None, typer.Option(help="Write an HTML report with a bar for each part to this file.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Say what becomes of every tensor of a checkpoint, and what to do. The exit code is 0 if all are explained."""
    with packages_for("Reading checkpoints"):
        from matchrt.export.weights.diagnose import diagnose as run
        from matchrt.export.weights.diagnose_html import to_html
        from matchrt.export.weights.locate import Selection
    from matchrt._util import atomic

    if checkpoint is None:  # then both files are the downloaded ones, unless the second was named
        second_file = second_of(model, second_file, store)
    checkpoint = weights_of(model, checkpoint, store)
    require_new_output(html, [file for file in (checkpoint, second_file) if file is not None])
    if html is not None:
        atomic.require_writable(html)
    found = run(checkpoint, model, second_file, Selection(prefix, ema))
    if html is not None:
        atomic.write_text(html, to_html(found))
    if as_json:
        print_json(_document(found))
    else:
        _print(found, html)
    return 0 if found.explained else 2


def _document(found: Diagnosis) -> dict[str, Any]:
    sides = {
        "network": found.network_parts,
        "checkpoint": found.file_parts,
        "neighbours": found.neighbour_parts,
        "second": found.second_parts,
    }
    return {
        "path": str(found.path),
        "model": found.model,
        "explained": found.explained,
        "state": found.state,
        "verdict": found.verdict,
        "notes": list(found.notes),
        "next": found.next_command,
        "prefix": found.report.prefix,
        "wrapper": found.checkpoint.wrapper,
        "ignored": list(found.checkpoint.ignored),
        "put_aside": [vars(entry) for entry in _aside(found)],
        "tensors_sha256": found.checkpoint.tensors_sha256,
        "second_sha256": None if found.second is None else found.second.tensors_sha256,
        "fits": list(found.fits),
        "closest": found.closest,
        "counts": found.report.counts(),
        "parts": {
            side: [
                {"part": p.name, "tensors": p.total, "explained": p.explained, "fates": dict(p.fates)} for p in parts
            ]
            for side, parts in sides.items()
        },
        "near_misses": [vars(miss) for miss in found.near_misses],
        "conflicts": [tensor_json(e) for e in found.conflicts],
        "repeated": [list(keys) for keys in found.repeated],
        "tied": [list(keys) for keys in found.tied],
        "tensors": {
            "checkpoint": [tensor_json(e) for e in found.report.file],
            "second": [tensor_json(e) for e in found.report.supplement],
            "network": [tensor_json(e) for e in found.report.network],
        },
    }


def _aside(found: Diagnosis) -> list[PutAside]:
    """What was put aside of the checkpoint and the second file."""
    return [*found.checkpoint.put_aside, *(found.second.put_aside if found.second is not None else ())]


def _print(found: Diagnosis, html: Path | None) -> None:
    console = stdout()
    checkpoint = found.checkpoint
    wrapper = f"wrapper {checkpoint.wrapper}" if checkpoint.wrapper else "no wrapper"
    console.print(
        f"{checkpoint.path}: {len(checkpoint.tensors)} tensors, {checkpoint.format}, {wrapper}, prefix "
        f"'{found.report.prefix}', as {found.model}"
    )
    if checkpoint.ignored:
        console.print(Text(f"not tensors: {', '.join(checkpoint.ignored)}"))
    if aside := _aside(found):
        console.print(Text(f"put aside: {tell_aside(aside)}"))
    for title, parts in (
        ("network", found.network_parts),
        ("checkpoint", found.file_parts),
        ("file beside the network", found.neighbour_parts),
        ("second file", found.second_parts),
    ):
        if parts:
            console.print(_table(title, parts))
    _list(
        "near-misses (similar names, which are never loaded)",
        [f"{m.file} -> {m.network}: {m.rule}" for m in found.near_misses],
    )
    _list("conflicts", [f"{e.fate}: {e.key} {list(e.shape)} {e.detail}" for e in found.conflicts])
    _list(
        "tensors with the same values",
        [", ".join(keys[:4]) + (" …" if len(keys) > 4 else "") for keys in found.repeated],
    )
    for note in found.notes:
        console.print(Text(f"note: {note}"))
    console.print(Text(found.verdict, style="bold green" if found.explained else "bold red"))
    console.print(Text(f"next: {found.next_command}"))
    print_written(html)


def _table(title: str, parts: tuple[PartFates, ...]) -> Table:
    table = Table("part of the " + title, "tensors", "explained", "fates")
    for part in parts:
        style = None if part.explained == part.total else "red"
        fates = ", ".join(f"{count} {fate}" for fate, count in part.fates.items())
        table.add_row(Text(part.name), str(part.total), str(part.explained), fates, style=style)
    return table


def _list(title: str, lines: list[str]) -> None:
    if not lines:
        return
    stdout().print(Text(title, style="bold"))
    for line in lines[:_SHOWN]:
        stdout().print(Text("  " + line))
    if len(lines) > _SHOWN:
        stdout().print(f"  … and {len(lines) - _SHOWN} more")
