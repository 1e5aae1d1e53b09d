"""Options that several commands have: how they are declared, and what their values mean.

An option of one command alone is declared there. Imports nothing heavy: every command imports this.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.runtime.options import MatcherOptions
    from matchrt.runtime.session import Device
    from matchrt.store import EngineStore

StoreOption = Annotated[Path | None, typer.Option(help="Store folder; default: $MATCHRT_STORE or a cache folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# Where and how an engine runs.
BackendOption = Annotated[str | None, typer.Option(help="Where a name has engines for several backends.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu or cuda; default: where the engine's backend runs.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads.")]
NoCudaGraphOption = Annotated[bool, typer.Option("--no-cuda-graph", help="TensorRT: launch kernels one by one.")]

# Which images, and what the network sees of them.
WindowOption = Annotated[int | None, typer.Option(help="Of one folder: match each image with the N that follow.")]
ResizeOption = Annotated[int | None, typer.Option(help="Long side at which dynamic engines see the images.")]
MaxMegapixelsOption = Annotated[float, typer.Option(min=0.001, max=1e5, help="Refuse larger images.")]
IgnoreExifOption = Annotated[
    bool, typer.Option("--ignore-exif", help="Do not turn images as EXIF says; COLMAP does not either.")
]

# Which matches.
MinScoreOption = Annotated[
    float | None, typer.Option(min=0, max=1, help="Drop matches with a lower confidence; default: the engine's.")
]
SampleOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="RoMa engines built with --dense: draw N matches as RoMa's sampler does."),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Of --sample.")]


def known_device(name: str | None) -> Device | None:
    """`cpu`, `cuda`, or None for where the engine's backend runs. Error: device-unknown."""
    if name is None:
        return None
    if name == "cpu":
        return "cpu"
    if name == "cuda":
        return "cuda"
    raise MatchRTError("device-unknown", f"There is no device '{name}'.", "Use cpu or cuda.")


def store_at(folder: Path | None) -> EngineStore:
    """The store that `--store` names, else the default one."""
    from matchrt.store import open_store

    return open_store(folder)


def matcher_options(
    *,
    resize: int | None,
    min_score: float | None,
    sample: int | None,
    seed: int,
    ignore_exif: bool,
    max_megapixels: float,
    threads: int | None,
    device: str | None,
    backend: str | None,
    no_cuda_graph: bool = False,
) -> MatcherOptions:
    """The matcher's options from those of `match` and `match-many`. Error: device-unknown."""
    from matchrt.runtime.options import MatcherOptions

    return MatcherOptions(
        resize=resize,
        min_score=min_score,
        sample=sample,
        seed=seed,
        apply_exif=not ignore_exif,
        max_pixels=int(max_megapixels * 1e6),
        threads=threads,
        device=known_device(device),
        backend=backend,
        cuda_graph=not no_cuda_graph,
    )


def require_new_output(output: Path | None, inputs: Iterable[Path]) -> None:
    """Raises `output-is-input` where writing `output` would replace a file that is read."""
    if output is None or not output.exists():
        return
    for path in inputs:
        if path.exists() and path.samefile(output):
            raise MatchRTError("output-is-input", f"Writing '{output}' would replace an input.", "Choose another name.")
