"""`wit stats` says what the corpus holds, as tables and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from pipeline.stats import SECTIONS, main, report
from wit import manifest
from wit.errors import ConfigError, CorpusError


def test_the_report_agrees_with_the_manifest(corpus: Path) -> None:
    found = report(corpus, top=7)
    assert list(found) == list(SECTIONS)
    assert all(found.values())
    stages = {stage["name"]: stage for stage in manifest.read(corpus).stages}
    for line in found["funnel"]:
        stage = stages[line["stage"]]
        assert (line["rows_in"], line["rows_out"]) == (stage["rows_in"], stage["rows_out"])
    whole = found["corpus"][0]
    assert whole["kept"] == stages["80_pack"]["rows_out"]
    assert whole["rows"] - whole["kept"] == sum(line["rows"] for line in found["reasons"])
    head = [line["kept"] for line in found["queries, head"]]
    tail = [line["kept"] for line in found["queries, tail"]]
    assert len(head) == 7
    assert head == sorted(head, reverse=True)
    assert tail == sorted(tail)
    assert min(tail) > 0


def test_both_forms_are_printed(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(corpus)]) == 0
    text = capsys.readouterr().out
    assert all(f"\n{heading}\n" in text for heading in SECTIONS)
    assert main([str(corpus), "--top", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report(corpus, top=3)


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="top = '0' is out of range"):
        main(["--top", "0"])


def test_a_catalogue_of_another_version_is_one_line(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "corpus.duckdb")) as con:
        con.execute("CREATE TABLE pairs AS SELECT 1 AS row")
    with pytest.raises(CorpusError, match="damaged or of another version: ") as caught:
        main([str(tmp_path)])
    assert "\n" not in str(caught.value)
