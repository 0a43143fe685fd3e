"""Pairs of a test image and an image of the corpus, labelled by a person to choose a threshold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from eval import overlap
from eval.evalset import EvalSet
from eval.pages.journal import Journal
from wit import shard
from wit.config import write_json
from wit.errors import InputError


class Labelling:
    """The pairs of one set that are shown, and what was said of them.

    Args:
        pairs: columns set, key, match, score; of one set.
        folder: where SET-labels.jsonl is kept.
        thresholds: JSON file that gets the set's threshold once all pairs are labelled.

    Raises:
        InputError: a pair names an image that the set or the corpus lacks.
    """

    def __init__(
        self,
        pairs: pa.Table,
        data: EvalSet,
        corpus: Path,
        folder: Path,
        thresholds: Path,
        count: int,
        seed: int,
    ) -> None:
        self.name = str(pairs["set"][0].as_py())
        self.thresholds = thresholds
        score_J = pairs["score"].to_numpy()
        chosen = overlap.sample_pairs(score_J, count, seed)
        self.pairs = pairs.take(pa.array(chosen)).to_pylist()
        self.tests = {sample.key: sample for sample in data.samples}
        self.corpus = shard.shards_folder(corpus)
        self.places = self._find([pair["match"] for pair in self.pairs])
        for pair in self.pairs:
            if pair["key"] not in self.tests:
                raise InputError(f"{data.path}: no image {pair['key']}, which a pair names")
        self.journal = Journal(folder / f"{self.name}-labels.jsonl")
        self.said = {(row["key"], row["match"]): row["same"] for row in self.journal.rows}

    def next(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The first pair that is not labelled; after the last, the threshold is written."""
        left = [i for i, pair in enumerate(self.pairs) if self._name(pair) not in self.said]
        if left:
            return {"done": False, "id": left[0], "left": len(left)}
        return {"done": True, "result": self._finish()}

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Keep an answer (`same`: true, false, or null for can't tell) and give the next pair.

        Raises:
            InputError: no such pair or answer.
        """
        number, same = asked.get("id"), asked.get("same")
        if type(number) is not int or number not in range(len(self.pairs)):
            raise InputError("there is no such pair: reload the page")
        if same not in (True, False, None):
            raise InputError(f"{same!r} is no answer")
        pair = self.pairs[number]
        self.journal.add({name: pair[name] for name in ("key", "match", "score")} | {"same": same})
        self.said[self._name(pair)] = same
        return self.next(asked)

    def picture(self, name: str) -> bytes | None:
        """`test-I` and `match-I`: both pictures of pair I."""
        kind, _, number = name.partition("-")
        if not number.isascii() or not number.isdigit() or int(number) >= len(self.pairs):
            return None
        pair = self.pairs[int(number)]
        if kind == "test":
            return self.tests[pair["key"]].read()
        if kind != "match":
            return None
        file, offset, size = self.places[pair["match"]]
        with (self.corpus / file).open("rb") as tar:
            return shard.read_member(tar, offset, size)

    def threshold(self) -> overlap.Threshold:
        """What the labels so far say; raises ValueError where they say nothing."""
        rows = [
            (pair["score"], same)
            for pair in self.pairs
            if (same := self.said.get(self._name(pair))) is not None
        ]
        score_J, same_J = (np.array([row[i] for row in rows]) for i in (0, 1))
        if not rows:
            raise ValueError("no pair could be told")
        return overlap.choose_threshold(score_J.astype(float), same_J.astype(bool))

    def _finish(self) -> str:
        try:
            found = self.threshold()
        except ValueError as error:
            return f"No threshold: {error}."
        kept = json.loads(self.thresholds.read_text("utf-8")) if self.thresholds.exists() else {}
        self.thresholds.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept | {self.name: found.score}, self.thresholds)
        (precision, p), (recall, r) = found.precision, found.recall
        return (
            f"Threshold {found.score:.4g}, from {found.labelled} pairs: precision"
            f" {100 * precision:.0f}% ({100 * p.low:.0f} – {100 * p.high:.0f}), recall"
            f" {100 * recall:.0f}% ({100 * r.low:.0f} – {100 * r.high:.0f})."
            f" Written to {self.thresholds}."
        )

    def _find(self, matches: list[str]) -> dict[str, tuple[str, int, int]]:
        """Where each image of the corpus lies, by key or uid."""
        wanted, found = set(matches), {}
        index = shard.load_index(self.corpus)
        names = pa.array(sorted(wanted))
        mine = pa.compute.or_kleene(
            pa.compute.is_in(index["key"], names), pa.compute.is_in(index["uid"], names)
        )
        for row in index.filter(mine).to_pylist():
            for name in (row["key"], row["uid"]):
                if name in wanted:
                    found[name] = (row["shard"], row["offset"], row["size"])
        missing = sorted(wanted - found.keys())
        if missing:
            raise InputError(f"{self.corpus}: no image {missing[0]}, which a pair names")
        return found

    @staticmethod
    def _name(pair: dict[str, Any]) -> tuple[str, str]:
        return pair["key"], pair["match"]
