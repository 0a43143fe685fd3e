"""WordNet's names: the files of its own database (WNDB: data.*, index.*), or a list of lemmas.

wndb(5WN): a line of data.noun is "offset file type words(hex) word id …"; licence lines begin with
two spaces; adjectives carry (a), (p) or (ip); spaces are underscores.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.querylist.lines import Tally
from wit.errors import InputError

PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
_INDEXED = re.compile(r"\S+ [nvar] [0-9]+ ")
_MARKER = re.compile(r"\((?:a|p|ip)\)$")
# Where Debian's wordnet-base, Princeton's own and NLTK's downloads put it.
_INSTALLED = (
    "/usr/share/wordnet",
    "/usr/local/WordNet-3.0/dict",
    "/usr/local/share/wordnet",
    "/usr/share/nltk_data/corpora/wordnet",
    "/usr/local/share/nltk_data/corpora/wordnet",
    f"{sys.prefix}/nltk_data/corpora/wordnet",
    "~/nltk_data/corpora/wordnet",
)


def installed() -> Path | None:
    """The folder of the WordNet that this machine has, if any."""
    folders = (Path(name).expanduser() for name in _INSTALLED)
    return next((at for at in folders if (at / "data.noun").is_file()), None)


def files(given: Path) -> list[Path]:
    """The files that a path of the user stands for; of a folder its data.*, else its index.*.

    Raises:
        InputError: nothing of WordNet is there.
    """
    if given.is_file():
        return [given]
    for kind in ("data", "index"):
        found = [given / f"{kind}.{pos}" for pos in PARTS_OF_SPEECH]
        if found := [path for path in found if path.is_file()]:
            return found
    raise InputError(f"{given}: no data.noun or index.noun there: check --wordnet")


def names(path: Path, synonyms: bool, tally: Tally) -> Iterator[str]:
    """The names in a file, with spaces; of a synset the first word or, with `synonyms`, each. A
    malformed line of an index is left out.

    Raises:
        InputError: the file is not what its name says.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error}): convert it") from None
    kind = path.name.partition(".")[0]
    for number, line in enumerate(lines, 1):
        if not line.strip() or (kind in ("data", "index") and line.startswith("  ")):
            continue
        good = kind != "index" or bool(_INDEXED.match(line))
        tally.add(line, good, number)
        if kind == "data":
            yield from _synset(path, number, line.split(" "), synonyms)
        elif kind == "index" and good:
            yield _name(line.split(" ")[0])
        elif good:
            yield line.strip().replace("_", " ")


def _synset(path: Path, number: int, fields: list[str], synonyms: bool) -> Iterator[str]:
    try:
        size = int(fields[3], 16)
        found = fields[4 : 4 + 2 * size : 2]
        whole = size > 0 and len(found) == size and fields[0].isdigit()
    except (IndexError, ValueError):
        whole = False
    if not whole:
        raise InputError(f"{path}: line {number} is no synset of WordNet's: get the file again")
    for word in found if synonyms else found[:1]:
        yield _name(word)


def _name(word: str) -> str:
    return _MARKER.sub("", word).replace("_", " ")
