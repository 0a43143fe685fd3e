"""The config of `wit shards`: every threshold of stage one, with its default and its reason."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from wit.config import Section, Settings, as_json

# What may differ between two runs without changing a byte of the corpus.
NO_EFFECT: dict[str, Any] = {
    "corpus": True,
    "engine": True,
    "fetch": {
        "processes",
        "connections",
        "host_connections",
        "host_rate",
        "max_failures",
        "resolve",
    },
}


class TextConfig(Section):
    """Rules on captions."""

    min_chars: Annotated[int, Field(ge=1)] = 5
    """fewest characters of a cleaned caption"""
    min_words: Annotated[int, Field(ge=1)] = 2
    """fewest words of a caption; a lone word is mostly a file name or a menu entry"""
    max_chars: Annotated[int, Field(ge=1)] = 1000
    """most characters of a cleaned caption; the text tower reads 77 tokens"""
    languages: list[str] = Field(default=["en"])
    """wanted languages (ISO 639-1); an empty list wants all"""
    language_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """least probability of an unwanted language that drops a caption"""
    boilerplate_urls: Annotated[int, Field(ge=1)] = 100
    """most distinct URLs that may share one caption before it counts as boilerplate"""


class MatchConfig(Section):
    """How a query list is made from the corpus when --queries is not given."""

    min_count: Annotated[int, Field(ge=1)] = 20
    """distinct captions in which a word or word pair must occur"""
    min_pmi: float = 3.0
    """least pointwise mutual information (bits) of a word pair"""
    max_queries: Annotated[int, Field(ge=1)] = 500_000
    """length of the list; the most frequent stay"""


class BalanceConfig(Section):
    """The cap on pairs per query (CLIP, section 2.2)."""

    cap: Annotated[int, Field(ge=1)] = 20_000
    """pairs that one query may bring in"""


class DedupeConfig(Section):
    """What counts as a duplicate."""

    captions_per_image: Annotated[int, Field(ge=0)] = 1
    """captions kept per image URL; 0 keeps all"""
    phash_distance: Annotated[int, Field(ge=0, le=3)] = 3
    """most differing bits of two perceptual hashes of the same picture"""
    evaluation: list[Path] = Field(default=[])
    """evaluation sets (webdataset folders) to look for; repeat for more"""
    overlap: Literal["drop", "keep"] = "drop"
    """pairs that show a picture of an evaluation set: dropped, or kept and listed"""


class FetchConfig(Section):
    """The download."""

    processes: Annotated[int, Field(ge=1)] = os.cpu_count() or 1
    """downloading processes; each host belongs to one of them"""
    connections: Annotated[int, Field(ge=1)] = 128
    """connections at once, of all processes together"""
    host_connections: Annotated[int, Field(ge=1)] = 8
    """connections to one host at once"""
    host_rate: Annotated[float, Field(ge=0)] = 100.0
    """requests to one host per second; 0 sets no limit"""
    timeout: Annotated[float, Field(gt=0)] = 10.0
    """seconds that one network operation may take"""
    deadline: Annotated[float, Field(gt=0)] = 30.0
    """seconds that one attempt may take in all"""
    min_rate: Annotated[float, Field(ge=0)] = 1000.0
    """fewest bytes per second of a body, counted after its first five seconds"""
    max_bytes: Annotated[int, Field(ge=1)] = 32 * 2**20
    """largest body in bytes"""
    retries: Annotated[int, Field(ge=0)] = 1
    """attempts after the first, for failures that may pass; one more follows at the end"""
    backoff: Annotated[float, Field(ge=0)] = 1.0
    """seconds before the first retry; doubled for each further one"""
    max_failures: Annotated[float, Field(ge=0, le=1)] = 0.5
    """share of the last 500 URLs that may fail for one reason of the network; then it stops"""
    user_agent: str = "wit/0.1 (image-text corpus builder; honours robots.txt and X-Robots-Tag)"
    """how the downloader names itself; add how to reach you: wit/0.1 (+https://you.example)"""
    robots: bool = True
    """ask each site for robots.txt and keep to it"""
    userinfo: Literal["drop", "refuse"] = "drop"
    """URLs with a user name: fetched without it, or not at all"""
    any_port: bool = False
    """allow ports on which usually something else than the web listens"""
    allow_loopback: bool = False
    """allow URLs that lead to this machine"""
    resolve: dict[str, str] = Field(default={})
    """host=ADDRESS:PORT pairs that replace DNS; *.example covers a whole domain"""

    @field_validator("resolve")
    @classmethod
    def _addresses(cls, value: dict[str, str]) -> dict[str, str]:
        for host, target in value.items():
            address, _, port = target.rpartition(":")
            try:
                ipaddress.ip_address(address.strip("[]"))
                good = 0 < int(port) < 65536
            except ValueError:
                good = False
            if not good:
                raise ValueError(f"{host}={target} must be host=ADDRESS:PORT, e.g. 127.0.0.1:8000")
        return value


class ImageConfig(Section):
    """Rules on images, and how they are stored."""

    size: Annotated[int, Field(ge=16)] = 256
    """side of a stored image at most, in pixels; which side, `resize` says"""
    resize: Literal["keep_ratio", "keep_ratio_largest", "center_crop", "border", "no"] = (
        "keep_ratio"
    )
    """img2dataset's ways to shrink: shorter side, longer side, cut or padded to a square, not"""
    encoding: Literal["jpg", "webp", "avif"] = "jpg"
    """format of stored images; those that arrive in it and need not shrink keep their bytes"""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """quality of images that had to be encoded again"""
    min_side: Annotated[int, Field(ge=1)] = 100
    """fewest pixels of the shorter side"""
    max_aspect: Annotated[float, Field(ge=1)] = 3.0
    """longest ratio of the longer to the shorter side"""
    max_pixels: Annotated[int, Field(ge=1)] = 89_478_485
    """most pixels that a header may declare; Pillow warns of a bomb at this number"""


class PackConfig(Section):
    """The shards."""

    shard_size: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    """samples per shard; keys have four digits for them"""
    shard_bytes: Annotated[int, Field(ge=0)] = 0
    """bytes of images per shard at most; 0 sets no limit"""


class EngineConfig(Section):
    """What DuckDB may use; none of it changes the result."""

    memory_limit: Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?([KMGT]i?B)$")] = "4GB"
    """memory of the database engine; what doesn't fit goes to disk"""
    threads: Annotated[int, Field(ge=1)] = os.cpu_count() or 1
    """threads of the database engine"""


class ShardsConfig(Settings):
    """Build a corpus directory from metadata: filter, match, balance, fetch, pack.

    Without --input the embedded sample is built. Run it again after a change or an
    interruption: what stands is kept, what follows the change is rebuilt.
    """

    input: list[Path] = Field(default=[])
    """metadata files (parquet, csv, tsv, jsonl) or folders of them; repeat for more"""
    corpus: Path = Path("data/corpus")
    """corpus directory to build"""
    queries: Path | None = None
    """query list, .txt (one a line) or .parquet; without it the corpus' own frequent words"""
    text: TextConfig = TextConfig()
    match: MatchConfig = MatchConfig()
    balance: BalanceConfig = BalanceConfig()
    dedupe: DedupeConfig = DedupeConfig()
    fetch: FetchConfig = FetchConfig()
    image: ImageConfig = ImageConfig()
    pack: PackConfig = PackConfig()
    engine: EngineConfig = EngineConfig()

    def identity(self) -> dict[str, Any]:
        """The part of the config that decides the content of the corpus, as plain JSON."""
        plain = as_json(self)
        for key, inner in NO_EFFECT.items():
            if inner is True:
                del plain[key]
            else:
                plain[key] = {k: v for k, v in plain[key].items() if k not in inner}
        return plain
