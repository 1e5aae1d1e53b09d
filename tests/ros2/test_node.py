"""The ROS node over the real middleware on this machine, beside direct calls (wheels: ros2/requirements.txt)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matchrt_ros.clouds import read_cloud, rows_of
from matchrt_ros.images import fill_rgb

from matchrt import Matcher, MatcherOptions
from matchrt.runtime.bundled import photographs_folder
from matchrt.runtime.image import read_image

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed (ros2/requirements.txt)")
diagnostics = pytest.importorskip("diagnostic_msgs.msg")
sensors = pytest.importorskip("sensor_msgs.msg")
standard = pytest.importorskip("std_msgs.msg")

from rclpy.node import Node  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402

PACKAGE = Path(__file__).resolve().parents[2] / "ros2" / "matchrt_ros"
# A domain of this process, so that runs beside one another do not hear each other.
DOMAIN = 1 + os.getpid() % 100
PATIENCE = 120.0
# Long side in pixels at which the engine sees the images: small, so that a CPU matches several pairs a second.
RESIZE = 192


def photograph(name: str) -> np.ndarray:
    """uint8 RGB, a quarter of the photograph's sides."""
    return np.ascontiguousarray(read_image(photographs_folder() / name).pixels[::2, ::2])


FIRST, SECOND = photograph("cup_0.jpg"), photograph("cup_1.jpg")


class Camera:
    """Publishes images and keeps what comes back."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = Node("camera", context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.publishers: dict[str, Any] = {}
        self.clouds: list[Any] = []
        self.pictures: list[Any] = []
        self.reports: list[Any] = []
        self.stamp = 0
        for kind, topic, kept in (
            (sensors.PointCloud2, "/matchrt/matches", self.clouds),
            (sensors.Image, "/matchrt/drawn", self.pictures),
            (diagnostics.DiagnosticArray, "/diagnostics", self.reports),
        ):
            self.node.create_subscription(kind, topic, kept.append, 10)

    def publish(self, topic: str, image: np.ndarray, stamp: int, encoding: str = "rgb8") -> None:
        if topic not in self.publishers:
            self.publishers[topic] = self.node.create_publisher(sensors.Image, topic, qos_profile_sensor_data)
        message = sensors.Image()
        fill_rgb(message, image)
        message.encoding, message.header.frame_id = encoding, topic
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        self.publishers[topic].publish(message)

    def until(self, done: Callable[[], bool], publish: Callable[[int], None], every: float = 0.3) -> None:
        """Publishes again and again until `done`: nothing that is sent before the nodes know each other arrives."""
        end, due = time.monotonic() + PATIENCE, 0.0
        while not done():
            assert time.monotonic() < end, "nothing came back"
            if time.monotonic() >= due:
                self.stamp += 1_000_000_000
                publish(self.stamp)
                due = time.monotonic() + every
            self.executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def camera() -> Iterator[Camera]:
    camera = Camera()
    yield camera
    camera.close()


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the node in a process of its own with these parameters."""
    running: list[subprocess.Popen[str]] = []

    def run(**parameters: object) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "matchrt_ros.node", "--ros-args"]
        for name, value in {"resize": RESIZE, **parameters}.items():
            words += ["-p", f"{name}:={value}"]
        path = os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "ROS_DOMAIN_ID": str(DOMAIN)}
        running.append(
            subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        return running[-1]

    yield run
    for process in running:
        process.terminate()
        process.wait(30)


def expected(image0: np.ndarray, image1: np.ndarray) -> np.ndarray:
    with Matcher(options=MatcherOptions(resize=RESIZE)) as matcher:
        return rows_of(matcher.match(image0, image1))


def test_two_topics_give_the_matches_of_a_direct_call(camera: Camera, start: Callable[..., Any]) -> None:
    node = start(mode="two_topics", draw="true")

    def publish(stamp: int) -> None:
        camera.publish("image0", FIRST, stamp)
        camera.publish("image1", np.ascontiguousarray(SECOND[:, :, ::-1]), stamp + 5_000_000, "bgr8")

    camera.until(lambda: bool(camera.clouds and camera.pictures) and int(_values(camera)["pairs matched"]) > 0, publish)
    wanted = expected(FIRST, SECOND)
    assert len(wanted) > 20
    cloud = camera.clouds[-1]
    np.testing.assert_array_equal(read_cloud(cloud), wanted)
    assert cloud.header.frame_id == "image1" and cloud.header.stamp.nanosec == 5_000_000
    assert camera.pictures[-1].encoding == "rgb8" and camera.pictures[-1].width > FIRST.shape[1]
    values = {entry.key: entry.value for entry in camera.reports[-1].status[0].values}
    assert values["backend"] == "onnxruntime" and values["errors"] == "0" and _level(camera) == 0
    # It ends at once, and well, when it is told to.
    node.terminate()
    assert node.wait(30) == 0


def test_images_without_a_partner_are_not_matched(camera: Camera, start: Callable[..., Any]) -> None:
    start(mode="two_topics", sync_slop=0.01, stale_after=1)

    def publish(stamp: int) -> None:
        camera.publish("image0", FIRST, stamp)
        camera.publish("image1", SECOND, stamp + 500_000_000)

    camera.until(lambda: _level(camera) == 1 and int(_values(camera)["images"]) > 2, publish)
    assert not camera.clouds


def test_a_keyframe_is_kept_until_another_is_asked_for(camera: Camera, start: Callable[..., Any]) -> None:
    start(mode="keyframe")
    camera.until(lambda: bool(camera.clouds), lambda stamp: camera.publish("image", FIRST, stamp))
    np.testing.assert_array_equal(read_cloud(camera.clouds[-1]), expected(FIRST, FIRST))
    second = expected(FIRST, SECOND)
    camera.until(lambda: _is(camera, second), lambda stamp: camera.publish("image", SECOND, stamp))
    ask = camera.node.create_publisher(standard.Empty, "/matchrt/keyframe", 1)

    def publish(stamp: int) -> None:
        ask.publish(standard.Empty())
        camera.publish("image", SECOND, stamp)

    again = expected(SECOND, SECOND)
    camera.until(lambda: ask.get_subscription_count() > 0, lambda stamp: None)
    publish(camera.stamp + 1)
    camera.until(lambda: _is(camera, again), lambda stamp: camera.publish("image", SECOND, stamp))


def test_each_image_with_the_one_before_it_verified(camera: Camera, start: Callable[..., Any]) -> None:
    start(mode="previous", verify="fundamental", max_rate=20)
    shown = [FIRST, SECOND]
    camera.until(
        lambda: len(camera.clouds) > 3, lambda stamp: camera.publish("image", shown[stamp // 10**9 % 2], stamp), 1.0
    )
    with Matcher(options=MatcherOptions(resize=RESIZE)) as matcher:
        kept = [rows_of(matcher.match(a, b).verify("fundamental"), inliers_only=True)
                for a in shown for b in shown]  # fmt: skip
    for cloud in camera.clouds:
        assert any(np.array_equal(read_cloud(cloud), rows) for rows in kept)


def test_a_bad_image_is_reported_and_the_next_good_one_matched(camera: Camera, start: Callable[..., Any]) -> None:
    start(mode="keyframe")
    camera.until(lambda: _level(camera) == 2, lambda stamp: camera.publish("image", FIRST, stamp, "bayer_rggb8"))
    assert "bayer_rggb8" in camera.reports[-1].status[0].message
    camera.until(
        lambda: bool(camera.clouds) and _level(camera) == 0, lambda stamp: camera.publish("image", FIRST, stamp)
    )


@pytest.mark.parametrize("mode", ["previous", "keyframe"])
def test_a_first_image_that_cannot_be_matched_does_not_stay(
    camera: Camera, start: Callable[..., Any], mode: str
) -> None:
    start(mode=mode)
    small = np.ascontiguousarray(FIRST[:8, :8])
    camera.until(lambda: _level(camera) == 2, lambda stamp: camera.publish("image", small, stamp))
    assert "8 x 8 pixels" in camera.reports[-1].status[0].message
    camera.until(lambda: bool(camera.clouds), lambda stamp: camera.publish("image", FIRST, stamp))


@pytest.mark.parametrize(
    ("parameters", "part"),
    [
        ({"mode": "four"}, "option-range"),
        ({"engine": "/nowhere/x.engine"}, "engine-missing"),
        ({"threads": "two"}, "int"),
    ],
)
def test_a_node_that_cannot_start_says_why(start: Callable[..., Any], parameters: dict[str, str], part: str) -> None:
    node = start(**parameters)
    output, _ = node.communicate(timeout=60)
    assert node.returncode == 2 and part in output and "Traceback" not in output


def _values(camera: Camera) -> dict[str, str]:
    return (
        {entry.key: entry.value for entry in camera.reports[-1].status[0].values}
        if camera.reports
        else dict.fromkeys(("images", "pairs matched"), "0")
    )


def _level(camera: Camera) -> int:
    """The newest report's level; -1 before the first."""
    return int.from_bytes(camera.reports[-1].status[0].level, "little") if camera.reports else -1


def _is(camera: Camera, rows: np.ndarray) -> bool:
    return bool(camera.clouds) and np.array_equal(read_cloud(camera.clouds[-1]), rows)
