"""A query of the catalogue chooses what is trained on: both halves together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from train.config import TrainConfig
from train.dist import World
from train.pairs import BadSamples
from train.select import open_pairs
from wit.errors import ConfigError

ALONE = World(0, 1, torch.device("cpu"))
KEPT = "SELECT uid FROM pairs WHERE verdict = 'kept'"


def opened(corpus: str, run: Path, query: str, **data: object) -> int:
    run.mkdir(exist_ok=True)
    config = TrainConfig.model_validate(
        {"corpus": corpus, "run": run, "data": {"query": query, **data}}
    )
    return len(open_pairs(config, BadSamples(0, print), ALONE))


def test_a_query_chooses(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert opened(str(corpus), run, f"{KEPT} ORDER BY uid LIMIT 7") == 7
    assert len((run / "selected.csv").read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT url FROM pairs", "it gives url; let it SELECT uid alone"),
        ("SELEC uid FROM pairs", "data.query: .*mend the query"),
    ],
)
def test_a_wrong_query_is_one_line(corpus: Path, tmp_path: Path, query: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        opened(str(corpus), tmp_path / "run", query)
    assert "\n" not in str(caught.value)


def test_a_query_is_of_one_catalogue(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one corpus directory"):
        opened(f"{corpus}::{corpus}", tmp_path / "run", KEPT)
    with pytest.raises(ConfigError, match="exclude each other"):
        opened(str(corpus), tmp_path / "run", KEPT, select=tmp_path / "list.txt")
