"""What can be wrong with a file of weights: one error for each way, with words that people can use."""

from __future__ import annotations

from pathlib import Path

from matchrt.errors import MatchRTError

_LONGEST = 100
_LONGEST_SENTENCE = 300


class DamagedError(ValueError):
    """The bytes break the rules of their format. Whoever knows the file turns it into `checkpoint-truncated`."""


class UnsafeError(ValueError):
    """The file asks for what no checkpoint needs. Whoever knows the file turns it into `checkpoint-unsafe`."""


def shown(text: object, longest: int = _LONGEST) -> str:
    """A text of the file as it may be printed: one line without control characters, not too long. Raises nothing."""
    if isinstance(text, int) and abs(text) >> 64:
        return "a huge number"  # Python refuses to write out numbers of more than 4300 digits
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text)[: longest + 1])
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def listed(names: list[str], limit: int = 5) -> str:
    """The first names, and how many more there are. Raises nothing."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(shown(name) for name in names[:limit]) + more


def truncated(path: Path, reason: str) -> MatchRTError:
    """checkpoint-truncated with the first sentence of the reason. It is returned, not raised."""
    sentence = reason.split(". ", 1)[0].splitlines()[0] if reason.strip() else "unreadable"
    return MatchRTError(
        "checkpoint-truncated",
        f"'{path}' is damaged or cut short: {shown(sentence.rstrip('.'), _LONGEST_SENTENCE)}.",
        "Download or copy it again and compare its size and digest with the publisher's.",
    )


def unsafe(path: Path, reason: str) -> MatchRTError:
    """checkpoint-unsafe. It is returned, not raised."""
    return MatchRTError(
        "checkpoint-unsafe",
        f"'{path}' {shown(reason, _LONGEST_SENTENCE)}. Nothing of it was run.",
        "Do not load it with another program. Get the weights from their publisher again, best as .safetensors.",
    )


def unreadable(path: Path, what: str, remedy: str = "Name the file of the weights.") -> MatchRTError:
    """checkpoint-missing for something that is no readable file. It is returned, not raised."""
    return MatchRTError("checkpoint-missing", f"'{path}' {what}.", remedy)


def foreign(path: Path, what: str, remedy: str) -> MatchRTError:
    """checkpoint-format for a file of another kind. It is returned, not raised.

    what: what the file is, after its name.
    """
    return MatchRTError("checkpoint-format", f"'{path}' {what}.", remedy)
