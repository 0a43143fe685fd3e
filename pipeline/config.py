"""The config of `wit shards`: every threshold of stage one, with its default and its reason."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from wit.config import Section, Settings, as_json

# What may differ between two runs without changing a byte of the corpus.
NO_EFFECT: dict[str, Any] = {
    "corpus": True,
    "until": True,
    "upload": True,
    "engine": {"name", "address", "in_flight", "memory_limit", "threads", "rank", "world"},
    "fetch": {
        "processes",
        "connections",
        "host_connections",
        "host_rate",
        "max_failures",
        "resolve",
    },
}


PLACEHOLDERS = (
    "alt text", "avatar", "banner", "blank", "blog image", "click here", "click to enlarge",
    "click to view larger image", "coming soon", "cover image", "default image",
    "default profile", "featured image", "header image", "hero image", "icon", "image",
    "image alt", "image coming soon", "image description", "image for post",
    "image not available", "image not found", "image of", "image placeholder", "image result",
    "image unavailable", "img", "loading", "logo", "main image", "no alt text",
    "no alt text provided for this image", "no image", "no image available", "no photo",
    "no photo available", "no thumbnail", "photo", "photo coming soon", "photo not available",
    "photo of", "pic", "picture", "picture of", "placeholder", "placeholder image", "post image",
    "product image", "product photo", "profile image", "profile photo", "profile picture",
    "related image", "screenshot", "share on facebook", "share on twitter", "site logo", "spacer",
    "stock image", "stock photo", "thumbnail", "thumbnail image", "untitled", "user avatar",
    "video thumbnail", "view full size", "view larger image",
)  # fmt: skip


class TextConfig(Section):
    """Rules on captions."""

    min_chars: Annotated[int, Field(ge=1)] = 5
    """fewest characters of a cleaned caption"""
    min_words: Annotated[int, Field(ge=1)] = 2
    """fewest words of a caption; a lone word is mostly a file name or a menu entry"""
    max_chars: Annotated[int, Field(ge=1)] = 1000
    """most characters of a cleaned caption; the text tower reads 77 tokens"""
    max_words: Annotated[int, Field(ge=1)] = 250
    """most words of a caption"""
    min_alnum: Annotated[float, Field(ge=0, le=1)] = 0.5
    """least share of letters and digits in the characters of a caption, white space not counted"""
    placeholders: list[str] = Field(default=list(PLACEHOLDERS))
    """captions that say nothing; case, punctuation and numbers at the end don't count"""
    file_names: bool = False
    """keep captions that are the name of an image file, or what a camera calls one"""
    url_tails: bool = False
    """keep captions that only repeat the last part of their URL"""
    languages: list[str] = Field(default=["en"])
    """wanted languages (ISO 639-1); an empty list wants all"""
    language_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """least probability of an unwanted language that drops a caption"""
    boilerplate_urls: Annotated[int, Field(ge=1)] = 100
    """most distinct URLs that may share one caption before it counts as boilerplate"""
    boilerplate_domains: Annotated[int, Field(ge=1)] = 50
    """most distinct domains that may share one caption before it counts as boilerplate"""


class UrlConfig(Section):
    """Rules on addresses, and lists of those who don't want to be in it."""

    schemes: list[Literal["http", "https"]] = Field(default=["http", "https"], min_length=1)
    """wanted schemes"""
    block_extensions: list[str] = Field(default=["svg", "ico", "pdf", "mp4", "swf"])
    """endings of a URL's path that promise no picture that can be decoded"""
    block_domains: list[str] = Field(default=[])
    """domains to leave out, each with all below it"""
    opt_out: list[Path] = Field(default=[])
    """lists of those who opted out, as `wit remove` takes them: .txt with a URL, domain, uid or
    sha256 of an image a line, or .parquet with such columns"""

    @field_validator("block_extensions", "block_domains")
    @classmethod
    def _plain(cls, value: list[str]) -> list[str]:
        return [item.strip().lower().removeprefix(".").removeprefix("www.") for item in value]


class LicenseConfig(Section):
    """Rules on the licence that the metadata declares. Patterns know * and ?, not case."""

    allow: list[str] = Field(default=[])
    """wanted licences, e.g. *creativecommons.org*; a row without one is then left out too"""
    block: list[str] = Field(default=[])
    """unwanted licences, e.g. *nc*"""


class ScoreRule(Section):
    """Bounds on one score that comes with the metadata. Rows without the score pass."""

    min: float | None = None
    """lowest value that stays"""
    max: float | None = None
    """highest value that stays"""
    top: Annotated[float, Field(gt=0, le=1)] | None = None
    """share of the rows with the score that stays: the best, which are the lowest of nsfw and
    watermark"""


class ScoresConfig(Section):
    """Rules on scores that come with the metadata."""

    similarity: ScoreRule = ScoreRule()
    """of image and text by some CLIP model"""
    nsfw: ScoreRule = ScoreRule()
    """probability that the image is not safe for work"""
    watermark: ScoreRule = ScoreRule()
    """probability that the image bears a watermark"""
    aesthetic: ScoreRule = ScoreRule()
    """how much people like the image"""


class MatchConfig(Section):
    """How queries are found in captions, and made from the corpus when --queries is not given."""

    engine: Literal["ngrams", "sql", "aho_corasick"] = "ngrams"
    """ngrams; sql for a list larger than memory (same result); aho_corasick for scripts without
    spaces"""
    min_count: Annotated[int, Field(ge=1)] = 20
    """distinct captions in which a word or word pair must occur"""
    min_pmi: float = 3.0
    """least pointwise mutual information (bits) of a word pair"""
    max_queries: Annotated[int, Field(ge=1)] = 500_000
    """length of the list; the most frequent stay"""


class BalanceConfig(Section):
    """The cap on pairs per query (CLIP, section 2.2)."""

    cap: Annotated[int, Field(ge=1)] = 20_000
    """pairs that one query may bring in: the t of MetaCLIP"""
    method: Literal["bottom_k", "independent"] = "bottom_k"
    """bottom_k: each query brings in its `cap` pairs of lowest rank, so no query brings in more and
    a smaller cap keeps a subset; independent: each query brings in each of its pairs with the
    probability cap / pairs of the query, as MetaCLIP does"""
    survival: Annotated[float, Field(gt=0, le=1)] = 1.0
    """share of pairs expected to survive download and image rules: cap / survival are downloaded,
    and the cap is applied again to what came of them"""


class NearTextsConfig(Section):
    """Captions of different images that say nearly the same, found by MinHash-LSH."""

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    """share of common shingles (Jaccard) from which of two captions only the better stays, whatever
    their images; 0: not looked for, since a caption may rightly stand on many images"""
    shingle: Annotated[int, Field(ge=1, le=8)] = 2
    """words of a shingle: 1 compares bags of words, more heed their order"""
    permutations: Annotated[int, Field(ge=16, le=1024)] = 128
    """length of a MinHash signature: with more, fewer pairs above the threshold are missed"""


class DedupeConfig(Section):
    """What counts as a duplicate."""

    captions_per_image: Annotated[int, Field(ge=0)] = 1
    """captions kept per image URL; 0 keeps all"""
    caption_likeness: Annotated[float, Field(gt=0, le=1)] = 0.8
    """share of common words from which two captions of one URL say the same; 1: the same words"""
    keep: Literal["rank", "similarity", "aesthetic", "longest"] = "rank"
    """which of several captions of a URL is best: that of lowest rank, of highest score, or the
    longest; rank decides between equals"""
    near_texts: NearTextsConfig = NearTextsConfig()
    phash_distance: Annotated[int, Field(ge=0, le=3)] = 3
    """most differing bits of two perceptual hashes of the same picture"""
    evaluation: list[Path] = Field(default=[])
    """evaluation sets (webdataset folders) to look for; repeat for more"""
    features: list[Path] = Field(default=[])
    """features of the corpus' images, folders that `wit embed CORPUS` wrote: images that show the
    same by these are duplicates too"""
    evaluation_features: list[Path] = Field(default=[])
    """features of evaluation sets by the same model, folders that `wit embed SET` wrote; a set has
    the name of its folder"""
    max_cosine: Annotated[float, Field(gt=0, le=1)] = 0.95
    """cosine of two features from which their images show the same"""
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
    declared_min_side: Annotated[int, Field(ge=0)] = 0
    """fewest pixels of the shorter side that the metadata declare; it saves downloads, and loses
    images whose metadata are out of date. 0: what is declared doesn't count"""
    declared_max_aspect: Annotated[float, Field(ge=0)] = 0.0
    """longest ratio of the sides that the metadata declare; 0: what is declared doesn't count"""


class PackConfig(Section):
    """The shards."""

    shard_size: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    """samples per shard; keys have four digits for them"""
    shard_bytes: Annotated[int, Field(ge=0)] = 0
    """bytes of images per shard at most; 0 sets no limit"""
    val_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """share of the pages whose pairs go to val/ instead of shards/; 0: no split. A page is what the
    metadata name as such (page_url), else the site and folder of the image"""


class EngineConfig(Section):
    """What does the work. None of it changes the result, but for the size of a part, which
    decides how the work tables are cut into files."""

    name: Literal["local", "ray"] = "local"
    """local, or ray: the parts of the work tables are made by the tasks of a Ray cluster, whose
    machines must see the input and the corpus under the same paths (--engine ray for short)"""
    address: str = "auto"
    """Ray cluster: auto is the one that runs on this machine or that RAY_ADDRESS names"""
    in_flight: Annotated[int, Field(ge=0)] = 0
    """Ray tasks under way at most; 0: two for each CPU of the cluster, one while it downloads"""
    rank: Annotated[int, Field(ge=0)] = 0
    """which of `world` processes this is: it fetches its share of the URLs (--rank for short)"""
    world: Annotated[int, Field(ge=1)] = 1
    """processes, on machines that see the corpus under one path, that share the download; a run
    without it joins what they fetched (--world for short)"""
    memory_limit: Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?([KMGT]i?B)$")] = "4GB"
    """memory of the database engine; what doesn't fit goes to disk"""
    threads: Annotated[int, Field(ge=1)] = os.cpu_count() or 1
    """threads of the database engine, and processes where the work is done in Python"""
    partition_rows: Annotated[int, Field(ge=1)] = 500_000
    """rows of a part; a part that fails is made again by itself"""

    @model_validator(mode="after")
    def _ranked(self) -> EngineConfig:
        if self.rank >= self.world:
            raise ValueError(f"rank = {self.rank} must be below world = {self.world}")
        return self

    def shared(self, workers: int) -> EngineConfig:
        """What one of several processes may use: one thread, and its share of the memory."""
        number = float(self.memory_limit.rstrip("KMGTiB "))
        unit = self.memory_limit.lstrip("0123456789. ")
        smaller = f"{number / workers:.3f}{unit}"
        return self.model_copy(update={"threads": 1, "memory_limit": smaller})


class ShardsConfig(Settings):
    """Build a corpus directory from metadata: filter, match, balance, fetch, pack.

    Without --input the embedded sample is built. Run it again after a change or an
    interruption: what stands is kept, what follows the change is rebuilt.
    """

    input: list[Annotated[str, BeforeValidator(os.fspath)]] = Field(default=[])
    """metadata files (parquet, csv, tsv, jsonl), folders of them, or URLs that fsspec can read
    (s3://, gs://, hf://, ...); repeat for more"""
    corpus: Path = Path("data/corpus")
    """corpus directory to build, on a local disk"""
    upload: str | None = None
    """store that the finished corpus is copied to, any URL that fsspec writes (s3://BUCKET/PATH)"""
    until: str | None = None
    """last stage to run, e.g. 50_balance: everything that needs no download"""
    queries: Path | None = None
    """query list, .txt (one a line) or .parquet; without it the corpus' own frequent words"""
    text: TextConfig = TextConfig()
    url: UrlConfig = UrlConfig()
    license: LicenseConfig = LicenseConfig()
    scores: ScoresConfig = ScoresConfig()
    drop: dict[str, str] = Field(default={})
    """rules of your own, reason = condition in SQL: a row for which it is true is dropped for that
    reason, e.g. [drop] price = "text LIKE '%$%'"; docs/corpus.md lists the columns"""
    match: MatchConfig = MatchConfig()
    balance: BalanceConfig = BalanceConfig()
    dedupe: DedupeConfig = DedupeConfig()
    fetch: FetchConfig = FetchConfig()
    image: ImageConfig = ImageConfig()
    pack: PackConfig = PackConfig()
    engine: EngineConfig = EngineConfig()

    @field_validator("corpus")
    @classmethod
    def _local(cls, value: Path) -> Path:
        if re.match(r"[a-z0-9]{2,}:/", str(value)):
            url = str(value).replace(":/", "://", 1)
            raise ValueError(f"{url} is no local disk: give --corpus DIR --upload {url}")
        return value

    def identity(self) -> dict[str, Any]:
        """The part of the config that decides the content of the corpus, as plain JSON."""
        plain = as_json(self)
        for key, inner in NO_EFFECT.items():
            if inner is True:
                del plain[key]
            else:
                plain[key] = {k: v for k, v in plain[key].items() if k not in inner}
        if not self.dedupe.near_texts.threshold:
            del plain["dedupe"]["near_texts"]
        return plain
