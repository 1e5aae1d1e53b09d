"""`matchrt export-triton`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from matchrt.cli.completion import engine_names
from matchrt.cli.options import BackendOption, JsonOption, StoreOption, store_at
from matchrt.cli.output import print_json, print_written, stdout

EPILOG = "Example: matchrt export-triton eloftr-lite models/"


class Kind(str, Enum):
    """Where Triton runs copies of the model."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


def export_triton(
    engine: Annotated[
        str,
        typer.Argument(help="Engine file, bundled model or model in the store.", autocompletion=engine_names),
    ],
    repository: Annotated[Path, typer.Argument(help="Triton's model repository; created if it does not exist.")],
    name: Annotated[str | None, typer.Option(help="Name of the model in Triton; default: the engine's name.")] = None,
    instances: Annotated[int, typer.Option(help="Copies that run side by side on each device.")] = 1,
    kind: Annotated[Kind, typer.Option(help="Where copies run; auto: on GPUs if there are any.")] = Kind.auto,
    queue_delay: Annotated[
        int, typer.Option(help="Microseconds to wait for more pairs, for engines built with --batch.")
    ] = 2000,
    backend: BackendOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model repository from which Triton Inference Server serves an engine."""
    from matchrt.serving.triton import TritonOptions, export_triton

    options = TritonOptions(name=name, instances=instances, kind=kind.value, queue_delay=queue_delay)
    folder = export_triton(engine, repository, options, store_at(store), backend)
    if as_json:
        print_json({"model": folder.name, "folder": str(folder)})
        return
    print_written(folder, style="bold")
    stdout().print(f"  tritonserver --model-repository={repository.resolve()}")
