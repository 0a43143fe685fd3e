"""A build that is killed again and again ends as one that was left alone."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from pipeline import catalogue
from pipeline.sample.build import Recipe, write
from pipeline.sample.command import hosts
from pipeline.sample.limits import LIMITS
from pipeline.sample.server import serve
from wit import cli

# When to kill, in the order of a build: once such a path is there, and a random moment later.
MOMENTS = (
    ("stages/15_clean*", 0.1),
    ("stages/60_fetch.*.tmp", 1.5),
    *[("stages/60_fetch.*.tmp/.ledgers/*.ledger", 0.3)] * 8,
    ("stages/60_fetch.*.tmp/img2dataset/*_stats.json", 0.1),
    ("stages/60_fetch", 0.3),
    ("stages/80_pack*", 0.1),
    ("shards", 0.05),
    ("stages/95_catalogue.*.tmp", 0.3),
)
# hold clock times; holds a random id; is the lock
NOT_COMPARED = ("log.jsonl", "provenance.parquet", "corpus.duckdb", ".lock")


@contextmanager
def settings(sample: Path) -> Iterator[Path]:
    """A config file that builds `sample`, whose server runs meanwhile."""
    with serve(sample) as port:
        lines = [f'input = ["{sample}/metadata.parquet"]', f'queries = "{sample}/queries.txt"']
        for section, keys in {**LIMITS, "fetch": LIMITS["fetch"] | {"processes": 2}}.items():
            lines += [f"[{section}]", *(f"{key} = {value}" for key, value in keys.items())]
        lines.append("[fetch.resolve]")
        lines += [f'"{host}" = "{target}"' for host, target in hosts(port).items()]
        config = sample.with_suffix(".toml")
        config.write_text("\n".join(lines) + "\n", "utf-8")
        yield config


def start(config: Path, corpus: Path, *options: str) -> BaseProcess:
    """`wit shards` in a process of its own, forked from one that has imported what it needs."""
    argv = ["shards", "--config", str(config), "--corpus", str(corpus), *options]
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["wit.cli", "pipeline.build", "pipeline.run", "pipeline.pool"])
    process: BaseProcess = server.Process(target=shards, args=(argv,))
    process.start()
    while os.getpgid(process.pid or 0) != process.pid:  # it is not yet the first of its group
        time.sleep(0.001)
    return process


def shards(argv: list[str]) -> None:
    os.setsid()
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    sys.argv = ["wit", *argv]
    cli.main()


def code(process: BaseProcess) -> int | None:
    """The exit code, once it has ended."""
    process.join(120)
    return process.exitcode


def run_until_killed(config: Path, corpus: Path, pattern: str, delay: float, group: bool) -> bool:
    """Start a build and kill -9 it, alone or with its whole group; False if it ended before."""
    process = start(config, corpus)
    limit = time.monotonic() + 60
    while process.is_alive() and not any(corpus.glob(pattern)):
        assert time.monotonic() < limit, f"{pattern} never came"
        time.sleep(0.002)
    time.sleep(delay)
    if process.is_alive():
        if group and process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    return code(process) == -signal.SIGKILL


def files(corpus: Path) -> dict[str, bytes]:
    return {
        path.relative_to(corpus).as_posix(): path.read_bytes()
        for path in sorted(corpus.rglob("*"))
        if path.is_file() and path.name not in NOT_COMPARED
    }


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill") / "sample"
    write(folder, Recipe(good=80, copies=1, slow=False, evaluation=False))
    return folder


@pytest.fixture(scope="module")
def undisturbed(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = tmp_path_factory.mktemp("undisturbed") / "corpus"
    with settings(sample) as config:
        assert code(start(config, corpus)) == 0
    return corpus


def test_kill_at_any_time_and_run_again(sample: Path, undisturbed: Path, tmp_path: Path) -> None:
    rng, corpus, killed = random.Random(0), tmp_path / "corpus", 0
    with settings(sample) as config:
        for i, (pattern, longest) in enumerate(MOMENTS):
            delay = longest * rng.random()
            killed += run_until_killed(config, corpus, pattern, delay, group=i % 2 == 0)
            assert not (corpus / "manifest.json").exists() or i == len(MOMENTS) - 1
        assert code(start(config, corpus)) == 0
    assert killed >= len(MOMENTS) - 2  # at most the last moments may have come too late
    expected, found = files(undisturbed), files(corpus)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    digests = []
    for folder in (undisturbed, corpus):
        with catalogue.open_catalogue(folder) as con:
            digests.append(catalogue.digest(con))
    assert digests[0] == digests[1]


def test_a_second_run_touches_nothing(sample: Path, undisturbed: Path) -> None:
    def times() -> dict[Path, int]:
        return {
            path: path.stat().st_mtime_ns
            for path in undisturbed.rglob("*")
            if path.is_file() and path.name not in ("log.jsonl", ".lock")
        }

    before = times()
    with settings(sample) as config:
        assert code(start(config, undisturbed)) == 0
    assert times() == before


def test_a_changed_threshold_rebuilds_what_follows_it(
    sample: Path, undisturbed: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(undisturbed, corpus)
    with settings(sample) as config:
        assert code(start(config, corpus, "--image.max_aspect", "8")) == 0
        assert built(corpus) == [
            "70_images",
            "75_cap",
            "80_pack",
            "90_pairs",
            "95_catalogue",
        ]
        wide = "SELECT DISTINCT verdict FROM pairs WHERE url LIKE '%extreme_aspect%'"
        with catalogue.open_catalogue(corpus) as con:
            assert con.execute(wide).fetchall() == [("kept",)]
        assert code(start(config, corpus)) == 0  # and back again
    assert files(corpus) == files(undisturbed)


def built(corpus: Path) -> list[str]:
    """The stages that the last run built."""
    lines = [json.loads(line) for line in (corpus / "log.jsonl").read_text().splitlines()]
    first = max(i for i, line in enumerate(lines) if "run" in line)
    return [line["stage"] for line in lines[first + 1 :] if line["built"]]
