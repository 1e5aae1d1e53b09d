"""`matchrt match` as users type it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from support.commands import CommandLine
from support.pictures import shifted_pair, texture
from support.tiny_engines import tiny_engine

from matchrt.cli.match_pairs import pair_names

# The images' own size: the bundled engine enlarges small images to 640 pixels, at four times the cost.
SMALL = ("--resize", "320")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    paths = (tmp_path / "a.jpg", tmp_path / "b.jpg")
    for path, image in zip(paths, shifted_pair(240, 320, (16, 8)), strict=True):
        PILImage.fromarray(image).save(path, quality=95)
    return paths


def test_no_option_needed(cli: CommandLine, pair: tuple[Path, Path]) -> None:
    ran = cli("match", *pair)
    assert ran.code == 0 and not ran.err
    for word in ("matches", "inliers", "loftr-lite", "inference", "milliseconds"):
        assert word in ran.out
    assert re.search(r"^verdict: match \(probability 0\.9\d, 1 false alarm in 10\^\d+\)$", ran.out, re.MULTILINE)


def test_the_verdict_needs_no_geometry(cli: CommandLine, pair: tuple[Path, Path], tmp_path: Path) -> None:
    ran = cli("match", *pair, "--verify", "none", "--json", "--save", tmp_path / "m.json", *SMALL)
    assert ran.json["verdict"] == "match" and ran.json["probability"] >= 0.9 and ran.json["log10_nfa"] < -20
    assert "geometry" not in ran.json and ran.json["evidence"]["cells"] > 20
    saved = json.loads((tmp_path / "m.json").read_text())
    assert saved["verdict"] == "match" and saved["geometry"] is None and "inliers" not in saved
    PILImage.fromarray(texture(240, 320, seed=9)).save(tmp_path / "other.png")
    ran = cli("match", pair[0], tmp_path / "other.png", *SMALL)
    assert re.search(
        r"^verdict: (no match|doubtful) \(probability 0\.[01]\d(, too few matches to tell)?\)$", ran.out, re.M
    )


def test_all_outputs(cli: CommandLine, pair: tuple[Path, Path], tmp_path: Path) -> None:
    picture, saved = tmp_path / "out.png", tmp_path / "out.npz"
    ran = cli("match", *pair, "--draw", picture, "--save", saved, "--verify", "homography", "--json")
    assert ran.code == 0
    assert ran.json["matches"] > 100 and ran.json["geometry"]["kind"] == "homography"
    matrix = np.array(ran.json["geometry"]["matrix"])
    assert np.allclose(matrix / matrix[2, 2], [[1, 0, -16], [0, 1, -8], [0, 0, 1]], atol=0.6)
    with np.load(saved) as arrays:
        assert arrays["keypoints0"].shape == (ran.json["matches"], 2)
        assert arrays["scores"].shape == (ran.json["matches"],)
    with PILImage.open(picture) as image:
        assert image.width >= 640


def test_essential_with_intrinsics(cli: CommandLine, pair: tuple[Path, Path], tmp_path: Path) -> None:
    camera = [[400, 0, 160], [0, 400, 120], [0, 0, 1]]
    (tmp_path / "k.json").write_text(json.dumps({"K0": camera, "K1": camera}))
    ran = cli("match", *pair, "--verify", "essential", "--intrinsics", tmp_path / "k.json", "--json")
    assert ran.code == 0 and ran.json["geometry"]["kind"] == "essential"
    cli.fails("intrinsics-missing", "match", *pair, "--verify", "essential")
    (tmp_path / "k.json").write_text("{}")
    cli.fails("intrinsics-format", "match", *pair, "--verify", "essential", "--intrinsics", tmp_path / "k.json")


def test_lists_and_folders(cli: CommandLine, pair: tuple[Path, Path], tmp_path: Path) -> None:
    listing = tmp_path / "pairs.txt"
    listing.write_text("a.jpg b.jpg\nb.jpg a.jpg\n")
    ran = cli("match", listing, "--save", tmp_path / "matches", "--draw", tmp_path / "pictures", *SMALL)
    assert ran.code == 0 and "2 pairs matched, 0 failed" in ran.out
    assert "verdicts: 2 match, 0 doubtful, 0 no match" in ran.out and ", match (0.9" in ran.out
    assert (tmp_path / "matches" / "a__b.npz").is_file() and (tmp_path / "pictures" / "b__a.jpg").is_file()
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in pair:
        path.rename(folder / path.name)
    ran = cli("match", folder, "--json", *SMALL)
    assert ran.code == 0 and len(ran.json["pairs"]) == 1 and ran.json["pairs"][0]["matches"] > 100


def test_a_bad_pair_does_not_stop_the_rest(cli: CommandLine, pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("not an image")
    listing = tmp_path / "pairs.txt"
    listing.write_text("a.jpg bad.jpg\na.jpg b.jpg\n")
    ran = cli("match", listing, *SMALL)
    assert ran.code == 2 and "1 pair matched, 1 failed" in ran.out and "bad.jpg" in ran.err
    ran = cli("match", listing, "--json", *SMALL)
    assert ran.code == 2 and ran.json["pairs"][0]["error"]["code"] == "image-format" and ran.json["failed"] == 1


def test_bad_images_are_named_errors(cli: CommandLine, pair: tuple[Path, Path], tmp_path: Path) -> None:
    good, before = pair[0], set(tmp_path.iterdir())
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "text.jpg").write_text("hello, I am not an image")
    PILImage.fromarray(texture(100, 100)).save(bad / "whole.png")
    data = (bad / "whole.png").read_bytes()
    (bad / "cut.png").write_bytes(data[: len(data) // 2])
    PILImage.new("L", (1, 1)).save(bad / "tiny.png")
    PILImage.new("1", (20000, 20000)).save(bad / "huge.png")
    for name, code in (
        ("missing.jpg", "image-missing"), ("text.jpg", "image-format"), ("cut.png", "image-truncated"),
        ("tiny.png", "image-too-small"), ("huge.png", "image-too-large"),
    ):  # fmt: skip
        for arguments in ((good, bad / name), (bad / name, good)):
            ran = cli.fails(code, "match", *arguments, "--draw", tmp_path / "o.png", "--save", tmp_path / "o.npz")
            assert name in ran.err
    cli.fails("image-unreadable", "match", good, "/dev/null")
    assert set(tmp_path.iterdir()) == before | {bad}


def test_unusual_images_match(cli: CommandLine, tmp_path: Path) -> None:
    image0, image1 = shifted_pair(240, 320, (16, 8))
    PILImage.fromarray(image0).save(tmp_path / "grey.png")
    alpha = np.dstack([image1, image1, image1, np.full_like(image1, 7)])
    PILImage.fromarray(alpha).save(tmp_path / "alpha.png")
    PILImage.fromarray(image1.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for other in ("alpha.png", "deep.png"):
        ran = cli("match", tmp_path / "grey.png", tmp_path / other, "--json", *SMALL)
        assert ran.code == 0 and ran.json["matches"] > 100


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--draw", "out.xyz"), "output-format"),
        (("--save", "out.txt"), "output-format"),
        (("--engine", "nothing.onnx"), "engine-missing"),
        (("--engine", "loftr-outdoor"), "engine-missing"),
        (("--resize", "7"), "resize-range"),
        (("--device", "tpu"), "device-unknown"),
    ],
)
def test_bad_options(cli: CommandLine, pair: tuple[Path, Path], arguments: tuple[str, str], code: str) -> None:
    cli.fails(code, "match", *pair, *arguments)


def test_errors_as_json(cli: CommandLine, pair: tuple[Path, Path]) -> None:
    ran = cli("match", pair[0], "missing.jpg", "--json")
    assert ran.code == 2 and ran.json["error"]["code"] == "image-missing" and ran.json["error"]["remedy"]


def test_every_pair_has_its_own_file(cli: CommandLine, pair: tuple[Path, Path], tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        for path in pair:
            (tmp_path / folder / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pairs.txt").write_text("x/a.jpg x/b.jpg\nx/a.jpg y/b.jpg\ny/a.jpg x/b.jpg\n")
    ran = cli("match", tmp_path / "pairs.txt", "--save", tmp_path / "out", *SMALL)
    assert ran.code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["x-a__x-b.npz", "x-a__y-b.npz", "y-a__x-b.npz"]


def test_hdf5_names_start_from_the_root(cli: CommandLine, pair: tuple[Path, Path], tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed (extra hdf5)")
    (tmp_path / "pairs.txt").write_text("a.jpg b.jpg\n")
    ran = cli("match", tmp_path / "pairs.txt", "--root", tmp_path, "--save", tmp_path / "m.h5", *SMALL)
    assert ran.code == 0
    with h5py.File(tmp_path / "m.h5") as file:
        assert file["a.jpg/b.jpg/keypoints0"].shape[0] > 100


def test_many_outputs_that_cannot_be_are_refused_before_any_work(
    cli: CommandLine, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    listing = tmp_path / "pairs.txt"
    listing.write_text("a.jpg b.jpg\n")
    cli.fails("output-is-input", "match", listing, "--draw", tmp_path)
    pytest.importorskip("h5py", reason="h5py is not installed (extra hdf5)")
    (tmp_path / "no.h5").write_text("not HDF5")
    cli.fails("output-format", "match", listing, "--save", tmp_path / "no.h5")
    (tmp_path / "other").mkdir()
    outside = tmp_path / "outside.txt"
    outside.write_text(f'"{pair[0]}" "{pair[1]}"\n')
    cli.fails("matches-name", "match", outside, "--root", tmp_path / "other", "--save", tmp_path / "m.h5")
    (tmp_path / "res.v1").mkdir()
    assert cli("match", listing, "--save", tmp_path / "res.v1", *SMALL).code == 0
    assert [path.name for path in (tmp_path / "res.v1").iterdir()] == ["a__b.npz"]


def test_pair_names() -> None:
    assert pair_names([(Path("x/a.jpg"), Path("y/b.jpg"))]) == ["a__b"]
    same = [(Path("x/a.jpg"), Path("../q/b.jpg"))] * 2
    assert len(set(pair_names(same))) == 2 and not any(name.startswith(".") for name in pair_names(same))
    deep = [(Path("d" * 180) / str(i) / "a.jpg", Path("e" * 180) / "b.jpg") for i in range(3)]
    names = pair_names(deep)
    assert len(set(names)) == 3 and max(map(len, names)) < 240


def test_names_with_brackets_and_spaces(cli: CommandLine, pair: tuple[Path, Path], tmp_path: Path) -> None:
    odd = tmp_path / "a[bold] [red]ü.jpg"
    pair[0].rename(odd)
    picture = tmp_path / "out[bold].png"
    ran = cli("match", odd, pair[1], "--draw", picture, *SMALL)
    assert ran.code == 0 and f"wrote {picture}" in ran.out and picture.is_file()
    assert "[bold]" in cli.fails("image-missing", "match", odd, tmp_path / "x[bold].jpg").err


def test_inputs_are_never_replaced(cli: CommandLine, pair: tuple[Path, Path], tmp_path: Path) -> None:
    before = pair[0].read_bytes()
    cli.fails("output-is-input", "match", *pair, "--draw", pair[0])
    assert pair[0].read_bytes() == before
    (tmp_path / "folder.png").mkdir()
    cli.fails("output-unwritable", "match", *pair, "--draw", tmp_path / "folder.png")
    cli.fails("output-unwritable", "match", *pair, "--draw", pair[1] / "x.png")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--nonsense",),
        ("nonsense",),
        ("match",),
        ("match", "a", "b", "--verify", "foo"),
        ("match", "a", "b", "--threads", "0"),
    ],
)
def test_usage_errors(cli: CommandLine, arguments: tuple[str, ...]) -> None:
    cli.fails("usage", *arguments)
    assert cli(*arguments, "--json").json["error"]["code"] == "usage"


def test_interrupt(cli: CommandLine, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("matchrt.runtime.matcher.Matcher.match", interrupt)
    ran = cli("match", *pair)
    assert ran.code == 130 and "nothing was left half written" in ran.err


def test_debug_shows_the_traceback(cli: CommandLine, pair: tuple[Path, Path]) -> None:
    assert "Traceback" in cli("match", pair[0], "missing.jpg", "--debug").err


def test_help(cli: CommandLine) -> None:
    assert "Commands" in cli().out
    for command in ("match", "build", "inspect", "models", "engines", "bench"):
        ran = cli(command, "--help")
        assert ran.code == 0 and "Example: matchrt" in ran.out and "--json" in ran.out
    assert "matchrt" in cli("--version").out


def test_thermal_images_are_warned_of_and_stretched(cli: CommandLine, tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.tif"]
    for path, image in zip(paths, shifted_pair(240, 320, (16, 8)), strict=True):
        PILImage.fromarray(image.astype(np.uint16) * 3 + 29000).save(path)
    plain = cli("match", *paths, *SMALL, "--json")
    assert plain.code == 0 and len(plain.json["warnings"]) == 2
    assert all("% of its range" in warning and warning in plain.err for warning in plain.json["warnings"])
    picture = tmp_path / "out.png"
    for stretch in ("each", "same"):
        ran = cli("match", *paths, *SMALL, "--stretch", stretch, "--json", "--draw", picture)
        assert ran.code == 0 and "warnings" not in ran.json and not ran.err
        assert ran.json["matches"] > max(plain.json["matches"], 100)
        with PILImage.open(picture) as drawn:
            assert np.asarray(drawn)[:200, :300].std() > 20
    (tmp_path / "pairs.txt").write_text("a.png b.tif\n")
    output = tmp_path / "m.npz"
    listed = cli("match", tmp_path / "pairs.txt", *SMALL)
    assert listed.err.count("warning") == 2
    assert cli("match", *paths, "--stretch", "both").code == 2
    pytest.importorskip("h5py", reason="h5py is not installed (extra hdf5)")
    many = cli("match-many", tmp_path / "pairs.txt", "--output", output.with_suffix(".h5"), *SMALL, "--stretch", "same")
    assert many.code == 0, many.err


def test_bad_geometry_options_are_refused_before_anything_is_matched(
    cli: CommandLine, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "k.json").write_text('{"K0": [[0, 0, 0]], "K1": 3}')
    essential = ("--verify", "essential", "--intrinsics", tmp_path / "k.json")
    for code, options in (("geometry-input", ("--threshold", "-1")), ("intrinsics-invalid", essential)):
        # There is no such engine, which is found out later.
        cli.fails(code, "match", *pair, "--engine", tmp_path / "none.onnx", *options)


def test_a_turned_image_is_found_and_said(cli: CommandLine, pair: tuple[Path, Path]) -> None:
    with PILImage.open(pair[1]) as image:
        image.transpose(PILImage.Transpose.ROTATE_180).save(pair[1], quality=95)
    ran = cli("match", *pair, *SMALL, "--engine", "loftr-lite", "--verify", "homography", "--json")
    assert ran.code == 0 and ran.json["provenance"]["turned1"] == 180 and ran.json["verdict"] == "match"
    assert np.allclose(ran.json["geometry"]["matrix"], [[-1, 0, 335], [0, -1, 247], [0, 0, 1]], atol=0.7)
    assert ran.json["timings_ms"]["retry"] > 0 and "advice" not in ran.json
    said = cli("match", *pair, *SMALL, "--engine", "loftr-lite")
    assert "the second turned by 180 degrees" in said.out and "Try" not in said.out
    listing = pair[0].with_name("pairs.txt")
    listing.write_text(f"{pair[0].name} {pair[1].name}\n")
    assert "the second turned by 180 degrees clockwise" in cli("match", listing, *SMALL, "--engine", "loftr-lite").out


def test_without_a_match_the_summary_says_what_to_try(cli: CommandLine, tmp_path: Path) -> None:
    paths = (tmp_path / "a.png", tmp_path / "b.png")
    for seed, path in enumerate(paths):
        PILImage.fromarray(texture(120, 160, seed)).save(path)
    ran = cli("match", *paths, "--resize", "160", "--rotate", "off", "--zoom", "off", "--json")
    assert ran.json["verdict"] != "match" and "retry" not in ran.json["timings_ms"]
    assert [text.split(":")[0] for text in ran.json["advice"]] == [
        "Try --min-score 0.1",
        "Try --rotate auto",
        "Try --zoom auto",
        "Try --effort high",
    ]
    listing = tmp_path / "pairs.txt"
    listing.write_text("a.png b.png\n")
    ran = cli("match", listing, "--resize", "160", "--effort", "high")
    assert ran.code == 0 and "Try" not in ran.out


def test_an_engine_of_one_size_tries_more_only_if_it_is_asked(
    cli: CommandLine, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    engine = tiny_engine(tmp_path)
    ran = cli("match", *pair, "--engine", engine, "--json")
    assert ran.code == 0 and "retry" not in ran.json["timings_ms"]
    assert [text.split(":")[0] for text in ran.json["advice"]][-3:] == [
        "Try --rotate auto",
        "Try --zoom auto",
        "Try --effort high",
    ]
    asked = cli("match", *pair, "--engine", engine, "--rotate", "auto", "--json")
    assert asked.json["timings_ms"]["retry"] > 0 and "Try --rotate auto" not in str(asked.json["advice"])
