"""Prompt templates: reading, checking, filling in.

A template is a sentence with `{c}` in the place of the class name, as the community's
webdataset evaluation folders write it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wit.errors import InputError

# For class folders, which bring no templates. Written for photographs of things.
DEFAULT_TEMPLATES = (
    "a photo of a {c}.",
    "a photo of the {c}.",
    "a close-up photo of a {c}.",
    "a picture of a {c}.",
    "a {c} in a photo.",
    "{c}.",
)


def read_lines(path: Path, what: str) -> tuple[str, ...]:
    """The lines of a text file; an empty line is an error, for it would shift the labels.

    Raises:
        InputError: the file is missing, empty, not UTF-8 or has an empty line.
    """
    try:
        lines = path.read_text("utf-8").rstrip().split("\n")
    except FileNotFoundError:
        raise InputError(f"{path}: missing; it must list {what}, one a line") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from None
    lines = [line.strip() for line in lines]
    for number, line in enumerate(lines, 1):
        if not line:
            raise InputError(f"{path}: line {number} is empty; it must list {what}, one a line")
    return tuple(lines)


def read_templates(path: Path) -> tuple[str, ...]:
    """The templates of a file, each with `{c}` in it.

    Raises:
        InputError: as `read_lines`, or a template without `{c}`.
    """
    templates = read_lines(path, "prompt templates")
    for number, template in enumerate(templates, 1):
        if "{c}" not in template:
            raise InputError(
                f"{path}: line {number} is a template without {{c}}: {template!r};"
                " write {c} where the class name belongs"
            )
    return templates


def fill(templates: Sequence[str], name: str) -> list[str]:
    """The prompts of one class."""
    return [template.replace("{c}", name) for template in templates]
