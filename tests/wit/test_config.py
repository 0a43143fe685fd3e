"""Config: what wins over what, and one line for each kind of mistake."""

import json
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError
from pydantic_settings import CliPositionalArg

from wit.config import Section, Settings, fingerprint, load, write_config
from wit.errors import ConfigError, InputError


class Optim(Section):
    lr: float = Field(5e-4, gt=0)
    """Peak learning rate."""
    kind: Literal["adamw", "sgd"] = "adamw"


class Example(Settings):
    """An example command."""

    corpus: CliPositionalArg[Path] = Path("data/corpus")
    steps: int = Field(10, ge=1, le=1000)
    optim: Optim = Optim()
    inputs: tuple[Path, ...] = ()


def read(*argv: str) -> Example:
    return load(Example, argv, prog="wit example")


def test_command_line_wins_over_file_wins_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("steps = 20\n[optim]\nlr = 0.1\n")
    config = read("there", "--config", str(file), "--optim.lr", "0.2")
    assert (config.corpus, config.steps) == (Path("there"), 20)
    assert (config.optim.lr, config.optim.kind) == (0.2, "adamw")


def test_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPS", "99")
    assert read().steps == 10


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--steps", "0"], ["steps = '0'", "at least 1"]),
        (["--steps", "5000"], ["steps = '5000'", "at most 1000"]),
        (["--optim.lr", "-1"], ["optim.lr = '-1'", "greater than 0"]),
        (["--steps", "many"], ["steps = 'many'", "integer"]),
        (["--optim.kind", "adam"], ["optim.kind = 'adam'", "did you mean adamw?"]),
        (["--optim.lrr", "1"], ["unknown option --optim.lrr", "did you mean --optim.lr?"]),
        (["--optim.lr"], ["--optim.lr", "expected one argument"]),
        (["one", "two"], ["unexpected two"]),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(argv: list[str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(*argv)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("toml", "error", "part"),
    [
        ("[optim]\nlrr = 1\n", ConfigError, "unknown key optim.lrr; did you mean optim.lr?"),
        ("stepz = 1\n", ConfigError, "unknown key stepz; did you mean steps?"),
        ("steps = 0\n", ConfigError, "steps = 0 is out of range: it must be at least 1"),
        ("steps = = 0\n", InputError, "not valid TOML"),
    ],
)
def test_a_mistake_in_the_file(
    tmp_path: Path, toml: str, error: type[Exception], part: str
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(toml)
    with pytest.raises(error) as caught:
        read("--config", str(file))
    assert part in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such config file"):
        read("--config", str(tmp_path / "absent.toml"))


def test_a_config_is_frozen() -> None:
    config = read()
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 3  # type: ignore[misc]


def test_the_resolved_config_is_written_with_its_fingerprint(tmp_path: Path) -> None:
    config = read("--steps", "7")
    write_config(config, tmp_path / "config.json")
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["config"]["steps"] == 7
    assert written["fingerprint"] == fingerprint(config) != fingerprint(read())


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans()))
def test_fingerprint_does_not_depend_on_key_order(values: dict[str, object]) -> None:
    backwards = dict(reversed(values.items()))
    assert fingerprint(values) == fingerprint(backwards)
    assert len(fingerprint(values)) == 16
