"""`wit eval`: evaluate a trained model on any number of sets. Read this first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from eval.config import EvalConfig
from wit.config import load, write_config
from wit.errors import ConfigError


def main(argv: Sequence[str]) -> int:
    """Run the command; raises WitError for what the user can mend."""
    config = load(EvalConfig, argv, prog="wit eval")
    return evaluate_all(config)


def evaluate_all(config: EvalConfig) -> int:
    """Open and check every set, load the model, run each set's task, print and save."""
    # Torch is imported here, after the options are known to be right.
    import torch
    from rich.console import Console

    from eval import prompts, report, sets, task
    from eval.features import Encoder
    from train import load_model

    out = config.out or _beside(config.run)
    _check_names(config.set)
    opened = [sets.open_set(path, config.split) for path in config.set]
    if config.templates:
        templates = prompts.read_templates(config.templates)
        opened = [replace(data, templates=templates) for data in opened]
    device = _device(config.device, torch.cuda.is_available())
    model = load_model(config.run, device, activation=config.activation, vocab=config.vocab)
    encoder = Encoder(
        model=model,
        cache=out / "cache",
        batch_size=config.batch_size,
        max_pixels=config.max_pixels,
        max_bad=config.max_bad,
    )
    about = {"run": str(config.run), "source": model.source, "step": model.step}
    about |= {"fingerprint": model.fingerprint}
    results = [task.evaluate(data, encoder, config, about) for data in opened]
    for result in results:
        report.save(result, out)
    write_config(config, out / "config.json")
    report.print_table(results, Console())
    print(f"results: {out}")
    line = report.last_line(results)
    if line:
        print(line)
    return 0


def _beside(run: Path) -> Path:
    return run.with_name(f"{run.stem}-eval") if run.is_file() else run / "eval"


def _check_names(paths: Sequence[Path]) -> None:
    names = [path.resolve().name for path in paths]
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1:
            raise ConfigError(f"two sets are named {name} ({path}); rename one, or evaluate apart")


def _device(wanted: str, cuda: bool) -> str:
    if wanted == "cuda" and not cuda:
        raise ConfigError("device = 'cuda', but torch sees no CUDA device; use --device cpu")
    return ("cuda" if cuda else "cpu") if wanted == "auto" else wanted
