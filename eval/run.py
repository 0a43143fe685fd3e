"""`wit eval`: evaluate a trained model on any number of sets. Read this first."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eval.config import EvalConfig
from wit.config import load, write_config
from wit.errors import ConfigError
from wit.progress import Progress

if TYPE_CHECKING:
    from eval.evalset import EvalSet


SUBCOMMANDS = {
    "sets": "eval.sets_command",
    "report": "eval.report_command",
    "robustness": "eval.robustness_command",
    "human": "eval.human_command",
    "overlap": "eval.overlap_command",
}


def main(argv: Sequence[str]) -> int:
    """Run the command; raises WitError for what the user can mend."""
    if argv and argv[0] in SUBCOMMANDS:
        code: int = importlib.import_module(SUBCOMMANDS[argv[0]]).main(argv[1:])
        return code
    config = load(EvalConfig, argv, prog="wit eval")
    return evaluate_all(config)


def evaluate_all(config: EvalConfig) -> int:
    """Open and check every set, encode it, run its tasks, print and save."""
    opened = _open_sets(config)
    # Torch is imported here, after the options are known to be right.
    from rich.console import Console

    from eval import export, extractors, report, shift, task
    from eval import results as stored
    from eval.features import Encoder
    from train.dist import World, world

    out = config.out or _beside(config.run)
    with world(config.device) as processes:
        make = partial(
            Encoder,
            cache=out / "cache",
            batch_size=config.batch_size,
            max_pixels=config.max_pixels,
            max_bad=config.max_bad,
            precision=config.precision,
            world=processes,
        )
        encoder = extractors.encoder(config, processes.device, make)
        needed = [data for data, _ in opened]
        if "shift" in config.task:
            needed.append(shift.reference_of(config))
        for data in needed:
            for fold in data.folds or (data,):
                for part in (fold, fold.train, fold.val):
                    if part is not None:
                        encoder.images(part)
        if not processes.main:
            return 0
    encoder = replace(encoder, world=World(0, 1, processes.device))
    about = extractors.describe(config, encoder)
    results: list[report.Result] = []
    progress, total = Progress("eval"), sum(len(names) for _, names in opened)
    for data, names in opened:
        for name in names:
            progress(len(results), total, "tasks")
            results.append(task.evaluate(name, data, encoder, config, about))
            report.save(results[-1], out)
    progress.clear()
    write_config(config, out / "config.json")
    export.write_all(stored.load(out, skip_older=True), out)
    report.print_table(results, Console())
    print(f"results: {out}")
    line = report.last_line(results)
    if line:
        print(line)
    return 0


def _beside(run: Path) -> Path:
    return run.with_name(f"{run.stem}-eval") if run.is_file() else run / "eval"


def _open_sets(config: EvalConfig) -> list[tuple[EvalSet, list[str]]]:
    """Every set, checked, with the tasks to run on it."""
    from eval import prompts, registry, sets, task

    known = registry.read(config.registry)
    paths = list(config.set)
    if config.suite is not None:
        for name, path in registry.find(known, config.suite).items():
            if path is not None and task.chosen(known.entries[name].kind, config.task):
                paths.append(path)
    if not paths:
        raise ConfigError(
            "set is missing: give --set DIR, or --suite DIR for a folder that holds sets of the"
            " registry (`wit eval sets DIR` lists them) for these tasks"
        )
    _check_names(paths)
    templates = prompts.read_templates(config.templates) if config.templates else None
    opened = []
    for path in paths:
        data = sets.open_set(path, config.split, task.splits_of(config.task))
        if config.protocol == "paper":
            data = registry.apply(known, data)
        if templates and data.kind != "retrieval":
            folds = tuple(replace(fold, templates=templates) for fold in data.folds)
            data = replace(data, templates=templates, folds=folds)
        names = task.chosen(data.kind, config.task)
        if not names:
            tasks = ", ".join(config.task)
            raise ConfigError(f"{path}: task {tasks} is not for a {data.kind} set; leave one out")
        opened.append((data, names))
    return opened


def _check_names(paths: Sequence[Path]) -> None:
    from eval.evalset import name_of

    names = [name_of(path) for path in paths]
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1:
            raise ConfigError(f"two sets are named {name} ({path}); rename one, or evaluate apart")
