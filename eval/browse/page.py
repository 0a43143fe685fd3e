"""What the page can ask: each method answers one kind of request with plain JSON values."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.browse.flags import Flags
from eval.browse.pictures import Pictures
from eval.browse.reader import Reader, plain
from pipeline import why
from pipeline.engine import sql_text
from wit import manifest
from wit.errors import InputError

if TYPE_CHECKING:
    from eval.browse.nearest import Nearest, Target

PAGE = 48  # pairs of a list
DEEPEST = 4800  # pairs that paging goes through
ROWS = 500  # of an answer in SQL
KEPT = {"column": "verdict", "op": "is", "value": "kept"}  # what has features is kept
LONGEST = 4000  # characters of a search


class Page:
    """The requests of the page about one corpus.

    Args:
        nearest: search by features, of a page with a checkpoint.
    """

    def __init__(
        self, corpus: Path, reader: Reader, flags: Flags, nearest: Nearest | None = None
    ) -> None:
        self.corpus, self.reader, self.flags, self.nearest = corpus, reader, flags, nearest
        self.pictures, self.asker = Pictures(corpus), why.Why(corpus)
        self._state, self._asking = _stamp(corpus), threading.Lock()

    def actions(self) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        """Name -> what answers it; none of them while the corpus is another than at the start."""
        names = ("about", "search", "pair", "sql", "why", "flag", "flagged", "classify")
        return {name: self._guarded(getattr(self, name)) for name in names}

    def _guarded(
        self, action: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> Callable[[dict[str, Any]], dict[str, Any]]:
        def answer(asked: dict[str, Any]) -> dict[str, Any]:
            if _stamp(self.corpus) != self._state:  # also while a removal or a build is under way
                raise InputError("the corpus has changed: stop wit browse and start it again")
            return action(asked)

        return answer

    def picture(self, name: str) -> bytes | None:
        """The picture of a key."""
        return self.pictures.read(name)

    def about(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What the page shows before anything was asked."""
        suggestions: dict[str, list[str]] = {}
        for line in self.reader.rows("browse_suggestions.sql"):
            suggestions.setdefault(line["name"], []).append(line["value"])
        reasons = self.reader.rows("browse_reasons.sql")
        suggestions["reason"] = [line["reason"] for line in reasons]
        suggestions["verdict"] = ["kept", "dropped"]
        return {
            "corpus": str(self.corpus),
            "page": PAGE,
            **self.reader.counts,
            "reasons": plain(reasons),
            "columns": plain(self.reader.rows("browse_columns.sql")),
            "tables": plain(self.reader.rows("browse_tables.sql")),
            "example": sql_text("browse_example.sql"),
            "suggestions": suggestions,
            "checkpoint": self.nearest.about() if self.nearest else None,
            **self._flags(),
        }

    def search(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A page of pairs by words and filters, or the nearest to a text, a picture or a pair."""
        start = time.perf_counter()
        text, filters = _text(asked, "text", LONGEST), asked.get("filters", [])
        offset = _whole(asked, "offset", DEEPEST)
        order = [str(name) for name in asked.get("order") or []]
        total: int | None = None
        cosines: dict[int, float] = {}
        mode = asked.get("mode", "words")
        if mode == "words":
            rows, total = self.reader.find(text, filters, order, PAGE, offset)
        else:
            model = self._model()
            asked_for = (
                [one for one in filters if one != KEPT] if type(filters) is list else filters
            )
            allowed = self.reader.matching(asked_for) if asked_for else None
            query = model.query(mode, asked, self.pictures)
            target: Target = "captions" if asked.get("target") == "captions" else "images"
            cosines = model.rows(query, target, PAGE + offset, allowed)
            rows = list(cosines)[offset:]
        cards = self.reader.cards(rows)
        for card in cards:
            card["cosine"] = cosines.get(card["row"])
        seconds = time.perf_counter() - start
        return {"pairs": cards, "total": total, "seconds": seconds, "flagged": self._uids()}

    def pair(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One row with its provenance and why it was kept or dropped."""
        found = self.reader.pair(_whole(asked, "row", 2**53))
        found["fetched"] = self.reader.fetched(found["pair"]["url"])
        found["why"] = self._explain(found)
        found["flagged"] = self._uids()
        return found

    def sql(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Free SQL over the catalogue, for reading."""
        return self.reader.sql(_text(asked, "query", 20_000), ROWS)

    def why(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Why an address or a caption is not in the corpus, or where in it it is."""
        url, text = _text(asked, "url", why.LONGEST), _text(asked, "text", why.LONGEST)
        why.check(url, text)
        with self._asking, self.reader.cursor() as cursor:  # it uses a core and a scratch folder
            cleaned = self.asker.clean(text) if text.strip() else ""
            rows: list[int] = []
            if url.strip():
                rows = self.asker.rows_of_url(cursor, url)
            if text.strip():
                given = {"text": cleaned, "raw_text": text}
                same = cursor.execute(sql_text("why_caption.sql"), given).fetchall()
                worded = [row for (row,) in same]
                both = [row for row in rows if row in set(worded)]
                rows = (both or rows) if url.strip() else worded
        found = []
        for row in rows[: why.MOST]:
            pair = self.reader.pair(row)
            found.append({**pair, "why": self._explain(pair)})
        found.sort(key=lambda one: one["pair"]["verdict"] != "kept")
        answer = {"cleaned": cleaned, "found": found, "total": len(rows), "verdict": None}
        if not rows:
            answer["verdict"] = self._would_be(url.strip(), text)
        return answer

    def flag(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Put a uid, sha256, URL or domain on the removal list, or take it off."""
        self.flags.set(_text(asked, "value", 4000), bool(asked.get("on", True)))
        return self._flags()

    def flagged(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The removal list with its pairs."""
        uids = self._uids()
        rows = [line["row"] for line in self.reader.rows("browse_uids.sql", {"uids": uids})]
        others = sorted(value for kind, value in self.flags.entries if kind != "uid")
        return {
            "pairs": self.reader.cards(rows),
            "others": others,
            "flagged": uids,
            **self._flags(),
        }

    def classify(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Zero-shot probabilities of labels for a picture."""
        labels = asked.get("labels")
        if not isinstance(labels, list) or not all(isinstance(one, str) for one in labels):
            raise InputError("give labels as a list of texts")
        return self._model().classify(asked, labels, _text(asked, "template", 400))

    def _model(self) -> Nearest:
        if self.nearest is None:
            raise InputError("this needs a model: start wit browse with --checkpoint RUN")
        return self.nearest

    def _uids(self) -> list[str]:
        return sorted(value for kind, value in self.flags.entries if kind == "uid")

    def _flags(self) -> dict[str, Any]:
        path = self.flags.path
        command = f"wit remove {self.corpus} --file {path}"
        return {"flags": len(self.flags.entries), "file": str(path), "command": command}

    def _explain(self, found: dict[str, Any]) -> dict[str, Any]:
        pair = found["pair"]
        reason = pair["reason"]
        if reason is None:
            return {"verdict": pair["verdict"], "stage": None, "reason": None}
        return {
            "verdict": pair["verdict"],
            "stage": pair["stage"],
            "reason": reason,
            "meaning": self.asker.meaning(reason),
            "limits": self._limits(reason),
            "measured": why.measured(pair),
            "rule": found["kept"]["rule"] if found["kept"] else None,
        }

    def _limits(self, reason: str) -> dict[str, str]:
        return {key: _short(value) for key, value in self.asker.limits(reason).items()}

    def _would_be(self, url: str, text: str) -> dict[str, Any]:
        with self._asking, self.reader.cursor() as cursor:
            found = self.asker.verdict(cursor, url, text)
        answer: dict[str, Any] = {
            "reason": found.reason,
            "stage": found.stage,
            "queries": found.queries[:40],
            "notes": found.notes,
            "cap": self.asker.plain["balance"]["cap"],
        }
        if found.reason is not None:
            pair = {"reason": found.reason, "text": found.text or ""}
            known = found.reason not in ("language", "nsfw", "watermark")
            answer |= {
                "meaning": self.asker.meaning(found.reason),
                "limits": self._limits(found.reason),
                "measured": why.measured(pair) if text.strip() and known else "",
            }
        return answer


def _stamp(corpus: Path) -> tuple[int, int, int] | None:
    """Another value for every manifest that is written; None where there is none."""
    try:
        about = (corpus / manifest.NAME).stat()
    except OSError:
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns


def _text(asked: dict[str, Any], name: str, longest: int) -> str:
    value = asked.get(name, "")
    if not isinstance(value, str) or len(value) > longest:
        raise InputError(f"{name}: give a text of at most {longest:,} characters")
    return value


def _whole(asked: dict[str, Any], name: str, most: int) -> int:
    value = asked.get(name, 0)
    if type(value) is not int or not 0 <= value <= most:
        raise InputError(f"{name}: give a whole number from 0 to {most:,}")
    return value


def _short(value: Any) -> str:
    """A setting as people read it; of long lists the beginning."""
    if isinstance(value, list) and len(value) > 8:
        return f"{', '.join(map(str, value[:8]))}, … ({len(value)} in all)"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items() if v is not None) or "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "none" if value is None else str(value)
