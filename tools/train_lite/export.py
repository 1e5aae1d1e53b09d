"""Writes a training checkpoint as the shipped file: half precision, official key names, facts in the metadata."""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import save_file

from matchrt.models.eloftr.network import ELoFTR
from tools.train_lite.networks import NAMES, fuse, new_network

RECIPE_VERSIONS = {"loftr-lite": "1", "eloftr-lite": "2"}
PREFIX = "matcher."


def summary() -> str:
    """What the network was trained on, in one line."""
    with Path(__file__).with_name("photographs.csv").open(newline="") as stream:
        kinds = Counter(row["kind"] for row in csv.DictReader(stream) if row["split"] == "train")
    return (
        f"synthetic view pairs of {kinds['photo']} photographs, {kinds['texture']} photographic textures (free content "
        "of Debian 12 packages, listed in tools/train_lite/photographs.csv) and 240 drawn tiles; no other data"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=NAMES, default="eloftr-lite")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    loaded = torch.load(arguments.checkpoint, map_location="cpu", weights_only=True)
    net = new_network(arguments.network)
    net.load_state_dict(loaded["state"])
    if isinstance(net, ELoFTR):
        fuse(net.eval())
    tensors = {}
    for key, value in net.state_dict().items():
        half = value.half() if value.is_floating_point() else value
        if not bool(torch.isfinite(half).all()):
            raise ValueError(f"{key} does not fit in half precision")
        tensors[PREFIX + key] = half.contiguous()
    metadata = {
        "format": "pt",
        "model": arguments.network,
        "recipe": RECIPE_VERSIONS[arguments.network],
        "steps": str(loaded["step"]),
        "pairs": str(loaded["pairs"]),
        "seed": str(loaded["seed"]),
        "licence": "Apache-2.0",
        "training_data": summary(),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, arguments.output, metadata)
    print(f"{arguments.output}: {len(tensors)} tensors, {arguments.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
