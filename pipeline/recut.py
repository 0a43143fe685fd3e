"""New shards from the shards of finished corpora: selected, deduplicated, cut anew.

Samples come in the order of rank, which is a shuffle, merged over all sources. Images and captions
are copied as they are; nothing is fetched, decoded or judged again.
"""

from __future__ import annotations

import heapq
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import optout
from pipeline.config import ShardsConfig
from pipeline.pack import ATTEMPTS
from pipeline.recut_tables import write_tables
from wit import manifest, schema
from wit.config import fingerprint, write_json
from wit.errors import CorpusError, InputError
from wit.progress import Progress
from wit.schema import COUNTS, Reason
from wit.shard import Sample, load_index, read_member, sample_key, shard_name, write_shard

STAGE = "reshard"  # the one stage of such a corpus
MOST = 10_000  # samples of a shard: keys have four digits for them


@dataclass(frozen=True)
class Source:
    """A corpus, and what is taken of it.

    Attributes:
        wanted: uids to take; None takes all.
        unwanted: uids to leave out, with a word why.
    """

    corpus: Path
    wanted: frozenset[str] | None = None
    unwanted: dict[str, str] = field(default_factory=dict)

    def reason(self, uid: str | None) -> str | None:
        """Why a sample is left out; None when it is taken."""
        if self.wanted is not None and uid not in self.wanted:
            return "not_selected"
        return self.unwanted.get(uid or "")


@dataclass(frozen=True)
class Cut:
    """How large a shard may be: samples, and bytes of images and captions (0: any number)."""

    samples: int = MOST
    bytes: int = 0


def recut(
    sources: Sequence[Source], out: Path, cut: Cut, about: dict[str, Any], append: bool = False
) -> str:
    """Write the corpus `out`; returns the line that says what it holds.

    Args:
        about: goes into config.json, and decides the fingerprint with the sources' own.
        append: copy the shards of the first source as they are, and let the others follow.

    Raises:
        CorpusError: a source is no finished corpus.
        InputError: there is something at `out` already.
    """
    if out.exists():
        raise InputError(f"{out}: it is there already: give another --out or remove it")
    prints = [manifest.read(source.corpus).fingerprint for source in sources]
    configs = [_config(source.corpus) for source in sources]
    sources, listed = _opted_out(sources, append)
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "shards").mkdir(parents=True)
    writer = _Writer(temporary / "shards", cut)
    left = list(sources)
    if append:
        writer.copy(left.pop(0).corpus)
    held_out = sum(
        pq.read_metadata(source.corpus / "val" / "index.parquet").num_rows
        for source in sources
        if (source.corpus / "val").is_dir()
    )
    reasons: dict[str, int] = {"held_out": held_out} if held_out else {}
    tick, progress = _ticker(left)
    kept = heapq.merge(
        *(_samples(source, reasons, tick) for source in left),
        key=lambda sample: sample.meta["uid"],
    )
    writer.write(kept)
    progress.clear()
    identity = {"sources": prints, "cut": [cut.samples, cut.bytes], "append": append, **about}
    mark = fingerprint(identity)
    settings = configs[0]["config"]
    known: dict[str, Any] = {}  # flat, however often corpora are joined
    for found in configs:
        known |= found.get("sources", {found["fingerprint"]: found["config"]})
    whole = {"fingerprint": mark, "config": settings, "recut": identity, "sources": known}
    write_json(whole, temporary / "config.json")
    if listed.entries:
        optout.write(temporary, listed)
    total = sum(writer.sizes.values())
    stage = {"name": STAGE, "rows_in": total + sum(reasons.values()), "rows_out": total}
    digests = write_tables([source.corpus for source in sources], temporary, stage, settings)
    files, stages = manifest.scan(temporary), [{**stage, "reasons": reasons}]
    manifest.write(temporary, manifest.Manifest(mark, {}, files, stages, digests))
    temporary.rename(out)
    gone = "".join(f", {number:,} {reason}" for reason, number in sorted(reasons.items()))
    return f"{out}: {total:,} samples in {len(writer.sizes):,} shards{gone}"


def _config(corpus: Path) -> dict[str, Any]:
    """What config.json of a source holds: under `config` the settings of a build.

    Raises:
        CorpusError: there is none, or it is of an older version.
    """
    path = corpus / "config.json"
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        ShardsConfig.model_validate(found["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise CorpusError(f"{path}: not the settings of a build: {first}") from None
    return found


def _opted_out(sources: Sequence[Source], append: bool) -> tuple[list[Source], optout.OptOuts]:
    """The sources without what any of them was asked to remove, and the joined list.

    Raises:
        InputError: shards that are to stay hold such pairs.
    """
    lists = [optout.read(source.corpus).entries for source in sources]
    listed = optout.OptOuts(frozenset().union(*lists))
    if not listed.entries:
        return list(sources), listed
    found = []
    for nth, source in enumerate(sources):
        gone = dict.fromkeys(optout.concerned(source.corpus, listed), str(Reason.OPTED_OUT))
        if gone and append and nth == 0:
            listing = sources[1].corpus / optout.NAME
            raise InputError(
                f"{source.corpus}: {len(gone):,} of its pairs are on the opt-out list of another"
                f" corpus: first run `wit remove {source.corpus} --file {listing}`"
            )
        found.append(replace(source, unwanted={**source.unwanted, **gone}))
    return found, listed


def _ticker(sources: Sequence[Source]) -> tuple[Callable[[], None], Progress]:
    """What is called for each sample that is read, and the lines that it prints."""
    progress, seen = Progress("shards"), itertools.count(1)
    files = (source.corpus / "shards" / "index.parquet" for source in sources)
    total = sum(pq.read_metadata(file).num_rows for file in files if file.is_file())
    return (lambda: progress(next(seen), total, "samples")), progress


def _samples(source: Source, reasons: dict[str, int], tick: Callable[[], None]) -> Iterator[Sample]:
    """The samples that are taken, in the order of rank; the others are counted."""
    index = load_index(source.corpus)
    if index["uid"].null_count:
        raise CorpusError(f"{source.corpus}: samples without uid: only corpora of wit can be cut")
    folder = source.corpus / "shards"
    for (name,), rows in _by_shard(index):
        attempts = {
            row["uid"]: row
            for row in pq.read_table(folder / name.replace(".tar", ".parquet")).to_pylist()
            if row["status"] == "success"
        }
        with (folder / name).open("rb") as tar:
            for row in rows:
                tick()
                reason = source.reason(row["uid"])
                if reason is not None:
                    reasons[reason] = reasons.get(reason, 0) + 1
                    continue
                image = read_member(tar, row["offset"], row["size"])
                text = read_member(tar, row["text_offset"], row["text_size"]).decode()
                yield Sample(row["key"], image, row["ext"], text, attempts[row["uid"]])


def _by_shard(index: pa.Table) -> Iterator[tuple[tuple[str], list[dict[str, Any]]]]:
    rows = (row for batch in index.to_batches(4096) for row in batch.to_pylist())
    for name, group in itertools.groupby(rows, key=lambda row: row["shard"]):
        yield (name,), list(group)


class _Writer:
    """Writes shards with their tables and statistics, then sizes and index."""

    def __init__(self, folder: Path, cut: Cut) -> None:
        self._folder, self._cut = folder, cut
        self.sizes: dict[str, int] = {}
        self._index: list[pa.Table] = []

    def copy(self, corpus: Path) -> None:
        """Take over the shards of a corpus, byte for byte."""
        index = load_index(corpus)
        for (name,), rows in _by_shard(index):
            stem = name.removesuffix(".tar")
            for file in (name, f"{stem}.parquet", f"{stem}_stats.json"):
                shutil.copyfile(corpus / "shards" / file, self._folder / file)
            self.sizes[name] = len(rows)
        self._index.append(index)

    def write(self, samples: Iterator[Sample]) -> None:
        """Write all samples, then what lies beside the shards."""
        following = next(samples, None)
        while following is not None:
            following = self._shard(len(self.sizes), following, samples)
        write_json(self.sizes, self._folder / "sizes.json")
        index = pa.concat_tables([schema.INDEX.empty_table(), *self._index])
        pq.write_table(index, self._folder / "index.parquet", compression="zstd")

    def _shard(self, number: int, first: Sample, rest: Iterator[Sample]) -> Sample | None:
        """Write one shard; returns the sample that didn't fit."""
        name, rows, following = shard_name(number), list[dict[str, Any]](), [first]

        def fill() -> Iterator[Sample]:
            size = 0
            for sample in itertools.chain(following.copy(), rest):
                size += len(sample.image) + len(sample.text.encode())
                full = len(rows) == self._cut.samples or 0 < self._cut.bytes < size
                following[:] = [sample]
                if rows and full:
                    return
                following.clear()
                key = sample_key(number, len(rows))
                rows.append({**{n: sample.meta.get(n) for n in ATTEMPTS.names}, "key": key})
                yield replace(sample, key=key, meta=rows[-1])

        self._index.append(write_shard(self._folder / name, fill()))
        self.sizes[name] = len(rows)
        table = pa.Table.from_pylist(rows, ATTEMPTS)
        pq.write_table(table, self._folder / name.replace(".tar", ".parquet"), compression="zstd")
        stats = dict.fromkeys(COUNTS, 0) | {"count": len(rows), "successes": len(rows)}
        stats["status_dict"] = {"success": len(rows)}  # type: ignore[assignment]
        write_json(stats, self._folder / name.replace(".tar", "_stats.json"))
        return following[0] if following else None
