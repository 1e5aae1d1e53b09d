"""A hook of MkDocs: the site gets the repository's tree, with every tracked Markdown page and what the pages link to.

MkDocs takes pages from one folder, `docs`. Here `README.md`, `bench/README.md` and others are pages too, and pages link
to each other by paths in the repository. So each page keeps its path: `docs/gpu.md` becomes `docs/gpu/`, `README.md`
becomes the start page, and no link has to be rewritten. A page that the navigation does not name fails a strict build.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# Folders that hold no page, or nothing of the repository.
_NO_PAGES = {".github", "site", "build", "dist", "shared", "node_modules"}
_STYLES = ("tools/site/site.css",)
# The page that matches in the browser (docs/other-runtimes.md), and what it fetches. Its runtime is copied if npm
# installed it; without it, the page takes the same version from a CDN.
_DEMO = (
    "docs/demo/index.html",
    "docs/demo/demo.css",
    "docs/demo/*.mjs",
    "examples/javascript/*.mjs",
    "examples/images/cup_?.jpg",
    "src/matchrt/assets/eloftr-lite.onnx",
    "src/matchrt/assets/eloftr-lite.onnx.json",
    "examples/javascript/node_modules/onnxruntime-web/dist/ort.wasm.min.mjs",
    "examples/javascript/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.mjs",
    "examples/javascript/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s#]+)(?:#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Puts the repository's pages in place of the folder `docs`, and the files that they link to beside them."""
    root = Path(config.config_file_path).parent
    for file in list(files):
        if file.src_dir == config.docs_dir:  # the others are the theme's
            files.remove(file)
    pages = sorted(_pages(root))
    for path in (*pages, *sorted(_linked(root, pages) | demo_files(root)), *_STYLES):
        files.append(File.generated(config, path, abs_src_path=str(root / path)))
    return files


def demo_files(root: Path) -> set[str]:
    """The files of the demonstration in the browser: paths from `root`."""
    return {path.relative_to(root).as_posix() for pattern in _DEMO for path in root.glob(pattern)}


def _pages(root: Path) -> list[str]:
    """The Markdown files of the repository: paths from `root`."""
    found = []
    for folder, names, files in os.walk(root):
        here = Path(folder)
        names[:] = [name for name in names if not _skipped(here / name)]
        found += [(here / name).relative_to(root).as_posix() for name in files if name.endswith(".md")]
    return found


def _skipped(folder: Path) -> bool:
    return folder.name in _NO_PAGES or folder.name.startswith(".") or (folder / "pyvenv.cfg").exists()


def _linked(root: Path, pages: list[str]) -> set[str]:
    """The files that the pages link to and that are no pages: pictures and sources."""
    found = set()
    for page in pages:
        for target in _LINK.findall((root / page).read_text(encoding="utf-8")):
            path = (root / page).parent / target
            if "://" not in target and not target.endswith(".md") and path.is_file():
                found.add(path.resolve().relative_to(root.resolve()).as_posix())
    return found
