"""Parts of the work tables as tasks of a Ray cluster: bounded in flight, retried, same bytes.

A task is one part, with one thread of the database engine; what it writes depends on nothing
else. The machines must see the input and the corpus under the same paths. A task whose machine
dies is run again on another by Ray; a task that fails on its own is tried again when the disk or
the network may have been the cause. Whatever was left half-written has a name of its own.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from typing import Any

import duckdb

from pipeline.config import EngineConfig
from pipeline.parts import Part, make
from wit.errors import MissingExtra, WitError
from wit.progress import Progress

_RETRIES = 3  # of one part
_CONNECT = 5.0  # seconds
_PER_CPU = 2  # tasks under way for each CPU: one at work, one about to be


def make_all(todo: Sequence[Part], engine: EngineConfig, progress: Progress) -> None:
    """Make the parts by tasks of the cluster at `engine.address`.

    Raises:
        MissingExtra: Ray is not installed.
        WitError: there is no cluster, a part failed for good, or what a part raises.
    """
    ray = connected(engine)
    one = engine.shared(1)
    task = ray.remote(
        num_cpus=1, max_retries=_RETRIES, retry_exceptions=[OSError, duckdb.IOException]
    )(make)
    limit = engine.in_flight or max(1, int(_PER_CPU * ray.cluster_resources().get("CPU", 1)))
    waiting, running, done = iter(todo), [], 0
    try:
        while True:
            for part in waiting:
                running.append(task.remote(part, one))
                if len(running) >= limit:
                    break
            if not running:
                return
            finished, running = ray.wait(running)
            ray.get(finished)
            done += len(finished)
            progress(done, len(todo), unit="parts")
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise WitError(
            f"Ray gave up on a part ({type(error).__name__}): see `ray status`, then run the same"
            " command again: what is done is kept"
        ) from None
    finally:
        for left in running:
            ray.cancel(left, force=True)


def connected(engine: EngineConfig) -> Any:
    """Ray, connected to the cluster that the config names.

    Raises:
        MissingExtra: it is not installed.
        WitError: nothing answers there.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", "ray") from None
    if not ray.is_initialized():
        try:
            _answers(engine.address)
            ray.init(address=engine.address, log_to_driver=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            first = str(error).strip().splitlines()[0]
            raise WitError(
                f"no Ray cluster at {engine.address} ({first}): start one with `ray start --head`,"
                " or give --engine.address"
            ) from None
    return ray


def _answers(address: str) -> None:
    """Ray itself waits minutes for an address at which nothing listens.

    Raises:
        ConnectionError: nothing does.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return  # auto, local
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT).close()
    except OSError as error:
        raise ConnectionError(error.strerror or "no answer") from None
