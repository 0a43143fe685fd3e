"""Typed, frozen, validated config: defaults < TOML file < command line.

A command declares its config as a `Settings` class, with `Section` classes for the nested
parts; pydantic-settings turns it into options (`--optim.lr 3e-4`) and into the keys of a TOML
file (`[optim] lr = 3e-4`). Environment variables are not read: what a run did must be visible
in its command line and its file. Every mistake becomes one `ConfigError` line.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from wit.errors import ConfigError, InputError
from wit.files import write_durably


class Section(BaseModel):
    """A nested part of a config: frozen, and no key it doesn't know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True
    )


class Settings(BaseSettings):
    """The config of one command; read it with `load`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        cli_avoid_json=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        nested_model_default_partial_update=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


S = TypeVar("S", bound=Settings)


class _Parser(argparse.ArgumentParser):
    """argparse, with its mistakes as `ConfigError` and the nearest option named."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (`{self.prog} --help` lists the options)")

    def parse_exact(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            option = unknown[0].split("=")[0]
            if not option.startswith("-"):
                raise ConfigError(
                    f"unexpected {option}: a switch takes no value, it is --key or --no-key"
                    f" (`{self.prog} --help` lists the options)"
                )
            raise ConfigError(
                f"unknown option {option}{_nearest(option, list(self._option_string_actions))}"
                f" (`{self.prog} --help` lists the options)"
            )
        return parsed


def load(settings: type[S], argv: Sequence[str], prog: str) -> S:
    """Read a command's config from `argv` and the TOML file that `--config` names.

    Raises:
        ConfigError: an unknown key or option, a wrong type, a value out of range.
        InputError: the TOML file is missing or is not TOML.
    """
    description = (settings.__doc__ or "").strip()
    parser = _Parser(
        prog=prog,
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="TOML file with these keys")
    source: CliSettingsSource[Any] = CliSettingsSource(
        settings, root_parser=parser, parse_args_method=_Parser.parse_exact
    )
    try:
        source = source(args=list(argv))
        values: dict[str, Any] = _read_toml(_config_option(argv))
        values["_cli_settings_source"] = source
        return settings(**values)
    except ValidationError as error:
        raise ConfigError(explain(settings, error)) from None
    except SettingsError as error:
        raise ConfigError(str(error)) from None


def _config_option(argv: Sequence[str]) -> Path | None:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    found: Path | None = finder.parse_known_args(list(argv))[0].config
    return found


def _read_toml(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such config file; check the path after --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}; mend that line") from None


def explain(model: type[BaseModel], error: ValidationError) -> str:
    """The first mistake of a validation, as one line: key, value, what would be right."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    more = error.error_count() - 1
    return _reason(model, key, first) + (f" (and {more} more)" if more else "")


def _reason(model: type[BaseModel], key: str, detail: ErrorDetails) -> str:
    value, limits = detail.get("input"), detail.get("ctx", {})
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key}{_nearest(key, _keys(model))}"
    if detail["type"] == "missing":
        return f"{key} is missing: give --{key} or set it in the --config file"
    for kind, words in {
        "ge": "at least",
        "le": "at most",
        "gt": "greater than",
        "lt": "less than",
    }.items():
        if kind in limits:
            return f"{key} = {value!r} is out of range: it must be {words} {limits[kind]}"
    if detail["type"] == "literal_error":
        expected = str(limits["expected"]).replace("'", "")
        near = _nearest(str(value), expected.replace(" or ", ", ").split(", "))
        return f"{key} = {value!r} is not one of {expected}{near}"
    return f"{key} = {value!r}: {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _keys(field.annotation, f"{prefix}{name}.")
    return keys


def _nearest(word: str, choices: list[str]) -> str:
    found = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""


def as_json(config: BaseModel) -> dict[str, Any]:
    """The resolved config as plain JSON values."""
    return config.model_dump(mode="json")


def fingerprint(value: Any) -> str:
    """16 hex digits of sha256 over the canonical JSON of a config or of plain values."""
    plain = as_json(value) if isinstance(value, BaseModel) else value
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_json(value: Any, path: Path) -> None:
    """Write JSON durably."""
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True)
    write_durably(path, f"{text}\n".encode())


def write_config(config: BaseModel, path: Path) -> None:
    """Write the resolved config and its fingerprint as JSON beside an output."""
    write_json({"fingerprint": fingerprint(config), "config": as_json(config)}, path)
