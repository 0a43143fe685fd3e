"""The config of `wit queries build` and `report`: every threshold, with its default and reason."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pipeline.config import EngineConfig
from wit.config import Section, Settings, as_json

# What may differ between two runs without changing a byte of the list.
_NO_EFFECT = {"output", "engine", "captions"}


class WordsConfig(Section):
    """Words of the text (CLIP, section 2.2: at least 100 times in the English Wikipedia)."""

    min_count: Annotated[int, Field(ge=1)] = 100
    """occurrences that make a word a query"""


class PairsConfig(Section):
    """Pairs of words that belong together; they fill what the other sources leave of the list."""

    min_count: Annotated[int, Field(ge=1)] = 100
    """occurrences of a pair at least; rare pairs have the highest information and match nothing"""
    min_pmi: float = 3.0
    """least pointwise mutual information in bits, also where the list is not full"""


class TitlesConfig(Section):
    """Article titles that are often looked at."""

    min_views: Annotated[int, Field(ge=1)] = 70
    """views in all hours together"""
    min_hour: Annotated[int, Field(ge=1)] = 50
    """views within an hour for the hour to count (MetaCLIP's setting)"""
    domains: list[str] = Field(default=["en", "en.m"])
    """domain codes of the pageview files: desktop and mobile English Wikipedia"""


class WordNetConfig(Section):
    """WordNet's synsets."""

    synonyms: bool = False
    """every word of a synset, not only the first, by which it is named (data.* files)"""


class BuildConfig(Settings):
    """Make a query list: words and word pairs of a text, article titles, WordNet, own lists.

    Every source is optional. Without any, WordNet is looked for on this machine. The list goes to
    OUTPUT/queries.parquet, for `wit shards --queries`, and a report beside it.
    """

    output: Path = Path("data/queries")
    """folder for the list, its config, its report and the work files"""
    text: list[Path] = Field(default=[])
    """running text: Wikipedia's pages-articles .xml.bz2, or .txt, .txt.gz, .parquet; repeat"""
    counts: list[Path] = Field(default=[])
    """n-grams that are counted already (.csv, .tsv, .parquet: n-gram and count); repeat"""
    titles_file: Path | None = None
    """Wikipedia's all-titles file (.gz): only these titles count"""
    pageviews: list[Path] = Field(default=[])
    """hourly pageview files (.gz), or folders of them; repeat"""
    wordnet: list[Path] = Field(default=[])
    """WordNet's folder, data.* or index.* files, or lists of lemmas (.txt); repeat"""
    lists: list[Path] = Field(default=[])
    """own queries, .txt (one a line) or .parquet; they come first; repeat"""
    captions: Path | None = None
    """sample of captions (.txt, .csv, .parquet) that the report measures the coverage of"""
    max_queries: Annotated[int, Field(ge=1)] = 500_000
    """length of the list"""
    max_malformed: Annotated[float, Field(ge=0, le=1)] = 0.1
    """share of the lines of a file that may be malformed; they are left out and reported"""
    words: WordsConfig = WordsConfig()
    pairs: PairsConfig = PairsConfig()
    titles: TitlesConfig = TitlesConfig()
    synsets: WordNetConfig = WordNetConfig()
    engine: EngineConfig = EngineConfig()

    def identity(self) -> dict[str, Any]:
        """The part that decides the list, as plain JSON; of files only the names."""
        plain = {key: value for key, value in as_json(self).items() if key not in _NO_EFFECT}
        for key in ("text", "counts", "pageviews", "wordnet", "lists"):
            plain[key] = [Path(path).name for path in plain[key]]
        plain["titles_file"] = self.titles_file.name if self.titles_file else None
        return plain


class ReportConfig(Settings):
    """Say what a query list holds and, with --captions, what it covers."""

    output: Path = Path("data/queries")
    """folder that `wit queries build` made"""
    captions: Path | None = None
    """sample of captions (.txt, .csv, .parquet)"""
    engine: EngineConfig = EngineConfig()
