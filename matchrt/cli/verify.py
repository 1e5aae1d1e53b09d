"""`matchrt verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matchrt.errors import MatchRTError

EPILOG = "Example: matchrt verify --twin loftr-lite --images a.jpg b.jpg"


def verify(
    twin: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Compare the model's JAX twin with torch, stage by stage.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights; a bundled model needs none.")] = None,
    images: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A B", help="A real pair; default: a generated one.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Of the network's input; default: the model's.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of the confidence; default: the model's.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where the twin runs: cpu or cuda; torch runs on the CPU.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Prove that two forms of a model give the same; exits with 0 only when they do."""
    if twin is None:
        raise MatchRTError("usage", "There is nothing to verify.", "Name a model: matchrt verify --twin loftr-lite.")
    from matchrt.cli.options import known_device
    from matchrt.cli.verify_twin import verify_twin

    return verify_twin(twin, checkpoint, images, size, threshold, known_device(device) or "cpu", as_json)
