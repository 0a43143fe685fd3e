"""`wit sample write|serve`, and the sample as what `wit shards` builds without --input."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from pipeline.config import ShardsConfig
from pipeline.sample.limits import LIMITS
from wit.config import Settings, load

FOLDER = Path("data/sample")


class SampleConfig(Settings):
    """Write the embedded sample, or serve its pictures as its invented hosts would.

    `write` makes metadata.parquet, queries.txt, truth.parquet, images/ and eval/ in the folder;
    `serve` does so too and then answers on 127.0.0.1 until it is stopped. `wit shards` without
    --input does both by itself.
    """

    action: CliPositionalArg[Literal["write", "serve"]]
    """write or serve"""
    folder: Path = FOLDER
    """where the sample lies"""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """port for serve; 0 takes a free one"""


@contextmanager
def served(config: ShardsConfig, folder: Path = FOLDER) -> Iterator[ShardsConfig]:
    """The sample as input: written if need be, and served while the context lasts.

    Yields `config` with the sample's input, queries, hosts and limits.
    """
    from pipeline.sample.build import write
    from pipeline.sample.server import serve

    write(folder)
    with serve(folder) as port:
        yield sample_config(config, folder, port)


def sample_config(config: ShardsConfig, folder: Path, port: int) -> ShardsConfig:
    """`config` for building the sample in `folder`, whose server listens on `port`.

    A limit that the user has changed stays as it is.
    """
    default = ShardsConfig()
    changes: dict[str, Any] = {"input": [str(folder / "metadata.parquet")]}
    if config.queries is None:
        changes["queries"] = folder / "queries.txt"
    for name, limits in LIMITS.items():
        given, usual = getattr(config, name), getattr(default, name)
        wanted = {k: v for k, v in limits.items() if getattr(given, k) == getattr(usual, k)}
        if name == "fetch":
            wanted["resolve"] = {**hosts(port), **given.resolve}
        changes[name] = given.model_copy(update=wanted)
    return config.model_copy(update=changes)


def hosts(port: int) -> dict[str, str]:
    """`fetch.resolve` for the sample's hosts; its .invalid names must stay unknown."""
    return {"*.example": f"127.0.0.1:{port}", "*.test": f"127.0.0.1:{port}"}


def main(argv: Sequence[str]) -> int:
    config = load(SampleConfig, argv, prog="wit sample")
    from pipeline.sample.build import write
    from pipeline.sample.server import serve

    marker = write(config.folder)
    print(f"{config.folder}: {marker['rows']:,} rows, {marker['kept']:,} of them to be kept")
    if config.action == "serve":
        with serve(config.folder, config.port) as port:
            maps = " ".join(f"--fetch.resolve {host}={to}" for host, to in hosts(port).items())
            print(f"serving on 127.0.0.1:{port} until Ctrl-C; build with {maps}", flush=True)
            threading.Event().wait()
    return 0
