"""The progress line: quiet for quick stages, with rate and time left for slow ones."""

from __future__ import annotations

import io

import pytest

from wit import progress
from wit.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_quick_stage_prints_one_line(clock: list[float]) -> None:
    out = io.StringIO()
    show = Progress("10_ingest", out)
    clock[0] = 1.0
    show(1, 2)
    show.finish("2 rows")
    assert out.getvalue() == "10_ingest      2 rows\n"


def test_a_slow_stage_says_rate_and_time_left(clock: list[float]) -> None:
    out = io.StringIO()
    show = Progress("60_fetch", out)
    for second in range(41):
        clock[0] = float(second)
        show(1000 * second, 100_000, unit="URLs")
    lines = out.getvalue().splitlines()
    assert len(lines) == 3  # at 2, 17 and 32 seconds: a log file stays short
    assert lines[1] == "60_fetch       17,000 of 100,000 URLs, 1,000/s, 1 min 23 s left"


def test_no_rate_after_the_first_answers(clock: list[float]) -> None:
    out = Terminal()
    show = Progress("60_fetch", out)
    for second, done in [(3.0, 1000), (8.0, 1), (9.0, 68), (10.0, 70)]:
        clock[0] = second
        show(done, 1378, unit="URLs")
    lines = [line.partition("URLs")[2] for line in out.getvalue().split("\r\x1b[K")[1:]]
    assert lines == ["", "", "", ", 7/s, 3 min 07 s left"]


def test_a_terminal_keeps_one_line(clock: list[float]) -> None:
    out = Terminal()
    show = Progress("20_match", out)
    clock[0] = 10.0
    show(50, 100, unit="%")
    show.finish("done")
    assert out.getvalue() == ("\r\x1b[K20_match       50%, 10 s left\r\x1b[K20_match       done\n")


def test_a_line_that_is_out_of_date_goes(clock: list[float]) -> None:
    out, file = Terminal(), io.StringIO()
    for stream in (out, file):
        show = Progress("verify", stream)
        clock[0] += 10.0
        show(1, 4, unit="shards")
        show.clear()
        show.clear()
    assert out.getvalue() == "\r\x1b[Kverify         1 of 4 shards, 0.1/s, 30 s left\r\x1b[K"
    assert file.getvalue() == "verify         1 of 4 shards, 0.1/s, 30 s left\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (60, "1 min 00 s"), (7260, "2 h 01 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
