"""Answers as JSON lines: each is on the disk before the page is told so."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from wit.errors import InputError


class Journal:
    """An append-only file of JSON objects; a last line that a crash cut off is removed.

    Raises:
        InputError: a line that is not a JSON object.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.exists() else b""
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with path.open("r+b") as file:
                file.truncate(whole)
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise InputError(f"{path}: line {number} is not a JSON object; mend or remove it")
            self.rows.append(row)

    def add(self, row: dict[str, Any]) -> None:
        """Append durably."""
        line = json.dumps(row, sort_keys=True) + "\n"
        with self.path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)
