"""Manifests that are no files, or deeper than any manifest."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from matchrt.errors import MatchRTError
from matchrt.manifest import read_manifest


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are files of Unix")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "e.onnx.json")
    with pytest.raises(MatchRTError) as caught:
        read_manifest(tmp_path / "e.onnx.json")
    assert caught.value.code == "manifest-invalid"


def test_depth_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "e.onnx.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(MatchRTError) as caught:
        read_manifest(tmp_path / "e.onnx.json")
    assert caught.value.code == "manifest-invalid"
