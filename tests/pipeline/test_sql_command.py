"""`wit sql`: answers, and no way to change or reach anything."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from pipeline import sql_command
from pipeline.catalogue import TABLES
from pipeline.sql_command import main, table
from wit import cli
from wit.errors import ConfigError, CorpusError, InputError
from wit.progress import Progress


def ask(corpus: Path, *args: str) -> None:
    assert main([*args, "--corpus", str(corpus)]) == 0


def test_a_table(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(corpus, "SELECT 1 AS one, 'x' AS letter, NULL AS nothing")
    assert (
        capsys.readouterr().out
        == "one  letter  nothing\n───  ──────  ───────\n  1  x             -\n"
    )


def test_json_and_csv_hold_every_row(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = "SELECT row, url, raw_text FROM pairs ORDER BY row"
    ask(corpus, query, "--json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ask(corpus, query, "--csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(lines) == len(rows) > 40
    assert [line["row"] for line in lines] == [int(row["row"]) for row in rows]


def test_long_results_are_cut_and_said_to_be(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(corpus, "SELECT row FROM pairs", "--rows", "3")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 3 + 1
    assert lines[-1] == "… more rows than 3; --rows 0 shows all"
    ask(corpus, "SELECT row FROM pairs LIMIT 3", "--rows", "3")
    assert len(capsys.readouterr().out.splitlines()) == 2 + 3


def test_without_a_query_the_tables_are_listed(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(corpus)
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]} == set(TABLES)


@pytest.mark.parametrize(
    "query",
    [
        "SELEC 1",
        "SELECT nothing FROM pairs",
        "DROP TABLE pairs",
        "INSERT INTO words VALUES ('x', 1, 1)",
        "COPY pairs TO 'stolen.csv'",
        "SELECT * FROM read_text('/etc/hostname')",
        "ATTACH 'other.duckdb'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
    ],
)
def test_bad_and_forbidden_queries_are_one_line(corpus: Path, query: str) -> None:
    with pytest.raises(InputError, match="mend the query") as caught:
        ask(corpus, query)
    assert "\n" not in str(caught.value)


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        main(["SELECT 1", "--json", "--csv"])
    with pytest.raises(CorpusError, match="run `wit shards"):
        main(["SELECT 1", "--corpus", str(tmp_path)])


def test_cells_hold_no_control_characters_and_have_an_end() -> None:
    text = table(["a"], [["x\x1b[31m\ny"], ["long " * 30]])
    assert "\x1b" not in text
    assert text.splitlines()[2] == "x [31m y"
    assert text.splitlines()[3].endswith("…")
    assert len(text.splitlines()[3]) == 60
    assert table(["n"], [[1234567], [0.25], [True]]).split()[2:] == ["1,234,567", "0.25", "True"]


class CtrlC(Progress):
    """Pressed once, when the query is on its way."""

    pressed = False

    def __call__(self, done: float, total: float, unit: str = "rows") -> None:
        if not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_in_a_query_is_one_line(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB reports it as an error of its own."""
    long = "SELECT sum(a.range * b.range) FROM range(1000000) a, range(100000) b"
    monkeypatch.setattr(sys, "argv", ["wit", "sql", long, "--corpus", str(corpus)])
    monkeypatch.setattr(sql_command, "Progress", CtrlC)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == (
        "wit: stopped; run the same command again: what was saved is kept\n"
    )
