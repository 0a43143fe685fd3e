"""`wit sample`, and the sample as the default input of `wit shards`."""

import urllib.request
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.config import BalanceConfig, FetchConfig, ShardsConfig
from pipeline.sample import command
from pipeline.sample.build import Recipe, write
from pipeline.sample.limits import CAP, LIMITS
from wit.errors import ConfigError


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the default sample, made small for the time of a test."""
    recipe = Recipe(good=80, copies=1, slow=False, evaluation=False)
    monkeypatch.setattr("pipeline.sample.build.Recipe", lambda: recipe)
    write(tmp_path / "sample")
    return tmp_path / "sample"


def test_served_fills_in_what_the_user_left_open(small: Path) -> None:
    with command.served(ShardsConfig(), small) as config:
        assert config.input == [str(small / "metadata.parquet")]
        assert config.queries == small / "queries.txt"
        assert config.balance.cap == CAP
        target = config.fetch.resolve["*.example"]
        row = next(
            row
            for row in pq.read_table(small / "truth.parquet").to_pylist()
            if row["kind"] == "good" and ".example/" in row["url"]
        )
        host, _, path = row["url"].removeprefix("http://").partition("/")
        request = urllib.request.Request(f"http://{target}/{path}", headers={"Host": host})
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.read() == (small / "images" / host / path).read_bytes()
    with pytest.raises(OSError):
        urllib.request.urlopen(request, timeout=5)


def test_what_the_user_set_stays() -> None:
    given = ShardsConfig(
        queries=Path("mine.txt"),
        balance=BalanceConfig(cap=7),
        fetch=FetchConfig(retries=3, resolve={"*.test": "127.0.0.1:9", "a.example": "1.1.1.1:80"}),
    )
    config = command.sample_config(given, Path("there"), 1234)
    assert (config.queries, config.balance.cap, config.fetch.retries) == (Path("mine.txt"), 7, 3)
    assert config.fetch.deadline == LIMITS["fetch"]["deadline"]
    assert config.fetch.resolve == {
        "*.example": "127.0.0.1:1234",
        "*.test": "127.0.0.1:9",
        "a.example": "1.1.1.1:80",
    }
    assert ShardsConfig.model_validate(config.model_dump()) == config  # still a valid config


def test_write_says_what_it_wrote(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["write", "--folder", str(small)]) == 0
    rows = pq.read_table(small / "truth.parquet").to_pylist()
    kept = sum(row["verdict"] == "kept" for row in rows)
    assert capsys.readouterr().out == f"{small}: {len(rows)} rows, {kept} of them to be kept\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["sell"], "sell"),
        ([], "ACTION"),
        (["serve", "--port", "70000"], "at most 65535"),
        (["write", "--folders", "x"], "did you mean --folder"),
    ],
)
def test_mistakes_are_named(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        command.main(argv)
