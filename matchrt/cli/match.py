"""`matchrt match`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from matchrt.cli.engine_option import known_device, resolve_engine
from matchrt.cli.output import counter, error_json, print_json, stderr, stdout
from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.runtime.matcher import Matcher
    from matchrt.runtime.matches import Matches

EPILOG = "Example: matchrt match a.jpg b.jpg --draw matches.png --save matches.npz"


class Verify(str, Enum):
    """Two-view geometry to check matches against."""

    homography = "homography"
    fundamental = "fundamental"
    essential = "essential"
    none = "none"


@dataclass(frozen=True)
class _Outputs:
    """What to do with the matches of a pair."""

    verify: Verify
    threshold: float | None
    intrinsics: tuple[Any, Any]
    draw: Path | None
    save: Path | None


def match(
    image0: Annotated[Path, typer.Argument(help="Image; or a folder, or a text file with two paths a line.")],
    image1: Annotated[Path | None, typer.Argument(help="Image; or a folder with the same file names.")] = None,
    engine: Annotated[str, typer.Option(help="Engine file, or a bundled model or one in the store.")] = "loftr-lite",
    draw: Annotated[Path | None, typer.Option(help="Picture of the matches (.png, .jpg); a folder for pairs.")] = None,
    save: Annotated[Path | None, typer.Option(help="Matches: .npz, .json or .h5; a folder or .h5 for pairs.")] = None,
    verify: Annotated[Verify, typer.Option(help="Geometry that inliers agree with.")] = Verify.fundamental,
    threshold: Annotated[float | None, typer.Option(help="Inlier threshold in pixels.")] = None,
    intrinsics: Annotated[
        Path | None, typer.Option(help='JSON {"K0": 3x3, "K1": 3x3} in pixels, for --verify essential.')
    ] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Drop matches with a lower confidence.")] = 0.0,
    resize: Annotated[int | None, typer.Option(help="Long side at which the network sees the images.")] = None,
    window: Annotated[int | None, typer.Option(help="Of one folder: match each image with the N that follow.")] = None,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Refuse larger images.")] = 50.0,
    ignore_exif: Annotated[bool, typer.Option("--ignore-exif", help="Do not turn images as EXIF says.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    store: Annotated[Path | None, typer.Option(help="Store folder; default: $MATCHRT_STORE or a cache folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Match two images, or many pairs; keypoints are pixels of the images as given (turned as EXIF says)."""
    from matchrt.runtime.matcher import Matcher, MatcherOptions

    outputs = _Outputs(verify, threshold, read_intrinsics(intrinsics, verify), draw, save)
    pairs, single = _pairs(image0, image1, window)
    _check_outputs(outputs, single)
    options = MatcherOptions(
        resize=resize,
        min_score=min_score,
        apply_exif=not ignore_exif,
        max_pixels=int(max_megapixels * 1e6),
        threads=threads,
        device=known_device(device),
    )
    with Matcher(resolve_engine(engine, store), options) as matcher:
        if single:
            _match_one(matcher, pairs[0], outputs, as_json)
            return 0
        return _match_all(matcher, pairs, outputs, as_json)


def _pairs(image0: Path, image1: Path | None, window: int | None) -> tuple[list[tuple[Path, Path]], bool]:
    from matchrt.runtime.pairs import read_pairs

    if image1 is not None and not image0.is_dir() and not image1.is_dir():
        return [(image0, image1)], True
    return read_pairs(image0, image1, window=window), False


def _check_outputs(outputs: _Outputs, single: bool) -> None:
    """Says before any work what could not be written after it."""
    from matchrt.runtime.draw import PICTURE_SUFFIXES
    from matchrt.runtime.formats import HDF5_SUFFIXES

    wanted = (
        (outputs.draw, PICTURE_SUFFIXES if single else ("",), "--draw"),
        (outputs.save, (".npz", ".json", *HDF5_SUFFIXES) if single else ("", *HDF5_SUFFIXES), "--save"),
    )
    for path, suffixes, option in wanted:
        if path is not None and path.suffix.lower() not in suffixes:
            kinds = ", ".join(suffix or "a folder" for suffix in suffixes)
            raise MatchRTError("output-format", f"{option} '{path}' is of no known kind.", f"Use {kinds}.")


def read_intrinsics(path: Path | None, verify: Verify) -> tuple[Any, Any]:
    """K0, K1 from a JSON file. Errors: intrinsics-missing, intrinsics-format."""
    example = 'Pass --intrinsics FILE with {"K0": [[fx,0,cx],[0,fy,cy],[0,0,1]], "K1": …}.'
    if path is None:
        if verify is Verify.essential:
            raise MatchRTError("intrinsics-missing", "--verify essential needs both cameras' intrinsics.", example)
        return None, None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return raw["K0"], raw["K1"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MatchRTError("intrinsics-format", f"'{path}' does not give K0 and K1: {error}.", example) from error


def _finish(matches: Matches, outputs: _Outputs) -> Matches:
    if outputs.verify is Verify.none:
        return matches
    start = time.perf_counter()
    first, second = outputs.intrinsics
    verified = matches.verify(outputs.verify.value, threshold=outputs.threshold, K0=first, K1=second)
    return replace(verified, timings={**matches.timings, "verify": (time.perf_counter() - start) * 1e3})


def _draw(matches: Matches, pair: tuple[Path, Path], matcher: Matcher, path: Path) -> None:
    from matchrt.runtime.draw import save_picture
    from matchrt.runtime.image import read_image

    options = matcher.options
    first, second = (read_image(p, apply_exif=options.apply_exif, max_pixels=options.max_pixels) for p in pair)
    save_picture(path, matches.draw(first, second))


def _match_one(matcher: Matcher, pair: tuple[Path, Path], outputs: _Outputs, as_json: bool) -> None:
    matches = _finish(matcher.match(*pair), outputs)
    if outputs.draw is not None:
        _draw(matches, pair, matcher, outputs.draw)
    if outputs.save is not None:
        matches.save(outputs.save)
    if as_json:
        print_json(matches.summary())
        return
    console = stdout()
    for line in describe(matches):
        console.print(line)
    for path in (outputs.draw, outputs.save):
        if path is not None:
            console.print(f"wrote {path}")


def describe(matches: Matches) -> list[str]:
    """The summary that people read."""
    geometry, origin = matches.geometry, matches.provenance
    found = ""
    if geometry is not None:
        inliers = f"{geometry.num_inliers} inliers" if geometry.found else "no geometry found"
        found = f", {inliers} ({geometry.kind}, {geometry.threshold_px:g} px)"
    sizes = " and ".join(f"{h}x{w}" for h, w in (origin.network_size0, origin.network_size1))
    stages = " · ".join(f"{stage.replace('_', ' ')} {ms:.1f}" for stage, ms in matches.timings.items())
    return [
        f"[bold]{len(matches)} matches[/bold]{found}",
        f"{origin.model} on {origin.flavor}, {origin.precision}, images at {sizes}",
        f"milliseconds: {stages}",
    ]


def _match_all(matcher: Matcher, pairs: list[tuple[Path, Path]], outputs: _Outputs, as_json: bool) -> int:
    rows: list[dict[str, Any]] = []
    failed = 0
    with counter(len(pairs), "matching", quiet=as_json) as advance:
        for pair, result in zip(pairs, matcher.match_many(pairs, return_errors=True), strict=True):
            row = _guard(lambda r=result, p=pair: _one_of_many(r, p, matcher, outputs))  # type: ignore[misc]
            failed += "error" in row
            rows.append({"pair": [str(path) for path in pair], **row})
            advance()
    if as_json:
        print_json({"pairs": rows, "failed": failed})
    else:
        _print_rows(rows, failed)
    return 2 if failed else 0


def _guard(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except MatchRTError as error:
        return {"error": error_json(error)}


def _one_of_many(
    result: Matches | MatchRTError, pair: tuple[Path, Path], matcher: Matcher, outputs: _Outputs
) -> dict[str, Any]:
    if isinstance(result, MatchRTError):
        raise result
    matches = _finish(result, outputs)
    name = f"{pair[0].stem}__{pair[1].stem}"
    if outputs.draw is not None:
        _draw(matches, pair, matcher, outputs.draw / f"{name}.jpg")
    if outputs.save is not None:
        matches.save(outputs.save if outputs.save.suffix else outputs.save / f"{name}.npz")
    return matches.summary()


def _print_rows(rows: list[dict[str, Any]], failed: int) -> None:
    console, errors = stdout(), stderr()
    for row in rows:
        name = " ".join(row["pair"])
        if "error" in row:
            errors.print(f"[red]{name}: {row['error']['message']}[/red] {row['error']['remedy']}")
            continue
        inliers = f", {row['geometry']['inliers']} inliers" if "geometry" in row else ""
        console.print(f"{name}: {row['matches']} matches{inliers}, {row['timings_ms']['inference']:.0f} ms")
    console.print(f"{len(rows) - failed} pairs matched, {failed} failed")
