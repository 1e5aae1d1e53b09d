"""Why the package lies in src/: in the folder that holds the clone, `import matchrt` finds what is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHERE = "import matchrt; print(matchrt.Matcher.__name__, matchrt.__file__)"


def _found_from(folder: Path) -> str:
    """What an interpreter imports whose search path begins with that folder."""
    ran = subprocess.run([sys.executable, "-c", WHERE], cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_beside_the_clone_the_installed_package_is_found(tmp_path: Path) -> None:
    """A clone of this name is a namespace package to Python; an editable install of a flat layout comes after it."""
    beside, elsewhere = tmp_path / "beside", tmp_path / "elsewhere"
    beside.mkdir()
    elsewhere.mkdir()
    (beside / "matchrt").symlink_to(ROOT, target_is_directory=True)
    assert (beside / "matchrt" / "pyproject.toml").is_file()
    found = _found_from(beside)
    assert found == _found_from(elsewhere)
    assert found.startswith("Matcher ") and Path(found.removeprefix("Matcher ")).parts[-2:] == (
        "matchrt",
        "__init__.py",
    )


def test_nothing_at_the_root_can_be_taken_for_the_package() -> None:
    assert not (ROOT / "matchrt").exists() and not (ROOT / "__init__.py").exists()
    assert [path.name for path in sorted((ROOT / "src").iterdir()) if path.suffix != ".egg-info"] == ["matchrt"]
