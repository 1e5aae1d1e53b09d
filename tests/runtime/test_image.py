"""Decoding and array intake: what is accepted becomes the right uint8, what is not gets its code and a remedy."""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PILImage
from PIL import ImageOps

from matchrt.errors import MatchRTError
from matchrt.runtime.image import Image, as_image, decode_image, read_image, read_size

RGB = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
GREY = RGB[:, :, 0].copy()
DEEP = np.random.default_rng(1).integers(0, 65536, (40, 64), dtype=np.uint16)


def save(path: Path, picture: PILImage.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


def fails(code: str, call, *args, **options) -> MatchRTError:
    with pytest.raises(MatchRTError) as caught:
        call(*args, **options)
    assert caught.value.code == code
    assert caught.value.message
    assert caught.value.remedy
    return caught.value


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def forged_png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size; its pixel data is one empty stream."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png16_rgb(values: np.ndarray) -> bytes:
    """A 16-bit RGB PNG, which Pillow cannot write. values: uint16 [H, W, 3]."""
    height, width, _ = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


# ---------------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_lossless_files_come_back_exactly(tmp_path, suffix):
    image = read_image(save(tmp_path / f"a{suffix}", PILImage.fromarray(RGB)))
    assert np.array_equal(image.pixels, RGB)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.flags.c_contiguous
    assert (image.height, image.width) == (40, 64)
    assert image.name == (tmp_path / f"a{suffix}").as_posix()


def test_grey_stays_grey_and_repeats_to_rgb(tmp_path):
    image = read_image(save(tmp_path / "a.png", PILImage.fromarray(GREY)))
    assert np.array_equal(image.pixels, GREY)
    assert np.array_equal(image.grey(), GREY)
    assert np.array_equal(image.rgb(), np.dstack([GREY] * 3))


def test_grey_of_rgb_is_opencvs_luma():
    assert np.array_equal(Image(RGB, "a").grey(), cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bit_grey_is_scaled_by_257(tmp_path, suffix):
    image = read_image(save(tmp_path / f"a{suffix}", PILImage.fromarray(DEEP)))
    assert np.array_equal(image.pixels, np.rint(DEEP / 257.0).astype(np.uint8))


def test_16_bit_rgb_is_within_one_level_of_257():
    deep = np.dstack([DEEP, DEEP.T.reshape(DEEP.shape), DEEP[::-1]])
    image = decode_image(png16_rgb(deep), "deep.png")
    assert image.pixels.shape == deep.shape
    assert np.abs(image.pixels - deep / 257.0).max() <= 1.0


def test_palette_becomes_its_colours(tmp_path):
    palette = PILImage.fromarray(RGB).quantize(16)
    image = read_image(save(tmp_path / "a.png", palette))
    assert np.array_equal(image.pixels, np.asarray(palette.convert("RGB")))


def test_palette_with_transparency_keeps_its_colours(tmp_path, recwarn):
    palette = PILImage.fromarray(RGB).quantize(16)
    path = save(tmp_path / "a.png", palette, transparency=bytes(range(16)))
    assert np.array_equal(read_image(path).pixels, np.asarray(palette.convert("RGB")))
    assert not recwarn.list


def test_alpha_is_ignored(tmp_path):
    alpha = PILImage.fromarray(np.zeros_like(GREY))
    rgba, la = PILImage.fromarray(RGB).convert("RGBA"), PILImage.fromarray(GREY).convert("LA")
    rgba.putalpha(alpha)
    la.putalpha(alpha)
    assert np.array_equal(read_image(save(tmp_path / "rgba.png", rgba)).pixels, RGB)
    assert np.array_equal(read_image(save(tmp_path / "la.png", la)).pixels, GREY)


def test_one_bit_becomes_black_and_white(tmp_path):
    image = read_image(save(tmp_path / "a.png", PILImage.fromarray(GREY > 128)))
    assert np.array_equal(image.pixels, np.where(GREY > 128, 255, 0))


def test_cmyk_becomes_rgb(tmp_path):
    flat = PILImage.new("RGB", (64, 40), (200, 30, 90)).convert("CMYK")
    image = read_image(save(tmp_path / "a.jpg", flat, quality=95))
    assert image.pixels.shape == (40, 64, 3)
    assert np.abs(image.pixels.reshape(-1, 3).mean(0) - (200, 30, 90)).max() < 4


def test_float_tiff_in_range(tmp_path):
    values = (GREY / 255).astype(np.float32)
    assert np.array_equal(read_image(save(tmp_path / "a.tif", PILImage.fromarray(values))).pixels, GREY)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.5, 900.0])
def test_float_tiff_out_of_range(tmp_path, bad):
    values = np.full((40, 64), 0.5, np.float32)
    values[3, 4] = bad
    fails("image-format", read_image, save(tmp_path / "a.tif", PILImage.fromarray(values)))


def test_animation_gives_the_first_frame(tmp_path):
    first, second = (PILImage.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    path = save(tmp_path / "a.gif", first, save_all=True, append_images=[second])
    assert tuple(read_image(path).pixels[5, 5]) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_exif_orientation(tmp_path, orientation, suffix):
    picture = PILImage.fromarray(RGB)
    exif = picture.getexif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a{suffix}", picture, exif=exif)
    turned = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.swapaxes(0, 1),
        6: np.rot90(RGB, -1),
        7: np.rot90(RGB, 2).swapaxes(0, 1),
        8: np.rot90(RGB),
    }[orientation]
    image = read_image(path)
    assert np.array_equal(image.pixels, turned)
    assert np.array_equal(image.pixels, np.asarray(ImageOps.exif_transpose(PILImage.open(path))))
    assert image.pixels.flags.c_contiguous
    assert read_size(path) == turned.shape[:2]
    if suffix == ".png":
        assert np.array_equal(read_image(path, apply_exif=False).pixels, RGB)


def test_unknown_orientation_is_no_orientation(tmp_path):
    picture = PILImage.fromarray(RGB)
    exif = picture.getexif()
    exif[0x0112] = 77
    assert np.array_equal(read_image(save(tmp_path / "a.png", picture, exif=exif)).pixels, RGB)


# --------------------------------------------------------------------------------------------------- what is refused


def test_missing(tmp_path):
    fails("image-missing", read_image, tmp_path / "no.png")
    fails("image-missing", read_size, tmp_path / "no.png")
    (tmp_path / "file").write_text("x")
    fails("image-missing", read_image, tmp_path / "file" / "a.png")


def test_directory_and_zero_byte_in_the_name(tmp_path):
    fails("image-unreadable", read_image, tmp_path)
    with pytest.raises(MatchRTError) as caught:  # Python versions differ in whether such a path can be asked about
        read_image("a\0.png")
    assert caught.value.code in ("image-missing", "image-unreadable")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    fails("image-unreadable", read_image, tmp_path / "pipe.png")


def test_permission_denied(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", PILImage.fromarray(RGB))

    def denied(*args, **options):  # root may read everything, so the refusal itself is put in
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert "Permission denied" in fails("image-unreadable", read_image, path).message


@pytest.mark.parametrize("content", [b"hello, I am text\n" * 20, b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\0" * 500])
def test_not_an_image(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    fails("image-format", read_image, path)
    fails("image-format", read_size, path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp", ".gif"])
@pytest.mark.parametrize("part", [0.02, 0.4, 0.9])
def test_truncated(tmp_path, suffix, part):
    path = save(tmp_path / f"a{suffix}", PILImage.fromarray(RGB))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    fails("image-truncated", read_image, path)


def test_empty_file(tmp_path):
    (tmp_path / "a.png").touch()
    fails("image-truncated", read_image, tmp_path / "a.png")


def test_damaged_pixel_data():
    data = bytearray(png16_rgb(np.dstack([DEEP] * 3)))
    data[80:300] = b"\xff" * 220
    fails("image-truncated", decode_image, bytes(data), "a.png")


def test_the_size_is_refused_before_decoding():
    error = fails("image-too-large", decode_image, forged_png(20000, 20000), "huge.png")
    assert "20000 x 20000" in error.message
    assert "50" in error.message
    assert "--max-megapixels" in error.remedy


def test_a_raised_cap_lets_the_image_reach_the_decoder(recwarn):
    fails("image-truncated", decode_image, forged_png(20000, 10000), "huge.png", max_pixels=10**9)
    assert not recwarn.list


def test_the_cap_is_inclusive(tmp_path):
    path = save(tmp_path / "a.png", PILImage.fromarray(RGB))
    assert read_image(path, max_pixels=40 * 64).height == 40
    fails("image-too-large", read_image, path, max_pixels=40 * 64 - 1)
    assert read_size(path) == (40, 64)


@pytest.mark.parametrize("size", [(1, 1), (15, 400), (400, 15)])
def test_too_small(tmp_path, size):
    fails("image-too-small", read_image, save(tmp_path / "a.png", PILImage.new("L", size)))


# ------------------------------------------------------------------------------------------------------------ arrays


def test_arrays_of_every_accepted_kind():
    assert np.array_equal(as_image(GREY).pixels, GREY)
    assert np.array_equal(as_image(GREY[:, :, None]).pixels, GREY)
    assert np.array_equal(as_image(RGB).pixels, RGB)
    assert np.array_equal(as_image(np.dstack([RGB, GREY])).pixels, RGB)
    assert np.array_equal(as_image(DEEP).pixels, np.rint(DEEP / 257.0))
    assert np.array_equal(as_image(GREY > 9).pixels, np.where(GREY > 9, 255, 0))
    for kind in (np.float16, np.float32, np.float64):
        assert np.array_equal(as_image((RGB / 255).astype(kind)).pixels, RGB)


def test_bgr_is_turned_to_rgb():
    assert np.array_equal(as_image(RGB[:, :, ::-1], channel_order="bgr").pixels, RGB)
    assert np.array_equal(as_image(np.dstack([RGB[:, :, ::-1], GREY]), channel_order="bgr").pixels, RGB)
    assert np.array_equal(as_image(GREY, channel_order="bgr").pixels, GREY)
    fails("image-array", as_image, RGB, channel_order="grb")


def test_results_are_contiguous_and_named():
    image = as_image(RGB[::2, ::2], name="left")
    assert image.pixels.flags.c_contiguous
    assert image.name == "left"


def test_paths_images_and_pillow_images(tmp_path):
    path = save(tmp_path / "a.png", PILImage.fromarray(RGB))
    image = as_image(path)
    assert np.array_equal(image.pixels, RGB)
    assert as_image(str(path)).name == path.as_posix()
    assert as_image(image) is image
    palette = PILImage.fromarray(RGB).quantize(8)
    assert np.array_equal(as_image(palette).pixels, np.asarray(palette.convert("RGB")))
    fails("image-missing", as_image, "no-such-image.png")


class Tensor:
    """Something with __array__, such as a tensor, that may refuse."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        if self.values is None:
            raise TypeError("is on the GPU")
        return self.values


def test_foreign_arrays():
    assert np.array_equal(as_image(Tensor(RGB)).pixels, RGB)
    assert "GPU" in fails("image-array", as_image, Tensor(None)).message


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((0, 0), np.uint8),
        np.zeros((40, 0, 3), np.uint8),
        np.zeros(40, np.uint8),
        np.float32(3),
        np.zeros((1, 40, 64, 3), np.uint8),
        np.zeros((40, 64, 2), np.uint8),
        np.zeros((40, 64, 5), np.uint8),
        np.full((40, 64), None, object),
        np.zeros((40, 64), np.int32),
        np.zeros((40, 64), complex),
        np.full((40, 64), np.nan),
        np.full((40, 64), 1.5),
        np.full((40, 64), -0.1, np.float32),
        [[1, 2], [3, 4]],
        None,
        7,
    ],
)
def test_arrays_that_are_no_images(value):
    fails("image-array", as_image, value)


def test_channels_first_is_told_to_transpose():
    assert "transpose" in fails("image-array", as_image, np.zeros((3, 40, 64), np.uint8)).remedy


def test_arrays_obey_the_sizes():
    fails("image-too-small", as_image, np.zeros((8, 64), np.uint8))
    fails("image-too-large", as_image, RGB, max_pixels=100)
    fails("image-too-large", as_image, Image(RGB, "a"), max_pixels=100)
    fails("image-too-large", as_image, PILImage.fromarray(RGB), max_pixels=100)


def test_bytes_in_memory_decode_like_a_file():
    buffer = io.BytesIO()
    PILImage.fromarray(RGB).save(buffer, "PNG")
    image = decode_image(buffer.getvalue(), "upload")
    assert np.array_equal(image.pixels, RGB)
    assert image.name == "upload"
