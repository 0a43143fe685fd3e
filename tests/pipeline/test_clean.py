"""15_clean.sql: the short road for ASCII and Python's road lead to the same captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pipeline.config import EngineConfig
from pipeline.engine import connect, sql_text
from pipeline.language import model
from pipeline.udfs import check_languages
from wit.errors import ConfigError
from wit.text import clean_caption, words

ASCII = st.text(st.characters(max_codepoint=127), max_size=40)
TRICKY = st.text("a'sS -_.&;#x09%\t\n\x0b\x1c\x7f\x00dogDOG", max_size=30)
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture(scope="module")
def con(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(EngineConfig(threads=1), tmp_path_factory.mktemp("spill")) as con:
        # The file is rewritten within the granularity of its time, which the cache relies on.
        con.execute("SET enable_external_file_cache = false")
        yield con


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.none() | ASCII | TRICKY | UNICODE, max_size=20))
def test_sql_and_python_agree(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, texts: list[str | None]
) -> None:
    path = tmp_path / "ingest.parquet"
    table = {
        "row": pa.array(range(len(texts)), pa.int64()),
        "raw_text": pa.array(texts, pa.string()),
    }
    pq.write_table(pa.table(table), path)
    found = con.execute(sql_text("15_clean.sql"), {"ingest": str(path)}).fetchall()
    for raw, (_, text, key, joined, language, probability) in zip(texts, found, strict=True):
        assert text == (None if raw is None else clean_caption(raw))
        assert (key is None) == (not text)
        assert joined == (None if raw is None else " ".join(words(text)))
        assert (language is None) == (probability is None) == (not joined)


def test_a_batch_is_judged_as_py3langid_judges_each() -> None:
    texts = [
        *SURE.values(),
        *SHORT_ENGLISH,
        "",
        "!!",
        "ROTER HUND",
        "x" * 700,
        "e\u0301 cafe",
        "\U0001f415",
    ]
    alone = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    together = model().classify(texts)
    for text, (language, probability) in zip(texts, together, strict=True):
        expected, sure = alone.classify(text[:500])
        assert probability == pytest.approx(sure, abs=1e-4)
        assert language == expected
    assert model().classify([]) == []


SURE = {
    "de": "ein kleiner roter Hund läuft über die Wiese",
    "fr": "un chien rouge court dans le champ",
    "es": "un perro rojo corre por el campo",
    "ru": "красная собака бежит по полю",
    "zh": "一只红色的狗在草地上奔跑",
    "ja": "赤い犬が走る",
}
SHORT_ENGLISH = ["a red dog", "dog", "two blue cars", "Nike Air Max 90", "small cat", "pizza"]


def test_a_language_is_rejected_only_when_sure(run_until: Any) -> None:
    rows = [
        (f"http://h.example/{i}", text) for i, text in enumerate([*SURE.values(), *SHORT_ENGLISH])
    ]
    tables = run_until("30_filter", rows, queries=["dog"], text={"min_words": 1, "min_chars": 1})
    clean, reasons = tables("15_clean"), tables.reasons("30_filter")
    assert [row["language"] for row in clean[: len(SURE)]] == list(SURE)
    assert [reasons[i] for i in range(len(SURE))] == ["language"] * len(SURE)
    assert "language" not in [reasons[i] for i in range(len(SURE), len(rows))]


def test_wanted_languages_pass(run_until: Any) -> None:
    rows = [(f"http://h.example/{i}", text) for i, text in enumerate(SURE.values())]
    german = run_until("30_filter", rows, queries=["hund"], text={"languages": ["en", "de"]})
    assert german.reasons("30_filter")[0] is None
    every = run_until("30_filter", rows, queries=["hund"], text={"languages": []})
    assert "language" not in every.reasons("30_filter").values()


def test_an_unknown_language_code_is_named() -> None:
    check_languages(["en", "de"])
    with pytest.raises(ConfigError, match="unknown code 'eng'"):
        check_languages(["en", "eng"])
