"""One line per stage on stderr, with rate and time left while it is at work."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_FIRST = 2.0  # seconds before the first line: quick stages stay quiet
_STEADY = 5.0, 100, 0.05  # before a rate is shown: seconds; units, or that share of all
_TERMINAL, _FILE = 0.5, 15.0  # seconds between lines


class Progress:
    """Says how far a stage is; call it as often as you like, it prints rarely."""

    def __init__(self, name: str, stream: TextIO | None = None) -> None:
        self._name, self._stream = name, stream or sys.stderr
        self._start = time.monotonic()
        self._terminal = self._stream.isatty()
        self._next = self._start + _FIRST
        self._open = False  # whether a line that will be overwritten stands on the terminal

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def __call__(self, done: float, total: float, unit: str = "rows") -> None:
        """Report `done` of `total` units (`unit` "%" prints a share instead of a count)."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (_TERMINAL if self._terminal else _FILE)
        line = f"{done:.0f}%" if unit == "%" else f"{done:,.0f} of {total:,.0f} {unit}"
        seconds, units, share = _STEADY
        if done and self.seconds >= seconds and done >= min(units, share * total):
            rate = done / self.seconds
            left = duration((total - done) / rate) if done <= total else "?"
            speed = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
            line += f"{'' if unit == '%' else f', {speed}'}, {left} left"
        self._print(f"{self._name:<14} {line}", temporary=True)

    def finish(self, text: str) -> None:
        """Print the last line of the stage."""
        self._print(f"{self._name:<14} {text}", temporary=False)

    def clear(self) -> None:
        """Leave no line that is out of date on a terminal; in a file there is nothing to do."""
        if self._open:
            print("\r\x1b[K", end="", file=self._stream, flush=True)
            self._open = False

    def _print(self, line: str, temporary: bool) -> None:
        if self._terminal:
            self._open, end = temporary, "" if temporary else "\n"
            print(f"\r\x1b[K{line}", end=end, file=self._stream, flush=True)
        else:
            print(line, file=self._stream, flush=True)


def duration(seconds: float) -> str:
    """Seconds as people read them: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
