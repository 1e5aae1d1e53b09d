"""The node: images in, matches out, the newest pair first.

Callbacks only remember the newest images. One thread of its own matches, so that a slow engine never makes a queue of
old frames: what arrives meanwhile is dropped, and counted.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Empty

from matchrt import Matcher, Matches, MatchRTError
from matchrt_ros.clouds import fill_cloud, rows_of
from matchrt_ros.health import Health
from matchrt_ros.images import fill_rgb, image_of
from matchrt_ros.pairing import ApproximateSync, LatestJob
from matchrt_ros.settings import Settings

_LEVELS = (DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR)


@dataclass(frozen=True)
class _Job:
    """Two images to match.

    first: the image 0 of the pair; None for the keyframe.
    second: the image 1, whose header the result has.
    """

    first: Image | None
    second: Image


class MatchNode(Node):
    """Matches `image0` with `image1`, or `image` with a keyframe or the image before it.

    Publishes `~/matches` (PointCloud2), `~/drawn` (Image, if asked for) and `/diagnostics`. `~/keyframe` (Empty) makes
    the next image the keyframe. Errors of the constructor: those of `Settings.of` and `Matcher`.
    """

    def __init__(self, **node_options: Any) -> None:
        # What `destroy_node` undoes; rclpy calls it also for a node whose constructor has failed.
        self._held = ExitStack()
        super().__init__("matchrt", **node_options)
        self.settings = _settings(self)
        self._matcher = self._held.enter_context(Matcher(self.settings.engine, self.settings.options()))
        self._matcher.warm_up()
        self._health = Health(self.settings.stale_after)
        self._jobs: LatestJob[_Job] = LatestJob(self.settings.max_rate)
        # Written and read by the matching thread alone; the event says that the next image is to be the keyframe.
        self._keyframe: Any = self._matcher.read(self.settings.keyframe_file) if self.settings.keyframe_file else None
        self._next_is_keyframe = threading.Event()
        self._cloud = self.create_publisher(PointCloud2, "~/matches", _latest(reliable=True))
        self._drawn = self.create_publisher(Image, "~/drawn", _latest(reliable=True)) if self.settings.draw else None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._subscribe()
        self.create_timer(1.0, self._report)
        thread = threading.Thread(target=self._work, name="matchrt", daemon=True)
        thread.start()
        self._held.callback(thread.join)
        self._held.callback(self._jobs.close)
        manifest = self._matcher.manifest
        self.get_logger().info(
            f"{manifest.model}, {manifest.precision}, {manifest.backend} {manifest.backend_version}; "
            f"mode {self.settings.mode}"
        )

    def destroy_node(self) -> None:
        """Ends the matching thread, frees the engine, and then the node."""
        self._held.close()
        super().destroy_node()

    def _subscribe(self) -> None:
        quality = _latest(self.settings.reliable)
        if self.settings.mode == "two_topics":
            self._sync: ApproximateSync[Image] = ApproximateSync(round(self.settings.sync_slop * 1e9))
            for side in (0, 1):
                self.create_subscription(Image, f"image{side}", partial(self._side, side), quality)
            return
        self.create_subscription(Image, "image", self._single, quality)
        if self.settings.mode == "keyframe":
            self.create_subscription(Empty, "~/keyframe", lambda _: self._next_is_keyframe.set(), 1)

    def _side(self, side: int, image: Image) -> None:
        self._health.image()
        stamp = image.header.stamp
        pair = self._sync.add(side, stamp.sec * 1_000_000_000 + stamp.nanosec, image)
        if pair is not None:
            self._offer(_Job(*pair))

    def _single(self, image: Image) -> None:
        self._health.image()
        self._offer(_Job(None, image))

    def _offer(self, job: _Job) -> None:
        if self._jobs.offer(job):
            self._health.dropped()

    def _work(self) -> None:
        while (job := self._jobs.take()) is not None:
            begun = time.perf_counter()
            try:
                found = self._match(job)
            except MatchRTError as error:
                self._fail(f"{error.message} [{error.code}] {error.remedy}")
            except Exception as error:  # whatever it is, the node goes on with the next pair
                self._fail(f"{type(error).__name__}: {error}")
            else:
                if found is not None:
                    self._health.matched(1e3 * (time.perf_counter() - begun), found)

    def _fail(self, message: str) -> None:
        self._health.failed(message)
        self.get_logger().error(message, throttle_duration_sec=1.0)

    def _match(self, job: _Job) -> int | None:
        """Matches and publishes a pair, and returns the number of matches; None if the image became the keyframe."""
        second = image_of(job.second)
        if job.first is not None:
            return self._publish(job, image_of(job.first), second)
        asked = self._next_is_keyframe.is_set()
        if self._keyframe is None or asked:
            self._matcher.prepare_image(second)  # one that no pair can have would stay, and fail with every image
            self._keyframe = second
            self._next_is_keyframe.clear()
            return None
        count = self._publish(job, self._keyframe, second)
        if self.settings.mode == "previous":
            self._keyframe = second
        return count

    def _matched(self, first: Any, second: Any) -> Matches:
        matches = self._matcher.match(first, second)
        if not self.settings.verify:
            return matches
        threshold = self.settings.verify_threshold or None
        kind = self.settings.verify
        return matches.verify(kind, threshold=threshold, judged=False)  # type: ignore[arg-type]

    def _publish(self, job: _Job, first: Any, second: Any) -> int:
        matches = self._matched(first, second)
        rows = rows_of(matches, inliers_only=bool(self.settings.verify))
        cloud = PointCloud2(header=job.second.header)
        fill_cloud(cloud, PointField, rows)
        self._cloud.publish(cloud)
        if self._drawn is not None and self._drawn.get_subscription_count() > 0:
            read = self._matcher.read
            picture = Image(header=job.second.header)
            fill_rgb(picture, matches.draw(read(first, "image 0"), read(second, "image 1")))
            self._drawn.publish(picture)
        return len(rows)

    def _report(self) -> None:
        level, message, values = self._health.report()
        manifest = self._matcher.manifest
        values = {
            "engine": self.settings.engine,
            "backend": manifest.backend,
            "precision": manifest.precision,
            **values,
        }
        status = DiagnosticStatus(
            level=_LEVELS[level],
            name=f"{self.get_name()}: matching",
            message=message,
            hardware_id=manifest.backend,
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def _settings(node: Node) -> Settings:
    """Declares all parameters, read-only, and checks them. Errors: those of `Settings.of`."""
    # Types are checked by `Settings`, which takes a whole number for a float and says what is wrong.
    described = ParameterDescriptor(read_only=True, dynamic_typing=True, description="see config/match.yaml")
    values = {
        field.name: node.declare_parameter(field.name, field.default, described).value for field in fields(Settings)
    }
    return Settings.of(values)


def _latest(reliable: bool) -> QoSProfile:
    """The newest message only: an older one is dropped, not queued."""
    reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=reliability)


def main(arguments: list[str] | None = None) -> int:
    """Runs the node until it is interrupted. Returns 2, with a message and a remedy, if it cannot start."""
    rclpy.init(args=arguments)
    try:
        node = MatchNode()
    except MatchRTError as error:
        rclpy.logging.get_logger("matchrt").fatal(f"{error.message} [{error.code}] {error.remedy}")
        rclpy.try_shutdown()
        return error.exit_code
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
