"""Pictures that look alike and show different things: pages of text, façades, forests, tiles, noise, and blank ones."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
_LETTERS = "abcdefghijklmnopqrstuvwxyzabcdefghilmnoprstueaeaoitn"


def text_page(dice: np.random.Generator, height: int, width: int) -> Picture:
    """Lines of random words, dark on light."""
    page = np.full((height, width, 3), int(dice.integers(215, 256)), np.uint8)
    size, font = float(dice.uniform(0.4, 0.9)), int(dice.choice([0, 2, 3, 4]))
    step, ink = int(38 * size + 8), int(dice.integers(0, 80))
    for y in range(step, height, step):
        words = ["".join(dice.choice(list(_LETTERS), int(dice.integers(2, 11)))) for _ in range(14)]
        cv2.putText(page, " ".join(words), (int(dice.integers(8, 24)), y), font, size, (ink,) * 3, 1, cv2.LINE_AA)
    return page


def facade(dice: np.random.Generator, height: int, width: int) -> Picture:
    """A wall with rows of equal windows, and a few that differ."""
    wall = dice.integers(90, 220, 3)
    picture = np.full((height, width, 3), wall, np.uint8)
    columns, rows = int(dice.integers(4, 11)), int(dice.integers(3, 8))
    cell = np.array([width / columns, height / rows])
    inner = dice.uniform(0.35, 0.75, 2) * cell
    glass, frame = (tuple(int(value) for value in dice.integers(20, 120, 3)) for _ in range(2))
    for row in range(rows):
        for column in range(columns):
            corner = (np.array([column, row]) + 0.5) * cell - inner / 2
            first, last = corner.astype(int), (corner + inner).astype(int)
            cv2.rectangle(picture, tuple(first.tolist()), tuple(last.tolist()), glass, -1)
            cv2.rectangle(picture, tuple(first.tolist()), tuple(last.tolist()), frame, int(dice.integers(1, 4)))
            if dice.random() < 0.25:
                cv2.line(picture, tuple(first.tolist()), tuple(last.tolist()), frame, 2)
    return _grain(dice, picture, 6.0)


def forest(dice: np.random.Generator, height: int, width: int) -> Picture:
    """Trunks before leaves."""
    leaves = _cloud(dice, height, width, 0.8)[..., None] * dice.uniform(60, 160, 3)
    picture = np.asarray(np.clip(leaves + 40, 0, 255), np.uint8)
    for _ in range(int(dice.integers(8, 26))):
        x, thick, bark = int(dice.integers(0, width)), int(dice.integers(3, 26)), int(dice.integers(20, 90))
        lean = int(dice.normal(0, 25))
        cv2.line(picture, (x, height), (x + lean, 0), (bark, bark, bark), thick, cv2.LINE_AA)
    return _grain(dice, picture, 10.0)


def tiles(dice: np.random.Generator, height: int, width: int) -> Picture:
    """Bricks or squares that repeat over the whole picture."""
    joint, stone = dice.integers(120, 230, 3), dice.integers(60, 200, 3)
    picture = np.full((height, width, 3), joint, np.uint8)
    high, wide = int(dice.integers(24, 80)), int(dice.integers(30, 150))
    offset = 0 if dice.random() < 0.4 else wide // 2
    for row, y in enumerate(range(0, height, high)):
        for x in range(-wide, width, wide):
            left = x + offset * (row % 2)
            shade = tuple(int(value) for value in np.clip(stone + dice.normal(0, 6, 3), 0, 255))
            cv2.rectangle(picture, (left + 2, y + 2), (left + wide - 2, y + high - 2), shade, -1)
    return _grain(dice, picture, 5.0)


def noise(dice: np.random.Generator, height: int, width: int) -> Picture:
    """White noise, coarse noise or clouds."""
    kind = int(dice.integers(0, 3))
    if kind == 2:
        cloud = np.asarray(255 * _cloud(dice, height, width, float(dice.uniform(0.6, 1.6))), np.uint8)
        return np.repeat(cloud[..., None], 3, axis=2)
    step = 1 if kind == 0 else int(dice.integers(2, 9))
    small = dice.integers(0, 256, (height // step + 1, width // step + 1), np.uint8)
    grey = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.repeat(grey[..., None], 3, axis=2)


def blank(dice: np.random.Generator, height: int, width: int) -> Picture:
    """One grey, or a slow slope of it, with a little grain."""
    slope = np.linspace(0, dice.uniform(-60, 60), width)[None, :, None] + dice.uniform(60, 200)
    picture = np.broadcast_to(np.clip(slope, 0, 255), (height, width, 3)).astype(np.uint8)
    return _grain(dice, picture, float(dice.uniform(0.0, 4.0)))


DRAWN = {"text": text_page, "facade": facade, "forest": forest, "tiles": tiles, "noise": noise, "blank": blank}


def _cloud(dice: np.random.Generator, height: int, width: int, power: float) -> NDArray[np.float64]:
    """Noise whose spectrum falls with the frequency, 0..1, [height, width]."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falling = 1.0 / np.maximum(np.hypot(rows, columns), 1.0 / max(height, width)) ** power
    wave = np.fft.irfft2(falling * np.exp(2j * np.pi * dice.random(falling.shape)), (height, width))
    low, high = np.quantile(wave, [0.01, 0.99])
    return np.clip((wave - low) / (high - low), 0.0, 1.0)


def _grain(dice: np.random.Generator, picture: Picture, deviation: float) -> Picture:
    grain = dice.normal(0.0, deviation, picture.shape[:2])[..., None]
    return np.asarray(np.clip(picture + grain, 0, 255), np.uint8)
