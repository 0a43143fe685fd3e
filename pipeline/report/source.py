"""The corpus as its report sees it: answers of SQL files, settings, and pictures by row."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
from PIL import Image

from pipeline.catalogue import NAME, open_catalogue
from pipeline.config import EngineConfig
from pipeline.engine import connect, engine_errors, sql_text
from pipeline.run_state import FOLDER
from wit import manifest
from wit.errors import CorpusError
from wit.image import ImageError, decode
from wit.report_command import ReportConfig
from wit.shard import IMAGE_EXTS, read_groups, read_member, shard_folders

Row = dict[str, Any]
MAX_PIXELS = 89_478_485  # of a stored image or one of an evaluation set


@dataclass(frozen=True)
class Source:
    """An open catalogue and the files beside it.

    Attributes:
        corpus: its folder.
        seed: decides which pairs are shown.
        samples: how many pairs of the whole corpus are shown.
    """

    corpus: Path
    con: duckdb.DuckDBPyConnection
    seed: int
    samples: int

    def ask(self, name: str, **params: Any) -> list[Row]:
        """The rows of pipeline/sql/report_NAME.sql."""
        self.con.execute(sql_text(f"report_{name}.sql"), params or None)
        names = [column[0] for column in self.con.description or []]
        return [dict(zip(names, row, strict=True)) for row in self.con.fetchall()]

    @cached_property
    def manifest(self) -> manifest.Manifest:
        return manifest.read(self.corpus)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The config that the corpus was built with."""
        found: dict[str, Any] = self._config["config"]
        return found

    @cached_property
    def sources(self) -> list[str]:
        """Fingerprints of the corpora that this one was cut or joined from, if any."""
        found: list[str] = self._config.get("recut", {}).get("sources", [])
        return found

    @cached_property
    def _config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.corpus / "config.json").read_bytes())
        return found

    @cached_property
    def whole(self) -> Row:
        """Rows, pairs, shards, bytes, queries, domains."""
        return self.ask("whole")[0]

    def file(self, name: str) -> str | None:
        """A Parquet file of the corpus for `read_parquet`, or None where it is gone."""
        path = self.corpus / name
        return glob.escape(str(path)) if path.is_file() else None

    def rows(self, numbers: Sequence[int]) -> list[Row]:
        """All that is known of some rows, in the order asked for."""
        found = {row["row"]: row for row in self.ask("rows", rows=list(dict.fromkeys(numbers)))}
        return [found[number] for number in numbers if number in found]

    def pictures(self, rows: Sequence[Row]) -> dict[int, Image.Image]:
        """The stored pictures of some rows of `pairs`: of kept pairs from the shards, of dropped
        ones from the download where its files still stand. Those that can't be had are left out."""
        places = self._packed(rows) | self._stored([row["row"] for row in rows])
        found = {}
        for row, (path, offset, size) in places.items():
            picture = _picture(path, offset, size)
            if picture is not None:
                found[row] = picture
        return found

    def _packed(self, rows: Sequence[Row]) -> dict[int, tuple[Path, int, int]]:
        keys = {row["key"]: row["row"] for row in rows if row["key"] is not None}
        found = {}
        for folder in shard_folders(self.corpus) if keys else []:
            index = self.file(f"{folder.name}/index.parquet")
            for place in self.ask("packed", index=index, keys=list(keys)) if index else []:
                found[keys[place["key"]]] = folder / place["shard"], place["offset"], place["size"]
        return found

    def _stored(self, rows: Sequence[int]) -> dict[int, tuple[Path, int, int]]:
        folder = self.corpus / "stages" / "60_fetch"
        fetch = self.file("stages/60_fetch/rows.parquet")
        if fetch is None or not rows:
            return {}
        urls = f"{glob.escape(str(self.corpus / 'stages' / '12_urls'))}/*.parquet"
        return {
            place["row"]: (folder / FOLDER / place["tar"], place["offset"], place["size"])
            for place in self.ask("stored", urls=urls, fetch=fetch, rows=list(rows))
        }

    def evaluation_pictures(
        self, wanted: set[tuple[str, str]]
    ) -> dict[tuple[str, str], Image.Image]:
        """Pictures of evaluation sets, by set and key, where the sets are at hand."""
        found: dict[tuple[str, str], Image.Image] = {}
        for folder in map(Path, self.settings["dedupe"]["evaluation"]):
            keys = {key for name, key in wanted if name == folder.name}
            for tar in sorted(folder.rglob("*.tar")) if keys and folder.is_dir() else []:
                for key, group in read_groups(tar):
                    ext = next((ext for ext in IMAGE_EXTS if ext in group), None)
                    if key not in keys or ext is None:
                        continue
                    picture = _picture(tar, group[ext].offset, group[ext].size)
                    if picture is not None:
                        found[folder.name, key] = picture
                    keys.remove(key)
                if not keys:
                    break
        return found


def _picture(path: Path, offset: int, size: int) -> Image.Image | None:
    try:
        with path.open("rb") as file:
            return decode(read_member(file, offset, size), MAX_PIXELS)
    except (OSError, CorpusError, ImageError):
        return None  # the tar is gone, or `wit remove` has wiped the picture


@contextmanager
def opened(config: ReportConfig, engine: EngineConfig, scratch: Path) -> Iterator[Source]:
    """The catalogue of a finished corpus, for reading; DuckDB spills into `scratch`.

    Raises:
        CorpusError: unfinished, no catalogue, or one of another version.
        WitError: too little memory, or a full disk.
    """
    corpus = config.paths[0]
    manifest.read(corpus)
    open_catalogue(corpus).close()  # says what is wrong with it
    path = str(corpus / NAME).replace("'", "''")
    with engine_errors("wit report", engine), connect(engine, scratch) as con:
        con.execute(f"ATTACH '{path}' AS catalogue (READ_ONLY)")
        con.execute("USE catalogue")
        try:
            yield Source(corpus, con, config.seed, config.samples)
        except (duckdb.CatalogException, duckdb.BinderException) as error:
            first = str(error).splitlines()[0]
            raise CorpusError(
                f"{corpus / NAME}: damaged or of another version: {first}: run `wit shards"
                f" --corpus {corpus}` again"
            ) from None
