"""Ranks of retrieval against a sort of the whole score matrix; chance against counting."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval import retrieval
from eval.retrieval import chance_at, retrieve
from eval.zeroshot import TIE


@st.composite
def collections(draw):
    """Images with one to four captions each; few directions, so that ties are common."""
    seed = draw(st.integers(0, 2**32 - 1))
    images = draw(st.integers(1, 9))
    count_N = draw(st.lists(st.integers(1, 4), min_size=images, max_size=images))
    rng = np.random.default_rng(seed)
    pool = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0], [0, 0.6, 0.8]], np.float32)
    owner_M = np.repeat(np.arange(images), count_N)
    return pool[rng.integers(0, 5, images)], pool[rng.integers(0, 5, len(owner_M))], owner_M


def plain(scores, mine):
    """Items before the best own one when ties are sorted against the query."""
    best = max(score for score, own in zip(scores, mine, strict=True) if own)
    return sum(s >= best - TIE for s, own in zip(scores, mine, strict=True) if not own)


@given(collections())
def test_ranks_equal_a_sort_of_the_whole_matrix(collection):
    image_NE, text_ME, owner_M = collection
    found = retrieve(image_NE, text_ME, owner_M)
    score_NM = image_NE @ text_ME.T
    mine_NM = np.arange(len(image_NE))[:, None] == owner_M
    texts, images = found
    assert texts.rank_Q.tolist() == list(map(plain, score_NM, mine_NM))
    assert images.rank_Q.tolist() == list(map(plain, score_NM.T, mine_NM.T))
    for ranking, score_QI in ((texts, score_NM), (images, score_NM.T)):
        best_QK = -np.sort(-score_QI, axis=1)[:, : retrieval.KEPT]
        np.testing.assert_allclose(ranking.top_score_QK, best_QK, atol=1e-6)
        at_QK = np.take_along_axis(score_QI, ranking.top_QK, axis=1)
        np.testing.assert_allclose(ranking.top_score_QK, at_QK, atol=1e-6)
        assert all(len(set(row)) == len(row) for row in ranking.top_QK.tolist())
    assert (texts.rank_Q <= len(owner_M) - 1).all()
    assert (images.rank_Q <= len(image_NE) - 1).all()


@given(collections(), st.integers(1, 5))
def test_blocks_change_nothing(collection, block):
    whole = retrieve(*collection)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "BLOCK", block)
        parts = retrieve(*collection)
    for one, other in zip(whole, parts, strict=True):
        assert one.rank_Q.tolist() == other.rank_Q.tolist()
        np.testing.assert_allclose(one.top_score_QK, other.top_score_QK, atol=1e-6)


def test_one_of_several_captions_is_enough():
    """The second image's first caption is lost, its second one is exact."""
    image_NE = np.eye(3, dtype=np.float32)
    text_ME = image_NE[[0, 0, 1, 2]]
    found = retrieve(image_NE, text_ME, np.array([0, 1, 1, 2]))
    assert found.image_to_text.rank_Q.tolist() == [1, 0, 0]  # image 0 ties with a foreign copy
    assert found.text_to_image.rank_Q.tolist() == [0, 2, 0, 0]
    assert found.text_to_image.top_QK[:, 0].tolist() == [0, 0, 1, 2]


def test_equal_captions_of_two_images_tie_and_count_against():
    image_NE = np.array([[1, 0], [1, 0]], np.float32)
    found = retrieve(image_NE, image_NE, np.array([0, 1]))
    assert found.image_to_text.rank_Q.tolist() == [1, 1]
    assert found.text_to_image.rank_Q.tolist() == [1, 1]


@pytest.mark.parametrize(("items", "own", "k"), [(6, 2, 3), (7, 5, 2), (5, 1, 5), (4, 3, 10)])
def test_chance_counts_every_order(items, own, k):
    draws = list(itertools.combinations(range(items), min(k, items)))
    hits = sum(any(item < own for item in draw) for draw in draws)
    assert chance_at(k, np.array([own]), items) == pytest.approx(hits / len(draws))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.integers(1, 10))
def test_chance_is_the_hypergeometric_formula(own, k):
    items = sum(own)
    k_ = min(k, items)
    each = [1 - math.comb(items - c, k_) / math.comb(items, k_) for c in own]
    assert chance_at(k, np.array(own), items) == pytest.approx(sum(each) / len(each))
