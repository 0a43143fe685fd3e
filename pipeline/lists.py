"""Stage 13: domains and URLs that are not wanted: the user's own list, and those who opted out.

URLs of a list are brought to the same keys as those of the input, by the same SQL; a domain
stands for everything below it. A list may be one that `wit remove` takes: uids count here too, and
hashes of images, which nobody knows before the download, in `70_images`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import optout
from pipeline.config import ShardsConfig
from pipeline.context import Context, Counts
from wit.errors import InputError
from wit.schema import Reason

LISTS = pa.schema(
    [
        ("domain", pa.string()),
        ("url_key", pa.uint64()),
        ("uid", pa.string()),
        ("reason", pa.string()),
    ]
)
_COLUMNS = ("url", "domain", "uid", "sha256")


def files(config: ShardsConfig) -> list[Path]:
    """The lists of those who opted out."""
    return list(config.url.opt_out)


def params(config: ShardsConfig) -> dict[str, Any]:
    """The list in the config itself; schemes are those that a list may name."""
    return {"block_domains": config.url.block_domains, "schemes": ["http", "https"]}


def lists(context: Context) -> Counts:
    """Write domain, url_key or uid, and the reason.

    Raises:
        InputError: a list that can't be read.
    """
    from pipeline.engine import copy

    given, keys = context.out / ".given.parquet", context.out / ".keys.parquet"
    entries = [entry for path in files(context.config) for entry in _entries(path)]
    urls, uids, hosts = sort_out(entries)
    table = {
        "row": pa.array(range(len(urls)), pa.int64()),
        "local": pa.array([False] * len(urls), pa.bool_()),
        "source": pa.array([""] * len(urls), pa.string()),
        "url": pa.array(urls, pa.string()),
    }
    pq.write_table(pa.table(table), given)
    with context.connect() as con:
        copy(con, "12_urls.sql", {**context.params, "ingest": str(given)}, keys)
    blocked, opted_out = Reason.URL_DOMAIN.value, Reason.OPT_OUT_LIST.value
    found: list[dict[str, Any]] = []
    for names, reason in ((context.params["block_domains"], blocked), (hosts, opted_out)):
        found += [{"domain": _domain(name), "reason": reason} for name in names]
    url_keys = pq.read_table(keys)["url_key"].to_pylist()
    found += [{"url_key": key, "reason": opted_out} for key in url_keys if key is not None]
    found += [{"uid": uid, "reason": opted_out} for uid in uids]
    pq.write_table(pa.Table.from_pylist(found, LISTS), context.out / "rows.parquet")
    return Counts(len(found), len(found))


def sort_out(entries: list[str]) -> tuple[list[str], list[str], list[str]]:
    """The URLs, uids and hosts among the entries of lists; hashes of images are none of these."""
    urls, uids, hosts = [], [], []
    for entry in entries:
        if "://" in entry:
            urls.append(entry)
        elif optout.is_kind("uid", entry):
            uids.append(entry.lower())
        elif not optout.is_kind("sha256", entry):
            hosts.append(entry)
    return urls, uids, hosts


def image_hashes(config: ShardsConfig) -> list[str]:
    """The sha256 among the entries of the lists."""
    entries = (entry for path in files(config) for entry in _entries(path))
    return [entry.lower() for entry in entries if optout.is_kind("sha256", entry)]


def _domain(name: str) -> str:
    return name.strip().lower().strip(".").removeprefix("*.").removeprefix("www.")


def _entries(path: Path) -> list[str]:
    """The entries of a list; in a .txt # begins a comment."""
    if path.suffix == ".txt":
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 ({error}): convert it") from None
        plain = (optout.without_comment(line) for line in lines)
        return [line for line in plain if line]
    if path.suffix != ".parquet":
        raise InputError(f"{path}: a list of those who opted out is .txt (one a line) or .parquet")
    try:
        names = [name for name in pq.read_schema(path).names if name in _COLUMNS]
        columns = [pq.read_table(path, columns=[name])[name].cast(pa.string()) for name in names]
    except pa.ArrowException as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: not readable as Parquet: {first}: write it again") from None
    if not names:
        raise InputError(f"{path}: no column url, domain, uid or sha256: rename one")
    values = [value.strip() for column in columns for value in column.to_pylist() if value]
    return [value for value in values if value]
