"""Stage 70: what the downloaded images are worth, and which of them show the same picture.

Sizes are judged by what the download recorded, so a new threshold needs no new download. Of
images that look alike the best stays: the larger, then the one of lower rank. The work is done
on narrow tables in SQL, twenty small joins one after the other; only the pairs that were found
pass through Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import embeddings, lists, optout, overlaps
from pipeline.config import ShardsConfig
from pipeline.context import Context
from pipeline.dedupe import block_masks, representatives
from wit.errors import InputError

if TYPE_CHECKING:
    import duckdb

TABLES = {
    "ingest": "10_ingest",
    "urls": "12_urls",
    "balance": "50_balance",
    "fetch": "60_fetch",
}
SQL_FILES = (
    tuple(
        f"70_{name}.sql"
        for name in ("checked", "hashes", "near", "edges", "looks", "images", "features")
    )
    + overlaps.SQL_FILES
)


OVERLAPS = pa.schema(
    [
        ("url_key", pa.uint64()),
        ("set", pa.string()),
        ("key", pa.string()),
        ("how", pa.string()),
        ("distance", pa.int32()),
    ]
)


def params(config: ShardsConfig) -> dict[str, Any]:
    """The thresholds of the stage."""
    return {
        "min_side": config.image.min_side,
        "max_aspect": config.image.max_aspect,
        "phash_distance": config.dedupe.phash_distance,
        "drop": config.dedupe.overlap == "drop",
        "sets": [folder.name for folder in config.dedupe.evaluation],
        "max_cosine": config.dedupe.max_cosine if config.dedupe.features else None,
        "feature_sets": [folder.name for folder in config.dedupe.evaluation_features],
    }


def files(config: ShardsConfig) -> list[Path]:
    """The lists of opt-outs, the evaluation sets and the features."""
    listed = [*optout.files(config), *lists.files(config)]
    return [*listed, *overlaps.files(config), *embeddings.files(config)]


def images(ctx: Context) -> None:
    """Write `rows.parquet`: row, reason, kept_row and what is known of the image."""
    from pipeline.engine import copy

    scratch = ctx.out / ".work"
    (scratch / "near").mkdir(parents=True, exist_ok=True)
    tables = {name: ctx.table(stage) for name, stage in TABLES.items()}
    values = dict(ctx.params)
    distance = values.pop("phash_distance")
    for name in ("sets", "feature_sets", "max_cosine"):
        del values[name]  # what the sets hold is in their files
    files = {name: str(scratch / f"{name}.parquet") for name in ("checked", "hashes", "gone")}
    files["looks"] = str(scratch / "looks.parquet")

    with ctx.connect() as con:

        def run(file: str, given: dict[str, Any], target: Path) -> None:
            copy(con, file, given, target)

        checked = {"checked": files["checked"]}
        seen = Seen(ctx, con, scratch, tables)
        met = _overlaps(ctx, con, scratch, tables["fetch"], distance, seen)
        given = {"fetch": tables["fetch"], **values, "overlaps": met}
        run("70_checked.sql", given, Path(files["checked"]))
        run("70_hashes.sql", checked, Path(files["hashes"]))
        masks = block_masks()
        for i, mask in enumerate(masks):
            given = {"hashes": files["hashes"], "mask": mask, "phash_distance": distance}
            run("70_near.sql", given, scratch / "near" / f"{i:02d}.parquet")
            ctx.progress(i + 1, len(masks), "joins")
        gone = representatives(_edges(con, scratch / "near"))
        _write_gone(gone, Path(files["gone"]))
        looks = {name: files[name] for name in ("checked", "hashes", "gone")}
        run("70_looks.sql", looks, Path(files["looks"]))
        seen.add_looks(Path(files["checked"]), Path(files["looks"]))
        optouts = scratch / "optouts.parquet"
        listed = {("sha256", value) for value in lists.image_hashes(ctx.config)}
        known = optout.OptOuts(optout.read(ctx.corpus).entries | listed)
        pq.write_table(known.table(), optouts)
        last = {**tables, **checked, "looks": files["looks"], "optouts": str(optouts)}
        run("70_images.sql", last, ctx.out / "rows.parquet")
        (ctx.out / "overlaps").mkdir(exist_ok=True)
        named = {name: tables[name] for name in ("balance", "ingest", "urls")}
        target = ctx.out / "overlaps" / "00000.parquet"
        run("70_overlap_rows.sql", {**named, "overlaps": met}, target)


def _overlaps(
    ctx: Context,
    con: duckdb.DuckDBPyConnection,
    scratch: Path,
    fetch: str,
    distance: int,
    seen: Seen,
) -> str:
    """The table of images that overlap an evaluation set."""
    target = scratch / "overlaps.parquet"
    if overlaps.write_evaluation(ctx.config, scratch / "evaluation.parquet", ctx.progress):
        overlaps.find(con, scratch, fetch, distance, target)
    else:
        pq.write_table(OVERLAPS.empty_table(), target)
    seen.add_overlaps(target)
    return str(target)


class Seen:
    """What features add to hashes, where the config names some: more images that look alike, and
    more that evaluation sets hold."""

    def __init__(
        self,
        ctx: Context,
        con: duckdb.DuckDBPyConnection,
        scratch: Path,
        tables: dict[str, str],
    ) -> None:
        from pipeline.engine import copy

        dedupe = ctx.config.dedupe
        self._progress, self._least = ctx.progress, dedupe.max_cosine
        self._sets = dedupe.evaluation_features
        self._keys: list[int] = []
        if not dedupe.features:
            if self._sets:
                raise InputError(
                    f"{self._sets[0]}: nothing to compare with: give --dedupe.features"
                )
            return
        uids, rows = embeddings.read(dedupe.features, "uid")
        given, found = scratch / "features.parquet", scratch / "featured.parquet"
        listed = {"uid": pa.array(uids, pa.string()), "nth": range(len(uids))}
        pq.write_table(pa.table(listed), given)
        copy(con, "70_features.sql", {**tables, "features": str(given)}, found)
        table = pq.read_table(found)
        self._keys = table["url_key"].to_pylist()
        self._rows = rows[table["nth"].to_numpy()]
        if not self._keys:
            raise InputError(f"{dedupe.features[0]}: of no image of this corpus: embed it again")

    def add_overlaps(self, path: Path) -> None:
        """Add to the table of overlaps what is as near to an image of an evaluation set; what its
        bytes or hash say of a pair already stands."""
        known = pq.read_table(path).to_pylist()
        pairs = {(line["url_key"], line["set"], line["key"]) for line in known}
        for folder in self._sets:
            names, rows = embeddings.read([folder], "key")
            for one, other in embeddings.alike(self._rows, rows, self._least, self._progress):
                pair = (self._keys[one], folder.name, names[other])
                if pair not in pairs:
                    line = dict(zip(("url_key", "set", "key"), pair, strict=True))
                    known.append({**line, "how": "feature", "distance": None})
        pq.write_table(pa.Table.from_pylist(known, OVERLAPS), path)

    def add_looks(self, checked: Path, looks: Path) -> None:
        """Add to the table of images that give way those that features find among the others."""
        if not self._keys:
            return
        table = pq.read_table(looks)
        gone = dict(zip(table["url_key"].to_pylist(), table["kept_key"].to_pylist(), strict=True))
        stands = [
            (line["place"], line["url_key"])
            for line in pq.read_table(checked, columns=["place", "url_key", "reason"]).to_pylist()
            if line["reason"] is None and line["url_key"] not in gone
        ]
        place_of = {key: place for place, key in stands}
        order = [i for i, key in enumerate(self._keys) if key in place_of]
        order.sort(key=lambda i: place_of[self._keys[i]])
        edges = embeddings.alike(self._rows[order], None, self._least, self._progress)
        keys = [self._keys[i] for i in order]
        more = {keys[worse]: keys[kept] for worse, kept in representatives(edges).items()}
        exact = dict(zip(table["url_key"].to_pylist(), table["exact"].to_pylist(), strict=True))
        lines = [
            {"url_key": key, "exact": exact.get(key, False), "kept_key": more.get(kept, kept)}
            for key, kept in sorted({**gone, **more}.items())
        ]
        pq.write_table(pa.Table.from_pylist(lines, table.schema), looks)


def _edges(con: duckdb.DuckDBPyConnection, folder: Path) -> Iterator[tuple[int, int]]:
    from pipeline.engine import sql_text

    found = con.execute(sql_text("70_edges.sql"), {"near": str(folder / "*.parquet")})
    while rows := found.fetchmany(10_000):
        yield from rows


def _write_gone(gone: dict[int, int], path: Path) -> None:
    table = pa.table(
        {
            "place": pa.array(gone.keys(), pa.int64()),
            "kept": pa.array(gone.values(), pa.int64()),
        }
    )
    pq.write_table(table, path)
