"""RareAct's numbers: against scikit-learn's weighted average precision, and on a set of colours."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from eval import actions, metrics
from eval.actions import Clips
from wit.errors import InputError

RED, GREEN, BLUE = (200, 20, 20), (20, 200, 20), (20, 20, 200)
ACTIONS = (("cut", "phone"), ("cut", "apple"), ("blend", "phone"), ("wash", "car"))


@pytest.fixture
def drawn():
    """Forty clips of twelve videos, four actions, and scores that mean nothing."""
    rng = np.random.default_rng(0)
    clips = Clips(
        tuple(f"clip{i}" for i in range(40)),
        rng.integers(0, 4, 40),
        rng.choice(5, 40, p=[0.2, 0.4, 0.2, 0.1, 0.1]),
        rng.integers(0, 12, 40),
        ACTIONS,
    )
    return clips, rng.random((40, 4)).round(1)


def test_clips_of_other_actions_are_negatives_and_hard_ones_near_by():
    action_V = np.array([0, 0, 0, 0, 0, 1, 2, 3, 1])
    annotation_V = np.array([1, 0, 2, 3, 4, 1, 1, 1, 0])
    clips = Clips(tuple("abcdefghi"), action_V, annotation_V, np.arange(9), ACTIONS)
    positive, hard, negative = actions.POSITIVE, actions.HARD, actions.NEGATIVE
    assert actions.kinds_for(clips, 0).tolist() == [
        positive, negative, hard, hard, hard, hard, hard, negative, -1
    ]  # fmt: skip
    # "wash car" shares no word with the others: what shows them is an easy negative
    assert actions.kinds_for(clips, 3).tolist() == [
        negative, -1, -1, -1, -1, negative, negative, positive, -1
    ]  # fmt: skip


def precisions(clips, score_VA, weight_of):
    """scikit-learn's average precision of every action, the clips of each kind weighed apart."""
    found = []
    for action in range(4):
        kind_V = actions.kinds_for(clips, action)
        shown, score, weight = [], [], []
        for kind in (actions.POSITIVE, actions.NEGATIVE, actions.HARD):
            clip_M = np.flatnonzero(kind_V == kind)
            shown += [kind == actions.POSITIVE] * len(clip_M)
            score += score_VA[clip_M, action].tolist()
            weight += weight_of(clips.video_V[clip_M])
        found.append(average_precision_score(shown, score, sample_weight=weight))
    return float(np.mean(found))


def test_mwap_is_scikit_learns_with_one_weight_for_each_video(drawn):
    clips, score_VA = drawn
    ranked = actions.ranked(clips, score_VA)
    assert len(ranked) == 4
    expected = precisions(clips, score_VA, lambda v: [1 / np.sum(v == one) for one in v])
    assert metrics.plain(actions.weighted(ranked), 40) == pytest.approx(expected, abs=1e-12)


def test_mwsap_draws_one_clip_of_each_video(drawn):
    """With one clip of each kind and video it is mWAP; otherwise its draws are around it."""
    clips, score_VA = drawn
    ranked = actions.ranked(clips, score_VA)
    mean = metrics.plain(actions.sampled(ranked, 300, np.random.default_rng(1)), 40)
    rng = np.random.default_rng(2)

    def one_of(video_M):
        chosen = [rng.choice(np.flatnonzero(video_M == one)) for one in np.unique(video_M)]
        return np.isin(np.arange(len(video_M)), chosen).astype(float).tolist()

    expected = np.mean([precisions(clips, score_VA, one_of) for _ in range(300)])
    assert mean == pytest.approx(expected, abs=0.01)
    alone = Clips(clips.names, clips.action_V, clips.annotation_V, np.arange(40), ACTIONS)
    ranked = actions.ranked(alone, score_VA)
    plain = metrics.plain(actions.weighted(ranked), 40)
    found = actions.sampled(ranked, 2, np.random.default_rng(0))
    assert metrics.plain(found, 40) == pytest.approx(plain)


def test_actions_of_a_set(table, evaluate):
    def row(colour, label, annotation, group):
        verb, noun = label.split()
        return colour, {"label": label, "verb": verb, "noun": noun, "annotation": annotation,
                        "video": f"v{group}", "group": group}  # fmt: skip

    rows = [
        row(RED, "cut red", "1", "1"), row(RED, "cut red", "1", "1"), row(RED, "cut red", "1", "2"),
        row(BLUE, "cut blue", "1", "3"), row(GREEN, "cut blue", "3", "4"),
        row(GREEN, "cut red", "0", "5"),
    ]  # fmt: skip
    found = evaluate("actions", table(rows), resamples=100)
    assert [metric.name for metric in found.metrics] == ["mWAP", "mWSAP"]
    assert [metric.value for metric in found.metrics] == [1, 1]  # the model sees the colours
    assert found.metrics[0].n == 5  # clips, not frames
    assert found.metrics[0].interval.high == 1
    rows[1][1]["annotation"] = "2"
    with pytest.raises(InputError, match="frames of clip 1 differ"):
        evaluate("actions", table(rows))
    rows[1][1]["annotation"] = "7"
    with pytest.raises(InputError, match="annotation '7'; it is one of 0 to 4"):
        evaluate("actions", table(rows))
    rows[0][1]["noun"] = ""
    with pytest.raises(InputError, match="has no noun"):
        evaluate("actions", table(rows))
