"""What goes wrong while serving, and its status in HTTP and gRPC."""

from __future__ import annotations

from typing import Any

from matchrt.errors import InternalError, MatchRTError

# code: HTTP status, gRPC status. Every other code is the caller's mistake (400), every other InternalError ours (500).
_STATUS: dict[str, tuple[int, str]] = {
    "token-wrong": (401, "UNAUTHENTICATED"),
    "model-not-served": (404, "NOT_FOUND"),
    "request-not-found": (404, "UNIMPLEMENTED"),
    "request-method": (405, "UNIMPLEMENTED"),
    "body-slow": (408, "INVALID_ARGUMENT"),
    "body-too-large": (413, "RESOURCE_EXHAUSTED"),
    "image-too-large": (413, "INVALID_ARGUMENT"),
    "size-memory": (413, "INVALID_ARGUMENT"),
    "server-busy": (429, "RESOURCE_EXHAUSTED"),
    "server-draining": (503, "UNAVAILABLE"),
    "out-of-memory": (503, "UNAVAILABLE"),
    "deadline-exceeded": (504, "DEADLINE_EXCEEDED"),
    "request-abandoned": (499, "CANCELLED"),
}


def http_status(error: MatchRTError) -> int:
    """The HTTP status of an error."""
    return _STATUS.get(error.code, (500 if isinstance(error, InternalError) else 400, ""))[0]


def grpc_status(error: MatchRTError) -> str:
    """The name of an error's gRPC status."""
    return _STATUS.get(error.code, (0, "INTERNAL" if isinstance(error, InternalError) else "INVALID_ARGUMENT"))[1]


def as_json(error: MatchRTError) -> dict[str, Any]:
    """The body of an error: `error` as the protocol has it, and what every error of matchrt has."""
    return {"error": error.message, "code": error.code, "remedy": error.remedy}


def busy() -> MatchRTError:
    """The queue is full."""
    return MatchRTError("server-busy", "All places are taken.", "Try again in a moment, or ask for a longer --queue.")


def draining() -> MatchRTError:
    """The service is about to end."""
    return MatchRTError("server-draining", "The service is shutting down.", "Ask another one.")


def too_late() -> MatchRTError:
    """A request's time is over."""
    return MatchRTError("deadline-exceeded", "The request's time was over before its result.", "Allow it more time.")


def abandoned() -> MatchRTError:
    """Whoever asked has gone."""
    return MatchRTError("request-abandoned", "The caller has gone.", "Stay for the answer.")


def bad_request(message: str, remedy: str) -> MatchRTError:
    """The request does not follow the protocol or the model's contract."""
    return MatchRTError("request-invalid", message, remedy)


def too_large(limit: int) -> MatchRTError:
    """A body of more than `limit` bytes."""
    return MatchRTError(
        "body-too-large", f"A request may have {limit} bytes.", "Send smaller images, or ask for a larger --max-body."
    )


def surprise(error: Exception) -> InternalError:
    """An exception that nobody foresaw; its text stays in the log."""
    return InternalError("unexpected", f"Unexpected failure: {type(error).__name__}.", "Report it with the log.")
