"""Runs the authors' XoFTR with the tests' random weights, and writes down what `tests/models/test_xoftr_reference.py`
compares.

The authors' code (Apache-2.0) is no part of matchrt. Packages of image matchers carry it, such as vismatch 1.4.0 in
`vismatch/third_party/XoFTR`; it needs `einops` and `yacs`, for which make an environment of their own:

    pip download --no-deps vismatch==1.4.0 && unzip vismatch-1.4.0-py3-none-any.whl -d CODE
    PYTHONPATH=src:tests python tools/xoftr_oracle.py CODE/vismatch/third_party/XoFTR tests/data/xoftr.npz

Every large tensor `case/name` is sampled: `.shape`, `.idx` (flat indices), `.val`, and `.most`, the largest absolute
value of the whole. `case/matches` has x0, y0, x1, y1 and the score of each match. Cases: `shift` is two images of one
size, `uneven` two sizes, `masked` has padding in both. Their images are parts of `rgb`-less `image0` and `image1`.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from support.pictures import shifted_pair
from support.xoftr import random_state

SAMPLES = 200
# (height, width) of both images in pixels, cut from the upper left corner of `image0` and `image1`.
CASES = {"shift": ((96, 128), (96, 128)), "uneven": ((96, 128), (80, 104)), "masked": ((80, 128), (96, 104))}
PADDED = (96, 128)


def authors_network(folder: Path) -> torch.nn.Module:
    """The network of the authors' code in its configuration for inference."""
    sys.path.insert(0, str(folder))
    from src.config.default import get_cfg_defaults  # type: ignore[import-not-found]
    from src.xoftr import XoFTR  # type: ignore[import-not-found]

    network: torch.nn.Module = XoFTR(_lower(get_cfg_defaults(inference=True))["xoftr"])
    network.load_state_dict(random_state({key: tuple(value.shape) for key, value in network.state_dict().items()}))
    return network.eval()


def _lower(node: Any) -> Any:
    return {key.lower(): _lower(value) for key, value in node.items()} if hasattr(node, "items") else node


def sampled(name: str, tensor: torch.Tensor) -> dict[str, np.ndarray]:
    """A few values of a tensor; see the module."""
    flat = tensor.detach().numpy().ravel()
    index = np.random.default_rng(zlib.crc32(name.encode())).integers(0, flat.size, min(SAMPLES, flat.size))
    most = np.abs(flat).max()
    return {
        f"{name}.shape": np.array(tensor.shape),
        f"{name}.idx": index,
        f"{name}.val": flat[index],
        f"{name}.most": most,
    }


def run(network: Any, case: str, images: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    """The stages of one case, each as the authors' modules give it."""
    parts = [image[:h, :w] for image, (h, w) in zip(images, CASES[case], strict=True)]
    data: dict[str, Any] = {}
    if case == "masked":
        # The authors' forward takes mean and deviation over the padding too, so its steps are called one by one.
        padded, masks = zip(*(_padded(part) for part in parts), strict=True)
        _steps(network, data, padded, masks)
    else:
        data.update({f"image{i}": torch.from_numpy(part).float()[None, None] / 255 for i, part in enumerate(parts)})
        found: dict[str, Any] = {}
        hooks = [module.register_forward_hook(lambda _, i, o, name=name: found.setdefault(name, []).append(o))
                 for name, module in network.named_children()]  # fmt: skip
        network(data)
        for hook in hooks:
            hook.remove()
        data["taps"] = found["backbone"][0] if len(found["backbone"]) == 1 else found["backbone"][1]
        data["tokens"], data["windows"] = found["loftr_coarse"][0], found["fine_process"][0]
    result = {}
    for level, tap in zip(("coarse", "middle", "fine"), data["taps"], strict=True):
        result |= sampled(f"{case}/{level}", tap)
    for index in (0, 1):
        result |= sampled(f"{case}/tokens{index}", data["tokens"][index])
        result |= sampled(f"{case}/windows{index}", data["windows"][index])
    result |= sampled(f"{case}/confidence", data["conf_matrix_fine"])
    cells = np.stack([data["i_ids"].numpy(), data["j_ids"].numpy()], axis=1)
    rows = torch.cat([data["mkpts0_f"], data["mkpts1_f"], data["mconf_f"][:, None]], dim=1).numpy()
    print(f"{case}: {len(cells)} pairs of cells, {len(rows)} matches")
    return {**result, f"{case}/cells": cells.astype(np.int32), f"{case}/matches": rows.astype(np.float32)}


def _padded(image: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The image, normalised by its own pixels and then padded with zeros, and its mask of cells."""
    values = image.astype(np.float64) / 255
    values = (values - values.mean()) / (values.std(ddof=1) + 1e-6)
    canvas, mask = np.zeros(PADDED, np.float32), np.zeros((PADDED[0] // 8, PADDED[1] // 8), bool)
    canvas[: image.shape[0], : image.shape[1]] = values
    mask[: image.shape[0] // 8, : image.shape[1] // 8] = True
    return torch.from_numpy(canvas)[None, None], torch.from_numpy(mask)[None]


def _steps(network: Any, data: dict[str, Any], images: Any, masks: Any) -> None:
    coarse, middle, fine = data["taps"] = network.backbone(torch.cat(images))
    sides = {"i": PADDED, "c": coarse.shape[2:], "m": middle.shape[2:], "f": fine.shape[2:]}
    data.update({f"hw{i}_{level}": size for level, size in sides.items() for i in (0, 1)})
    data.update({"bs": 1, "mask0": masks[0], "mask1": masks[1]})
    flat = [mask.flatten(1) for mask in masks]
    tokens = [network.pos_encoding(x).flatten(2).transpose(1, 2) for x in coarse.chunk(2)]
    data["tokens"] = network.loftr_coarse(*tokens, *flat)
    network.coarse_matching(*data["tokens"], data, mask_c0=flat[0], mask_c1=flat[1])
    maps = [half for tap in (fine, middle) for half in tap.chunk(2)]
    data["windows"] = network.fine_process(*maps, *data["tokens"], *coarse.chunk(2), data)
    network.fine_matching(*data["windows"], data)


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("code", type=Path, help="folder with the authors' src/xoftr")
    parser.add_argument("output", type=Path, help="the npz file to write")
    given = parser.parse_args()
    network, images = authors_network(given.code), shifted_pair(96, 128, (16, 8), seed=3)
    arrays = {"image0": images[0], "image1": images[1]}
    arrays["keys"] = np.array([f"{key} {tuple(value.shape)}" for key, value in network.state_dict().items()])
    with torch.inference_mode():
        for case in CASES:
            arrays |= run(network, case, images)
    np.savez_compressed(given.output, **arrays)


if __name__ == "__main__":
    main()
