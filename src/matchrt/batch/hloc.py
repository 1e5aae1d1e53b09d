"""hloc's HDF5 output: merged keypoints of images, and matches of pairs as indices of keypoints.

The dense and the sparse layout are described in `runtime.hloc`. Keypoints are in stored pixels (`merged`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matchrt._util.atomic import atomic_path
from matchrt.batch.format import OutputFormat
from matchrt.batch.journal import Journal
from matchrt.batch.journal_rows import ImageRow
from matchrt.batch.merged import ImageKeypoints, Merged, PairMatches, merged
from matchrt.batch.options import Layout, OutputOptions
from matchrt.batch.seals import seal
from matchrt.errors import MatchRTError
from matchrt.runtime import hloc


class HlocOutput(OutputFormat):
    """Two HDF5 files: keypoints by image in `feats_OUTPUT`, and matches by pair in the output."""

    def files(self, path: Path, options: OutputOptions) -> list[Path]:
        """The file of the keypoints, then that of the matches."""
        return [options.features_of(path), path]

    def check(self, options: OutputOptions) -> None:
        """Checks that the package is installed. Error: package-missing."""
        hloc.require_h5py()

    def refused(self, images: Iterable[ImageRow]) -> Iterator[tuple[int, MatchRTError]]:
        """Images that would have the same name in hloc's groups as one before them, as a/b.jpg and a-b.jpg."""
        seen: set[bytes] = set()
        for image in images:
            flat = seal(hloc.flat_name(image.name))  # 8 bytes, because there may be millions of names
            if flat in seen:
                yield (
                    image.id,
                    MatchRTError(
                        "matches-name",
                        f"'{image.name}' and another image have the same name in hloc's files, where '/' becomes '-'.",
                        "Rename one, or write a .db or .parquet file.",
                    ),
                )
            seen.add(flat)

    def write(self, journal: Journal, path: Path, root: Path, options: OutputOptions) -> None:
        """Writes both files atomically, the matches last. Errors: package-missing, output-unwritable."""
        with merged(journal, options.merge) as found, _hdf5_errors(path):
            _write(found, path, options.features_of(path), options.layout)

    def content(self, path: Path) -> Iterator[bytes]:
        """The path, type, shape and bytes of every dataset and the attributes of every group, in the order of paths."""
        h5py = hloc.require_h5py()
        with h5py.File(path, "r") as file:
            yield from _datasets(h5py, file)


def _write(found: Merged, output: Path, features: Path, layout: Layout) -> None:
    h5py = hloc.require_h5py()
    with atomic_path(output, f".{output.name}.part") as part:
        with atomic_path(features, f".{features.name}.part") as features_part, h5py.File(features_part, "w") as file:
            for image in found.images():
                hloc.write_group(file, image.name, _image(image, layout))
        with h5py.File(part, "w") as file:
            for pair in found.pairs():
                group = hloc.write_group(file, hloc.pair_group(pair.pair.first, pair.pair.second), _pair(pair, layout))
                if (judged := pair.judged) is not None:
                    hloc.write_verdict(group, judged.verdict, judged.probability, judged.log10_nfa, judged.turned1)


@contextmanager
def _hdf5_errors(output: Path) -> Iterator[None]:
    """Turns what HDF5 raises on a full or failing disk, also while files are closed, into `output-unwritable`."""
    try:
        yield
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise MatchRTError(
            "output-unwritable",
            f"Cannot write '{output}' or its keypoints: {detail}.",
            "Choose a place with room that you may write to.",
        ) from error


def _image(image: ImageKeypoints, layout: Layout) -> hloc.Datasets:
    points, scores = image.keypoints.points, image.keypoints.scores
    if layout == "dense":
        return hloc.dense_keypoints(points, scores)
    return hloc.sparse_keypoints(points, scores, image.height, image.width)


def _pair(pair: PairMatches, layout: Layout) -> hloc.Datasets:
    if layout == "sparse":
        return hloc.indexed_matches(pair.matches, pair.scores, pair.counts[0])
    raw = hloc.raw_matches(pair.keypoints0, pair.keypoints1, pair.raw_scores)
    return {**raw, **hloc.indexed_matches(pair.matches, pair.scores, None)}


def _datasets(h5py: Any, group: Any) -> Iterator[bytes]:
    for name in sorted(group):
        entry = group[name]
        if isinstance(entry, h5py.Group):
            yield from (f"{entry.name} {key} {entry.attrs[key]}".encode() for key in sorted(entry.attrs))
            yield from _datasets(h5py, entry)
            continue
        values = entry[()]
        yield f"{entry.name} {values.dtype.str} {values.shape}".encode()
        yield values.tobytes()
