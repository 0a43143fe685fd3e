"""The error tree: one base class, one subclass for each thing the caller can do about it.

Every message is one line that says what is wrong, where, and how to mend it. The `wit`
command prints it without a traceback and exits with `exit_code`.

    WitError
    ├── ConfigError       a key, a value or a command-line option
    ├── InputError        a file or folder that the user gave
    ├── CorpusError       a corpus directory: missing, unfinished, damaged
    ├── CheckpointError   a run directory or a checkpoint file
    ├── MissingExtra      an optional part that is not installed
    ├── SampleError       one bad sample; counted by its reader, never fatal by itself
    └── TooManyBadSamples the bound on bad samples was passed
"""

from __future__ import annotations


class WitError(Exception):
    """Something the user can mend; `str(error)` is the whole story in one line."""

    exit_code = 2


class ConfigError(WitError):
    """An unknown key, a wrong type or a value out of range."""


class InputError(WitError):
    """An input that is missing, unreadable or of the wrong shape."""


class CorpusError(WitError):
    """A corpus directory that is missing, unfinished or damaged."""


class CheckpointError(WitError):
    """A run directory or checkpoint that is missing, torn or of another shape."""


class MissingExtra(WitError):
    """An optional dependency is absent; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str) -> None:
        install = f"pip install -e '.[{extra}]'"
        super().__init__(f"{package} is not installed: run `{install}` in the project folder")


class SampleError(WitError):
    """One sample that can't be used.

    Attributes:
        key: the sample's key or URL.
        file: the file that holds it.
        reason: a short, closed-set word for counting, e.g. `truncated_image`.
    """

    def __init__(self, key: str, file: str, reason: str) -> None:
        super().__init__(f"{file}: sample {key}: {reason}")
        self.key, self.file, self.reason = key, file, reason


class TooManyBadSamples(WitError):
    """More bad samples than the config allows."""
