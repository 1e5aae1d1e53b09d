"""The docs site's page that matches in the browser, in a real browser with npm's onnxruntime-web."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage
from support.chromium import Page, browsing, find
from support.javascript import node_modules
from support.pictures import shifted_pair

from matchrt.runtime.matcher import Matcher
from matchrt.runtime.options import MatcherOptions

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


@dataclass
class Site:
    """The part of the site that the demonstration needs, served; `asked` has each request's method and path."""

    url: str
    asked: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    from tools.site.pages import demo_files

    packages = node_modules("onnxruntime-web")
    folder = tmp_path_factory.mktemp("site")
    for name in demo_files(ROOT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    own = folder / "examples/javascript/node_modules/onnxruntime-web/dist"
    own.mkdir(parents=True, exist_ok=True)
    for name in RUNTIME:
        shutil.copy(packages / "onnxruntime-web" / "dist" / name, own / name)
    found = Site("")

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, *_: Any) -> None:
            found.asked.append((self.command, self.path))

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found.url = f"http://localhost:{server.server_port}"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = find()
    if program is None:
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    with browsing(program, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def test_the_browser_finds_python_s_matches_and_sends_nothing(site: Site, page: Page, tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    # A little noise in the lower half leaves some matches whose score is low.
    noise = np.zeros((120, 160, 3))
    noise[60:] = np.random.default_rng(0).normal(0, 4, noise.shape)[60:]
    for path, grey, strength in zip(paths, shifted_pair(120, 160, (16, 8)), (0, 1), strict=True):
        pixels = np.stack([grey, 255 - grey // 2, grey // 3], 2) + strength * noise
        PILImage.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    page.call("Page.navigate", url=f"{site.url}/docs/demo/index.html")
    page.wait("document.readyState == 'complete' && document.getElementById('go').disabled")
    for side, path in enumerate(paths):
        page.choose_file(f"#image{side}", path)
    page.wait("!document.getElementById('go').disabled")
    page.run("document.getElementById('go').click()")
    page.wait("!document.getElementById('result').hidden || document.getElementById('said').className == 'bad'", 240)
    said = page.run("document.getElementById('said').textContent")
    with Matcher() as matcher:
        expected = matcher.match(*paths)
    with Matcher(options=MatcherOptions(min_score=0)) as matcher:
        every = len(matcher.match(*paths))
    assert said.startswith(f"{len(expected)} matches with a score of 0.35 or more"), said
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.run("document.getElementById('save').click()")
    end = time.monotonic() + 60
    while not (tmp_path / "matches.json").is_file() and time.monotonic() < end:
        time.sleep(0.05)
    saved = json.loads((tmp_path / "matches.json").read_text())
    ours = np.hstack([saved["keypoints0"], saved["keypoints1"]])
    theirs = np.hstack([expected.keypoints0, expected.keypoints1])
    ours, theirs = (rows[np.lexsort((rows[:, 0].round(2), rows[:, 1].round(2)))] for rows in (ours, theirs))
    assert np.abs(ours - theirs).max() < 1e-3
    page.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
    middle = round(float(np.median(expected.scores)), 2)  # a place of the slider
    good = int((expected.scores >= middle).sum())
    assert 0 < good < len(expected) < every
    for score, count in ((middle, good), (0, every)):
        page.run(
            f"(e => {{ e.value = {score}; e.dispatchEvent(new Event('input')) }})(document.getElementById('score'))"
        )
        assert page.run("document.getElementById('said').textContent").startswith(f"{count} matches"), score
    assert page.messages == []
    assert {method for method, _ in site.asked} <= {"GET", "HEAD"}
    assert any(path.endswith(".wasm") for _, path in site.asked), "the site's own runtime was used"


def test_a_file_that_is_no_image_hides_the_old_result(site: Site, page: Page, tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("no image")
    page.choose_file("#image0", tmp_path / "note.png")
    page.wait("document.getElementById('said').className == 'bad'")
    assert "note.png cannot be read" in page.run("document.getElementById('said').textContent")
    assert page.run("document.getElementById('result').hidden && document.getElementById('go').disabled")


def test_the_file_that_was_chosen_last_counts(site: Site, page: Page, tmp_path: Path) -> None:
    """Also where an earlier one is decoded after it."""
    for name, width in (("slow.png", 70), ("quick.png", 90)):
        PILImage.new("L", (width, 64), 99).save(tmp_path / name)
    page.call("Page.navigate", url=f"{site.url}/docs/demo/index.html")
    page.wait("document.readyState == 'complete' && document.getElementById('said').textContent.startsWith('Choose')")
    page.run(
        "(() => { const decode = window.createImageBitmap; window.createImageBitmap = async (blob, ...more) => "
        "{ if (blob.name == 'slow.png') await new Promise((done) => { window.let_go = done });"
        " return decode(blob, ...more) } })()"
    )
    page.choose_file("#image0", tmp_path / "slow.png")
    page.wait("'let_go' in window")
    page.choose_file("#image0", tmp_path / "quick.png")
    shown = "document.getElementById('shown0')"
    page.wait(f"!{shown}.hidden && {shown}.naturalWidth == 90")
    page.run("(window.let_go(), new Promise((done) => setTimeout(done, 300)))")
    assert page.run(f"{shown}.naturalWidth") == 90


def test_the_page_s_policy_forbids_other_hosts(site: Site, page: Page) -> None:
    """Also in a worker like the page's own."""
    other = site.url.replace("localhost", "127.0.0.1")
    tried = f"fetch('{other}/docs/demo/demo.css', {{mode: 'no-cors'}}).then(() => 'sent', () => 'refused')"
    assert page.run(tried) == "refused"
    code = f"import {{}} from '{site.url}/examples/javascript/errors.mjs'; {tried}.then(postMessage)"
    answered = (
        f"new Promise((done) => {{ const blob = new Blob([{json.dumps(code)}], {{type: 'text/javascript'}});"
        "const worker = new Worker(URL.createObjectURL(blob), {type: 'module'});"
        "worker.onmessage = (event) => done(event.data); worker.onerror = (event) => done(event.message) })"
    )
    assert page.run(answered) == "refused"
