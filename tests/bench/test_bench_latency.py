"""Latency with a clock that the test moves: no real time is measured or asserted."""

from dataclasses import replace

import numpy as np
import pytest

from matchrt.bench.latency import LatencyOptions, Stage, matcher_subject, measure, session_subject
from matchrt.bench.machine import cpu_model, this_machine
from matchrt.bench.scene import image_pair
from matchrt.errors import MatchRTError
from matchrt.nvidia.boards import Board


class World:
    """A clock, and subjects that advance it by what they are told."""

    def __init__(self):
        self.now, self.calls, self.slept = 0.0, [], 0

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.slept += 1
        self.now += 1000  # a pause must not be counted

    def subject(self, name, milliseconds, stages=None):
        remaining = list(milliseconds)

        def call():
            self.calls.append(name)
            took = remaining.pop(0)
            self.now += took / 1e3
            return None if stages is None else {stage: took * share for stage, share in stages.items()}

        return call


def test_interleaves_skips_the_warm_up_and_compares():
    world = World()
    subjects = {
        "a": world.subject("a", [900, 10, 20, 30], {"inference": 0.5, "resize": 0.25}),
        "b": world.subject("b", [900, 5, 5, 65]),
    }
    rounds = []
    report = measure(
        subjects,
        LatencyOptions(runs=3, warm_up=1),
        clock=world.clock,
        sleep=world.sleep,
        advance=lambda: rounds.append(1),
    )
    assert world.calls == ["a", "b"] * 4
    assert len(rounds) == 4
    assert world.slept == 8
    first, second = report.subjects
    np.testing.assert_allclose(first.samples, [10, 20, 30])
    assert first.median == pytest.approx(20)
    assert list(first.stages) == ["inference", "resize", "total"]
    assert first.stages["inference"].p50 == pytest.approx(10)
    assert first.stages["total"].slowest == pytest.approx(30)
    assert list(second.stages) == ["total"]
    assert report.ratios() == {"a": 1, "b": pytest.approx(0.25)}
    document = report.to_json()
    assert document["subjects"]["b"]["ratio_to_first"] == 0.25
    assert document["runs"] == 3


def test_what_the_gpu_does_not_take_is_overhead():
    world = World()
    subjects = {"a": world.subject("a", [10, 20], {"upload": 0.25, "gpu": 0.5}), "b": world.subject("b", [1, 1])}
    first, second = measure(subjects, LatencyOptions(runs=2, warm_up=0), clock=world.clock, sleep=world.sleep).subjects
    assert list(first.stages) == ["upload", "gpu", "overhead", "total"]
    assert first.stages["overhead"].p50 == pytest.approx(7.5)
    assert "overhead" not in second.stages


def test_percentiles_by_hand():
    stage = Stage.of([float(value) for value in range(101)])
    assert (stage.p50, stage.p90, stage.p99, stage.fastest, stage.slowest) == (50, 90, 99, 0, 100)


@pytest.mark.parametrize(("count", "options"), [(0, LatencyOptions()), (1, LatencyOptions(runs=0))])
def test_measuring_nothing_is_an_error(count, options):
    with pytest.raises(MatchRTError) as caught:
        measure({str(index): lambda: None for index in range(count)}, options)
    assert caught.value.code == "bench-runs"


def test_matcher_and_session_subjects_pass_their_arguments():
    class Fake:
        def match(self, image0, image1):
            self.images = image0, image1
            return type("Result", (), {"timings": {"inference": 2.0}})

        def run(self, inputs):
            self.inputs = inputs
            return {"scores": np.zeros(1)}

    fake = Fake()
    assert matcher_subject(fake, "left", "right")() == {"inference": 2.0}
    assert fake.images == ("left", "right")
    assert session_subject(fake, {"image0": 1})() is None
    assert fake.inputs == {"image0": 1}


def test_machine_is_named_without_its_owner(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Example CPU 9000 @ 3.0GHz\n", encoding="utf-8")
    assert cpu_model(info) == "Example CPU 9000 @ 3.0GHz"
    machine = this_machine()
    assert machine.cores >= 1
    assert "onnxruntime" in machine.versions
    import getpass
    import platform

    text = str(machine.to_json()).lower()
    words = {platform.node().lower(), getpass.getuser().lower()} - {"", "linux", "localhost"}
    assert not any(f"'{word}'" in text for word in words)


def test_the_gpu_is_named_with_its_clocks(monkeypatch):
    from matchrt.bench import machine as module

    idle = Board(0, "NVIDIA L4", "00000000:01:00.0", "580.159", "8.9", 24, 20, 210, 2040, 405, 6251)
    busy = replace(idle, sm_clock=2040, memory_clock=6251)
    found = iter([(idle,), (busy,)])
    monkeypatch.setattr(module, "read_boards", lambda: next(found))
    monkeypatch.setattr(module, "board_in_use", lambda boards: boards[0])
    before = this_machine()
    assert "SM clock 210 MHz (at most 2040)" in before.line() and "before the run" in before.line()
    line = before.after().line()
    assert "NVIDIA L4, driver 580.159" in line and "SM clock 2040 MHz (at most 2040)" in line
    assert "memory clock 6251 MHz" in line and "right after the run" in line
    assert before.gpu_after is None and before.to_json()["gpu"]["sm_clock"] == 210


def test_clocks_that_nobody_knows_are_unknown(monkeypatch):
    from matchrt.bench import machine as module
    from matchrt.nvidia.device import Gpu

    monkeypatch.setattr(module, "read_boards", tuple)
    monkeypatch.setattr(module, "current_gpu", lambda: Gpu(0, "NVIDIA H100", "9.0", 80, "13.0", "13.1"))
    line = this_machine().line()
    assert "NVIDIA H100, driver unknown, SM clock unknown, memory clock unknown" in line


def test_generated_pair_is_repeatable_and_true():
    first, second, homography = image_pair(120, 160)
    again = image_pair(120, 160)
    assert first.shape == second.shape == (120, 160, 3)
    np.testing.assert_array_equal(first, again[0])
    assert first.std() > 20  # texture, not a flat image
    # A pixel in the middle of image 0 has the same colour where the homography puts it.
    points = np.array([[70.0, 60], [90, 50], [60, 70]])
    mapped = np.column_stack([points, np.ones(3)]) @ homography.T
    mapped = mapped[:, :2] / mapped[:, 2:]
    for (x0, y0), (x1, y1) in zip(points.astype(int), np.rint(mapped).astype(int), strict=True):
        around = second[y1 - 1 : y1 + 2, x1 - 1 : x1 + 2].reshape(-1, 3).astype(int)
        assert np.abs(around - first[y0, x0]).max(axis=1).min() < 40
