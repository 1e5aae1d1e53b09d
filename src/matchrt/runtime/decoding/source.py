"""The bytes of a file or of memory, read piece by piece, so that what stands behind an image is never read."""

from __future__ import annotations

import io
import os
from typing import IO

from matchrt.errors import MatchRTError
from matchrt.runtime.decoding.failures import DamagedError


class Source:
    """Bytes that are read by their place. stream: seekable. name: what errors call it."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._name = stream, name
        try:
            self.size = stream.seek(0, os.SEEK_END)
        except OSError as error:
            raise self._unreadable(error) from error

    @classmethod
    def of(cls, data: bytes, name: str) -> Source:
        """The bytes of a file that is in memory. Raises nothing."""
        return cls(io.BytesIO(data), name)

    def read(self, offset: int, count: int) -> bytes:
        """The bytes from `offset` on: `count`, or fewer at the end. Error: image-unreadable if the disk fails."""
        if offset >= self.size or count <= 0:
            return b""
        try:
            self._stream.seek(offset)
            return self._stream.read(min(count, self.size - offset))
        except OSError as error:
            raise self._unreadable(error) from error

    def exactly(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset` on. Errors: image-unreadable; DamagedError if there are fewer."""
        data = self.read(offset, count)
        if len(data) != count:
            raise DamagedError(f"it ends after {self.size:,} bytes, and {offset + count:,} are needed")
        return data

    def _unreadable(self, error: OSError) -> MatchRTError:
        return MatchRTError(
            "image-unreadable",
            f"Cannot read '{self._name}': {error.strerror or error}.",
            "Check the disk or the connection, or copy the file again.",
        )
