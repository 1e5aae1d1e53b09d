"""Matches as a Parquet table, one row a pair, for Spark, DuckDB, pandas and the like.

| column                   | type                              |                                                    |
| ------------------------ | --------------------------------- | -------------------------------------------------- |
| image0, image1           | string                            | names below the root                               |
| keypoints0, keypoints1   | list of fixed_size_list<float>[2] | pixels, as in `Matches`; null where the pair failed|
| scores                   | list of float                     | descending                                         |
| error                    | string                            | the error's code; null where the pair was matched  |
| message                  | string                            | the error's message                                |

Nothing is merged or rounded. The matched pairs come first, in the list's order, then the failed ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from matchrt.atomic import atomic_path
from matchrt.errors import missing_package
from matchrt.many.journal import Journal
from matchrt.many.results import unpack

_ROW_GROUP = 1000


def require_pyarrow() -> Any:
    """The module. Error: package-missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_package("pyarrow", "parquet", "Writing .parquet files") from error
    return pyarrow


def write_parquet(journal: Journal, output: Path) -> None:
    """Writes the table atomically. Errors: package-missing, output-unwritable."""
    arrow = require_pyarrow()
    points = arrow.list_(arrow.list_(arrow.float32(), 2))
    schema = arrow.schema(
        [
            *((name, arrow.string()) for name in ("image0", "image1")),
            *((name, points) for name in ("keypoints0", "keypoints1")),
            ("scores", arrow.list_(arrow.float32())),
            *((name, arrow.string()) for name in ("error", "message")),
        ]
    )
    rows = chain(_matched(journal), _failed(journal))
    with atomic_path(output, f".{output.name}.part") as part, arrow.parquet.ParquetWriter(part, schema) as writer:
        while group := list(islice(rows, _ROW_GROUP)):
            writer.write_table(arrow.Table.from_pylist(group, schema))


def _matched(journal: Journal) -> Iterator[dict[str, Any]]:
    for pair, data in journal.matches():
        keypoints0, keypoints1, scores = unpack(data)
        yield {
            "image0": pair.first,
            "image1": pair.second,
            "keypoints0": list(keypoints0),
            "keypoints1": list(keypoints1),
            "scores": scores,
        }


def _failed(journal: Journal) -> Iterator[dict[str, Any]]:
    for failure in journal.failures():
        yield {
            "image0": failure.pair.first,
            "image1": failure.pair.second,
            "error": failure.code,
            "message": failure.message,
        }
