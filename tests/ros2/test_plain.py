"""The parts of the ROS node that need no ROS: images, clouds, pairing, parameters, health, and the package's files."""

from __future__ import annotations

import ast
import inspect
import math
import runpy
import sys
import threading
import xml.etree.ElementTree as ET
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matchrt_ros.clouds import FIELDS, fill_cloud, read_cloud, rows_of
from matchrt_ros.health import ERROR, OK, WARN, Health
from matchrt_ros.images import ENCODINGS, fill_rgb, image_of
from matchrt_ros.pairing import ApproximateSync, LatestJob
from matchrt_ros.settings import Settings

from matchrt import Matcher, MatchRTError, Nv12

PACKAGE = Path(__file__).resolve().parents[2] / "ros2" / "matchrt_ros"
HEIGHT, WIDTH = 6, 10
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
ALPHA = np.full((HEIGHT, WIDTH, 1), 9, np.uint8)
GREY16 = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)


def message(encoding: str, rows: np.ndarray, padding: int = 0, big: bool = False, **changes: Any) -> Any:
    """An image message with rows of bytes `[rows, bytes]`, each followed by `padding` bytes of 255."""
    data = np.concatenate([rows, np.full((len(rows), padding), 255, np.uint8)], axis=1)
    values = {"height": HEIGHT, "width": WIDTH, "encoding": encoding, "is_bigendian": int(big)}
    return SimpleNamespace(**(values | {"step": data.shape[1], "data": data.tobytes()} | changes))


def flat(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(np.uint8).reshape(len(array), -1)


@pytest.mark.parametrize("padding", [0, 3, 7])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[:, :, ::-1], RGB),
        ("rgba8", np.concatenate([RGB, ALPHA], 2), RGB),
        ("bgra8", np.concatenate([RGB[:, :, ::-1], ALPHA], 2), RGB),
        ("mono8", RGB[:, :, 0], RGB[:, :, 0]),
        ("8UC1", RGB[:, :, 0], RGB[:, :, 0]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_eight_bits_of_every_order_and_row_length(
    encoding: str, pixels: np.ndarray, expected: np.ndarray, padding: int
) -> None:
    found = image_of(message(encoding, flat(pixels), padding))
    assert isinstance(found, np.ndarray) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
@pytest.mark.parametrize(("big", "kind"), [(True, ">u2"), (False, "<u2")])
@pytest.mark.parametrize("padding", [0, 1, 6])
def test_sixteen_bits_in_both_byte_orders(encoding: str, big: bool, kind: str, padding: int) -> None:
    found = image_of(message(encoding, flat(GREY16.astype(kind)), padding, big))
    assert isinstance(found, np.ndarray) and found.dtype == np.uint16
    np.testing.assert_array_equal(found, GREY16)


@pytest.mark.parametrize("padding", [0, 6])
def test_nv12_has_half_as_many_rows_of_chroma(padding: int) -> None:
    rows = np.random.default_rng(2).integers(0, 256, (HEIGHT * 3 // 2, WIDTH), dtype=np.uint8)
    found = image_of(message("nv12", rows, padding))
    assert isinstance(found, Nv12) and (found.height, found.width) == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(found.array, rows)


def test_the_last_row_may_lack_its_padding() -> None:
    whole = message("mono8", RGB[:, :, 0], 4)
    whole.data = whole.data[:-4]
    np.testing.assert_array_equal(image_of(whole), RGB[:, :, 0])


@pytest.mark.parametrize(
    ("bad", "part"),
    [
        (message("bayer_rggb8", RGB[:, :, 0]), "bayer_rggb8"),
        (message("32FC1", flat(GREY16.astype(np.float32))), "32FC1"),
        (message("rgb8", flat(RGB), step=WIDTH), "rows of 10 bytes"),
        (message("rgb8", flat(RGB), data=b"\0" * 50), "50 bytes"),
        (message("mono8", RGB[:, :, 0], height=0), "10x0"),
        (message("nv12", RGB[:, :, 0], height=5), "nv12 of 10x5"),
        (message("nv12", RGB[:, :, 0]), "9 rows"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_image_is_refused_with_its_fault(bad: Any, part: str) -> None:
    with pytest.raises(MatchRTError) as caught:
        image_of(bad)
    assert caught.value.code == "image-array" and part in caught.value.message and caught.value.remedy


def test_every_encoding_is_matched_with_the_same_result() -> None:
    """Colour orders, paddings and NV12 come out as the same matches that the arrays give directly."""
    rng = np.random.default_rng(3)
    grey = np.kron(rng.integers(0, 256, (16, 20), dtype=np.uint8), np.ones((8, 8), np.uint8))
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    size = {"height": 128, "width": 160}
    with Matcher() as matcher:
        expected = rows_of(matcher.match(rgb, rgb))
        assert len(expected) > 20
        for encoding in ("rgb8", "bgr8"):
            image = image_of(message(encoding, flat(rgb), 5, **size))
            np.testing.assert_array_equal(rows_of(matcher.match(image, image)), expected)


# ------------------------------------------------------------------------------------------ clouds


def test_a_cloud_holds_the_matches_as_floats() -> None:
    with Matcher() as matcher:
        grey = np.kron(np.random.default_rng(4).integers(0, 256, (12, 16), dtype=np.uint8), np.ones((8, 8), np.uint8))
        matches = matcher.match(grey, grey)
    rows = rows_of(matches)
    assert rows.shape == (len(matches), 5) and len(rows) > 10
    np.testing.assert_array_equal(rows[:, :2], matches.keypoints0)
    np.testing.assert_array_equal(rows[:, 2:4], matches.keypoints1)
    cloud = SimpleNamespace()
    fill_cloud(cloud, SimpleNamespace, rows)
    assert [(entry.name, entry.offset, entry.datatype) for entry in cloud.fields] == [
        (name, 4 * index, 7) for index, name in enumerate(FIELDS)
    ]
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (1, len(rows), 20, 20 * len(rows))
    assert cloud.is_bigendian == (sys.byteorder == "big") and cloud.is_dense
    np.testing.assert_array_equal(read_cloud(cloud), rows)
    verified = matches.verify("homography")
    assert len(rows_of(verified, inliers_only=True)) == int(verified.inliers.sum()) > 0


def test_an_empty_cloud_and_a_picture() -> None:
    cloud = SimpleNamespace()
    fill_cloud(cloud, SimpleNamespace, np.zeros((0, 5), np.float32))
    assert cloud.width == 0 and read_cloud(cloud).shape == (0, 5)
    picture = SimpleNamespace()
    fill_rgb(picture, RGB)
    assert picture.step == 3 * WIDTH
    np.testing.assert_array_equal(image_of(picture), RGB)


# ------------------------------------------------------------------------------------------ pairing


def test_images_with_near_stamps_are_paired_and_older_ones_dropped() -> None:
    sync: ApproximateSync[str] = ApproximateSync(slop=10)
    assert sync.add(0, 100, "a100") is None
    assert sync.add(1, 50, "b50") is None  # too far from 100
    assert sync.add(1, 105, "b105") == ("a100", "b105")
    assert sync.add(0, 52, "a52") is None  # b50 went with the pair
    assert sync.add(0, 200, "a200") is None
    assert sync.add(1, 191, "b191") == ("a200", "b191")


def test_a_stream_alone_keeps_few_images_and_a_clock_that_jumps_back_does_no_harm() -> None:
    sync: ApproximateSync[int] = ApproximateSync(slop=5, depth=3)
    for stamp in range(0, 1000, 10):
        assert sync.add(0, stamp, stamp) is None
    assert sync.add(1, 500, -1) is None  # long gone
    assert sync.add(1, 990, -2) == (990, -2)
    # A recording that begins anew.
    assert sync.add(0, 10, 10) is None
    assert sync.add(1, 12, -3) == (10, -3)


def test_only_the_newest_job_waits() -> None:
    jobs: LatestJob[int] = LatestJob()
    assert not jobs.offer(1)
    assert jobs.offer(2) and jobs.offer(3)
    assert jobs.take() == 3
    assert not jobs.offer(4)
    jobs.close()
    assert jobs.take() is None


def test_the_rate_is_kept_and_closing_wakes_the_thread() -> None:
    now = [100.0]
    jobs: LatestJob[int] = LatestJob(max_rate=0.001, clock=lambda: now[0])
    jobs.offer(1)
    assert jobs.take() == 1
    jobs.offer(2)
    taken: list[int | None] = []
    thread = threading.Thread(target=lambda: taken.append(jobs.take()))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive() and not taken  # 1000 s have not passed
    now[0] += 1000.5
    jobs.offer(3)
    thread.join(10)
    assert taken == [3]
    thread = threading.Thread(target=lambda: taken.append(jobs.take()))
    thread.start()
    jobs.close()
    thread.join(10)
    assert taken == [3, None]


# ------------------------------------------------------------------------------------------ parameters, health


def test_the_configuration_file_has_all_parameters_with_their_defaults() -> None:
    text = (PACKAGE / "config" / "match.yaml").read_text(encoding="utf-8")
    lines = [line.split("#")[0].split(":", 1) for line in text.splitlines() if line.startswith("    ")]
    given = {name.strip(): ast.literal_eval(value.strip().replace("false", "False")) for name, value in lines}
    assert given == {field.name: field.default for field in fields(Settings)}
    assert Settings.of(given) == Settings()


def test_the_default_engine_is_that_of_matcher() -> None:
    assert Settings().engine == inspect.signature(Matcher).parameters["engine"].default


def _launched(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> SimpleNamespace:
    """The node of the launch file. No wheel has ROS's launch: stand-ins for what the file uses of it."""
    declared: dict[str, str] = {}
    stand_ins: dict[str, dict[str, object]] = {
        "ament_index_python": {},
        "ament_index_python.packages": {"get_package_share_directory": lambda name: "/share/" + name},
        "launch": {"LaunchDescription": list, "LaunchContext": object},
        "launch.actions": {
            "DeclareLaunchArgument": lambda name, default_value: declared.update({name: default_value}),
            "OpaqueFunction": lambda function: function,
        },
        "launch.substitutions": {
            "LaunchConfiguration": lambda name: SimpleNamespace(perform=lambda context: (declared | given)[name])
        },
        "launch_ros": {},
        "launch_ros.actions": {"Node": SimpleNamespace},
    }
    for name, names in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**names))  # type: ignore[arg-type]
    file = runpy.run_path(str(PACKAGE / "launch" / "match.launch.py"))
    *_, nodes = file["generate_launch_description"]()
    assert set(given) <= set(declared)
    (node,) = nodes(None)
    assert isinstance(node, SimpleNamespace)
    return node


@pytest.mark.parametrize("given", [{}, {"mode": "previous"}, {"engine": "a.engine", "mode": "keyframe"}])
def test_the_launch_file_overrides_only_what_was_given(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    node = _launched(monkeypatch, given | {"params": "/opt/robot.yaml"})
    file, over = node.parameters
    assert file.perform(None) == "/opt/robot.yaml" and over == given
    assert [topic for topic, _ in node.remappings] == ["image", "image0", "image1"]
    node = _launched(monkeypatch, {})
    assert node.parameters[0].perform(None) == "/share/matchrt_ros/config/match.yaml"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("mode", "three_topics", "option-range"),
        ("engine", "", "option-range"),
        ("sync_slop", -0.1, "option-range"),
        ("sync_slop", math.nan, "option-range"),
        ("max_rate", math.inf, "option-range"),
        ("max_rate", "fast", "option-range"),
        ("draw", 1, "option-range"),
        ("min_score", 1.5, "option-range"),
        ("min_score", -0.5, "option-range"),
        ("resize", -1, "option-range"),
        ("resize", 640.0, "option-range"),
        ("threads", -2, "option-range"),
        ("stretch", "wide", "option-range"),
        ("verify", "essential", "option-range"),
        ("backend", "cuda", "backend-unknown"),
        ("keyframe_file", "a.jpg", "option-range"),  # the mode is another one
        ("stale_after", 0.0, "option-range"),
    ],
)
def test_a_wrong_parameter_is_named(name: str, value: Any, code: str) -> None:
    with pytest.raises(MatchRTError) as caught:
        Settings.of({name: value})
    assert caught.value.code == code and (name in caught.value.message or code == "backend-unknown")


def test_whole_numbers_will_do_for_floats_and_the_keyframe_must_exist(tmp_path: Path) -> None:
    assert Settings.of({"max_rate": 5}).max_rate == 5.0
    assert Settings.of({"min_score": 0}).options().min_score == 0.0
    assert Settings().options().min_score is None and Settings().options().resize is None
    with pytest.raises(MatchRTError, match="no file"):
        Settings.of({"mode": "keyframe", "keyframe_file": str(tmp_path / "none.png")})


def test_health_says_what_is_wrong_and_recovers() -> None:
    now = [0.0]
    health = Health(stale_after=5.0, clock=lambda: now[0])
    assert health.report()[:2] == (OK, "Waiting for images.")
    now[0] = 6.0
    assert health.report()[0] == WARN
    health.failed("bad image")
    level, text, values = health.report()
    assert (level, text, values["last error"]) == (ERROR, "bad image", "bad image")
    for step in range(3):
        now[0] = 7.0 + step / 2
        health.image()
        health.matched(10.0 + step, 100 + step)
    level, text, values = health.report()
    assert (level, text) == (OK, "Matching.")
    assert values["pairs a second"] == "2.00" and values["latency, ms"] == "11.00"
    assert values["matches of the last pair"] == "102" and values["errors"] == "1"
    health.dropped()
    assert health.report()[2]["pairs dropped"] == "1"


# ------------------------------------------------------------------------------------------ the package's files


def test_the_package_is_one_that_colcon_finds() -> None:
    root = ET.parse(PACKAGE / "package.xml").getroot()
    assert root.findtext("name") == "matchrt_ros" and root.findtext("export/build_type") == "ament_python"
    assert (PACKAGE / "resource" / "matchrt_ros").is_file()
    setup = (PACKAGE / "setup.py").read_text(encoding="utf-8")
    assert root.findtext("version") == "0.1.0" and 'version="0.1.0"' in setup
    for name in ("launch/match.launch.py", "config/match.yaml", "package.xml"):
        assert name in setup and (PACKAGE / name).is_file()
    imported = {
        node.module.split(".")[0]
        for path in (*PACKAGE.glob("matchrt_ros/*.py"), *PACKAGE.glob("launch/*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    declared = {entry.text for entry in root.findall("exec_depend")}
    needed = imported - {"__future__", "matchrt", "matchrt_ros"} - set(sys.stdlib_module_names)
    # rclpy brings these two.
    assert needed - declared == {"ament_index_python", "rcl_interfaces"}


def test_the_documents_name_every_encoding_and_parameter() -> None:
    text = (PACKAGE.parents[1] / "docs" / "ros2.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in ENCODINGS)
    assert all(f"`{field.name}`" in text for field in fields(Settings))
