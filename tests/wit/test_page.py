"""The parts of a page show any text and do nothing."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wit import page
from wit.errors import ConfigError, InputError
from wit.report_command import kind_of, main

TURNING = "\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"


@given(st.text(max_size=60))
def test_text_is_shown_and_nothing_else(value: str) -> None:
    shown = page.text(value)
    assert not set("<>\"'") & set(shown)
    assert not any(char in shown for char in TURNING)
    if value.isprintable():
        assert html.unescape(shown) == value


def test_what_turns_or_hides_text_is_named() -> None:
    assert page.text("a\u202egnp.exe\x00") == "a⟨U+202E⟩gnp.exe⟨U+0000⟩"
    assert page.text("👩‍👩‍👧") == "👩‍👩‍👧"
    assert page.text("m" * 5000, 10) == "m" * 10 + "… (5,000 characters)"


def test_a_table_aligns_numbers_and_escapes() -> None:
    table = page.table(("<b>", "n"), [["<script>", 1234], ["x", None]], "a & b")
    assert "&lt;b&gt;" in table
    assert "&lt;script&gt;" in table
    assert '<td class="n">1,234</td>' in table
    assert '<td class="n">–</td>' in table
    assert 'aria-label="a &amp; b"' in table


def test_a_thumbnail_is_small_whatever_the_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 1400, 3), np.uint8)
    tag = page.thumbnail(Image.fromarray(noise), 'an "alt" <text>')
    assert len(tag) < 1.4 * page.MOST_BYTES + 300
    assert 'alt="an &quot;alt&quot; &lt;text&gt;"' in tag
    assert f'width="{page.SIDE}"' in tag
    assert "no picture" in page.thumbnail(None, "gone")


def test_a_page_forbids_scripts() -> None:
    whole = page.page(
        "<title>", [page.section("a", "A & B", ["<p>x</p>"])], page.contents([("a", "A")])
    )
    assert "default-src 'none'" in whole
    assert "<title>&lt;title&gt;</title>" in whole
    assert '<a href="#a">A</a>' in whole
    assert "prefers-color-scheme: dark" in whole


def test_what_a_folder_holds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        kind_of(tmp_path / "absent")
    with pytest.raises(InputError, match="neither a corpus nor a run"):
        kind_of(tmp_path)
    for name, mark in (("corpus", "manifest.json"), ("other", "stages"), ("run", "metrics.jsonl")):
        (tmp_path / name).mkdir()
        (tmp_path / name / mark).write_text("{}")
    assert [kind_of(tmp_path / name) for name in ("corpus", "run")] == ["corpus", "run"]
    with pytest.raises(ConfigError, match="a corpus and a run"):
        main([str(tmp_path / "corpus"), str(tmp_path / "run")])
    with pytest.raises(ConfigError, match="more than one corpus"):
        main([str(tmp_path / "corpus"), str(tmp_path / "other")])
    with pytest.raises(ConfigError, match="samples = '201' is out of range"):
        main([str(tmp_path / "corpus"), "--samples", "201"])
