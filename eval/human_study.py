"""A study of people on a set's classes, as the CLIP paper made one of Oxford-IIIT Pets (section 4).

Each picture is named by several people, who choose a class or say that they don't know, first
without help, then with one and with two sample pictures of each class. Attention checks come in
between: a class to choose, and no picture. Every answer is kept at once, so a study may be stopped
at any time and goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eval.evalset import EvalSample, EvalSet
from eval.pages.journal import Journal
from wit.config import write_json
from wit.errors import InputError

ROUNDS = (0, 1, 2)  # sample pictures of each class


class Study:
    """Who is asked what next, and what was said.

    Args:
        data: a classification set; sample pictures come from `data.train`, or else from the set
            itself, whose sample pictures are then never asked.
        folder: where study.json and answers.jsonl are kept.
        people: answers for each picture in each round.
        check_every: an attention check comes after so many pictures.
        most: pictures of one person in each round; None: as long as there are any.

    Raises:
        InputError: a class has too few pictures, or the folder holds another study.
    """

    def __init__(
        self,
        data: EvalSet,
        folder: Path,
        people: int = 5,
        check_every: int = 20,
        most: int | None = None,
        seed: int = 0,
    ) -> None:
        self.classes, self.people = data.classes, people
        self.check_every, self.most, self.seed = check_every, most, seed
        self.help = self._samples_of(data)
        helping = [sample for samples in self.help for sample in samples]
        taken = set() if data.train else {sample.key for sample in helping}
        self.asked = {
            self._name(sample.key): sample for sample in data.samples if sample.key not in taken
        }
        self.shown = self.asked | {self._name("sample " + s.key): s for s in helping}
        folder.mkdir(parents=True, exist_ok=True)
        self._keep_protocol(data, folder / "study.json")
        self.journal = Journal(folder / "answers.jsonl")
        self.pending: dict[str, dict[str, Any]] = {}
        self.done: dict[tuple[int, str], set[str]] = defaultdict(set)  # (round, key): persons
        self.count: Counter[tuple[str, int]] = Counter()  # (person, round): pictures
        for row in self.journal.rows:
            self._note(row)

    def next(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The question of a person: the one that is open, or a new one."""
        person = _person(asked)
        if person not in self.pending:
            question = self._new(person)
            if question is None:
                return {"done": True}
            self.pending[person] = question
        return self._page(self.pending[person])

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Keep an answer and give the next question.

        Raises:
            InputError: not the open question, or no class.
        """
        person, said, seconds = _person(asked), asked.get("said"), asked.get("seconds")
        question = self.pending.get(person)
        if question is None or asked.get("id") != question["id"]:
            raise InputError("this question is not open any more: reload the page")
        known = range(len(self.classes))
        if said is not None and not (type(said) is int and said in known):
            raise InputError(f"{said!r} is no class")
        if not isinstance(seconds, int | float) or not 0 <= seconds < 1e6:
            raise InputError("seconds must be a number")
        row = {
            "person": person,
            "shots": question["shots"],
            "check": question["check"],
            "key": question["key"],
            "label": question["label"],
            "said": said,
            "seconds": round(float(seconds), 3),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self.journal.add(row)
        self._note(row)
        del self.pending[person]
        return self.next(asked)

    def picture(self, name: str) -> bytes | None:
        """The encoded bytes of a picture of the study."""
        sample = self.shown.get(name)
        return None if sample is None else sample.read()

    def _new(self, person: str) -> dict[str, Any] | None:
        for shots in ROUNDS:
            count = self.count[person, shots]
            if self.most is not None and count >= self.most:
                continue
            open_now = [q["key"] for q in self.pending.values() if q["shots"] == shots]
            free = [
                (self.people - len(persons) - open_now.count(sample.key), name)
                for name, sample in self.asked.items()
                if person not in (persons := self.done[shots, sample.key])
            ]
            free = [(missing, name) for missing, name in free if missing > 0]
            if not free:
                continue
            checks = sum(
                row["check"] and row["person"] == person and row["shots"] == shots
                for row in self.journal.rows
            )
            if count and count // self.check_every > checks:
                return self._check(person, shots, checks)
            # Pictures that others have begun are finished first; the rest in an own order.
            name = min(free, key=lambda item: (item[0], self._name(person + item[1])))[1]
            sample = self.asked[name]
            left = len(free) if self.most is None else min(len(free), self.most - count)
            return {"id": f"{shots}-{name}", "shots": shots, "check": False, "left": left,
                    "key": sample.key, "label": sample.label, "picture": name}  # fmt: skip
        return None

    def _check(self, person: str, shots: int, number: int) -> dict[str, Any]:
        name = self._name(f"check {person} {shots} {number}")
        return {"id": f"check-{name}", "shots": shots, "check": True, "left": 1,
                "key": f"check {number}", "label": int(name, 16) % len(self.classes),
                "picture": None}  # fmt: skip

    def _page(self, question: dict[str, Any]) -> dict[str, Any]:
        """What the page is told: nothing that gives the answer away."""
        order = sorted(range(len(self.classes)), key=lambda i: self.classes[i].casefold())
        shots = 0 if question["check"] else question["shots"]
        return {
            "done": False,
            "id": question["id"],
            "shots": question["shots"],
            "left": question["left"],
            "check": self.classes[question["label"]] if question["check"] else None,
            "picture": question["picture"],
            "order": order,
            "classes": [self.classes[i].replace("_", " ") for i in order],
            "samples": [
                [self._name("sample " + sample.key) for sample in self.help[i][:shots]]
                for i in order
            ],
        }

    def _note(self, row: dict[str, Any]) -> None:
        try:
            if not row["check"]:
                self.done[row["shots"], row["key"]].add(row["person"])
                self.count[row["person"], row["shots"]] += 1
        except (KeyError, TypeError):
            raise InputError(
                f"{self.journal.path}: an answer without person, shots or key"
            ) from None

    def _samples_of(self, data: EvalSet) -> list[list[EvalSample]]:
        source = data.train or data
        by_class: list[list[EvalSample]] = [[] for _ in data.classes]
        for sample in source.samples:
            by_class[sample.label].append(sample)
        least = max(ROUNDS) + (0 if data.train else 1)
        for name, samples in zip(data.classes, by_class, strict=True):
            if len(samples) < least:
                raise InputError(
                    f"{data.path}: class {name!r} has {len(samples)} pictures in split"
                    f" {source.split}; a study needs {least}"
                )
            samples.sort(key=lambda sample: self._name("help " + sample.key))
        return [samples[: max(ROUNDS)] for samples in by_class]

    def _name(self, text: str) -> str:
        """A name that tells nothing: keys of class folders hold the class."""
        return hashlib.sha256(f"{self.seed} {text}".encode()).hexdigest()[:16]

    def _keep_protocol(self, data: EvalSet, path: Path) -> None:
        protocol = {
            "data": data.fingerprint,
            "split": data.split,
            "classes": list(data.classes),
            "people": self.people,
            "check_every": self.check_every,
            "seed": self.seed,
            "samples": [[sample.key for sample in samples] for samples in self.help],
        }
        if path.exists():
            if json.loads(path.read_text("utf-8")) != protocol:
                raise InputError(
                    f"{path}: a study of other data or settings; give another --out, or the same"
                    " --set and settings as then"
                )
            return
        write_json(protocol, path)


def _person(asked: dict[str, Any]) -> str:
    person = asked.get("person")
    if not isinstance(person, str) or not 0 < len(person.strip()) <= 64:
        raise InputError("a name of 1 to 64 characters is needed")
    return person.strip()
