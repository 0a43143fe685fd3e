"""30_filter.sql: one smallest row for each reason, and the order in which they apply."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import lists, rules
from pipeline.config import ShardsConfig
from wit.errors import ConfigError, InputError
from wit.schema import Reason
from wit.text import uid

TEXT = {"min_chars": 5, "min_words": 2, "max_chars": 40, "max_words": 8, "boilerplate_urls": 3}
GOOD = "http://h.example/good.jpg"
CASES: list[tuple[str | None, str | None, str | None]] = [
    (GOOD, "a red dog", None),
    (GOOD, "a dog", None),  # five characters, two words
    (GOOD, None, "no_text"),
    (GOOD, " \u200b\n", "no_text"),
    (None, None, "no_text"),  # the first that applies
    (None, "a dog", "no_url"),
    ("file:///x", "dog", "url_scheme"),
    ("http://h.example/dog.SVG?x=1", "a dog", "url_extension"),
    ("http://h.example/svg", "a dog", None),
    ("http://bad.example/x", "a dog", "url_domain"),
    ("http://cdn.bad.example/x", "a dog", "url_domain"),
    ("http://notbad.example/x", "a dog", None),
    ("http://h.example/mine.jpg?utm_source=x", "a dog", "opt_out_list"),
    ("http://h.example/mine.jpg?x=1", "a dog", None),
    ("http://img.artist.example/1", "a dog", "opt_out_list"),
    (GOOD, "my own dog", "opt_out_list"),  # by its uid
    (GOOD, "dog!", "text_too_short"),  # four characters
    (GOOD, "doggies", "text_too_short"),  # one word
    (GOOD, "a dog " + "ha" * 17 + "!", "text_too_long"),
    (GOOD, "a dog " + "ha" * 17, None),  # forty characters
    (GOOD, "a dog a b c d e f g", "text_too_long"),  # nine words
    (GOOD, "a dog a b c d e f", None),
    (GOOD, "Stock photo", "placeholder"),
    (GOOD, "No image available!", "placeholder"),
    (GOOD, "Product image 12", "placeholder"),
    (GOOD, "stock photo of a dog", None),
    (GOOD, "my dog.jpg", "file_name"),
    (GOOD, "IMG_2041", "file_name"),
    (GOOD, "Screenshot 2020-01-01 at 10.00.00", "file_name"),
    (GOOD, "image 2041 red dog", None),
    ("http://h.example/a-b/Red-Dog_1.jpg?s=2", "red-dog_1", "url_tail"),
    ("http://h.example/a%20dog%20here", "A dog here", "url_tail"),
    ("http://h.example/a-dog-here.jpg", "a dog here", None),  # written as people write
    (GOOD, "a dog ------", "few_letters"),  # four of ten
    (GOOD, "a dog ----", None),  # four of eight
    (GOOD, "der kleine Hund läuft auf der Wiese", "language"),
    (GOOD, "灰色背景上的一个红色小圆圈", "text_too_long"),  # no spaces, yet thirteen words
    (GOOD, "一个红色小圆圈", "no_query"),
    (GOOD, "two cats", "no_query"),
]


@pytest.fixture
def opted_out(tmp_path: Path) -> list[Path]:
    text, table = tmp_path / "owners.txt", tmp_path / "owners.parquet"
    listed_uid = uid(GOOD, "my own dog").upper()
    listed = f"# those who wrote to us\nwww.Artist.example\n\n{listed_uid}  # a pair\n{'0' * 64}\n"
    text.write_text(listed, "utf-8")
    pq.write_table(pa.table({"url": ["HTTP://h.example:80/mine.jpg", None]}), table)
    return [text, table]


def test_each_reason_and_their_order(run_until: Any, opted_out: list[Path]) -> None:
    rows = [(url, text) for url, text, _ in CASES]
    url = {"block_domains": ["www.Bad.example"], "opt_out": opted_out}
    text = {**TEXT, "boilerplate_urls": 99}
    found = run_until("30_filter", rows, queries=["dog"], text=text, url=url).reasons("30_filter")
    assert [(*rows[row], reason) for row, reason in found.items()] == CASES
    assert {reason for reason in found.values() if reason} <= {reason.value for reason in Reason}


def test_rules_can_be_switched_off(run_until: Any) -> None:
    text = {**TEXT, "placeholders": [], "file_names": True, "url_tails": True, "min_alnum": 0}
    rows = [(url, text) for url, text, reason in CASES if reason in ("file_name", "url_tail")]
    rows += [(GOOD, "Stock photo"), (GOOD, "a dog ------"), ("http://h.example/x.svg", "a dog")]
    changed = {"text": text, "url": {"block_extensions": []}}
    found = run_until("30_filter", rows, queries=["dog"], **changed).reasons("30_filter")
    assert {found[row] for row in range(len(rows))} <= {None, "no_query"}
    http = run_until("30_filter", rows, queries=["dog"], url={"schemes": ["https"]})
    assert set(http.reasons("30_filter").values()) == {"url_scheme"}


def test_boilerplate_is_many_urls_not_many_rows(run_until: Any) -> None:
    rows = [(f"http://h.example/{i}", "a stock dog") for i in range(4)]
    rows += [(f"http://h.example/x{i}", "a rare dog") for i in range(3)]
    rows += [("http://h.example/same#" + str(i), "a known dog") for i in range(6)]
    rows += [("ftp://h.example/" + str(i), "a far dog") for i in range(6)]
    found = run_until("30_filter", rows, queries=["dog"], text=TEXT).reasons("30_filter")
    assert list(found.values()) == ["boilerplate"] * 4 + [None] * 9 + ["url_scheme"] * 6


def test_boilerplate_is_many_domains_too(run_until: Any) -> None:
    rows = [(f"http://h{i}.example/1", "a stock dog") for i in range(4)]
    rows += [(f"http://h{i % 3}.example/{i}", "a known dog") for i in range(5)]
    text = {"boilerplate_urls": 9, "boilerplate_domains": 3}
    found = run_until("30_filter", rows, queries=["dog"], text=text).reasons("30_filter")
    assert list(found.values()) == ["boilerplate"] * 4 + [None] * 5


def declared(tmp_path: Path, **columns: Any) -> dict[str, Any]:
    size = len(next(iter(columns.values())))
    plain = {"URL": [f"http://h.example/{i}" for i in range(size)], "TEXT": ["a dog"] * size}
    pq.write_table(pa.table(plain | columns), tmp_path / "declared.parquet")
    return {"input": [tmp_path / "declared.parquet"], "queries": ["dog"]}


def test_declared_sizes(run_until: Any, tmp_path: Path) -> None:
    given = declared(
        tmp_path,
        WIDTH=[99, 100, 100, 301, 300, None, None, 0, 5000],
        HEIGHT=[100, 99, 100, 100, 100, 99, 100, None, 1600],
    )
    small, wide = "declared_too_small", "declared_aspect"
    image = {"declared_min_side": 100, "declared_max_aspect": 3}
    found = run_until("30_filter", **given, image=image).reasons("30_filter")
    assert list(found.values()) == [small, small, None, wide, None, small, None, None, wide]
    off = run_until("30_filter", **given).reasons("30_filter")
    assert set(off.values()) == {None}


def test_licences(run_until: Any, tmp_path: Path) -> None:
    names = ["https://creativecommons.org/licenses/BY/2.0/", "cc-by-nc", "?", None]
    given = declared(tmp_path, LICENSE=names)
    for rule, dropped in (
        ({}, set()),
        ({"allow": ["*licenses/by/*"]}, {1, 2, 3}),
        ({"block": ["*-NC*"]}, {1}),
        ({"allow": ["*by*"], "block": ["*nc*"]}, {1, 2, 3}),
    ):
        found = run_until("30_filter", **given, license=rule).reasons("30_filter")
        assert {row for row, reason in found.items() if reason == "license"} == dropped


SCORES = {
    "similarity": ([0.1, 0.2, 0.3, 0.4, None, float("nan")], "low_similarity"),
    "punsafe": ([0.4, 0.3, 0.2, 0.1, None, float("nan")], "nsfw"),
    "pwatermark": ([0.4, 0.3, 0.2, 0.1, None, float("nan")], "watermark"),
    "AESTHETIC": ([1, 2, 3, 4, None, None], "low_aesthetic"),
}


@pytest.mark.parametrize("column", SCORES)
def test_scores(run_until: Any, tmp_path: Path, column: str) -> None:
    values, reason = SCORES[column]
    name = {"punsafe": "nsfw", "pwatermark": "watermark"}.get(column, column.lower())
    given = declared(tmp_path, **{column: values})
    bound = {"max" if name in ("nsfw", "watermark") else "min": values[2]}
    cases: list[tuple[dict[str, Any], set[int]]] = [(bound, {0, 1}), ({"top": 0.51}, {0})]
    if column == "similarity":  # a share is taken of all scores alike
        cases += [
            ({"top": 0.5}, {0, 1}),
            ({"top": 0.25, **bound}, {0, 1, 2}),
            ({"top": 1.0}, set()),
        ]
    for rule, dropped in cases:
        found = run_until("30_filter", **given, scores={name: rule}).reasons("30_filter")
        assert {row for row, why in found.items() if why == reason} == dropped
        assert set(found.values()) <= {None, reason}


def test_a_rule_on_a_score_that_nobody_has(run_until: Any, tmp_path: Path) -> None:
    given = declared(tmp_path, NSFW=["UNLIKELY", "UNSURE"])  # words, as LAION has them
    with pytest.raises(InputError, match=r"scores\.nsfw: no row of the input has this score"):
        run_until("28_scores", **given, scores={"nsfw": {"max": 0.5}})


def test_the_top_is_exact_on_uneven_scores(run_until: Any, tmp_path: Path) -> None:
    values = [1e9, *(i % 50 / 50 for i in range(2000)), -1e9, *[0.25] * 500]
    given = declared(tmp_path, similarity=values)
    found = run_until("28_scores", **given, scores={"similarity": {"top": 0.3}})("28_scores")
    assert found[0]["similarity_min"] == sorted(values, reverse=True)[-(-3 * len(values) // 10) - 1]


def test_a_rule_of_the_users_own(run_until: Any, tmp_path: Path) -> None:
    rows = [
        (GOOD, text) for text in ("a dog for $5", "a dog", "a big dog 12", "a dog 7", "a $ cat")
    ]
    drop = {"price": "text LIKE '%$%' -- any currency", "many": "CAST(words[-2:] AS INTEGER) > 9"}
    tables = run_until("30_filter", rows, queries=["dog"], drop=drop)
    assert list(tables.reasons("30_filter").values()) == ["price", None, "many", None, "price"]
    assert tables.runner.results["30_filter"].counts.reasons == {"many": 1, "price": 2}
    assert run_until("30_filter", rows, queries=["dog"], drop={}).built() == ["30_filter"]


BAD_RULES = {
    "x;y": "not SQL",
    "text = 'a": "not SQL",
    "true) FROM read_csv('/etc/passwd') --": "not SQL",
    "true UNION SELECT true": "not SQL",
    "true), (false": "more than one condition",
    "(SELECT count(*) FROM read_text('/etc/passwd')) > 0": "a subquery has no place",
    "row_number() OVER () > 2": "a window has no place",
    "$1 = 2": "a parameter has no place",
    "COLUMNS(*) IS NULL": "a star has no place",
    "count(*) > 3": "count_star looks at many rows",
    "unnest([true])": "unnest looks at many rows",
    "random() < 0.5": "random gives another answer each time",
    "current_date > '2020-01-01'": "current_date gives another answer each time",
    "txt = 'a'": "the columns are url, domain",
    "a_row.text = 'a'": "write the plain name of a column",
    "text": "it is VARCHAR, not true or false",
    "getenv('HOME') = 'x'": "getenv does not exist",
}


@pytest.mark.parametrize("rule", BAD_RULES)
def test_what_is_no_condition_on_a_row_is_refused(rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rules.check({"mine": rule})
    assert str(caught.value).startswith(f"drop.mine = {rule!r}: ")
    assert BAD_RULES[rule] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rules_that_are_fine() -> None:
    rules.check(
        {
            "many": "len(list_filter(string_split(text, ' '), lambda w: upper(w) = w)) > 5",
            "host": "domain IN ('a.example') AND similarity < 0.3 OR license IS NULL",
        }
    )


@pytest.mark.parametrize("name", ["no_text", "Big", "a b", "x'y", ""])
def test_a_reason_needs_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ConfigError, match="rename it"):
        rules.check({name: "true"})


def test_rules_come_from_the_config_file(tmp_path: Path) -> None:
    from wit.config import load

    (tmp_path / "c.toml").write_text("[drop]\nprice = \"text LIKE '%$%'\"\n")
    config = load(ShardsConfig, ["--config", str(tmp_path / "c.toml")], prog="wit shards")
    assert config.drop == {"price": "text LIKE '%$%'"}
    config = load(ShardsConfig, ["--drop", json.dumps({"price": "nsfw > 1"})], prog="wit shards")
    assert config.drop == {"price": "nsfw > 1"}


class Counted(str):
    """A word that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return super().__eq__(other)

    __hash__ = str.__hash__

    def lower(self) -> str:
        return Counted(super().lower())


def test_a_long_list_is_not_searched_for_each_entry() -> None:
    uids = [Counted(f"{i:032X}") for i in range(500)]
    hosts = [Counted(f"h{i}.example") for i in range(500)]
    hashes = [Counted("AB" * 32)]
    found = lists.sort_out([*uids, *hosts, *hashes, "http://x.example/1"])
    assert Counted.compared < 5000
    assert found == (["http://x.example/1"], [uid.lower() for uid in uids], hosts)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.csv", b"x", "is .txt"),
        ("x.txt", b"\xff\xfe", "not UTF-8"),
        ("x.parquet", b"no", "not readable"),
    ],
)
def test_a_list_that_is_none(
    run_until: Any, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        run_until("13_lists", [(GOOD, "a dog")], url={"opt_out": [tmp_path / name]})
    assert str(caught.value).startswith(str(tmp_path / name))
