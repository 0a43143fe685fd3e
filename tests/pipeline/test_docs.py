"""Every SQL question in docs/corpus.md is asked, and every stage and column name holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.catalogue import open_catalogue
from pipeline.stages import STAGES
from wit.schema import COLUMN_NAMES

TEXT = (Path(__file__).parents[2] / "docs" / "corpus.md").read_text("utf-8")
QUESTIONS = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)


def test_there_are_questions() -> None:
    assert len(QUESTIONS) >= 20
    assert len(set(QUESTIONS)) == len(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS, ids=range(len(QUESTIONS)))
def test_a_question_has_an_answer(corpus: Path, question: str) -> None:
    with open_catalogue(corpus) as con:
        assert con.execute(question).fetchall()


def test_the_stages_are_those_of_the_list() -> None:
    assert re.findall(r"^\| (\d\d_\w+) \|", TEXT, re.MULTILINE) == [s.name for s in STAGES]


def test_the_column_names_are_those_of_the_schema() -> None:
    for names in COLUMN_NAMES.values():
        assert f"| {', '.join(names)} |" in TEXT
