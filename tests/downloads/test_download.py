"""Downloads beside faulty servers: two processes, Ctrl-C, full disks, proxies, files that somebody put there."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import pytest
from support.download_faults import QUICK, World, weights
from support.faulty_server import FaultyServer, Route, answer, faulty_server, redirect, serve

from matchrt.downloads import connection, transfer
from matchrt.downloads.archive import take_member
from matchrt.downloads.download import addresses_at, download, require_address
from matchrt.downloads.failures import AddressError
from matchrt.downloads.find import downloaded
from matchrt.downloads.folder import WeightsFolder
from matchrt.errors import MatchRTError
from matchrt.families.published import Address, Archive, PublishedFile


@pytest.fixture
def world(server: FaultyServer, folder: WeightsFolder) -> World:
    return World(server, folder, random.Random(1))


def _fails(code: str, call: Callable[[], object]) -> MatchRTError:
    with pytest.raises(MatchRTError) as caught:
        call()
    assert caught.value.code == code, caught.value
    return caught.value


# In a process of its own, with the file and its folder as arguments.
PROCESS = """
import signal
# A shell that starts the tests in its background hands down that it ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys
from pathlib import Path
from support.download_faults import QUICK, LICENCE
from matchrt.downloads.download import download
from matchrt.downloads.folder import WeightsFolder
from matchrt.families.published import Address, PublishedFile
url, folder, sha256 = sys.argv[1:]
file = PublishedFile("net.safetensors", "x", "https://x", (Address(url, "x"),), LICENCE, sha256=sha256)
print(download(file, WeightsFolder(Path(folder)), settings=QUICK, tell=lambda what, *_: print(what, flush=True)).state)
"""


def _process(world: World, url: str) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root / 'tests'}"}
    arguments = [url, str(world.folder.root), hashlib.sha256(world.data).hexdigest()]
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip


def test_two_processes_download_the_file_once(world: World) -> None:
    url = world.server.route("/f", serve(world.data, cut=len(world.data), stall=0.8))
    running = [_process(world, url) for _ in range(2)]
    printed = [process.communicate(timeout=60) for process in running]
    assert all(process.returncode == 0 for process in running), printed
    assert sorted(out.split()[-1] for out, _ in printed) == ["downloaded", "there"]
    assert len(world.server.routes["/f"].ranges) == 1 and world.server.sent == len(world.data)


def test_ctrl_c_keeps_the_part_and_the_next_run_goes_on(world: World) -> None:
    half = len(world.data) // 2
    url = world.server.route("/f", serve(world.data, cut=half, stall=0.9), serve(world.data))
    running = _process(world, url)
    part = world.folder.root / "net.safetensors.part"
    end = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size == half) and time.monotonic() < end:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in running.communicate(timeout=30)[1]
    assert part.stat().st_size == half and not (world.folder.root / "net.safetensors").exists()
    found = download(world.file(url), world.folder, settings=QUICK)
    assert found.path.read_bytes() == world.data and world.server.sent == len(world.data)
    assert world.server.routes["/f"].ranges[-1] == f"bytes={half}-" and not part.exists()


def test_a_killed_process_leaves_no_lock(world: World) -> None:
    url = world.server.route("/f", serve(world.data, cut=5000, stall=20), serve(world.data))
    running = _process(world, url)
    part = world.folder.root / "net.safetensors.part"
    end = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size == 5000) and time.monotonic() < end:
        time.sleep(0.02)
    running.kill()
    running.communicate(timeout=30)
    assert download(world.file(url), world.folder, settings=QUICK).path.read_bytes() == world.data


def test_who_gets_no_further_is_not_waited_for(world: World) -> None:
    world.folder.root.mkdir()
    file = world.file(world.server.route("/f", serve(world.data)))
    with filelock.FileLock(world.folder.root / f".{file.name}.lock"):
        _fails("download-busy", lambda: download(file, world.folder, settings=replace(QUICK, busy_after=0.3)))
    assert download(file, world.folder, settings=QUICK).state == "downloaded"


def test_what_is_there_is_not_asked_for(world: World) -> None:
    file = world.file(world.server.route("/f", serve(world.data)))
    download(file, world.folder, settings=QUICK)
    again = download(file, world.folder, settings=QUICK)
    assert (again.state, again.address) == ("there", world.server.url("/f"))
    assert len(world.server.routes["/f"].ranges) == 1


def test_a_digest_that_nobody_published_is_recorded_and_then_required(world: World) -> None:
    newer = weights(random.Random(2))
    file = world.file(world.server.route("/f", serve(world.data), serve(newer)), known="nothing")
    found = download(file, world.folder, settings=QUICK)
    record = json.loads(world.folder.record_path(file).read_text())
    assert record["sha256"] == found.sha256 == hashlib.sha256(world.data).hexdigest()
    found.path.unlink()
    error = _fails("download-digest", lambda: download(file, world.folder, settings=QUICK))
    assert found.sha256 in error.message and not found.path.exists()
    assert f"remove '{world.folder.record_path(file)}'" in error.remedy
    world.folder.record_path(file).unlink()
    assert download(file, world.folder, settings=QUICK).sha256 == hashlib.sha256(newer).hexdigest()


def test_a_record_in_upper_case_and_a_damaged_one(world: World) -> None:
    file = world.file(world.server.route("/f", serve(world.data)), known="nothing")
    path = download(file, world.folder, settings=QUICK).path
    record = world.folder.record_path(file)
    text = record.read_text()
    digest = hashlib.sha256(world.data).hexdigest()
    record.write_text(text.replace(digest, digest.upper()))
    assert world.folder.verified(file) == path
    for damaged in ("", "{", "[]", '{"bytes": "many"}', text.replace('"bytes"', '"size"')):
        record.write_text(damaged)
        assert world.folder.record(file) is None and world.folder.verified(file) is None
        assert download(file, world.folder, settings=QUICK).state == "put-there"
        assert world.folder.verified(file) == path


@pytest.mark.parametrize("known", ["all", "nothing", "size", "md5"])
def test_a_file_that_was_put_there_is_checked_and_recorded(world: World, known: str) -> None:
    file = world.file("http://127.0.0.1:1/never", known=known)
    world.folder.root.mkdir()
    world.folder.path(file).write_bytes(world.data)
    # Nothing is verified by `build` alone, unless the digest is published.
    assert (downloaded([file], world.folder) is not None) == (known == "all")
    assert download(file, world.folder, settings=QUICK).state == "put-there"
    assert downloaded([file], world.folder) == world.folder.path(file)
    assert download(file, world.folder, settings=QUICK).state == "there"


@pytest.mark.parametrize("known", ["all", "size", "md5"])
def test_a_wrong_file_that_was_put_there_is_refused_and_stays(world: World, known: str) -> None:
    file = world.file("http://127.0.0.1:1/never", known=known)
    world.folder.root.mkdir()
    wrong = world.other if known != "size" else world.data[:-1]
    world.folder.path(file).write_bytes(wrong)
    error = _fails("download-digest", lambda: download(file, world.folder, settings=QUICK))
    assert str(world.folder.path(file)) in error.message and world.folder.path(file).read_bytes() == wrong
    assert downloaded([file], world.folder) is None


def test_a_page_that_was_put_there_is_refused(world: World) -> None:
    file = world.file("http://127.0.0.1:1/never", known="nothing")
    world.folder.root.mkdir()
    world.folder.path(file).write_bytes(b"<html>Sign in</html>")
    assert "no whole file of weights" in _fails("download-digest", lambda: download(file, world.folder)).message


def test_a_damaged_file_is_not_used(world: World) -> None:
    file = world.file(world.server.route("/f", serve(world.data)))
    path = download(file, world.folder, settings=QUICK).path
    path.write_bytes(world.other)
    assert world.folder.holds(file) and downloaded([file], world.folder) is None
    path.write_bytes(world.data[:-1])
    assert not world.folder.holds(file)


def test_room_is_asked_for_before_the_body(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    free = type("Usage", (), {"free": QUICK.spare_bytes + 1000})()
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: free)
    file = world.file(world.server.route("/f", serve(world.data)))
    error = _fails("download-space", lambda: download(file, world.folder, settings=QUICK))
    assert "MB are needed" in error.message
    monkeypatch.undo()
    assert download(file, world.folder, settings=QUICK).path.read_bytes() == world.data


def test_a_disk_that_fills_up_keeps_what_came(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    file = world.file(world.server.route("/f", serve(world.data)))
    plain = Path.open

    class Filling:
        """The part's file on a disk with room for 70 kB."""

        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __enter__(self) -> Filling:
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()

        def tell(self) -> int:
            return int(self.stream.tell())

        def write(self, piece: bytes) -> None:
            room = 70_000 - self.tell()
            self.stream.write(piece[:room])
            if len(piece) > room:
                raise OSError(errno.ENOSPC, "No space left on device")

    def opened(path: Path, mode: str = "r", **others: Any) -> Any:
        stream = plain(path, mode, **others)
        return Filling(stream) if path.name.endswith(".part") and mode == "ab" else stream

    monkeypatch.setattr(Path, "open", opened)
    error = _fails("download-space", lambda: download(file, world.folder, settings=QUICK))
    assert "No space left" in error.message
    monkeypatch.undo()
    sent = world.server.sent
    assert download(file, world.folder, settings=QUICK).path.read_bytes() == world.data
    assert world.server.routes["/f"].ranges[-1] == "bytes=70000-" and sent > 0


@pytest.mark.parametrize("place", ["file", "below-file", "read-only"])
def test_folders_that_cannot_be_written(world: World, tmp_path: Path, place: str) -> None:
    blocked = tmp_path / "blocked"
    if place == "read-only":
        if os.geteuid() == 0:
            pytest.skip("root may write anywhere")
        blocked.mkdir(mode=0o500)
    else:
        blocked.write_text("a file")
    folder = WeightsFolder(blocked / "weights" if place == "below-file" else blocked)
    file = world.file(world.server.route("/f", serve(world.data)))
    _fails("output-unwritable", lambda: download(file, folder, settings=QUICK))
    assert not world.server.routes["/f"].ranges


def test_a_folder_where_the_file_should_be(world: World) -> None:
    file = world.file(world.server.route("/f", serve(world.data)))
    world.folder.path(file).mkdir(parents=True)
    _fails("output-unwritable", lambda: download(file, world.folder, settings=QUICK))


def test_a_folder_where_the_part_should_be(world: World) -> None:
    file = world.file(world.server.route("/f", serve(world.data)))
    (world.folder.root / f"{file.name}.part").mkdir(parents=True)
    _fails("output-unwritable", lambda: download(file, world.folder, settings=QUICK))


def test_the_users_proxy_is_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name resolves nowhere: only the proxy, which is this test's server, can answer."""
    asked = "http://weights.invalid/f"
    world.server.routes[asked] = Route((serve(world.data),))
    monkeypatch.setenv("http_proxy", world.server.url(""))
    assert download(world.file(asked), world.folder, settings=QUICK).address == asked


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[FaultyServer, Path]]:
    """A server that speaks https, and the certificate that only those trust who are told to."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with faulty_server() as opened:
        opened.socket = context.wrap_socket(opened.socket, server_side=True)
        yield opened, certificate


def test_certificates_are_checked_and_the_users_own_are_trusted(
    world: World, secure: tuple[FaultyServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, certificate = secure
    url = server.route("/f", serve(world.data, cut=world.place()), serve(world.data)).replace("http", "https")
    file = world.file(url)
    error = _fails("download-failed", lambda: download(file, world.folder, settings=QUICK))
    assert "no certificate that is trusted" in error.message and not server.routes["/f"].ranges
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert download(file, world.folder, settings=QUICK).path.read_bytes() == world.data


def test_a_redirect_out_of_https_is_refused(
    world: World, secure: tuple[FaultyServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, certificate = secure
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    url = server.route("/f", redirect("http://weights.invalid/f")).replace("http", "https")
    error = _fails("download-failed", lambda: download(world.file(url), world.folder, settings=QUICK))
    assert "from https to plain http" in error.message


@pytest.mark.parametrize("package", ["requests", "filelock"])
def test_a_missing_package_is_named_with_its_extra(world: World, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    file = world.file(world.server.route("/f", serve(world.data)))
    error = _fails("package-missing", lambda: download(file, world.folder, settings=QUICK))
    assert package in error.message and "matchrt[download]" in error.remedy


def test_no_network_says_what_to_do_by_hand(world: World) -> None:
    error = _fails(
        "download-failed",
        lambda: download(
            world.file("http://weights.invalid/f"), world.folder, settings=QUICK, again="matchrt download net"
        ),
    )
    assert "no network" in error.message
    for part in ("https://example.org/net", str(world.folder.root / "net.safetensors"), "matchrt download net"):
        assert part in error.remedy


def test_every_address_has_its_reason(world: World) -> None:
    urls = world.server.url("/missing"), world.server.route("/page", answer(200, b"<html>", Content_Type="text/html"))
    error = _fails("download-page", lambda: download(world.file(*urls), world.folder, settings=QUICK))
    assert f"{urls[0]} answers 404" in error.message and f"{urls[1]} gives a web page" in error.message


def test_from_https_to_plain_http_is_not_followed() -> None:
    require = connection._require_followable
    with pytest.raises(AddressError, match="plain http"):
        require("https://a.example/f", "http://a.example/f")
    require("https://a.example/f", "http://127.0.0.1:8/f")
    require("https://a.example/f", "https://b.example/f")
    require("http://a.example/f", "http://b.example/f")
    for target in ("ftp://a.example/f", "file:///etc/passwd", "https://", "javascript:alert(1)"):
        with pytest.raises(AddressError, match="no web address"):
            require("https://a.example/f", target)


def test_passwords_in_addresses_are_in_no_message_and_no_record(world: World) -> None:
    cut = serve(world.data, cut=5000), answer(404)
    url = world.server.route("/f", *cut, serve(world.data)).replace("://", "://me:secret@")
    missing = world.server.url("/missing").replace("://", "://me:secret@")
    error = _fails("download-failed", lambda: download(world.file(missing), world.folder, settings=QUICK))
    _fails("download-failed", lambda: download(world.file(url), world.folder, settings=QUICK))
    part = (world.folder.root / "net.safetensors.part.json").read_text()
    found = download(world.file(url), world.folder, settings=QUICK)
    record = world.folder.record_path(found.file).read_text()
    assert "secret" not in error.message + error.remedy + part + record + found.address
    assert world.server.routes["/f"].headers[0]["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:80/f", True), ("http://localhost/f", True), ("http://[::1]/f", True),
        ("http://127.0.0.1.example/f", False), ("http://localhost.example/f", False), ("http://10.0.0.1/f", False),
    ],
)  # fmt: skip
def test_loopback(url: str, local: bool) -> None:
    assert connection.is_loopback(url) == local


def test_plain_http_only_where_a_digest_would_tell(world: World) -> None:
    plain = (Address("http://weights.invalid/f", "x"),)
    require_address(world.file("x"), plain, world.folder)
    unknown = world.file("http://weights.invalid/f", known="md5")
    _fails("download-address", lambda: require_address(unknown, plain, world.folder))
    error = _fails("download-failed", lambda: download(unknown, world.folder, settings=QUICK))
    assert "plain http" in error.message


def test_addresses_of_from() -> None:
    files = [_named("a.ckpt"), _named("b.pth")]
    assert addresses_at("https://m.example/w/", files) == {
        "a.ckpt": (Address("https://m.example/w/a.ckpt", "--from"),),
        "b.pth": (Address("https://m.example/w/b.pth", "--from"),),
    }
    assert addresses_at("https://m.example/w/x", files) == {"a.ckpt": (Address("https://m.example/w/x", "--from"),)}
    for text in ("outdoor.ckpt", "/tmp/outdoor.ckpt", "file:///tmp/x", "ftp://a/b", "https://", "http://[::1", ""):
        _fails("download-address", lambda text=text: addresses_at(text, files))


def _named(name: str) -> PublishedFile:
    with faulty_server() as server:
        file = World(server, WeightsFolder(Path("x")), random.Random(2)).file("x")
    return replace(file, name=name)


def test_progress_is_told_and_never_goes_beyond_the_file(world: World) -> None:
    told: list[tuple[str, int, int | None]] = []
    file = world.file(world.server.route("/f", serve(world.data, cut=world.place()), serve(world.data)))
    download(file, world.folder, settings=QUICK, tell=lambda *args: told.append(args))
    assert [what for what, _, _ in told][-1] == "verifying" and any("trying again" in what for what, _, _ in told)
    assert all(0 <= done <= len(world.data) for _, done, _ in told)


@pytest.mark.parametrize("known", ["all", "nothing"])
def test_what_unpacks_beyond_all_bounds_is_stopped_there(world: World, known: str) -> None:
    told: list[int] = []
    settings = replace(QUICK, largest=500_000)
    bomb = answer(200, gzip.compress(bytes(50_000_000)), Content_Encoding="gzip")
    file = world.file(world.server.route("/f", bomb), known=known)
    _fails(
        "download-digest",
        lambda: download(file, world.folder, settings=settings, tell=lambda what, done, total: told.append(done)),
    )
    assert max(told) <= 500_000
    assert [path.name for path in world.folder.root.iterdir()] == [f".{file.name}.lock"]


def test_licences_are_remembered_for_a_file_and_a_date(world: World) -> None:
    file = world.file("x")
    assert not world.folder.accepted(file)
    world.folder.accept(file)
    assert world.folder.accepted(file) and not world.folder.accepted(replace(file, name="other.ckpt"))
    for change in ({"date": "2027-01-01"}, {"name": "GPL-3.0"}, {"note": "Another."}):
        assert not world.folder.accepted(replace(file, licence=replace(file.licence, **change)))


def test_many_threads_get_one_file(world: World) -> None:
    file = world.file(world.server.route("/f", serve(world.data)), known="nothing")
    states: list[str] = []
    threads = [
        threading.Thread(target=lambda: states.append(download(file, world.folder, settings=QUICK).state))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(states) == ["downloaded"] + ["there"] * 7 and world.server.sent == len(world.data)


@pytest.mark.parametrize(
    ("etag", "modified", "condition"),
    [
        ('"one"', None, '"one"'),
        (None, "Thu, 01 Jan 2026 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ('W/"one"', None, None),
    ],
)
def test_the_server_is_asked_to_go_on_only_with_the_same_file(
    world: World, etag: str | None, modified: str | None, condition: str | None
) -> None:
    steps = [serve(world.data, cut=cut, etag=etag, modified=modified) for cut in (world.place(), None)]
    download(world.file(world.server.route("/f", *steps)), world.folder, settings=QUICK)
    first, second = world.server.routes["/f"].headers
    assert "Range" not in first and "If-Range" not in first and second.get("If-Range") == condition
    assert {headers["Accept-Encoding"] for headers in (first, second)} == {"identity"}


def test_a_circle_of_redirects_is_seen_at_once(world: World) -> None:
    world.server.route("/a", redirect("/b"))
    world.server.route("/b", redirect("/a"))
    error = _fails(
        "download-failed", lambda: download(world.file(world.server.url("/a")), world.folder, settings=QUICK)
    )
    assert "in a circle" in error.message and len(world.server.routes["/b"].ranges) == 1


def test_a_member_of_another_size_is_not_unpacked(tmp_path: Path) -> None:
    packed, target = tmp_path / "weights.zip", tmp_path / "member"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("weights/net.ckpt", bytes(50_000_000))
    with pytest.raises(AddressError, match="has 50000000 bytes, not 10"):
        take_member(packed, Archive("net.ckpt"), target, 10)
    assert not target.exists()


def test_the_range_is_asked_for_behind_a_redirect_too(world: World) -> None:
    world.server.route("/real", serve(world.data, cut=world.place()), serve(world.data))
    url = world.server.route("/f", redirect("/real"))
    download(world.file(url), world.folder, settings=QUICK)
    first, second = world.server.routes["/real"].ranges
    assert first is None and second is not None and world.server.routes["/f"].ranges == [first, second]
