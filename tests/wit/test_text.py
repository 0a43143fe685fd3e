"""Caption cleaning and the word normaliser."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit.text import clean_caption, rank, uid, words

ANY_TEXT = st.text(max_size=60)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  a   dog\n on\tgrass ", "a dog on grass"),
        ("salt &amp; pepper", "salt & pepper"),
        ("salt &amp;amp; pepper", "salt & pepper"),
        ("caf&eacute; &#233; &#xe9;", "café é é"),
        ("http://x/?a=1&copy=2", "http://x/?a=1&copy=2"),
        ("cafÃ© crÃ¨me", "café crème"),
        ("the dogâ€™s bowl", "the dog's bowl"),
        ("“quoted” text", '"quoted" text'),
        ("zero\u200bwidth \ufeffmark\u00ad", "zerowidth mark"),
        ("bell\x07 and\x00 null", "bell and null"),
        ("e\u0301", "é"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("a\u00a0b\u3000c", "a b c"),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        ("", ""),
        ("\n\t ", ""),
    ],
)
def test_clean_caption(raw: str, clean: str) -> None:
    assert clean_caption(raw) == clean


@given(ANY_TEXT)
def test_a_clean_caption_is_one_printable_line(text: str) -> None:
    clean = clean_caption(text)
    assert clean == clean.strip()
    assert "  " not in clean
    assert not set(clean) & set("\n\r\t\x00\x1b\u2028")
    clean.encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"dog"', ["dog"]),
        ("(dog),", ["dog"]),
        ("dog's", ["dog"]),
        ("dog’s bowl", ["dog", "bowl"]),
        ("hotdog", ["hotdog"]),
        ("don't", ["don", "t"]),
        ("red_dog-12.jpg", ["red", "dog", "12", "jpg"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("ﬁne Ｗｉｄｅ ²", ["fine", "wide", "2"]),
        ("हिन्दी", ["हिन्दी"]),
        ("e\u0301tude étude", ["étude", "étude"]),
        ("🐶!?", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(ANY_TEXT)
def test_words_are_stable(text: str) -> None:
    once = words(text)
    assert words(" ".join(once)) == once


@given(st.text(st.characters(codec="ascii")) | st.text("aS's-_ "))
def test_ascii_has_the_words_of_any_text(text: str) -> None:
    assert words(text) == words(f"{text} é")[:-1]


@given(ANY_TEXT)
def test_words_ignore_case_of_ascii(text: str) -> None:
    plain = text.encode("ascii", "ignore").decode()
    assert words(plain.upper()) == words(plain.lower()) == words(plain)


def test_uid_is_md5_of_length_url_and_text() -> None:
    assert uid("http://x/é", "a dog") == hashlib.md5("11:http://x/éa dog".encode()).hexdigest()
    assert uid(None, None) == uid("", "")


@given(ANY_TEXT.filter(str.isprintable), ANY_TEXT.filter(str.isprintable), st.integers(0, 60))
def test_uid_keeps_url_and_text_apart(url: str, text: str, cut: int) -> None:
    joined = url + text
    other = (joined[:cut], joined[cut:])
    assert (uid(*other) == uid(url, text)) == (other == (url, text))


def test_rank_is_the_head_of_the_uid() -> None:
    assert rank("0123456789abcdef" + "f" * 16) == 0x0123456789ABCDEF
