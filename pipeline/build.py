"""Build a corpus directory: one run at a time, stage after stage, the manifest last."""

from __future__ import annotations

import difflib
import errno
import fcntl
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import catalogue, leases, rules
from pipeline.config import ShardsConfig
from pipeline.context import Stage
from pipeline.runner import Result, Runner
from pipeline.stages import STAGES
from pipeline.udfs import check_languages
from wit import manifest
from wit.config import as_json, fingerprint, write_json
from wit.errors import ConfigError, CorpusError

_LOCK = ".lock"
_OURS = (_LOCK, "stages", manifest.NAME)  # what marks a folder as a corpus
# Packages that decide what the corpus holds.
_VERSIONS = ("duckdb", "ftfy", "pillow", "py3langid", "regex")


def build(config: ShardsConfig) -> None:
    """Bring a corpus up to date with its config and inputs.

    Raises:
        WitError: bad input, a folder that is no corpus, another run at work, a full disk.
    """
    corpus = config.corpus
    check_languages(config.text.languages)
    rules.check(config.drop)
    stages = _wanted(config.until)
    _check_not_cut(corpus)
    if config.engine.world > 1:
        with _disk_errors(corpus), locked(corpus, shared=True):
            print(leases.fetch_rank(Runner(config), stages), file=sys.stderr)
        return
    with _disk_errors(corpus), locked(corpus):
        log = _Log(corpus / "log.jsonl", config)
        runner = Runner(config)
        for stage in stages:
            log.write(runner.run(stage))
        if stages[-1] is not STAGES[-1]:
            print(_summary_until(corpus, runner.results[stages[-1].name]), file=sys.stderr)
            return
        changed = _finish(config, runner.results)
        print(_summary(corpus, runner.results, changed), file=sys.stderr)


def _wanted(until: str | None) -> tuple[Stage, ...]:
    """The stages to run.

    Raises:
        ConfigError: `until` is none of them.
    """
    names = [stage.name for stage in STAGES]
    if until is None:
        return STAGES
    if until not in names:
        near = difflib.get_close_matches(until, names, n=1, cutoff=0)[0]
        raise ConfigError(f"until = {until!r} is no stage: did you mean {near}?")
    return STAGES[: names.index(until) + 1]


def _check_not_cut(corpus: Path) -> None:
    """Raise a CorpusError for a corpus that has no stages to build on, only what others gave."""
    path = corpus / "config.json"
    if (corpus / manifest.NAME).exists() and path.exists() and "recut" in _read_json(path):
        raise CorpusError(
            f"{corpus}: was cut from other corpora by `wit reshard` or `wit merge`: build in"
            " another --corpus, and join the two with `wit merge`"
        )


def _summary_until(corpus: Path, result: Result) -> str:
    counts = result.counts
    return (
        f"{corpus}: {counts.rows_out:,} of {counts.rows_in:,} rows go on after {result.name}; run"
        " again without --until for the rest"
    )


def _finish(config: ShardsConfig, results: dict[str, Result]) -> bool:
    """Write config.json and the manifest, unless those that stand are right."""
    corpus, last = config.corpus, results[STAGES[-1].name]
    identity = {"fingerprint": fingerprint(config.identity()), "config": config.identity()}
    if (corpus / manifest.NAME).exists():
        standing = manifest.read(corpus).fingerprint == last.fingerprint
        if standing and _read_json(corpus / "config.json") == identity:
            return False
        (corpus / manifest.NAME).unlink()
    write_json(identity, corpus / "config.json")
    with catalogue.open_catalogue(corpus) as con:
        digests = catalogue.digest(con)
    stages = [
        {
            "name": result.name,
            "rows_in": result.counts.rows_in,
            "rows_out": result.counts.rows_out,
            "reasons": dict(result.counts.reasons),
        }
        for result in results.values()
    ]
    versions = {name: importlib.metadata.version(name) for name in _VERSIONS}
    files = manifest.scan(corpus)
    manifest.write(corpus, manifest.Manifest(last.fingerprint, versions, files, stages, digests))
    return True


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _summary(corpus: Path, results: dict[str, Result], changed: bool) -> str:
    pairs = results["90_pairs"].counts
    kept = f"{pairs.rows_out:,} of {pairs.rows_in:,} pairs kept"
    if not changed:
        return f"{corpus} is up to date: {kept}"
    return f"{corpus}: {kept}; `wit stats {corpus}` says more"


@contextmanager
def locked(corpus: Path, shared: bool = False) -> Iterator[None]:
    """Hold the corpus for this process, or for all that share the work. The system drops the lock
    of a process that dies.

    Raises:
        CorpusError: the folder is something else, or another process holds it.
    """
    if corpus.exists() and not corpus.is_dir():
        raise CorpusError(f"{corpus}: a file: give another --corpus")
    if corpus.is_dir() and any(corpus.iterdir()) and not any((corpus / n).exists() for n in _OURS):
        raise CorpusError(f"{corpus}: holds files but no corpus: give another --corpus")
    corpus.mkdir(parents=True, exist_ok=True)
    with (corpus / _LOCK).open("a+") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "?"
            raise CorpusError(
                f"{corpus}: process {holder} is building it: wait for it, stop it, or give"
                " another --corpus"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def _disk_errors(corpus: Path) -> Iterator[None]:
    """A disk that is full or closed to us becomes one line; other errors pass."""
    known = (
        errno.ENOSPC,
        errno.EFBIG,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
    )
    try:
        yield
    except OSError as error:
        if error.errno not in known:
            raise
        where = error.filename or corpus
        raise CorpusError(
            f"{where}: {error.strerror}: make room or get rights there, then run the same command"
            " again"
        ) from None


class _Log:
    """log.jsonl: what each run did and how long it took; no part of the corpus itself."""

    def __init__(self, path: Path, config: ShardsConfig) -> None:
        self._path = path
        self._append({"run": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "config": as_json(config)})

    def write(self, result: Result) -> None:
        self._append(
            {
                "stage": result.name,
                "fingerprint": result.fingerprint,
                "built": result.built,
                "rows_in": result.counts.rows_in,
                "rows_out": result.counts.rows_out,
                "seconds": round(result.seconds, 3),
            }
        )

    def _append(self, record: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
