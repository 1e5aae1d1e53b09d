"""The errors of serving, and their status in HTTP and gRPC."""

from __future__ import annotations

import traceback
from typing import Any

from matchrt.errors import InternalError, MatchRTError

# HTTP and gRPC status by code. Any other code is the caller's mistake (400), any other InternalError is ours (500).
_STATUS: dict[str, tuple[int, str]] = {
    "token-wrong": (401, "UNAUTHENTICATED"),
    "request-foreign": (403, "PERMISSION_DENIED"),
    "model-not-served": (404, "NOT_FOUND"),
    "request-not-found": (404, "UNIMPLEMENTED"),
    "request-method": (405, "UNIMPLEMENTED"),
    "header-slow": (408, "INVALID_ARGUMENT"),
    "body-slow": (408, "DEADLINE_EXCEEDED"),
    "body-too-large": (413, "RESOURCE_EXHAUSTED"),
    "image-too-large": (413, "INVALID_ARGUMENT"),
    "size-memory": (413, "INVALID_ARGUMENT"),
    "request-media-type": (415, "INVALID_ARGUMENT"),
    "header-too-large": (431, "INVALID_ARGUMENT"),
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
    """The body of an error: `error` as in the protocol, and `code` and `remedy` as in every error of matchrt."""
    return {"error": error.message, "code": error.code, "remedy": error.remedy}


def busy() -> MatchRTError:
    """The error of a request that finds no free place. It is returned, as by all functions here, not raised."""
    return MatchRTError(
        "server-busy", "All places for requests are taken.", "Try again in a moment, or ask for a longer --queue."
    )


def draining() -> MatchRTError:
    """The error of a request that comes while the service shuts down."""
    return MatchRTError("server-draining", "The service is shutting down.", "Ask another server.")


def too_late() -> MatchRTError:
    """The error of a request whose deadline has passed."""
    return MatchRTError("deadline-exceeded", "The request's deadline passed before its result.", "Allow it more time.")


def abandoned() -> MatchRTError:
    """The error of a request whose client has gone."""
    return MatchRTError(
        "request-abandoned", "The caller has closed the connection.", "Keep it open until the answer comes."
    )


def bad_request(message: str, remedy: str) -> MatchRTError:
    """The error of a request that does not follow the protocol or the model's contract."""
    return MatchRTError("request-invalid", message, remedy)


def too_large(limit: int) -> MatchRTError:
    """The error of a body of more than `limit` bytes."""
    return MatchRTError(
        "body-too-large",
        f"A request may have at most {limit} bytes.",
        "Send smaller images, or ask for a larger --max-body.",
    )


def out_of_memory() -> InternalError:
    """The error of a request for which there is not enough memory, or no thread."""
    return InternalError(
        "out-of-memory", "There is not enough memory for this request.", "Send smaller images, or try again later."
    )


def surprise(error: BaseException) -> InternalError:
    """The error of an unexpected exception: out-of-memory, or unexpected with the exception's type only.

    The exception's text stays in the log.
    """
    if lacks_memory(error):
        return out_of_memory()
    return InternalError("unexpected", f"Unexpected failure: {type(error).__name__}.", "Report it with the log.")


def lacks_memory(error: BaseException) -> bool:
    """Whether an exception says that memory is short: Python's, NumPy's, or OpenCV's."""
    # OpenCV's StsNoMem.
    return isinstance(error, MemoryError) or (type(error).__module__ == "cv2" and getattr(error, "code", None) == -4)


def free_frames(error: BaseException) -> None:
    """Empties the frames that an error has passed, which otherwise keep bodies and images until Python finds the cycle.

    The traceback can still be printed.
    """
    seen: set[int] = set()
    step: BaseException | None = error
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        traceback.clear_frames(step.__traceback__)
        step = step.__cause__ or step.__context__
