"""The files that the documentation's commands name, made small: photographs, lists, engines and checkpoints.

Checkpoints have random values under the authors' names: the team's manifests say the names, where `../shared` is there;
elsewhere LoFTR's come from the package's own network, and what names the others is left out.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

# Checkpoint -> the manifest of its names.
CHECKPOINTS = {
    "outdoor_ds.ckpt": "loftr_outdoor_ds",
    "aerial.ckpt": "loftr_outdoor_ds",
    "eloftr_outdoor.ckpt": "eloftr_outdoor",
    "matchanything_eloftr.ckpt": "matchanything_eloftr",
}
_SKIPPED = ("shared", "site", "build", "dist", "node_modules")


def copy_tree(root: Path, target: Path) -> None:
    """The repository's files, those that are changed or new included, without what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if name.split("/")[0] in _SKIPPED or not (root / name).is_file():
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, target / name)


def make_files(folder: Path) -> None:
    """Photographs, lists and engines under the names that the documentation uses."""
    import cv2
    import numpy as np

    first, second = (folder / "examples/images" / name for name in ("cup_0.jpg", "cup_1.jpg"))
    for place in (folder, folder / "images", folder / "folder"):
        place.mkdir(exist_ok=True)
        shutil.copy(first, place / "a.jpg")
        shutil.copy(second, place / "b.jpg")
    shutil.copy(first, folder / "folder/c.jpg")
    shutil.copy(second, folder / "images/c.jpg")
    (folder / "pairs.txt").write_text("a.jpg b.jpg\nb.jpg a.jpg\n")
    (folder / "my_pairs.txt").write_text("a.jpg b.jpg\n")
    # A folder of pairs: subfolders of images of one scene each, as `--pairs` takes them.
    shutil.copytree(folder / "images", folder / "my_pairs")
    grey = cv2.imread(str(first), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(folder / "thermal.png"), grey.astype(np.uint16) * 16)
    shutil.copy(second, folder / "photo.jpg")
    for name in ("a", "b"):
        image = cv2.imread(str(folder / f"{name}.jpg"), cv2.IMREAD_GRAYSCALE)
        cv2.resize(image, (640, 480)).tofile(folder / f"{name}.raw")
    assets = folder / "src/matchrt/assets"
    for name in ("engine", "lite", "my"):
        shutil.copy(assets / "loftr-lite.onnx", folder / f"{name}.onnx")
        shutil.copy(assets / "loftr-lite.onnx.json", folder / f"{name}.onnx.json")
    video = cv2.VideoWriter(str(folder / "video.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (320, 240))
    for left in range(0, 40, 10):
        video.write(cv2.imread(str(first))[60:300, left : left + 320])
    video.release()
    (folder / "token.txt").write_text("a-token-of-at-least-sixteen-characters\n")


def make_checkpoint(name: str, folder: Path, shared: Path) -> bool:
    """Writes the checkpoint of that name: random values under its true keys. False if its keys are not known here."""
    import torch

    if (folder / name).exists():
        return True
    manifest = shared / "manifests" / f"{CHECKPOINTS[name]}.json"
    if manifest.is_file():
        maker = _module(shared / "make_checkpoint.py")
        content = json.loads(manifest.read_text(encoding="utf-8"))
        state = {key: torch.as_tensor(value) for key, value in maker.state_dict(content).items()}
    elif CHECKPOINTS[name].startswith("loftr"):
        from matchrt.families.registry import get_spec

        torch.manual_seed(0)
        network = get_spec("loftr-outdoor").family.create()
        state = {f"matcher.{key}": tensor for key, tensor in network.state_dict().items()}
    else:
        return False
    torch.save({"state_dict": state}, folder / name)
    return True


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
