"""Damaged training checkpoints: each is refused by a named error, or read equal."""

from __future__ import annotations

import io
import time
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from safetensors.torch import save
from support.mutants import mutant
from support.training_files import STYLES, small_state

from matchrt.errors import MatchRTError
from matchrt.export.weights.read import digest_tensors, read_stored

CODES = {
    "checkpoint-truncated",
    "checkpoint-unsafe",
    "checkpoint-format",
    "checkpoint-empty",
    "checkpoint-ambiguous",
    "checkpoint-tensor",
    "checkpoint-nonfinite",
}


def _files(folder: Path) -> dict[str, bytes]:
    files = {}
    for style, write in STYLES.items():
        for protocol in (2, 5):
            write(small_state(), folder / "x.ckpt", pickle_protocol=protocol)
            files[f"{style}, protocol {protocol}"] = (folder / "x.ckpt").read_bytes()
    return files


def _verdict(path: Path, data: bytes, digest: str, what: str) -> str:
    path.write_bytes(data)
    try:
        found = read_stored(path)
    except MatchRTError as error:
        assert error.code in CODES, (what, error)
        assert len(error.message) < 600 and error.message.isprintable(), what
        return error.code
    assert found.tensors_sha256 == digest, what
    return "equal"


@pytest.mark.parametrize("first", range(0, 1000, 250))
def test_a_thousand_mutants_are_refused_or_equal(tmp_path: Path, first: int) -> None:
    files, digest = _files(tmp_path), digest_tensors(small_state())
    names, verdicts = list(files), Counter[str]()
    start = time.process_time()
    tracemalloc.start()
    try:
        for seed in range(first, first + 250):
            name = names[seed % len(names)]
            what, data = mutant(files[name], seed)
            verdicts[_verdict(tmp_path / "y.ckpt", data, digest, f"{name}, seed {seed}: {what}")] += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 60 and peak < 100_000_000
    assert verdicts["equal"] > 20 and verdicts["checkpoint-truncated"] > 100


def _with_damaged_pickle(data: bytes, seed: int) -> tuple[str, bytes]:
    """The archive again, with another pickle and the checksum of that."""
    made, what = io.BytesIO(), ""
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            record = old.read(name)
            if name.endswith("data.pkl"):
                what, record = mutant(record, seed)
            new.writestr(name, record)
    return what, made.getvalue()


def test_mutants_of_the_pickle_alone_raise_nothing_else(tmp_path: Path) -> None:
    """Here all checksums fit, so that the pickle is reached. Some mutants are checkpoints of other names or types."""
    files, verdicts = list(_files(tmp_path).values()), Counter[str]()
    for seed in range(400):
        what, data = _with_damaged_pickle(files[seed % len(files)], seed)
        (tmp_path / "y.ckpt").write_bytes(data)
        try:
            read_stored(tmp_path / "y.ckpt")
            verdicts["read"] += 1
        except MatchRTError as error:
            assert error.code in CODES, what
            verdicts[error.code] += 1
    assert verdicts["checkpoint-truncated"] > 50 and verdicts["read"] > 20


@pytest.mark.parametrize("form", ["legacy", "safetensors"])
def test_mutants_of_formats_without_checksums_raise_nothing_else(tmp_path: Path, form: str) -> None:
    """There a changed weight cannot be seen, but no damage leads to anything but a named error."""
    STYLES["lightning-1"](small_state(), tmp_path / "x.ckpt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "x.ckpt").read_bytes() if form == "legacy" else save(small_state())
    verdicts = Counter[str]()
    for seed in range(400):
        what, changed = mutant(data, seed)
        (tmp_path / "y.ckpt").write_bytes(changed)
        try:
            read_stored(tmp_path / "y.ckpt")
        except MatchRTError as error:
            assert error.code in CODES, what
            verdicts[error.code] += 1
    assert verdicts["checkpoint-truncated"] > 50
