"""Training, top to bottom: build, resume, step, log, save. Read this first.

The state of a run is its step: data, crops and learning rate are functions of it, and the
checkpoint holds the rest (weights, optimiser, random generators). So the same command goes on
where a run was stopped, and ends with the same weights as a run that never stopped.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from train import checkpoint, optim
from train.captions import Captions
from train.config import TrainConfig, identity
from train.data import Batch, Loader
from train.dist import World, world
from train.log import Log
from train.model import CLIP
from train.model.predictive import new_model
from train.model.resnet import ModifiedResNet
from train.model.transformer import Transformer
from train.objectives import STEPS, Outcome
from train.pairs import BadSamples, Pairs
from train.start import starting_point, take_weights
from wit.config import write_config, write_json
from wit.errors import CheckpointError, ConfigError, WitError
from wit.tokenizer import Tokenizer

STOPPED = 128  # and the number of the signal
GO_ON, SAVE, STOP = 0, 1, 2


class NonFiniteLoss(WitError):
    """The loss became infinite or NaN; the weights were not touched by that step."""


@dataclass
class Run:
    """What a step works on."""

    model: CLIP
    net: nn.Module  # the model as called: compiled, data-parallel
    optimizer: torch.optim.AdamW
    world: World
    steps: int  # of the whole run
    samples: str  # digest of the samples
    step: int = 0  # steps done
    loss: float = math.nan  # of the last step
    seconds: float = 0.0  # spent in steps, over all sittings

    @property
    def contrastive(self) -> bool:
        """Whether the model has logits with a scale."""
        return hasattr(self.model, "logit_scale")


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
    with world(config.device) as here, _locked(config.run, here), _sigterm() as stop:
        if config.batch % here.size:
            raise ConfigError(f"batch = {config.batch} can't be divided by {here.size} processes")
        if config.accumulate > config.batch // here.size:
            raise ConfigError(
                f"accumulate = {config.accumulate} is more than the {config.batch // here.size}"
                " pairs of a process: lower it, or raise batch"
            )
        if config.compile and config.gradient_checkpointing and config.model.tower == "resnet":
            raise ConfigError(
                "compile and gradient_checkpointing exclude each other in a ResNet: leave out one"
            )
        refuse_other_config(config)
        log = Log(config, here.rank)

        # ---- data and vocabulary ---------------------------------------------------------
        bad = BadSamples(config.data.max_bad, log.bad_sample)
        log.say(f"reading the captions of {config.corpus}")
        pairs = Pairs(config.corpus, bad, config.data.select)
        source = starting_point(config)
        tokenizer = vocabulary(config, pairs, here, source.tokenizer if source else None)
        captions = Captions(pairs.texts, tokenizer, config.model.context_length)
        loader = Loader(pairs, captions, config, bad, here)

        # ---- model, optimiser, resume ----------------------------------------------------
        steps = loader.steps
        run = build(config, tokenizer.vocab_size, steps, pairs.digest(captions), here)
        if source is not None:
            take_weights(config, run.model, source)
        resume(config, run, log)
        done = config.run / "done.json"
        if run.step == steps and done.is_file():
            log.say(f"{config.run}: finished already; another --run starts anew")
            return 0
        if here.main:
            done.unlink(missing_ok=True)  # of checkpoints that are gone or damaged
        if here.main and not run.step:
            write_config(config, config.run / "config.json")
        log.say(
            f"{len(pairs)} pairs, {tokenizer.vocab_size} tokens, {config.model.name} with"
            f" {sum(p.numel() for p in run.model.parameters()):,} parameters on {here.device},"
            f" step {run.step} of {steps}"
        )

        # ---- steps, and the mark of a finished run ---------------------------------------
        log.begin(run.step, steps)
        try:
            code = run_steps(config, run, loader, log, stop)
        finally:
            log.close()
        if code == 0 and here.main:
            write_json(_summary(config, run, log.bad_samples()), done)
        return code


def run_steps(config: TrainConfig, run: Run, loader: Loader, log: Log, stop: list[int]) -> int:
    """All steps from `run.step` on; logs and saves; returns 0, or 143 or 130 when stopped."""
    here = run.world
    saved = logged = time.monotonic()
    waited, since = 0.0, run.step
    run.net.train()
    with closing(loader.batches(run.step, run.steps)) as batches:
        for _ in range(run.step, run.steps):
            before = time.monotonic()
            batch = next(batches).to(here.device)
            waited += time.monotonic() - before

            rate = optim.learning_rate(run.step, run.steps, config.optim)
            outcome = one_step(config, run, batch, rate)
            run.step += 1
            now = time.monotonic()
            run.seconds += now - before

            if run.step % config.loop.log_every == 0 or run.step == run.steps:
                spent = now - logged
                row = {
                    "step": run.step,
                    "epoch": run.step / loader.steps_per_epoch,
                    "loss": here.mean(outcome.loss),
                    "accuracy": here.mean(outcome.accuracy()),
                    "lr": rate,
                    "samples_per_second": (run.step - since) * config.batch / spent,
                    "seconds_per_step": spent / (run.step - since),
                    "data_wait": waited / spent,
                    "seconds": run.seconds,
                }
                if run.contrastive:
                    row["scale"] = run.model.logit_scale.exp().item()
                log.row(row)
                logged, waited, since = now, 0.0, run.step

            due = run.step % config.loop.save_every == 0 or run.step == run.steps
            due |= now - saved > config.loop.save_seconds
            plan = here.largest(STOP if stop else SAVE if due else GO_ON)
            if plan != GO_ON:
                save(config, run)
                saved = time.monotonic()
            if plan == STOP and run.step < run.steps:
                log.say(f"stopped at step {run.step}; the same command goes on from here")
                return STOPPED + (stop[0] if stop else signal.SIGTERM)
    return 0


def one_step(config: TrainConfig, run: Run, batch: Batch, rate: float) -> Outcome:
    """One step of the optimiser.

    Raises:
        NonFiniteLoss: before any weight has changed.
    """
    here = run.world
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    autocast = torch.autocast(here.device.type, torch.bfloat16, enabled=_bf16(config, here))

    def check(loss: Tensor) -> None:
        run.loss = loss.item()
        if not math.isfinite(run.loss):
            raise NonFiniteLoss(
                f"{config.run}: the loss is {run.loss} at step {run.step + 1}; nothing was saved"
                f" after the last checkpoint: lower optim.lr (now {rate:g}) or set optim.clip_norm"
            )

    run.optimizer.zero_grad(set_to_none=True)
    step = STEPS[config.model.objective]
    early = None if config.compile else run.model.visual  # a compiled model is one piece
    outcome = step(run.net, batch, config.accumulate, autocast, here, check, early)
    if config.optim.clip_norm:
        nn.utils.clip_grad_norm_(run.model.parameters(), config.optim.clip_norm)
    run.optimizer.step()
    if run.contrastive:
        optim.clip_scale(run.model.logit_scale, config.optim.max_scale)
    return outcome


def build(config: TrainConfig, vocab_size: int, steps: int, samples: str, here: World) -> Run:
    """Model and optimiser at step 0; every process starts from the same weights."""
    torch.manual_seed(config.seed)
    model = new_model(config.model, vocab_size, config.temperature, config.optim.init_bias)
    model = model.to(here.device)
    for part in model.modules():
        if isinstance(part, (Transformer, ModifiedResNet)):
            part.checkpointing = config.gradient_checkpointing
        if isinstance(part, Transformer):
            part.packing = config.pack
    optimizer = optim.adamw(model, config.optim)
    net: nn.Module = model
    if config.compile:
        model.compile(dynamic=True)
    if here.size > 1:
        net = DistributedDataParallel(net)
    return Run(model, net, optimizer, here, steps, samples)


def vocabulary(
    config: TrainConfig, pairs: Pairs, here: World, inherited: Tokenizer | None
) -> Tokenizer:
    """The run's own vocabulary, made by the main process the first time, or that of `init`."""
    path = config.run / "tokenizer.json"
    if here.main and not checkpoint.marks(config.run):
        if inherited is not None:
            inherited.save(path)
        elif config.vocab == "corpus":
            Tokenizer.train(pairs.texts, config.vocab_size).save(path)
        else:
            Tokenizer.load(config.vocab).save(path)
    here.barrier()
    return Tokenizer.load(path)


def save(config: TrainConfig, run: Run) -> None:
    """A checkpoint of everything that the next step depends on."""
    state = {
        "step": run.step,
        "loss": run.loss,
        "seconds": run.seconds,
        "samples": run.samples,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "random": run.world.gather_objects(_random_state(run.world.device)),
    }
    if run.world.main:
        checkpoint.save(config.run, run.step, state, config.loop.keep)
    run.world.barrier()


def resume(config: TrainConfig, run: Run, log: Log) -> None:
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
    if state["samples"] != run.samples:
        raise CheckpointError(
            f"{config.run}: was trained on other samples than {config.corpus} holds now;"
            " give another --run, or the corpus as it was"
        )
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.step, run.loss, run.seconds = state["step"], state["loss"], state["seconds"]
    states = state["random"]
    if len(states) == run.world.size:  # another number of processes has no states of its own
        torch.set_rng_state(states[run.world.rank]["cpu"])
        if run.world.device.type == "cuda":
            torch.cuda.set_rng_state(states[run.world.rank]["cuda"], run.world.device)


def refuse_other_config(config: TrainConfig) -> None:
    """Raises CheckpointError when the run directory holds checkpoints of another config."""
    if not checkpoint.marks(config.run):
        return
    try:
        stored = json.loads((config.run / "config.json").read_text("utf-8"))["config"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{config.run}/config.json: missing or damaged") from None
    before, now = identity(stored), config.identity()
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise CheckpointError(
                f"{config.run}: was trained with {key} = {before.get(key)}, not {now.get(key)};"
                " give another --run, or remove that directory"
            )


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _bf16(config: TrainConfig, here: World) -> bool:
    return config.precision == "bf16" or (config.precision == "auto" and here.device.type == "cuda")


def _summary(config: TrainConfig, run: Run, bad: int) -> dict[str, object]:
    return {
        "steps": run.steps,
        "samples": run.steps * config.batch,
        "seconds": round(run.seconds, 1),
        "loss": run.loss,
        "bad_samples": bad,
        "checkpoint": f"checkpoints/step_{run.steps:08d}.pt",
    }


@contextmanager
def _locked(run: Path, here: World) -> Iterator[None]:
    """Two trainings in one directory would overwrite each other."""
    try:
        run.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"run = {run} is a file; give a directory") from None
    with (run / ".lock").open("w") as file:
        if here.main:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CheckpointError(f"{run}: another process trains here; wait for it") from None
        yield


@contextmanager
def _sigterm() -> Iterator[list[int]]:
    """A list that gets the signal's number when SIGTERM or the first Ctrl-C comes; the loop saves
    and stops then. A second Ctrl-C stops at once."""
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            text = "\nstopping after this step; Ctrl-C again stops at once\n"
            os.write(sys.stderr.fileno(), text.encode())  # print isn't safe in a handler

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
