"""The tokenizer beside a plain-Python BPE; published ones: tests/test_tokenizer_parity.py."""

from __future__ import annotations

import gzip
import html
import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path

import ftfy
import numpy as np
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

import wit.tokenizer
from wit.errors import ConfigError, InputError
from wit.tokenizer import Tokenizer, clean

CAPTIONS = [
    "a small red circle above a large blue square",
    "two green triangles on a striped background",
    "a dog's red ball isn't on the grass",
    "three small circles, one large square & 12 stars",
    "the photo shows a yellow star left of a purple ring",
] * 5

STRINGS = [
    "",
    "   \t\n ",
    "A Photo of a DOG.",
    "don't we'll they've I'm you're he'd it's IT'S it'ſ",
    "hello!!!??? ...---*** #hashtag @user",
    "1234567890 3.14 1,000 ½ ² ٣",
    "café naïve Straße İstanbul ΣΑΣ ǅ",
    "schön &amp; gut &amp;amp; &lt;b&gt;fett&lt;/b&gt; &nbsp;x",
    "ï¿½ sÃ£o paulo â€œquotedâ€\x9d",
    "日本語のテキスト 中文文本 한국어 ไทย हिन्दी العربية עברית",
    "🐕 🐕‍🦺 👩‍👩‍👧‍👦 🇩🇪 ❤️ 🏳️‍🌈",
    "zero\u200bwidth \u00ad soft \ufeff bom \u202e bidi",
    "control \x00 \x07 \x1b[31m \x1f \x85 line\u2028sep",
    "a" * 500,
    "supercalifragilisticexpialidocious" * 5,
    "word " * 200,
    "https://example.com/path?query=1&other=2",
    "mixed日本dog犬 e\u0301 combining Å\u030a",
    "'''s '' 's's 'll''",
    "\ud7ff \ue000 \U0010ffff",
]


def reference_ids(text: str, merges: list[tuple[str, str]]) -> list[int]:
    """CLIP's encoding in plain Python, from the paper's description and the published layout."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spell = {b: chr(b) for b in keep}
    for byte in range(256):
        spell.setdefault(byte, chr(256 + len(spell) - len(keep)))
    order = [spell[b] for b in keep] + [spell[b] for b in range(256) if b not in keep]
    tokens = order + [s + "</w>" for s in order] + [a + b for a, b in merges]
    number = {token: i for i, token in enumerate(tokens)}
    rank = {pair: i for i, pair in enumerate(merges)}
    ids = []
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    for word in regex.findall(pattern, clean(text), regex.IGNORECASE):
        parts = [spell[b] for b in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            best = min(itertools.pairwise(parts), key=lambda p: rank.get(p, 1 << 60))
            if best not in rank:
                break
            joined, i = [], 0
            while i < len(parts):
                if tuple(parts[i : i + 2]) == best:
                    joined.append(best[0] + best[1])
                    i += 2
                else:
                    joined.append(parts[i])
                    i += 1
            parts = joined
        ids += [number[part] for part in parts]
    return ids


def merges_of(tokenizer: Tokenizer, path: Path) -> list[tuple[str, str]]:
    tokenizer.save(path)
    return [(a, b) for a, b in json.loads(path.read_text("utf-8"))["model"]["merges"]]


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, 640)


@pytest.fixture(scope="module")
def trained_merges(trained: Tokenizer, tmp_path_factory) -> list[tuple[str, str]]:
    return merges_of(trained, tmp_path_factory.mktemp("vocab") / "tokenizer.json")


@pytest.mark.parametrize("text", CAPTIONS[:5] + STRINGS)
def test_equals_plain_python(trained: Tokenizer, trained_merges, text: str) -> None:
    assert trained.ids([text])[0] == reference_ids(text, trained_merges)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs", "Cn"]), max_size=40))
@example("a\u0345a !\u0345!")  # no letter, but folds to one
@example("Í\x85")  # the same mark, as mojibake
def test_equals_plain_python_on_any_text(trained, trained_merges, text: str) -> None:
    assert trained.ids([text])[0] == reference_ids(text, trained_merges)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_decode_gives_back_the_words(trained: Tokenizer, text: str) -> None:
    ids = trained.encode([text], 512)[0]
    assert "".join(trained.decode(ids).split()) == "".join(clean(text).split())


def test_layout_truncation_and_padding(trained: Tokenizer) -> None:
    tokens = trained.encode(["", "a small red circle", "a small red circle " * 40], 16)
    assert tokens.shape == (3, 16)
    assert tokens.dtype == np.int32
    assert tokens[0].tolist() == [trained.sot, trained.eot] + [0] * 14
    assert tokens[2, 0] == trained.sot
    assert tokens[2, -1] == trained.eot
    assert (tokens.argmax(axis=1) == [1, int((tokens[1] != 0).sum()) - 1, 15]).all()
    assert trained.vocab_size == trained.eot + 1 <= 640


def test_special_words_in_a_caption_are_plain_text(trained: Tokenizer) -> None:
    ids = trained.ids(["a dog <|endoftext|> <|startoftext|> a cat"])[0]
    assert trained.eot not in ids
    assert trained.sot not in ids


def test_training_learns_frequent_words_and_is_deterministic(trained, trained_merges, tmp_path):
    assert len(trained.ids(["circle"])[0]) == 1
    code = (
        "import sys; from pathlib import Path; from wit.tokenizer import Tokenizer\n"
        f"Tokenizer.train({CAPTIONS[::-1]!r}, 640).save(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "other.json")], check=True)
    trained.save(tmp_path / "own.json")
    assert (tmp_path / "other.json").read_bytes() == (tmp_path / "own.json").read_bytes()


def test_save_and_load(trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (loaded.encode(STRINGS) == trained.encode(STRINGS)).all()
    assert (loaded.sot, loaded.eot) == (trained.sot, trained.eot)


def test_loads_merges_from_a_text_file(trained: Tokenizer, trained_merges, tmp_path: Path) -> None:
    text = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in trained_merges)
    (tmp_path / "merges.txt.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    loaded = Tokenizer.load(tmp_path / "merges.txt.gz")
    assert (loaded.encode(STRINGS) == trained.encode(STRINGS)).all()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b"{}"),
        ("a.json", b"not json"),
        ("a.json", b'{"model": {"merges": [["a", "b", "c"]]}}'),
        ("a.json", b'{"model": {"merges": [["unknown", "b"]]}}'),
        ("a.txt", b"\xff\xfe"),
        ("a.txt", b"a b c\n"),
        ("a.txt", b"a b\na b\n"),
        ("a.txt.gz", b"no gzip"),
        ("a.txt.gz", gzip.compress(b"a b\n", mtime=0)[:-9]),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        Tokenizer.load(tmp_path / name)


def test_missing_file_and_tiny_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such vocabulary"):
        Tokenizer.load(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="514"):
        Tokenizer.train(CAPTIONS, 300)


def test_openai_names_the_mend_where_no_package_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install --no-deps open_clip_torch"):
        Tokenizer.load("openai")


@given(st.text(max_size=60))
@example("A a\u0345 a\u0345b \x1c\x85 &amp; Dog's 'S!")
def test_words_seen_before_get_the_same_ids(trained: Tokenizer, text: str) -> None:
    """The table of words changes nothing: whole texts through the engine give the same ids."""
    whole = trained._engine.encode(clean(text), add_special_tokens=False).ids
    assert trained.ids([text, text]) == [whole, whole]


def mended(text: str) -> str:
    """The published cleaning, without short cuts."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return regex.sub(r"\s+", " ", text).strip().lower()


CALM_AND_PLAIN = [*map(chr, range(0x20, 0x7F)), *wit.tokenizer._CALM, *"犬東ねはネバ한글🐕🚀"]


@given(st.text(st.sampled_from(CALM_AND_PLAIN)))
@example("R&B, Q&amp;A &AMP; &lt &#65; & co")
@example("“It’s” – said Zoë… n°1")
def test_short_cuts_of_the_cleaning_change_nothing(text: str) -> None:
    assert clean(text) == mended(text)


def test_calm_characters_are_calm_beside_all_of_ascii() -> None:
    for calm in wit.tokenizer._CALM:
        for other in map(chr, range(0x20, 0x7F)):
            text = f"{calm}{other}{calm} {other}x{calm}"
            assert clean(text) == mended(text), text


def test_plain_scripts_need_no_mending() -> None:
    for first, last in ("一鿿", "ぁゖ", "ァヺ", "가힣", "🌀\U0001faff"):
        text = "".join(map(chr, range(ord(first), ord(last) + 1)))
        assert wit.tokenizer._NEEDS_NO_MENDING.fullmatch(text)
        assert clean(text) == mended(text)


def test_cleaning_takes_linear_time() -> None:
    """A pattern that tries again and again would take years here; the test's time limit would."""
    for unit in ("a", "é", "aé", "& "):
        assert clean(unit * 50_000 + "\n") == mended(unit * 50_000)


def test_the_table_of_words_is_bounded(trained: Tokenizer, monkeypatch) -> None:
    monkeypatch.setattr(wit.tokenizer, "MOST_WORDS", 10)
    tokenizer = Tokenizer(trained._engine)
    texts = [f"dog {number} {'x' * 100}{number}" for number in range(50)]
    assert tokenizer.ids(texts) == trained.ids(texts)
    assert 0 < len(tokenizer._table) <= 10
    assert max(map(len, tokenizer._table)) <= wit.tokenizer.LONGEST_WORD


def test_a_vocabulary_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.txt.gz"
    with gzip.open(bomb, "wb", compresslevel=9) as file:
        for _ in range(65):
            file.write(bytes(1 << 20))
    with pytest.raises(InputError, match=r"bomb\.txt\.gz: not a vocabulary: larger than 64 MiB"):
        Tokenizer.load(bomb)
