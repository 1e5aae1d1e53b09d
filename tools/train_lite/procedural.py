"""Drawn texture tiles: what photographs of nature lack. Text, facades, boards, maps, polygons, copies, tables."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Tile = NDArray[np.uint8]
Generator = np.random.Generator


def _colour(random: Generator) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in random.integers(0, 256, 3))
    return red, green, blue


def _ground(random: Generator, size: int) -> Tile:
    """A plain colour with soft blotches."""
    blotches = cv2.resize(
        random.normal(0, 14, (8, 8, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
    )
    ground: Tile = np.clip(np.array(_colour(random), np.float32) + blotches, 0, 255).astype(np.uint8)
    return ground


def _text(random: Generator, size: int) -> Tile:
    """Lines of letters in changing sizes, as on pages and signs."""
    tile = _ground(random, size)
    letters = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:;-+/()&%#?! "))
    y = 0
    while y < size:
        scale = float(random.choice([0.5, 0.7, 1.0, 1.6, 3.0], p=[0.3, 0.3, 0.2, 0.12, 0.08]))
        y += int(34 * scale)
        line = "".join(random.choice(letters, int(size / (14 * scale)) + 1))
        start = int(random.integers(-20, 60))
        ink, weight = _colour(random) if random.random() < 0.3 else (20, 20, 20), int(random.integers(1, 4))
        cv2.putText(tile, line, (start, y), int(random.integers(0, 8)), scale, ink, weight, cv2.LINE_AA)
    return tile


def _facade(random: Generator, size: int) -> Tile:
    """Rows of like windows that differ in detail: repetition with little to tell the copies apart."""
    tile = _ground(random, size)
    columns, rows = int(random.integers(4, 14)), int(random.integers(3, 12))
    step_x, step_y = size / columns, size / rows
    frame, glass = _colour(random), _colour(random)
    width, height = step_x * random.uniform(0.35, 0.75), step_y * random.uniform(0.4, 0.8)
    for row in range(rows):
        cv2.line(tile, (0, int(row * step_y)), (size, int(row * step_y)), frame, int(random.integers(1, 6)))
        for column in range(columns):
            x, y = column * step_x + (step_x - width) / 2, row * step_y + (step_y - height) / 2
            shade = random.normal(0, 25)
            fill = tuple(int(np.clip(c + shade, 0, 255)) for c in glass)
            a, b = (int(x), int(y)), (int(x + width), int(y + height))
            cv2.rectangle(tile, a, b, fill, -1)
            cv2.rectangle(tile, a, b, frame, 3)
            if random.random() < 0.6:
                level = int(y + height * random.uniform(0.2, 0.8))
                cv2.line(tile, (a[0], level), (b[0], level), frame, 2)
            if random.random() < 0.25:
                centre = (int(random.uniform(a[0], b[0])), int(random.uniform(a[1], b[1])))
                cv2.circle(tile, centre, int(random.integers(4, 20)), _colour(random), -1, cv2.LINE_AA)
    return tile


def _polygons(random: Generator, size: int) -> Tile:
    """Overlapping shapes of all sizes."""
    tile = _ground(random, size)
    for _ in range(int(random.integers(60, 260))):
        centre = random.uniform(0, size, 2)
        radius = float(np.exp(random.uniform(np.log(6), np.log(160))))
        kind = random.integers(0, 4)
        if kind == 0:
            cv2.circle(tile, centre.astype(int).tolist(), int(radius), _colour(random), -1, cv2.LINE_AA)
        elif kind == 1:
            end = centre + random.normal(0, radius * 2, 2)
            line_width = int(random.integers(1, 8))
            cv2.line(
                tile, centre.astype(int).tolist(), end.astype(int).tolist(), _colour(random), line_width, cv2.LINE_AA
            )
        else:
            corners = int(random.integers(3, 8))
            angle = np.sort(random.uniform(0, 2 * np.pi, corners))
            points = centre + radius * random.uniform(0.4, 1.2, (corners, 1)) * np.stack(
                [np.cos(angle), np.sin(angle)], 1
            )
            cv2.fillPoly(tile, [points.astype(np.int32)], _colour(random), cv2.LINE_AA)
    return tile


def _board(random: Generator, size: int) -> Tile:
    """Checkers and bricks with stains, so that copies are alike and not equal."""
    tile = _ground(random, size)
    step = int(random.integers(24, 110))
    first, second = _colour(random), _colour(random)
    brick = random.random() < 0.5
    for row, y in enumerate(range(0, size, step)):
        for column, x in enumerate(range(-step, size, step * (2 if brick else 1))):
            shift = step * (row % 2) if brick else 0
            base = first if (brick or (row + column) % 2) else second
            fill = tuple(int(np.clip(c + random.normal(0, 10), 0, 255)) for c in base)
            length = step * 2 if brick else step
            gap = 3 if brick else 0
            cv2.rectangle(tile, (x + shift + gap, y + gap), (x + shift + length - gap, y + step - gap), fill, -1)
    for _ in range(int(random.integers(5, 60))):
        centre = random.integers(0, size, 2).tolist()
        axes = random.integers(3, 40, 2).tolist()
        cv2.ellipse(tile, centre, axes, float(random.uniform(0, 180)), 0, 360, _colour(random), -1, cv2.LINE_AA)
    return tile


def _map(random: Generator, size: int) -> Tile:
    """Streets, water and blocks, as maps and aerial views show them."""
    tile = _ground(random, size)
    road = _colour(random)
    for _ in range(int(random.integers(3, 9))):
        walk = np.cumsum(random.normal(0, 1, (60, 2)), axis=0)
        points = random.uniform(0, size, 2) + walk * size / 18
        fill = _colour(random)
        cv2.fillPoly(tile, [points.astype(np.int32)], fill)
    for _ in range(int(random.integers(15, 60))):
        start, angle = random.uniform(0, size, 2), random.uniform(0, 2 * np.pi)
        bends = angle + np.cumsum(random.normal(0, 0.12, 40))
        points = start + np.cumsum(np.stack([np.cos(bends), np.sin(bends)], 1) * size / 40, axis=0)
        cv2.polylines(tile, [points.astype(np.int32)], False, road, int(random.integers(2, 12)), cv2.LINE_AA)
    for _ in range(int(random.integers(50, 300))):
        centre, extent = random.uniform(0, size, 2), random.uniform(6, 34, 2)
        box = cv2.boxPoints((centre.tolist(), extent.tolist(), float(random.uniform(0, 90))))
        cv2.fillPoly(tile, [box.astype(np.int32)], _colour(random), cv2.LINE_AA)
    return tile


def _details(tile: Tile, random: Generator, count: int) -> None:
    """Small marks, each of its own: what tells the copies of a repeated motif apart."""
    size = len(tile)
    for _ in range(count):
        centre = random.integers(0, size, 2).tolist()
        if random.random() < 0.4:
            word = "".join(random.choice(list("ABCDEFGHKLMNPRSTUVXYZ23456789"), int(random.integers(2, 6))))
            scale = float(random.uniform(0.5, 1.5))
            cv2.putText(tile, word, centre, int(random.integers(0, 8)), scale, _colour(random), 2, cv2.LINE_AA)
        else:
            axes = random.integers(3, max(5, size // 40), 2).tolist()
            cv2.ellipse(tile, centre, axes, float(random.uniform(0, 180)), 0, 360, _colour(random), -1, cv2.LINE_AA)


def _copies(random: Generator, size: int) -> Tile:
    """One motif (a window, a tile of a floor) in rows, equal to the pixel but for some shade and a few details."""
    columns, rows = int(random.integers(4, 18)), int(random.integers(4, 18))
    width, height = size // columns + 1, size // rows + 1
    motif = cv2.resize((_polygons, _board, _facade)[int(random.integers(0, 3))](random, 200), (width, height))
    if random.random() < 0.7:
        cv2.rectangle(motif, (0, 0), (width - 1, height - 1), _colour(random), int(random.integers(1, 9)))
    row = np.concatenate([motif] * columns, axis=1)
    # Bricks: every other row is set off by half a motif.
    shift = width // 2 if random.random() < 0.3 else 0
    stack = np.concatenate([np.roll(row, shift * (index % 2), axis=1) for index in range(rows)], axis=0)
    shade = random.normal(0, random.uniform(0, 9), (rows, columns, 1)).astype(np.float32)
    wash = cv2.resize(shade, (size, size), interpolation=cv2.INTER_CUBIC)[:, :, None]
    tile: Tile = np.clip(stack[:size, :size] + wash, 0, 255).astype(np.uint8)
    _details(tile, random, int(random.integers(3, 40)))
    return tile


def _table(random: Generator, size: int) -> Tile:
    """A grid of figures, as in tables, on keyboards and on panels."""
    tile = _ground(random, size)
    columns, rows = int(random.integers(5, 16)), int(random.integers(8, 28))
    ink, face = _colour(random), int(random.integers(0, 8))
    scale, digits = size / columns / 90, int(random.integers(1, 4))
    for row in range(rows):
        for column in range(columns):
            x, y = int(column * size / columns), int(row * size / rows)
            corner = (int((column + 1) * size / columns), int((row + 1) * size / rows))
            cv2.rectangle(tile, (x, y), corner, ink, 1)
            figure = str(int(random.integers(0, 10**digits)))
            cv2.putText(tile, figure, (x + 4, corner[1] - 5), face, scale, ink, 1, cv2.LINE_AA)
    _details(tile, random, int(random.integers(0, 20)))
    return tile


KINDS = (_text, _facade, _polygons, _board, _map, _copies, _table, _copies)


def procedural_tile(seed: int, size: int) -> Tile:
    """The drawn tile of a seed, uint8 `[size,size,3]`."""
    random = np.random.default_rng(seed)
    tile = KINDS[seed % len(KINDS)](random, size)
    grain = random.normal(0, random.uniform(1, 7), (size, size, 1))
    return np.clip(tile + grain, 0, 255).astype(np.uint8)
