"""The options that choose pairs of a folder's images, shared by `pairs` and `match-many`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matchrt.cli.completion import engine_names
from matchrt.cli.options import StretchChoice, matcher_options
from matchrt.cli.output import error_json, progress_of, stderr, stdout
from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.batch.listing import PairSource
    from matchrt.batch.pairing.choose import Chosen, FolderImages
    from matchrt.batch.pairing.describing import Descriptors
    from matchrt.batch.pairing.options import PairingOptions
    from matchrt.batch.places import Places
    from matchrt.runtime.options import MatcherOptions
    from matchrt.store import EngineStore

_SHOWN = 10


class By(str, Enum):
    """How the pairs are chosen; `batch.pairing.options` says what each is."""

    exhaustive = "exhaustive"
    window = "window"
    gps = "gps"
    time = "time"
    retrieval = "retrieval"


LoopOption = Annotated[
    bool, typer.Option("--loop", help="With --window or --by window: the first images follow the last one.")
]
NeighboursOption = Annotated[
    int,
    typer.Option(min=1, metavar="K", help="With --by gps, time or retrieval: pair each image with its K nearest ones."),
]
MaxDistanceOption = Annotated[float, typer.Option(help="With --by gps: metres between two images at most.")]
MaxSecondsOption = Annotated[
    float | None, typer.Option(min=0, help="With --by time: seconds between two images at most; default: any.")
]
MinSimilarityOption = Annotated[
    float,
    typer.Option(min=-1, max=1, help="With --by retrieval: least similarity of a pair, up to 1 for equal images."),
]
RetrievalEngineOption = Annotated[
    str | None,
    typer.Option(
        help="With --by retrieval: engine whose features describe the images; default: the bundled model.",
        autocompletion=engine_names,
    ),
]


def pairing_options(
    by: By,
    window: int | None,
    loop: bool,
    neighbours: int,
    max_distance: float,
    max_seconds: float | None,
    min_similarity: float,
) -> PairingOptions:
    """The options of both commands. Errors: pairs-option; usage, if options of the window are given without it."""
    from matchrt.batch.pairing.options import PairingOptions

    if by is not By.window and (loop or window is not None):
        raise MatchRTError("usage", f"--window or --loop is given with --by {by.value}.", "Leave one of them out.")
    span = PairingOptions.window if window is None else window
    return PairingOptions(by.value, neighbours, span, loop, max_distance, max_seconds, min_similarity)


def reading_options(
    ignore_exif: bool,
    max_megapixels: float,
    threads: int | None,
    device: str | None = None,
    backend: str | None = None,
) -> MatcherOptions:
    """How images are read that are only described. Errors: those of `matcher_options`."""
    return matcher_options(
        resize=None,
        min_score=None,
        sample=None,
        seed=0,
        ignore_exif=ignore_exif,
        max_megapixels=max_megapixels,
        stretch=StretchChoice.none,
        threads=threads,
        device=device,
        backend=backend,
    )


@dataclass(frozen=True)
class Retrieval:
    """What describes images for retrieval.

    engine: engine file, bundled model or model in the store; None for the bundled model.
    kept_in: the file that keeps the descriptors.
    options: of the matcher.
    store: where engines are looked for.
    workers: images described at a time; None for what suits this machine.
    """

    engine: str | None
    kept_in: Path
    options: MatcherOptions
    store: EngineStore
    workers: int | None = None

    def describe(self, images: FolderImages, names: Sequence[str], quiet: bool) -> Descriptors:
        """The descriptors of images of a folder. Errors: those of `batch.pairing.describing`, engine-*."""
        from dataclasses import replace

        from matchrt.batch.pairing.describing import describe_folder, small_images
        from matchrt.batch.pool import pool_size
        from matchrt.runtime.bundled import DEFAULT_MODEL
        from matchrt.runtime.engine_file import read_engine
        from matchrt.runtime.matcher import Matcher

        found = read_engine(self.engine or DEFAULT_MODEL, self.store, self.options.backend)
        size = pool_size(found.manifest, self.options.device, self.workers, self.options.threads)
        options = small_images(found.manifest, replace(self.options, threads=size.threads))
        with Matcher(found, options) as matcher, progress_of("describing", quiet, "images") as tell:
            return describe_folder(matcher, images.folder, names, self.kept_in, size, tell)


def choose(
    folder: Path, options: PairingOptions, output: Path, retrieval: Retrieval, quiet: bool, below: str = ""
) -> Chosen:
    """Chooses the pairs of a folder and writes the list. Errors: those of `batch.pairing.choose`.

    below: what precedes names in the list.
    """
    from matchrt.batch.pairing.choose import images_of, write_chosen

    images = images_of(folder)
    return write_chosen(images, options, output, lambda names: retrieval.describe(images, names, quiet), below)


@dataclass(frozen=True)
class RunPairing:
    """The pairs of a run of `match-many` that are chosen first. Their list is a file beside the output.

    folder: the images.
    root: the folder that names start from; None for `folder`.
    listing: the list of pairs.
    descriptors: the file that keeps descriptors.
    options: how the pairs are chosen.
    """

    folder: Path
    root: Path | None
    listing: Path
    descriptors: Path
    options: PairingOptions

    @classmethod
    def of(cls, folder: Path, root: Path | None, output: Path, options: PairingOptions) -> RunPairing:
        """For an output of `match-many`. Error: pairs-folders if `folder` is a list."""
        if folder.is_file():
            raise MatchRTError(
                "pairs-folders",
                f"'{folder}' is a file, and pairs are chosen in a folder.",
                "Leave --by and --loop out.",
            )
        listing, descriptors = (output.with_name(f"{output.name}.{what}") for what in ("pairs.txt", "descriptors"))
        return cls(folder, root, listing, descriptors, options)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are written."""
        return (self.listing, self.descriptors) if self.options.how == "retrieval" else (self.listing,)

    def require_apart(self, places: Places) -> None:
        """Raises `output-is-input` if an image is a file that the run writes. Errors: those of `images_of`."""
        from matchrt.batch.pairing.choose import images_of

        check = places.image_check(self.folder)
        for name in images_of(self.folder).names:
            check(name)

    def choose(self, retrieval: Retrieval, quiet: bool) -> Chosen:
        """Writes the list. Errors: those of `batch.pairing.choose`."""
        below = "" if self.root is None else f"{self.folder.absolute().as_posix()}/"
        return choose(self.folder, self.options, self.listing, retrieval, quiet, below)

    def source(self) -> PairSource:
        """The pairs of the list."""
        from matchrt.batch.listing import PairSource

        return PairSource(self.listing, self.root or self.folder)


def chosen_json(chosen: Chosen) -> dict[str, object]:
    """As JSON values."""
    from matchrt.batch.names import readable

    return {
        "images": chosen.images,
        "pairs": chosen.pairs,
        "share_of_all_pairs": round(chosen.share, 6),
        "without_pair": [readable(name) for name in chosen.alone],
        "described_now": chosen.described,
        "describing_seconds": round(chosen.seconds, 3),
        "skipped": [vars(item) for item in chosen.skipped],
        "failures": [
            {"image": readable(name), "error": {what: readable(text) for what, text in error_json(error).items()}}
            for name, error in chosen.failed.items()
        ],
    }


def print_chosen(chosen: Chosen) -> None:
    """Prints what was chosen, and what was not."""
    from matchrt.batch.names import one_line

    console, errors = stdout(), stderr()
    console.print(f"{chosen.images} images, {chosen.pairs} pairs chosen ({chosen.share:.1%} of all pairs)")
    if chosen.described is not None:
        console.print(f"{chosen.described} images described in this run, in {chosen.seconds:.1f} s")
    for name, error in list(chosen.failed.items())[:_SHOWN]:
        errors.print(one_line(f"{name}: {error.message} {error.remedy}"), style="red")
    if len(chosen.failed) > _SHOWN:
        errors.print(f"… and {len(chosen.failed) - _SHOWN} more images, in --json", style="red")
    if chosen.alone:
        shown = ", ".join(map(one_line, chosen.alone[:_SHOWN])) + (", …" if len(chosen.alone) > _SHOWN else "")
        console.print(f"{len(chosen.alone)} images are in no pair: {shown}")
    for item in chosen.skipped:
        console.print(f"left out: {item}")
