"""VGG19 with batch normalisation as a feature pyramid (Simonyan and Zisserman, 2015)."""

from __future__ import annotations

from torch import Tensor, nn


class VGGPyramid(nn.Module):
    """Image `[B,3,H,W]` to the features before each max-pool: scales 1, 2, 4, 8.

    `layers` is numbered as torchvision's `vgg19_bn().features[:40]`, so that names fit: convolution, norm, ReLU, and a
    pool after each stage. The last pool is never run.
    """

    def __init__(self, stages: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.taps: list[int] = []
        channels = 3
        for stage in stages:
            for out in stage:
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
                channels = out
            self.taps.append(len(layers))
            layers.append(nn.MaxPool2d(2, 2))
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Image `[B,3,H,W]` -> features `[B,C,H/scale,W/scale]` by scale."""
        features: dict[int, Tensor] = {}
        x, begin = image, 0
        for index, tap in enumerate(self.taps):
            x = self.layers[begin:tap](x)
            features[2**index] = x
            begin = tap
        return features
