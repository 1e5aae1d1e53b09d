"""All rows have data, or the image is refused; a whole image is read, whatever stands behind it."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as PILImage
from PIL import ImageFile, ImageFilter, ImageOps

from matchrt.errors import MatchRTError
from matchrt.runtime import image as image_module
from matchrt.runtime.image import as_image, decode_image, read_image

SIZE = (160, 120)


def scene(size=SIZE):
    noise = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return PILImage.fromarray(noise).filter(ImageFilter.GaussianBlur(2))


def encoded(kind, picture=None, **options):
    stream = io.BytesIO()
    (picture or scene()).save(stream, kind, **options)
    return stream.getvalue()


def pixels(data):
    return decode_image(data, "a").pixels


def pillow(data):
    return np.asarray(PILImage.open(io.BytesIO(data)))


def refused(data, code="image-truncated"):
    with pytest.raises(MatchRTError) as caught:
        decode_image(data, "a")
    assert caught.value.code == code, caught.value
    return caught.value


# -------------------------------------------------------------------------------------------------------------- JPEG

JPEGS = {
    "baseline": {},
    "grey": {"picture": scene().convert("L")},
    "444": {"subsampling": 0},
    "420": {"subsampling": 2},
    "restarts": {"restart_marker_rows": 1},
    "restarts in blocks": {"restart_marker_blocks": 3},
    "progressive": {"progressive": True},
    "progressive restarts": {"progressive": True, "restart_marker_rows": 2},
    "inks": {"picture": scene().convert("CMYK")},
    "odd": {"picture": scene((101, 77))},
    "poor": {"quality": 3},
}


@pytest.fixture(params=JPEGS.values(), ids=JPEGS.keys())
def jpeg(request):
    return encoded("JPEG", **request.param)


def test_a_whole_jpeg_is_read(jpeg):
    expected = np.asarray(PILImage.open(io.BytesIO(jpeg)).convert("RGB" if len(pillow(jpeg).shape) == 3 else "L"))
    assert np.array_equal(pixels(jpeg), expected)


def test_a_jpeg_that_lacks_only_its_end_marker_is_read(jpeg):
    assert np.array_equal(pixels(jpeg[:-2]), pixels(jpeg))
    assert np.array_equal(pixels(jpeg[:-1]), pixels(jpeg))


@pytest.mark.parametrize("behind", [b"\0" * 5000, b"\xff" * 100, b"more\xff\xd8\xff\xe0\0\x10JFIF" * 50])
def test_what_stands_behind_a_jpeg_does_not_matter(jpeg, behind):
    assert np.array_equal(pixels(jpeg + behind), pixels(jpeg))


@pytest.mark.parametrize("marker", [b"\xff\xd9", b"\xff\xe0", b"\xff\xc4", b"\xff\x01", b"\xff\xda"])
@pytest.mark.parametrize("place", [0.3, 0.5, 0.7, 0.9])
def test_a_marker_in_the_data_ends_them(jpeg, marker, place):
    start = jpeg.find(b"\xff\xda") + 20
    at = start + int((len(jpeg) - start) * place)
    refused(jpeg[:at] + marker + jpeg[at + 2 :])


@pytest.mark.parametrize("place", [0.3, 0.6, 0.95])
def test_a_jpeg_that_is_cut_off(jpeg, place):
    start = jpeg.find(b"\xff\xda") + 20
    at = start + int((len(jpeg) - start) * place)
    refused(jpeg[:at])
    refused(jpeg[:at] + b"\xff\xd9")
    refused(jpeg[:at] + bytes(9) + b"\xff\xd9")


def frame(data):
    return max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))


def test_a_height_that_is_too_large(jpeg):
    at = frame(jpeg) + 5
    for height in (SIZE[1] + 64, SIZE[1] + 256, 2048):
        refused(jpeg[:at] + struct.pack(">H", height) + jpeg[at + 2 :])


def test_lost_restart_markers_and_lost_bytes_before_them():
    data = encoded("JPEG", restart_marker_rows=1)
    at = data.find(b"\xff\xd3")
    refused(data[:at] + data[at + 2 :])
    refused(data[: at - 100] + data[at:])


def test_grey_halves_are_read():
    half = scene()
    half.paste((128, 128, 128), (0, 60, 160, 120))
    for options in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
        assert pixels(encoded("JPEG", half, quality=90, **options))[80:].std() < 2


def scans_of(data):
    """(start of the marker, end of the data) of every scan."""
    starts = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    return [(start, end) for start, end in zip(starts, [*starts[1:], len(data) - 2], strict=True)]


def test_a_progressive_jpeg_whose_last_scans_are_missing():
    data = encoded("JPEG", progressive=True)
    for start, _ in scans_of(data)[1:]:
        before = data[:start].rfind(b"\xff\xc4")
        refused(data[:before] + b"\xff\xd9")


def test_scans_are_limited():
    data = encoded("JPEG", PILImage.new("L", (3000, 3000), 128), progressive=True)
    start, end = scans_of(data)[-1]
    assert pixels(data[:-2] + data[start:end] * 5 + b"\xff\xd9").shape == (3000, 3000)
    assert "scans" in refused(data[:-2] + data[start:end] * 1000 + b"\xff\xd9", "image-too-large").message


def test_kinds_of_jpeg_that_are_not_read_are_named():
    data = encoded("JPEG")
    at = frame(data)
    for marker, words in ((0xC3, "lossless"), (0xC9, "arithmetic"), (0xC5, "hierarchical")):
        assert words in refused(data[: at + 1] + bytes([marker]) + data[at + 2 :], "image-format").message
    assert "12 bits" in refused(data[: at + 4] + b"\x0c" + data[at + 5 :], "image-format").message


def test_profiles_and_makers_data_cost_nothing():
    data = encoded("JPEG")
    segment = b"\xff\xe2" + struct.pack(">H", 60000) + b"ICC_PROFILE\0\1\1" + bytes(59984)
    assert np.array_equal(pixels(data[:2] + segment * 40 + data[2:]), pixels(data))
    assert "segments" in refused(data[:2] + b"\xff\xe2\0\2" * 10000 + data[2:], "image-too-large").message


# --------------------------------------------------------------------------------------------------------------- PNG


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(raw, interlaced=False, colour=2, more=()):
    header = struct.pack(">IIBBBBB", *SIZE, 8, colour, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b""))
    )


ROWS = b"".join(b"\0" + row.tobytes() for row in np.asarray(scene()))


def test_a_png_has_all_rows():
    assert np.array_equal(pixels(png(ROWS)), np.asarray(scene()))
    row = 1 + 3 * SIZE[0]
    for rows in (0, 1, 30, 119):
        refused(png(ROWS[: rows * row]))
    refused(png(ROWS[:-1]))


def test_black_rows_are_data():
    black = scene()
    black.paste((0, 0, 0), (0, 40, 160, 120))
    for options in ({}, {"optimize": True}):
        assert not pixels(encoded("PNG", black, **options))[40:].any()
    for mode in ("L", "P", "1", "RGBA", "I;16"):
        picture = PILImage.new(mode, SIZE)
        if mode == "P":  # Pillow 12 writes BMP files that it cannot read itself if the palette is empty
            picture.putpalette([0] * 768)
        for kind in ("PNG", "TIFF", "BMP", "GIF", "PPM"):
            if (mode, kind) in (("RGBA", "GIF"), ("I;16", "GIF"), ("I;16", "BMP"), ("RGBA", "PPM"), ("P", "PPM")):
                continue
            assert not pixels(encoded(kind, picture)).any()


def interlaced(image):
    raw = b""
    passes = (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
    for column, row, across, down in passes:
        raw += b"".join(b"\0" + line.tobytes() for line in image[row::down, column::across])
    return raw


@pytest.mark.parametrize("missing", range(1, 13))
def test_a_whole_png_that_lacks_its_end(missing):
    assert np.array_equal(pixels(png(ROWS)[:-missing]), np.asarray(scene()))
    refused(png(ROWS)[: -missing - 12])


def test_an_interlaced_png_has_all_passes():
    raw = interlaced(np.asarray(scene()))
    assert np.array_equal(pixels(png(raw, True)), np.asarray(scene()))
    for part in (0.1, 0.5, 0.9):
        refused(png(raw[: int(len(raw) * part)], True))
    refused(png(raw[:-1], True))


def test_texts_and_profiles_of_a_png_cost_nothing():
    bomb = zlib.compress(bytes(300_000_000))
    more = chunk(b"zTXt", b"Comment\0\0" + bomb), chunk(b"iCCP", b"icc\0\0" + bomb), chunk(b"tEXt", b"Title\0x")
    more = (*more, chunk(b"zTXt", b"Raw profile type exif\0\0" + bomb))
    assert np.array_equal(pixels(png(ROWS, more=more)), np.asarray(scene()))


# ------------------------------------------------------------------------------------------------------------ others

OTHERS = {
    "bmp": encoded("BMP"),
    "bmp palette": encoded("BMP", scene().quantize(16)),
    "ppm": encoded("PPM"),
    "pgm": encoded("PPM", scene().convert("L")),
    "gif": encoded("GIF", scene().quantize(64)),
    "gif not interlaced": encoded("GIF", scene().quantize(64), interlace=0),
    "webp": encoded("WEBP"),
    "webp lossless": encoded("WEBP", lossless=True),
    "jpeg2000": encoded("JPEG2000"),
    "jpeg2000 tiles": encoded("JPEG2000", tile_size=(64, 64)),
    "tiff fax": encoded("TIFF", scene().convert("1"), compression="group4"),
    "tiff jpeg": encoded("TIFF", compression="jpeg"),
    "tiff lzw": encoded("TIFF", compression="tiff_lzw"),
}


@pytest.fixture(params=OTHERS.values(), ids=OTHERS.keys())
def other(request):
    return request.param


@pytest.mark.parametrize("part", [0.3, 0.6, 0.97])
def test_a_file_that_is_cut_off(other, part):
    assert pixels(other).shape[:2] == SIZE[::-1]
    refused(other[: int(len(other) * part)])


def test_bytes_behind_an_image_do_not_matter(other):
    assert np.array_equal(pixels(other + bytes(100_000)), pixels(other))


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("rows", [None, 16])
def test_a_fax_whose_codes_end_early(compression, rows):
    more = {} if rows is None else {"tiffinfo": {278: rows}}
    picture = scene().convert("1")
    data = encoded("TIFF", picture, compression=compression, **more)
    assert np.array_equal(pixels(data), np.asarray(picture.convert("L")))
    with PILImage.open(io.BytesIO(data)) as opened:
        lengths = opened.tag_v2[279]
    for part in (0.3, 0.6, 0.95):
        changed = data.replace(struct.pack("<I", lengths[0]), struct.pack("<I", int(lengths[0] * part)))
        assert changed != data
        refused(changed)


def sub_blocks(data):
    return b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255)) + b"\0"


def gif_parts(data):
    """(what comes before the codes, the codes) of a GIF of one frame."""
    at = 13 + 3 * (2 << (data[10] & 7))
    while data[at : at + 1] == b"!":
        at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    table = 3 * (2 << (data[at + 9] & 7)) if data[at + 9] & 0x80 else 0
    start = at + 10 + table + 1
    codes, at = b"", start
    while data[at]:
        codes += data[at + 1 : at + 1 + data[at]]
        at += data[at] + 1
    return data[:start], codes


@pytest.mark.parametrize("kind", ["gif", "gif not interlaced"])
@pytest.mark.parametrize("part", [0.2, 0.6, 0.95])
def test_a_gif_whose_codes_end_early(kind, part):
    before, codes = gif_parts(OTHERS[kind])
    assert np.array_equal(pixels(before + sub_blocks(codes) + b";"), pixels(OTHERS[kind]))
    refused(before + sub_blocks(codes[: int(len(codes) * part)]) + b";")


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["webp", "webp lossless"])
def test_a_webp_whose_chunk_is_short(kind, part):
    data = OTHERS[kind]
    payload = data[20 : 20 + int((len(data) - 20) * part) // 2 * 2]
    refused(b"RIFF" + struct.pack("<I", len(payload) + 12) + data[8:16] + struct.pack("<I", len(payload)) + payload)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["jpeg2000", "jpeg2000 tiles"])
def test_a_jpeg2000_with_an_end_marker_in_the_middle(kind, part):
    data = OTHERS[kind]
    refused(data[: int(len(data) * part)] + b"\xff\xd9")


@pytest.mark.parametrize("bare", [True, False])
def test_a_jpeg2000_that_lacks_a_tile(bare):
    data = encoded("JPEG2000", tile_size=(64, 64), no_jp2=bare)
    assert pixels(data).shape[:2] == SIZE[::-1]
    tiles = [at for at in range(len(data)) if data[at : at + 4] == b"\xff\x90\0\x0a"]
    assert len(tiles) == 6
    for index, start in enumerate(tiles[:-1]):
        shorter = data[:start] + data[tiles[index + 1] :]
        assert "1 of its 6 tiles" in refused(shorter).message
        half = (tiles[index + 1] - start) // 2
        refused(
            data[: start + 6] + struct.pack(">I", half) + data[start + 10 : start + half] + data[tiles[index + 1] :]
        )


def test_a_short_run_length_bitmap():
    header = struct.pack("<IiiHHIIiiII", 40, *SIZE, 1, 8, 1, 0, 0, 0, 256, 0)
    palette = bytes(range(256)) * 4
    rows = (bytes([SIZE[0], 7]) + b"\0\0") * SIZE[1]
    for body, whole in ((rows + b"\0\1", True), (rows[: len(rows) // 2] + b"\0\1", False)):
        offset = 14 + len(header) + len(palette)
        data = b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header + palette + body
        if whole:
            assert pixels(data).shape[:2] == SIZE[::-1]
        else:
            refused(data)


def test_a_plain_ppm_with_few_numbers():
    refused(b"P3\n160 120\n255\n" + b"12 " * 5000)


def test_huge_frames_and_canvases_are_refused_before_memory_is_taken():
    head = b"GIF89a" + struct.pack("<HHBBB", 64, 64, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    refused(head + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\x00;")
    size = (16383).to_bytes(3, "little")
    refused(b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + size + size, "image-too-large")


@pytest.mark.parametrize("kind", ["WEBP", "JPEG", "PNG", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "TIFF"])
def test_a_hole_behind_an_image_is_not_read(tmp_path, kind):
    path = tmp_path / "sparse"
    scene().save(path, kind)
    expected = read_image(path).pixels
    with path.open("r+b") as stream:
        stream.truncate(8 << 30)
    assert np.array_equal(read_image(path).pixels, expected)


@pytest.mark.parametrize(
    "head", [b"GIF89a\1\1\1\1\0\0\0", b"P6\n", b"P3 ", b"BM", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]
)
@pytest.mark.parametrize("fill", [b"\0", b" ", b"\xff"])
def test_files_of_nothing_are_refused_at_once(tmp_path, head, fill):
    path = tmp_path / "nothing"
    path.write_bytes(head + fill * 20_000_000)
    with pytest.raises(MatchRTError) as caught:
        read_image(path)
    assert caught.value.code.startswith("image-")


def test_a_disk_that_fails_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    scene().save(path)

    class Failing(io.BytesIO):
        def read(self, count=-1):
            raise OSError(5, "Input/output error")

    data = path.read_bytes()
    monkeypatch.setattr(type(path), "open", lambda *_, **__: Failing(data))
    with pytest.raises(MatchRTError) as caught:
        read_image(path)
    assert caught.value.code == "image-unreadable"
    assert "Input/output error" in caught.value.message


def test_no_file_is_opened_by_the_name_of_bytes(tmp_path, monkeypatch):
    """Pillow would map the file of that name in place of the bytes."""
    monkeypatch.chdir(tmp_path)
    PILImage.new("RGB", SIZE, "red").save("a", "PNG")
    data = encoded("BMP", scene().convert("L"))
    assert np.array_equal(decode_image(data, "a").pixels, np.asarray(scene().convert("L")))


def test_a_program_that_takes_cut_off_images_gets_none_here(monkeypatch, jpeg):
    """Training code often sets this flag of Pillow, which is one for the whole program."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert decode_image(jpeg, "a").height in (120, 77)
    start = jpeg.find(b"\xff\xda") + 20
    refused(jpeg[: start + (len(jpeg) - start) // 2])
    refused(jpeg[: start + (len(jpeg) - start) // 2] + b"\xff\xd9")


def test_no_other_format_is_taken_half_either(monkeypatch, other):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert pixels(other).shape[:2] == SIZE[::-1]
    refused(other[: int(len(other) * 0.6)])
    refused(png(ROWS[:9999]))


def test_memory_that_does_not_suffice_is_named(monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(image_module, "to_uint8", full)
    refused(encoded("PNG"), "image-too-large")
    with pytest.raises(MatchRTError) as caught:
        as_image(np.zeros((20, 20), np.float32))
    assert caught.value.code == "image-too-large"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_orientation_of_every_format(kind, orientation):
    exif = PILImage.Exif()
    exif[0x0112] = orientation
    data = encoded(kind, exif=exif)
    upright, stored = decode_image(data, "a"), decode_image(data, "a", apply_exif=False)
    with PILImage.open(io.BytesIO(data)) as opened:
        assert np.array_equal(upright.pixels, np.asarray(ImageOps.exif_transpose(opened).convert("RGB")))
    with PILImage.open(io.BytesIO(data)) as opened:
        assert np.array_equal(stored.pixels, np.asarray(opened.convert("RGB")))
    assert (upright.orientation, stored.orientation) == (orientation, 1)


def test_an_orientation_behind_the_pixels_of_a_png():
    exif = PILImage.Exif()
    exif[0x0112] = 5
    data = encoded("PNG")
    assert decode_image(data[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + data[-12:], "a").orientation == 5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_in_xmp(kind):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    if kind == "PNG":
        text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
        data = png(ROWS, more=(text,))
    else:
        data = encoded(kind, xmp=xmp)
    assert decode_image(data, "a").orientation == 6


def a_scan_for_each_channel(shorten=None, leave_out=None):
    """A baseline JPEG with three scans. shorten: whose scan has half of its data. leave_out: which is missing."""
    bands = [encoded("JPEG", band, quality=90) for band in scene().convert("YCbCr").split()]
    first = bands[0]
    frame_at, scan_at = first.find(b"\xff\xc0"), first.find(b"\xff\xda")
    frame_end = frame_at + 2 + int.from_bytes(first[frame_at + 2 : frame_at + 4], "big")
    channels = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    size = first[frame_at + 5 : frame_at + 9]
    made = first[:frame_at] + b"\xff\xc0\0\x11\x08" + size + b"\x03" + channels + first[frame_end:scan_at]
    for number, band in enumerate(bands, start=1):
        codes = band[band.find(b"\xff\xda") + 10 : -2]
        if number == shorten:
            codes = codes[: len(codes) // 2]
        if number != leave_out:
            made += b"\xff\xda\0\x08\x01" + bytes([number]) + b"\0\0\x3f\0" + codes
    return made + b"\xff\xd9"


def test_a_jpeg_with_a_scan_for_each_channel():
    data = a_scan_for_each_channel()
    assert np.array_equal(pixels(data), pillow(data))
    assert np.abs(pixels(data).astype(int) - np.asarray(scene())).mean() < 4
    assert np.array_equal(pixels(data[:-2]), pixels(data))
    for number in (1, 2, 3):
        refused(a_scan_for_each_channel(shorten=number))
        assert "scans" in refused(a_scan_for_each_channel(leave_out=number)).message
