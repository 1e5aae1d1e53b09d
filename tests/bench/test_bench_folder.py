"""Evaluation folders: what is read, and what each way of being wrong says."""

import json
import shutil

import numpy as np
import pytest

from matchrt.bench.folder import read_folder
from matchrt.errors import MatchRTError


def code(call):
    with pytest.raises(MatchRTError) as caught:
        call()
    return caught.value


@pytest.fixture
def copy(eval_folder, tmp_path):
    return shutil.copytree(eval_folder, tmp_path / "eval")


def edit(path, change):
    raw = json.loads(path.read_text(encoding="utf-8"))
    change(raw)
    path.write_text(json.dumps(raw), encoding="utf-8")


def test_reads_every_kind(eval_folder):
    folder = read_folder(eval_folder)
    assert (len(folder.homography), len(folder.pose), len(folder.stereo), len(folder.plain)) == (2, 3, 1, 2)
    assert folder.sets() == ("tiny", "scene", "stereo", "no-truth", "negative")
    assert [pair.id for pair in folder.plain] == ["ng/same", "ng/different"]
    assert folder.stereo[0].disparity.shape == (480, 640)
    assert folder.homography[0].image0_hw == (480, 640)
    np.testing.assert_allclose(folder.pose[0].intrinsics0[0], [500, 0, 320])


def test_first_and_only(eval_folder):
    folder = read_folder(eval_folder)
    assert [pair.id for pair in folder.first(1).homography] == ["tiny/0_1"]
    assert len(folder.first(1)) == 5
    assert folder.only(("scene",)).sets() == ("scene",)
    error = code(lambda: folder.only(("scenery",)))
    assert error.code == "eval-set"
    assert "scene" in error.remedy


def test_missing(tmp_path, copy):
    assert code(lambda: read_folder(tmp_path / "nowhere")).code == "eval-missing"
    (tmp_path / "empty").mkdir()
    assert code(lambda: read_folder(tmp_path / "empty")).code == "eval-missing"
    (copy / "pose" / "b.png").unlink()
    error = code(lambda: read_folder(copy))
    assert error.code == "eval-missing"
    assert "b.png" in error.message


def test_a_folder_with_one_kind_is_enough(copy):
    for kind in ("pose", "stereo", "nogt"):
        shutil.rmtree(copy / kind)
    assert len(read_folder(copy)) == 2


@pytest.mark.parametrize(
    ("part", "change", "named"),
    [
        ("homography", lambda raw: raw["pairs"][0].pop("H"), "'H'"),
        ("homography", lambda raw: raw["pairs"][0].update(H=[[1, 2], [3, 4]]), "H of tiny/0_1"),
        ("homography", lambda raw: raw["pairs"][0].update(width0="wide"), "wide"),
        ("pose", lambda raw: raw["images"].pop("scene/b"), "scene/b"),
        ("pose", lambda raw: raw["pairs"][1].update(t=[1, 2]), "t of scene/a__c"),
        ("pose", lambda raw: raw["images"]["scene/a"].update(K=None), "K of scene/a"),
        ("nogt", lambda raw: raw.update(pairs=7), "int"),
    ],
)
def test_invalid_names_the_field(copy, part, change, named):
    edit(copy / part / "pairs.json", change)
    error = code(lambda: read_folder(copy))
    assert error.code == "eval-invalid"
    assert named in error.message
    assert "pairs.json" in error.message


def test_broken_json_and_disparity(copy):
    np.savez(copy / "stereo" / "disparity.npz", np.zeros(5))
    assert code(lambda: read_folder(copy)).code == "eval-invalid"
    (copy / "homography" / "pairs.json").write_text("{", encoding="utf-8")
    assert "homography" in code(lambda: read_folder(copy)).message
