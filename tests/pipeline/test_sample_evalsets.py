"""The evaluation sets: honest classes, hard negatives, and a layout that peers read."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.sample import evalsets
from pipeline.sample.captions import pairs, phrase
from pipeline.sample.evalsets import (
    PICTURES,
    SEEN_CLASSES,
    SETS,
    Trial,
    allowed,
    trials,
    write_evaluation_sets,
)
from pipeline.sample.scenes import COLOURS, HELD_OUT, SEEN, SHAPES, render


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval")
    write_evaluation_sets(folder)
    return folder


def test_class_lists_have_each_colour_and_each_shape_twice() -> None:
    assert not set(SEEN_CLASSES) & set(HELD_OUT)
    assert set(SEEN_CLASSES) < set(SEEN)
    for _, classes, _ in SETS:
        assert len(set(classes)) == 12
        assert set(Counter(c for c, _ in classes).values()) == {2}
        assert set(Counter(s for _, s in classes).values()) == {2}


@pytest.mark.parametrize(("name", "classes", "arrangement"), SETS)
def test_exactly_one_class_is_in_the_picture(name: str, classes, arrangement: str) -> None:
    for trial in trials(classes, PICTURES, 3, arrangement):
        held = {thing.combination for thing in trial.scene.things}
        assert held & set(classes) == {classes[trial.label]}
        assert held - set(classes) <= set(SEEN)
        assert len(trial.scene.things) == len(held) == 2


@pytest.mark.parametrize(("name", "classes", "arrangement"), SETS)
def test_neither_colours_nor_shapes_give_the_answer(name: str, classes, arrangement: str) -> None:
    """Not even to a judge that knows every colour, or every shape, of the picture for sure; in
    swapped pictures not even both together do."""
    for trial in trials(classes, PICTURES, 3, arrangement):
        colours = {thing.colour for thing in trial.scene.things}
        shapes = {thing.shape for thing in trial.scene.things}
        assert len(allowed(colours, SHAPES, classes)) == 4
        assert len(allowed(COLOURS, shapes, classes)) == 4
        both = allowed(colours, shapes, classes)
        assert classes[trial.label] in both
        assert (len(both) > 1) == (name == "swapped")


@pytest.mark.parametrize(("name", "classes", "arrangement"), SETS)
def test_a_classifier_of_colour_histograms_fails(name: str, classes, arrangement: str) -> None:
    """Nearest class mean over the share of pixels near each colour, fitted on other pictures of
    the set: an upper bound, for zero-shot has no such pictures to learn from."""

    def features(seed: int) -> tuple[np.ndarray, np.ndarray]:
        found = trials(classes, PICTURES // 2, seed, arrangement)
        labels = np.array([trial.label for trial in found])
        return np.array([_colour_shares(trial) for trial in found]), labels

    known, known_labels = features(seed=4)
    asked, labels = features(seed=5)
    means = np.array([known[known_labels == k].mean(axis=0) for k in range(len(classes))])
    nearest = ((asked[:, None] - means[None]) ** 2).sum(axis=2).argmin(axis=1)
    accuracy = (nearest == labels).mean()
    assert 1 / len(classes) < accuracy < 0.45


def _colour_shares(trial: Trial) -> np.ndarray:
    pixels = np.asarray(render(trial.scene))[::2, ::2].reshape(-1, 3).astype(float)
    names = np.array(list(COLOURS.values()), dtype=float)
    distance = ((pixels[:, None] - names[None]) ** 2).sum(axis=2)
    close = distance.min(axis=1) < 60**2
    counts = np.bincount(distance[close].argmin(axis=1), minlength=len(names))
    return np.sqrt(counts / len(pixels))


@pytest.mark.parametrize(("name", "classes", "arrangement"), SETS)
def test_classification_folders_are_as_peers_read_them(
    written: Path, name: str, classes, arrangement: str
) -> None:
    folder = written / name
    names = (folder / "classnames.txt").read_text().splitlines()
    assert names == [phrase(pair) for pair in classes]
    templates = (folder / "zeroshot_classification_templates.txt").read_text().splitlines()
    assert len(templates) > 1
    assert all(template.count("{c}") == 1 for template in templates)
    assert (folder / "test" / "nshards.txt").read_text() == "1\n"
    with tarfile.open(folder / "test" / "0.tar") as tar:
        members = tar.getnames()
        assert members[:4] == ["s0000000.webp", "s0000000.cls", "s0000001.webp", "s0000001.cls"]
        assert len(members) == 2 * PICTURES
        labels = [_read(tar, member) for member in members[1::2]]
        assert set(Counter(map(int, labels)).values()) == {PICTURES // 12}
        image = Image.open(io.BytesIO(_read(tar, members[0])))
        expected = render(trials(classes, 1, 1_000_003, arrangement)[0].scene)
        assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_retrieval_pictures_are_new(written: Path) -> None:
    training = {render(picture).tobytes() for picture, _ in pairs(0, 1000)}
    with tarfile.open(written / "retrieval" / "test" / "0.tar") as tar:
        members = tar.getnames()
        assert len(members) == 400
        for member in members[::2]:
            with Image.open(io.BytesIO(_read(tar, member))) as image:
                assert image.convert("RGB").tobytes() not in training
        captions = [_read(tar, member).decode() for member in members[1::2]]
    assert (written / "retrieval" / "dataset_type.txt").read_text() == "retrieval\n"
    assert all("\n" not in caption for caption in captions)
    assert len(set(captions)) > 150


def test_writing_again_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evalsets, "PICTURES", 36)
    monkeypatch.setattr(evalsets, "RETRIEVAL_PICTURES", 20)
    for name in ("one", "two"):
        write_evaluation_sets(tmp_path / name)
    assert _digests(tmp_path / "one") == _digests(tmp_path / "two")
    assert not list(tmp_path.rglob("*.tmp"))


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()
