"""Near-duplicate captions by MinHash-LSH, against all pairs compared by hand."""

from __future__ import annotations

import hashlib
import io
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import near_texts
from pipeline.config import NearTextsConfig, ShardsConfig
from pipeline.context import Context
from pipeline.dedupe import representatives
from pipeline.near_texts import Sketch, band_rows, give_way, params
from wit.config import load
from wit.errors import ConfigError, MissingExtra, WitError
from wit.progress import Progress
from wit.text import rank, uid, words

rensa = pytest.importorskip("rensa", reason="rensa is not installed: pip install -e '.[minhash]'")

THRESHOLD, SHINGLE = 0.6, 2
NEAR = {"threshold": THRESHOLD, "shingle": SHINGLE}
WORDS = [
    f"{a}{b}" for a in ("bo", "ka", "li", "mu", "ne", "po") for b in ("r", "s", "t", "ld", "m")
]


def captions(number: int, seed: int = 0) -> list[str]:
    """Captions of 1 to 12 words, most of them made from another by a small change."""
    draw = random.Random(seed)
    found: list[list[str]] = []
    while len(found) < number:
        if found and draw.random() < 0.6:
            text = list(draw.choice(found))
            at = draw.randrange(len(text))
            change = draw.choice(("replace", "insert", "drop", "same"))
            if change == "replace":
                text[at] = draw.choice(WORDS)
            elif change == "insert":
                text.insert(at, draw.choice(WORDS))
            elif change == "drop" and len(text) > 1:
                del text[at]
        else:
            text = draw.choices(WORDS, k=draw.randint(1, 12))
        found.append(text)
    texts = [" ".join(text) for text in found]
    return [text.capitalize() + "." if draw.random() < 0.2 else text for text in texts]


def shingles(text: str) -> frozenset[str]:
    own = words(text)
    size = min(SHINGLE, len(own))
    return frozenset(" ".join(own[i : i + size]) for i in range(len(own) - size + 1))


def jaccard(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def naive(rows: list[tuple[str, str]], threshold: float) -> dict[int, int | None]:
    """All pairs: from the best row on, each stays unless it is like one that stays."""
    sets = [shingles(text) for _, text in rows]
    found: dict[int, int | None] = {}
    stays: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: rank(uid(*rows[i]))):
        both = ((k, len(sets[i] & sets[k])) for k in stays)
        like = (k for k, n in both if n >= threshold * (len(sets[i]) + len(sets[k]) - n))
        found[i] = next(like, None)
        if found[i] is None:
            stays.append(i)
    return found


def rows_of(texts: list[str]) -> list[tuple[str, str]]:
    return [(f"http://h{i % 5}.example/{i}.jpg", text) for i, text in enumerate(texts)]


def key(text: str) -> int:
    return int.from_bytes(hashlib.md5(text.encode()).digest()[8:], "big")


Verdicts = dict[int, tuple[str | None, int | None]]


class Stage40:
    """The stage alone, on rows that passed the filter, `file_rows` of them in a file."""

    def __init__(self, folder: Path, rows: list[tuple[str, str]], file_rows: int = 1000) -> None:
        self.out, self.number = folder / "out", len(rows)
        clean, passed = folder / "15_clean", folder / "30_filter"
        self.inputs = {at.name: at for at in (clean, passed)}
        for at in (self.out, clean, passed):
            at.mkdir(parents=True)
        columns = {
            "row": pa.array(range(len(rows)), pa.int64()),
            "words": pa.array([" ".join(words(text)) for _, text in rows], pa.string()),
            "reason": pa.array([None] * len(rows), pa.string()),
            "rank": pa.array([rank(uid(*row)) for row in rows], pa.uint64()),
            "url_key": pa.array([key(url) for url, _ in rows], pa.uint64()),
            "text_key": pa.array([key(text) for _, text in rows], pa.uint64()),
            "merit": pa.array([0.0] * len(rows), pa.float64()),
        }
        for nth, first in enumerate(range(0, len(rows), file_rows)):
            part = pa.table(columns).slice(first, file_rows)
            pq.write_table(part.select(["row", "words"]), clean / f"{nth:05}.parquet")
            pq.write_table(part.drop_columns(["words"]), passed / f"{nth:05}.parquet")
        self.engine = {"partition_rows": file_rows, "threads": 1}

    def run(self, **near: Any) -> Verdicts:
        config = ShardsConfig.model_validate(
            {"engine": self.engine, "dedupe": {"near_texts": {**NEAR, **near}}}
        )
        progress = Progress("40_dedupe", io.StringIO())
        given_ = params(config)
        near_texts.dedupe(
            Context(config, given_, self.inputs, self.out, self.out, progress, rows=self.number)
        )
        lines = pq.read_table(self.out, columns=["row", "reason", "kept_row", "rank"]).to_pylist()
        return {line["row"]: (line["reason"], line["kept_row"]) for line in lines}


def test_it_is_all_pairs_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With bands so narrow that LSH misses no pair at the threshold but one in a million."""
    monkeypatch.setattr(near_texts, "RECALL", 1 - 1e-6)
    rows = rows_of(captions(500))
    found = Stage40(tmp_path, rows).run(permutations=64)
    wanted = naive(rows, THRESHOLD)
    assert {row: kept for row, (_, kept) in found.items()} == wanted
    assert {reason for reason, _ in found.values()} == {None, "near_duplicate_text"}
    assert 150 < sum(kept is not None for kept in wanted.values()) < 450


def test_what_goes_is_like_what_stays_and_pairs_well_above_are_found(tmp_path: Path) -> None:
    rows = rows_of(captions(900, seed=1))
    found = Stage40(tmp_path, rows).run()
    for row, (reason, kept) in found.items():
        assert (reason is None) == (kept is None)
        if kept is not None:
            assert found[kept] == (None, None)
            assert jaccard(rows[row][1], rows[kept][1]) >= THRESHOLD
            assert rank(uid(*rows[kept])) < rank(uid(*rows[row]))
    stays = [row for row, (reason, _) in found.items() if reason is None]
    left = [jaccard(rows[a][1], rows[b][1]) for a in stays for b in stays if a < b]
    assert max(left) < THRESHOLD + 0.1  # a pair at 0.7 is missed once in 5,000


def test_neither_parts_nor_the_order_of_the_input_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_texts, "_ROWS", 4)
    rows = rows_of(captions(400, seed=2))
    one = Stage40(tmp_path / "one", rows)
    many = Stage40(tmp_path / "many", rows, file_rows=50)
    found = one.run(permutations=32)
    assert many.run(permutations=32) == found
    assert [len(list(s.out.glob("0*.parquet"))) for s in (one, many)] == [1, 2]

    def by_pair(rows: list[tuple[str, str]], found: Verdicts) -> dict[Any, Any]:
        return {
            rows[row]: (reason, None if kept is None else rows[kept])
            for row, (reason, kept) in found.items()
        }

    turned = random.Random(3).sample(rows, len(rows))
    assert by_pair(turned, Stage40(tmp_path / "turned", turned).run(permutations=32)) == by_pair(
        rows, found
    )


def test_a_part_that_is_lost_is_made_again_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, made = rows_of(captions(120, seed=4)), []
    wanted = Stage40(tmp_path / "whole", rows).run(permutations=32)
    make_all, broken = near_texts.make_all, [True]

    def watched(parts: Any, *rest: Any, **more: Any) -> None:
        if broken and parts[0].target.parent.name == ".alike":
            make_all(parts[:2], *rest, **more)
            broken.clear()
            raise WitError("the disk is full")
        made.extend(part.target for part in parts if not part.target.exists())
        make_all(parts, *rest, **more)

    monkeypatch.setattr(near_texts, "make_all", watched)
    stage = Stage40(tmp_path / "broken", rows, file_rows=20)
    with pytest.raises(WitError, match="full"):
        stage.run(permutations=32)
    lost = stage.out / ".pairs" / "003-00000.parquet"
    lost.unlink()
    made.clear()
    assert stage.run(permutations=32) == wanted
    assert made[0] == lost
    assert [target.parent.name for target in made[1:]] == [".alike"] * 4 + ["out"] * 3


def test_a_hot_key_gives_few_pairs(tmp_path: Path) -> None:
    """All captions have the same words: each is held against the best, not against all."""
    n, centres = 400, near_texts.CENTRES
    spelt = [
        "".join(c.upper() if i >> b & 1 else c for b, c in enumerate("dogandcat")) for i in range(n)
    ]
    texts = [f"{each} lie in the sun by the sea" for each in spelt]
    assert len(set(texts)) == n
    rows = rows_of([*texts, *texts[:50]])
    stage = Stage40(tmp_path, rows)
    found = stage.run(permutations=32)
    sizes = {pq.read_metadata(path).num_rows for path in stage.out.glob(".pairs/*.parquet")}
    assert sizes == {n * centres - centres * (centres + 1) // 2}  # of 79,800 pairs
    best = min(range(len(rows)), key=lambda i: rank(uid(*rows[i])))
    assert found.pop(best) == (None, None)
    assert set(found.values()) == {("near_duplicate_text", best)}


def test_captions_without_words_are_like_none(tmp_path: Path) -> None:
    found = Stage40(tmp_path, rows_of(["!!!", "???", "…", "a dog", "A dog!"])).run(permutations=16)
    assert [found[row] for row in range(3)] == [(None, None)] * 3
    assert sorted(reason is None for reason, _ in found.values()) == [False, *[True] * 4]


def test_a_row_names_the_one_that_stays_in_the_end(run_until: Any) -> None:
    """Its exact duplicate gave way to a caption of another image; and the catalogue says so."""
    texts = ["a red dog runs on the beach", "a red dog runs on the beach now"]
    for n in range(50):  # until ranks are: other image, first spelling, second spelling
        url, other = f"http://h.example/{n}.jpg", f"http://other.example/{n}.jpg"
        rows = [(url, texts[0]), (f"{url}#again", texts[0]), (other, texts[1])]
        if rank(uid(*rows[2])) < rank(uid(*rows[0])) < rank(uid(*rows[1])):
            break
    found = run_until("50_balance", rows, queries=["dog"], dedupe={"near_texts": NEAR})
    assert {line["row"]: (line["reason"], line["kept_row"]) for line in found("40_dedupe")} == {
        0: ("near_duplicate_text", 2),
        1: ("duplicate_pair", 2),
        2: (None, None),
    }
    assert found.reasons("50_balance") == {2: None}


def test_the_better_member_is_kept_by_the_rule(run_until: Any) -> None:
    texts = ["a red dog runs on the sandy beach", "a red dog runs on the sandy beach today"]
    rows = [(f"http://h.example/{n}.jpg", texts[n % 2]) for n in range(20)]
    dedupe = {"near_texts": NEAR, "keep": "longest"}
    reasons = run_until("40_dedupe", rows, queries=["dog"], dedupe=dedupe).reasons("40_dedupe")
    stays = min(range(1, 20, 2), key=lambda i: rank(uid(*rows[i])))
    assert [row for row, reason in reasons.items() if reason is None] == [stays]


def test_off_is_as_if_it_were_not_there() -> None:
    config = ShardsConfig(corpus=Path("c"))
    assert params(config) == {"captions_per_image": 1, "caption_likeness": 0.8}
    assert "near_texts" not in config.identity()["dedupe"]
    on = ShardsConfig.model_validate({"dedupe": {"near_texts": NEAR}})
    assert on.identity()["dedupe"]["near_texts"] == {**NEAR, "permutations": 128}


@pytest.mark.parametrize("change", [{"threshold": 0.7}, {"shingle": 3}, {"permutations": 64}])
def test_every_setting_is_in_the_fingerprint(change: dict[str, Any]) -> None:
    base, other = (
        params(ShardsConfig.model_validate({"dedupe": {"near_texts": near}}))
        for near in (NEAR, {**NEAR, **change})
    )
    assert base != other


def test_settings_out_of_range_are_refused() -> None:
    for given_, least in (("threshold", 1.5), ("shingle", 0), ("permutations", 8)):
        with pytest.raises(ConfigError, match=f"dedupe.near_texts.{given_}"):
            load(ShardsConfig, [f"--dedupe.near_texts.{given_}", str(least)], prog="wit shards")


def test_without_rensa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(MissingExtra, match=r"pip install -e '.\[minhash\]'"):
        params(ShardsConfig.model_validate({"dedupe": {"near_texts": NEAR}}))


@given(
    st.lists(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12), min_size=1, max_size=8),
    st.randoms(),
)
@settings(max_examples=30, deadline=None)
def test_keys_depend_on_the_set_alone(sets: list[list[int]], draw: random.Random) -> None:
    sketch = Sketch(64, 4)

    def keys(lists: list[list[int]]) -> list[list[int]]:
        column = pa.chunked_array([pa.array(lists, pa.list_(pa.uint64()))])
        found: list[list[int]] = sketch(column).to_pylist()
        return found

    whole = keys(sets)
    assert [len(each) for each in whole] == [16] * len(sets)
    for own, given_ in zip(whole, sets, strict=True):
        mixed = [*given_, given_[0]]
        draw.shuffle(mixed)
        assert keys([mixed]) == [own]


def test_bands_find_what_they_should() -> None:
    """Sets of 7 members, 6 of them common (Jaccard 0.75): the share found is that of the theory."""
    draw = np.random.default_rng(0)
    number, rows = 3000, 8
    members = draw.integers(0, 2**64, (number, 8), np.uint64)
    lists = np.concatenate([members[:, :7], members[:, 1:]]).tolist()
    sketch = Sketch(128, rows)
    column = pa.chunked_array([pa.array(lists, pa.list_(pa.uint64()))])
    keys = np.array(sketch(column).to_pylist(), np.uint64)
    found = (keys[:number] == keys[number:]).any(axis=1).mean()
    assert found == pytest.approx(1 - (1 - 0.75**rows) ** (128 // rows), abs=0.03)


@pytest.mark.parametrize(("threshold", "rows"), [(0.5, 3), (0.7, 5), (0.8, 7), (0.9, 12), (1, 128)])
def test_bands_are_as_wide_as_recall_allows(threshold: float, rows: int) -> None:
    assert band_rows(NearTextsConfig(threshold=threshold)) == rows


@given(st.sets(st.tuples(st.integers(0, 12), st.integers(0, 12)).filter(lambda e: e[0] < e[1])))
def test_giving_way_is_that_of_images(edges: set[tuple[int, int]]) -> None:
    ordered = sorted(edges)
    assert dict(give_way(iter(ordered), bytearray(13))) == representatives(ordered)


def test_the_keys_are_these_bytes() -> None:
    """Signatures are stored nowhere, but a corpus is the same on every machine and version."""
    column = pa.chunked_array(
        [pa.array([[1, 2, 3], [2**64 - 1], list(range(50))], pa.list_(pa.uint64()))]
    )
    keys = np.array(Sketch(128, 5)(column).to_pylist(), np.uint64)
    assert hashlib.sha256(keys.tobytes()).hexdigest()[:16] == "bc74cc83a241fda8"
