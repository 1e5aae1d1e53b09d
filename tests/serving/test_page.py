"""The pages in a real browser."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.chromium import Page, browsing, find
from support.serving import Running


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = find()
    if program is None:
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    with browsing(program, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def test_two_images_are_dropped_and_matched(server: Running, pair: Any, page: Page, tmp_path: Path) -> None:
    page.call("Page.navigate", url=f"{server.url}/")
    page.wait("document.querySelectorAll('#engine option').length == 1")
    assert page.run("document.getElementById('go').disabled")
    page.drop_file(".zone:nth-of-type(1)", pair.paths[0])
    page.choose_file("#image1", pair.paths[1])
    page.wait("document.querySelectorAll('.zone img').length == 2 && !document.getElementById('go').disabled")
    page.run("document.getElementById('go').click()")
    said = page.wait(
        "/matches/.test(document.getElementById('said').textContent) && document.getElementById('said').textContent"
    )
    assert said.startswith(f"{len(pair.expected)} matches, ") and "inliers (fundamental)" in said
    width = page.wait("document.getElementById('picture').complete && document.getElementById('picture').naturalWidth")
    assert width >= 2 * 160
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.run("document.getElementById('save').click()")
    end = time.monotonic() + 20
    while not (tmp_path / "matches.json").is_file() and time.monotonic() < end:
        time.sleep(0.05)
    saved = json.loads((tmp_path / "matches.json").read_text())
    assert np.array_equal(np.array(saved["keypoints0"], np.float32), pair.expected.keypoints0)
    page.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert page.messages == []


def test_an_image_that_is_none_is_explained(server: Running, pair: Any, page: Page, tmp_path: Path) -> None:
    text = tmp_path / "note.jpg"
    text.write_text("no image")
    page.call("Page.navigate", url=f"{server.url}/")
    page.wait("document.querySelectorAll('#engine option').length == 1")
    for number, path in enumerate(pair.paths):
        page.choose_file(f"#image{number}", path)
    page.wait("!document.getElementById('go').disabled")
    page.run("document.getElementById('go').click()")
    page.wait("!document.getElementById('picture').hidden && !document.getElementById('go').disabled")
    page.choose_file("#image0", text)
    page.wait("!document.getElementById('go').disabled")
    page.run("document.getElementById('go').click()")
    said = page.wait(
        "document.getElementById('said').className == 'bad' && document.getElementById('said').textContent"
    )
    assert "note.jpg" in said and "not an image" in said
    # Nothing of the pair before stays beside it.
    for name in ("picture", "save"):
        assert page.run(f"document.getElementById('{name}').hidden"), name
    assert not page.run("document.getElementById('picture').hasAttribute('src')")


def test_the_interface_page_lists_every_path(server: Running, page: Page) -> None:
    page.call("Page.navigate", url=f"{server.url}/docs")
    page.wait("document.querySelectorAll('details').length > 8")
    text = page.run("document.body.textContent")
    for word in ("/v1/match", "/v2/models/{model}/infer", "min_score", "curl -F"):
        assert word in text
