"""The config of `wit shards`: what decides the content, and what is refused."""

from __future__ import annotations

import pytest

from pipeline.config import ShardsConfig
from wit.config import fingerprint, load
from wit.errors import ConfigError


def config(*args: str) -> ShardsConfig:
    return load(ShardsConfig, args, prog="wit shards")


@pytest.mark.parametrize(
    "args",
    [
        ["--corpus", "elsewhere"],
        ["--engine.threads", "7", "--engine.memory_limit", "1GB"],
        ["--fetch.processes", "3", "--fetch.connections", "9"],
        ["--fetch.resolve", "*.example=127.0.0.1:8000", "--fetch.resolve", "a.test=[::1]:80"],
    ],
)
def test_what_cannot_change_the_result_is_outside_the_identity(args: list[str]) -> None:
    assert fingerprint(config(*args).identity()) == fingerprint(config().identity())


@pytest.mark.parametrize(
    "args", [["--balance.cap", "7"], ["--fetch.retries", "4"], ["--input", "x.csv"]]
)
def test_what_can_is_inside(args: list[str]) -> None:
    assert fingerprint(config(*args).identity()) != fingerprint(config().identity())


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--engine.memory_limit", "lots"], r"engine\.memory_limit"),
        (["--dedupe.phash_distance", "4"], r"dedupe\.phash_distance = '4' is out of range"),
        (["--fetch.resolve", "a.example=localhost:80"], "must be host=ADDRESS:PORT"),
        (["--fetch.resolve", "a.example=127.0.0.1"], "must be host=ADDRESS:PORT"),
        (["--fetch.resolve", "a.example=127.0.0.1:99999"], "must be host=ADDRESS:PORT"),
        (["--text.min_char", "3"], "did you mean --text.min_chars"),
    ],
)
def test_mistakes_are_named(args: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config(*args)
