"""Maps by COLMAP: made once, made anew when the database changes, and whole after a kill."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.commands import CommandLine

from matchrt import MatchRTError
from matchrt.batch.mapping import FACTS, MapReport, MapWork

pycolmap = pytest.importorskip("pycolmap")

IMAGES = 6


@pytest.fixture
def work(tmp_path: Path) -> MapWork:
    """A database of a made scene that six cameras see."""
    if not hasattr(pycolmap, "synthesize_dataset"):
        pytest.skip("this pycolmap makes no scenes")
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, IMAGES
    options.num_points3D = 150
    pycolmap.set_random_seed(0)
    with pycolmap.Database.open(tmp_path / "d.db") as base:
        pycolmap.synthesize_dataset(options, base)
    (tmp_path / "images").mkdir()
    return MapWork(tmp_path / "d.db", tmp_path / "images", tmp_path / "maps" / "sparse")


def _is_whole(work: MapWork, report: MapReport) -> None:
    assert report.images == report.models[0].registered == IMAGES
    model = pycolmap.Reconstruction(work.folder / "0")
    assert model.num_reg_images() == IMAGES and model.num_points3D() == report.models[0].points > 100
    assert report.models[0].reprojection_px < 2
    assert sorted(path.name for path in work.folder.iterdir()) == ["0", FACTS]
    assert [path.name for path in work.folder.parent.iterdir()] == ["sparse"]


@pytest.mark.parametrize("mapper", ["incremental", "global"])
def test_a_map_is_made_once(work: MapWork, mapper: str) -> None:
    work = MapWork(work.database, work.images, work.folder, mapper)  # type: ignore[arg-type]
    work.check()
    before, told = work.database.read_bytes(), []
    made = work.run("content", lambda done, total: told.append((done, total)))
    assert made.made and work.database.read_bytes() == before
    _is_whole(work, made)
    assert mapper == "global" or told[-1][1] == IMAGES
    kept = work.run("content")
    assert not kept.made and kept.models == made.models
    assert work.run("other content").made  # the database has changed


def test_a_killed_mapping_leaves_no_half(work: MapWork) -> None:
    code = f"""
from pathlib import Path
from matchrt.batch.mapping import MapWork
MapWork(*map(Path, {[str(work.database), str(work.images), str(work.folder)]!r})).run("content")
"""
    part = work.folder.with_name(".sparse.part")
    for begun in ("database.db", "work"):
        child = subprocess.Popen([sys.executable, "-c", code])
        deadline = time.monotonic() + 120
        while not (part / begun).exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not work.folder.exists() and part.exists()
    time.sleep(1)  # the mapper's process notices that its parent is gone
    _is_whole(work, work.run("content"))


def _other_process(work: MapWork) -> subprocess.Popen[str]:
    """Another process that makes the same map, once it is at work."""
    code = f"""
from pathlib import Path
from matchrt.batch.mapping import MapWork
print(MapWork(*map(Path, {[str(work.database), str(work.images), str(work.folder)]!r})).run("content").made)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not work.folder.with_name(".sparse.part").joinpath("work").exists() and time.monotonic() < deadline:
        assert child.poll() is None, child.stderr and child.stderr.read()
        time.sleep(0.001)
    return child


def test_two_runs_do_not_make_one_map(work: MapWork) -> None:
    child = _other_process(work)
    with pytest.raises(MatchRTError) as caught:
        work.run("content")
    assert caught.value.code == "map-busy"
    said, told = child.communicate(timeout=120)
    assert said == "True\n", told
    _is_whole(work, work.run("content"))


def test_a_map_survives_a_kill_between_its_renames(work: MapWork, monkeypatch: pytest.MonkeyPatch) -> None:
    first = work.run("content")
    kept, whole = work.folder.with_name(".sparse.old"), (work.folder / FACTS).read_text(encoding="utf-8")
    work.folder.rename(kept)  # as far as a killed run came
    again = work.run("content")
    assert not again.made and again.models == first.models
    _is_whole(work, again)
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if path.name == ".sparse.part":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(MatchRTError) as caught:
        work.run("other content")
    assert caught.value.code == "output-unwritable"
    assert (work.folder / FACTS).read_text(encoding="utf-8") == whole
    _is_whole(work, again)


def test_files_of_others_in_a_map_stay(work: MapWork) -> None:
    work.run("content")
    (work.folder / "dense").mkdir()
    (work.folder / "dense" / "fused.ply").write_text("hours of work", encoding="utf-8")
    assert not work.run("content").made
    with pytest.raises(MatchRTError) as caught:
        work.run("other content")
    assert caught.value.code == "output-exists" and "dense" in caught.value.message
    assert (work.folder / "dense" / "fused.ply").read_text(encoding="utf-8") == "hours of work"


@pytest.mark.parametrize("file", ["sparse", "sparse/report.html", "sparse/0/m.db.journal"])
def test_a_map_takes_the_place_of_no_other_output(work: MapWork, file: str) -> None:
    other = work.folder.parent / file
    with pytest.raises(MatchRTError) as caught:
        work.check([work.folder.with_name("fine.txt"), other])
    assert caught.value.code == "output-twice" and file.rpartition("/")[2] in caught.value.message
    work.check([work.folder.with_name("sparse.html"), work.folder.with_name("d.db")])


def test_what_is_no_map_of_ours_stays(work: MapWork) -> None:
    work.folder.mkdir(parents=True)
    (work.folder / "notes.txt").write_text("mine", encoding="utf-8")
    for step in (work.check, lambda: work.run("content")):
        with pytest.raises(MatchRTError) as caught:
            step()
        assert caught.value.code == "output-exists"
    assert (work.folder / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_model_that_finds_no_room_is_no_map(work: MapWork, monkeypatch: pytest.MonkeyPatch) -> None:
    """COLMAP does not say that it could not write a model; here files may not grow beyond a part of it."""
    resource = pytest.importorskip("resource")
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, IMAGES
    options.num_points3D = 600
    work.database.unlink()
    with pycolmap.Database.open(work.database) as base:
        pycolmap.synthesize_dataset(options, base)
    work.run("content")
    largest = max(path.stat().st_size for path in (work.folder / "0").iterdir())
    shutil.rmtree(work.folder)
    starts, limits = subprocess.Popen, (largest - 100, resource.getrlimit(resource.RLIMIT_FSIZE)[1])

    def limited(*command: Any, **others: Any) -> Any:
        return starts(*command, **others, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits))

    monkeypatch.setattr(subprocess, "Popen", limited)
    with pytest.raises(MatchRTError) as caught:
        work.run("content")
    assert caught.value.code in ("output-unwritable", "map-failed"), caught.value
    monkeypatch.undo()
    assert list(work.folder.parent.iterdir()) == [] and work.run("content").made


def test_errors_have_names(work: MapWork) -> None:
    work.database.write_bytes(b"no database" * 100)
    with pytest.raises(MatchRTError) as caught:
        work.run("content")
    assert caught.value.code == "map-failed"
    work.database.unlink()
    with pycolmap.Database.open(work.database):
        pass
    with pytest.raises(MatchRTError) as caught:
        work.run("content")
    assert caught.value.code == "map-empty" and list(work.folder.parent.iterdir()) == []


def test_pairs_too_few_for_a_map_are_told(scene: Path, pair_list: Path, tmp_path: Path, cli: CommandLine) -> None:
    start = ("match-many", pair_list, "--root", scene, "--resize", 96, "--output", tmp_path / "m.db")
    cli.fails("usage", *start, "--map", tmp_path / "sparse", "--no-verify")
    # Crops of one texture are a plane without depth: COLMAP makes no map, and what was matched is kept.
    ran = cli(*start, "--map", tmp_path / "sparse", "--json")
    assert (tmp_path / "m.db").exists()
    assert (ran.code == 2 and "error" in ran.json) == (not (tmp_path / "sparse").exists())
