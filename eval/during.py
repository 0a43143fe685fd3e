"""Evaluation sets while a model is trained: the plug-in that `wit train` finds by its entry point.

The tasks, prompts and protocols are those of `wit eval`; kept is one number for each metric.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from eval import registry, sets, task
from eval.config import EvalConfig
from eval.features import Encoder
from train.dist import World
from train.loaded import LoadedModel


def evaluate(
    model: LoadedModel, paths: Sequence[Path], world: World, folder: Path
) -> Mapping[str, float]:
    """SET/METRIC -> value in the main process, nothing in the others, which share the encoding.

    Args:
        model: as it is now; features are thrown away afterwards.
        paths: sets of any layout that `wit eval` knows.
        folder: for features; removed at the end.
    """
    config = EvalConfig.model_validate({})
    known = registry.read(config.registry)
    encoder = Encoder(
        model, folder, config.batch_size, config.max_pixels, config.max_bad, world=world
    )
    found: dict[str, float] = {}
    if world.main:
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed here
    world.barrier()
    for path in paths:
        data = registry.apply(known, sets.open_set(path))
        encoder.images(data)
        if world.main:
            for name in task.chosen(data.kind, ()):
                result = task.evaluate(name, data, encoder, config, {})
                found |= {f"{data.name}/{metric.name}": metric.value for metric in result.metrics}
        world.barrier()
    if world.main:
        shutil.rmtree(folder, ignore_errors=True)
    return found
