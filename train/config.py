"""What a training run is: every setting with its default. No torch here, so `--help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from train.model_config import MODELS, Count, ModelConfig, Objective
from wit.config import Section, Settings

__all__ = [
    "MODELS",
    "Compile",
    "Count",
    "DataConfig",
    "Fraction",
    "GuardConfig",
    "LoopConfig",
    "ModelConfig",
    "Objective",
    "OptimConfig",
    "Parallel",
    "Precision",
    "Recompute",
    "Sources",
    "TrainConfig",
    "ValidationConfig",
    "identity",
]

Fraction = Annotated[float, Field(gt=0, le=1)]
Parallel = Literal["ddp", "fsdp"]
Sources = Annotated[str, Field(min_length=1), BeforeValidator(str)]  # a Path serves too
Precision = Literal["auto", "fp32", "bf16", "fp16", "fp8"]


def _switch(off: str, on: str) -> BeforeValidator:
    """Takes true and false, as earlier versions had it, for two of the values."""
    return BeforeValidator(lambda given: (off, on)[given] if isinstance(given, bool) else given)


Recompute = Annotated[Literal["off", "selective", "full"], _switch("off", "full")]
Compile = Annotated[Literal["off", "blocks", "whole"], _switch("off", "whole")]


class DataConfig(Section):
    """From shards to batches."""

    weights: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Times that the samples of each source of `corpus` occur in an epoch; empty: once each."""
    resample: bool = False
    """Draw the samples of an epoch with replacement, instead of each once."""
    select: Path | None = None
    """File of uids to train on: .txt or .csv (one a line, as `wit sql --csv` prints them), .npy (as
    DataComp's), .parquet (column uid). Of keys, where shards have no uids. Empty: all."""
    crop_min: Fraction = 1.0
    """Least area of the random square crop, as a share of the largest square in the picture;
    1: only the position is random, as in the paper."""
    flip: bool = False
    """Mirror half of the pictures left to right; wrong where captions say left or right."""
    sentences: float = Field(default=0.0, ge=0, le=1)
    """Share of captions that give way to one of their sentences, drawn anew each time."""
    sentences_after: float = Field(default=0.0, ge=0, le=1)
    """Share of the run after which `sentences` begins; whole captions are told apart sooner."""
    rotate_sentences: bool = False
    """Begin each caption at a sentence drawn anew each time and go round: their order, which says
    nothing of the picture, is then not learnt by heart."""
    query: str = ""
    """SELECT that names the uids to train on, asked of the catalogue of `corpus` once a run, as by
    `wit sql`: SELECT uid FROM pairs WHERE verdict = 'kept' AND language = 'en'. Empty: all."""
    workers: int = Field(default=2, ge=1)
    """Threads that read and decode."""
    connections: int = Field(default=32, ge=1)
    """Threads that fetch samples ahead, where shards lie behind URLs."""
    shard_cache: Path | None = None
    """Folder for fetched shards, which runs may share; empty: one in the user's cache folder."""
    shard_cache_gb: float = Field(default=100.0, ge=0)
    """Its bound, beyond which the shard used longest ago goes. Shards that fit are fetched whole,
    once; where all of them don't fit, each sample is a request for its own bytes."""
    prefetch: int = Field(default=4, ge=1)
    """Batches prepared ahead."""
    cache_mb: int = Field(default=512, ge=0)
    """Memory for decoded pictures: a corpus that fits is decoded once; 0: none kept."""
    max_pixels: Count = 100_000_000
    """Pictures that declare more pixels are refused before decoding."""
    max_bad: int = Field(default=100, ge=0)
    """Samples that can't be read before the run stops; each is logged and replaced."""


class OptimConfig(Section):
    """AdamW with the paper's settings (table 18), its learning rate for ViT-B."""

    lr: float = Field(default=5e-4, gt=0)
    """Peak learning rate."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.98, ge=0, lt=1)
    """0.98 for vision transformers, 0.999 for ResNets."""
    eps: float = Field(default=1e-6, gt=0)
    weight_decay: float = Field(default=0.2, ge=0)
    """On all weights that are not gains or biases."""
    warmup: int = Field(default=2000, ge=0)
    """Steps of linear warm-up; at most a tenth of the run is used."""
    final_lr: float = Field(default=0.0, ge=0, lt=1)
    """Where the cosine ends, as a share of the peak."""
    clip_norm: float = Field(default=0.0, ge=0)
    """Largest norm of the gradient; 0: not clipped, as in the paper."""
    init_temperature: float | None = Field(default=None, gt=0)
    """Temperature at the start, 0.07 if not given, or 0.1 with objective = sigmoid; the scale of
    the logits is its inverse."""
    init_bias: float = -10.0
    """What is added to the logits at the start, learned from there; objective = sigmoid only."""
    max_scale: float = Field(default=100.0, gt=1)
    """The scale of the logits is clipped here after each step."""
    layer_decay: Fraction = 1.0
    """Factor of the learning rate from one block of a tower to the one below it; 1: all alike."""
    states: Literal["fp32", "8bit", "bf16"] = "fp32"
    """What AdamW keeps (extra `lowbit`): fp32; moments in 8 bits, 10 bytes a parameter instead of
    16; or bf16, 8 bytes: weights and moments alike, rounded at random."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of a running mean of the weights, kept beside them and read as RUN/ema; 0: none."""


class GuardConfig(Section):
    """What is done about steps that went wrong, and about a run that hangs."""

    skips: Count = 5
    """Steps in a row that may be left out, because loss or gradient isn't finite; then the run
    stops. Each is counted, with the keys of its samples in RUN/skipped.jsonl."""
    spike: float = Field(default=0.0, ge=0)
    """Also leave out a step whose loss is this many standard deviations above the running mean of
    the loss, unless as many in a row are; 0: none."""
    stuck_seconds: float = Field(default=300.0, gt=0)
    """Without progress for so long, a process says what it waits for and what the others do."""
    give_up_seconds: float = Field(default=0.0, ge=0)
    """So long in one step, or without data, and a process ends, so that torchrun starts anew; 0:
    never."""


class ValidationConfig(Section):
    """Evaluation while training, by all processes; it changes no weight."""

    corpus: str = ""
    """Pairs that are not trained on, as `corpus` names them: loss over whole batches, retrieval."""
    sets: tuple[Path, ...] = ()
    """Evaluation sets as `wit eval` takes them (extra `eval`): zero-shot or retrieval."""
    every: Count = 1000
    """Steps between evaluations; there is one at the end too."""
    pairs: Count = 10_000
    """Pairs of `corpus` that are used, the first ones."""
    ema: bool = True
    """Evaluate the running mean of the weights where there is one."""


class LoopConfig(Section):
    """When to log and save; nothing here changes the weights."""

    log_every: Count = 20
    """Steps between progress lines."""
    save_every: Count = 500
    """Steps between checkpoints."""
    save_seconds: float = Field(default=600.0, gt=0)
    """Also save when this many seconds have passed since the last checkpoint."""
    keep: Count = 2
    """Checkpoints kept, the newest first."""
    keep_best: str = ""
    """Also keep the checkpoint that is best by this metric of an evaluation while training, such as
    val/loss (smaller is better) or val/image_to_text@1; RUN/best.json names it. Empty: none."""
    live: bool = True
    """Where the output is a terminal, a table that is drawn anew in place of lines."""
    peak_tflops: float = Field(default=0.0, ge=0)
    """What one device can do, for the share of it that is used (mfu); 0: known cards only."""
    tensorboard: bool = True
    """Write TensorBoard events to RUN/tensorboard."""
    wandb: bool = False
    """Log to Weights & Biases too (extra `wandb`; WANDB_MODE=offline needs no account)."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of torch; 0: torch's own choice."""


class TrainConfig(Settings):
    """Train a CLIP model: CORPUS to RUN. The same command resumes a run that was stopped."""

    corpus: Sources = "data/corpus"
    """Corpus directory, or a folder of webdataset tars, or a URL of either (http, s3, gs, ...), or
    tars as https://host/{00000..00041}.tar; several of them joined by `::`."""
    run: Path = Path("data/run")
    """Directory of the run: config, vocabulary, checkpoints, metrics."""
    seed: int = Field(default=0, ge=0)
    """Of the weights, the order of samples and the crops."""
    epochs: float = Field(default=32, gt=0)
    """Times each sample is seen; ignored when `steps` is given."""
    steps: int = Field(default=0, ge=0)
    """Steps of the run; 0: from `epochs`."""
    batch: int = Field(default=256, ge=2)
    """Pairs of one step, over all processes."""
    accumulate: Count = 1
    """Micro-batches that a step's batch is worked off in, each with a second forward pass: less
    memory, the same gradient. Batch norm sees one micro-batch at a time."""
    vocab: str = "corpus"
    """"corpus" (trained on the captions), "openai" (published), or the path of a vocabulary."""
    vocab_size: int = Field(default=4096, ge=514)
    """Ids of a vocabulary trained on the corpus, at most."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Precision = "auto"
    """auto: bf16 autocast on a GPU, fp32 on a CPU; fp16 scales the loss; fp8 (extra `lowbit`, a
    recent GPU): as bf16, with products of the blocks' linear layers in fp8. The loss is fp32
    always, weights too unless optim.states = bf16. runs/paper-precision.toml has the paper's."""
    parallel: Parallel = "ddp"
    """Under torchrun: ddp: each process holds the whole model; fsdp: a share of it, for models or
    batches that need the memory. The same numbers up to rounding, the same checkpoints."""
    compile: Compile = "off"
    """torch.compile: of blocks, one by one, in seconds; or of the whole model, in minutes."""
    gradient_checkpointing: Recompute = "off"
    """full: keep the input of each block alone for the backward pass and compute the rest anew: a
    fraction of the memory, a third more operations. selective: keep what matrix products and
    attention give too, and compute anew what is cheap. The same numbers."""
    lock: Literal["none", "image", "text"] = "none"
    """Tower whose weights stay as `init` has them (Zhai et al. 2022)."""
    pack: bool = True
    """Leave the padding of captions out of the text tower: fewer operations where lengths differ,
    the same numbers up to rounding. Has no effect in a compiled model."""
    init: Path | None = None
    """Run to take weights and vocabulary from, at the start; `vocab` is then not looked at.
    Position embeddings are interpolated where the picture size is another."""
    model: ModelConfig = Field(
        default_factory=lambda: ModelConfig()
    )  # not an instance: see _from_variant
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    guard: GuardConfig = GuardConfig()
    validation: ValidationConfig = ValidationConfig()
    loop: LoopConfig = LoopConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> TrainConfig:
        if self.lock != "none" and self.init is None:
            raise ValueError(f"lock = {self.lock} keeps the weights of init: give it, or lock none")
        if self.optim.states == "bf16" and self.optim.ema:
            raise ValueError(
                f"optim.ema = {self.optim.ema} can't be kept of bf16 weights, whose digits end"
                " before a mean moves: use optim.states = 8bit"
            )
        if self.lock == "text" and self.model.objective in ("bag_of_words", "caption"):
            raise ValueError(
                f"lock = text is of two towers, not of objective = {self.model.objective}"
            )
        if self.loop.keep_best and not (self.validation.corpus or self.validation.sets):
            raise ValueError(
                f"loop.keep_best = {self.loop.keep_best} needs validation.corpus or validation.sets"
            )
        return self

    @property
    def temperature(self) -> float:
        """`optim.init_temperature`, or what was published with the objective."""
        published = 0.1 if self.model.objective == "sigmoid" else 0.07
        return self.optim.init_temperature or published

    def identity(self) -> dict[str, Any]:
        """The settings that a resumed run must share, flat: `{"optim.lr": 0.0005, ...}`."""
        return identity(self.model_dump(mode="json"))


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config, as JSON, that decides the weights; nested keys joined by dots."""
    # samples are compared by their digest; checkpointing computes the same twice; processes may
    # be many or few
    outside = {"corpus", "run", "device", "loop", "validation", "gradient_checkpointing"}
    outside |= {"parallel", "guard.skips", "guard.stuck_seconds", "guard.give_up_seconds"}
    outside |= {"data.select", "data.workers", "data.prefetch", "data.cache_mb", "data.max_bad"}
    outside |= {"data.connections", "data.shard_cache", "data.shard_cache_gb"}
    flat: dict[str, Any] = {}
    for key, value in config.items():
        parts = value if isinstance(value, dict) else {"": value}
        flat |= {f"{key}.{name}" if name else key: part for name, part in parts.items()}
    if isinstance(flat.get("compile"), bool):  # as earlier versions wrote it
        flat["compile"] = "whole" if flat["compile"] else "off"
    return {key: v for key, v in flat.items() if not {key, key.split(".")[0]} & outside}
