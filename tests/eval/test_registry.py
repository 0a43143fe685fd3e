"""The registry against the paper's table 9 and other copies of the prompts; sets that differ."""

import importlib.util
from pathlib import Path

import pytest

from eval.registry import apply, find, read
from eval.sets import open_set
from eval.sets_command import SetsConfig, listing
from wit.errors import InputError

# Classes, test images, metric and prompts, as table 9 and the published prompts have them.
PAPER = {
    "food101": (101, 25250, "top-1", 1), "cifar10": (10, 10000, "top-1", 18),
    "cifar100": (100, 10000, "top-1", 18), "birdsnap": (500, 2149, "top-1", 1),
    "sun397": (397, 19850, "top-1", 2), "cars": (196, 8041, "top-1", 8),
    "aircraft": (100, 3333, "mean per class", 2), "voc2007": (20, 4952, "11-point mAP", 1),
    "dtd": (47, 1880, "top-1", 8), "pets": (37, 3669, "mean per class", 1),
    "caltech101": (102, 6085, "mean per class", 34),
    "flowers102": (102, 6149, "mean per class", 1), "mnist": (10, 10000, "top-1", 1),
    "fer2013": (7, 3574, "top-1", 6), "stl10": (10, 8000, "top-1", 2),
    "eurosat": (10, 5000, "top-1", 3), "resisc45": (45, 25200, "top-1", 18),
    "gtsrb": (43, 12630, "top-1", 3), "kitti": (4, 711, "top-1", 1),
    "country211": (211, 21100, "top-1", 5), "pcam": (2, 32768, "top-1", 1),
    "ucf101": (101, 1794, "top-1", 48),
    "kinetics700": (700, 31669, "mean of top-1 and top-5", 28), "clevr": (8, 500, "top-1", 1),
    "hatefulmemes": (2, 500, "ROC AUC", 1), "sst2": (2, 1821, "top-1", 1),
    "imagenet": (1000, 50000, "top-1", 80),
}  # fmt: skip
SHIFTS = ["imagenetv2", "imagenet-sketch", "imagenet-vid", "ytbb", "objectnet", "imagenet-a",
          "imagenet-r"]  # fmt: skip


def test_the_papers_sets_are_all_there():
    known = read()
    groups = {}
    for name, entry in known.entries.items():
        groups.setdefault(entry.group, []).append(name)
    assert groups == {"paper": list(PAPER), "shift": SHIFTS, "retrieval": ["flickr30k", "mscoco"]}
    for name, expected in PAPER.items():
        entry = known.entries[name]
        templates = known.templates(name)
        assert (entry.classes, entry.test, entry.metric, len(templates)) == expected, name
        assert len(set(templates)) == len(templates)
        assert all("{c}" in template for template in templates)
        assert len(known.names(name)) == entry.classes
    assert all(known.templates(name) == known.templates("imagenet") for name in SHIFTS)


def test_imagenet_is_open_clips():
    spec = importlib.util.find_spec("open_clip")
    path = Path(spec.submodule_search_locations[0]) / "zero_shot_metadata.py"
    module_spec = importlib.util.spec_from_file_location("zero_shot_metadata", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    known = read()
    theirs = [template("{c}") for template in module.OPENAI_IMAGENET_TEMPLATES]
    assert list(known.templates("imagenet")) == theirs
    assert [names for (names,) in known.names("imagenet")] == list(module.IMAGENET_CLASSNAMES)


@pytest.mark.parametrize(
    ("folder", "entry"),
    [
        ("wds_vtab-caltech101", "caltech101"), ("wds_cars_test", "cars"),
        ("wds_fgvc_aircraft", "aircraft"), ("wds_voc2007_multilabel", "voc2007"),
        ("wds_vtab-clevr_count_all", "clevr"), ("wds_imagenet1k", "imagenet"),
        ("wds_imagenet-a", "imagenet-a"), ("wds_vtab-flowers", "flowers102"),
        ("ImageNet_V2", "imagenetv2"), ("wds_mscoco_captions", "mscoco"), ("flowers", None),
        ("test", None), ("wds_", None),
    ],
)  # fmt: skip
def test_names_of_the_community_are_known(folder, entry):
    assert read().match(folder) == entry


SMALL = """
[colours]
title = "Colours"
classes = 3
train = 5
test = 24
metric = "mean per class"
names = "names.txt"
templates = ["{c}!", "so {c}"]
"""


@pytest.fixture
def small(tmp_path):
    """A registry with one entry, for the set `colours`, its classes in another order."""
    (tmp_path / "names.txt").write_text("Blue | azure\nRED\ngreen\n")
    path = tmp_path / "sets.toml"
    path.write_text(SMALL)
    return path


def test_classes_are_found_by_name(colour_set, small):
    data = apply(read(small), open_set(colour_set))
    assert data.classes == ("red", "green", "blue")  # the labels stand
    assert data.names == (("RED",), ("green",), ("Blue", "azure"))
    assert (data.templates, data.metric, data.entry) == (
        ("{c}!", "so {c}"), "mean per class", "colours")  # fmt: skip


def test_sets_of_other_names_are_left_alone(class_folder, small):
    data = open_set(class_folder)
    assert apply(read(small), data) is data


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("sets.toml", "classes = 3", "classes = 4", "Colours has 4 classes, and this has 3"),
        ("sets.toml", "test = 24", "test = 25", "has 25 images to evaluate, and split test has 24"),
        ("sets.toml", "train = 5\ntest = 24", "train = 24\ntest = 9", "24, which is its train"),
        ("sets.toml", 'title = "Colours"', 'title = "C"\nkind = "retrieval"', "is a retrieval set"),
        ("names.txt", "green", "grey", r"has no class 'green' \(nearest: grey\)"),
        ("names.txt", "RED\ngreen", "tan\ngrey", "has no class 'red' .* and 1 more"),
    ],
)
def test_a_set_that_differs_says_how(colour_set, small, file, old, new, message):
    path = small.parent / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=message) as caught:
        apply(read(small), open_set(colour_set))
    assert "--protocol own" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_that_occurs_twice(colour_set, small):
    (colour_set / "classnames.txt").write_text("red\nred\nblue")
    with pytest.raises(InputError, match="has class 'RED' once, and this has it twice"):
        apply(read(small), open_set(colour_set))


def test_train_and_validation_count_together(colour_set, small, tar, png):
    for split, keys in (("train", "abc"), ("val", "de")):
        members = [m for k in keys for m in ((f"{k}.png", png("red")), (f"{k}.cls", b"0"))]
        tar(colour_set / split / "0.tar", members)
        (colour_set / split / "nshards.txt").write_text("1")
    assert apply(read(small), open_set(colour_set, also=("train", "val"))).val is not None
    small.write_text(SMALL.replace("train = 5", "train = 6"))
    with pytest.raises(InputError, match="has 6 images to train on, and train and validation have"):
        apply(read(small), open_set(colour_set, also=("train", "val")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a", "not valid TOML"),
        ("[a]\nclasses = 3", "a: title is missing"),
        ('[a]\ntitle = "A"\nclases = 3', "a: unknown key clases; did you mean classes"),
        ('[a]\ntitle = "A"\nmetric = "top1"', "a: metric = 'top1' is not one of .*top-1"),
        ('[a]\ntitle = "A"\ntemplates_of = "b"', "a: templates_of names no entry: b"),
    ],
)
def test_broken_registries(tmp_path, text, message):
    path = tmp_path / "sets.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read(path)
    with pytest.raises(InputError, match="check --registry"):
        read(tmp_path / "absent.toml")


def test_listing(colour_set, small):
    rows = listing(SetsConfig(folder=colour_set.parent, registry=small, check=True))
    (row,) = rows
    assert (row["path"], row["state"]) == (str(colour_set), "as published")
    assert (row["templates"], row["splits"]) == (2, ["test"])
    small.write_text(SMALL.replace("test = 24", "test = 25"))
    (row,) = listing(SetsConfig(folder=colour_set.parent, registry=small, check=True))
    assert "has 25 images to evaluate" in row["state"]
    rows = listing(SetsConfig(folder=colour_set.parent / "nowhere"))
    assert {row["state"] for row in rows} == {"missing"}
    assert len(rows) == 27 + 7 + 2


def test_a_link_has_the_name_it_was_given(colour_set, small, tmp_path):
    (tmp_path / "sets").mkdir()
    linked = tmp_path / "sets" / "wds_colours_test"
    linked.symlink_to(colour_set.rename(tmp_path / "elsewhere"))
    known = read(small)
    assert find(known, tmp_path / "sets") == {"colours": linked}
    assert apply(known, open_set(linked)).entry == "colours"


def test_two_sets_of_one_name(colour_set, small):
    colour_set.rename(colour_set.with_name("wds_colours"))
    colour_set.mkdir()
    with pytest.raises(InputError, match="is colours too; move one of them away"):
        find(read(small), colour_set.parent)
