"""`multipart/form-data`, in memory. The time is proportional to the body, whatever is in it."""

from __future__ import annotations

from dataclasses import dataclass

from python_multipart.multipart import parse_options_header

from matchrt.serving.failures import bad_request

MAX_PARTS = 16
MAX_HEAD = 8192
_MAX_TEXT = 4096
# RFC 2046, 5.1.1.
_MAX_BOUNDARY = 70
# Bytes that are searched at a time, so that other threads run meanwhile.
_STEP = 1 << 20
_REMEDY = "Send two image files as multipart/form-data, as curl -F does."


@dataclass(frozen=True)
class Part:
    """One field of a form.

    content: its bytes, as a view of the body.
    filename: what the client calls the file; None if the field is no file.
    """

    content: memoryview
    filename: str | None

    def text(self) -> str:
        """The content of a field that is no file. Error: request-invalid."""
        if self.filename is not None or len(self.content) > _MAX_TEXT:
            raise bad_request("A field of the form is not a short text.", _REMEDY)
        try:
            return bytes(self.content).decode()
        except UnicodeDecodeError as error:
            raise bad_request("A text of the form is not UTF-8.", "Send texts as UTF-8.") from error


def read_boundary(content_type: str) -> bytes:
    """The boundary that a Content-Type names. Error: request-invalid."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= _MAX_BOUNDARY:
        raise bad_request("The form has no boundary, or one that is too long.", _REMEDY)
    return bytes(boundary)


def read_parts(body: bytes | bytearray, boundary: bytes) -> dict[str, Part]:
    """The fields of a form by name; of those with the same name, the last. Error: request-invalid."""
    mark = b"--" + boundary
    place = 0 if body.startswith(mark) else _find(body, b"\r\n" + mark, 0) + 2
    if place == 1:
        raise bad_request("The form's boundary is not in the body.", _REMEDY)
    parts: dict[str, Part] = {}
    for _ in range(MAX_PARTS + 1):
        place += len(mark)
        if body.startswith(b"--", place):
            return parts
        # RFC 2046 allows blanks after a boundary.
        line = body.find(b"\r\n", place, place + 80)
        if line < 0 or body[place:line].strip(b" \t"):
            raise bad_request("A boundary of the form is not a line of its own.", _REMEDY)
        # A part without a head has an empty line at once.
        head = body.find(b"\r\n\r\n", line, line + MAX_HEAD)
        end = _find(body, b"\r\n" + mark, head + 2) if head >= 0 else -1
        if end < 0:
            raise bad_request("A part of the form has no end, or a head that is too long.", _REMEDY)
        name, filename = _read_head(bytes(body[line + 2 : head]))
        parts[name] = Part(memoryview(body)[head + 4 : end], filename)
        place = end + 2
    raise bad_request(f"The form has more than {MAX_PARTS} fields.", _REMEDY)


def _find(body: bytes | bytearray, text: bytes, start: int) -> int:
    """Where a text is in the body, or -1."""
    while start < len(body):
        found = body.find(text, start, start + _STEP + len(text))
        if found >= 0:
            return found
        start += _STEP
    return -1


def _read_head(head: bytes) -> tuple[str, str | None]:
    """The name and the file's name of a part."""
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.strip().lower() == b"content-disposition":
            kind, options = parse_options_header(value)
            name, filename = options.get(b"name"), options.get(b"filename")
            if kind == b"form-data" and name is not None:
                return name.decode(errors="replace"), None if filename is None else filename.decode(errors="replace")
    raise bad_request("A part of the form has no name.", _REMEDY)
