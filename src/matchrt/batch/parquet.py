"""The Parquet table of matches, with one row for each pair, for Spark, DuckDB, pandas and others.

| column                   | type                              |                                                    |
| ------------------------ | --------------------------------- | -------------------------------------------------- |
| image0, image1           | string                            | names below the root                               |
| height0, width0, height1,| int32                             | size of the image whose pixels keypoints are in;   |
| width1                   |                                   | null where the pair failed, as all that follow     |
| orientation0,            | int8                              | the EXIF orientation that made upright pixels of   |
| orientation1             |                                   | the file's stored ones; 1 if nothing was turned    |
| pixels                   | string                            | `upright`, or `stored` with --ignore-exif          |
| keypoints0, keypoints1   | list of fixed_size_list<float>[2] | x, y in these pixels, as in `Matches`              |
| scores                   | list of float                     | descending                                         |
| verdict                  | string                            | `match`, `doubtful` or `no match`                  |
| probability, log10_nfa   | float                             | of the verdict, as in `Verdict`                    |
| turned1                  | int16                             | degrees clockwise by which image 1 was turned      |
|                          |                                   | before the network saw it (`--rotate`)             |
| error                    | string                            | the error's code; null where the pair was matched  |
| message                  | string                            | the error's message                                |

Nothing is merged or rounded. `matchrt.runtime.orientation.stored_points(points, orientation, height, width)` makes
stored pixels of upright ones, which COLMAP and hloc see. Bytes of names that are not UTF-8, which only failed pairs
have, are written as \\xNN. The matched pairs come first, then the failed pairs, both in the list's order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from matchrt._util.atomic import atomic_path
from matchrt.batch.format import OutputFormat
from matchrt.batch.journal import Journal
from matchrt.batch.journal_rows import Failure
from matchrt.batch.names import readable
from matchrt.batch.options import OutputOptions
from matchrt.batch.results import ImageFacts, ListedPair, unpack, unpack_judged
from matchrt.errors import missing_package

_ROW_GROUP = 1000
T = TypeVar("T")


def require_pyarrow() -> Any:
    """The module pyarrow. Error: package-missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_package("pyarrow", "parquet", "Writing .parquet files") from error
    return pyarrow


class ParquetOutput(OutputFormat):
    """A Parquet file with one table."""

    def check(self, options: OutputOptions) -> None:
        """Checks that the package is installed. Error: package-missing."""
        require_pyarrow()

    def write(self, journal: Journal, path: Path, root: Path, options: OutputOptions) -> None:
        """Writes the table atomically. Errors: package-missing, output-unwritable."""
        arrow = require_pyarrow()
        schema = _schema(arrow)
        with atomic_path(path, f".{path.name}.part") as part, arrow.parquet.ParquetWriter(part, schema) as writer:
            pixels = "upright" if (journal.plan() or {}).get("apply_exif", True) else "stored"
            for matched in _groups(journal.matches()):
                facts = [[journal.facts_of(name) for name in pair[1:]] for pair, _ in matched]
                writer.write_table(arrow.Table.from_arrays(_matched(arrow, matched, facts, pixels), schema=schema))
            for failed in _groups(journal.failures()):
                writer.write_table(arrow.Table.from_arrays(_failed(arrow, failed, schema), schema=schema))

    def content(self, path: Path) -> Iterator[bytes]:
        """Every row as JSON with sorted keys, in order."""
        arrow = require_pyarrow()
        with arrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    yield json.dumps(row, sort_keys=True).encode()


def _groups(rows: Iterable[T]) -> Iterator[list[T]]:
    source = iter(rows)
    while group := list(islice(source, _ROW_GROUP)):
        yield group


def _schema(arrow: Any) -> Any:
    points, text = arrow.list_(arrow.list_(arrow.float32(), 2)), arrow.string()
    size, orientation = arrow.int32(), arrow.int8()
    columns = {"image0": text, "image1": text}
    for side in (0, 1):
        columns |= {f"height{side}": size, f"width{side}": size, f"orientation{side}": orientation}
    columns |= {"pixels": text, "keypoints0": points, "keypoints1": points}
    columns |= {"scores": arrow.list_(arrow.float32()), "verdict": text}
    columns |= {"probability": arrow.float32(), "log10_nfa": arrow.float32(), "turned1": arrow.int16()}
    columns |= {"error": text, "message": text}
    return arrow.schema(columns)


def _matched(arrow: Any, rows: list[tuple[ListedPair, bytes]], facts: list[list[ImageFacts]], pixels: str) -> list[Any]:
    found = [unpack(data) for _, data in rows]
    ends = np.cumsum([0, *(len(scores) for *_, scores in found)], dtype=np.int32)

    def listed(column: int, width: int) -> Any:
        flat: npt.NDArray[np.float32] = np.concatenate([arrays[column].ravel() for arrays in found])
        values = arrow.array(flat)
        return arrow.ListArray.from_arrays(
            ends, values if width == 1 else arrow.FixedSizeListArray.from_arrays(values, width)
        )

    nothing = arrow.nulls(len(rows), arrow.string())
    names = [arrow.array([getattr(pair, side) for pair, _ in rows], arrow.string()) for side in ("first", "second")]
    turned = [
        arrow.array([getattr(images[side], field) for images in facts], kind)
        for side in (0, 1)
        for field, kind in (("height", arrow.int32()), ("width", arrow.int32()), ("orientation", arrow.int8()))
    ]
    said = arrow.array([pixels] * len(rows), arrow.string())
    return [*names, *turned, said, listed(0, 2), listed(1, 2), listed(2, 1), *_judged(arrow, rows), nothing, nothing]


def _judged(arrow: Any, rows: list[tuple[ListedPair, bytes]]) -> list[Any]:
    found = [unpack_judged(data) for _, data in rows]
    return [
        arrow.array([None if one is None else getattr(one, name) for one in found], kind)
        for name, kind in (
            ("verdict", arrow.string()),
            ("probability", arrow.float32()),
            ("log10_nfa", arrow.float32()),
            ("turned1", arrow.int16()),
        )
    ]


def _failed(arrow: Any, rows: list[Failure], schema: Any) -> list[Any]:
    def text(values: list[str]) -> Any:
        return arrow.array(values, arrow.string())

    names = [text([readable(getattr(row.pair, side)) for row in rows]) for side in ("first", "second")]
    nothing = [arrow.nulls(len(rows), field.type) for field in schema][len(names) : -2]
    return [*names, *nothing, text([row.code for row in rows]), text([readable(row.message) for row in rows])]
