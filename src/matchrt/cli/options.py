"""Options that several commands share: their declarations, and what their values mean.

An option of only one command is declared with that command. This module imports nothing heavy, because every command
imports it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matchrt.cli.completion import backends
from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.runtime.options import MatcherOptions
    from matchrt.runtime.session import Device
    from matchrt.store import EngineStore

StoreOption = Annotated[Path | None, typer.Option(help="Store folder; default: $MATCHRT_STORE or a cache folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

# Which weights.
SecondFileOption = Annotated[
    Path | None,
    typer.Option(
        "--second-file",
        "--dinov2",
        help="File of the weights that the checkpoint lacks (RoMa); default: the one that was downloaded.",
    ),
]

PrefixOption = Annotated[
    str | None,
    typer.Option(help="What precedes the network's keys in the checkpoint, such as student; default: found."),
]
EmaOption = Annotated[
    bool, typer.Option("--ema", help="Take the running average of the weights (EMA, SWA) that the checkpoint holds.")
]

# Where and how an engine runs.
BackendOption = Annotated[
    str | None,
    typer.Option(help="Backend to use if a name has engines for several backends.", autocompletion=backends),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="Device to run on, cpu or cuda; default: that of the engine's backend.")
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Number of CPU threads.")]
NoCudaGraphOption = Annotated[
    bool, typer.Option("--no-cuda-graph", help="For TensorRT: launch kernels one by one, without a CUDA graph.")
]

# Which images, and what the network sees of them.
WindowOption = Annotated[
    int | None, typer.Option(help="With one folder: match each image with the N images that follow it.")
]
ResizeOption = Annotated[
    int | None, typer.Option(help="For dynamic engines: long side in pixels that images are resized to.")
]
MaxMegapixelsOption = Annotated[
    float, typer.Option(min=0.001, max=1e5, help="Refuse images with more megapixels than this.")
]
IgnoreExifOption = Annotated[bool, typer.Option("--ignore-exif", help="Do not turn images as EXIF says.")]


class StretchChoice(str, Enum):
    """How image values become 8 bits; `runtime.options.MatcherOptions.stretch` says what each does."""

    none = "none"
    each = "each"
    same = "same"


StretchOption = Annotated[
    StretchChoice,
    typer.Option(
        help="Stretch image values from their percentiles 1..99 to 0..255: of each image, or the same for both images "
        "of a pair. For 12-bit and thermal images."
    ),
]

# Which matches.
MinScoreOption = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Drop matches with a lower confidence; default: the engine's default score."),
]
SampleOption = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="For RoMa engines built with --dense: draw N matches as RoMa's sampler does."
    ),
]


class Switch(str, Enum):
    """Whether more is tried; `runtime.options.MatcherOptions.rotate` and `zoom` say more."""

    off = "off"
    auto = "auto"


class EffortChoice(str, Enum):
    """How much is tried; `runtime.options.MatcherOptions.effort` says more."""

    normal = "normal"
    high = "high"


ROTATE_HELP = "auto: if a pair gives little, try the second image turned by 90, 180 and 270 degrees."
ZOOM_HELP = "auto: if a pair gives little, try each image at half the size with the other one."
RotateOption = Annotated[Switch | None, typer.Option(help=f"{ROTATE_HELP} Default: only with --effort high.")]
ZoomOption = Annotated[Switch | None, typer.Option(help=f"{ZOOM_HELP} Default: only with --effort high.")]
EffortOption = Annotated[
    EffortChoice,
    typer.Option(
        help="high: if a pair gives little, also try weaker matches, a larger size, and turns and halves (unless these "
        "are off), and keep the best."
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of --sample.")]


def known_device(name: str | None) -> Device | None:
    """The device of that name; None for that of the engine's backend. Error: device-unknown."""
    if name is None:
        return None
    if name == "cpu":
        return "cpu"
    if name == "cuda":
        return "cuda"
    raise MatchRTError("device-unknown", f"There is no device '{name}'.", "Use cpu or cuda.")


def store_at(folder: Path | None) -> EngineStore:
    """The store in the folder that `--store` names; without a name, the default store."""
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
    stretch: StretchChoice = StretchChoice.none,
    threads: int | None,
    device: str | None,
    backend: str | None,
    no_cuda_graph: bool = False,
    rotate: Switch | None = None,
    zoom: Switch | None = None,
    effort: EffortChoice = EffortChoice.normal,
) -> MatcherOptions:
    """The matcher's options from the options of `match` and `match-many`. Error: device-unknown."""
    from matchrt.runtime.options import MatcherOptions

    return MatcherOptions(
        resize=resize,
        min_score=min_score,
        sample=sample,
        seed=seed,
        apply_exif=not ignore_exif,
        max_pixels=int(max_megapixels * 1e6),
        stretch=stretch.value,
        threads=threads,
        device=known_device(device),
        backend=backend,
        cuda_graph=not no_cuda_graph,
        rotate=None if rotate is None else rotate.value,
        zoom=None if zoom is None else zoom.value,
        effort=effort.value,
    )


def require_new_output(output: Path | None, inputs: Iterable[Path]) -> None:
    """Raises `output-is-input` if writing `output` would replace one of the inputs."""
    if output is None:
        return
    for path in inputs:
        if _same_file(path, output):
            raise MatchRTError("output-is-input", f"Writing '{output}' would replace an input.", "Choose another name.")


def _same_file(first: Path, second: Path) -> bool:
    """Whether both paths name one file; False if one of them names none."""
    try:
        return first.samefile(second)
    except (OSError, ValueError):  # there is none, or no file can have such a name
        return False
