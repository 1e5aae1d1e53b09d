"""The service's pages, with their scripts and styles. They are files of the package and need no token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources

from fastapi import FastAPI, Response

# Paths and the files of the folder `pages`.
PAGES = {
    "/": "try.html",
    "/try.js": "try.js",
    "/draw.js": "draw.js",
    "/words.js": "words.js",
    "/try.css": "try.css",
    "/docs": "docs.html",
    "/docs.js": "docs.js",
    "/docs.css": "docs.css",
}
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
# Pages may talk to their own server and show pictures that they have made. They load nothing from elsewhere.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; connect-src 'self'; "
    "frame-ancestors 'none'; form-action 'none'; base-uri 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}


def add_pages(app: FastAPI) -> None:
    """Adds the pages to the application. Raises nothing."""
    folder = resources.files("matchrt.serving") / "pages"
    for path, name in PAGES.items():
        content = (folder / name).read_bytes()
        app.get(path, include_in_schema=False, name=path)(_page(content, _TYPES[name.rpartition(".")[2]]))


def _page(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:
        return Response(content, headers=_HEADERS, media_type=kind)

    return page
