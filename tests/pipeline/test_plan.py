"""`wit balance plan`: the cap it answers does what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.plan import main
from wit.errors import ConfigError, CorpusError

WORDS = ["dog", *["cat"] * 2, *["bird"] * 5, *["fish"] * 12, *["horse"] * 40]


@pytest.fixture
def corpus(run_until: Any, tmp_path: Path) -> Path:
    """2,400 pairs; the queries have 40 to 1,600, some pairs have two."""
    rows = []
    for i in range(2400):
        word = WORDS[i % len(WORDS)]
        other = " and a cat" if i % 11 == 0 else ""
        rows.append((f"http://h.example/{i}.jpg", f"a {word}{other} in picture {i}"))
    run_until("40_dedupe", rows, queries=sorted(set(WORDS)))
    return tmp_path / "corpus"


def plan(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert main(["plan", *args, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def kept(run_until: Any, cap: int, method: str) -> int:
    balance = {"cap": cap, "method": method}
    tables = run_until("50_balance", None, sorted(set(WORDS)), balance=balance)
    return list(tables.reasons("50_balance").values()).count(None)


@pytest.mark.parametrize("method", ["bottom_k", "independent"])
def test_the_curve_is_what_the_cap_keeps(
    run_until: Any, corpus: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    found = plan(capsys, "--corpus", str(corpus), "--size", "800", "--method", method)
    answer = found["answer"]
    assert answer["pairs"] == kept(run_until, answer["cap"], method)
    assert answer["pairs"] == pytest.approx(800, rel=0.03)
    assert found["pairs"] == 2400
    sizes = {point["cap"]: point["pairs"] for point in found["curve"]}
    assert list(sizes.values()) == sorted(sizes.values())
    assert max(sizes.values()) == 2400
    for cap in (20, 200, 1000):
        exact = kept(run_until, cap, method)
        assert sizes[cap] == pytest.approx(exact, rel=0.03 if method == "independent" else 0.15)


def test_a_share_of_the_tail(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(capsys, "--corpus", str(corpus), "--tail", "0.1")
    answer = found["answer"]
    assert answer["tail_share"] >= 0.1
    fewer = [point for point in found["curve"] if point["cap"] < answer["cap"]]
    assert all(point["tail_share"] < 0.1 for point in fewer)


def test_it_is_printed_for_people(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--corpus", str(corpus), "--size", "500"]) == 0
    shown = capsys.readouterr().out
    assert "2,400 pairs reach the cap" in shown
    assert "--balance.cap " in shown
    assert "█" in shown
    assert main(["plan", "--corpus", str(corpus), "--csv"]) == 0
    assert capsys.readouterr().out.startswith("cap,pairs,share,tail_queries,tail_share\n1,")


def test_mistakes_are_one_line(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="more than the 2,400 pairs"):
        main(["plan", "--corpus", str(corpus), "--size", "2401"])
    with pytest.raises(ConfigError, match="give one of them"):
        main(["plan", "--corpus", str(corpus), "--size", "1", "--tail", "0.5"])
    with pytest.raises(CorpusError, match="--until 40_dedupe"):
        main(["plan", "--corpus", str(tmp_path / "none")])
