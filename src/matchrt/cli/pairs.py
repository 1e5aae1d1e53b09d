"""`matchrt pairs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matchrt.cli.options import (
    BackendOption,
    DeviceOption,
    IgnoreExifOption,
    JsonOption,
    MaxMegapixelsOption,
    StoreOption,
    WindowOption,
    store_at,
)
from matchrt.cli.output import print_json, print_written
from matchrt.cli.pairing import (
    By,
    LoopOption,
    MaxDistanceOption,
    MaxSecondsOption,
    MinSimilarityOption,
    NeighboursOption,
    Retrieval,
    RetrievalEngineOption,
    choose,
    chosen_json,
    pairing_options,
    print_chosen,
    reading_options,
)

EPILOG = "Example: matchrt pairs images --by retrieval --neighbours 20 --output pairs.txt"


def pairs(
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    output: Annotated[Path, typer.Option(help="List to write: two names in each line, as match-many reads it.")],
    by: Annotated[By, typer.Option(help="How the pairs are chosen.")] = By.retrieval,
    window: WindowOption = None,
    loop: LoopOption = False,
    neighbours: NeighboursOption = 20,
    max_distance: MaxDistanceOption = 100.0,
    max_seconds: MaxSecondsOption = None,
    min_similarity: MinSimilarityOption = -1.0,
    engine: RetrievalEngineOption = None,
    descriptors: Annotated[
        Path | None,
        typer.Option(help="With --by retrieval: file that keeps the descriptors; default: OUTPUT.descriptors."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of images described at a time; default: what suits the machine.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each worker.")] = None,
    max_megapixels: MaxMegapixelsOption = 50.0,
    ignore_exif: IgnoreExifOption = False,
    device: DeviceOption = None,
    backend: BackendOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Choose which pairs of a folder's images to match, and write them as a list for match-many.

    If the run is killed, the same command goes on: descriptors of images are kept. Images that cannot be read do not
    stop the others, and the exit code is 2 then.
    """
    from matchrt._util.atomic import require_writable
    from matchrt.batch.pairing.choose import images_of
    from matchrt.batch.places import Places

    options = pairing_options(by, window, loop, neighbours, max_distance, max_seconds, min_similarity)
    kept_in = descriptors or output.with_name(f"{output.name}.descriptors")
    require_writable(output)
    check = Places(kept_in, [output]).image_check(images)
    for name in images_of(images).names:
        check(name)
    matching = reading_options(ignore_exif, max_megapixels, threads, device, backend)
    retrieval = Retrieval(engine, kept_in, matching, store_at(store), workers)
    chosen = choose(images, options, output, retrieval, as_json)
    if as_json:
        print_json({**chosen_json(chosen), "outputs": [str(output)]})
    else:
        print_chosen(chosen)
        print_written(output)
    return 2 if chosen.failed else 0
