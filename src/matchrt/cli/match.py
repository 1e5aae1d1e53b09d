"""`matchrt match`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from matchrt._util.reading import read_regular
from matchrt._util.strict_json import read_json
from matchrt._util.text import counted
from matchrt.cli.completion import backends, engine_names
from matchrt.cli.match_pairs import check_hdf5, match_many, require_other_folder
from matchrt.cli.options import (
    ROTATE_HELP,
    ZOOM_HELP,
    DeviceOption,
    EffortChoice,
    EffortOption,
    IgnoreExifOption,
    JsonOption,
    MaxMegapixelsOption,
    MinScoreOption,
    NoCudaGraphOption,
    ResizeOption,
    SampleOption,
    SeedOption,
    StoreOption,
    StretchChoice,
    StretchOption,
    Switch,
    ThreadsOption,
    WindowOption,
    matcher_options,
    require_new_output,
    store_at,
)
from matchrt.cli.output import VERDICT_STYLES, print_json, print_written, stderr, stdout
from matchrt.errors import MatchRTError
from matchrt.runtime.backend import building_backends
from matchrt.runtime.bundled import DEFAULT_MODEL

if TYPE_CHECKING:
    from matchrt.runtime.matcher import Matcher
    from matchrt.runtime.matches import Matches

_MOST_INTRINSICS = 1 << 20
EPILOG = """Example: matchrt match a.jpg b.jpg --draw matches.png --save matches.npz

Of a hard pair: matchrt match a.jpg b.jpg --effort high"""


class Verify(str, Enum):
    """The two-view geometry that matches are checked against."""

    homography = "homography"
    fundamental = "fundamental"
    essential = "essential"
    none = "none"


@dataclass(frozen=True)
class Geometry:
    """How matches are verified, as the options say.

    kind: the two-view geometry, or none.
    threshold: inlier threshold in pixels; None for the default.
    intrinsics: K0 and K1, [3, 3] each, in pixels; None for each that is not given.
    """

    kind: Verify
    threshold: float | None
    intrinsics: tuple[Any, Any]

    def require(self) -> None:
        """Checks threshold and intrinsics before anything is matched. Errors: geometry-input, intrinsics-*."""
        import numpy as np

        from matchrt.runtime.geometry import estimate

        if self.kind is not Verify.none:
            first, second = self.intrinsics
            nothing = np.zeros((0, 2), np.float32)
            estimate(nothing, nothing, self.kind.value, threshold=self.threshold, K0=first, K1=second)

    def check(self, matches: Matches) -> Matches:
        """The matches with their geometry and verdict. The time that it took is added to the timings, in milliseconds.

        Errors: those of `Matches.verify`.
        """
        start = time.perf_counter()
        first, second = self.intrinsics
        verified = matches
        if self.kind is not Verify.none:
            # Matches of a matcher that tries more are judged already.
            unjudged = matches.judgement is None
            verified = matches.verify(self.kind.value, threshold=self.threshold, K0=first, K1=second, judged=unjudged)
        elif matches.judgement is None:
            verified = matches.judge()
        return replace(verified, timings={**matches.timings, "verify": (time.perf_counter() - start) * 1e3})


def match(
    image0: Annotated[Path, typer.Argument(help="Image, folder of images, or text file with two paths in each line.")],
    image1: Annotated[
        Path | None, typer.Argument(help="Image, or folder with the same file names as the first folder.")
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="Engine file, bundled model or model in the store; file of weights for --backend jax.",
            autocompletion=engine_names,
        ),
    ] = DEFAULT_MODEL,
    draw: Annotated[
        Path | None, typer.Option(help="Draw the matches to this .png or .jpg file; for many pairs, to this folder.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Save the matches to this .npz, .json or .h5 file; for many pairs, to a folder or .h5 file."),
    ] = None,
    verify: Annotated[
        Verify, typer.Option(help="Two-view geometry that decides which matches are inliers.")
    ] = Verify.fundamental,
    threshold: Annotated[float | None, typer.Option(help="Inlier threshold in pixels.")] = None,
    intrinsics: Annotated[
        Path | None,
        typer.Option(help='JSON file {"K0": 3x3, "K1": 3x3} with intrinsics in pixels, for --verify essential.'),
    ] = None,
    min_score: MinScoreOption = None,
    sample: SampleOption = None,
    seed: SeedOption = 0,
    resize: ResizeOption = None,
    rotate: Annotated[Switch | None, typer.Option(help=f"{ROTATE_HELP} Default: auto for dynamic engines.")] = None,
    zoom: Annotated[Switch | None, typer.Option(help=f"{ZOOM_HELP} Default: auto for dynamic engines.")] = None,
    effort: EffortOption = EffortChoice.normal,
    window: WindowOption = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder from which the paths in a list and the names in an .h5 file start.")
    ] = None,
    allow_unpaired: Annotated[
        bool, typer.Option("--allow-unpaired", help="With two folders: skip file names that only one folder has.")
    ] = False,
    max_megapixels: MaxMegapixelsOption = 50.0,
    ignore_exif: IgnoreExifOption = False,
    stretch: StretchOption = StretchChoice.none,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help=f"Backend to use if a name has engines for several: {', '.join(building_backends())}; "
            "jax runs the Flax model.",
            autocompletion=backends,
        ),
    ] = None,
    no_cuda_graph: NoCudaGraphOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Match two images, or many pairs. Keypoints are in pixels of the given images, turned as EXIF says."""
    from matchrt.runtime.matcher import Matcher
    from matchrt.runtime.pairs import read_pairs, skipped_in

    geometry = Geometry(verify, threshold, read_intrinsics(intrinsics, verify))
    geometry.require()
    single = image1 is not None and not image0.is_dir() and not image1.is_dir()
    if window is not None and (image1 is not None or not image0.is_dir()):
        raise MatchRTError(
            "pairs-window", "--window is for the images of one folder.", "Leave --window out, or name one folder."
        )
    check_outputs(draw, save, single)
    pairs = (
        [(image0, image1)]
        if single and image1
        else read_pairs(image0, image1, root=root, window=window, allow_unpaired=allow_unpaired)
    )
    for output in (draw, save):
        require_new_output(output, [image0, *(path for pair in pairs for path in pair)])
    if not single:
        require_other_folder(draw, pairs)
        check_hdf5(save, pairs, root)
    options = matcher_options(
        resize=resize,
        min_score=min_score,
        sample=sample,
        seed=seed,
        ignore_exif=ignore_exif,
        max_megapixels=max_megapixels,
        stretch=stretch,
        threads=threads,
        device=device,
        backend=backend,
        rotate=rotate,
        zoom=zoom,
        effort=effort,
        no_cuda_graph=no_cuda_graph,
    )
    with Matcher(engine, options, store_at(store)) as opened:
        matcher = _trying_what_is_cheap(opened, rotate is None, zoom is None)
        if not single:
            skipped = skipped_in(image0, image1, root)
            return match_many(matcher, pairs, geometry.check, draw, save, root, skipped, as_json)
        _match_one(matcher, pairs[0], geometry, draw, save, root, as_json)
        return 0


def _trying_what_is_cheap(matcher: Matcher, turns: bool, zooms: bool) -> Matcher:
    """The matcher, which also turns and halves images if its engine is dynamic: that is cheap at a small size.

    An engine of one size takes as long for each try as for the pair, which can be minutes. turns, zooms: whether these
    are left to us.
    """
    from matchrt.runtime.matcher import Matcher

    if matcher.manifest.input.profile is None or not (turns or zooms):
        return matcher
    options = matcher.options
    chosen = replace(options, rotate="auto" if turns else options.rotate, zoom="auto" if zooms else options.zoom)
    return Matcher(matcher.session, chosen)


def check_outputs(draw: Path | None, save: Path | None, single: bool) -> None:
    """Checks before any work that all outputs can be written. Errors: output-format, output-unwritable."""
    from matchrt._util.atomic import require_writable
    from matchrt.runtime import formats, hloc
    from matchrt.runtime.draw import PICTURE_SUFFIXES

    wanted: tuple[tuple[Path | None, tuple[str, ...], str], ...] = (
        (draw, tuple(PICTURE_SUFFIXES) if single else ("",), "--draw"),
        (save, tuple(formats.FORMATS) if single else ("", *hloc.SUFFIXES), "--save"),
    )
    for path, suffixes, option in wanted:
        if path is None or (not single and path.is_dir()):
            continue
        if path.suffix.lower() not in suffixes:
            kinds = ", ".join(suffix or "a folder" for suffix in suffixes)
            raise MatchRTError("output-format", f"{option} '{path}' has no known suffix.", f"Use {kinds}.")
        if not single and not path.suffix and path.exists():
            raise MatchRTError("output-unwritable", f"{option} '{path}' is not a folder.", "Name another folder.")
        require_writable(path)


def read_intrinsics(path: Path | None, verify: Verify) -> tuple[Any, Any]:
    """K0 and K1, [3, 3] lists in pixels, from a JSON file; None for both without a file.

    Errors: intrinsics-missing, if --verify essential has no file; intrinsics-format.
    """
    example = 'Give --intrinsics a JSON file with {"K0": [[fx,0,cx],[0,fy,cy],[0,0,1]], "K1": …}.'
    if path is None:
        if verify is Verify.essential:
            raise MatchRTError(
                "intrinsics-missing", "--verify essential needs the intrinsics of both cameras.", example
            )
        return None, None
    try:
        raw = read_json(read_regular(path, _MOST_INTRINSICS))
        return raw["K0"], raw["K1"]
    except OSError as error:
        raise MatchRTError("intrinsics-format", f"'{path}' cannot be read: {error.strerror}.", example) from error
    except (ValueError, KeyError, TypeError) as error:
        raise MatchRTError("intrinsics-format", f"'{path}' does not give K0 and K1: {error}.", example) from error


def _match_one(
    matcher: Matcher,
    pair: tuple[Path, Path],
    geometry: Geometry,
    draw: Path | None,
    save: Path | None,
    root: Path | None,
    as_json: bool,
) -> None:
    from matchrt.runtime.advice import advised
    from matchrt.runtime.draw import save_picture
    from matchrt.runtime.formats import save_matches

    start = time.perf_counter()
    images = [matcher.read(path) for path in pair]
    decode = (time.perf_counter() - start) * 1e3
    matches = geometry.check(matcher.match(*images))
    matches = replace(matches, timings={**matches.timings, "decode": decode})
    matches = advised(matches, matcher.manifest, matcher.options, "command")
    if draw is not None:
        save_picture(draw, matches.draw(*images))
    if save is not None:
        save_matches(matches, save, root=root)
    for warning in matches.warnings:
        stderr().print(f"warning: {warning}", style="yellow")
    if as_json:
        print_json(matches.summary())
        return
    console = stdout()
    first, *rest = describe(matches)
    console.print(first, style="bold")
    if matches.judgement is not None:
        console.print(f"verdict: {matches.judgement}", style=VERDICT_STYLES[matches.verdict])
    for line in rest:
        console.print(line)
    print_written(draw, save)


def describe(matches: Matches) -> list[str]:
    """A summary of the matches, in lines of text. Times are in milliseconds."""
    geometry, origin = matches.geometry, matches.provenance
    found = ""
    if geometry is not None:
        inliers = counted(geometry.num_inliers, "inlier") if geometry.found else "no geometry found"
        found = f", {inliers} ({geometry.kind}, {geometry.threshold_px:g} px)"
    sizes = " and ".join(f"{h}x{w}" for h, w in (origin.network_size0, origin.network_size1))
    stages = " · ".join(f"{stage.replace('_', ' ')} {ms:.1f}" for stage, ms in matches.timings.items())
    turned = f", the second turned by {origin.turned1} degrees clockwise" if origin.turned1 else ""
    return [
        f"{counted(len(matches), 'match', 'matches')}{found}",
        f"{origin.model} on {origin.backend}, {origin.precision}, images at {sizes}{turned}",
        f"milliseconds: {stages}",
        *matches.advice,
    ]
