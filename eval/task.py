"""The table of tasks: a set and a model in, a result with numbers and intervals out.

A task is one module of eval/ with a function

    run(data: EvalSet, encoder: Encoder, config: EvalConfig) -> Result

and a row in `TASKS`. It is imported only when it is called, so this table costs nothing.

- `data` is the split that is evaluated; `data.train` and `data.val` are there if the row's
  `splits` names them and the set has them. A task that can't do without one raises InputError.
  Of a set in folds, `run` is called for each fold, and eval/folds.py takes the mean.
  Whatever is chosen (a penalty, a shot, a prompt) is chosen on those, never on `data`.
- `encoder.images(data)` and `encoder.images(data.train)` are cached features, before and after
  the projection; `encoder.texts` and `encoder.cached` are for texts. A task encodes no image
  itself. Under torchrun all processes encode, then the first runs the tasks alone.
- `config` is the whole config of `wit eval`; a task with settings has a section of its own in it.
- The `Result` (eval/report.py) holds metrics, each with an interval and chance level; the
  protocol, from `protocol` below and whatever else decides the numbers; one row of predictions
  for each sample, with its `key`; and tables for what is neither. `wit compare` can test two
  models on a task whose predictions have the columns `label` and `rank` (0: the label was
  first); see `measures` of eval/results.py for the others it knows.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from eval.config import EvalConfig
    from eval.evalset import EvalSet
    from eval.features import Encoder
    from eval.report import Result

    Run = Callable[[EvalSet, Encoder, EvalConfig], Result]

METRICS_VERSION = 2  # rises when the meaning of a number changes


class Task(NamedTuple):
    """One row of the table.

    Attributes:
        module: where `run` is.
        kinds: kinds of sets it can be run on.
        splits: other splits that are opened, and encoded by all processes.
        default: whether it is run where no --task is given.
    """

    module: str
    kinds: tuple[str, ...]
    splits: tuple[str, ...] = ()
    default: bool = False


TASKS = {
    "zeroshot": Task("eval.zeroshot", ("classification", "multilabel"), default=True),
    "retrieval": Task("eval.retrieval", ("retrieval",), default=True),
    "probe": Task("eval.linear_probe", ("classification", "multilabel"), ("train", "val")),
    "shift": Task("eval.shift", ("classification",)),
    "lexicon": Task("eval.lexicon", ("classification",)),
    "frames": Task("eval.frames", ("classification",)),
    "actions": Task("eval.actions", ("classification",)),
    "geolocation": Task("eval.geolocation", ("classification", "retrieval"), ("train",)),
    "bias": Task("eval.bias", ("classification",)),
    "fewshot": Task("eval.fewshot", ("classification",), ("train", "val")),
}


def chosen(kind: str, names: Sequence[str]) -> list[str]:
    """The tasks to run on a set of this kind; none, if none of them is for it.

    Args:
        names: of `--task`; empty: those that are run by default.
    """
    wanted = names or [name for name, task in TASKS.items() if task.default]
    return [name for name in dict.fromkeys(wanted) if kind in TASKS[name].kinds]


def splits_of(names: Sequence[str]) -> tuple[str, ...]:
    """The other splits that these tasks want, each once."""
    return tuple(dict.fromkeys(split for name in names for split in TASKS[name].splits))


def evaluate(
    name: str, data: EvalSet, encoder: Encoder, config: EvalConfig, model: dict[str, Any]
) -> Result:
    """Run one task.

    Args:
        model: what to record about the checkpoint.
    """
    from eval import folds

    run: Run = importlib.import_module(TASKS[name].module).run
    parts = _folds(name, data)
    if len(parts) > 1:
        found = [run(part, encoder, config) for part in parts]
        result = folds.mean(found, parts, config.resamples, config.seed)
    else:
        result = run(parts[0], encoder, config)
    return replace(result, model=model, split=data.split, entry=data.entry, group=data.group)


def _folds(name: str, data: EvalSet) -> tuple[EvalSet, ...]:
    """The folds that the task is run on: one, where it sees nothing that differs between them."""
    folds = data.folds or (data,)
    if not TASKS[name].splits and len({fold.fingerprint for fold in folds}) == 1:
        return folds[:1]
    return folds


def protocol(name: str, data: EvalSet, encoder: Encoder) -> dict[str, Any]:
    """What decides the numbers of every task; a task adds its own."""
    return {
        "task": name,
        "metrics_version": METRICS_VERSION,
        "data": data.fingerprint,
        "split": data.split,
        "preprocessing": encoder.preprocessing(),
    }
