"""What is wrong with an image file, before its name is known: one exception for each kind.

`file.py` turns them into named errors, and so no other file needs to know what the image is called.
"""

from __future__ import annotations


class DamagedError(Exception):
    """It starts as an image, but bytes are missing or wrong. The text says which, after 'is cut off or damaged:'."""


class UnreadError(Exception):
    """The file is whole, but of a kind that is not read. The text is what it is, after 'is'."""


class TooLargeError(Exception):
    """Reading it would take more memory or time than one image may. The text says what is too large, after 'has'."""
