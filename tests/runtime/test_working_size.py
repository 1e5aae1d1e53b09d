"""Sizes for further runs stay within what the engine takes, and advice names what was not used."""

from __future__ import annotations

from dataclasses import replace

from support.turning import dynamic_manifest, static_manifest

from matchrt import MatcherOptions, Profile
from matchrt.runtime.advice import advise
from matchrt.runtime.working_size import larger_side, search_side, usual_side

DYNAMIC = dynamic_manifest()


def test_sizes_of_the_bundled_engine() -> None:
    options = MatcherOptions()
    assert (usual_side(DYNAMIC, options), larger_side(DYNAMIC, options), search_side(DYNAMIC, options)) == (
        640,
        832,
        320,
    )
    given = MatcherOptions(resize=1024)
    assert (usual_side(DYNAMIC, given), larger_side(DYNAMIC, given), search_side(DYNAMIC, given)) == (1024, None, 512)


def test_sizes_stay_within_the_profile() -> None:
    tight = replace(DYNAMIC, input=replace(DYNAMIC.input, profile=Profile((400, 400), (480, 640), (640, 704))))
    options = MatcherOptions()
    assert larger_side(tight, options) == 704 and search_side(tight, options) == 400
    full = replace(DYNAMIC, input=replace(DYNAMIC.input, profile=Profile((64, 64), (480, 640), (640, 640))))
    assert larger_side(full, options) is None
    small = MatcherOptions(resize=320)
    assert search_side(full, small) is None


def test_an_engine_of_one_size_has_no_other() -> None:
    fixed = static_manifest(480, 640)
    assert larger_side(fixed, MatcherOptions()) is None and search_side(fixed, MatcherOptions()) is None
    assert advise(fixed, MatcherOptions(), "command")[0].startswith("Try --min-score 0.2:")


def test_advice_names_only_what_was_not_used() -> None:
    every = " ".join(advise(DYNAMIC, MatcherOptions(), "command"))
    assert all(
        word in every for word in ("--resize 832 --min-score 0.2", "--rotate auto", "--zoom auto", "--effort high")
    )
    used = " ".join(advise(DYNAMIC, MatcherOptions(rotate="auto", zoom="auto", min_score=0.2, resize=832), "command"))
    assert used == "Try --effort high: it tries this step by step, and keeps the best."
    assert advise(DYNAMIC, MatcherOptions(effort="high")) == ()


def test_advice_names_the_options_as_its_reader_gives_them() -> None:
    said = [text.split(":")[0] for text in advise(DYNAMIC, MatcherOptions())]
    assert said == [
        f"Try MatcherOptions({given})"
        for given in ("resize=832, min_score=0.2", "rotate='auto'", "zoom='auto'", "effort='high'")
    ]
    for text in said:
        eval(text.removeprefix("Try "), {"MatcherOptions": MatcherOptions})
    # A service's requests have no size.
    asked = [text.split(":")[0] for text in advise(DYNAMIC, MatcherOptions(), "request")]
    assert asked == ["Try min_score=0.2", "Try rotate=auto", "Try zoom=auto", "Try effort=high"]


def test_a_larger_size_is_no_advice_for_small_pictures() -> None:
    for longest, first in ((320, "Try --min-score 0.2"), (321, "Try --resize 832 --min-score 0.2")):
        assert advise(DYNAMIC, MatcherOptions(), "command", longest)[0].split(":")[0] == first
