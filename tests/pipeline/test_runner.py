"""The runner: what stands is kept, what changed is rebuilt, a kill leaves old or new."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import parts as parts_module
from pipeline import runner as runner_module
from pipeline.config import EngineConfig, ShardsConfig
from pipeline.context import Context, Counts, Stage
from pipeline.engine import engine_errors
from pipeline.runner import Runner
from wit.errors import WitError

from .conftest import run_in

ROWS = [(f"http://h.example/{i}", f"dog number {i}") for i in range(20)]
SQL_STAGES = [
    "10_ingest",
    "12_urls",
    "13_lists",
    "15_clean",
    "18_queries",
    "20_match",
    "25_repeats",
    "28_scores",
    "30_filter",
    "40_dedupe",
    "48_bring",
    "50_balance",
]
FIRST: dict[str, Any] = {"rows": ROWS, "queries": ["dog"]}
AFTER_FILTER = ["30_filter", "40_dedupe", "48_bring", "50_balance"]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "inputs.json"
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the stages were run on `FIRST`."""
    folder = tmp_path_factory.mktemp("first")
    assert run_in(folder, "50_balance", **FIRST).built() == SQL_STAGES
    return folder


@pytest.mark.parametrize(
    ("change", "rebuilt"),
    [
        ({}, []),
        ({"engine": {"threads": 3, "memory_limit": "1GB"}}, []),
        ({"fetch": {"processes": 5, "resolve": {"x.example": "127.0.0.1:80"}}}, []),
        ({"balance": {"cap": 7}}, ["48_bring", "50_balance"]),
        ({"dedupe": {"captions_per_image": 2}}, ["40_dedupe", "48_bring", "50_balance"]),
        ({"text": {"min_chars": 12}}, AFTER_FILTER),
        ({"drop": {"two": "text LIKE '%2'"}}, AFTER_FILTER),
        ({"scores": {"nsfw": {"max": None}}}, []),
        ({"queries": ["number"]}, ["18_queries", "20_match", *AFTER_FILTER]),
        ({"rows": ROWS[:5]}, [stage for stage in SQL_STAGES if stage != "13_lists"]),
    ],
)
def test_a_change_rebuilds_what_follows_it(
    run_until: Any, tmp_path: Path, built: Path, change: dict[str, Any], rebuilt: list[str]
) -> None:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    changed = FIRST | change
    assert run_until("50_balance", **changed).built() == rebuilt
    assert run_until("50_balance", **changed).built() == []


def test_bytes_do_not_depend_on_threads_or_tries(run_until: Any, tmp_path: Path) -> None:
    """Enough rows for several row groups, which threads write at the same time; most hold no word,
    since languages take their time."""
    size = 130_000
    table = pa.table(
        {
            "url": [f"http://h{i % 7}.example/{i % 125_000}" for i in range(size)],
            "text": ["!" * (i % 9) if i % 20 else f"dog and cat {i % 9_000}" for i in range(size)],
        }
    )
    pq.write_table(table, tmp_path / "many.parquet")
    found = []
    for threads in (1, 4):
        shutil.rmtree(tmp_path / "corpus", ignore_errors=True)
        run_until(
            "50_balance",
            queries=["dog", "cat", "dog and cat"],
            input=[tmp_path / "many.parquet"],
            text={"languages": [], "boilerplate_urls": 3},
            balance={"cap": 1000},
            engine={"threads": threads, "partition_rows": 50_000},
        )
        found.append(digests(tmp_path / "corpus" / "stages"))
    assert found[0] == found[1]
    ingest = list((tmp_path / "corpus/stages/10_ingest").glob("*.parquet"))
    assert len(ingest) == 3


def stages_of(tables: Any, *names: str) -> dict[str, dict[str, tuple[int, int]]]:
    """Stage -> work file -> what tells whether it is the same file on disk."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for name in names:
        files = sorted(tables.runner.results[name].folder.glob("*.parquet"))
        found[name] = {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}
    return found


def test_new_input_leaves_the_parts_of_the_old_as_they_are(run_until: Any, tmp_path: Path) -> None:
    names = ("10_ingest", "12_urls", "15_clean", "50_balance")
    folder = tmp_path / "in"
    folder.mkdir()

    def add(name: str, texts: list[str]) -> None:
        urls = [f"http://h.example/{name}/{i}" for i in range(len(texts))]
        pq.write_table(pa.table({"url": urls, "text": texts}), folder / f"{name}.parquet")

    engine = {"partition_rows": 4, "threads": 1}
    given = {"input": [folder], "queries": ["dog"], "engine": engine}
    add("a", [f"a dog {i}" for i in range(6)])
    before = stages_of(run_until("50_balance", **given), *names)
    add("b", [f"a big dog {i}" for i in range(3)])
    tables = run_until("50_balance", **given)
    after = stages_of(tables, *names)
    assert list(after["15_clean"]) == ["00000.parquet", "00001.parquet", "00002.parquet"]
    for name in names[:-1]:
        assert after[name].items() >= before[name].items()
    assert [row["row"] for row in tables("50_balance")] == list(range(9))
    made = digests(tmp_path / "corpus" / "stages")
    shutil.rmtree(tmp_path / "corpus")
    run_until("50_balance", **given)
    assert digests(tmp_path / "corpus" / "stages") == made


def test_a_part_that_failed_is_made_again_alone(
    run_until: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"rows": ROWS, "queries": ["dog"], "engine": {"partition_rows": 5, "threads": 1}}
    real, made = parts_module.make, []

    def failing(part: Any, *args: Any) -> None:
        made.append((part.target.parent.name.split(".")[0], part.target.name))
        if made[-1] == ("15_clean", "00002.parquet") and made.count(made[-1]) == 1:
            raise Killed
        real(part, *args)

    monkeypatch.setattr(parts_module, "make", failing)
    with pytest.raises(Killed):
        run_until("15_clean", **given)
    run_until("15_clean", **given)
    cleaned = [name for stage, name in made if stage == "15_clean"]
    assert cleaned == [f"{i:05}.parquet" for i in (0, 1, 2, 2, 3)]
    assert [row["row"] for row in run_until("15_clean", **given)("15_clean")] == list(range(20))


def config_at(folder: Path) -> ShardsConfig:
    return ShardsConfig(corpus=folder)


def numbers(rows: int = 3, reasons: list[str | None] | None = None) -> Any:
    """A stage function that writes `rows` lines, and a published file."""

    def build(context: Context) -> None:
        columns: dict[str, Any] = {"row": pa.array(range(rows), pa.int64())}
        if reasons is not None:
            columns["reason"] = pa.array(reasons, pa.string())
        pq.write_table(pa.table(columns), context.out / "rows.parquet")
        (context.out / "public").mkdir(exist_ok=True)
        (context.out / "public" / "data.txt").write_text("data")
        (context.out / ".scratch.parquet").write_text("not a table")
        (context.out / "stage.json.17-0a1b2c3d.tmp").write_text("{")  # as a kill leaves it

    return build


def test_counts_come_from_the_table(tmp_path: Path) -> None:
    stage = Stage("10_a", (), numbers(4, [None, "no_url", "no_url", "no_text"]))
    result = Runner(config_at(tmp_path)).run(stage)
    assert result.counts == Counts(4, 1, {"no_text": 1, "no_url": 2})
    record = json.loads((result.folder / "stage.json").read_text())
    assert (record["rows_in"], record["rows_out"]) == (4, 1)
    assert sorted(record["files"]) == ["public/data.txt", "rows.parquet"]
    assert not [*tmp_path.rglob(".scratch*"), *tmp_path.rglob("*.tmp")]


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(AssertionError, match="5 != 3 \\+ 1"):
        Counts(5, 3, {"no_url": 1})


@pytest.mark.parametrize(
    ("rows", "reasons", "says"),
    [
        (2, [None, None], "3 rows came, 2 were judged, 1 are missing"),
        (4, [None] * 4, "3 rows came, 4 were judged"),
        (3, [None, "no_url", "bad mood"], "bad mood"),
    ],
)
def test_a_decision_stage_must_cover_what_it_received(
    tmp_path: Path, rows: int, reasons: list[str | None], says: str
) -> None:
    runner = Runner(config_at(tmp_path))
    runner.run(Stage("10_a", (), numbers(5, [None, None, None, "no_url", "no_text"])))
    with pytest.raises((AssertionError, ValueError), match=says):
        runner.run(Stage("20_b", ("10_a",), numbers(rows, reasons), judges="10_a"))
    assert not (tmp_path / "stages" / "20_b").exists()
    good = numbers(3, [None, "no_url", None])
    result = runner.run(Stage("20_b", ("10_a",), good, judges="10_a"))
    assert result.counts == Counts(3, 2, {"no_url": 1})


def test_a_row_judged_twice_is_refused(tmp_path: Path) -> None:
    def twice(context: Context) -> None:
        rows = {"row": pa.array([0, 1, 1], pa.int64())}
        pq.write_table(pa.table(rows), context.out / "rows.parquet")

    runner = Runner(config_at(tmp_path))
    runner.run(Stage("10_a", (), numbers(3)))
    with pytest.raises(AssertionError, match="1 are missing, 1 stand twice"):
        runner.run(Stage("20_b", ("10_a",), twice, judges="10_a"))


PUBLISHING = Stage("10_a", (), numbers(), publish=("public",))


def test_published_files_move_and_a_lost_one_is_made_again(tmp_path: Path) -> None:
    result = Runner(config_at(tmp_path)).run(PUBLISHING)
    assert (tmp_path / "public" / "data.txt").read_text() == "data"
    assert not (result.folder / "public").exists()
    assert not Runner(config_at(tmp_path)).run(PUBLISHING).built
    (tmp_path / "public" / "data.txt").unlink()
    assert Runner(config_at(tmp_path)).run(PUBLISHING).built
    assert (tmp_path / "public" / "data.txt").read_text() == "data"


class Killed(BaseException):
    """Ends a run as a kill would: nothing may catch it."""


STEPS = ("_remove_scratch", "_sync", "write_json", "_sync_folder", "_replace", "_publish")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("older", [False, True])
def test_a_kill_at_any_step_leaves_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool, older: bool
) -> None:
    if older:
        Runner(config_at(tmp_path)).run(dataclasses.replace(PUBLISHING, version=0))
    (tmp_path / "manifest.json").write_text("{}")
    real = getattr(runner_module, step)

    def killed(*args: Any) -> None:
        if after:
            real(*args)
        raise Killed

    monkeypatch.setattr(runner_module, step, killed)
    with pytest.raises(Killed):
        Runner(config_at(tmp_path)).run(PUBLISHING)
    monkeypatch.undo()
    assert not (tmp_path / "manifest.json").exists()
    result = Runner(config_at(tmp_path)).run(PUBLISHING)
    assert result.counts == Counts(3, 3)
    assert sorted(digests(tmp_path)) == [
        "public/data.txt",
        "stages/10_a/rows.parquet",
        "stages/10_a/stage.json",
    ]
    assert not Runner(config_at(tmp_path)).run(PUBLISHING).built


def test_partial_work_is_found_again(tmp_path: Path) -> None:
    def half(context: Context) -> None:
        (context.out / "half.txt").write_text("done before")
        raise Killed

    def rest(context: Context) -> None:
        assert (context.out / "half.txt").read_text() == "done before"
        numbers()(context)

    with pytest.raises(Killed):
        Runner(config_at(tmp_path)).run(Stage("10_a", (), half))
    Runner(config_at(tmp_path)).run(Stage("10_a", (), rest))


def test_a_torn_marker_is_no_marker(tmp_path: Path) -> None:
    result = Runner(config_at(tmp_path)).run(PUBLISHING)
    (result.folder / "stage.json").write_text('{"name": "10')
    assert Runner(config_at(tmp_path)).run(PUBLISHING).built


def test_too_little_memory_is_one_line(run_until: Any, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"url": [f"u{i}" for i in range(200_000)], "text": ["a dog"] * 200_000}),
        tmp_path / "many.parquet",
    )
    with pytest.raises(WitError, match=r"raise --engine\.memory_limit") as caught:
        run_until("10_ingest", input=[tmp_path / "many.parquet"], engine={"memory_limit": "1MB"})
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line() -> None:
    with (
        pytest.raises(WitError, match=r"50_balance: IO Error: .*No space left.*free disk space"),
        engine_errors("50_balance", EngineConfig()),
        duckdb.connect() as con,
    ):
        con.execute("COPY (SELECT range FROM range(2000000)) TO '/dev/full' (FORMAT csv)")
