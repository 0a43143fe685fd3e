"""Which samples a run is made of: all of its corpora, a list of uids, or what a query chooses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from train import checkpoint
from train.config import TrainConfig
from train.dist import World
from train.pairs import BadSamples, Pairs
from wit.errors import ConfigError


def open_pairs(config: TrainConfig, bad: BadSamples, here: World) -> Pairs:
    """The samples of a run.

    Raises:
        ConfigError: a query and a list, or a query of several or remote corpora, or a wrong one.
        InputError, CorpusError: see `Pairs`.
    """
    data = config.data
    select = data.select
    if data.query:
        if select is not None:
            raise ConfigError("data.query and data.select exclude each other: leave out one")
        select = chosen(config, here)
    return Pairs(config.corpus, bad, select, data.shard_cache, int(data.shard_cache_gb * 1e9))


def chosen(config: TrainConfig, here: World) -> Path:
    """RUN/selected.csv, the uids that `data.query` gives, asked for by the main process once a run.

    `wit sql` asks, as a process of its own: training works where DuckDB isn't installed.
    """
    path = config.run / "selected.csv"
    problem = ""
    if here.main and not (path.is_file() and checkpoint.marks(config.run)):
        if "://" in config.corpus or "::" in config.corpus:
            problem = "it is for one corpus directory; for others give a list as data.select"
        else:
            problem = _ask(config.data.query, config.corpus, path)
    problem = here.gather_objects(problem)[0]
    if problem:
        raise ConfigError(f"data.query: {problem}")
    return path


def _ask(query: str, corpus: str, path: Path) -> str:
    """Writes the answer; returns what was wrong, in one line, or nothing."""
    command = [sys.executable, "-m", "wit.cli", "sql", query, "--corpus", corpus, "--csv"]
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no answer"])[-1].removeprefix("wit: ")
    with temporary.open(encoding="utf-8") as lines:
        header = lines.readline().strip()
    if header not in ("uid", "key"):
        return f"it gives {header or 'nothing'}; let it SELECT uid alone"
    temporary.replace(path)
    return ""
