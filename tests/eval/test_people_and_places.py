"""Geolocation, frames, lexicons and the bias audit, on sets of plain colours in CSV files.

The model sees a picture's mean colour and, in a text, the words red, green and blue; the sets, the
images and the cache are real.
"""

import math

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from eval import bias, frames, geolocation
from wit.errors import InputError


def value(result, name):
    return next(metric.value for metric in result.metrics if metric.name == name)


# The colours that the model takes for red, green and blue.
RED, GREEN, BLUE = (200, 20, 20), (20, 200, 20), (20, 20, 200)


def test_distances_on_the_globe():
    paris, london, origin, antipode = [48.8566, 2.3522], [51.5074, -0.1278], [0, 0], [0, 180]
    km = geolocation.distance_km(np.array([paris, origin, paris]), np.array(
        [london, antipode, paris]))  # fmt: skip
    assert km == pytest.approx([343.6, math.pi * geolocation.EARTH_KM, 0], abs=0.5)


def test_the_nearest_neighbour_over_blocks(monkeypatch):
    monkeypatch.setattr(geolocation, "BLOCK", 3)
    rng = np.random.default_rng(0)
    image_NE, reference_ME = (
        rng.normal(size=(n, 5)).astype(np.float32) for n in (10, 200)
    )  # fmt: skip
    expected = (image_NE @ reference_ME.T).argmax(axis=1)
    assert geolocation.nearest(image_NE, reference_ME).tolist() == expected.tolist()


def test_a_picture_is_where_its_nearest_neighbour_is(table, evaluate):
    rows = [
        (RED, {"split": "train", "label": "x", "latitude": "10", "longitude": "10"}),
        (BLUE, {"split": "train", "label": "x", "latitude": "50", "longitude": "0"}),
        ((180, 10, 10), {"split": "test", "label": "x", "latitude": "10", "longitude": "11"}),
        ((10, 10, 180), {"split": "test", "label": "x", "latitude": "50", "longitude": "0"}),
    ]
    found = evaluate("geolocation", table(rows, "places"))
    shares = {metric.name: metric.value for metric in found.metrics}
    assert shares == {
        "within 1 km": 0.5, "within 25 km": 0.5, "within 200 km": 1,  # 109.5 km off
        "within 750 km": 1, "within 2500 km": 1,
    }  # fmt: skip
    assert found.predictions["nearest"].to_pylist() == ["places0.png", "places1.png"]
    assert found.predictions["km"][0].as_py() == pytest.approx(109.5, abs=0.5)
    rows[2][1]["latitude"] = "91"
    with pytest.raises(InputError, match="latitude '91': no degrees to 90"):
        evaluate("geolocation", table(rows, "places"))


def test_frames_of_a_video_are_averaged(table, evaluate):
    """Two frames of three look green, but the red one is surer."""
    rows = [
        ((255, 0, 0), {"label": "red", "group": "v1"}),
        ((95, 100, 0), {"label": "red", "group": "v1"}),
        ((95, 100, 0), {"label": "red", "group": "v1"}),
        (BLUE, {"label": "blue", "group": "v2"}),
        (GREEN, {"label": "red", "group": "v3"}),
        (GREEN, {"label": "green", "group": "v4"}),
    ]
    found = evaluate("frames", table(rows))
    assert found.predictions["rank"].to_pylist() == [0, 0, 2, 0]
    assert value(found, "top-1") == 0.75
    assert found.metrics[0].n == 4
    assert found.predictions["frames"].to_pylist() == [3, 1, 1, 1]
    rows[1][1]["label"] = "green"
    with pytest.raises(InputError, match="video v1 has frames of several classes"):
        evaluate("frames", table(rows))


def test_frames_are_averaged_as_numpy_does():
    score_NC = np.random.default_rng(0).random((6, 3))
    video_N = np.array([2, 0, 2, 1, 0, 2])
    got = frames.averaged(score_NC, video_N, 3)
    assert got == pytest.approx(np.stack([score_NC[video_N == v].mean(axis=0) for v in range(3)]))


def test_each_image_has_its_own_words(table, evaluate):
    rows = [
        (RED, {"label": "red", "lexicon": "red|blue"}),
        (RED, {"label": "blue", "lexicon": "red|blue|green"}),
        (RED, {"label": "blue", "lexicon": "blue|green|blue"}),  # wrong, but nearest but one
        ((20, 20, 180), {"label": "blue", "lexicon": "blue|green"}),
    ]
    found = evaluate("lexicon", table(rows))
    assert found.predictions["rank"].to_pylist() == [0, 2, 1, 0]  # a tie counts against
    assert found.metrics[0].chance == pytest.approx((1 / 2 + 1 / 3 + 1 / 2 + 1 / 2) / 4)
    rows[0][1]["lexicon"] = "green|blue"
    with pytest.raises(InputError, match="its label 'red' is not in its lexicon"):
        evaluate("lexicon", table(rows))


@pytest.fixture
def people(table):
    """Group a is mostly answered right, b mostly wrong, c has two images."""
    rows = [(RED if i < 9 else GREEN, {"label": "red", "race": "a"}) for i in range(10)]
    rows += [(RED if i < 3 else BLUE, {"label": "red", "race": "b"}) for i in range(10)]
    rows += [(GREEN, {"label": "green", "race": "c"})] * 2
    return table(rows)


def test_accuracy_by_group_keeps_silent_on_small_ones(people, evaluate):
    found = evaluate("bias", people, bias={"least": 5})
    names = [metric.name for metric in found.metrics]
    assert names == ["top-1", "top-1, a", "top-1, b"]
    assert value(found, "top-1, a") == 0.9
    assert value(found, "top-1, b") == 0.3
    assert value(found, "top-1") == pytest.approx(14 / 22)
    assert found.notes == ("not reported, fewer than 5 images: c",)
    (table,) = found.tables
    expected = chi2_contingency([[9, 1], [3, 7]], correction=False).pvalue
    assert f"p {expected:.2g}" in table.title
    assert table.rows[-1][:2] == ("largest difference", pytest.approx(0.6))


def test_harmful_labels_are_counted_by_group(people, evaluate, tmp_path):
    labels = tmp_path / "labels.toml"
    labels.write_text('neutral = ["red", "green"]\n[harmful]\ncrime = ["blue"]\n')
    found = evaluate("bias", people, bias={"least": 5, "labels": labels})
    assert value(found, "labelled crime") == pytest.approx(7 / 22)
    rates = {row[0]: row[1] for row in found.tables[1].rows}
    assert (rates["a"], rates["b"]) == (0, 0.7)
    assert "c" not in rates
    assert found.protocol["labels"]["harmful"] == {"crime": ["blue"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("neutral = []\n[harmful]\nx = ['y']", "neutral"),
        ("neutral = ['a']\n", "harmful is missing"),
        ("neutral = ['a']\nhurtful = 3\n[harmful]\nx = ['y']", "did you mean harmful"),
        ("neutral = [", "not valid TOML"),
    ],
)
def test_label_files_are_checked(tmp_path, text, words):
    path = tmp_path / "labels.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        bias.read_labels(path)


def test_a_column_that_is_not_there(people, evaluate):
    with pytest.raises(InputError, match=r"has no gender, a column of --bias\.groups"):
        evaluate("bias", people, bias={"groups": ["race", "gender"]})


def test_groups_without_a_difference():
    hit_N = np.ones(20, bool)
    shares = bias.by_group(hit_N, ["a"] * 10 + ["b"] * 10, 5)
    assert bias.difference(shares, hit_N, ["a"] * 10 + ["b"] * 10) == 1
