"""Run the first stages on rows made in a test, and look at their tables; a small web server."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import ShardsConfig

Rows = Sequence[tuple[str | None, str | None]]
Table = dict[int, dict[str, Any]]


class Tables:
    """The work tables of a corpus whose first stages were run."""

    def __init__(self, config: ShardsConfig, until: str) -> None:
        from pipeline.runner import Runner
        from pipeline.stages import STAGES

        self.runner = Runner(config)
        for stage in STAGES:
            self.runner.run(stage)
            if stage.name == until:
                break

    def __call__(self, stage: str) -> list[dict[str, Any]]:
        """The rows of a work table, in its order."""
        import duckdb

        with duckdb.connect() as con:
            table = con.read_parquet(str(self.runner.results[stage].folder / "*.parquet"))
            return [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]

    def reasons(self, stage: str) -> dict[int, str | None]:
        """row -> reason of a decision stage."""
        return {line["row"]: line["reason"] for line in self(stage)}

    def built(self) -> list[str]:
        """The stages that had to be built."""
        return [name for name, result in self.runner.results.items() if result.built]


RunUntil = Callable[..., Tables]


@pytest.fixture
def run_until(tmp_path: Path) -> RunUntil:
    """`run_in` below, in a folder of the test."""
    return partial(run_in, tmp_path)


def run_in(
    folder: Path,
    stage: str,
    rows: Rows | None = None,
    queries: Sequence[str] | Path | None = None,
    **sections: Any,
) -> Tables:
    """`run_in(folder, stage, rows, queries=[...], text={"min_chars": 3}, ...)`: run up to a stage
    on (url, text) rows, with sections of the config given as keywords."""
    if rows is not None:
        lines = [json.dumps({"url": url, "text": text}) for url, text in rows]
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    if isinstance(queries, Path):
        sections["queries"] = queries
    elif queries is not None:
        (folder / "queries.txt").write_text("\n".join(queries), "utf-8")
        sections["queries"] = folder / "queries.txt"
    settings = {"input": [folder / "rows.jsonl"], "corpus": folder / "corpus"} | sections
    settings["corpus"].mkdir(exist_ok=True)
    return Tables(ShardsConfig.model_validate(settings), stage)


@pytest.fixture(scope="session")
def sql_on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[Any]]]:
    """`sql_on(file, {"ingest": {"row": [...]}}, cap=3)`: the rows of one file of pipeline/sql on
    tables given as columns."""
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline import udfs
    from pipeline.engine import sql_text

    folder = tmp_path_factory.mktemp("tables")
    with duckdb.connect() as con:
        udfs.register(con)
        # Files are rewritten within the granularity of their times, which the cache relies on.
        con.execute("SET enable_external_file_cache = false")

        def run(file: str, tables: dict[str, dict[str, Any]], **params: Any) -> list[Any]:
            for name, columns in tables.items():
                pq.write_table(pa.table(columns), folder / f"{name}.parquet")
                params[name] = str(folder / f"{name}.parquet")
            rows: list[Any] = con.execute(sql_text(file), params).fetchall()
            return rows

        yield run


Answer = Callable[[BaseHTTPRequestHandler], None]


class Web(ThreadingHTTPServer):
    """A real HTTP server on a free port of this machine: each test says what a path answers.

    Attributes:
        answers: path -> function of the request handler; other paths get 404.
        hits: path -> requests so far.
        asked: path -> headers of the last request.
        closing: set when the server goes down; an endless answer waits on it.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Answer] = {}
        self.hits: Counter[str] = Counter()
        self.asked: dict[str, dict[str, str]] = {}
        self.closing = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def body(self, path: str, data: bytes, **headers: str) -> None:
        """Answer 200 with a body; `Content_Encoding="gzip"` sets a header."""
        self.status(path, 200, data, **{"Content_Length": str(len(data)), **headers})

    def status(self, path: str, code: int, data: bytes = b"", **headers: str) -> None:
        """Answer any status."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(code)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            handler.wfile.write(data)

        self.answers[path] = answer

    def in_turn(self, path: str, *codes: int, data: bytes) -> None:
        """Answer the statuses one after the other, then 200 with `data`."""
        left = list(codes)

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(left.pop(0) if left else 200)
            handler.end_headers()
            handler.wfile.write(data)

        self.answers[path] = answer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up in the middle: many tests are about that."""


class _Handler(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.hits[path] += 1
        self.server.asked[path] = dict(self.headers.items())
        if path in self.server.answers:
            self.server.answers[path](self)
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()
