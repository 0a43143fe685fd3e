"""Training, top to bottom: build, resume, step, log, validate, save. Read this first.

The state of a run is its step: data, crops and learning rate are functions of it, and the
checkpoint holds the rest (weights, optimiser, random generators). So the same command goes on
where a run was stopped, and ends with the same weights as a run that never stopped.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from train import checkpoint, low_bit, optim, parallel
from train.captions import Captions
from train.config import TrainConfig
from train.data import Batch, Loader
from train.dist import World, world
from train.ema import EMA
from train.guard import Guard, NonFiniteLoss
from train.lock import lock
from train.log import Log
from train.memory import keep_freed
from train.meter import Meter
from train.model import CLIP
from train.model.predictive import new_model
from train.model.resnet import Bottleneck, ModifiedResNet
from train.model.transformer import Block, Transformer
from train.objectives import STEPS, Outcome
from train.pairs import BadSamples
from train.precision import Numbers
from train.rundir import locked, refuse_other_config, sigterm
from train.select import open_pairs
from train.start import starting_point, take_weights, vocabulary
from train.validate import Validation
from train.watch import Watch
from wit.config import write_config, write_json
from wit.errors import CheckpointError, ConfigError

__all__ = ["NonFiniteLoss", "Run", "build", "train"]

STOPPED = 128  # and the number of the signal
GO_ON, SAVE, STOP = 0, 1, 2


@dataclass
class Run:
    """What a step works on."""

    model: CLIP
    net: nn.Module  # the model as called: compiled, on many processes
    optimizer: torch.optim.Optimizer
    numbers: Numbers
    guard: Guard
    world: World
    steps: int  # of the whole run
    samples: str  # digest of the samples
    locked: list[nn.Module] = field(default_factory=list)
    ema: EMA[CLIP] | None = None
    step: int = 0  # steps done
    loss: float = math.nan  # of the last step, over all processes
    norm: float = math.nan  # of its gradient, before clipping

    @property
    def contrastive(self) -> bool:
        """Whether the model has logits with a scale."""
        return hasattr(self.model, "logit_scale")

    def row(self, epoch: float, accuracy: float, rate: float) -> dict[str, float]:
        """What metrics.jsonl says of the last step."""
        row = {"step": self.step, "epoch": epoch, "loss": self.loss, "accuracy": accuracy}
        row |= {"lr": rate, "grad_norm": self.norm, "skipped": self.guard.skipped}
        if self.contrastive:
            row["scale"] = self.model.logit_scale.exp().item()
        return row

    def to_training(self) -> None:
        """Training mode, but for a tower that is locked."""
        self.net.train()
        for module in self.locked:
            module.eval()


def train(config: TrainConfig) -> int:
    """Train or resume a run; returns 0 when it is finished, 143 when SIGTERM stopped it and
    130 when Ctrl-C did.

    Raises:
        CheckpointError: the run directory belongs to another config, corpus or process.
        NonFiniteLoss: see there.
        WitError: a mistake in the config, the corpus or the vocabulary.
    """
    if config.loop.threads:
        torch.set_num_threads(config.loop.threads)
    with world(config.device) as here, locked(config.run, here), sigterm() as stop:
        _check_world(config, here)
        if here.device.type == "cpu":
            keep_freed()
        refuse_other_config(config)
        log = Log(config, here.rank)
        guard = config.guard
        watch = Watch(config.run, here, guard.stuck_seconds, guard.give_up_seconds)
        with watch.watching():
            return _train(config, here, log, watch, stop)


def _train(config: TrainConfig, here: World, log: Log, watch: Watch, stop: list[int]) -> int:
    # ---- data and vocabulary -------------------------------------------------------------
    bad = BadSamples(config.data.max_bad, log.bad_sample)
    pairs = open_pairs(config, bad, here)
    source = starting_point(config)
    tokenizer = vocabulary(config, pairs, bad, here, source.tokenizer if source else None)
    captions = Captions(tokenizer, config.model.context_length)
    loader = Loader(pairs, captions, config, bad, here)

    # ---- model, optimiser, resume --------------------------------------------------------
    steps = loader.steps
    run = build(config, tokenizer.vocab_size, steps, pairs.digest(), here)
    if source is not None:
        take_weights(config, run.model, source)
    if config.optim.ema:
        run.ema = EMA(run.model, config.optim.ema)
    meter = Meter(config, tokenizer.vocab_size, here.device, here.size)
    resume(config, run, log, meter)
    done = config.run / "done.json"
    if run.step == steps and done.is_file():
        log.say(f"{config.run}: finished already; another --run starts anew")
        return 0
    if here.main:
        done.unlink(missing_ok=True)  # of checkpoints that are gone or damaged
    if here.main and not run.step:
        write_config(config, config.run / "config.json")
    validation = Validation(config, tokenizer, bad, here)
    log.say(
        f"{len(pairs)} pairs, {tokenizer.vocab_size} tokens, {config.model.name} with"
        f" {sum(p.numel() for p in run.model.parameters()):,} parameters on {here.device},"
        f" step {run.step} of {steps}"
    )

    # ---- steps, and the mark of a finished run -------------------------------------------
    log.begin(run.step, steps)
    try:
        code = run_steps(config, run, loader, validation, log, meter, watch, stop)
    finally:
        log.close()
    if code == 0 and here.main:
        write_json(_summary(config, run, meter, log.bad_samples()), done)
    return code


def run_steps(
    config: TrainConfig,
    run: Run,
    loader: Loader,
    validation: Validation,
    log: Log,
    meter: Meter,
    watch: Watch,
    stop: list[int],
) -> int:
    """All steps from `run.step` on; logs and saves; returns 0, or 143 or 130 when stopped."""
    here = run.world
    writer = checkpoint.Writer(config.run, config.loop.keep)
    saved = time.monotonic()
    run.to_training()
    with closing(loader.batches(run.step, run.steps)) as batches, writer:
        for _ in range(run.step, run.steps):
            with meter.step():
                watch.now("data", run.step + 1)
                with meter.waiting():
                    batch = next(batches).to(here.device)
                watch.now("step", run.step + 1)
                rate = optim.learning_rate(run.step, run.steps, config.optim)
                outcome = one_step(config, run, batch, rate, loader.keys)
                run.step += 1

            if run.step % config.loop.log_every == 0 or run.step == run.steps:
                epoch, accuracy = run.step / loader.steps_per_epoch, here.mean(outcome.accuracy())
                log.row({**run.row(epoch, accuracy, rate), **meter.row()})

            found: dict[str, float] = {}
            if validation.due(run.step, run.steps):
                watch.now("validate", run.step)
                with meter.paused():
                    found = validation(run.ema.model if run.ema else run.model, run.model, run.step)
                    log.values(run.step, found)
                    run.to_training()

            try:
                score = checkpoint.score_of(found, config.loop.keep_best)
            except ConfigError:  # in every process: a metric is named that there is not
                save(run, writer, meter)
                raise
            due = run.step % config.loop.save_every == 0 or run.step == run.steps
            due |= score is not None or time.monotonic() - saved > config.loop.save_seconds
            plan = here.largest(STOP if stop else SAVE if due else GO_ON)
            if plan != GO_ON:
                watch.now("save", run.step)
                save(run, writer, meter, score)
                saved = time.monotonic()
            if plan == STOP and run.step < run.steps:
                writer.wait()
                log.say(f"stopped at step {run.step}; the same command goes on from here")
                return STOPPED + (stop[0] if stop else signal.SIGTERM)
    here.barrier()
    return 0


def one_step(
    config: TrainConfig,
    run: Run,
    batch: Batch,
    rate: float,
    keys: Callable[[Sequence[int]], list[str]],
) -> Outcome:
    """One step of the optimiser, or none where the guard leaves it out.

    Raises:
        NonFiniteLoss: too many in a row were left out; no weight has changed in them.
    """
    optim.set_rate(run.optimizer, rate)
    run.optimizer.zero_grad(set_to_none=True)
    step, numbers = STEPS[config.model.objective], run.numbers
    early = None if config.compile == "whole" else run.model.visual  # else it is one piece
    with run.guard.statistics_kept() as put_back:
        outcome = step(
            run.net, batch, config.accumulate, numbers.autocast, run.world, numbers.scaled, early
        )
        parallel.average_scalars(run.model, run.world)
        numbers.unscale(run.optimizer)
        norm = parallel.gradient_norm(run.model, run.world)
        run.loss, run.norm = run.world.mean(outcome.loss), norm.item()
        if run.guard.passes(
            run.step + 1, run.loss, run.norm, numbers.calibrating, lambda: keys(batch.samples_b)
        ):
            if config.optim.clip_norm:
                parallel.clip_gradients(run.model, config.optim.clip_norm, norm)
            with low_bit.rounding(config.optim.states, config.seed, run.step, run.world.device):
                numbers.step(run.optimizer)
            if run.contrastive:
                optim.clip_scale(run.model.logit_scale, config.optim.max_scale)
            if run.ema is not None:
                run.ema.update(run.step + 1)
        else:
            put_back()
        numbers.update()
    return outcome


def build(config: TrainConfig, vocab_size: int, steps: int, samples: str, here: World) -> Run:
    """Model and optimiser at step 0; every process starts from the same weights."""
    torch.manual_seed(config.seed)
    model = new_model(config.model, vocab_size, config.temperature, config.optim.init_bias)
    model = model.to(here.device)
    numbers = Numbers(config.precision, here.device)
    low_bit.prepare(model, config.optim.states, numbers.name, here.device)
    for part in model.modules():
        if isinstance(part, (Transformer, ModifiedResNet)):
            part.checkpointing = config.gradient_checkpointing
        if isinstance(part, Transformer):
            part.packing = config.pack
    kept = lock(model, config.lock)
    if config.compile == "whole":
        model.compile(dynamic=True)
    if config.compile == "blocks":
        for part in model.modules():
            if isinstance(part, (Block, Bottleneck)):
                part.compile(dynamic=True)
    net = parallel.spread(model, config.parallel, here)
    optimizer = optim.adamw(model, config.optim)
    guard = Guard(config.guard, config.run, here)
    guard.watch_statistics(model)
    return Run(model, net, optimizer, numbers, guard, here, steps, samples, kept)


def save(
    run: Run, writer: checkpoint.Writer, meter: Meter, score: checkpoint.Score | None = None
) -> None:
    """A checkpoint of everything that the next step depends on."""
    state = {
        "step": run.step,
        "loss": run.loss,
        "seconds": meter.seconds,
        "samples": run.samples,
        "model": parallel.whole(run.model.state_dict(), run.world),
        "optimizer": low_bit.plain(parallel.whole(run.optimizer.state_dict(), run.world)),
        "numbers": run.numbers.state_dict(),
        "guard": run.guard.state_dict(),
        "random": run.world.gather_objects(_random_state(run.world.device)),
    }
    if run.ema is not None:
        state["ema"] = run.ema.model.state_dict()
    if run.world.main:
        writer.save(run.step, state, score)


def resume(config: TrainConfig, run: Run, log: Log, meter: Meter) -> None:
    """Go on from the newest sound checkpoint, if there is one.

    Raises:
        CheckpointError: all checkpoints are damaged, or the samples are others now.
    """
    found = checkpoint.load(config.run)
    if found is None:
        return
    state = found.state
    for problem in found.problems:
        log.say(f"passed over a damaged checkpoint: {problem}")
    if not state["samples"].startswith("table:"):
        log.say(f"{found.path}: of an earlier version: its samples are taken on trust")
    elif state["samples"] != run.samples:
        raise CheckpointError(
            f"{config.run}: was trained on other samples than {config.corpus} holds now;"
            " give another --run, or the corpus as it was"
        )
    parallel.load_model(run.model, state["model"])
    parallel.load_optimizer(run.optimizer, low_bit.restored(state["optimizer"]))
    run.numbers.load_state_dict(state.get("numbers", {}))
    run.guard.load_state_dict(state.get("guard", {}))
    run.guard.resume(state["step"])
    if run.ema is not None:
        run.ema.model.load_state_dict(state["ema"])
    run.step, run.loss, meter.seconds = state["step"], state["loss"], state["seconds"]
    states = state["random"]
    if len(states) == run.world.size:  # another number of processes has no states of its own
        torch.set_rng_state(states[run.world.rank]["cpu"])
        if run.world.device.type == "cuda":
            torch.cuda.set_rng_state(states[run.world.rank]["cuda"], run.world.device)


def _check_world(config: TrainConfig, here: World) -> None:
    if config.batch % here.size:
        raise ConfigError(f"batch = {config.batch} can't be divided by {here.size} processes")
    if config.accumulate > config.batch // here.size:
        raise ConfigError(
            f"accumulate = {config.accumulate} is more than the {config.batch // here.size}"
            " pairs of a process: lower it, or raise batch"
        )
    recomputes = config.gradient_checkpointing != "off"
    if config.compile != "off" and recomputes and config.model.tower == "resnet":
        raise ConfigError(
            "compile and gradient_checkpointing exclude each other in a ResNet: leave out one"
        )
    parallel.refuse_what_needs_whole_weights(config, here)


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _summary(config: TrainConfig, run: Run, meter: Meter, bad: int) -> dict[str, Any]:
    return {
        "steps": run.steps,
        "samples": run.steps * config.batch,
        "seconds": round(meter.seconds, 1),
        "loss": run.loss,
        "skipped": run.guard.skipped,
        "bad_samples": bad,
        "checkpoint": f"checkpoints/step_{run.steps:08d}.pt",
    }
