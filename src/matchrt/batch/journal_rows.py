"""What a journal says of its pairs and images."""

from __future__ import annotations

from typing import NamedTuple

from matchrt.batch.results import ImageFacts, ListedPair


class Counts(NamedTuple):
    """Numbers of pairs by their state.

    listed: lines of the list, duplicates included.
    pairs: different pairs.
    matched: pairs with matches.
    failed: pairs with an error, and those of images that the output refuses.
    images: different images.
    """

    listed: int
    pairs: int
    matched: int
    failed: int
    images: int

    @property
    def waiting(self) -> int:
        """Number of pairs without a result."""
        return self.pairs - self.matched - self.failed


class Failure(NamedTuple):
    """A pair that could not be matched.

    pair: the pair's number and image names.
    code: the error's code.
    message: what went wrong.
    remedy: what to do about it.
    """

    pair: ListedPair
    code: str
    message: str
    remedy: str


class ImageRow(NamedTuple):
    """An image of the list.

    id: the image's number in the journal.
    name: the image's path below the root.
    facts: what was known of it when it was matched; None if none of its pairs was matched.
    """

    id: int
    name: str
    facts: ImageFacts | None
