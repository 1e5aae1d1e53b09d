"""`matchrt download`, `matchrt models`, and the commands that take what was downloaded, as users type them."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import typer
from support.commands import CommandLine
from support.download_faults import QUICK
from support.faulty_server import FaultyServer, answer, faulty_server, serve

from matchrt.downloads import download as downloading
from matchrt.families import dinov2, loftr, roma
from matchrt.families.definition import FamilyDefinition, ModelSpec
from matchrt.families.published import Address, Licence, PublishedFile
from matchrt.families.registry import get_spec

LICENCE = Licence("CC-BY-4.0", "2026-02-03", "since", "It was another one before.")


@dataclass
class Place:
    """A server with a model's weights, and the table as it would be if they were published there.

    data: the file. file: the table's line. root: the folder that downloads go to.
    """

    server: FaultyServer
    data: bytes
    file: PublishedFile
    root: Path


def _file(server: FaultyServer, name: str, data: bytes, *, pinned: bool = True) -> PublishedFile:
    url = server.route(f"/{name}", serve(data))
    return PublishedFile(
        name=name,
        title="weights of the tests",
        page="https://example.org/weights",
        addresses=(Address(url, "the tests"),),
        licence=LICENCE,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest() if pinned else None,
    )


def _publish(monkeypatch: pytest.MonkeyPatch, module: Any, family: str, model: str, *files: PublishedFile) -> None:
    """Has the table say that the model's weights are these files."""
    known: FamilyDefinition = getattr(module, family)

    def changed(spec: ModelSpec) -> ModelSpec:
        return replace(spec, published=files) if spec.name == model else spec

    monkeypatch.setattr(module, family, replace(known, models=tuple(changed(spec) for spec in known.models)))


@pytest.fixture
def place(coarse_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """`coarse-loftr` is published on 127.0.0.1."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("MATCHRT_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(
        downloading.download, "__kwdefaults__", {**downloading.download.__kwdefaults__, "settings": QUICK}
    )
    with faulty_server() as server:
        data = coarse_checkpoint.read_bytes()
        file = _file(server, "coarse.ckpt", data)
        _publish(monkeypatch, loftr, "LOFTR_FAMILY", "coarse-loftr", file)
        yield Place(server, data, file, tmp_path / "store" / "weights")


def _terminal(monkeypatch: pytest.MonkeyPatch, answered: bool) -> list[str]:
    """A user at a terminal who answers so. Returns the questions."""
    asked: list[str] = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "confirm", lambda text, **_: asked.append(text) or answered)
    return asked


def test_the_file_comes_and_the_next_command_is_printed(cli: CommandLine, place: Place) -> None:
    ran = cli("download", "coarse-loftr", "--accept-licence")
    assert ran.code == 0, ran.err
    path = place.root / "coarse.ckpt"
    assert path.read_bytes() == place.data
    assert "CC-BY-4.0 (since 2026-02-03)" in ran.err and LICENCE.note in ran.err
    assert place.file.sha256 is not None and place.file.sha256 in ran.out
    assert f"next: matchrt build coarse-loftr --checkpoint {shlex.quote(str(path))}" in ran.out


def test_a_second_time_nothing_is_asked_for(cli: CommandLine, place: Place) -> None:
    cli("download", "coarse-loftr", "--accept-licence")
    place.server.shutdown()  # no network is needed any more
    place.server.server_close()
    ran = cli("download", "coarse-loftr")
    assert ran.code == 0 and "was there already" in ran.out, ran.err
    assert LICENCE.note not in ran.err


def test_json(cli: CommandLine, place: Place) -> None:
    ran = cli("download", "coarse-loftr", "--accept-licence", "--json")
    (file,) = ran.json["files"]
    assert file["state"] == "downloaded" and file["sha256"] == place.file.sha256 and file["bytes"] == len(place.data)
    stated = {"name": "CC-BY-4.0", "date": "2026-02-03", "dated": "since", "note": LICENCE.note, "commercial": False}
    assert file["licence"] == stated
    assert file["address"] == place.server.url("/coarse.ckpt") and file["sha256_from"] == "published"
    assert ran.json["next"].startswith("matchrt build coarse-loftr --checkpoint ")
    assert cli("download", "coarse-loftr", "--json").json["files"][0]["state"] == "there"


def test_without_a_licence_nothing_comes(cli: CommandLine, place: Place) -> None:
    for options in ((), ("--json",)):
        ran = cli.fails("licence-not-accepted", "download", "coarse-loftr", *options)
        assert "--accept-licence" in ran.err and LICENCE.note in ran.err
    assert json.loads(ran.out)["error"]["code"] == "licence-not-accepted"
    assert not place.server.routes["/coarse.ckpt"].ranges and not (place.root / "coarse.ckpt").exists()


def test_on_a_terminal_the_licence_is_asked_for_once(
    cli: CommandLine, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    _terminal(monkeypatch, answered=False)
    cli.fails("licence-not-accepted", "download", "coarse-loftr")
    asked = _terminal(monkeypatch, answered=True)
    assert cli("download", "coarse-loftr").code == 0 and len(asked) == 1
    (place.root / "coarse.ckpt").unlink()
    assert cli("download", "coarse-loftr").code == 0 and len(asked) == 1
    # --json never asks, and another licence is another question.
    newer = replace(place.file, licence=replace(LICENCE, date="2026-05-05"))
    _publish(monkeypatch, loftr, "LOFTR_FAMILY", "coarse-loftr", newer)
    cli.fails("licence-not-accepted", "download", "coarse-loftr", "--json")
    assert cli("download", "coarse-loftr").code == 0 and len(asked) == 2


def test_two_files_in_one_go(cli: CommandLine, place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = _file(place.server, "roma.pth", place.data)
    second = _file(place.server, "dino.pth", place.data[::-1])
    with_second = replace(dinov2.DINOV2_FILE, published=(second,))
    monkeypatch.setattr(roma, "ROMA_FAMILY", replace(roma.ROMA_FAMILY, second_file=with_second))
    _publish(monkeypatch, roma, "ROMA_FAMILY", "roma-outdoor", first)
    ran = cli("download", "roma-outdoor", "--accept-licence", "--output", tmp_path / "with blanks")
    paths = [tmp_path / "with blanks" / name for name in ("roma.pth", "dino.pth")]
    assert [path.read_bytes() for path in paths] == [place.data, place.data[::-1]]
    for stated in ("roma.pth: weights of the tests", "dino.pth: weights of the tests"):
        assert stated in ran.err
    words = shlex.split(ran.out.strip().splitlines()[-1].removeprefix("next: "))
    assert words == ["matchrt", "build", "roma-outdoor", "--checkpoint", str(paths[0]), "--dinov2", str(paths[1])]


@pytest.mark.parametrize("folder", [True, False])
def test_from_another_address(cli: CommandLine, place: Place, folder: bool) -> None:
    place.server.routes.pop("/coarse.ckpt")
    url = place.server.route("/mirror/coarse.ckpt" if folder else "/any", serve(place.data))
    url = place.server.url("/mirror/") if folder else url
    assert cli("download", "coarse-loftr", "--accept-licence", "--from", url).code == 0
    assert (place.root / "coarse.ckpt").read_bytes() == place.data


def test_another_of_several_files(cli: CommandLine, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    other = _file(place.server, "other.safetensors", place.data)
    _publish(monkeypatch, loftr, "LOFTR_FAMILY", "coarse-loftr", place.file, other)
    ran = cli("download", "coarse-loftr", "--accept-licence", "--file", "other.safetensors", "--json")
    assert [file["name"] for file in ran.json["files"]] == ["other.safetensors"]
    assert "coarse.ckpt, other.safetensors" in cli.fails("download-file", "download", "coarse-loftr", "--file", "x").err


def test_a_digest_that_nobody_knows_is_shown_and_recorded(
    cli: CommandLine, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = _file(place.server, "coarse.ckpt", place.data, pinned=False)
    _publish(monkeypatch, loftr, "LOFTR_FAMILY", "coarse-loftr", unknown)
    assert "no digest is published" in cli("models").out
    ran = cli("download", "coarse-loftr", "--accept-licence")
    digest = hashlib.sha256(place.data).hexdigest()
    assert f"{digest} (not published: recorded, and compared from now on)" in ran.out
    assert f"sha256 {digest} (recorded here, none is published), downloaded" in cli("models").out


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("model-unknown", ("loftr-outdor",)),
        ("download-address", ("coarse-loftr", "--from", "coarse.ckpt")),
        ("download-address", ("loftr-indoor", "--accept-licence", "--from", "http://mirror.invalid/indoor_ds.ckpt")),
        ("download-file", ("coarse-loftr", "--file", "../x")),
        ("usage", ("coarse-loftr", "--resume")),
    ],
)
def test_bad_options(cli: CommandLine, place: Place, code: str, arguments: tuple[str, ...]) -> None:
    cli.fails(code, "download", *arguments)
    assert not place.root.exists()


def test_weights_without_an_address(cli: CommandLine, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(monkeypatch, loftr, "LOFTR_FAMILY", "coarse-loftr")
    assert get_spec("coarse-loftr").origin in cli.fails("download-unknown", "download", "coarse-loftr").err


def test_bundled_weights_need_no_download(cli: CommandLine) -> None:
    assert "in the package" in cli("download", "loftr-lite").out
    document = cli("download", "loftr-lite", "--json").json
    assert document == {"model": "loftr-lite", "bundled": True, "files": [], "next": "matchrt build loftr-lite"}


def test_a_failure_says_how_to_go_on_by_hand(cli: CommandLine, place: Place, tmp_path: Path) -> None:
    place.server.route("/coarse.ckpt", answer(200, b"<html>quota</html>", Content_Type="text/html"))
    ran = cli.fails("download-page", "download", "coarse-loftr", "--accept-licence", "--output", tmp_path / "by hand")
    target = tmp_path / "by hand" / "coarse.ckpt"
    assert f"put it at '{target}'" in ran.err and "https://example.org/weights" in ran.err
    command = ran.err.split("and run: ")[1].strip()
    target.write_bytes(place.data)
    ran = cli(*shlex.split(command)[1:])
    assert ran.code == 0 and "was put there" in ran.out, ran.err


def test_ctrl_c_says_that_what_came_is_kept(cli: CommandLine, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(downloading, "transfer", interrupted)
    ran = cli("download", "coarse-loftr", "--accept-licence")
    assert ran.code == 130 and "goes on from there" in ran.err


# What takes the file afterwards.


def test_without_a_download_the_error_offers_it(cli: CommandLine, place: Place) -> None:
    for arguments in (("build", "coarse-loftr"), ("diagnose", "--model", "coarse-loftr")):
        assert "matchrt download coarse-loftr" in cli.fails("checkpoint-needed", *arguments).err


def test_diagnose_takes_the_downloaded_file(cli: CommandLine, place: Place, tmp_path: Path) -> None:
    cli("download", "coarse-loftr", "--accept-licence")
    ran = cli("diagnose", "--model", "coarse-loftr", "--json")
    assert ran.json["explained"] and ran.json["path"] == str(place.root / "coarse.ckpt")
    cli.fails("checkpoint-needed", "diagnose", "--model", "coarse-loftr", "--store", tmp_path / "another")


def test_a_file_that_was_changed_is_not_taken(cli: CommandLine, place: Place) -> None:
    cli("download", "coarse-loftr", "--accept-licence")
    path = place.root / "coarse.ckpt"
    path.write_bytes(place.data[:-1] + bytes([place.data[-1] ^ 1]))
    cli.fails("checkpoint-needed", "diagnose", "--model", "coarse-loftr")
    assert str(path) in cli.fails("download-digest", "download", "coarse-loftr").err


def test_convert_flax_takes_the_downloaded_file(cli: CommandLine, place: Place, tmp_path: Path) -> None:
    pytest.importorskip("flax")
    cli("download", "coarse-loftr", "--accept-licence")
    output = tmp_path / "coarse.npz"
    ran = cli("convert-flax", "--model", "coarse-loftr", "--part", "transformer", "--output", output)
    assert ran.code == 0 and output.is_file() and str(place.root / "coarse.ckpt") in ran.out, ran.err
    cli.fails("usage", "convert-flax", "--output", tmp_path / "x.npz")


@pytest.mark.slow
def test_build_takes_the_downloaded_file_and_says_so(cli: CommandLine, place: Place, tmp_path: Path) -> None:
    store = tmp_path / "another"
    assert cli("download", "coarse-loftr", "--accept-licence", "--store", store).code == 0
    size = ("--height", "192", "--width", "256", "--max-matches", "256")
    ran = cli("build", "coarse-loftr", *size, "--store", store)
    assert ran.code == 0 and f"{store / 'weights' / 'coarse.ckpt'} (downloaded, digest verified)" in ran.out, ran.err
    ran = cli("build", "coarse-loftr", *size, "--store", store, "--json")
    assert ran.json["downloaded"] == [str(store / "weights" / "coarse.ckpt")] and ran.json["cached"]
    assert [engine["manifest"]["model"] for engine in cli("engines", "--json", "--store", store).json] == [
        "coarse-loftr"
    ]


# The list.


def test_models_say_size_digest_licence_and_address_of_each_file(cli: CommandLine, place: Place) -> None:
    rows = {row["name"]: row for row in cli("models", "--json").json}
    (file,) = rows["loftr-outdoor"]["files"]
    assert file["bytes"] == 46_341_978 and file["sha256"].startswith("21f5bec5") and file["state"] == "not here"
    assert file["licence"]["name"] == "Apache-2.0" and file["licence"]["date"]
    assert [a["url"].split("/")[2] for a in file["addresses"]] == [
        "drive.usercontent.google.com", "huggingface.co", "cmp.felk.cvut.cz",
    ]  # fmt: skip
    bundled = rows["loftr-lite"]["files"][0]
    assert bundled["state"] == "bundled" and bundled["bytes"] > 1e6 and len(bundled["sha256"]) == 64
    assert [file["option"] for file in rows["roma-outdoor"]["files"]] == ["--checkpoint", "--dinov2", "--dinov2"]
    member = next(f for f in rows["matchanything-roma"]["files"] if f["option"] == "--checkpoint")["addresses"][0]
    assert member["member"] == "matchanything_roma.ckpt"
    cli("download", "coarse-loftr", "--accept-licence")
    rows = {row["name"]: row for row in cli("models", "--json").json}
    assert rows["coarse-loftr"]["files"][0]["path"] == str(place.root / "coarse.ckpt")


def test_the_list_for_people(cli: CommandLine) -> None:
    out = cli("models").out
    for text in (
        "roma_outdoor.pth, and dinov2_vitl14_pretrain.pth or dinov2-large.safetensors",
        "46.34 MB, sha256 21f5bec5968178e8bc8b7633441836fe5de4f47d861dd2cd7dc38e271b0479ec, not here",
        "licence: Project Registration License v1.0 (since 2026-09-15)",
        "licence: unclear (read 2026-11-27)",
        "https://github.com/Parskatt/storage/releases/download/roma/roma_outdoor.pth",
    ):
        assert text in out, out
    assert out.count("\ndinov2_vitl14_pretrain.pth\n") == 1
