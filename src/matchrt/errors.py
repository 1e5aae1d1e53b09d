"""The one error type that users meet: a stable code, what is wrong, and what to do about it."""

from __future__ import annotations


class MatchRTError(Exception):
    """An expected failure.

    code: stable, documented in docs/errors.md, e.g. `image-truncated`.
    message: one sentence that names the file, field or value at fault.
    remedy: one sentence that says what to do.
    """

    exit_code = 2

    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} [{self.code}] {self.remedy}"

    def __reduce__(self) -> tuple[type[MatchRTError], tuple[str, str, str]]:
        return type(self), (self.code, self.message, self.remedy)


class InternalError(MatchRTError):
    """A failure that is ours and not the user's, such as a broken invariant or a failed parity check."""

    exit_code = 1


def missing_package(package: str, extra: str, purpose: str) -> MatchRTError:
    """The error (package-missing) for an optional package that is not installed. It is returned, not raised.

    package: the package's name.
    extra: the extra of matchrt that installs it.
    purpose: what needs it, as the beginning of a sentence.
    """
    return MatchRTError(
        "package-missing", f"{purpose} needs the package '{package}'.", f"Install it: pip install 'matchrt[{extra}]'."
    )
