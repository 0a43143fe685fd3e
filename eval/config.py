"""The config of `wit eval`. No torch here: `wit eval --help` must answer at once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from eval.task import TASKS
from wit.config import Section, Settings


class ProbeConfig(Section):
    """Linear probe and few-shot probes."""

    features: Literal["pre", "post"] = "pre"
    """Features before the projection to the shared space, as in the paper, or after it."""
    validation: float = Field(default=0.2, gt=0, lt=1)
    """Share of the training data that chooses the penalty where the set has no split val."""
    shots: list[int] = Field(default=[1, 2, 4, 8, 16])
    """Training images of each class in few-shot probes."""
    draws: int = Field(default=3, ge=2)
    """Random draws of these images; shots of one draw are nested."""
    few_validation: Literal["full", "shots"] = "full"
    """What chooses the penalty of a few-shot probe: all validation data, as in the paper, or as
    many images of each class as shots, at most four."""


class ShiftConfig(Section):
    """A shifted set beside its reference."""

    reference: Path | None = None
    """Reference set of task shift, such as ImageNet; a probe is fitted to its split train."""
    mapping: Path | None = None
    """JSON file {"class": ["class of the reference", ...]}; without it names must be equal."""


class BiasConfig(Section):
    """What a model says of groups of people."""

    groups: list[str] = Field(default=["race"], min_length=1)
    """Columns of the set whose values make a group, such as ["race", "gender"]."""
    least: int = Field(default=50, ge=1)
    """Images of a group below which nothing is reported of it."""
    labels: Path | None = None
    """TOML file of your own: neutral = [...], templates = [...] and a table [harmful] of lists of
    labels by kind."""


class EvalConfig(Settings):
    """Evaluate a trained model on any number of sets: every number with its 95% interval."""

    run: Path = Path("data/run")
    """Run directory of the model, exported folder, or checkpoint of OpenAI, open_clip or Hugging
    Face."""
    activation: Literal["gelu", "quick_gelu"] | None = None
    """For a checkpoint that doesn't say which it has, or says it wrongly."""
    vocab: str | None = None
    """"openai" or the path of a vocabulary, in place of the checkpoint's own."""
    extractor: str = Field("", pattern=r"^(timm:.+|npy:.+)?$")
    """Features to probe in place of the model's: timm:NAME (with timm's pre-trained weights),
    timm:NAME@FILE (with those of a safetensors file), or npy:FOLDER, which holds SET-SPLIT.npy,
    a row for each image in the set's order. Without texts: tasks probe and fewshot only."""
    set: list[Path] = Field(default=[])
    """Evaluation set: a webdataset folder, a folder with one sub-folder for each class, or a CSV
    file. Give the option once for each set."""
    suite: Path | None = None
    """Folder of sets: all in it that bear a name of the registry are evaluated."""
    task: list[str] = Field(default=[])
    """Task to run; once for each task (default: what a set is made for)."""
    out: Path | None = None
    """Folder for results (default: RUN/eval; of a file, FILE-eval beside it)."""
    split: str = Field("test", pattern=r"^[A-Za-z0-9_-]+$")
    """Split that is evaluated."""
    protocol: Literal["paper", "own"] = "paper"
    """paper: a set that bears a name of the registry must be the published one, by classes and
    counts, and gets the published class names and prompts; own: every set as it is."""
    registry: Path | None = None
    """TOML file in place of the paper's registry."""
    templates: Path | None = None
    """Text file of prompt templates, one a line with {c}, in place of each set's own."""
    batch_size: int = Field(256, ge=1)
    """Images or texts encoded at once."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto takes CUDA where there is one."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the towers; part of the protocol."""
    max_pixels: int = Field(100_000_000, ge=1)
    """Images that declare more pixels than this are not decoded."""
    max_bad: int = Field(0, ge=0)
    """Images that may be unreadable, for each set; they are left out and listed."""
    probe: ProbeConfig = ProbeConfig()
    shift: ShiftConfig = ShiftConfig()
    bias: BiasConfig = BiasConfig()
    resamples: int = Field(2000, ge=100)
    """Bootstrap resamples behind the intervals that have no closed form."""
    seed: int = Field(0, ge=0)
    """Seed of the bootstrap."""

    @field_validator("task")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in TASKS:
                raise ValueError(f"no task {name}; there are {', '.join(TASKS)}")
        return names
