"""`wit models`: the models that `wit train` knows, with their sizes and costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import Field
from rich.console import Console
from rich.table import Table

from train.config import MODELS, ModelConfig
from train.cost import BYTES_TRAINING, PUBLISHED_VOCAB, image_cost, parameters, text_cost
from wit.config import Settings, load

# What the paper says (section 2.5): days times V100 GPUs, in GPU hours.
PUBLISHED_V100_HOURS = {"RN50x64": 18 * 24 * 592, "ViT-L/14": 12 * 24 * 256}
PAPER_SAMPLES = 32 * 400e6
V100_FLOPS = 125e12  # half precision, as its maker states
UTILISATION = 0.2  # of that, by the two published figures: 18% and 20%
NOTES = (
    "GFLOP: one picture or caption forward, 2 for a multiply-add; a step takes three",
    "GB: weights; train: fp32 weights, gradients, AdamW's moments; no activations",
    "V100 hours: of the paper's run; ~ at the published two's utilisation, 20%",
)


class ModelsConfig(Settings):
    """List the models of `wit train` with their sizes and costs."""

    as_json: bool = Field(default=False, alias="json")
    """Print a list of JSON objects instead of a table."""
    vocab_size: int = Field(default=PUBLISHED_VOCAB, ge=514)
    """Ids of the vocabulary that is counted; 49408 in the paper."""


def describe(name: str, vocab_size: int = PUBLISHED_VOCAB) -> dict[str, Any]:
    """One model as plain data; see `NOTES` for what is counted."""
    config = ModelConfig.model_validate({"name": name})
    count = parameters(config, vocab_size)
    return {
        "name": name,
        "tower": config.tower,
        "parameters": count,
        "embed_dim": config.embed_dim,
        "image_size": config.image_size,
        "context_length": config.context_length,
        "gflops_image": image_cost(config).flops / 1e9,
        "gflops_text": text_cost(config).flops / 1e9,
        "weights_fp32_bytes": 4 * count,
        "weights_bf16_bytes": 2 * count,
        "training_state_bytes": BYTES_TRAINING * count,
        "paper_v100_hours": PUBLISHED_V100_HOURS.get(name),
        "estimated_v100_hours": _estimate(name),
    }


def _estimate(name: str) -> int | None:
    """GPU hours of the paper's run where it states none, to two digits; None: not its model."""
    if name in PUBLISHED_V100_HOURS or not name.startswith(("RN", "ViT")):
        return None
    if name.endswith("@336px"):  # one more epoch of the model without the suffix
        before = PUBLISHED_V100_HOURS[name.removesuffix("@336px")]
        return _two_digits(before + _hours(name, PAPER_SAMPLES / 32))
    return _two_digits(_hours(name, PAPER_SAMPLES))


def _hours(name: str, samples: float) -> float:
    config = ModelConfig.model_validate({"name": name})
    flops = 3 * samples * (image_cost(config).flops + text_cost(config).flops)
    return flops / (UTILISATION * V100_FLOPS) / 3600


def _two_digits(value: float) -> int:
    return int(float(f"{value:.1e}"))


def main(argv: Sequence[str]) -> int:
    config = load(ModelsConfig, argv, prog="wit models")
    found = [describe(name, config.vocab_size) for name in MODELS]
    if config.as_json:
        print(json.dumps(found, indent=1))
        return 0
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)  # fits 80 columns
    table.add_column("\nmodel", no_wrap=True)
    for column in (
        *("\nparameters", "\ndim", "\npx", "GFLOP\nimage", "GFLOP\ntext"),
        *("GB\nfp32", "GB\nbf16", "GB\ntrain", "V100\nhours"),
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for row in found:
        table.add_row(
            row["name"],
            f"{row['parameters']:,}",
            *(str(row[key]) for key in ("embed_dim", "image_size")),
            *(f"{row[key]:.1f}" for key in ("gflops_image", "gflops_text")),
            *(f"{row[f'weights_{kind}_bytes'] / 1e9:.2f}" for kind in ("fp32", "bf16")),
            f"{row['training_state_bytes'] / 1e9:.2f}",
            _v100_hours(row),
        )
    console = Console()
    console.print(table)
    console.print(f"\nvocabulary: {config.vocab_size:,} ids", highlight=False)
    for line in NOTES:
        console.print(line, highlight=False)
    return 0


def _v100_hours(row: dict[str, Any]) -> str:
    if row["paper_v100_hours"]:
        return f"{row['paper_v100_hours']:,}"
    return f"~{row['estimated_v100_hours']:,}" if row["estimated_v100_hours"] else ""
