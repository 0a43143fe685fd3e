"""Stage 40: duplicates of the metadata; where it is asked for, near-duplicate captions too.

Captions of different images are near-duplicates when they share enough of their shingles (runs of
words; Jaccard). MinHash-LSH finds them (Broder, "On the resemblance and containment of documents",
1997) without a comparison of all with all: a caption is sketched by a signature, whose bands are
joined. The signatures are rensa's; the rest is SQL over work files, so nothing but one byte a row
is held in memory. Each step is cut into parts, which are made, and made again, by themselves:

    firsts      by caption   the best row of equal captions, which stands for them
    bands       by file      its bands
    pairs       by band      candidates: captions of equal keys, held against the best of them
    candidates  by file      each once, with the words of the better
    alike       by file      those that share enough, counted and not estimated
    gone        whole        which gives way, and to which
    (rows)      by URL       the verdicts
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import NearTextsConfig, ShardsConfig
from pipeline.context import Context
from pipeline.parts import Given, Part, file_ranges, key_parts, make_all, make_sql
from wit.errors import MissingExtra
from wit.progress import Progress

if TYPE_CHECKING:
    import duckdb

CENTRES = 16  # captions of one key with which the others are compared
RECALL = 0.95  # at least this share of the pairs at the threshold itself is found
SEED = 1  # of the permutations
_ROWS = 16  # files whose rows a share of a band has: they are spilled where they don't fit
_STEPS = ("firsts", "bands", "pairs", "candidates", "alike")
_SQL = (
    *(f"40_near_{name}.sql" for name in ("firsts", "bands", "pairs", "words", "alike", "edges")),
    "40_near_texts.sql",
    "shingles.sql",
)
_GONE = pa.schema([("row", pa.int64()), ("kept_row", pa.int64())])


def params(config: ShardsConfig) -> dict[str, Any]:
    """Which captions of one URL are too many or too much alike; which of different URLs, if any.

    Raises:
        MissingExtra: near-duplicate captions are asked for and rensa is not installed.
    """
    given: dict[str, Any] = {
        "captions_per_image": config.dedupe.captions_per_image,
        "caption_likeness": config.dedupe.caption_likeness,
    }
    near = config.dedupe.near_texts
    if near.threshold:
        from pipeline.engine import sql_text

        given["near_texts"] = {
            **near.model_dump(),
            "band_rows": band_rows(near),
            "centres": CENTRES,
            "seed": SEED,
            "algorithm": int(_rensa().ALGORITHM_VERSION),
            "sql": [sql_text(file) for file in _SQL],
        }
    return given


def band_rows(near: NearTextsConfig) -> int:
    """Values of the signature in a band: the most with which `RECALL` of the pairs whose likeness
    is the threshold agree in some band. More values give fewer candidates."""

    def found(rows: int) -> float:
        return float(1 - (1 - near.threshold**rows) ** (near.permutations // rows))

    rows = 1
    while rows < near.permutations and found(rows + 1) >= RECALL:
        rows += 1
    return rows


def dedupe(context: Context) -> None:
    """Write row, reason, kept_row, rank, by keys of URLs."""
    near = context.params.get("near_texts")
    out = context.out / ".exact" if near else context.out
    out.mkdir(exist_ok=True)
    engine, tables = context.config.engine, _tables(context)
    keys = key_parts(context.rows, engine)
    exact = [
        _part(out / name, "40_dedupe.sql", {**tables, **context.params, **part})
        for name, part in keys.items()
    ]
    make_all(exact, engine, context.progress)
    if near:
        made = _find(context, near, {**tables, "exact": str(out / "*.parquet")})
        last = [
            _part(context.out / name, "40_near_texts.sql", {**made, "exact": str(out / name)})
            for name in keys
        ]
        make_all(last, engine, context.progress)


def _tables(context: Context) -> dict[str, str]:
    return {"clean": context.table("15_clean"), "filter": context.table("30_filter")}


def _find(context: Context, near: Given, tables: dict[str, str]) -> dict[str, str]:
    """Make the steps up to `gone`; returns the tables with theirs."""
    engine, progress = context.config.engine, context.progress
    for name in _STEPS:
        (context.out / f".{name}").mkdir(exist_ok=True)
        tables[name] = str(context.out / f".{name}" / "*.parquet")
    clean = context.inputs["15_clean"]
    ranges = file_ranges(clean)

    def by_file(step: str, file: str, make: Any = make_sql) -> list[Part]:
        return [
            _part(
                context.out / f".{step}" / name,
                file,
                {**near, **tables, "clean": str(clean / name), "first": first, "last": last},
                make,
            )
            for name, (first, last) in ranges.items()
        ]

    firsts = key_parts(context.rows, engine).items()
    shares = key_parts(context.rows, engine, _ROWS).items()
    bands = range(near["permutations"] // near["band_rows"])
    steps = (
        [_part(context.out / ".firsts" / n, "40_near_firsts.sql", tables | p) for n, p in firsts],
        by_file("bands", "40_near_bands.sql", make_bands),
        [
            _part(
                context.out / ".pairs" / f"{band:03}-{name}",
                "40_near_pairs.sql",
                {**near, **tables, **part, "band": band},
            )
            for band in bands
            for name, part in shares
        ],
        by_file("candidates", "40_near_words.sql", make_shingled),
        by_file("alike", "40_near_alike.sql", make_shingled),
    )
    for parts in steps:
        make_all(parts, engine, progress, python=parts[0].make is make_bands)
    tables["gone"] = str(context.out / ".gone.parquet")
    given = {"alike": tables["alike"], "rows": context.rows}
    make_all([Part(Path(tables["gone"]), make_gone, given)], engine, progress)
    return tables


def _part(target: Path, file: str, given: Given, make: Any = make_sql) -> Part:
    return Part(target, make, {"file": file, "params": dict(given)})


def make_shingled(
    con: duckdb.DuckDBPyConnection, given: Given, target: Path, progress: Progress | None
) -> None:
    """`make_sql` with the macro shingles."""
    from pipeline.engine import sql_text

    con.execute(f"CREATE TEMP MACRO shingles(words, size) AS (\n{sql_text('shingles.sql')}\n)")
    make_sql(con, given, target, progress)


def make_bands(
    con: duckdb.DuckDBPyConnection, given: Given, target: Path, progress: Progress | None
) -> None:
    """`make_shingled` with the function minhash_bands."""
    from duckdb.func import PythonUDFType

    sketch = Sketch(given["params"]["permutations"], given["params"]["band_rows"])
    con.create_function(
        "minhash_bands", sketch, ["UBIGINT[]"], "UBIGINT[]", type=PythonUDFType.ARROW
    )
    make_shingled(con, given, target, progress)


class Sketch:
    """The keys of the bands of a column of sets."""

    def __init__(self, permutations: int, band_rows: int) -> None:
        self._permutations, self._band_rows = permutations, band_rows
        self._bands = permutations // band_rows
        self._digests = _rensa().digest_matrix_from_flat_token_hashes

    def __call__(self, sets: pa.ChunkedArray) -> pa.Array:
        """Lists of 64-bit hashes of a set's members -> for each set one key a band."""
        lists = sets.combine_chunks()
        hashes = lists.flatten().to_numpy()
        ends = np.zeros(len(lists) + 1, np.uint64)
        np.cumsum(lists.value_lengths().to_numpy(), out=ends[1:])
        rows = self._digests(hashes, ends, self._permutations, SEED).to_rows()
        used = self._bands * self._band_rows
        signatures = np.array(rows, np.uint64).reshape(-1, self._permutations)[:, :used]
        values = signatures.reshape(-1, self._bands, self._band_rows)
        keys = np.zeros(values.shape[:2], np.uint64)
        for i in range(self._band_rows):  # multiply and fold, so that all bits are mixed
            keys = (keys ^ values[:, :, i]) * np.uint64(0x9E3779B97F4A7C15)
            keys ^= keys >> np.uint64(32)
        starts = np.arange(0, keys.size + 1, self._bands, dtype=np.int32)
        return pa.ListArray.from_arrays(starts, keys.ravel())


def make_gone(
    con: duckdb.DuckDBPyConnection, given: Given, target: Path, progress: Progress | None
) -> None:
    """Which captions give way (row), and to which (kept_row)."""
    from pipeline.engine import sql_text

    edges = con.sql(sql_text("40_near_edges.sql"), params={"alike": given["alike"]})
    gone = bytearray(given["rows"])
    with pq.ParquetWriter(target, _GONE, compression="zstd") as writer:
        for batch in edges.to_arrow_reader(100_000):
            kept, row = batch.column(0).to_pylist(), batch.column(1).to_pylist()
            found = [*give_way(zip(kept, row, strict=True), gone)]
            lines = [{"row": worse, "kept_row": better} for worse, better in found]
            writer.write_table(pa.Table.from_pylist(lines, _GONE))


def give_way(edges: Iterator[tuple[int, int]], gone: bytearray) -> Iterator[tuple[int, int]]:
    """As `dedupe.representatives`, in one byte a row: (row, the one that stays for it) of each row
    that gives way, from pairs (better, worse) in the order of the better."""
    for better, worse in edges:
        if not gone[better] and not gone[worse]:
            gone[worse] = 1
            yield worse, better


def _rensa() -> Any:
    try:
        from rensa import RMinHash
    except ModuleNotFoundError:
        raise MissingExtra("rensa", "minhash") from None
    return RMinHash
