"""Reading evaluation sets, and the line that each broken one gives."""

import io

import numpy as np
import pytest
from PIL import Image, features

from eval.prompts import DEFAULT_TEMPLATES
from eval.sets import open_set
from wit.errors import CorpusError, InputError
from wit.image import OPTIONAL, decode

TEMPLATES = "zeroshot_classification_templates.txt"


def test_classification_folder(colour_set):
    data = open_set(colour_set)
    assert (data.name, data.kind, data.classes) == (
        "colours", "classification", ("red", "green", "blue"))  # fmt: skip
    assert data.templates == ("a {c} picture", "all {c}")
    assert [s.key for s in data.samples] == [f"s{i:07d}" for i in range(24)]
    assert [s.label for s in data.samples] == [i % 3 for i in range(24)]
    for sample in data.samples:
        colour = Image.open(io.BytesIO(sample.read())).convert("RGB").getpixel((5, 5))
        assert max(range(3), key=colour.__getitem__) == sample.label


def test_retrieval_folder(caption_set):
    data = open_set(caption_set)
    assert (data.kind, data.classes, data.templates) == ("retrieval", (), ())
    assert [s.captions for s in data.samples] == [
        ("red",), ("green", "all green"), ("blue", "so blue", "a blue")]  # fmt: skip


def test_multilabel_folder(multilabel_set):
    data = open_set(multilabel_set)
    assert (data.kind, data.metric, data.classes) == ("multilabel", "mAP", ("red", "green", "blue"))
    assert [s.labels for s in data.samples][3:] == [(1, 1, 0), (0, 1, 1), (1, -1, 0)]


@pytest.mark.parametrize("array", [[1, 0], [1, 0, 2], [[1, 0, 0]], ["a", "b", "c"]])
def test_multilabel_arrays_that_do_not_fit(multilabel_set, tar, png, array):
    out = io.BytesIO()
    np.save(out, np.array(array))
    tar(multilabel_set / "test" / "0.tar", [("a.png", png("red")), ("a.npy", out.getvalue())])
    with pytest.raises(InputError, match=r"a\.npy must hold 1, 0 or -1 for each of the 3 lines"):
        open_set(multilabel_set)


def test_pickles_in_arrays_are_not_run(multilabel_set, tar, png):
    out = io.BytesIO()
    np.save(out, np.array([print], object), allow_pickle=True)
    tar(multilabel_set / "test" / "0.tar", [("a.png", png("red")), ("a.npy", out.getvalue())])
    with pytest.raises(InputError, match=r"a\.npy is not an array of plain numbers"):
        open_set(multilabel_set)


def test_splits_are_attached(colour_set, tar, png):
    tar(colour_set / "train" / "0.tar", [("a.png", png("red")), ("a.cls", b"0")])
    (colour_set / "train" / "nshards.txt").write_text("1")
    data = open_set(colour_set, also=("train", "val"))
    assert [s.key for s in data.train.samples] == ["a"]
    assert (data.train.split, data.val, len(data.samples)) == ("train", None, 24)
    assert data.train.fingerprint != data.fingerprint
    assert open_set(colour_set).train is None
    with pytest.raises(InputError, match=r"no such split \(there: test, train\)"):
        open_set(colour_set, "valid")


def test_class_folders_in_splits(tmp_path, png):
    for split in ("train", "validation", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            (tmp_path / "pets" / split / name / f"{split}.png").write_bytes(png("red"))
    data = open_set(tmp_path / "pets", also=("train", "val"))
    assert (data.name, data.split, data.classes) == ("pets", "test", ("cat", "dog"))
    assert [data.train.samples[0].key, data.val.samples[1].key] == [
        "cat/train.png", "dog/validation.png"]  # fmt: skip
    with pytest.raises(InputError, match="no such split"):
        open_set(tmp_path / "pets", "dev")
    (tmp_path / "pets" / "train" / "cow").mkdir()
    with pytest.raises(InputError, match="class cow is not in both test and train"):
        open_set(tmp_path / "pets")


def write_csv(folder, text, png):
    for name in ("a", "b", "c"):
        (folder / f"{name}.png").write_bytes(png("red"))
    path = folder / "mine.csv"
    path.write_text(text)
    return path


def test_csv_of_labels(tmp_path, png):
    path = write_csv(
        tmp_path,
        "image,label,split,group\na.png,dog,test,v1\nb.png,cat,test,v1\nc.png,cow,train,v2\n",
        png,
    )
    data = open_set(path, also=("train",))
    assert (data.name, data.classes) == ("mine", ("cat", "cow", "dog"))  # of all splits, by name
    assert [(s.key, s.label, s.meta["group"]) for s in data.samples] == [
        ("a.png", 2, "v1"), ("b.png", 0, "v1")]  # fmt: skip
    assert [s.label for s in data.train.samples] == [1]
    assert data.samples[0].read() == (tmp_path / "a.png").read_bytes()


def test_csv_of_captions_and_of_several_labels(tmp_path, png):
    path = write_csv(tmp_path, 'image,caption\na.png,"one, two"\nb.png,three\na.png,four\n', png)
    data = open_set(path)
    assert (data.kind, [s.captions for s in data.samples]) == (
        "retrieval", [("one, two", "four"), ("three",)])  # fmt: skip
    path = write_csv(tmp_path, "image,labels\na.png,cat|dog\nb.png,\nc.png,cow\n", png)
    data = open_set(path)
    assert (data.kind, data.classes) == ("multilabel", ("cat", "cow", "dog"))
    assert [s.labels for s in data.samples] == [(1, 0, 1), (0, 0, 0), (0, 1, 0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,x\n", "needs the column image and one of label, labels, caption"),
        ("image,label,caption\na.png,x,y\n", "needs the column image and one of"),
        ("image,label\n", "no row below the column names"),
        ("image,label\na.png\n", "line 2 has another number of columns"),
        ("image,label\na.png,\n", "line 2 has an empty image or label"),
        ("image,label\na.png,x\na.png,y\n", r"line 3: image a\.png occurs twice"),
        ("image,label\nz.png,x\n", r"line 2: no image .*z\.png"),
        ("image,label,split\na.png,x,dev\n", r"no row of split test \(there: dev\)"),
    ],
)
def test_broken_csv_names_the_line(tmp_path, png, text, message):
    with pytest.raises(InputError, match=message):
        open_set(write_csv(tmp_path, text, png))


def test_class_folder(class_folder):
    data = open_set(class_folder)
    assert data.classes == ("blue wall", "green wall", "red wall")
    assert data.templates == DEFAULT_TEMPLATES
    assert [s.label for s in data.samples] == [0] * 3 + [1] * 3 + [2] * 3
    assert data.samples[3].key == "green_wall/0.JPG"
    assert data.samples[3].read() == (class_folder / "green_wall" / "0.JPG").read_bytes()


@pytest.mark.parametrize("form", ["AVIF", "GIF", "BMP", "TIFF", "WEBP"])
def test_class_folder_takes_every_format_that_is_decoded(class_folder, png, form):
    if form in OPTIONAL and not features.check(OPTIONAL[form]):
        pytest.skip(f"this Pillow lacks {form}")
    image = class_folder / "red_wall" / f"9.{form.lower()}"
    image.write_bytes(png("red", form=form))
    data = open_set(class_folder)
    assert [s.label for s in data.samples] == [0] * 3 + [1] * 3 + [2] * 4
    red, green, blue = decode(data.samples[-1].read(), 10_000).getpixel((5, 5))
    assert red > max(green, blue)


def test_class_folder_names_what_is_no_image(class_folder):
    other = class_folder / "red_wall" / "notes.txt"
    other.write_text("not a picture")
    with pytest.raises(InputError, match=r"red_wall/notes\.txt: not an image"):
        open_set(class_folder)
    other.unlink()
    (class_folder / "red_wall" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(InputError, match=r"red_wall/gone\.png: can't be read: No such file"):
        open_set(class_folder)


def test_fingerprint_is_of_images_and_labels(colour_set, class_folder, tar, png):
    before = open_set(colour_set).fingerprint
    (colour_set / "zeroshot_classification_templates.txt").write_text("{c}")
    assert open_set(colour_set).fingerprint == before
    tar(colour_set / "test" / "1.tar", [("a.png", png("red")), ("a.cls", b"0")])
    assert open_set(colour_set).fingerprint != before
    before = open_set(class_folder).fingerprint
    (class_folder / "blue_wall" / "0.JPG").write_bytes(png("black", form="JPEG"))
    assert open_set(class_folder).fingerprint != before


def test_several_folders_in_a_key_and_captions_with_blank_lines(caption_set, tar, png):
    tar(
        caption_set / "test" / "0.tar",
        [("x/a.png", png("red")), ("x/a.txt", b"one\n\n two \n"), ("y/a.png", png("red")),
         ("y/a.txt", "drei Stühle".encode())],
    )  # fmt: skip
    data = open_set(caption_set)
    assert [(s.key, s.captions) for s in data.samples] == [
        ("x/a", ("one", "two")), ("y/a", ("drei Stühle",))]  # fmt: skip


def test_webp_comes_before_other_formats(colour_set, tar, png):
    webp = png("red", form="WEBP")
    tar(colour_set / "test" / "0.tar",
        [("a.jpg", png("red", form="JPEG")), ("a.webp", webp), ("a.cls", b"1\n")])  # fmt: skip
    assert open_set(colour_set).samples[0].read() == webp


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("test/nshards.txt", None, "test/nshards.txt: missing"),
        ("test/nshards.txt", "two", "test/nshards.txt: 'two' is not a number of shards"),
        ("test/nshards.txt", "0", "'0' is not a number of shards"),
        ("test/nshards.txt", "3", "test/2.tar: missing, though .*nshards.txt announces 3"),
        ("classnames.txt", None, "classnames.txt: missing; it must list class names"),
        ("classnames.txt", "red\ngreen", r"s0000002.cls is label 2, out of range for the 2 lines"),
        ("classnames.txt", "red\n\nblue", "classnames.txt: line 2 is empty"),
        ("classnames.txt", b"r\xffd", "classnames.txt: not UTF-8"),
        (TEMPLATES, None, "templates.txt: missing"),
        (TEMPLATES, "{c}\na thing", r"line 2 is a template without \{c\}"),
        ("dataset_type.txt", "detection", "type 'detection' is neither"),
        ("dataset_type.txt", "multilabel", "s0000000 has no .npy beside its image"),
        ("test/1.tar", b"not a tar at all", "1.tar: not a sound tar"),
    ],
)  # fmt: skip
def test_broken_folder_names_the_file(colour_set, file, content, message):
    path = colour_set / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((InputError, CorpusError), match=message) as caught:
        open_set(colour_set)
    assert str(colour_set) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.cls", b"0")], "0.tar: sample a has no image"),
        ([("a.png", b"x")], r"0.tar: sample a has no .cls beside its image"),
        ([("a.png", b"x"), ("a.cls", b"zero")], "0.tar: a.cls holds 'zero'"),
        ([("a.png", b"x"), ("a.cls", "²".encode())], "0.tar: a.cls holds '²'"),
        ([("a.png", b"x"), ("a.cls", b"-1")], "0.tar: a.cls is label -1, out of range"),
        ([("a.png", b"x"), ("a.cls", b"\xff\xfe")], "0.tar: a.cls is not UTF-8"),
        ([("a.png", b"x"), ("a.cls", b"0" * 2_000_000)], "a.cls has 2000000 bytes"),
        ([("s0000012.png", b"x"), ("s0000012.cls", b"0")], "key s0000012 occurs twice"),
    ],
)
def test_broken_sample_names_shard_and_key(colour_set, tar, members, message):
    tar(colour_set / "test" / "0.tar", members)
    with pytest.raises(InputError, match=message):
        open_set(colour_set)


def test_set_without_samples(colour_set, tar):
    (colour_set / "test" / "nshards.txt").write_text("1")
    tar(colour_set / "test" / "0.tar", [])
    with pytest.raises(InputError, match="no sample in any shard"):
        open_set(colour_set)


def test_retrieval_sample_without_caption(caption_set, tar):
    tar(caption_set / "test" / "0.tar", [("a.png", b"x"), ("a.txt", b" \n")])
    with pytest.raises(InputError, match=r"a\.txt holds no caption"):
        open_set(caption_set)


def test_truncated_shard(colour_set):
    shard = colour_set / "test" / "1.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(CorpusError, match=r"1\.tar"):
        open_set(colour_set)


def test_paths_that_are_no_set(tmp_path, colour_set, class_folder):
    with pytest.raises(InputError, match="no such evaluation set"):
        open_set(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"neither classnames\.txt nor class sub-folders"):
        open_set(tmp_path / "empty")
    with pytest.raises(InputError, match="no such split"):
        open_set(colour_set, "train")
    (class_folder / "yellow").mkdir()
    with pytest.raises(InputError, match="yellow: a class folder without images"):
        open_set(class_folder)
