"""From a set on disk to numbers, with a model whose answers are known.

The model sees a picture's mean colour and, in a text, the words red, green and blue. Its
tokenizer, the sets, the images and the cache are real.
"""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from sklearn.metrics import average_precision_score, roc_auc_score

from eval import report, task
from eval.config import EvalConfig
from eval.features import Encoder
from eval.sets import open_set
from eval.stats import wilson
from eval.zeroshot import best_renaming
from wit.errors import CheckpointError, InputError, TooManyBadSamples
from wit.image import to_square
from wit.tokenizer import Tokenizer

WORDS = ("red", "green", "blue")


class ColourModel:
    image_size = 8
    device = torch.device("cpu")
    logit_scale = 10.0

    def __init__(self, fingerprint="colours"):
        self.fingerprint = fingerprint
        self.tokenizer = Tokenizer.train(["red green blue"] * 9, 600)
        self.meaning_V3 = torch.zeros(self.tokenizer.vocab_size, 3)
        for i, word in enumerate(WORDS):
            (token,) = self.tokenizer.ids([word])[0]
            self.meaning_V3[token, i] = 2.0
        self.batches = []

    def preprocess(self, image):
        return to_square(image, self.image_size).transpose(2, 0, 1)

    def tokenize(self, texts):
        return torch.from_numpy(self.tokenizer.encode(texts, 12))

    def image_features(self, img_BCHW):
        assert img_BCHW.dtype == torch.uint8
        self.batches.append(len(img_BCHW))
        pre_BD = img_BCHW.float().mean(dim=(2, 3))
        return pre_BD, pre_BD / 50

    def encode_text(self, tokens_BL):
        self.batches.append(len(tokens_BL))
        return self.meaning_V3[tokens_BL].sum(dim=1) + 0.01


@pytest.fixture
def model():
    return ColourModel()


@pytest.fixture
def measure(tmp_path):
    def run(path, model, *, max_bad=0, batch_size=5):
        config = EvalConfig(set=[path], max_bad=max_bad, resamples=200)
        encoder = Encoder(model, tmp_path / "cache", batch_size, config.max_pixels, max_bad)
        data = open_set(path)
        (name,) = task.chosen(data.kind, ())
        return task.evaluate(name, data, encoder, config, {"fingerprint": model.fingerprint})

    return run


def values(result):
    return {metric.name: metric.value for metric in result.metrics}


def test_classification(colour_set, model, measure, tar, png):
    tar(colour_set / "test" / "1.tar", [  # the last two are labelled wrongly
        ("x0.png", png("red")), ("x0.cls", b"0"), ("x1.png", png("red")), ("x1.cls", b"1"),
        ("x2.png", png("blue")), ("x2.cls", b"1")])  # fmt: skip
    result = measure(colour_set, model)
    assert values(result) == {"top-1": 13 / 15, "mean per class": (1 + 4 / 6 + 1) / 3}
    top = result.metrics[0]
    assert top.interval == wilson(13, 15)
    assert (top.n, top.chance) == (15, 1 / 3)
    table = result.predictions.to_pydict()
    assert table["key"][-3:] == ["x0", "x1", "x2"]
    assert table["label"][-3:] == [0, 1, 1]
    assert table["predicted"][-3:] == [0, 0, 2]
    assert [rank == 0 for rank in table["rank"]] == [True] * 13 + [False] * 2
    assert report.last_line([result]) == "zero-shot top-1 86.7% (chance 33.3%)"


def test_multilabel(multilabel_set, model, measure):
    result = measure(multilabel_set, model)
    assert list(values(result)) == ["11-point mAP", "mAP"]
    table = result.predictions.to_pydict()
    assert table["truth"][3:] == [[1, 1, 0], [0, 1, 1], [1, -1, 0]]
    np.testing.assert_allclose(np.sum(table["score"], axis=1), 1)
    expected = [
        average_precision_score([t[c] for t in table["truth"] if t[c] >= 0],
                                [s[c] for t, s in zip(table["truth"], table["score"], strict=True)
                                 if t[c] >= 0])
        for c in range(3)
    ]  # fmt: skip
    assert values(result)["mAP"] == pytest.approx(np.mean(expected))
    assert result.main_metric.name == "mAP"


def test_what_can_not_be_measured_says_so(multilabel_set, model, measure, tar, png, colour_set):
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    tar(multilabel_set / "test" / "0.tar", [("a.png", png("red")), ("a.npy", out.getvalue())])
    with pytest.raises(InputError, match="several: no image shows any class"):
        measure(multilabel_set, model)
    (colour_set / "classnames.txt").write_text("red\ngreen")
    (colour_set / "test" / "nshards.txt").write_text("1")
    tar(colour_set / "test" / "0.tar", [("a.png", png("red")), ("a.cls", b"0")])
    assert list(values(measure(colour_set, model))) == ["top-1", "mean per class"]  # no ROC AUC


def test_two_classes_have_a_roc_auc(colour_set, model, measure, tar, png):
    (colour_set / "classnames.txt").write_text("red\ngreen")
    (colour_set / "test" / "nshards.txt").write_text("1")
    members = []
    for i in range(8):
        members += [(f"{i}.png", png((200, 25 * i, 0))),
                    (f"{i}.cls", b"1" if i in (3, 6, 7) else b"0")]  # fmt: skip
    tar(colour_set / "test" / "0.tar", members)
    result = measure(colour_set, model)
    table = result.predictions.to_pydict()
    expected = roc_auc_score(table["label"], table["positive"])
    assert values(result)["ROC AUC"] == pytest.approx(expected)
    assert expected == pytest.approx(13 / 15)


def test_labels_in_another_order_are_suspected(colour_set, model, measure):
    (colour_set / "classnames.txt").write_text("green\nblue\nred")
    result = measure(colour_set, model)  # 24 images are too few to say so
    assert (values(result)["top-1"], result.notes) == (0.0, ())
    assert best_renaming(np.array([0, 1, 2, 2]), np.array([1, 2, 0, 1]), 3) == (0.0, 0.75)


def test_labels_in_another_order_are_reported(colour_set, model, measure, tar, png):
    colours = [(230, 20, 20), (20, 200, 20), (20, 20, 230)]
    tar(colour_set / "test" / "1.tar", [member for i in range(12) for member in (
        (f"x{i}.png", png(colours[i % 3])), (f"x{i}.cls", str(i % 3).encode()))])  # fmt: skip
    tar(colour_set / "test" / "0.tar", [member for i in range(18) for member in (
        (f"y{i}.png", png(colours[i % 3])), (f"y{i}.cls", str(i % 3).encode()))])  # fmt: skip
    (colour_set / "classnames.txt").write_text("green\nblue\nred")
    (note,) = measure(colour_set, model).notes
    assert "top-1 is 0.0%, and with the names in another order it would be 100.0%" in note


def test_groups_are_drawn_whole(class_folder, model, measure, tmp_path):
    """Nine pictures of three videos: the interval is that of three."""
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name[:-5]},{path.parent.name}"
            for path in sorted(class_folder.glob("*/*.JPG"))]  # fmt: skip
    path = tmp_path / "videos.csv"
    path.write_text("image,label,group\n" + "\n".join(rows) + "\n")
    top = measure(path, model).metrics[0]
    assert (top.value, top.n, top.interval) == (
        1.0, 9, wilson(3, 3)._replace(method="wilson over clusters"))  # fmt: skip


def test_prompts_are_compared(colour_set, model, measure):
    (colour_set / "zeroshot_classification_templates.txt").write_text("{c}\ngreen {c}\n")
    table, spread, each = measure(colour_set, model).tables
    assert table.columns == ("prompt", "top-1 %", "low %", "high %")
    assert [row[0] for row in table.rows] == [
        "class name only", "a photo of a {c}.", "ensemble of 2"]  # fmt: skip
    assert (table.rows[0][1], table.rows[0][2]) == (1.0, wilson(24, 24).low)
    assert {row[0]: row[1] for row in each.rows}["{c}"] == 1.0
    assert spread.rows[2] == ("best template", 1.0)


def test_class_folder(class_folder, model, measure):
    result = measure(class_folder, model)
    assert values(result)["top-1"] == 1.0
    assert result.protocol["templates"][0] == "a photo of a {c}."


def test_classes_without_images_are_said(colour_set, model, measure):
    (colour_set / "classnames.txt").write_text("red\ngreen\nblue\nclear\n\n")
    result = measure(colour_set, model)
    assert values(result) == {"top-1": 1.0, "mean per class": 1.0}
    assert result.notes == ("1 of 4 classes have no image",)


def test_retrieval(caption_set, model, measure):
    """'so blue', 'blue' and 'a blue' are one direction; nothing ties with a foreign text."""
    result = measure(caption_set, model)
    got = values(result)
    assert got["image to text R@1"] == got["text to image R@1"] == 1.0
    one = {metric.name: metric for metric in result.metrics}
    assert one["image to text R@1"].chance == pytest.approx((1 / 6 + 2 / 6 + 3 / 6) / 3)
    assert one["text to image R@1"].chance == pytest.approx(1 / 3)
    assert (one["image to text R@1"].n, one["text to image R@1"].n) == (3, 6)
    assert one["text to image R@5"].chance == 1.0
    table = result.predictions.to_pydict()
    assert table["direction"] == ["image to text"] * 3 + ["text to image"] * 6
    assert table["query"][3:6] == ["s0000000#0", "s0000001#0", "s0000001#1"]
    first = [found[0] for found in table["found"][3:]]
    assert first == ["s0000000"] + ["s0000001"] * 2 + ["s0000002"] * 3


def test_swapped_captions_are_found_out(caption_set, model, measure, tar, png):
    tar(caption_set / "test" / "0.tar", [
        ("a.png", png("red")), ("a.txt", b"blue\nred"),
        ("b.png", png("blue")), ("b.txt", b"red")])  # fmt: skip
    got = values(measure(caption_set, model))
    assert got["image to text R@1"] == 0.0  # a: its own 'red' ties with b's; b: 'blue' is a's
    assert got["text to image R@1"] == pytest.approx(1 / 3)


def test_second_evaluation_encodes_nothing(colour_set, model, measure):
    first = measure(colour_set, model)
    assert model.batches == [5, 5, 5, 5, 4, 5, 5, 2]  # 24 images, 3 classes x (2 + 2) prompts
    model.batches.clear()
    second = measure(colour_set, model)
    assert model.batches == []
    assert second.as_json() == first.as_json()
    assert second.predictions.equals(first.predictions)


def test_what_the_cache_depends_on(colour_set, measure, tar, png):
    model = ColourModel()
    first = measure(colour_set, model)
    (colour_set / "zeroshot_classification_templates.txt").write_text("{c}")
    model.batches.clear()
    second = measure(colour_set, model)
    assert sum(model.batches) == 3 * 2  # other prompts: the images stand
    assert second.as_json()["protocol_hash"] != first.as_json()["protocol_hash"]
    other = ColourModel("another checkpoint")
    measure(colour_set, other)
    assert sum(other.batches) == 24 + 3 * 2
    tar(colour_set / "test" / "1.tar", [("a.png", png("red")), ("a.cls", b"0")])
    model.batches.clear()
    measure(colour_set, model)
    assert sum(model.batches) == 13  # other images: the prompts stand


def test_batch_size_changes_nothing(colour_set, caption_set, tmp_path, measure):
    for path in (colour_set, caption_set):
        one = measure(path, ColourModel("one"), batch_size=1)
        all_ = measure(path, ColourModel("all"), batch_size=64)
        assert values(one) == values(all_)


def test_a_half_written_cache_is_not_read(colour_set, model, measure, tmp_path):
    measure(colour_set, model)
    folders = [path for path in (tmp_path / "cache").iterdir() if (path / "post.npy").exists()]
    (folder,) = folders
    torn = folder.rename(folder.with_name(folder.name + ".tmp"))
    (torn / "post.npy").write_bytes(b"torn")
    assert values(measure(colour_set, model))["top-1"] == 1.0
    assert not torn.exists()


def test_bad_images_are_counted_and_bounded(colour_set, model, measure, tar, png):
    tar(colour_set / "test" / "1.tar", [
        ("ok.png", png("red")), ("ok.cls", b"0"),
        ("cut.png", png("red", size=(400, 400))[:200]), ("cut.cls", b"0"),
        ("page.jpg", b"<html>gone</html>"), ("page.cls", b"1")])  # fmt: skip
    with pytest.raises(
        TooManyBadSamples, match=r"1\.tar: image cut is unusable \(truncated_image\)"
    ):
        measure(colour_set, model)
    result = measure(colour_set, model, max_bad=2)
    assert [(bad.key, bad.reason) for bad in result.bad] == [
        ("cut", "truncated_image"), ("page", "not_an_image")]  # fmt: skip
    assert result.metrics[0].n == 13
    assert result.predictions["key"].to_pylist()[-1] == "ok"
    with pytest.raises(TooManyBadSamples, match="more than 1"):
        measure(colour_set, model, max_bad=1)  # from the cache, under a tighter bound


def test_features_that_are_not_finite_are_refused(colour_set, model, measure):
    model.meaning_V3[:] = torch.nan
    with pytest.raises(CheckpointError, match="features of texts are not finite"):
        measure(colour_set, model)


def test_saved_results(colour_set, caption_set, model, measure, tmp_path):
    results = [measure(path, model) for path in (caption_set, colour_set)]
    out = tmp_path / "results"
    for result in results:
        report.save(result, out)
    assert sorted(path.name for path in out.iterdir()) == [
        "captions-retrieval.json", "captions-retrieval.parquet",
        "colours-zeroshot.json", "colours-zeroshot.parquet"]  # fmt: skip
    kept = json.loads((out / "colours-zeroshot.json").read_text())
    assert kept["metrics"]["top-1"] == {
        "value": 1.0, "interval_95": list(wilson(24, 24)[:2]), "interval_method": "wilson",
        "n": 24, "chance": 1 / 3}  # fmt: skip
    assert kept["model"] == {"fingerprint": "colours"}
    assert kept["protocol"]["data"] == open_set(colour_set).fingerprint
    rows = pq.read_table(out / "colours-zeroshot.parquet")
    assert np.mean(np.array(rows["rank"]) == 0) == kept["metrics"]["top-1"]["value"]
    console = Console(width=100, record=True)
    report.print_table(results, console)
    text = console.export_text()
    assert "86.2 – 100.0" in text  # Wilson's interval of 24 in 24
    assert "text to image R@10" in text
    assert report.last_line(results) == "zero-shot top-1 100.0% (chance 33.3%)"
    assert report.last_line(results[:1]) is None
