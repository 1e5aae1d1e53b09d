"""TIFF: every kind of pixels is read right, or refused by its true name; two other decoders agree."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image as PILImage
from PIL import ImageOps
from support.tiff import tiff

from matchrt.errors import MatchRTError
from matchrt.runtime.image import decode_image, read_size

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (45, 67, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]
DEEP = RANDOM.integers(0, 65536, (45, 67, 3), dtype=np.uint16)


def scaled(values, white):
    return np.rint(values.astype(np.float64) * 255 / white).astype(np.uint8)


def refused(code, data, words=""):
    with pytest.raises(MatchRTError) as caught:
        decode_image(data, "a.tif")
    assert caught.value.code == code
    assert words in caught.value.message
    assert "damaged" not in caught.value.message or code == "image-truncated"
    return caught.value


KINDS = {
    "uint8": (RGB, 255),
    "uint16": (DEEP, 65535),
    "uint32": (DEEP.astype(np.uint32), 65535),
    "int16": ((DEEP // 2).astype(np.int16), 32767),
    "float16": ((RGB / 255).astype(np.float16), 1),
    "float32": ((RGB / 255).astype(np.float32), 1),
    "float64": (RGB / 255, 1),
}
LAYOUTS = {
    "one strip": {},
    "strips": {"rows": 7},
    "tiles": {"tile": (16, 32)},
    "deflate": {"deflate": True, "rows": 10},
    "big": {"big": True, "rows": 11},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_pixels(kind, order, layout):
    values, white = KINDS[kind]
    for planar in (False, True):
        data = tiff(values, 2, order=order, planar=planar, **layout)
        assert np.array_equal(decode_image(data, "a.tif").pixels, scaled(values, white))
    grey = tiff(values[:, :, 1], 1, order=order, **layout)
    assert np.array_equal(decode_image(grey, "a.tif").pixels, scaled(values[:, :, 1], white))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("kind", "predictor"), [("uint8", 2), ("uint16", 2), ("float16", 3), ("float32", 3), ("float64", 3)]
)
def test_predictors(kind, predictor, order):
    values, white = KINDS[kind]
    for layout in ({"rows": 9}, {"tile": (32, 16)}, {"planar": True}):
        data = tiff(values, 2, order=order, deflate=True, predictor=predictor, **layout)
        assert np.array_equal(decode_image(data, "a.tif").pixels, scaled(values, white))


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 10, 12, 14])
def test_packed_bits_reach_white_at_their_own_largest_value(bits):
    white = (1 << bits) - 1
    values = DEEP >> (16 - bits)
    assert np.array_equal(decode_image(tiff(values[:, :, 0], 1, bits=bits), "a").pixels, scaled(values[:, :, 0], white))
    assert np.array_equal(decode_image(tiff(values, 2, bits=bits, rows=8), "a").pixels, scaled(values, white))
    negative = tiff(white - values[:, :, 0], 0, bits=bits)
    assert np.array_equal(decode_image(negative, "a").pixels, scaled(values[:, :, 0], white))


@pytest.mark.parametrize("values", [GREY, DEEP[:, :, 0], DEEP[:, :, 0].astype(np.uint32)])
def test_white_is_zero_is_no_negative(values):
    white = np.iinfo(values.dtype).max
    if white > 65535:  # such values are not on the scale
        refused("image-format", tiff(white - values, 0), "32 bits")
        return
    pixels = decode_image(tiff((white - values).astype(values.dtype), 0), "a").pixels
    assert np.array_equal(pixels, scaled(values, white))


def test_palettes_of_8_and_16_bits():
    colours = RANDOM.integers(0, 65536, (3, 256), dtype=np.uint16)
    data = tiff(GREY, 3, colours=colours.ravel())
    assert np.array_equal(decode_image(data, "a").pixels, (colours.T >> 8).astype(np.uint8)[GREY])
    colours = RANDOM.integers(0, 65536, (3, 65536), dtype=np.uint16)
    data = tiff(DEEP[:, :, 0], 3, colours=colours.ravel())
    assert np.array_equal(decode_image(data, "a").pixels, (colours.T >> 8).astype(np.uint8)[DEEP[:, :, 0]])


def test_bands_beyond_rgb_are_left_out():
    for values, white in ((RGB, 255), (DEEP, 65535)):
        for more in (1, 3):
            data = tiff(np.dstack([values, *[values[:, :, 0]] * more]), 2, extra=(0,) * more)
            assert np.array_equal(decode_image(data, "a").pixels, scaled(values, white))
    with_alpha = tiff(np.dstack([GREY, GREY // 2]), 1, extra=(2,))
    assert np.array_equal(decode_image(with_alpha, "a").pixels, GREY)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tiff(np.dstack([DEEP, DEEP[:, :, :2]]), 1, extra=(0,) * 4), "5 bands of 16 bits"),
        (
            tiff(np.dstack([RGB / 255, RGB[:, :, :1] / 255]).astype(np.float32), 1, extra=(0,) * 3),
            "4 bands of 32-bit floats",
        ),
        (tiff(np.dstack([GREY, GREY]), 1, extra=(0,)), "2 bands of 8 bits"),
        (tiff(RGB, 8), "CIELAB"),
        (tiff((GREY // 2).astype(np.int8), 1), "8-bit signed integers"),
        (tiff(GREY.astype(np.int16) - 100, 1), "integer values -100.."),
        (tiff(RGB / 127, 2), "floats from"),
    ],
)
def test_what_is_not_read_is_refused_by_its_name(data, words):
    refused("image-format", data, words)


@pytest.mark.parametrize(
    "layout", [{"rows": 5}, {"tile": (16, 16)}, {"rows": 5, "deflate": True}, {"planar": True, "rows": 20}]
)
def test_missing_strips_and_tiles_are_named(layout):
    assert np.array_equal(decode_image(tiff(RGB, 2, **layout), "a").pixels, RGB)
    refused("image-truncated", tiff(RGB, 2, drop=1, **layout), "missing")
    data = tiff(RGB, 2, **layout)
    refused("image-truncated", data[: len(data) // 2])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "options", [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"compression": "group4"}]
)
def test_orientation_is_obeyed_and_undone(tmp_path, orientation, options):
    picture = PILImage.fromarray(RGB)
    if options.get("compression") == "group4":
        picture = picture.convert("1")
    exif = PILImage.Exif()
    exif[0x0112] = orientation
    path, plain = tmp_path / "a.tif", tmp_path / "plain.tif"
    picture.save(path, exif=exif, **options)
    picture.save(plain, **options)
    turned, stored = decode_image(path.read_bytes(), "a"), decode_image(path.read_bytes(), "a", apply_exif=False)
    with PILImage.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    assert np.array_equal(turned.rgb(), expected)
    assert turned.orientation == orientation
    assert np.array_equal(stored.pixels, decode_image(plain.read_bytes(), "a").pixels)
    assert stored.orientation == 1
    assert read_size(path) == turned.pixels.shape[:2]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "YCbCr", "P", "LA", "1"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits", "jpeg", "tiff_adobe_deflate"])
def test_pillow_reads_the_same(mode, compression):
    picture = PILImage.fromarray(RGB).convert(mode)
    if compression == "jpeg" and mode in ("P", "LA", "1"):
        pytest.skip("libtiff does not write it")
    stream = io.BytesIO()
    picture.save(stream, "TIFF", **({"compression": compression} if compression else {}))
    with PILImage.open(stream) as opened:
        colours = "L" if mode in ("L", "LA", "1") else "RGB"
        if mode == "YCbCr":
            try:
                opened.load()
            except OSError:  # Pillow 12
                pytest.skip("this Pillow cannot read what it writes")
        expected = np.asarray(opened.convert("RGB").convert(colours) if mode == "YCbCr" else opened.convert(colours))
    found = decode_image(stream.getvalue(), "a").pixels
    assert found.shape == expected.shape
    # libtiff and Pillow round YCbCr in different ways.
    assert np.abs(found.astype(int) - expected).max() <= (mode == "YCbCr")


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("order", "<>")
def test_opencv_reads_the_same(kind, order):
    values, white = KINDS[kind]
    data = np.frombuffer(tiff(values, 2, order=order, rows=9), np.uint8)
    other = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)[:, :, ::-1]
    assert np.array_equal(decode_image(data.tobytes(), "a").pixels, scaled(other, white))


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float16", "float32", "float64"])
def test_tifffile_reads_the_same(kind, compression):
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    values, white = KINDS[kind]
    for predictor in (False, compression != "packbits"):
        for planar in ("contig", "separate"):
            stream = io.BytesIO()
            given = values if planar == "contig" else np.ascontiguousarray(values.transpose(2, 0, 1))
            tifffile.imwrite(
                stream, given, photometric="rgb", planarconfig=planar, compression=compression, predictor=predictor
            )
            other = tifffile.imread(io.BytesIO(stream.getvalue()))
            other = other if planar == "contig" else other.transpose(1, 2, 0)
            assert np.array_equal(decode_image(stream.getvalue(), "a").pixels, scaled(other, white))


def test_hostile_tags_are_named():
    data = tiff(GREY, 1, rows=3)
    for tag in (256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 322, 323):
        at = data.find(tag.to_bytes(2, "little"), len(GREY) * GREY.shape[1])
        for value in (0, 1, 65535, 2**32 - 1):
            changed = bytearray(data)
            changed[at + 8 : at + 12] = value.to_bytes(4, "little")
            try:
                decode_image(bytes(changed), "a")
            except MatchRTError as error:
                assert error.code.startswith("image-")


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_many_strips_and_planes_by_libtiff(rows):
    tifffile = pytest.importorskip("tifffile")
    values = RANDOM.integers(0, 256, (3, 1027, 17), dtype=np.uint8)
    for compression in ("packbits", "lzw"):
        if compression == "lzw":
            pytest.importorskip("imagecodecs")
        stream = io.BytesIO()
        options = {"photometric": "rgb", "planarconfig": "separate", "rowsperstrip": rows}
        tifffile.imwrite(stream, values, compression=compression, **options)
        assert np.array_equal(decode_image(stream.getvalue(), "a").pixels, values.transpose(1, 2, 0))


def test_parts_are_limited():
    data = tiff(np.zeros((20, 20), np.uint8), 1, tile=(16, 16))
    for side in (8192, 65536):
        rows, columns = (struct.pack("<HHII", tag, 4, 1, 16) for tag in (323, 322))
        assert rows in data
        assert columns in data
        changed = data.replace(rows, rows[:8] + side.to_bytes(4, "little")).replace(
            columns, columns[:8] + side.to_bytes(4, "little")
        )
        assert "tiles" in refused("image-too-large", changed).message
    data = tiff(np.zeros((16, 200_000), np.uint8), 1, tile=(16, 16))
    assert decode_image(data, "a").width == 200_000
    words = struct.pack("<HHII", 259, 3, 1, 1)
    assert "parts" in refused("image-too-large", data.replace(words, struct.pack("<HHII", 259, 3, 1, 7))).message


def test_a_height_beyond_the_single_strip():
    data = tiff(RGB, 2)
    height = struct.pack("<HHII", 257, 4, 1, len(RGB))
    assert height in data
    for rows in (len(RGB) + 1, len(RGB) + 64):
        refused("image-truncated", data.replace(height, height[:8] + struct.pack("<I", rows)))
    length = struct.pack("<HHII", 279, 4, 1, RGB.size)
    assert np.array_equal(decode_image(data.replace(length, length[:8] + bytes(4)), "a").pixels, RGB)
