"""One member out of a zip file."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path

from matchrt.downloads.failures import AddressError
from matchrt.families.published import Archive


def take_member(archive: Path, wanted: Archive, target: Path, size: int | None) -> None:
    """Writes the member to `target`. The zip's own checksum of it is compared.

    size: bytes that the member must have; None if it is not known. Nothing is unpacked if the zip says otherwise, so no
        member can fill the disk. Raises `AddressError` if the zip does not hold it whole, and OSError if the file
        cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            found = [info for info in opened.infolist() if info.filename.rpartition("/")[2] == wanted.member]
            if len(found) != 1:
                raise AddressError("digest", f"has a zip file with {len(found)} members '{wanted.member}'")
            if size is not None and found[0].file_size != size:
                raise AddressError(
                    "digest", f"has a zip file whose '{wanted.member}' has {found[0].file_size} bytes, not {size}"
                )
            with opened.open(found[0]) as source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise AddressError("digest", f"has a damaged zip file ({error})") from error
