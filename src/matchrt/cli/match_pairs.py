"""`matchrt match` of many pairs. A bad pair does not stop the others, and every pair has its own output file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matchrt._util.digest import sha256_bytes
from matchrt._util.text import counted
from matchrt.cli.output import counter, error_json, print_json, stderr, stdout, verdict_counts
from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.runtime.matcher import Matcher
    from matchrt.runtime.matches import Matches
    from matchrt.runtime.pairs import Skipped

Pair = tuple[Path, Path]
# An .h5 file is copied for every write, so that an interruption damages nothing and loses at most this many pairs.
_HDF5_BATCH = 256
_LONGEST_NAME = 200


def match_many(
    matcher: Matcher,
    pairs: list[Pair],
    check: Callable[[Matches], Matches],
    draw: Path | None,
    save: Path | None,
    root: Path | None,
    skipped: list[Skipped],
    as_json: bool,
) -> int:
    """Matches all pairs and writes and prints the results. Returns the exit code: 2 if a pair failed, else 0.

    check: verifies the geometry. draw: folder for pictures. save: folder or .h5 file for matches. root: folder that
    names in an .h5 file start from. skipped: what the folders or the list hold beside the pairs. Errors that end the
    run: output-unwritable, matches-name.
    """
    from matchrt.runtime.advice import advised

    def advise(matches: Matches) -> Matches:
        return advised(matches, matcher.manifest, matcher.options, "command")

    rows: list[dict[str, Any]] = []
    # Each image is warned of once, however many pairs it stands in.
    warn = lru_cache(None)(lambda text: stderr().print(f"warning: {text}", style="yellow"))
    with counter(len(pairs), "matching", quiet=as_json) as advance, _Writer(matcher, draw, save, root) as writer:
        results = matcher.match_many(pairs, return_errors=True)
        for name, pair, result in zip(pair_names(pairs), pairs, results, strict=True):
            rows.append({"pair": [str(path) for path in pair], **_row(result, name, pair, check, advise, writer, warn)})
            advance()
    failed = sum("error" in row for row in rows)
    if as_json:
        print_json({"pairs": rows, "failed": failed, "skipped": [vars(item) for item in skipped]})
    else:
        _print(rows, failed)
        for item in skipped:
            stdout().print(f"left out: {item}")
    return 2 if failed else 0


def _row(
    result: Matches | MatchRTError,
    name: str,
    pair: Pair,
    check: Callable[[Matches], Matches],
    advise: Callable[[Matches], Matches],
    writer: _Writer,
    warn: Callable[[str], None],
) -> dict[str, Any]:
    if isinstance(result, MatchRTError):
        return {"error": error_json(result)}
    matches = advise(check(result))
    for warning in matches.warnings:
        warn(warning)
    writer.write(matches, name, pair)
    return matches.summary()


def writes_hdf5(save: Path | None) -> bool:
    """Whether `--save` names an .h5 file. A folder may have the same suffix."""
    from matchrt.runtime import hloc

    return save is not None and save.suffix.lower() in hloc.SUFFIXES and not save.is_dir()


def check_hdf5(save: Path | None, pairs: list[Pair], root: Path | None) -> None:
    """Checks before any work that the pairs can be written to an .h5 file. Errors: those of `hloc.check_pairs`."""
    if save is not None and writes_hdf5(save):
        from matchrt.runtime import hloc

        hloc.check_pairs(save, {path.as_posix() for pair in pairs for path in pair}, root)


def require_other_folder(draw: Path | None, pairs: list[Pair]) -> None:
    """Raises `output-is-input` if pictures would be written into a folder of images.

    They could replace an image, or be matched in the next run.
    """
    if draw is None or not draw.is_dir():
        return
    for path in (path for pair in pairs for path in pair):
        if path.parent.resolve() == draw.resolve():
            raise MatchRTError(
                "output-is-input", f"--draw '{draw}' is a folder of images to match.", "Choose another folder."
            )


class _Writer:
    """Writes pictures and matches as they come. Matches are written to .h5 files in batches."""

    def __init__(self, matcher: Matcher, draw: Path | None, save: Path | None, root: Path | None) -> None:
        self._matcher = matcher
        self._draw, self._save, self._root = draw, save, root
        self._hdf5 = writes_hdf5(save)
        self._waiting: list[Matches] = []

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()

    def write(self, matches: Matches, name: str, pair: Pair) -> None:
        """Writes the matches of a pair. Errors, which end the run: output-unwritable, matches-name."""
        if self._draw is not None:
            self._picture(matches, pair, self._draw / f"{name}.jpg")
        if self._hdf5:
            self._waiting.append(matches)
            if len(self._waiting) >= _HDF5_BATCH:
                self._flush()
        elif self._save is not None:
            matches.save(self._save / f"{name}.npz")

    def _picture(self, matches: Matches, pair: Pair, path: Path) -> None:
        from matchrt.runtime.draw import save_picture

        save_picture(path, matches.draw(*(self._matcher.read(image) for image in pair)))

    def _flush(self) -> None:
        if self._waiting and self._save is not None:
            from matchrt.runtime import hloc

            waiting, self._waiting = self._waiting, []
            hloc.save_pairs(waiting, self._save, root=self._root)


def pair_names(pairs: list[Pair]) -> list[str]:
    """A unique file name for every pair: the images' names if these are unique, else paths from the common folder."""
    for names in _candidates(pairs):
        short = [_shortened(name) for name in names]
        if len(set(short)) == len(short):
            return short
    # The same pair is in the list twice.
    return [f"{name}__{index}" for index, name in enumerate(short)]


def _shortened(name: str) -> str:
    """The name, cut if it is long, with a digest that keeps it unique. File systems take 255 bytes."""
    data = os.fsencode(name)
    if len(data) <= _LONGEST_NAME:
        return name
    return f"{data[:_LONGEST_NAME].decode(errors='ignore')}-{sha256_bytes(data)[:8]}"


def _candidates(pairs: list[Pair]) -> Iterator[list[str]]:
    yield [f"{first.stem}__{second.stem}" for first, second in pairs]
    # Not resolve(): two links to one photograph are two names.
    absolute = [tuple(Path(os.path.abspath(path)) for path in pair) for pair in pairs]  # noqa: PTH100
    common = Path(os.path.commonpath([path.parent for pair in absolute for path in pair]))
    relative = [[path.relative_to(common) for path in pair] for pair in absolute]
    yield ["__".join("-".join(path.with_suffix("").parts) for path in pair) for pair in relative]
    yield ["__".join("-".join(path.parts) for path in pair) for pair in relative]


def _print(rows: list[dict[str, Any]], failed: int) -> None:
    from matchrt.runtime.verdict import shown

    console, errors = stdout(), stderr()
    for row in rows:
        name = " ".join(row["pair"])
        if "error" in row:
            errors.print(f"{name}: {row['error']['message']} {row['error']['remedy']}", style="red")
            continue
        inliers = f", {counted(row['geometry']['inliers'], 'inlier')}" if "geometry" in row else ""
        said = f", {row['verdict']} ({shown(row['probability'])})" if "verdict" in row else ""
        turned, times = row["provenance"]["turned1"], row["timings_ms"]
        turn = f", the second turned by {turned} degrees clockwise" if turned else ""
        spent = times["inference"] + times.get("retry", 0.0)
        console.print(f"{name}: {counted(row['matches'], 'match', 'matches')}{inliers}{said}{turn}, {spent:.0f} ms")
    console.print(f"{counted(len(rows) - failed, 'pair')} matched, {failed} failed")
    said = verdict_counts(Counter(row["verdict"] for row in rows if "verdict" in row))
    if said:
        console.print(said)
    for text in next((row["advice"] for row in rows if row.get("advice")), ()):
        console.print(text)
