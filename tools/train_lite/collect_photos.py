"""Downloads free photographs from Debian and packs them for training.

Run without arguments to rebuild the set recorded in photographs.csv; `--choose` makes the choice afresh.
Only `apt-get download` and `dpkg -x` are used: nothing is installed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import re
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tools.train_lite.photo_sources import SOURCES, Source

Image.MAX_IMAGE_PIXELS = 200_000_000
HERE = Path(__file__).parent
MANIFEST = HERE / "photographs.csv"
FIELDS = ("name", "split", "kind", "package", "version", "licence", "path", "sha256", "width", "height")
IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".tga", ".ppm", ".pgm", ".rgb", ".dds"}
ARCHIVES = {".pk3", ".zip"}
VALIDATION_SHARE = 0.05


def fetch(source: Source, folder: Path) -> Path:
    """Downloads and unpacks one package; returns the folder of its files."""
    unpacked = folder / "x" / source.package
    if unpacked.exists():
        return unpacked
    downloads = folder / "deb"
    downloads.mkdir(parents=True, exist_ok=True)
    unpacked.parent.mkdir(exist_ok=True)  # dpkg makes one folder, not two
    subprocess.run(["apt-get", "download", f"{source.package}={source.version}"], cwd=downloads, check=True)
    (package,) = downloads.glob(f"{source.package}_*.deb")
    subprocess.run(["dpkg", "-x", str(package), str(unpacked)], check=True)
    return unpacked


def embedded(resource: bytes) -> Iterator[tuple[int, bytes]]:
    """WebP images inside a Qt resource file: they are stored as they are, behind a RIFF header with their length."""
    for found in re.finditer(rb"RIFF(.{4})WEBP", resource, re.DOTALL):
        length = int.from_bytes(found.group(1), "little") + 8
        yield found.start(), resource[found.start() : found.start() + length]


def files(root: Path) -> Iterator[tuple[str, bytes]]:
    """Every image of a package as (path inside the package, bytes), archives opened."""
    for path in sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink()):
        name, suffix = str(path.relative_to(root)), path.suffix.lower()
        if suffix in IMAGES and path.stat().st_size > 20_000:
            yield name, path.read_bytes()
        elif suffix in ARCHIVES:
            with zipfile.ZipFile(path) as archive:
                for entry in sorted(archive.infolist(), key=lambda e: e.filename):
                    if Path(entry.filename).suffix.lower() in IMAGES and entry.file_size > 20_000:
                        yield f"{name}!{entry.filename}", archive.read(entry)
        elif suffix == ".rcc":
            for offset, data in embedded(path.read_bytes()):
                if len(data) > 20_000:
                    yield f"{name}!{offset}", data


def decode(data: bytes, long_side: int) -> Image.Image | None:
    """The image as RGB, reduced; None where it cannot be read or is see-through over a large part."""
    try:
        opened = Image.open(io.BytesIO(data))
        opened.draft("RGB", (2 * long_side, 2 * long_side))
        image: Image.Image = opened
        if image.mode in ("RGBA", "LA", "P"):
            image = image.convert("RGBA")
            if (np.asarray(image.getchannel("A")) < 128).mean() > 0.5:
                return None
            image = Image.alpha_composite(Image.new("RGBA", image.size, (128, 128, 128, 255)), image)
        image = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, NotImplementedError):
        return None
    scale = long_side / max(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    return image


def textured(image: Image.Image) -> bool:
    """Whether enough of the image has something to match: flat skies and drawn gradients teach nothing."""
    grey = np.asarray(image.convert("L").resize((256, 256)), dtype=np.float32)
    dy, dx = np.gradient(grey)
    blocks = np.hypot(dx, dy).reshape(16, 16, 16, 16).mean(axis=(1, 3))
    return bool((blocks > 2.5).mean() > 0.33 and grey.std() > 12)


def signature(image: Image.Image) -> bytes:
    """A coarse thumbnail's digest: equal for re-encoded copies."""
    small = np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BOX), dtype=np.int16)
    return (small > np.median(small)).tobytes()


def chosen(source: Source, root: Path) -> Iterator[tuple[dict[str, str], Image.Image]]:
    """The files of a package that pass the filters, in the order of their digest, up to the limit."""
    include, exclude = re.compile(source.include), re.compile(source.exclude)
    found = [
        (hashlib.sha256(data).hexdigest(), path, data)
        for path, data in files(root)
        if include.search(path) and not exclude.search(path)
    ]
    seen: set[bytes] = set()
    count = 0
    for digest, path, data in sorted(found, key=lambda item: item[0]):
        if count == source.limit:
            return
        image = decode(data, source.long_side)
        if image is None or min(image.size) < source.min_side or max(image.size) > 4 * min(image.size):
            continue
        mark = signature(image)
        if mark in seen or not textured(image):
            continue
        seen.add(mark)
        count += 1
        row = {"kind": source.kind, "package": source.package, "version": source.version, "licence": source.licence}
        yield row | {"path": path, "sha256": digest, "width": str(image.width), "height": str(image.height)}, image


def recorded(source: Source, root: Path, rows: list[dict[str, str]]) -> Iterator[tuple[dict[str, str], Image.Image]]:
    """The files that photographs.csv names, checked against their digests."""
    wanted = {row["path"]: row for row in rows if row["package"] == source.package}
    for path, data in files(root):
        row = wanted.get(path)
        if row is None:
            continue
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise ValueError(f"{source.package}: {path} is not the recorded file")
        image = decode(data, source.long_side)
        if image is not None:
            yield row, image


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="working folder; the pack is written to FOLDER/pack")
    parser.add_argument("--choose", action="store_true", help="choose afresh and rewrite photographs.csv")
    parser.add_argument("--only", help="one package, for a trial")
    parser.add_argument("--quality", type=int, default=74)
    arguments = parser.parse_args()
    pack = arguments.folder / "pack"
    pack.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    if not arguments.choose:
        with MANIFEST.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
    written: list[dict[str, str]] = []
    for source in SOURCES:
        if arguments.only and source.package != arguments.only:
            continue
        root = fetch(source, arguments.folder)
        items = chosen(source, root) if arguments.choose else recorded(source, root, rows)
        before = len(written)
        for row, image in items:
            # Split and name depend on the content alone, so that another choice keeps them.
            share = int(row["sha256"][-8:], 16) / 2**32
            row["split"] = "validation" if share < VALIDATION_SHARE else "train"
            row["name"] = f"{row['split']}-{row['kind']}-{row['sha256'][:12]}.webp"
            image.save(pack / row["name"], quality=arguments.quality, method=2)
            written.append(row)
        print(f"{source.package}: {len(written) - before}", flush=True)
    if arguments.choose and not arguments.only:
        with MANIFEST.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, FIELDS)
            writer.writeheader()
            writer.writerows(sorted(written, key=lambda row: (row["package"], row["path"])))


if __name__ == "__main__":
    main()
