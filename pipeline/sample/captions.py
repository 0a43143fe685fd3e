"""Captions that truly describe a scene: one to four short, plain English sentences.

Each sentence is true of the picture on its own and names one or two of its things, so a part of
a caption is a caption too. A whole caption has at most 40 words.
"""

from __future__ import annotations

from random import Random

from pipeline.sample.scenes import (
    COLOURS,
    SHAPES,
    Background,
    Combination,
    Scene,
    Thing,
    corpus,
    pick,
)

SIZE_WORDS = {"small": ("small", "little", "tiny"), "big": ("big", "large")}
TEXTURE_WORDS = {"plain": ("plain",), "striped": ("striped",), "dotted": ("dotted", "spotted")}
PATTERN_WORDS = {
    "plain": ("plain {} background", "{} background"),
    "grid": ("{} grid", "{} background with a grid"),
    "lined": ("lined {} background", "{} background with lines"),
    "wavy": ("wavy {} background", "{} background with waves"),
    "grainy": ("grainy {} background", "rough {} background"),
}
NUMBERS = {2: "two", 3: "three"}
OPENINGS = (*("",) * 44, "a picture of ", "a drawing of ", "a photo of ", "there is ")
SEPARATION = 0.1
"""How far apart two groups lie, in picture sides, before a caption names their direction."""


def pairs(seed: int, count: int) -> list[tuple[Scene, str]]:
    """The good pairs of the embedded corpus: training scenes with their captions."""
    rng = Random(seed + 1)
    return [(scene, caption(scene, rng)) for scene in corpus(seed, count)]


def phrase(combination: Combination) -> str:
    """The name of a class of pictures, for example `red star`."""
    return " ".join(combination)


def caption(scene: Scene, rng: Random) -> str:
    """Describe each thing of a scene once, in an order of its own."""
    things = _shuffled(rng, scene.things)
    opening = pick(rng, OPENINGS) if len(things[0].marks) == 1 else ""
    first = opening + _name(rng, things[0])
    relation = _relation(rng, things[0], things[1]) if len(things) > 1 else ""
    if relation and rng.random() < 0.05:
        first += f" {relation} {_name(rng, things[1])}"
        things.pop(1)
    if rng.random() < (0.02 if scene.background.pattern == "plain" else 0.15):
        first += " on a " + _ground(rng, scene.background)
    sentences = [first, *(_sentence(rng, thing, things[0]) for thing in things[1:])]
    return " ".join(sentence[0].upper() + sentence[1:] + "." for sentence in sentences)


def _shuffled(rng: Random, things: tuple[Thing, ...]) -> list[Thing]:
    order = sorted((rng.random(), i) for i in range(len(things)))
    return [things[i] for _, i in order]


def _sentence(rng: Random, thing: Thing, first: Thing) -> str:
    """One more thing of the picture, now and then with the side on which it lies."""
    name = _name(rng, thing)
    one = len(thing.marks) == 1
    choice = rng.random()
    if choice < 0.05:
        return f"there {'is' if one else 'are'} {name}"
    if choice < 0.08:
        return f"{name} as well"
    if choice < 0.11 and one:
        return f"{name} {_place(thing)}"
    side = _relation(rng, thing, first) if choice > 0.97 and len(first.marks) == 1 else ""
    return f"{name} {side} it" if side else name


def _name(rng: Random, thing: Thing) -> str:
    """For example `a small striped red star`, `two dotted blue rings`."""
    words = []
    if thing.size and rng.random() < 0.06:
        words.append(pick(rng, SIZE_WORDS[thing.size]))
    if rng.random() < (0.01 if thing.texture == "plain" else 0.3):
        words.append(pick(rng, TEXTURE_WORDS[thing.texture]))
    words.append(thing.colour)
    count = len(thing.marks)
    if count == 1:
        article = "an" if words[0][0] in "aeiou" else "a"
        return " ".join([article, *words, thing.shape])
    return " ".join([NUMBERS[count], *words, plural(thing.shape)])


def _relation(rng: Random, a: Thing, b: Thing) -> str:
    """Where every mark of `a` lies as seen from every mark of `b`; empty when it is mixed.

    Sides are not told apart, so that a mirrored picture keeps its caption.
    """
    choices: list[str] = []
    if _before(a, b, "x") or _before(b, a, "x"):
        choices += ["beside", "next to"]
    if _before(a, b, "y"):
        choices += ["above", "over"]
    if _before(b, a, "y"):
        choices += ["below", "under"]
    return pick(rng, choices) if choices else ""


def _before(a: Thing, b: Thing, axis: str) -> bool:
    last = max(getattr(mark, axis) for mark in a.marks)
    first = min(getattr(mark, axis) for mark in b.marks)
    return bool(first - last > SEPARATION)


def _place(thing: Thing) -> str:
    (mark,) = thing.marks
    if mark.y < 0.4:
        return "at the top"
    if mark.y > 0.6:
        return "at the bottom"
    return "in the middle" if 0.4 < mark.x < 0.6 else "at the side"


def _ground(rng: Random, ground: Background) -> str:
    return pick(rng, PATTERN_WORDS[ground.pattern]).format(ground.tone)


def queries() -> list[str]:
    """What a search for these pictures would say: shapes, and colours with shapes."""
    pairs_of_words = [phrase((colour, shape)) for colour in COLOURS for shape in SHAPES]
    return [*SHAPES, *pairs_of_words]


def plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")
