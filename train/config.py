"""What a training run is: every setting with its default. No torch here, so `--help` is quick.

`model.name` picks one of `MODELS`; any other `model.*` key changes that one value.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from wit.config import Section, Settings

Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Parallel = Literal["ddp", "fsdp"]
Objective = Literal["contrastive", "sigmoid", "bag_of_words", "caption"]


def vit(
    patch: int, image: tuple[int, int, int], text: tuple[int, int, int], embed_dim: int, size: int
) -> dict[str, Any]:
    """A model of the paper; width, layers and heads of each tower (tables 19 and 20)."""
    return {
        "image_size": size,
        "stem": (),
        "patch": patch,
        **dict(zip(("width", "layers", "heads"), image, strict=True)),
        **dict(zip(("text_width", "text_layers", "text_heads"), text, strict=True)),
        "embed_dim": embed_dim,
        "context_length": 77,
        "activation": "quick_gelu",
    }


def resnet(
    blocks: tuple[int, int, int, int],
    width: int,
    text: tuple[int, int, int],
    embed_dim: int,
    size: int,
) -> dict[str, Any]:
    """A ResNet of the paper (table 19); its features are 32 `width`, its heads 64 of them each."""
    return {
        "tower": "resnet",
        "image_size": size,
        "blocks": blocks,
        "width": width,
        "heads": width // 2,
        **dict(zip(("text_width", "text_layers", "text_heads"), text, strict=True)),
        "embed_dim": embed_dim,
        "context_length": 77,
        "activation": "quick_gelu",
    }


SMALL = vit(4, (256, 6, 4), (256, 6, 4), embed_dim=256, size=128)
MODELS: dict[str, dict[str, Any]] = {
    "tiny": {},  # the defaults of ModelConfig, for a CPU
    "small": SMALL | {"stem": (32, 64), "context_length": 64},  # for any GPU, or a patient CPU
    "tiny-resnet": resnet((1, 1, 1, 1), 16, (128, 3, 4), embed_dim=128, size=64)
    | {"context_length": 32},  # for a CPU too
    "RN50": resnet((3, 4, 6, 3), 64, (512, 12, 8), embed_dim=1024, size=224),
    "RN101": resnet((3, 4, 23, 3), 64, (512, 12, 8), embed_dim=512, size=224),
    "RN50x4": resnet((4, 6, 10, 6), 80, (640, 12, 10), embed_dim=640, size=288),
    "RN50x16": resnet((6, 8, 18, 8), 96, (768, 12, 12), embed_dim=768, size=384),
    "RN50x64": resnet((3, 15, 36, 10), 128, (1024, 12, 16), embed_dim=1024, size=448),
    "ViT-B/32": vit(32, (768, 12, 12), (512, 12, 8), embed_dim=512, size=224),
    "ViT-B/16": vit(16, (768, 12, 12), (512, 12, 8), embed_dim=512, size=224),
    "ViT-L/14": vit(14, (1024, 24, 16), (768, 12, 12), embed_dim=768, size=224),
    "ViT-L/14@336px": vit(14, (1024, 24, 16), (768, 12, 12), embed_dim=768, size=336),
}


class ModelConfig(Section):
    """The two towers. `RN*` and `ViT-*` are the nine models of the paper (tables 19 and 20)."""

    name: Literal[
        "tiny",
        "small",
        "tiny-resnet",
        "RN50",
        "RN101",
        "RN50x4",
        "RN50x16",
        "RN50x64",
        "ViT-B/32",
        "ViT-B/16",
        "ViT-L/14",
        "ViT-L/14@336px",
    ] = "tiny"
    """Variant that gives the other values their defaults; `wit models` lists them."""
    tower: Literal["vit", "resnet"] = "vit"
    """Kind of the image tower: a vision transformer, or the paper's modified ResNet."""
    blocks: tuple[Count, ...] = ()
    """Residual blocks of a ResNet's four stages; none in a ViT."""
    image_size: Count = 64
    """Side of the square picture the image tower sees, in pixels; a ResNet takes 32, 64, ..."""
    stem: tuple[Count, ...] = (32, 64)
    """Channels of 3x3 convolutions before the patches; none in the paper's ViTs."""
    stem_strides: tuple[Count, ...] = ()
    """Stride of each of them; empty: all 2."""
    stem_norm: Literal["group", "batch"] = "group"
    """Norm of the stem's layers."""
    patch: Count = 2
    """Side of a patch, in pixels of the picture or of the stem's output."""
    width: Count = 128
    """Width of the image transformer; of a ResNet's stem, a 32nd of its features."""
    layers: Count = 4
    """Blocks of the image transformer."""
    heads: Count = 4
    """Attention heads of the image transformer, or of a ResNet's pooling."""
    text_width: Count = 128
    """Width of the text transformer."""
    text_layers: Count = 3
    """Blocks of the text transformer."""
    text_heads: Count = 4
    """Attention heads of the text transformer."""
    embed_dim: Count = 128
    """Dimensions of the shared space."""
    context_length: int = Field(default=32, ge=3)
    """Most tokens of a caption, start and end included."""
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    """x*sigmoid(1.702x) in the published models; erf-GELU elsewhere."""
    pool: Literal["class", "mean", "max"] = "class"
    """Feature of a picture: its class token, as in the paper, or the mean or maximum of all."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of each block's output dropped in training; none in the paper."""
    patch_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of each picture's patches left out in training (Li et al. 2023); never the class
    token. Steps are faster by as much; the last steps of a run should see whole pictures."""
    objective: Objective = "contrastive"
    """What training asks for. contrastive: find the caption's picture and the picture's caption
    among those of the batch; sigmoid: tell pair by pair whether they belong together (Zhai et al.
    2023); bag_of_words: name the tokens of the caption; caption: write it, token by token."""

    @model_validator(mode="before")
    @classmethod
    def _from_variant(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        variant = MODELS.get(given.get("name", "tiny"), {})  # an unknown name fails on its own
        return {**variant, **given}

    @model_validator(mode="after")
    def _shapes_fit(self) -> ModelConfig:
        if self.tower == "resnet":
            self._resnet_fits()
        elif self.blocks:
            raise ValueError(
                f"blocks = {_commas(self.blocks)} are of a ResNet; leave them out, or set"
                " tower = resnet"
            )
        widths = ((self.features, self.heads), (self.text_width, self.text_heads))
        for width, heads in widths:
            if width % heads:
                raise ValueError(f"width {width} can't be divided by {heads} heads")
        if self.stem_strides and len(self.stem_strides) != len(self.stem):
            raise ValueError(
                f"stem_strides has {len(self.stem_strides)} numbers, stem has {len(self.stem)}"
            )
        unit = self.pixels_per_token
        if self.image_size % unit:
            what = (
                "its strides" if self.tower == "resnet" else "patch times the strides of the stem"
            )
            raise ValueError(
                f"image_size {self.image_size} can't be divided by {unit} ({what});"
                f" {max(1, round(self.image_size / unit)) * unit} can"
            )
        return self

    def _resnet_fits(self) -> None:
        if len(self.blocks) != 4:
            raise ValueError(
                f"blocks has {len(self.blocks)} numbers; a ResNet has four stages: blocks = 3,4,6,3"
            )
        if self.width % 2:
            raise ValueError(f"width {self.width} of a ResNet's stem must be even")
        fields = type(self).model_fields
        keys = ("stem", "stem_strides", "stem_norm", "patch", "layers", "pool", "patch_dropout")
        for key in keys:
            if getattr(self, key) != fields[key].default:
                raise ValueError(f"{key} has no meaning in a ResNet; leave it out")

    @property
    def features(self) -> int:
        """Features of the image tower before the projection to `embed_dim`."""
        return 32 * self.width if self.tower == "resnet" else self.width

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each layer of the stem."""
        return self.stem_strides or (2,) * len(self.stem)

    @property
    def pixels_per_token(self) -> int:
        """Side of the square of pixels that one token of the image tower stands for."""
        if self.tower == "resnet":
            return 32
        return self.patch * math.prod(self.strides)


def _commas(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))


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
    workers: int = Field(default=2, ge=1)
    """Threads that read and decode."""
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
    tensorboard: bool = True
    """Write TensorBoard events to RUN/tensorboard."""
    wandb: bool = False
    """Log to Weights & Biases too (extra `wandb`; WANDB_MODE=offline needs no account)."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of torch; 0: torch's own choice."""


class TrainConfig(Settings):
    """Train a CLIP model: CORPUS to RUN. The same command resumes a run that was stopped."""

    corpus: Path = Path("data/corpus")
    """Corpus directory, or a folder of webdataset tars; several of them joined by `::`."""
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
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU, fp32 on a CPU. Loss and weights are fp32 always."""
    parallel: Parallel = "ddp"
    """Under torchrun: ddp: each process holds the whole model; fsdp: a share of it, for models or
    batches that need the memory. The same numbers up to rounding, the same checkpoints."""
    compile: bool = False
    """Compile the towers with torch.compile: minutes at the start, faster steps after."""
    gradient_checkpointing: bool = False
    """Keep the input of each block alone for the backward pass and compute the rest anew: a
    fraction of the memory, a third more operations, the same numbers."""
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
    loop: LoopConfig = LoopConfig()

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
    outside = {"corpus", "run", "device", "loop", "gradient_checkpointing", "parallel"}
    outside |= {"data.select", "data.workers", "data.prefetch", "data.cache_mb", "data.max_bad"}
    flat: dict[str, Any] = {}
    for key, value in config.items():
        parts = value if isinstance(value, dict) else {"": value}
        flat |= {f"{key}.{name}" if name else key: part for name, part in parts.items()}
    return {key: v for key, v in flat.items() if not {key, key.split(".")[0]} & outside}
