"""The classifier and its ranks against plain loops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eval import zeroshot
from eval.prompts import fill
from eval.zeroshot import TIE, chance_at, class_features, classify, prompt_features


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def encoder(dim=8):
    """Texts to fixed random unit vectors, and the list of the batches that were asked for."""
    batches = []

    def encode(texts):
        batches.append(list(texts))
        seeds = [[ord(letter) for letter in text] for text in texts]
        return unit(np.stack([np.random.default_rng(seed).normal(size=dim) for seed in seeds]))

    return encode, batches


def test_class_features_are_the_normalised_mean_of_normalised_prompts():
    names = [f"thing {i}" for i in range(11)]
    owner_K = np.array([0, 1, 1, 1, 2, 3, 4, 5, 6, 7, 7])  # two classes of several names
    templates = ["a photo of a {c}.", "{c}", "a {c} beside a {c}"]
    encode, batches = encoder()
    got_CE = class_features(prompt_features(encode, names, templates), owner_K)
    assert batches == [[p for name in names for p in fill(templates, name)]]  # all at once
    for c in range(8):
        prompts = [p for name, o in zip(names, owner_K, strict=True) if o == c
                   for p in fill(templates, name)]  # fmt: skip
        mean = sum(vector.astype(float) for vector in encode(prompts)) / len(prompts)
        np.testing.assert_allclose(got_CE[c], mean / np.linalg.norm(mean), atol=1e-6)


def test_prompts_that_cancel_out_score_nothing():
    prompt_KTE = np.array([[[1, 0], [-1, 0]]], np.float32)
    assert class_features(prompt_KTE, np.zeros(1, np.int64)).tolist() == [[0, 0]]


def plain_rank(scores, right):
    """Position of the right class in a sorted list, last among its ties."""
    return sum(s >= scores[right] - TIE for i, s in enumerate(scores) if i != right)


features = hnp.arrays(
    np.int8, st.tuples(st.integers(1, 12), st.just(3)), elements=st.integers(-2, 2)
)


@given(features, features, st.data())
def test_ranks_equal_the_plain_definition(images, classes, data):
    """Small whole numbers make exact ties common."""
    image_NE, class_CE = images.astype(np.float32), classes.astype(np.float32)
    labels = st.integers(0, len(class_CE) - 1)
    label_N = np.array(data.draw(st.lists(labels, min_size=len(images), max_size=len(images))))
    said = classify(image_NE, class_CE, label_N)
    score_NC = image_NE @ class_CE.T
    assert said.rank_N.tolist() == [
        plain_rank(score_NC[i].tolist(), label_N[i]) for i in range(len(images))
    ]
    assert said.score_N.tolist() == [score_NC[i, label_N[i]] for i in range(len(images))]
    assert ((said.best_N == label_N) == (said.rank_N == 0)).all()
    shuffled = np.random.default_rng(0).permutation(len(class_CE))
    again = classify(image_NE, class_CE[shuffled], np.argsort(shuffled)[label_N])
    assert again.rank_N.tolist() == said.rank_N.tolist()  # order of the classes is irrelevant


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    image_NE, class_CE = unit(rng.normal(size=(50, 8))), unit(rng.normal(size=(7, 8)))
    label_N = rng.integers(0, 7, 50)
    whole = classify(image_NE, class_CE, label_N)
    monkeypatch.setattr(zeroshot, "BLOCK", 8)
    parts = classify(image_NE, class_CE, label_N)
    assert whole.rank_N.tolist() == parts.rank_N.tolist()
    assert whole.best_N.tolist() == parts.best_N.tolist()


def test_a_model_that_says_the_same_of_all_is_always_wrong():
    label_N = np.arange(4)
    said = classify(np.ones((4, 2), np.float32), np.ones((4, 2), np.float32), label_N)
    assert said.rank_N.tolist() == [3, 3, 3, 3]
    assert (said.best_N != label_N).all()


def test_chance():
    assert chance_at(1, 10) == 0.1
    assert chance_at(5, 10) == 0.5
    assert chance_at(5, 3) == 1.0
