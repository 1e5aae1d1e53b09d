"""The table of formats and suffixes, and HEIF, which needs a package."""

import io
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as PILImage
from PIL import ImageFilter

from matchrt.errors import MatchRTError
from matchrt.runtime.decoding import formats, heif
from matchrt.runtime.image import decode_image, read_image, read_size

HEIC = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(400)


def test_suffixes_are_read_or_have_a_reason():
    for suffix in (".jpg", ".JPEG", ".jpe", ".jfif", ".png", ".tif", ".webp", ".pgm", ".j2k", ".avif"):
        assert suffix.lower() in formats.SUFFIXES
        assert formats.unread_reason(suffix) is None
    for suffix in (".cr2", ".DNG", ".exr", ".svg", ".psd", ".jxl"):
        assert suffix.lower() in formats.SUFFIXES
        assert "not read" in formats.unread_reason(suffix)
    assert "no image" in formats.unread_reason(".txt")
    assert ".txt" not in formats.SUFFIXES


def test_heif_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(heif, "find_spec", lambda _: None)
    monkeypatch.setattr(formats, "find_spec", lambda _: None)
    with pytest.raises(MatchRTError) as caught:
        decode_image(HEIC, "a.heic")
    assert caught.value.code == "image-format"
    assert "pip install pillow-heif" in caught.value.remedy
    assert "pillow-heif" in formats.unread_reason(".HEIC")


def test_avif_of_heifs_brands_is_avif():
    assert heif.accepts(HEIC[:32])
    assert not heif.accepts(HEIC[:16] + b"mif1avif" + HEIC[24:32])
    stream = io.BytesIO()
    PILImage.new("RGB", (40, 30), "red").save(stream, "AVIF")
    assert not heif.accepts(stream.getvalue()[:32])


def test_whatever_libheif_says_is_named(monkeypatch):
    def opened(stream):
        raise ValueError(f"Invalid input:\n no box in {len(stream.read())} bytes")

    monkeypatch.setattr(heif, "find_spec", lambda _: True)
    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(HeifImageFile=opened))
    with pytest.raises(MatchRTError) as caught:
        decode_image(HEIC, "a.heic")
    assert caught.value.code == "image-truncated"
    assert "no box" in caught.value.message
    assert "\n" not in caught.value.message


def test_heif_is_read(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    assert formats.unread_reason(".heic") is None
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    picture = PILImage.fromarray(noise).filter(ImageFilter.GaussianBlur(3))
    path = tmp_path / "a.heic"
    pillow_heif.from_pillow(picture).save(path, quality=95)
    image = read_image(path)
    assert np.abs(image.pixels.astype(int) - np.asarray(picture)).mean() < 4
    assert read_size(path) == (90, 120)
    data = path.read_bytes()
    for part in (0.1, 0.5, 0.95):
        with pytest.raises(MatchRTError) as caught:
            decode_image(data[: int(len(data) * part)], "a.heic")
        assert caught.value.code == "image-truncated"
