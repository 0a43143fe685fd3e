"""Why something is not in a corpus: of its rows, and of what was never in the input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from pipeline.catalogue import open_catalogue
from pipeline.config import ShardsConfig
from pipeline.why import LIMITS, Why, check, measured
from wit.errors import CorpusError, InputError
from wit.schema import REASONS, Reason


@pytest.fixture(scope="module")
def why(corpus: Path) -> Why:
    return Why(corpus)


@pytest.fixture(scope="module")
def con(corpus: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_catalogue(corpus) as opened:
        yield opened


@pytest.fixture(scope="module")
def pairs(corpus: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(corpus / "pairs").to_pylist()
    return rows


def test_an_address_is_found_in_any_spelling(
    why: Why, con: duckdb.DuckDBPyConnection, pairs: list[dict[str, Any]]
) -> None:
    row = next(row for row in pairs if row["verdict"] == "kept" and "?" not in row["url"])
    scheme, _, rest = row["url"].strip().partition("://")
    host, _, path = rest.partition("/")
    port = {"http": ":80", "https": ":443"}[scheme]
    for spelled in (
        row["url"],
        f"  {row['url']}\n",
        f"{scheme.upper()}://{host.upper()}{port}/{path}",
        f"{row['url']}#part",
        f"{row['url']}?utm_source=mail&fbclid=1",
    ):
        assert row["row"] in why.rows_of_url(con, spelled), spelled
    assert why.rows_of_url(con, f"{row['url']}?v=2") == []
    assert why.rows_of_url(con, f"{scheme}://{host}/{path.upper()}") == []
    assert why.rows_of_url(con, "https://nowhere.example/") == []


def test_equal_addresses_are_found_together(
    why: Why, con: duckdb.DuckDBPyConnection, pairs: list[dict[str, Any]]
) -> None:
    """Rows that were dropped as the same pair have the address of the pair that stayed."""
    by_uid = {row["uid"]: row for row in pairs}
    copies = [row for row in pairs if row["reason"] == "duplicate_pair"]
    assert copies
    for row in copies:
        found = why.rows_of_url(con, row["url"])
        assert row["row"] in found
        assert by_uid[row["duplicate_of"]]["row"] in found


def test_a_caption_is_cleaned_as_stage_15_does(why: Why, pairs: list[dict[str, Any]]) -> None:
    given = [row for row in pairs if row["raw_text"] != row["text"] and row["text"]][:6]
    assert given
    for row in given:
        assert why.clean(row["raw_text"]) == row["text"]


@pytest.mark.parametrize(
    ("url", "text", "reason"),
    [
        ("ftp://pictures.example/a.jpg", "", "url_scheme"),
        ("https://pictures.example/a.svg", "", "url_extension"),
        ("", "IMG_20340101.jpg", "file_name"),
        ("", "red", "text_too_short"),
        ("", "!!! ??? ### ,,, ;;; red dog", "few_letters"),
        ("", "no such word stands in this one", "no_query"),
        ("https://pictures.example/a.jpg", "A red circle and a blue square.", None),
    ],
)
def test_what_was_never_in_the_input_is_judged_by_the_stages(
    why: Why,
    con: duckdb.DuckDBPyConnection,
    capfd: pytest.CaptureFixture[str],
    url: str,
    text: str,
    reason: str | None,
) -> None:
    found = why.verdict(con, url, text)
    assert (found.reason, found.stage) == (reason, "30_filter" if reason else None)
    if reason is None:
        assert {"red circle", "blue square"} <= set(found.queries)
    assert capfd.readouterr().err == ""  # it is no build that people wait for


def test_a_rule_of_the_user_and_an_opt_out_count_too(
    corpus: Path, con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    for name in ("config.json", "queries.parquet"):
        (tmp_path / name).write_bytes((corpus / name).read_bytes())
    (tmp_path / "optouts.txt").write_text("refused.example\n")
    why = Why(tmp_path)
    assert why.verdict(con, "https://a.refused.example/x.jpg", "").reason == "opted_out"
    ruled = why.config.model_copy(update={"drop": {"wild": "text LIKE '%tiger%'"}})
    why.config, why.plain["drop"] = ruled, ruled.drop
    found = why.verdict(con, "", "A red circle beside a tiger.")
    assert found.reason == "wild"
    assert why.limits("wild") == {"drop.wild": "text LIKE '%tiger%'"}
    assert "tiger" in why.meaning("wild")


def test_each_threshold_is_a_key_of_the_config(why: Why) -> None:
    for reason, keys in LIMITS.items():
        assert list(why.limits(reason)) == list(keys)
        for key in keys:
            value: Any = ShardsConfig()
            for part in key.split("."):
                value = getattr(value, part)
        assert why.meaning(reason) == REASONS[reason]


def test_features_decide_too(why: Why) -> None:
    cosine = {"dedupe.max_cosine": why.plain["dedupe"]["max_cosine"]}
    assert {"dedupe.features": [], **cosine}.items() <= why.limits("near_duplicate_image").items()
    assert {"dedupe.evaluation_features": [], **cosine}.items() <= why.limits("overlap").items()


def test_what_was_measured_is_said(pairs: list[dict[str, Any]]) -> None:
    told = {row["reason"]: measured(row) for row in pairs if row["reason"]}
    assert "characters" in told[Reason.TEXT_TOO_SHORT]
    assert "pixels" in told[Reason.IMAGE_TOO_SMALL]
    assert "probability" in told[Reason.LANGUAGE]
    assert told[Reason.HTTP_404] == ""


def test_questions_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="paste an address"):
        check("", " ")
    with pytest.raises(InputError, match="too long"):
        check("x" * 30_000, "")
    with pytest.raises(CorpusError, match=r"config\.json: not a corpus' config"):
        Why(tmp_path)
