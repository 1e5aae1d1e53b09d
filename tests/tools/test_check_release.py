"""tools/check_release.py: what a release must be."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tools.check_release import RELATIVE, ROOT, left_out, problems

_FILES = {
    "src/matchrt/_version.py": '__version__ = "0.3.0"\n',
    "CITATION.cff": "title: matchrt\nversion: 0.3.0\ndate-released: 2030-01-02\n",
    "CHANGELOG.md": "# Changes\n\n## 0.3.0 (2030-01-02)\n\n- Much.\n\n## 0.2.0 (2029-01-02)\n",
    "pyproject.toml": '[project.urls]\nSource = "the address"\n',
}
_WHEEL = (
    "matchrt/__init__.py",
    "matchrt/py.typed",
    "matchrt/assets/engine-manifest-2.schema.json",
    "matchrt/assets/verdict.json",
    *(
        f"matchrt/assets/{model}{kind}"
        for model in ("eloftr-lite", "loftr-lite")
        for kind in (".onnx", ".onnx.json", "-any-size.onnx", ".safetensors")
    ),
)


_PAGE = "# matchrt\n\n[Models](https://host.example/models.md), [below](#below)"


def _release(folder: Path, more: str | None = None, page: str = _PAGE) -> tuple[Path, Path]:
    """A tree, and its two archives; more: another file in the source archive. page: the wheel's description."""
    for name, text in _FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    dist = folder / "dist"
    dist.mkdir()
    with zipfile.ZipFile(dist / "matchrt-0.3.0-py3-none-any.whl", "w") as wheel:
        for name in _WHEEL:
            wheel.writestr(name, "")
        wheel.writestr("matchrt-0.3.0.dist-info/METADATA", f"Name: matchrt\n\n{page}\n")
    with tarfile.open(dist / "matchrt-0.3.0.tar.gz", "w:gz") as source:
        for name in ("pyproject.toml", *([more] if more else [])):
            source.add(folder / "pyproject.toml", f"matchrt-0.3.0/{name}")
    return folder, dist


def test_a_release_that_is_ready(tmp_path: Path) -> None:
    assert list(problems(*_release(tmp_path))) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("CITATION.cff", "version: 0.3.0", "version: 0.2.0", "CITATION.cff says version 0.2.0"),
        ("CITATION.cff", "date-released: 2030-01-02", "", "no date-released"),
        ("CHANGELOG.md", "0.3.0 (2030-01-02)", "0.3.0 (unreleased)", "0.3.0 (unreleased)"),
        ("CHANGELOG.md", "## 0.3.0 (2030-01-02)", "", "0.2.0"),
        ("pyproject.toml", "[project.urls]", "# [project.urls]", "[project.urls]"),
    ],
)
def test_what_disagrees_is_named(tmp_path: Path, name: str, old: str, new: str, says: str) -> None:
    root, dist = _release(tmp_path)
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new))
    (problem,) = problems(root, dist)
    assert says in problem


@pytest.mark.parametrize("name", ["shared/a.bin", "weights/outdoor_ds.ckpt", ".venv/lib/x.py", "lite.engine"])
def test_what_is_never_published_is_found(tmp_path: Path, name: str) -> None:
    (problem,) = problems(*_release(tmp_path, name))
    assert name in problem and "must not be published" in problem


def test_archives_that_are_missing_or_of_another_version(tmp_path: Path) -> None:
    root, dist = _release(tmp_path)
    (root / "src/matchrt/_version.py").write_text('__version__ = "0.4.0"\n')
    found = list(problems(root, dist))
    assert sum("is not of version 0.4.0" in problem for problem in found) == 2
    (dist / "matchrt-0.3.0.tar.gz").unlink()
    assert "0 source archives" in list(problems(root, dist))[-1]


def test_the_source_archive_holds_every_file_of_the_repository(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone: there is nothing to compare the archive with")
    pytest.importorskip("setuptools", reason="setuptools builds the archive")
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path), "sdist", "-d", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = opened.getnames()
    assert left_out(ROOT, names) == []
    assert not [name for name in names if "node_modules" in name or name.endswith(".pyc")]
    assert left_out(ROOT, [name for name in names if not name.endswith("mkdocs.yml")]) == ["mkdocs.yml"]


def test_a_source_archive_that_lacks_a_tracked_file_is_no_release(tmp_path: Path) -> None:
    root, dist = _release(tmp_path)
    for command in (["init", "-q"], ["add", "CITATION.cff", "pyproject.toml"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (problem,) = problems(root, dist)
    assert problem == "matchrt-0.3.0.tar.gz lacks CITATION.cff"


def test_relative_links_of_the_description_are_refused(tmp_path: Path) -> None:
    found = list(problems(*_release(tmp_path, page="![a](docs/a.jpg) [b](docs/b.md#c) [c](https://host.example/c)")))
    assert len(found) == 1 and "2 relative links, such as docs/a.jpg" in found[0]


def test_an_empty_description_is_refused(tmp_path: Path) -> None:
    assert any("no description" in problem for problem in problems(*_release(tmp_path, page="")))


def _setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("matchrt_setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_gets_absolute_links(tmp_path: Path) -> None:
    """What setup.py makes of the repository's own README, once the project has an address."""
    (tmp_path / "src/matchrt").mkdir(parents=True)
    (tmp_path / "src/matchrt/_version.py").write_text('__version__ = "0.3.0"\n')
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "matchrt"\n')
    assert _setup().description(tmp_path) == readme
    (tmp_path / "pyproject.toml").write_text(
        '[project.urls]\nDocs = "https://d"\nSource = "https://host.example/matchrt/"\n'
    )
    page = _setup().description(tmp_path)
    assert "![" in readme and "](https://host.example/matchrt/raw/v0.3.0/docs/matches.jpg)" in page
    assert "](https://host.example/matchrt/blob/v0.3.0/docs/python.md)" in page
    assert "](https://github.com/cvg/Hierarchical-Localization)" in page  # what was absolute stays
    assert not RELATIVE.findall(page) and len(RELATIVE.findall(readme)) > 20


def test_relative_links_of_the_readme_lead_somewhere() -> None:
    for link in RELATIVE.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / link.partition("#")[0]).exists(), link
    assert (ROOT / "docs/matches.jpg").stat().st_size < 150_000
