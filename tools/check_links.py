"""Dead links of a built site: pages, files and anchors that its pages refer to and that are not there.

    python tools/check_links.py site

It reads every HTML file under the folder and opens no connection: links to other hosts are counted and not followed. It
prints each dead link with its page, and exits with 1 if there is one.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_REFERENCES = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src"}
# Themes write the links of the page for missing addresses from the root of the host.
_NOT_FOUND_PAGE = "404.html"


@dataclass
class Page:
    """What a page refers to, and the anchors that it has."""

    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Result:
    """dead: (page, link, reason). followed, elsewhere: how many links were looked up, and how many go elsewhere."""

    dead: list[tuple[str, str, str]]
    followed: int
    elsewhere: int


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.page.anchors |= {value for key in ("id", "name") if (value := values.get(key))}
        link = values.get(_REFERENCES.get(tag, ""))
        if link is not None:
            self.page.links.append(link)


def read_page(path: Path) -> Page:
    """The links and anchors of an HTML file."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page


def check(site: Path) -> Result:
    """Follows every link of every page below the folder `site`."""
    pages = {path.resolve(): read_page(path) for path in sorted(site.rglob("*.html")) if path.name != _NOT_FOUND_PAGE}
    dead, followed, elsewhere = [], 0, 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme in ("data", "mailto", "javascript"):
                continue
            if parts.scheme or parts.netloc:
                elsewhere += 1
                continue
            followed += 1
            reason = _reason(parts.path, parts.fragment, path, site.resolve(), pages)
            if reason is not None:
                dead.append((path.relative_to(site.resolve()).as_posix(), link, reason))
    return Result(dead, followed, elsewhere)


def _reason(target: str, anchor: str, page: Path, site: Path, pages: dict[Path, Page]) -> str | None:
    """Why the link is dead; None if it is not."""
    if target.startswith("/"):
        return "starts at the root of the host, which is not the site's wherever the site lies deeper"
    found = (page.parent / unquote(target)).resolve() if target else page
    if found.is_dir():
        found /= "index.html"
    if not found.is_relative_to(site):
        return "leaves the site"
    if not found.is_file():
        return "no such file"
    # Script of the theme makes the anchors that begin with two underscores.
    if anchor and found in pages and not anchor.startswith("__") and unquote(anchor) not in pages[found].anchors:
        return "no such anchor"
    return None


def main(arguments: list[str]) -> int:
    """Checks the folder that is named; the exit code."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python tools/check_links.py FOLDER_OF_THE_BUILT_SITE", file=sys.stderr)
        return 2
    result = check(Path(arguments[0]))
    for page, link, reason in result.dead:
        print(f"{page}: {link}: {reason}")
    print(f"{result.followed} links followed, {len(result.dead)} dead; {result.elsewhere} to other hosts not followed")
    return 1 if result.dead or not result.followed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
