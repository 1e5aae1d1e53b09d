"""Damages images of nine formats by seed, and asks matchrt and other decoders what they see.

usage: image_mutants.py [--count 10000] [--seed 0] [--format PNG]

Each mutant must be read right, be refused by a named error, or give the pixels that two other decoders give: Pillow,
OpenCV, and imagecodecs where it is installed. No other exception may come, and none may take over 2 seconds. `one`
counts mutants on which one decoder agrees and the others refuse the file. `none` is a failure.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import cv2
import numpy as np
from PIL import Image, ImageFilter

from matchrt.errors import MatchRTError
from matchrt.runtime.image import decode_image

SIZE = (160, 120)
SLOW_SECONDS = 2.0
# Decoders differ in how they interpolate and convert colours; other pixels differ by far more.
CLOSE = 1.5


def scene() -> Image.Image:
    """Smooth noise, RGB."""
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1.5))


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a file."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def files() -> dict[str, list[bytes]]:
    """Whole files by format."""
    rgb = scene()
    grey, palette, inks = rgb.convert("L"), rgb.quantize(32), rgb.convert("CMYK")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    second = rgb.transpose(Image.Transpose.ROTATE_180)
    kinds: dict[str, list[tuple[Image.Image, dict[str, object]]]] = {
        "JPEG": [(rgb, {}), (grey, {}), (rgb, {"progressive": True}), (rgb, {"restart_marker_rows": 2}), (inks, {})],
        "PNG": [(rgb, {}), (grey, {}), (palette, {}), (deep, {}), (rgb.convert("RGBA"), {})],
        "TIFF": [
            *((rgb, {"compression": name}) for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
            (deep, {}),
            (palette, {}),
            (rgb.convert("1"), {"compression": "group4"}),
        ],
        "WEBP": [(rgb, {}), (rgb, {"lossless": True}), (rgb, {"save_all": True, "append_images": [second]})],
        "BMP": [(rgb, {}), (grey, {}), (palette, {})],
        "GIF": [(palette, {}), (palette, {"interlace": 0}), (rgb, {"save_all": True, "append_images": [second]})],
        "PPM": [(rgb, {}), (grey, {}), (deep, {})],
        "JPEG2000": [(rgb, {}), (rgb, {"irreversible": True}), (grey, {"tile_size": (64, 64)})],
        "AVIF": [(rgb, {}), (grey, {})],
    }
    return {kind: [encoded(picture, kind, **options) for picture, options in all_] for kind, all_ in kinds.items()}


def mutant(data: bytes, seed: int) -> bytes:
    """Damaged bytes; the same seed gives the same damage. Half of it is in the first bytes, where headers are."""
    dice = random.Random(seed)
    made = bytearray(data)
    reach = min(len(made), 700) if dice.random() < 0.5 else len(made)
    at, span = dice.randrange(reach), dice.choice((1, 2, 4, 40, 200, 2000))
    kind = dice.choice(("bits", "byte", "cut", "hole", "splice", "zeros", "ones", "marker", "tail", "number"))
    if kind == "bits":
        for _ in range(dice.randrange(1, 4)):
            made[dice.randrange(reach)] ^= 1 << dice.randrange(8)
    elif kind == "byte":
        made[at] = dice.randrange(256)
    elif kind == "cut":
        del made[max(at, 1) :]
    elif kind == "hole":
        del made[at : at + span]
    elif kind == "splice":
        made[at:at] = dice.randbytes(min(span, 60))
    elif kind in ("zeros", "ones"):
        made[at : at + span] = bytes([255 * (kind == "ones")]) * len(made[at : at + span])
    elif kind == "marker":
        made[at : at + 2] = dice.choice((b"\xff\xd9", b"\xff\xda", b"\0;", b"\xff\xc4"))
    elif kind == "number":
        made[at : at + 4] = dice.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 65535)).to_bytes(
            4, dice.choice(("little", "big"))
        )
    else:
        made += dice.randbytes(span)
    return bytes(made)


def _rgb(values: np.ndarray, blue_first: bool) -> np.ndarray:
    if values.dtype != np.uint8:
        values = np.rint(values.astype(np.float64) / 257)
    if values.ndim == 2:
        return np.dstack([values] * 3)
    colours = values[:, :, :3] if values.shape[2] > 2 else np.dstack([values[:, :, 0]] * 3)
    return colours[:, :, ::-1] if blue_first else colours


def _pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        deep = picture.mode.startswith("I")
        return _rgb(np.asarray(picture if deep else picture.convert("RGB")), blue_first=False)


def _opencv(data: bytes) -> np.ndarray:
    flags = cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR
    return _rgb(cv2.imdecode(np.frombuffer(data, np.uint8), flags), blue_first=True)


def _imagecodecs(data: bytes) -> np.ndarray:
    import imagecodecs

    values = imagecodecs.imread(data)
    return _rgb(values[0] if values.ndim == 4 else values, blue_first=False)


DECODERS: tuple[Callable[[bytes], np.ndarray], ...] = (_pillow, _opencv, _imagecodecs)


def _others(data: bytes) -> Iterator[np.ndarray]:
    for decode in DECODERS:
        with suppress(Exception):  # they raise anything, and say no more than that they do not read it
            found = decode(data)
            if found.size:  # some give nothing for what they do not read
                yield found


@dataclass
class Seen:
    """What became of the mutants: a count for each format and verdict, and the failures in words."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def judge(whole: np.ndarray, data: bytes) -> tuple[str, str]:
    """(verdict, words): right, an error's code, `two`, `one` or `none` decoders that agree, `exception`."""
    try:
        image = decode_image(data, "mutant", apply_exif=False)
    except MatchRTError as error:
        return (error.code, "") if error.code.startswith("image-") and error.remedy else ("exception", str(error))
    except Exception as error:
        return "exception", f"{type(error).__name__}: {error}"
    if np.array_equal(image.rgb(), whole):
        return "right", ""
    agreed = [
        other.shape == image.rgb().shape and np.abs(other.astype(float) - image.rgb()).mean() <= CLOSE
        for other in _others(data)
    ]
    return ("two" if sum(agreed) > 1 else "one" if any(agreed) else "none"), f"{agreed} of the other decoders agree"


def run(count: int, seed: int, only: str | None = None) -> Seen:
    """Judges mutants, an equal number of each format."""
    seen = Seen()
    formats = {kind: data for kind, data in files().items() if only in (None, kind)}
    wholes = {kind: [decode_image(data, kind).rgb() for data in each] for kind, each in formats.items()}
    names = list(formats)
    for index in range(count):
        kind = names[index % len(names)]
        which = index // len(names) % len(formats[kind])
        data = mutant(formats[kind][which], seed * 1_000_003 + index)
        start = time.perf_counter()
        with suppress(MatchRTError):
            decode_image(data, "mutant")
        seconds = time.perf_counter() - start
        verdict, words = judge(wholes[kind][which], data)
        seen.counts[kind, verdict] += 1
        if seconds > SLOW_SECONDS:
            seen.counts[kind, "slow"] += 1
            words = f"{seconds:.1f} s; {words}"
        if verdict in ("none", "exception") or seconds > SLOW_SECONDS:
            seen.failures.append(f"{kind} {which}, seed {seed}, number {index}: {verdict}: {words}")
    return seen


def main() -> int:
    """Prints the counts and the failures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", default=None)
    arguments = parser.parse_args()
    seen = run(arguments.count, arguments.seed, arguments.format)
    for (kind, verdict), number in sorted(seen.counts.items()):
        print(f"{kind:9} {verdict:16} {number}")
    for failure in seen.failures:
        print(failure)
    return 1 if seen.failures else 0


if __name__ == "__main__":
    sys.exit(main())
