"""The pages in a real browser."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage
from support.chromium import Page, browsing, find
from support.serving import Running, running
from support.tiny_engines import tiny_engine

# Where screenshots are kept to look at; else they go with the test's folder.
SCREENSHOTS = "MATCHRT_SCREENSHOTS"
SHOWN = "!document.getElementById('result').hidden"
# WCAG 2.1's contrast of an element's text with the first ground behind it that is not transparent.
CONTRAST = """(selector => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = text => numbers(text).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const clear = text => numbers(text).length === 4 && numbers(text)[3] === 0;
  const element = document.querySelector(selector);
  let behind = element;
  while (behind && clear(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
  const pair = [getComputedStyle(element).color, getComputedStyle(behind ?? document.body).backgroundColor].map(light);
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
})"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = find()
    if program is None:
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    with browsing(program, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def at(name: str) -> str:
    return f"document.getElementById('{name}')"


def opened(page: Page, server: Running) -> None:
    """The empty page on a screen of common size."""
    page.look(1200, 900)
    page.call("Page.navigate", url=f"{server.url}/")
    page.wait("document.readyState == 'complete' && document.querySelectorAll('#engine option').length == 1")


def choose(page: Page, *paths: Path) -> None:
    for number, path in enumerate(paths):
        page.choose_file(f"#image{number}", path)
        name = json.dumps(path.name)
        page.wait(f"document.querySelectorAll('.zone .name')[{number}].textContent.startsWith({name})")
    page.wait(f"!{at('go')}.disabled")


def match(page: Page, server: Running, *paths: Path, geometry: str = "fundamental") -> str:
    """Matches a pair on a new page, and gives the verdict."""
    opened(page, server)
    choose(page, *paths)
    page.run(f"{at('verify')}.value = '{geometry}'")
    return again(page)


def again(page: Page) -> str:
    page.run(f"{at('go')}.click()")
    page.wait(f"{at('go')}.getAttribute('aria-disabled') == 'false'")
    assert page.run(SHOWN), page.run(f"{at('wrong')}.textContent")
    return str(page.run(f"{at('verdict')}.textContent"))


def test_two_images_are_dropped_and_matched(server: Running, pair: Any, page: Page, tmp_path: Path) -> None:
    page.messages.clear()
    opened(page, server)
    assert page.run(f"{at('go')}.disabled")
    page.drop_file(".zone:nth-of-type(1)", pair.paths[0])
    page.choose_file("#image1", pair.paths[1])
    page.wait(f"document.querySelectorAll('.zone img:not([hidden])').length == 2 && !{at('go')}.disabled")
    verdict = again(page)
    inliers = pair.expected.verify("fundamental").geometry.num_inliers
    assert verdict.startswith(f"{inliers} of {len(pair.expected)} matches (") and "fundamental matrix" in verdict
    judged = page.run(f"{at('judgement')}.textContent")
    assert judged.startswith("They show the same thing (probability 9")
    assert page.run(f"{at('said')}.textContent") == f"{judged} {verdict}"  # for screen readers
    assert page.run(f"{at('canvas')}.width") > 600 and verdict in page.run(f"{at('canvas')}.ariaLabel")
    # What it draws: neither empty nor only the photographs' grey.
    drawn = page.run(
        f"[...{at('canvas')}.getContext('2d').getImageData(0, 0, {at('canvas')}.width, {at('canvas')}.height).data]"
        ".reduce((n, v, i, all) => n + (i % 4 == 0 && Math.abs(v - all[i + 2]) > 60), 0)"
    )
    assert drawn > 500
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.run(f"{at('save')}.click()")
    saved = json.loads(downloaded(tmp_path / "matches.json").read_text())
    assert np.array_equal(np.array(saved["keypoints0"], np.float32), pair.expected.keypoints0)
    page.run(f"{at('savepicture')}.click()")
    with PILImage.open(downloaded(tmp_path / "matches.png")) as picture:
        assert picture.size[0] > 600
    # The page loads nothing from anywhere else.
    loaded = page.run("performance.getEntriesByType('resource').map(one => one.name)")
    assert len(loaded) >= 5 and all(name.startswith((server.url, "blob:")) for name in loaded)
    assert page.messages == []


def downloaded(path: Path) -> Path:
    end = time.monotonic() + 20
    while not path.is_file() and time.monotonic() < end:
        time.sleep(0.05)
    return path


def test_the_legend_and_the_numbers_are_explained(server: Running, pair: Any, page: Page) -> None:
    match(page, server, *pair.paths, geometry="homography")
    text = page.run(f"{at('result')}.textContent")
    for words in (
        "calibrated on pairs whose truth is known",
        "how sure the network is",
        "red: an outlier",
        "within 3 pixels",
        "magsac",
    ):
        assert words in text, words
    assert page.run(f"{at('drawn')}.textContent").startswith(f"{len(pair.expected)} of {len(pair.expected)} matches")
    assert not page.run(f"{at('outlier')}.hidden") and not page.run(f"{at('share')}.hidden")
    # Without a geometry, nothing is said of inliers.
    page.run(f"{at('verify')}.value = 'none'")
    assert again(page) == f"{len(pair.expected)} matches."
    assert page.run(f"{at('outlier')}.hidden") and page.run(f"{at('share')}.hidden")
    assert "No geometry was asked for" in page.run(f"{at('meaning')}.textContent")
    assert page.run(f"{at('overlayview')}.disabled")


def test_images_of_different_things(server: Running, pair: Any, page: Page, tmp_path: Path) -> None:
    plain = tmp_path / "plain.png"
    PILImage.fromarray(np.full((120, 160), 90, np.uint8)).save(plain)
    opened(page, server)
    choose(page, pair.paths[0], plain)
    page.run(f"{at('score')}.value = '1'")
    assert again(page) == "No matches."
    assert page.run(f"{at('judgement')}.textContent").startswith("There are too few matches to tell")
    assert page.run(f"{at('drawn')}.textContent").startswith("0 of 0 matches")


def test_with_high_effort_a_turned_image_is_found_and_said(
    server: Running, pair: Any, page: Page, tmp_path: Path
) -> None:
    turned = tmp_path / "turned.png"
    with PILImage.open(pair.paths[1]) as image:
        image.transpose(PILImage.Transpose.ROTATE_180).save(turned)
    opened(page, server)
    choose(page, pair.paths[0], turned)
    once = again(page)
    assert page.run(f"{at('judgement')}.textContent").endswith("With effort high, more is tried.")
    page.run(f"{at('effort')}.value = 'high'")
    assert again(page) != once and page.run(f"{at('judgement')}.textContent").startswith("They show the same thing")
    numbers = page.run(f"{at('numbers')}.textContent")
    assert "the second one turned by 180 degrees clockwise" in numbers and "further runs" in numbers
    assert "more is tried" not in page.run(f"{at('judgement')}.textContent")


def test_the_slider_says_how_many_matches_it_leaves(server: Running, pair: Any, page: Page) -> None:
    match(page, server, *pair.paths)
    inliers = pair.expected.verify("fundamental").inliers
    # Where the slider can stand, between the lowest score and 1.
    lowest = np.floor(float(pair.expected.scores.min()) * 100) / 100
    for score in (round(lowest + 0.01, 2), 0.99):
        page.run(f"{at('least')}.value = {score}; {at('least')}.dispatchEvent(new Event('input'))")
        kept = pair.expected.scores >= score
        text = page.run(f"{at('drawn')}.textContent")
        count = int(np.count_nonzero(kept))
        assert text.startswith(f"{count} of {len(pair.expected)} matches"), text
        assert f"{int(np.count_nonzero(kept & inliers))} of them inliers" in text
        assert ("200 are drawn" in text) == (count > 200)
        assert page.run(f"{at('leastvalue')}.value") == f"{score:.2f}"
    page.run("document.querySelector('[name=view][value=points]').click()")
    assert "are drawn" not in page.run(f"{at('drawn')}.textContent")


def test_one_image_on_the_other(server: Running, pair: Any, page: Page) -> None:
    """The first image's points come to lie on the second one's."""
    match(page, server, *pair.paths, geometry="homography")
    page.run(f"{at('overlayview')}.click()")
    page.wait(f"!{at('overlay')}.hidden && {at('over')}.complete && {at('under')}.complete")
    width = page.run(f"{at('under')}.getBoundingClientRect().width")
    scale = width / 160
    geometry = pair.expected.verify("homography")
    good = np.flatnonzero(geometry.inliers)[:40]
    for index in good:
        (x, y), (u, v) = pair.expected.keypoints0[index], pair.expected.keypoints1[index]
        place = f"new DOMPoint({(x + 0.5) * scale}, {(y + 0.5) * scale})"
        found = page.run(
            f"(() => {{ const p = new DOMMatrix(getComputedStyle({at('over')}).transform).transformPoint({place});"
            " return [p.x / p.w, p.y / p.w] })()"
        )
        assert np.allclose(found, [(u + 0.5) * scale, (v + 0.5) * scale], atol=3.1 * scale)
    page.run(f"{at('blend')}.value = 20; {at('blend')}.dispatchEvent(new Event('input'))")
    assert page.run(f"{at('over')}.style.opacity") == "0.2" and page.run(f"{at('blendvalue')}.value") == "20 %"
    assert page.run(f"{at('leastrow')}.hidden") and page.run(f"{at('legend')}.hidden")


def test_several_pairs_are_kept(server: Running, pair: Any, page: Page) -> None:
    first = match(page, server, *pair.paths)
    page.run(f"{at('verify')}.value = 'none'")
    choose(page, *pair.paths[::-1])
    second = again(page)
    assert first != second
    names = page.run("[...document.querySelectorAll('#list button span')].map(one => one.textContent)")
    assert names == ["b.jpg and a.jpg", "a.jpg and b.jpg"]
    current = "[...document.querySelectorAll('#list button')].map(one => one.getAttribute('aria-current'))"
    assert page.run(current) == ["true", "false"]
    page.run("document.querySelectorAll('#list button')[1].click()")
    assert page.run(f"{at('verdict')}.textContent") == first and page.run(current) == ["false", "true"]
    page.run(f"{at('forget')}.click()")
    assert page.run(f"{at('kept')}.hidden") and page.run(f"{at('result')}.hidden")
    assert page.run("document.activeElement.id") == "image0"


def test_images_that_are_chosen_while_it_matches(server: Running, pair: Any, page: Page) -> None:
    """The result of the images before goes into the list, and not below the new ones; the page says that it works."""
    opened(page, server)
    choose(page, *pair.paths)
    page.run(
        "(() => { const ask = window.fetch; window.fetch = async (...given) => "
        "{ await new Promise((done) => { window.let_go = done }); return ask(...given) } })()"
    )
    page.run(f"{at('go')}.click()")
    page.wait("'let_go' in window")
    page.choose_file("#image1", pair.paths[0])
    page.wait("document.querySelectorAll('.zone .name')[1].textContent.startsWith('a.jpg')")
    assert page.run(f"{at('said')}.textContent") == "Matching …"
    page.run("window.let_go()")
    page.wait(f"{at('go')}.getAttribute('aria-disabled') == 'false'")
    assert not page.run(SHOWN) and page.run(f"{at('said')}.textContent + {at('wrong')}.textContent") == ""
    assert page.run("document.querySelector('#list button span').textContent") == "a.jpg and b.jpg"
    page.run("document.querySelector('#list button').click()")
    assert page.run(SHOWN)


def test_a_file_that_misses_the_zones_does_not_replace_the_page(server: Running, pair: Any, page: Page) -> None:
    opened(page, server)
    page.drop_file("header", pair.paths[0])
    page.run("new Promise((done) => setTimeout(done, 300))")
    targets = page.call("Target.getTargets")["targetInfos"]
    assert not [one["url"] for one in targets if one["url"].startswith("file:")]


def test_an_image_that_is_none_is_explained(server: Running, pair: Any, page: Page, tmp_path: Path) -> None:
    """And nothing of the pair before stays beside it."""
    text = tmp_path / "note.jpg"
    text.write_text("no image")
    match(page, server, *pair.paths)
    choose(page, text)
    page.run(f"{at('go')}.click()")
    said = page.wait(f"{at('wrong')}.textContent")
    assert "note.jpg" in said and "not an image" in said
    assert page.run(f"{at('result')}.hidden") and not page.run(f"{at('save')}.hasAttribute('href')")
    for name in ("verdict", "meaning", "drawn", "said", "numbers"):
        assert page.run(f"{at(name)}.textContent") == "", name
    # The earlier pair is still in the list, and its error goes when it is shown again.
    page.run("document.querySelector('#list button').click()")
    assert page.run(SHOWN) and page.run(f"{at('wrong')}.textContent") == ""


def test_a_format_that_the_browser_does_not_show(server: Running, pair: Any, page: Page, tmp_path: Path) -> None:
    """The service reads it all the same, and draws."""
    picture = tmp_path / "a.tiff"
    with PILImage.open(pair.paths[0]) as image:
        image.save(picture)
    verdict = match(page, server, picture, pair.paths[1])
    assert "matches" in verdict and page.run(f"{at('canvas')}.hidden")
    assert page.wait(f"{at('picture')}.complete && {at('picture')}.naturalWidth") >= 2 * 160
    assert verdict in page.run(f"{at('picture')}.alt")


def test_a_service_with_a_token(page: Page, pair: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    engine = tiny_engine(tmp_path)
    with running(tmp_path, f"tiny={engine}", "--token-file", str(tmp_path / "token")) as server:
        page.look(1200, 900)
        page.call("Page.navigate", url=f"{server.url}/")
        assert "token" in page.wait("document.getElementById('wrong')?.textContent")
        assert not page.run(f"{at('tokenlabel')}.hidden")
        page.run(f"{at('token')}.focus()")
        page.call("Input.insertText", text="secret")
        page.run(f"{at('token')}.blur()")
        page.wait("document.querySelectorAll('#engine option').length == 1")
        assert page.run(f"{at('wrong')}.textContent") == ""
        choose(page, *pair.paths)
        page.run(f"{at('score')}.value = '0'")
        assert again(page).startswith("1 match")


def test_the_keyboard_is_enough(server: Running, pair: Any, page: Page) -> None:
    opened(page, server)
    choose(page, *pair.paths)
    order = []
    for _ in range(7):
        page.press("Tab", 9)
        order.append(page.run("document.activeElement.id"))
    assert order == ["image0", "image1", "engine", "verify", "effort", "score", "go"]
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter", 13, "\r")
    page.wait(SHOWN)
    assert page.run("document.activeElement.id") == "go"  # where it was
    page.press("Tab", 9)
    assert page.run("document.activeElement.value") == "lines"
    page.press("ArrowRight", 39)
    assert page.run("document.querySelector('[name=view]:checked').value") == "points"
    page.press("Tab", 9)
    before = page.run(f"Number({at('least')}.value)")
    page.press("ArrowRight", 39)
    assert page.run(f"Number({at('least')}.value)") == pytest.approx(before + 0.01)
    page.press("Tab", 9)
    assert page.run("document.activeElement.id") == "save"
    # Everything that takes an input says what it is for.
    unnamed = "[...document.querySelectorAll('input, select')].filter(one => !one.labels.length).map(one => one.id)"
    assert page.run(unnamed) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_how_it_looks(server: Running, pair: Any, page: Page, tmp_path: Path, dark: bool, phone: bool) -> None:
    match(page, server, *pair.paths, geometry="homography")
    page.look(*((390, 844) if phone else (1200, 900)), dark=dark, phone=phone)
    time.sleep(0.3)
    assert page.run("document.documentElement.scrollWidth <= window.innerWidth")
    ratio = page.run(f"{at('canvas')}.clientHeight / {at('canvas')}.clientWidth")
    assert (ratio > 1) == phone  # on each other, or side by side
    for selector in (
        "h1",
        "header p",
        "#verdict",
        "#meaning",
        "#drawn",
        "#go",
        "#forget",
        "#save",
        "#list small",
        "dd",
    ):
        assert page.run(f"{CONTRAST}('{selector}')") >= 4.5, selector
    if phone:
        shown = "[...document.querySelectorAll('button, select')].filter(one => one.clientHeight)"
        small = f"{shown}.filter(one => one.clientHeight < 42)"
        assert page.run(f"{small}.map(one => one.id)") == []
    folder = Path(os.environ.get(SCREENSHOTS, tmp_path))
    path = folder / f"{'phone' if phone else 'desktop'}-{'dark' if dark else 'light'}.png"
    page.screenshot(path)
    corner = np.array(PILImage.open(path).convert("L"))[:4, :4]
    assert (corner.mean() < 60) == dark and path.stat().st_size > 20_000


def test_the_interface_page_lists_every_path(server: Running, page: Page) -> None:
    page.look(390, 844, phone=True)
    page.call("Page.navigate", url=f"{server.url}/docs")
    page.wait("document.body && /IndexRequest/.test(document.body.textContent)")
    assert page.run("document.documentElement.scrollWidth <= window.innerWidth")
    text = page.run("document.body.textContent")
    for word in (
        "/v1/match",
        "/v2/models/{model}/infer",
        "/v2/models/{model}/config",
        "min_score",
        "curl -F",
        "list of",
    ):
        assert word in text
