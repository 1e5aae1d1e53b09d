"""Where and when photographs were taken, as their EXIF says. Only headers are read, no pixels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

_GPS, _EXIF = 0x8825, 0x8769
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE, _ALTITUDE_REF, _ALTITUDE = range(1, 7)
_TAKEN, _TAKEN_FRACTION, _TAKEN_ZONE, _CHANGED = 0x9003, 0x9291, 0x9011, 0x0132
_BELOW_SEA = (1, b"\x01")
# Metres, above which nobody takes photographs with a camera that writes places: the number means that it is unknown.
_HIGHEST = 1e5


@dataclass(frozen=True)
class Taken:
    """Where and when a photograph was taken; None for what its EXIF does not say.

    place: latitude and longitude in degrees (north and east are positive), and altitude in metres (0 if it is unknown).
    seconds: since 1970, in the camera's own clock unless EXIF has its time zone.
    """

    place: tuple[float, float, float] | None = None
    seconds: float | None = None


def read_taken(path: Path) -> Taken:
    """Reads the header of an image; a file that is no image, or has no EXIF, says nothing. Raises nothing."""
    from PIL import Image

    _register_heif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about damaged headers
            with Image.open(path) as image:
                exif = image.getexif()
                gps, own = dict(exif.get_ifd(_GPS)), dict(exif.get_ifd(_EXIF))
                changed = exif.get(_CHANGED)
    except Exception:  # Pillow's parsers raise many kinds of errors for damaged headers; all mean: nothing is known
        return Taken()
    seconds = _or_none(_seconds, own)
    return Taken(_or_none(_place, gps), _or_none(_moment, changed) if seconds is None else seconds)


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()


def _or_none(read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None


def _place(gps: dict[int, Any]) -> tuple[float, float, float] | None:
    latitude = _degrees(gps[_LATITUDE], gps.get(_LATITUDE_REF) in ("S", b"S"))
    longitude = _degrees(gps[_LONGITUDE], gps.get(_LONGITUDE_REF) in ("W", b"W"))
    altitude = float(gps.get(_ALTITUDE, 0.0))
    altitude = -altitude if gps.get(_ALTITUDE_REF) in _BELOW_SEA else altitude
    # Cameras without a fix write zeros.
    if not (abs(latitude) <= 90 and abs(longitude) <= 180) or (latitude == 0 and longitude == 0):
        return None
    return latitude, longitude, altitude if abs(altitude) < _HIGHEST else 0.0


def _degrees(value: Any, negative: bool) -> float:
    degrees, minutes, seconds = (float(part) for part in value)
    angle = degrees + minutes / 60 + seconds / 3600
    return -angle if negative else angle


def _seconds(tags: dict[int, Any]) -> float:
    seconds = _moment(tags[_TAKEN]) - _zone_seconds(str(tags.get(_TAKEN_ZONE, "")))
    fraction = str(tags.get(_TAKEN_FRACTION, "")).strip("\0 ")
    return seconds + (float(f"0.{fraction}") if fraction.isdecimal() and fraction.isascii() else 0.0)


def _moment(text: Any) -> float:
    """Seconds since 1970 of EXIF's way to write a time. Error: ValueError."""
    moment = datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    return moment.replace(tzinfo=timezone.utc).timestamp()


def _zone_seconds(text: str) -> float:
    """The offset of a zone such as `+02:00`; 0 where there is none."""
    try:
        offset = datetime.strptime(text.strip("\0 "), "%z").utcoffset()
    except ValueError:
        return 0.0
    return 0.0 if offset is None else offset.total_seconds()
