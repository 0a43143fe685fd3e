"""Templates."""

import pytest

from eval.prompts import DEFAULT_TEMPLATES, fill, read_lines, read_templates
from wit.errors import InputError


def test_fill_puts_the_name_everywhere():
    assert fill(["a {c}.", "{c} and {c}"], "dog {c}") == ["a dog {c}.", "dog {c} and dog {c}"]


def test_default_templates_name_the_class():
    assert all("{c}" in template for template in DEFAULT_TEMPLATES)
    assert len(set(DEFAULT_TEMPLATES)) == len(DEFAULT_TEMPLATES)


def test_lines_keep_their_order_whatever_ends_the_file(tmp_path):
    path = tmp_path / "names.txt"
    for text in ("b\na", "b\na\n", "b\r\na\r\n\n"):
        path.write_bytes(text.encode())
        assert read_lines(path, "names") == ("b", "a")


def test_mistakes(tmp_path):
    path = tmp_path / "t.txt"
    with pytest.raises(InputError, match="missing; it must list prompt templates"):
        read_templates(path)
    path.write_text("")
    with pytest.raises(InputError, match="line 1 is empty"):
        read_templates(path)
    path.write_text("a {c}\na {}")
    with pytest.raises(InputError, match=r"line 2 is a template without \{c\}: 'a \{\}'"):
        read_templates(path)
