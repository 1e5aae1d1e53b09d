"""The order in which pairs are matched, so that a bounded cache of images' features serves them well.

In the order of a list of all pairs, every image would be needed again only after all others. So pairs go by blocks of
first images: a block's images stay in the cache while the second images pass by, each once for the whole block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from matchrt.batch.results import ListedPair

# Pairs that are put in order at a time; a few MB of names.
_AT_ONCE = 1 << 16


def by_blocks(pairs: Iterable[ListedPair], images: int) -> Iterator[ListedPair]:
    """All pairs, put in order for a cache that holds the features of `images` images. Raises nothing.

    The order depends on the pairs and on `images` only. Lists are read in parts of 65536 pairs.
    """
    source, block = iter(pairs), max(1, images // 2)
    while some := list(islice(source, _AT_ONCE)):
        numbers: dict[str, int] = {}
        for pair in some:
            numbers.setdefault(pair.first, len(numbers))
            numbers.setdefault(pair.second, len(numbers))
        if len(numbers) > images:
            some.sort(key=lambda pair: (numbers[pair.first] // block, numbers[pair.second], numbers[pair.first]))
        yield from some
