"""The command: outputs, errors, and an end by a signal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.commands import CommandLine
from support.made_video import make_video
from support.tiny_engines import tiny_engine

from matchrt.errors import MatchRTError
from matchrt.live.motion import read_camera, rotation_degrees


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(capsys, monkeypatch)


def test_summary_files_and_json(cli: CommandLine, tmp_path: Path) -> None:
    """The tiny engine finds one match in each pair, so no frame is tracked."""
    made, engine = make_video(tmp_path / "made.avi", 6, (64, 64), black=(1,)), tiny_engine(tmp_path)
    ran = cli(
        "live", made.path, "--engine", engine, "--output", tmp_path / "o.mp4", "--jsonl", tmp_path / "o.jsonl", "--json"
    )
    assert ran.code == 0, ran.err
    found = ran.json
    assert found["frames"] == 6 and found["ended"] == "end" and found["source"] == str(made.path)
    assert found["nothing_seen"]["spans"] == [{"kind": "black", "first": 1, "last": 1}]
    assert found["statuses"] == {"keyframe": 1, "tracked": 0, "lost": 4, "black": 1, "blank": 0, "unreadable": 0}
    assert found["latency_ms"]["p50"] <= found["latency_ms"]["p99"] and found["frames_per_second"] > 0
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 6
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 6
    words = cli("live", made.path, "--engine", engine, "--frames", 3, "--keyframe", "first")
    assert words.code == 0 and "3 frames in" in words.out and "cuts: none" in words.out and "black 1" in words.out


def test_lines_on_standard_output(cli: CommandLine, tmp_path: Path) -> None:
    made, engine = make_video(tmp_path / "made.avi", 3, (64, 64)), tiny_engine(tmp_path)
    ran = cli("live", made.path, "--engine", engine, "--jsonl", "-")
    assert [json.loads(line)["frame"] for line in ran.out.splitlines()] == [0, 1, 2]
    assert json.loads(ran.err.splitlines()[-1])["frames"] == 3


def test_the_pose_with_intrinsics(cli: CommandLine, tmp_path: Path) -> None:
    made, engine = make_video(tmp_path / "made.avi", 3, (64, 64)), tiny_engine(tmp_path)
    lines = tmp_path / "o.jsonl"
    assert cli("live", made.path, "--engine", engine, "--intrinsics", "60,60,32,32", "--jsonl", lines).code == 0
    last = json.loads(lines.read_text().splitlines()[-1])
    assert "rotation" in last and "translation" in last and "homography" not in last


def test_bad_input(cli: CommandLine, tmp_path: Path) -> None:
    made, engine = make_video(tmp_path / "made.avi", 3, (64, 64)), tiny_engine(tmp_path)
    before = made.path.read_bytes()
    use = ("--engine", engine)
    cli.fails("live-missing", "live", tmp_path / "absent.mp4", *use)
    cli.fails("live-format", "live", engine, *use)
    cli.fails("live-keyframe", "live", made.path, *use, "--keyframe", "0")
    cli.fails("intrinsics-format", "live", made.path, *use, "--intrinsics", "1,2,3")
    cli.fails("output-format", "live", made.path, *use, "--output", tmp_path / "o.gif")
    cli.fails("output-is-input", "live", made.path, *use, "--output", made.path)
    cli.fails("output-is-input", "live", made.path, *use, "--jsonl", made.path)
    cli.fails("output-unwritable", "live", made.path, *use, "--jsonl", engine / "o.jsonl")
    cli.fails("usage", "live", made.path, *use, "--jsonl", "-", "--json")
    cli.fails("usage", "live", made.path, *use, "--output", tmp_path / "o.mp4", "--jsonl", tmp_path / "o.mp4")
    cli.fails("option-range", "live", made.path, *use, "--page", "99999")
    assert made.path.read_bytes() == before and not list(tmp_path.glob("o.*"))


def test_frames_that_are_too_small(cli: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.arange(100, dtype=np.uint8).reshape(10, 10) * 2)
    ran = cli("live", folder, "--engine", tiny_engine(tmp_path), "--json")
    # The image is told as unreadable, as any image of a folder that cannot be used, and the run ends with its summary.
    assert ran.code == 0 and ran.json["statuses"]["unreadable"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_summary_and_whole_files(tmp_path: Path, number: signal.Signals) -> None:
    made, engine = make_video(tmp_path / "made.avi", 400, (320, 240)), tiny_engine(tmp_path)
    lines, video = tmp_path / "o.jsonl", tmp_path / "o.mp4"
    command = [sys.executable, "-m", "matchrt", "live", made.path, "--engine", engine, "--realtime", "--page", "0"]
    command += ["--jsonl", lines, "--output", video, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 60
        while not (lines.exists() and lines.read_text().count("\n") > 3):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    found = json.loads(out)
    assert found["ended"] == "stopped" and found["frames"] == len(lines.read_text().splitlines())
    assert cv2.VideoCapture(str(video)).read()[0]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_intrinsics(tmp_path: Path) -> None:
    expected = np.array([[500, 0, 320], [0, 510, 240], [0, 0, 1]])
    file = tmp_path / "k.json"
    file.write_text(json.dumps({"K": expected.tolist()}))
    assert (read_camera("500,510,320,240") == expected).all() and (read_camera(str(file)) == expected).all()
    file.write_text("{}")
    for bad in ("0,1,2,3", "a,b,c,d", "nan,1,2,3", str(file), str(tmp_path), str(tmp_path / "absent")):
        with pytest.raises(MatchRTError) as caught:
            read_camera(bad)
        assert caught.value.code == "intrinsics-format"


def test_the_angle_of_a_rotation() -> None:
    turn = cv2.Rodrigues(np.array([0.0, np.radians(30), 0.0]))[0]
    assert rotation_degrees(turn) == pytest.approx(30) and rotation_degrees(np.eye(3)) == 0
