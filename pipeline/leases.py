"""The download shared out: by rank on plain clusters, by leases of shards on a Ray cluster.

The unit is a shard of the list. Whoever fetches one writes the files that anybody would, into the
stage's folder, which all machines see; so how the shards are shared out, and who died over them,
doesn't show in the result. Limits per host are divided among those who work at once.
"""

from __future__ import annotations

import io
import secrets
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.config import ShardsConfig
from pipeline.context import Context, Stage
from pipeline.fetch import download, unfinished
from pipeline.ray_engine import connected
from pipeline.run_state import Part
from pipeline.runner import Runner
from wit.errors import CorpusError, WitError
from wit.progress import Progress

FETCH = "60_fetch"
PATIENCE, SHORTEST_S = 4.0, 60.0  # a lease ends after so many times the median, and not before
LEASES = 4  # of one shard that died; after so many its own errors, not a machine, are the cause
LOOK_S = 1.0


def fetch_rank(runner: Runner, stages: Sequence[Stage]) -> str:
    """Fetch the shards of this rank; returns the line that says what was done.

    Raises:
        CorpusError: a stage before the download isn't built.
    """
    engine = runner.config.engine
    for stage in stages:
        if stage.name == FETCH:
            break
        if not runner.take_up(stage):
            raise CorpusError(
                f"{runner.corpus}: {stage.name} is not built yet: run `wit shards` once with the"
                " same settings and --until 50_balance, then the ranks"
            )
    else:
        raise CorpusError(f"--until {stages[-1].name} ends before the download: leave --world out")
    if runner.take_up(stage):
        return f"{runner.corpus}: everything is fetched"
    context = runner.context(stage)
    parts, todo = unfinished(context, lambda part: part.shard % engine.world == engine.rank)
    if todo:
        download(context, parts, todo, f"rank{engine.rank}-", engine.world)
    urls = sum(part.urls for part in parts)
    context.progress.finish(f"{urls:>13,} URLs {'':>20} {context.progress.seconds:8.1f} s")
    return (
        f"{runner.corpus}: rank {engine.rank} of {engine.world} is through; when all are, run"
        " `wit shards` without --rank and --world"
    )


@dataclass
class _Lease:
    """A shard for the tasks of the cluster.

    Attributes:
        mark: file that a task makes when it begins; until then it waits for a CPU.
        since: when it began, as `time.monotonic` has it; None while it waits.
        lost: how many tasks died over the shard.
        slow: how many were ended because they took too long.
    """

    part: Part
    mark: Path
    since: float | None = None
    lost: int = 0
    slow: int = 0

    def again(self, out: Path, *, lost: bool) -> _Lease:
        """The next try.

        Raises:
            WitError: too many tasks died over it.
        """
        if lost and self.lost + 1 == LEASES:
            raise WitError(
                f"download: shard {self.part.name} was lost {LEASES} times: see `ray status`, then"
                " run the same command again: what was fetched is kept"
            )
        more = (self.lost + 1, self.slow) if lost else (self.lost, self.slow + 1)
        return _Lease(self.part, _mark(out, self.part), None, *more)


def _mark(out: Path, part: Part) -> Path:
    return out / f".lease-{part.name}-{secrets.token_hex(8)}"


def fetch_leased(ctx: Context, parts: list[Part], todo: list[Part]) -> None:
    """Fetch the shards by tasks of a Ray cluster. A task that dies or is much slower than others is
    replaced by another, which goes on with the ledger of the shard.

    Raises:
        WitError: there is no cluster, a shard failed again and again, or what a download raises.
    """
    ray = connected(ctx.config.engine)
    cpus = int(ray.cluster_resources().get("CPU", 1))
    most = at_once(ctx.config.engine.in_flight, cpus, len(todo))
    task = ray.remote(num_cpus=1, max_retries=0)(fetch_shard)
    one = {"processes": 1, "connections": max(1, ctx.config.fetch.connections // most)}
    fetch = ctx.config.fetch.model_copy(update=one)
    config = ctx.config.model_copy(update={"fetch": fetch})
    waiting = deque(_Lease(part, _mark(ctx.out, part)) for part in todo)
    held, took = dict[Any, _Lease](), list[float]()
    done, total = len(parts) - len(todo), len(parts)
    try:
        while waiting or held:
            while waiting and len(held) < most:
                lease = waiting.popleft()
                given = (ctx.out, ctx.corpus, lease.part, most, lease.mark)
                held[task.remote(config, *given)] = lease
            through, now = ray.wait(list(held), timeout=LOOK_S)[0], time.monotonic()
            for lease in held.values():
                if lease.since is None and lease.mark.exists():
                    lease.since = now
            for future in through:
                lease = held.pop(future)
                if _came_through(ray, future):
                    took.append(now - (now if lease.since is None else lease.since))
                    done += 1
                    ctx.progress(done, total, "shards")
                else:
                    waiting.append(lease.again(ctx.out, lost=True))
            for future in stragglers(held, took, now):
                ray.cancel(future, force=True)
                waiting.append(held.pop(future).again(ctx.out, lost=False))
    finally:
        for future in held:
            ray.cancel(future, force=True)


def at_once(in_flight: int, cpus: int, shards: int) -> int:
    """Tasks under way: each has a CPU, so all that are given out work, and share the hosts."""
    return max(1, min(in_flight or cpus, cpus, shards))


def fetch_shard(
    config: ShardsConfig, out: Path, corpus: Path, part: Part, share: int, mark: Path
) -> None:
    """The task: one shard, by one of `share` that are at work at once; `mark` says that it has
    begun."""
    mark.touch()
    ctx = Context(config, {}, {}, out, corpus, Progress(FETCH, io.StringIO()))
    parts, todo = unfinished(ctx, lambda each: each.shard == part.shard)
    if todo:
        download(ctx, parts, todo, f"lease{part.name}-", share)


def _came_through(ray: Any, future: Any) -> bool:
    """Whether a task did its work; False if its worker or machine died."""
    try:
        ray.get(future)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError:
        return False
    return True


def stragglers(held: dict[Any, _Lease], took: list[float], now: float) -> list[Any]:
    """Tasks that take much longer than those that are through, when these are the most. Where one
    was ended before, the next has twice the time: a shard that needs it gets it."""
    if len(took) <= len(held):
        return []
    limit = max(SHORTEST_S, PATIENCE * median(took))
    return [
        future
        for future, lease in held.items()
        if lease.since is not None and now - lease.since > limit * 2**lease.slow
    ]
