"""A model in two files, both downloaded: a small RoMa that is published on 127.0.0.1."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import support.roma
import torch
from support.commands import CommandLine
from support.download_faults import LICENCE
from support.faulty_server import FaultyServer, serve
from support.roma import TINY_FAMILY, register_tiny, roma_files, roma_state

from matchrt.errors import MatchRTError
from matchrt.export.weights.network import load_network
from matchrt.families.published import Address, PublishedFile
from matchrt.families.registry import get_spec

MODEL = "matchanything-roma"


@pytest.fixture
def published(server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The small RoMa's two files are published; returns where they are once they are downloaded."""
    monkeypatch.setenv("MATCHRT_STORE", str(tmp_path / "store"))
    files = []
    for name, tensors in zip(("own.ckpt", "dinov2.pth"), roma_files(roma_state()), strict=True):
        torch.save(tensors, tmp_path / name)
        data = (tmp_path / name).read_bytes()
        addresses = (Address(server.route(f"/{name}", serve(data)), "the tests"),)
        digest = hashlib.sha256(data).hexdigest()
        files.append(PublishedFile(name, "x", "https://example.org", addresses, LICENCE, sha256=digest))
    assert TINY_FAMILY.second_file is not None
    second = replace(TINY_FAMILY.second_file, published=(files[1],))
    models = tuple(replace(spec, published=(files[0],)) for spec in TINY_FAMILY.models)
    monkeypatch.setattr(support.roma, "TINY_FAMILY", replace(TINY_FAMILY, models=models, second_file=second))
    register_tiny(monkeypatch)
    return tmp_path / "store" / "weights" / "own.ckpt", tmp_path / "store" / "weights" / "dinov2.pth"


def test_both_files_come_in_one_go_and_are_taken(cli: CommandLine, published: tuple[Path, Path]) -> None:
    ran = cli("download", MODEL, "--accept-licence")
    assert ran.code == 0, ran.err
    words = shlex.split(ran.out.strip().splitlines()[-1])
    assert words[4:] == ["--checkpoint", str(published[0]), "--dinov2", str(published[1])]
    loaded = load_network(get_spec(MODEL))
    assert loaded.report.complete and loaded.supplement is not None
    assert (loaded.checkpoint.path, loaded.supplement.path) == published
    ran = cli("diagnose", "--model", MODEL, "--json")
    assert ran.code == 0 and ran.json["explained"] and ran.json["second_sha256"] is not None


def test_without_the_second_file_the_error_offers_it(cli: CommandLine, published: tuple[Path, Path]) -> None:
    cli("download", MODEL, "--accept-licence")
    published[1].unlink()
    with pytest.raises(MatchRTError) as caught:
        load_network(get_spec(MODEL))
    assert caught.value.code == "dinov2-needed" and f"matchrt download {MODEL}" in caught.value.remedy
    assert cli("diagnose", "--model", MODEL, "--json").json["state"] == "second-file-needed"
    assert cli("download", MODEL).code == 0 and load_network(get_spec(MODEL)).report.complete


def test_files_that_were_named_come_first(cli: CommandLine, published: tuple[Path, Path], tmp_path: Path) -> None:
    cli("download", MODEL, "--accept-licence")
    loaded = load_network(get_spec(MODEL), tmp_path / "own.ckpt", second_file=tmp_path / "dinov2.pth")
    assert loaded.supplement is not None
    assert (loaded.checkpoint.path, loaded.supplement.path) == (tmp_path / "own.ckpt", tmp_path / "dinov2.pth")
