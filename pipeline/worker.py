"""img2dataset, with its two weak places replaced: what opens a URL, and what treats an image.

Threads, the loop over a shard, its tar, its table and its statistics are img2dataset's. This
module is imported in the downloading processes alone; importing it imports img2dataset, whose
own imports take seconds, look for updates and warn.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.download import read_local, shared_client
from pipeline.guard import FetchError
from pipeline.store import StoredImage
from pipeline.task import LOCAL, SHARD_DIGITS, Task

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from img2dataset import downloader as img2dataset_downloader
    from img2dataset.downloader import Downloader
    from img2dataset.writer import WebDatasetSampleWriter

EXTRA = (pa.field("format", pa.string()), pa.field("phash", pa.uint64()))


class Fetcher:
    """Opens one URL, in the place and with the signature of `download_image_with_retry`."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __call__(
        self,
        row: tuple[int, str],
        timeout: float,
        retries: int,
        user_agent_token: str | None,
        disallowed_header_directives: list[str] | None,
    ) -> tuple[int, io.BytesIO | None, str | None]:
        """The body, or a `Reason` as the error; the task has the limits, not the arguments."""
        key, url = row
        try:
            return key, io.BytesIO(self.fetch(url)), None
        except FetchError as error:
            return key, None, str(error.reason)

    def fetch(self, url: str) -> bytes:
        """The bytes behind a URL of the fetch list.

        Raises:
            FetchError: with the reason.
        """
        limits = self._task.limits
        if url.startswith(LOCAL):
            number, _, path = url.removeprefix(LOCAL).partition(":")
            return read_local(self._task.roots[int(number)], path, limits.max_bytes)
        return shared_client(limits).get(url)


class OrderedWriter(WebDatasetSampleWriter):  # type: ignore[misc]
    """img2dataset's writer, in the order of the list: samples that are early wait in memory.

    Downloads end in any order; the tar and the table must not depend on that. Each finished
    sample adds a byte to a tally file, which the parent reads for its progress line.
    """

    def __init__(
        self,
        shard_id: int,
        output_folder: str,
        save_caption: bool,
        oom_shard_count: int,
        schema: pa.Schema,
        encode_format: str,
    ) -> None:
        for column in EXTRA:
            schema = schema.append(column)
        super().__init__(
            shard_id, output_folder, save_caption, oom_shard_count, schema, encode_format
        )
        self.tarwriter.mtime = 0
        self.buffered_parquet_writer.buffer_size = 10_000
        self._waiting: dict[int, tuple[Any, ...]] = {}
        self._next: int | None = None
        tally = Path(output_folder) / f"tally-{shard_id}"
        self._tallies = [tally.with_suffix(s).open("wb", buffering=0) for s in (".ok", ".failed")]

    def write(
        self, img_str: StoredImage | None, key: str, caption: None, meta: dict[str, Any]
    ) -> None:
        """Take one finished sample; write it when all before it are written."""
        meta["format"] = img_str.format if img_str is not None else None
        meta["phash"] = img_str.phash if img_str is not None else None
        self._tallies[img_str is None].write(b".")
        if self._next is None:
            self._next = self.shard_id * 10 ** (len(key) - self.oom_shard_count)
        self._waiting[int(key)] = (img_str, key, caption, meta)
        while self._next in self._waiting:
            super().write(*self._waiting.pop(self._next))
            self._next += 1

    def close(self) -> None:
        """Finish the files. Samples that still wait follow one that was lost: the count of
        the shard won't add up, and `pipeline.fetch` stops on that."""
        for place in sorted(self._waiting):
            super().write(*self._waiting[place])
        super().close()
        for tally in self._tallies:
            tally.close()


class CheckedDownloader(Downloader):  # type: ignore[misc]
    """img2dataset's Downloader with our `Fetcher`; a finished shard is moved to `task.finished`.

    Unlike its parent it lets errors out: a full disk must stop the stage, not a shard.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(
            sample_writer_class=OrderedWriter,
            resizer=task.storer,
            thread_count=task.threads,
            save_caption=False,
            extract_exif=False,
            output_folder=str(task.attempt),
            column_list=["url"],
            timeout=task.limits.timeout,
            number_sample_per_shard=task.shard_size,
            oom_shard_count=SHARD_DIGITS,
            compute_hash="sha256",
            verify_hash_type=None,
            encode_format="jpg",
            retries=task.limits.retries,
            user_agent_token=None,
            disallowed_header_directives=None,
        )
        self._task = task

    def __call__(self, row: tuple[int, str]) -> int:
        """Download one shard; returns its number."""
        img2dataset_downloader.download_image_with_retry = Fetcher(self._task)
        self.download_shard(row)
        name = f"{row[0]:0{SHARD_DIGITS}d}"
        for suffix in (".tar", ".parquet", "_stats.json"):  # the last one marks it finished
            (self._task.attempt / (name + suffix)).rename(self._task.finished / (name + suffix))
        return row[0]
