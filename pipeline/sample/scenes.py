"""Composed scenes: what is in a sample picture, and how it is drawn.

A scene holds two or three groups of coloured shapes on a quiet background. Colours and shapes
form a square of combinations; two diagonals of it are held out of every training scene, so that
each colour and each shape is well known but those colours on those shapes were never seen.

Scenes use only `random.Random.random`, whose sequence Python guarantees, and are drawn with
float64 arithmetic and soft edges, so a seed gives the same pixels on every machine.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]
Combination = tuple[str, str]  # colour, shape
T = TypeVar("T")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 36, 40),
    "yellow": (246, 222, 40),
    "green": (40, 165, 60),
    "blue": (38, 80, 215),
    "pink": (250, 135, 190),
    "white": (250, 250, 250),
    "orange": (245, 138, 20),
    "purple": (125, 45, 170),
}
TONES: dict[str, tuple[int, int, int]] = {
    "grey": (128, 128, 128),
    "beige": (164, 152, 130),
    "teal": (66, 104, 108),
    "charcoal": (64, 66, 70),
    "slate": (92, 104, 120),
    "khaki": (136, 132, 100),
}
PATTERNS = (*("plain",) * 22, "grid", "lined", "wavy", "grainy")
TEXTURES = (*("plain",) * 12, "striped", "dotted")
SIZES: dict[str, tuple[float, float]] = {"small": (0.16, 0.18), "big": (0.24, 0.27)}
MIDDLE = (0.2, 0.22)  # radius of a thing whose size is not worth a word
"""Radii are fractions of the picture's shorter side."""
THINGS = (1, 2, 2, 3)
"""How many things training scenes hold: as often one as three, and two in half of them."""


@dataclass(frozen=True)
class Mark:
    """One drawn shape: centre and radius as fractions of the central square, angle in radians."""

    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True)
class Thing:
    """A group of equal shapes; `size` is empty when the caption has nothing to say about it."""

    colour: str
    shape: str
    size: str
    texture: str
    marks: tuple[Mark, ...]
    rgb: tuple[int, int, int]

    @property
    def combination(self) -> Combination:
        return self.colour, self.shape


@dataclass(frozen=True)
class Background:
    """`waves` are low-frequency shadings: cycles across, cycles down, phase, strength."""

    tone: str
    pattern: str
    rgb: tuple[int, int, int]
    period: float
    angle: float
    waves: tuple[tuple[float, float, float, float], ...]
    grain: int


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn; `width` and `height` in pixels."""

    width: int
    height: int
    background: Background
    things: tuple[Thing, ...]


def pick(rng: Random, choices: Sequence[T]) -> T:
    """One of `choices`, from the one method of `Random` whose sequence never changes."""
    return choices[int(rng.random() * len(choices))]


def between(rng: Random, low: float, high: float) -> float:
    """A number in [low, high)."""
    return low + (high - low) * rng.random()


def diagonal(offset: int) -> tuple[Combination, ...]:
    """A diagonal of the square of the first six colours and shapes: each of them once."""
    colours, shapes = tuple(COLOURS)[:6], tuple(SHAPES)[:6]
    return tuple((c, shapes[(i + offset) % 6]) for i, c in enumerate(colours))


def scene(rng: Random, combinations: Sequence[Combination] | None = None) -> Scene:
    """A scene of the given combinations, or of one to three seen ones with nothing in common."""
    if combinations is None:
        combinations = _draw_combinations(rng, pick(rng, THINGS))
    width, height = _picture_size(rng)
    counts = _counts(rng, len(combinations))
    sizes = [pick(rng, ("small", "big", "")) if n == 1 else "" for n in counts]
    for i, size in enumerate(sizes):
        if size == "big" and sum(counts) > 2 and (sum(counts) > 3 or "big" in sizes[:i]):
            sizes[i] = ""  # two big ones leave no room for a third
    marks = _place(rng, counts, sizes)
    things = tuple(
        Thing(colour, shape, size, pick(rng, TEXTURES), where, _jitter(rng, COLOURS[colour], 14))
        for (colour, shape), size, where in zip(combinations, sizes, marks, strict=True)
    )
    return Scene(width, height, _background(rng), things)


def corpus(seed: int, count: int) -> list[Scene]:
    """The first `count` training scenes of a seed."""
    rng = Random(seed)
    return [scene(rng) for _ in range(count)]


def _draw_combinations(rng: Random, count: int) -> tuple[Combination, ...]:
    while True:
        drawn = tuple(pick(rng, SEEN) for _ in range(count))
        if len({c for c, _ in drawn}) == count and len({s for _, s in drawn}) == count:
            return drawn


def _picture_size(rng: Random) -> tuple[int, int]:
    """A shorter side of 64 to 128 pixels and an aspect of at most 5 to 4, in either direction."""
    short = int(between(rng, 64, 129))
    long = int(short * between(rng, 1.0, 1.25))
    shape = pick(rng, ("square", "wide", "tall"))
    if shape == "square":
        return short, short
    return (long, short) if shape == "wide" else (short, long)


def _counts(rng: Random, things: int) -> list[int]:
    counts = [1] * things
    if rng.random() < 0.05:
        counts[int(rng.random() * things)] = 2 if things == 3 else pick(rng, (2, 3))
    return counts


def _place(rng: Random, counts: list[int], sizes: list[str]) -> list[tuple[Mark, ...]]:
    """Marks that don't overlap, inside the central square; smaller ones when they don't fit."""
    radii: list[float] = []
    for count, size in zip(counts, sizes, strict=True):
        low, high = SIZES.get(size, MIDDLE)
        radius = between(rng, low, high) if count == 1 else between(rng, 0.14, 0.155)
        radii += [radius] * count
    while True:
        marks: list[Mark] = []
        for radius in radii:
            for _ in range(30):
                x, y = (between(rng, radius + 0.03, 0.97 - radius) for _ in range(2))
                if all(math.hypot(x - m.x, y - m.y) > radius + m.radius + 0.02 for m in marks):
                    marks.append(Mark(x, y, radius, between(rng, -0.2, 0.2)))
                    break
            else:
                break
        if len(marks) == len(radii):
            left = iter(marks)
            return [tuple(itertools.islice(left, count)) for count in counts]
        radii = [0.99 * radius for radius in radii]


def _jitter(rng: Random, rgb: tuple[int, int, int], spread: float) -> tuple[int, int, int]:
    light = between(rng, 0.9, 1.05)
    r, g, b = (
        min(255, max(0, round(value * light + between(rng, -spread, spread)))) for value in rgb
    )
    return r, g, b


def _background(rng: Random) -> Background:
    tone = pick(rng, tuple(TONES))
    waves = tuple(
        (
            between(rng, -2.6, 2.6),
            between(rng, -2.6, 2.6),
            between(rng, 0.0, 2 * math.pi),
            between(rng, 3.0, 8.0),
        )
        for _ in range(6)
    )
    return Background(
        tone,
        pick(rng, PATTERNS),
        _jitter(rng, TONES[tone], 8),
        between(rng, 0.09, 0.16),
        between(rng, 0.0, math.pi),
        waves,
        int(rng.random() * 2**31),
    )


def render(picture: Scene) -> Image.Image:
    """Draw a scene: an RGB image of `width` by `height` pixels."""
    side = min(picture.width, picture.height)
    x_W = (np.arange(picture.width) + 0.5 - (picture.width - side) / 2) / side
    y_H = (np.arange(picture.height) + 0.5 - (picture.height - side) / 2) / side
    rgb_HWC = _draw_background(picture.background, x_W, y_H)
    for thing in picture.things:
        for mark in thing.marks:
            _draw_mark(rgb_HWC, thing, mark, x_W, y_H, side)
    return Image.fromarray(np.rint(np.clip(rgb_HWC, 0, 255)).astype(np.uint8), "RGB")


def _draw_background(ground: Background, x_W: Array, y_H: Array) -> Array:
    x, y = x_W[None, :], y_H[:, None]
    light = np.zeros((len(y_H), len(x_W)))
    for across, down, phase, strength in ground.waves:
        light += strength * np.sin(2 * math.pi * (across * x + down * y) + phase)
    turned = x * math.cos(ground.angle) + y * math.sin(ground.angle)
    other = y * math.cos(ground.angle) - x * math.sin(ground.angle)
    wave = 2 * math.pi / ground.period
    if ground.pattern == "grid":
        light += 10 * np.maximum(_soft_line(x * wave), _soft_line(y * wave))
    elif ground.pattern == "lined":
        light += 10 * _soft_line(turned * wave)
    elif ground.pattern == "wavy":
        light += 7 * np.sin(wave * turned + 2.5 * np.sin(0.5 * wave * other))
    elif ground.pattern == "grainy":
        light += 6 * _noise(ground.grain, light.shape)
    return np.asarray(ground.rgb, dtype=np.float64) + light[:, :, None]


def _soft_line(phase: Array) -> Array:
    return np.clip(4 * np.cos(phase) - 2.5, 0, 1)


def _noise(seed: int, shape: tuple[int, ...]) -> Array:
    """White noise in [-1, 1) by integer hashing, the same with every version of numpy."""
    count = math.prod(shape)
    bits = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    bits ^= bits >> np.uint64(29)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> np.uint64(32)
    return ((bits & np.uint64(0xFFFF)).astype(np.float64) / 32768 - 1).reshape(shape)


def _draw_mark(rgb_HWC: Array, thing: Thing, mark: Mark, x_W: Array, y_H: Array, side: int) -> None:
    columns = np.flatnonzero(np.abs(x_W - mark.x) < mark.radius + 2 / side)
    rows = np.flatnonzero(np.abs(y_H - mark.y) < mark.radius + 2 / side)
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    x = (x_W[columns][None, :] - mark.x) / mark.radius
    y = (y_H[rows][:, None] - mark.y) / mark.radius
    cos, sin = math.cos(mark.angle), math.sin(mark.angle)
    across, down = x * cos + y * sin, y * cos - x * sin
    distance = SHAPES[thing.shape](across, down)
    cover = np.clip(0.5 - distance * mark.radius * side, 0, 1)[:, :, None]
    fill = np.asarray(thing.rgb, dtype=np.float64) * _shade(thing.texture, across, down)[:, :, None]
    rgb_HWC[window] += cover * (fill - rgb_HWC[window])


def _shade(texture: str, x: Array, y: Array) -> Array:
    """Brightness of the texture, 1 where the colour is itself; x and y in radii."""
    if texture == "striped":
        return 1 - 0.3 * np.clip(0.5 + 2.5 * np.sin(2 * math.pi * (x + y) / 0.62), 0, 1)
    if texture == "dotted":
        waves = np.cos(2 * math.pi * x / 0.55) * np.cos(2 * math.pi * y / 0.55)
        return 1 - 0.36 * np.clip(3 * waves - 0.9, 0, 1)
    return np.ones(np.broadcast_shapes(x.shape, y.shape))


def _polygon(corners: Sequence[tuple[float, float]]) -> Callable[[Array, Array], Array]:
    """Signed distance to a polygon, negative inside; corners in units of the radius."""

    def distance(x: Array, y: Array) -> Array:
        nearest = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf)
        inside = np.zeros(nearest.shape, dtype=bool)
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
            edge_x, edge_y = x1 - x0, y1 - y0
            along = ((x - x0) * edge_x + (y - y0) * edge_y) / (edge_x**2 + edge_y**2)
            along = np.clip(along, 0, 1)
            gap = (x - x0 - along * edge_x) ** 2 + (y - y0 - along * edge_y) ** 2
            nearest = np.minimum(nearest, gap)
            if y0 != y1:
                crosses = (y0 > y) != (y1 > y)
                inside ^= crosses & (x < x0 + (y - y0) * edge_x / edge_y)
        signed: Array = np.where(inside, -1.0, 1.0) * np.sqrt(nearest)
        return signed

    return distance


def _star() -> list[tuple[float, float]]:
    turns = [math.pi * k / 5 for k in range(10)]
    radii = [1.0, 0.42] * 5
    return [(r * math.sin(t), -r * math.cos(t)) for r, t in zip(radii, turns, strict=True)]


def _cross(arm: float = 0.3, reach: float = 0.95) -> list[tuple[float, float]]:
    quarter = [(arm, -reach), (arm, -arm), (reach, -arm)]
    corners = []
    for turn in range(4):
        for x, y in quarter:
            for _ in range(turn):
                x, y = -y, x
            corners.append((x, y))
    return corners


def _arrow() -> list[tuple[float, float]]:
    half = [(0.0, -0.95), (0.82, -0.05), (0.35, -0.05), (0.35, 0.9)]
    return half + [(-x, y) for x, y in reversed(half[1:])]


def _circle(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - 0.9


def _ring(x: Array, y: Array) -> Array:
    return np.abs(np.hypot(x, y) - 0.72) - 0.23


def _moon(x: Array, y: Array) -> Array:
    full, bite = np.hypot(x, y) - 0.95, 0.78 - np.hypot(x - 0.52, y)
    return np.where(full > bite, full, bite)


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "triangle": _polygon([(0.0, -0.95), (0.95, 0.75), (-0.95, 0.75)]),
    "star": _polygon(_star()),
    "cross": _polygon(_cross()),
    "ring": _ring,
    "moon": _moon,
    "square": _polygon([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]),
    "arrow": _polygon(_arrow()),
}

HELD_OUT: tuple[Combination, ...] = tuple(sorted(diagonal(0) + diagonal(1)))
"""Combinations that no training scene holds: two of each colour and two of each shape."""
SEEN: tuple[Combination, ...] = tuple(
    (colour, shape) for colour in COLOURS for shape in SHAPES if (colour, shape) not in HELD_OUT
)
