"""Which tiles look alike and are not of one scene: partners for unrelated pairs of similar style."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.train_lite.mipmaps import MIP_LEVELS, Mipmaps

PARTNERS = 4
CANDIDATES = 32
THUMBNAIL = 32
# Above this correlation, at the best shift, two tiles may show the same thing: a texture in two seasons, a copy.
LARGEST_CORRELATION = 0.45
# Packages whose photographs may show one scene from several places.
SERIES = frozenset({"hugin-data", "opencv-doc", "kphotoalbum", "visp-images-data", "python3-skimage"})


@lru_cache
def _packages() -> dict[str, str]:
    with Path(__file__).with_name("photographs.csv").open(newline="") as file:
        return {row["name"]: row["package"] for row in csv.DictReader(file)}


def group_name(file: str) -> str:
    """What a photograph is related to: itself alone, or the series that it belongs to."""
    package = _packages().get(file, "")
    return package if package in SERIES else file


def _thumbnails(mipmaps: Mipmaps) -> Tensor:
    """Colours `[N,3,THUMBNAIL,THUMBNAIL]` in 0..1 of the smallest level of each tile."""
    side = mipmaps.size >> (MIP_LEVELS - 1)
    packed = mipmaps.texels.view(-1, mipmaps.stride)[:, -side * side :].reshape(-1, side, side)
    colour = torch.stack([(packed >> shift) & 255 for shift in (0, 8, 16)], dim=1).float() / 255.0
    return F.interpolate(colour, size=(THUMBNAIL, THUMBNAIL), mode="area")


def _descriptors(mipmaps: Mipmaps) -> Tensor:
    """Style `[N,D]`: colour, contrast, and how strong the spatial frequencies of each direction are."""
    thumbnails = _thumbnails(mipmaps)
    mean, deviation = thumbnails.mean(dim=(2, 3)), thumbnails.std(dim=(2, 3))
    grey = thumbnails.mean(dim=1)
    grey = grey - grey.mean(dim=(1, 2), keepdim=True)
    spectrum = (torch.fft.rfft2(grey).abs() + 1e-3).log()[:, None]
    spectrum = F.adaptive_avg_pool2d(spectrum, (8, 4)).flatten(1)
    features = torch.cat([mean, 2.0 * deviation, 0.25 * spectrum], dim=1)
    return (features - features.mean(dim=0)) / features.std(dim=0, unbiased=False).clamp(min=1e-3)


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Largest circular correlation of grey thumbnails `[N,T,T]` and `[N,K,T,T]` over all shifts, `[N,K]`."""

    def spectrum(picture: Tensor) -> Tensor:
        picture = picture - picture.mean(dim=(-2, -1), keepdim=True)
        found: Tensor = torch.fft.rfft2(picture / picture.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-6))
        return found

    product = spectrum(first)[:, None].conj() * spectrum(second)
    correlation: Tensor = torch.fft.irfft2(product, s=(THUMBNAIL, THUMBNAIL))
    return correlation.amax(dim=(-2, -1))


def similar_tiles(mipmaps: Mipmaps, group: Tensor) -> Tensor:
    """For each tile the PARTNERS tiles of other groups that look most alike, `[N,PARTNERS]`; group `[N]`.

    Tiles that may be copies are left out as long as there are others. A pool of one group has no partners: each tile
    is then its own.
    """
    features = _descriptors(mipmaps)
    distance = torch.cdist(features, features)
    same = group[:, None] == group
    distance = distance.masked_fill(same, torch.inf)
    count = min(CANDIDATES, len(group))
    near, candidate = distance.topk(count, dim=1, largest=False)
    grey = _thumbnails(mipmaps).mean(dim=1)
    copies = torch.cat([_correlation(grey[row : row + 1], grey[candidate[row]][None]) for row in range(len(group))])
    # Copies rank behind all others, and tiles of the same group last.
    rank = near + torch.where(copies > LARGEST_CORRELATION, 1e6, 0.0)
    order = rank.argsort(dim=1)[:, torch.arange(PARTNERS, device=group.device).clamp(max=count - 1)]
    chosen = candidate.gather(1, order)
    related = ~rank.gather(1, order).isfinite()
    first = torch.where(related[:, 0], torch.arange(len(group), device=group.device), chosen[:, 0])
    return torch.where(related, first[:, None], chosen)
