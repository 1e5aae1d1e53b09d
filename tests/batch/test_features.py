"""Features computed once an image: the order of pairs, the bounded cache, spilling, and equal results."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from support.commands import CommandLine

from matchrt import Features, Matcher, MatcherOptions, MatchRTError
from matchrt.batch.feature_pool import match_from_features
from matchrt.batch.features import Computed, FeatureCache, FeatureOptions, SourceFeatures, SpillFile, parse_bytes
from matchrt.batch.ordering import by_blocks
from matchrt.batch.pool import PoolSize, match_in_pool
from matchrt.batch.results import Found, ImageFacts, ListedPair, Result
from matchrt.runtime.fit import Fit
from matchrt.runtime.match_data import ImageRef
from matchrt.runtime.preprocess import PreparedImage
from matchrt.runtime.split.features import HostMaps

SMALL = ("--resize", "96", "--json", "--digest")
ONE = PoolSize(1, 1, 1)


def _pairs(count: int, window: int | None = None) -> list[ListedPair]:
    names = [f"{index:04}.png" for index in range(count)]
    reach = count if window is None else window
    found = [(a, b) for i, a in enumerate(names) for b in names[i + 1 : i + 1 + reach]]
    return [ListedPair(number, *pair) for number, pair in enumerate(found)]


def _computed(pairs: Iterator[ListedPair], images: int) -> int:
    """How often an image's features are computed with a cache of that many images."""
    kept: OrderedDict[str, None] = OrderedDict()
    times = 0
    for name in itertools.chain.from_iterable((pair.first, pair.second) for pair in pairs):
        times += name not in kept
        kept.pop(name, None)
        kept[name] = None
        if len(kept) > images:
            kept.popitem(last=False)
    return times


@pytest.mark.parametrize(
    ("count", "window", "images", "most"),
    [(60, None, 60, 60), (60, None, 12, 450), (200, 10, 24, 260), (200, 10, 400, 200), (90, None, 30, 380)],
)
def test_the_order_serves_the_cache(count: int, window: int | None, images: int, most: int) -> None:
    pairs = _pairs(count, window)
    ordered = list(by_blocks(pairs, images))
    assert sorted(ordered) == sorted(pairs)
    assert _computed(iter(ordered), images) <= most
    if images < count and window is None:
        assert _computed(iter(pairs), images) > 2 * most  # in the list's own order
    assert list(by_blocks(iter(pairs), images)) == ordered


def test_pairs_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matchrt.batch.ordering._AT_ONCE", 10)
    taken = 0

    def source() -> Iterator[ListedPair]:
        nonlocal taken
        for pair in _pairs(20):
            taken += 1
            yield pair

    ordered = by_blocks(source(), 4)
    first = [next(ordered) for _ in range(10)]
    assert taken == 10 and sorted(first) == _pairs(20)[:10]


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("2GB", 2 << 30), ("500 mb", 500 << 20), ("1.5GiB", 3 << 29), ("64k", 64 << 10), ("7", 7), ("3B", 3)],
)
def test_sizes_of_memory(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "-1GB", "2XB", "1e3", "GB", "nan", "9999999999999TB", "1 2GB"])
def test_what_is_no_size_of_memory(text: str) -> None:
    with pytest.raises(MatchRTError) as caught:
        parse_bytes(text)
    assert caught.value.code == "option-range"


def _features(name: str, values: int = 1000, kind: type = np.float32) -> SourceFeatures:
    generator = np.random.default_rng(sum(name.encode()))
    maps = HostMaps({"map0": generator.random(values, np.float32).astype(kind), "map1": np.zeros((0, 3), kind)}, {})
    image = PreparedImage(ImageRef(name, 16, 16), Fit(1.0, 1.0, 16, 16, 16, 16), None, None, 0.0, 0.0)
    return SourceFeatures(Features(image, maps, "ab" * 32, "onnxruntime"), ImageFacts(16, 16, 1, name))


class _Computing:
    """Computes features at once, and counts."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str) -> Future[Computed]:
        self.names.append(name)
        return _done(lambda: _features(name))


def _done(work: Callable[[], Computed]) -> Future[Computed]:
    future: Future[Computed] = Future()
    future.set_result(work())
    return future


def _map(computed: Computed) -> np.ndarray:
    assert isinstance(computed, SourceFeatures) and isinstance(computed.features.maps, HostMaps)
    return computed.features.maps.as_computed()["map0"]


def test_the_cache_is_bounded_and_keeps_what_was_used_last() -> None:
    computing = _Computing()
    cache = FeatureCache(computing, 4000, FeatureOptions(limit=12_000), _done)
    for name in ("a", "b", "c", "a", "d", "a", "c", "b"):
        assert np.array_equal(_map(cache.get(name).result()), _map(_features(name)))
    assert computing.names == ["a", "b", "c", "d", "b"]
    tiny = FeatureCache(computing, 4000, FeatureOptions(limit=1), _done)
    kept = [tiny.get(name) for name in ("x", "y", "x", "y")]
    assert kept[0] is kept[2] and kept[1] is kept[3]  # a pair's own images stay


def test_what_does_not_fit_is_spilled_and_read_back(tmp_path: Path) -> None:
    computing = _Computing()
    cache = FeatureCache(computing, 4000, FeatureOptions(limit=8_000, spill=tmp_path), _done)
    names = ["a", "b", "c", "d", "a", "b", "c", "d"]
    for name in names:
        computed = cache.get(name).result()
        assert np.array_equal(_map(computed), _map(_features(name)))
        assert isinstance(computed, SourceFeatures) and computed.facts == _features(name).facts
    assert computing.names == ["a", "b", "c", "d"]
    assert not list(tmp_path.iterdir())  # the file has no name
    cache.close()


def test_a_full_disk_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    spilled = SpillFile(tmp_path)
    spilled.write("a", _features("a"))
    assert "a" not in spilled


def test_spilled_features_that_cannot_be_read_are_an_error_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spilled = SpillFile(tmp_path)
    spilled.write("a", _features("a"))
    monkeypatch.setattr("os.preadv", lambda *_: 0)
    found = spilled.read("a")
    assert isinstance(found, MatchRTError) and found.code == "spill-failed"


def test_a_folder_that_takes_no_files_is_refused(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(MatchRTError) as caught:
        FeatureOptions(spill=blocked / "below")
    assert caught.value.code == "output-unwritable"


def _outcomes(results: Iterator[Result]) -> dict[int, object]:
    return {
        result.pair.number: [outcome.keypoints0.tobytes(), outcome.keypoints1.tobytes(), outcome.scores.tobytes()]
        if isinstance(outcome := result.outcome, Found)
        else outcome.code
        for result in results
    }


@pytest.mark.parametrize("limit", [1 << 30, 1 << 20, 1])
def test_results_are_those_of_whole_pairs_whatever_fits(scene: Path, limit: int) -> None:
    """A cache that holds everything, one of a few images, and one of a pair only; one image is damaged."""
    names = [f"db/{index}.png" for index in range(5)]
    pairs = [ListedPair(number, *pair) for number, pair in enumerate(itertools.permutations(names, 2))]
    with Matcher(options=MatcherOptions(resize=96, threads=1)) as matcher:
        whole = _outcomes(match_in_pool(matcher, scene, pairs, PoolSize(2, 1, 1)))
        found = _outcomes(match_from_features(matcher, scene, pairs, PoolSize(2, 1, 1), FeatureOptions(limit)))
        assert found == whole
        assert sum(outcome == "image-truncated" for outcome in found.values()) == 8
        stopped = match_from_features(matcher, scene, pairs, PoolSize(2, 1, 1), FeatureOptions(limit))
        next(stopped)
        stopped.close()  # type: ignore[attr-defined]


def test_spilling_changes_no_result_whatever_fits(scene: Path, tmp_path: Path) -> None:
    names = [f"db/{index}.png" for index in (0, 1, 2, 4)]
    pairs = [ListedPair(number, *pair) for number, pair in enumerate(itertools.combinations(names, 2))]
    with Matcher(options=MatcherOptions(resize=96, threads=1)) as matcher:
        everything, little = (
            _outcomes(match_from_features(matcher, scene, pairs, ONE, FeatureOptions(limit, tmp_path)))
            for limit in (1 << 30, 1)
        )
        assert everything == little
        assert everything != _outcomes(match_in_pool(matcher, scene, pairs, ONE))


def test_each_image_is_computed_once(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []
    features = Matcher.features

    def counted(self: Matcher, image: PreparedImage, name: str = "array", *, on_host: bool = False) -> Features:
        computed.append(image.ref.name)
        return features(self, image, name, on_host=on_host)

    monkeypatch.setattr(Matcher, "features", counted)
    pairs = [
        ListedPair(number, *pair)
        for number, pair in enumerate(itertools.combinations([f"db/{index}.png" for index in (0, 1, 2, 4)], 2))
    ]
    with Matcher(options=MatcherOptions(resize=96, threads=1)) as matcher:
        assert len(list(match_from_features(matcher, scene, pairs, ONE, FeatureOptions()))) == 6
    assert sorted(Path(name).name for name in computed) == ["0.png", "1.png", "2.png", "4.png", "blank"]


def test_the_command_gives_the_same_file_with_and_without(
    pair_list: Path, scene: Path, tmp_path: Path, cli: CommandLine
) -> None:
    pytest.importorskip("h5py")
    command = ("match-many", pair_list, "--root", scene, *SMALL, "--output")
    whole = cli(*command, tmp_path / "whole.h5", "--feature-cache", "0")
    parts = cli(*command, tmp_path / "parts.h5")
    assert whole.json["from_features"] is False and parts.json["from_features"] is True
    assert whole.json["content_sha256"] == parts.json["content_sha256"]
    spilled = cli(*command, tmp_path / "spilled.h5", "--feature-cache", "1MB", "--feature-spill", tmp_path)
    assert spilled.json["matched"] == 6 and spilled.json["content_sha256"] != whole.json["content_sha256"]
    # The journal knows how its results came about.
    cli.fails("journal-plan", *command, tmp_path / "spilled.h5")
    text = cli(*command[:-3], "--output", tmp_path / "text.h5", "--resize", 96, "--feature-cache", "0").out
    assert "each pair went through the whole engine" in text


def test_mistakes_with_features(pair_list: Path, scene: Path, tmp_path: Path, cli: CommandLine) -> None:
    pytest.importorskip("h5py")
    command = ("match-many", pair_list, "--root", scene, "--output", tmp_path / "m.h5")
    cli.fails("option-range", *command, "--feature-cache", "much")
    cli.fails("usage", *command, "--feature-cache", "0", "--feature-spill", tmp_path)
    cli.fails("usage", *command, "--feature-cache", "1GB", "--ray")
    cli.fails("option-range", *command, "--feature-cache", "1GB", "--stretch", "same")
    assert cli(*command, "--stretch", "same", "--resize", 96, "--json").json["from_features"] is False
