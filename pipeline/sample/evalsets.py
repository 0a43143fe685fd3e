"""Evaluation sets of the embedded sample, in the webdataset layout of CLIP_benchmark.

`unseen` asks for the combinations of colour and shape that no training scene holds, `seen` for
as many that training scenes do hold, in new pictures. A picture to classify holds two things, and
exactly one of them is in the class list. The other is a hard negative: a seen combination outside
the list whose colour belongs to other classes of the list, and so does its shape. `swapped` asks
for unseen combinations where only what belongs to what gives the answer. `retrieval` has new
pictures with whole captions.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image

from pipeline.sample.captions import caption, phrase
from pipeline.sample.scenes import HELD_OUT, SEEN, Combination, Scene, diagonal, pick, render, scene

SEEN_CLASSES: tuple[Combination, ...] = tuple(sorted(diagonal(3) + diagonal(4)))
TEMPLATES = ("A {c}.", "There is a {c}.")  # how captions name one thing alone
PICTURES = 432  # of each classification set: 36 of each class
RETRIEVAL_PICTURES = 200
SETS = (
    ("unseen", HELD_OUT, "bag"),
    ("seen", SEEN_CLASSES, "bag"),
    ("swapped", HELD_OUT, "swap"),
)


@dataclass(frozen=True)
class Trial:
    """A picture to classify: its scene and its class."""

    scene: Scene
    label: int


def write_evaluation_sets(folder: Path, seed: int = 1_000_003) -> None:
    """Write `folder`/unseen, `folder`/seen, `folder`/swapped and `folder`/retrieval.

    Deterministic; each tar is written under a temporary name, then renamed.
    """
    for name, classes, arrangement in SETS:
        found = trials(classes, PICTURES, seed, arrangement)
        _write_classification(folder / name, classes, found)
    rng = Random(seed + 1)
    pictures = [scene(rng) for _ in range(RETRIEVAL_PICTURES)]
    _write_set(
        folder / "retrieval",
        ((picture, "txt", caption(picture, rng)) for picture in pictures),
    )
    _write_lines(folder / "retrieval" / "dataset_type.txt", ["retrieval"])


def trials(classes: Sequence[Combination], count: int, seed: int, arrangement: str) -> list[Trial]:
    """`count` pictures to classify, the classes in turn; see `arrange` for the arrangement."""
    rng = Random(seed)
    found = []
    for i in range(count):
        label = i % len(classes)
        combinations = arrange(rng, classes[label], classes, arrangement)
        found.append(Trial(scene(rng, combinations), label))
    return found


def arrange(
    rng: Random, target: Combination, classes: Sequence[Combination], arrangement: str
) -> tuple[Combination, Combination]:
    """The target and one more thing, of another colour and another shape, that is no class.

    - `bag`: the colours and the shapes of the picture, taken together, allow the target alone.
    - `swap`: they allow another class too (put together the other way round, the picture would
      hold it), so only what belongs to what gives the answer.
    """
    colours, shapes = {c for c, _ in classes}, {s for _, s in classes}
    others = [
        (c, s)
        for c, s in SEEN
        if (c, s) not in classes
        and c in colours - {target[0]}
        and s in shapes - {target[1]}
        and (len(allowed({c, target[0]}, {s, target[1]}, classes)) > 1) == (arrangement == "swap")
    ]
    return target, pick(rng, others)


def allowed(
    colours: Collection[str], shapes: Collection[str], classes: Sequence[Combination]
) -> list[Combination]:
    """The classes that a picture of these colours and these shapes may hold."""
    return [(c, s) for c, s in classes if c in colours and s in shapes]


def _write_classification(
    folder: Path, classes: Sequence[Combination], pictures: Sequence[Trial]
) -> None:
    _write_set(folder, ((trial.scene, "cls", str(trial.label)) for trial in pictures))
    _write_lines(folder / "classnames.txt", [phrase(pair) for pair in classes])
    _write_lines(folder / "zeroshot_classification_templates.txt", TEMPLATES)


def _write_set(folder: Path, samples: Iterable[tuple[Scene, str, str]]) -> None:
    """One tar of lossless WebP pictures, each followed by its label or caption."""
    (folder / "test").mkdir(parents=True, exist_ok=True)
    path = folder / "test" / "0.tar"
    temporary = path.with_name("0.tar.tmp")
    with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for i, (picture, extension, text) in enumerate(samples):
            _add(tar, f"s{i:07d}.webp", _webp(render(picture)))
            _add(tar, f"s{i:07d}.{extension}", text.encode())
    temporary.replace(path)
    _write_lines(folder / "test" / "nshards.txt", ["1"])


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, method=0)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # mtime, owner and mode are constants by default
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes("".join(line + "\n" for line in lines).encode())
    temporary.replace(path)
