"""Matcher with the bundled trained engine: right pixels, any input, no surprises."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PILImage
from support.pictures import shifted_pair, texture

from matchrt import Matcher, MatcherOptions, Matches, MatchRTError
from matchrt.manifest import manifest_path
from matchrt.runtime.engine_file import engine_path, read_engine
from matchrt.store import EngineStore


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    return Matcher("loftr-lite")


@pytest.fixture(scope="module")
def small() -> Matcher:
    """Images stay at their own size, which is small: by default they are enlarged, at four times the cost."""
    return Matcher("loftr-lite", MatcherOptions(resize=320))


def _errors(matches: Matches, homography: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    truth = cv2.perspectiveTransform(matches.keypoints0[None].astype(np.float64), homography)[0]
    return np.asarray(np.linalg.norm(truth - matches.keypoints1, axis=1))


def _shift(dx: float, dy: float) -> npt.NDArray[np.float64]:
    return np.array([[1, 0, -dx], [0, 1, -dy], [0, 0, 1.0]])


def test_shift_is_found_to_a_fraction_of_a_pixel(matcher: Matcher) -> None:
    image0, image1 = shifted_pair(320, 480, (37, 22))
    matches = matcher.match(image0, image1)
    assert len(matches) > 300
    assert np.median(_errors(matches, _shift(37, 22))) < 0.7


@pytest.mark.parametrize("scale", [1.6, 2.3])
def test_keypoints_are_pixels_of_the_original(matcher: Matcher, scale: float) -> None:
    """Large images are matched small; what comes back is in their own pixels, on both axes."""
    image0, image1 = (
        cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        for image in shifted_pair(400, 560, (40, 24))
    )
    matches = matcher.match(image0, image1)
    errors = _errors(matches, _shift(40 * scale, 24 * scale))
    assert len(matches) > 300 and np.median(errors) < 0.7 * scale


def test_images_of_different_size_and_shape(matcher: Matcher) -> None:
    whole = texture(480, 640, 3)
    crop = np.ascontiguousarray(whole[100:400, 80:330])
    matches = matcher.match(whole, crop)
    assert len(matches) > 50
    assert np.median(_errors(matches, _shift(80, 100))) < 1.5
    assert (matches.image0.height, matches.image1.width) == (480, 250)


def test_every_kind_of_array_gives_the_same_matches(small: Matcher) -> None:
    image0, image1 = shifted_pair(256, 320, (16, 8))
    expected = small.match(image0, image1)

    def as_rgb(image: Any) -> Any:
        return np.repeat(image[:, :, None], 3, axis=2)

    kinds = {
        "rgb": as_rgb, "one channel": lambda i: i[:, :, None], "float": lambda i: i.astype(np.float32) / 255,
        "uint16": lambda i: i.astype(np.uint16) * 257, "not contiguous": np.asfortranarray,
    }  # fmt: skip
    for kind, convert in kinds.items():
        matches = small.match(convert(image0), convert(image1))
        assert np.array_equal(matches.keypoints1, expected.keypoints1), kind


def test_channel_order(small: Matcher) -> None:
    image0, image1 = shifted_pair(256, 320, (16, 8))
    colour = np.stack([image0, texture(256, 320, 9), texture(256, 320, 8)], axis=2)
    as_rgb = small.match(colour, image1)
    with Matcher("loftr-lite", MatcherOptions(channel_order="bgr", resize=320)) as bgr:
        as_bgr = bgr.match(np.ascontiguousarray(colour[:, :, ::-1]), image1)
    assert np.array_equal(as_rgb.keypoints1, as_bgr.keypoints1)


def test_files_and_exif(matcher: Matcher, tmp_path: Path) -> None:
    image0, image1 = shifted_pair(256, 320, (16, 8))
    PILImage.fromarray(image0).save(tmp_path / "a.png")
    exif = PILImage.Exif()
    exif[0x0112] = 6  # stored turned by 90 degrees; to be shown turned back
    PILImage.fromarray(np.rot90(image1)).save(tmp_path / "b.png", exif=exif)
    upright = matcher.match(tmp_path / "a.png", str(tmp_path / "b.png"))
    assert len(upright) > 200 and np.median(_errors(upright, _shift(16, 8))) < 0.7
    with Matcher("loftr-lite", MatcherOptions(apply_exif=False)) as stored:
        assert stored.match(tmp_path / "a.png", tmp_path / "b.png").image1.height == 320


def test_unrelated_images_give_few_matches(small: Matcher) -> None:
    related = len(small.match(*shifted_pair(256, 320, (16, 8))))
    assert len(small.match(texture(256, 320, 1), texture(256, 320, 2))) < 0.15 * related


def test_two_runs_are_identical(small: Matcher) -> None:
    image0, image1 = shifted_pair(256, 320, (16, 8))
    first, second = small.match(image0, image1), small.match(image0, image1)
    assert np.array_equal(first.keypoints1, second.keypoints1) and np.array_equal(first.scores, second.scores)


def test_match_many_keeps_the_order_and_equals_match(small: Matcher) -> None:
    pairs = [shifted_pair(192, 256, (8 * i, 8), i) for i in range(1, 4)]
    many = list(small.match_many(iter(pairs)))
    for pair, matches in zip(pairs, many, strict=True):
        assert isinstance(matches, Matches)
        assert np.array_equal(matches.keypoints1, small.match(*pair).keypoints1)
    assert list(small.match_many([])) == []


def test_match_many_with_a_bad_pair(small: Matcher) -> None:
    good = shifted_pair(192, 256, (8, 8))
    pairs = [good, (good[0], "missing.png"), good]
    results = list(small.match_many(pairs, return_errors=True))
    assert [isinstance(result, Matches) for result in results] == [True, False, True]
    assert isinstance(results[1], MatchRTError) and results[1].code == "image-missing"
    with pytest.raises(MatchRTError):
        list(small.match_many(pairs))


@pytest.mark.parametrize("pairs", [5, None, 2.5])
def test_match_many_of_no_pairs(small: Matcher, pairs: Any) -> None:
    with pytest.raises(MatchRTError) as caught:
        list(small.match_many(pairs))
    assert caught.value.code == "pair-invalid" and type(pairs).__name__ in caught.value.message
    assert [getattr(result, "code", "") for result in small.match_many("ab", return_errors=True)] == [
        "pair-invalid"
    ] * 2  # type: ignore[arg-type]


def test_little_contrast_is_a_warning_of_the_matches(small: Matcher) -> None:
    image0, image1 = (image.astype(np.uint16) * 16 for image in shifted_pair(192, 256, (8, 8)))
    matches = small.match(image0, image1)
    assert len(matches.warnings) == 2 and "image0" in matches.warnings[0]
    assert matches.summary()["warnings"] == list(matches.warnings)
    with Matcher("loftr-lite", MatcherOptions(resize=320, stretch="same")) as stretching:
        better = stretching.match(image0, image1)
        assert len(better) > len(matches) and not better.warnings
        assert [len(found) for found in stretching.match_many([(image0, image1)])] == [len(better)]


def test_matches_are_drawn_on_paths_and_arrays(small: Matcher, tmp_path: Path) -> None:
    images = shifted_pair(192, 256, (8, 8))
    paths = [tmp_path / "a.png", tmp_path / "b.tif"]
    for image, path in zip(images, paths, strict=True):
        PILImage.fromarray(image).save(path)
    matches = small.match(*paths)
    expected = matches.draw(*images)
    assert np.array_equal(matches.draw(*paths), expected)
    assert np.array_equal(matches.draw(str(paths[0]), images[1].astype(np.uint16) * 257), expected)
    with pytest.raises(MatchRTError) as caught:
        matches.draw(paths[0], tmp_path / "no.png")
    assert caught.value.code == "image-missing"


def test_what_comes_before_a_failing_iterator_is_delivered(small: Matcher) -> None:
    def pairs() -> Iterator[object]:
        yield shifted_pair(192, 256, (8, 8))
        yield None
        raise ZeroDivisionError

    results: list[object] = []
    with pytest.raises(ZeroDivisionError):
        results.extend(small.match_many(pairs(), return_errors=True))  # type: ignore[arg-type]
    assert isinstance(results[0], Matches)
    assert isinstance(results[1], MatchRTError) and results[1].code == "pair-invalid"


def test_a_closed_generator_stops_the_work(small: Matcher) -> None:
    taken = []

    def pairs() -> Iterator[object]:
        for index in range(100):
            taken.append(index)
            yield shifted_pair(192, 256, (8, 8), index)

    results = small.match_many(pairs())  # type: ignore[arg-type]
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(taken) <= 3


@pytest.mark.parametrize(
    "options", [{"min_score": 5.0}, {"device": "tpu"}, {"threads": 0}, {"channel_order": "gbr"}, {"max_pixels": 0}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(MatchRTError) as caught:
        MatcherOptions(**options)
    assert caught.value.code == "option-range" and next(iter(options)) in caught.value.message


def test_sizes_that_do_not_fit_into_memory(matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matchrt._util.memory.available_bytes", lambda: 1_000_000)
    with pytest.raises(MatchRTError) as caught:
        matcher.match(texture(480, 640), texture(480, 640))
    assert caught.value.code == "size-memory" and "GB" in caught.value.message


def test_a_provider_that_falls_back_is_an_error(coarse_engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime built with CUDA takes the CPU where CUDA's libraries are missing; we do not."""
    import onnxruntime

    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda data, settings, providers: real(data, settings, ["CPUExecutionProvider"]),
    )
    with pytest.raises(MatchRTError) as caught:
        Matcher(coarse_engine, MatcherOptions(device="cuda"))
    assert caught.value.code == "device-missing"


def test_a_model_name_finds_the_one_stored_engine(coarse_engine: Path, tmp_path: Path) -> None:
    store = EngineStore(tmp_path)
    engine = read_engine(coarse_engine)
    store.put(engine.data, engine.manifest, "a.onnx")
    assert Matcher("coarse-loftr", store=store).manifest == engine.manifest
    store.put(engine.data, replace(engine.manifest, build_key="f" * 64), "b.onnx")
    with pytest.raises(MatchRTError) as caught:
        Matcher("coarse-loftr", store=store)
    assert caught.value.code == "engine-ambiguous" and "b.onnx" in caught.value.message
    for name in ("*", "/tmp/nope", "..", ""):
        with pytest.raises(MatchRTError) as caught:
            Matcher(name, store=store)
        assert caught.value.code == "engine-missing"


def test_provenance_and_timings(matcher: Matcher) -> None:
    matches = matcher.match(*shifted_pair(300, 400, (8, 8)))
    assert matches.provenance.model == "loftr-lite"
    assert matches.provenance.engine_sha256 == matcher.manifest.engine_sha256
    assert all(side % 8 == 0 for side in matches.provenance.network_size0)
    assert {"decode", "resize", "inference"} <= set(matches.timings)


def test_min_score_and_resize() -> None:
    pair = shifted_pair(400, 560, (16, 8))
    with Matcher("loftr-lite", MatcherOptions(min_score=0.6, resize=320)) as matcher:
        matches = matcher.match(*pair)
    assert len(matches) > 50 and float(matches.scores.min()) >= 0.6
    assert max(matches.provenance.network_size0) == 320
    with pytest.raises(MatchRTError) as caught:
        Matcher("loftr-lite", MatcherOptions(resize=100_000))
    assert caught.value.code == "resize-range"


def test_static_engine_letterboxes(coarse_engine: Path) -> None:
    with Matcher(coarse_engine) as matcher:
        tall, wide = texture(400, 100), texture(100, 400)
        assert matcher.match(tall, wide).provenance.network_size0 == (192, 256)
        matcher.warm_up()
    with pytest.raises(MatchRTError) as caught:
        Matcher(coarse_engine, MatcherOptions(resize=320))
    assert caught.value.code == "resize-static"


def test_closed_and_cuda(coarse_engine: Path) -> None:
    matcher = Matcher(coarse_engine)
    matcher.close()
    with pytest.raises(MatchRTError) as caught:
        matcher.match(texture(100, 100), texture(100, 100))
    assert caught.value.code == "session-closed"
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(MatchRTError) as caught:
            Matcher(coarse_engine, MatcherOptions(device="cuda"))
        assert caught.value.code == "device-missing"


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ("tampered", "engine-digest"),
        ("truncated", "engine-digest"),
        ("no manifest", "manifest-missing"),
        ("other backend", "engine-backend"),
        ("missing", "engine-missing"),
    ],
)
def test_engines_that_do_not_fit_are_refused(coarse_engine: Path, tmp_path: Path, damage: str, code: str) -> None:
    engine = tmp_path / "e.onnx"
    shutil.copy(coarse_engine, engine)
    shutil.copy(manifest_path(coarse_engine), manifest_path(engine))
    data = engine.read_bytes()
    if damage == "tampered":
        engine.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    elif damage == "truncated":
        engine.write_bytes(data[:-1])
    elif damage == "no manifest":
        manifest_path(engine).unlink()
    elif damage == "other backend":
        text = manifest_path(engine).read_text().replace('"backend": "onnxruntime"', '"backend": "openvino"')
        manifest_path(engine).write_text(text)
    else:
        engine.unlink()
    with pytest.raises(MatchRTError) as caught:
        Matcher(engine)
    assert caught.value.code == code and "matchrt build" in caught.value.remedy


def test_an_onnx_file_that_the_runtime_rejects(coarse_engine: Path, tmp_path: Path) -> None:
    from matchrt._util.digest import sha256_bytes

    junk = b"not onnx"
    manifest = replace(read_engine(coarse_engine).manifest, engine_sha256=sha256_bytes(junk), engine_bytes=len(junk))
    (tmp_path / "e.onnx").write_bytes(junk)
    manifest.write(tmp_path / "e.onnx.json")
    with pytest.raises(MatchRTError) as caught:
        Matcher(tmp_path / "e.onnx")
    assert caught.value.code == "engine-rejected"


def test_session_checks_its_inputs(matcher: Matcher) -> None:
    session = matcher.session
    good = {f"image{i}": np.zeros((1, 64, 64, 1), np.uint8) for i in (0, 1)}
    bad = [{"image0": good["image0"]}, good | {"image1": good["image1"].astype(np.float32)},
           good | {"image1": good["image1"][0]}, good | {"image1": np.zeros((2, 64, 64, 1), np.uint8)}]  # fmt: skip
    for inputs in bad:
        with pytest.raises(MatchRTError) as caught:
            session.run(inputs)
        assert caught.value.code == "session-input"
    for shape in ((1, 32, 64, 1), (1, 68, 64, 1), (1, 64, 4096, 1)):  # outside the profile, or not a multiple of 8
        with pytest.raises(MatchRTError, match="Input image1"):
            session.run(good | {"image1": np.zeros(shape, np.uint8)})


def test_bundled_engine_is_of_the_bundled_weights() -> None:
    pytest.importorskip("safetensors", reason="the weights are a safetensors file: extra export")
    from matchrt.export.weights.read import read_checkpoint

    engine = read_engine("loftr-lite")
    weights = engine_path("loftr-lite").with_name("loftr-lite.safetensors")
    assert engine.manifest.source.tensors_sha256 == read_checkpoint(weights).tensors_sha256
    assert weights.stat().st_size <= 10_000_000
