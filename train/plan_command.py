"""`wit plan`: what a training run will take on given hardware, before it is begun."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field
from rich.console import Console
from rich.table import Table

from train.config import Count, Fraction, ModelConfig
from train.cost import BYTES_TRAINING, PUBLISHED_VOCAB, parameters
from train.plan import CARDS, Run
from wit.config import Settings, load

CARD = Literal["V100", "T4", "A10", "L4", "L40S", "A100-40GB", "A100-80GB", "H100", "H200", "B200"]


class PlanConfig(Settings):
    """Work out operations, hours, memory, storage and feed of a training run."""

    model: ModelConfig = Field(default_factory=lambda: ModelConfig(name="ViT-B/32"))
    pairs: float = Field(default=400e6, gt=0)
    """Pairs of the corpus."""
    epochs: float = Field(default=32, gt=0)
    """Times each is seen."""
    batch: Count = 32_768
    """Pairs of a step, over all cards."""
    card: CARD = "H100"
    """Accelerator; its peak and memory are its maker's."""
    cards: Count = 8
    """How many of them."""
    utilisation: Fraction = 0.3
    """Share of the peak that goes into the model. Published runs: 0.11 to 0.3 on A100, 0.2 on
    H100; the paper's own were 0.18 and 0.2 on V100."""
    caption_tokens: int = Field(default=0, ge=0)
    """Tokens the text tower works on, about those of the longest caption of a batch; 0: the whole
    context, as in the paper."""
    vocab_size: int = Field(default=PUBLISHED_VOCAB, ge=514)
    """Ids of the vocabulary."""
    sharded: bool = False
    """Weights, gradients and optimiser spread over the cards."""
    recompute: bool = False
    """Compute activations again in backward: less memory, a third more operations."""
    picture_kb: float = Field(default=30, gt=0)
    """Stored size of a picture with its caption, in kB."""
    loader_rate: float = Field(default=500, gt=0)
    """Pictures that one CPU core reads and decodes a second; bench/loader.py measures it."""
    price: float = Field(default=0, ge=0)
    """Of one card for one hour, in any currency; 0: no cost is worked out."""
    as_json: bool = Field(default=False, alias="json")
    """Print one JSON object instead of a table."""


def plan(config: PlanConfig) -> dict[str, Any]:
    """The run as plain data: SI units, hours where the name says so."""
    tokens = min(config.caption_tokens or config.model.context_length, config.model.context_length)
    run = Run(
        model=config.model,
        samples=config.pairs * config.epochs,
        batch=config.batch,
        cards=config.cards,
        card=CARDS[config.card],
        utilisation=config.utilisation,
        caption_tokens=tokens,
        sharded=config.sharded,
        recompute=config.recompute,
        vocab_size=config.vocab_size,
    )
    share = math.ceil(config.batch / config.cards)
    micro = math.ceil(share / run.largest_share) if run.largest_share else None
    card_hours = run.hours * config.cards
    count = parameters(config.model, config.vocab_size)
    return {
        "model": config.model.name,
        "parameters": count,
        "steps": math.ceil(run.samples / config.batch),
        "flops_per_pair": run.flops_per_pair,
        "flops": run.flops,
        "hours": run.hours,
        "card_hours": card_hours,
        "cost": card_hours * config.price or None,
        "card_memory": run.card.memory,
        "state_bytes": run.state_bytes,
        "activation_bytes_per_pair": run.bytes_per_pair,
        "card_bytes": run.card_bytes,
        "largest_share": run.largest_share,
        "share": share,
        "accumulate": micro,
        "corpus_bytes": 1e3 * config.picture_kb * config.pairs,
        "checkpoint_bytes": (BYTES_TRAINING - 4) * count,  # all but the gradient
        "pairs_per_second": run.pairs_per_second,
        "read_bytes_per_second": 1e3 * config.picture_kb * run.pairs_per_second,
        "loader_cores": math.ceil(run.pairs_per_second / config.loader_rate),
    }


def main(argv: Sequence[str]) -> int:
    config = load(PlanConfig, argv, prog="wit plan")
    found = plan(config)
    if config.as_json:
        print(json.dumps(found, indent=1))
        return 0
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, text in _lines(config, found):
        table.add_row(name, text)
    Console().print(table, highlight=False)
    return 0


def _lines(config: PlanConfig, found: dict[str, Any]) -> list[tuple[str, str]]:
    gb = 1e9
    cost = f", {found['cost']:,.0f} at {config.price:g} an hour" if found["cost"] else ""
    if found["accumulate"] is None:
        fit = "the state alone doesn't fit: --sharded, more cards or a larger one"
    elif found["accumulate"] > 1:
        fit = (
            f"{found['largest_share']:,} fit: --accumulate {found['accumulate']} in `wit train`,"
            " --recompute here, or more cards"
        )
    else:
        fit = f"they fit; up to {found['largest_share']:,} would"
    return [
        ("model", f"{found['model']}, {found['parameters']:,} parameters"),
        ("steps", f"{found['steps']:,} of {config.batch:,} pairs"),
        (
            "operations",
            f"{found['flops']:.2e}, {found['flops_per_pair'] / 1e9:.1f} GFLOP for a pair",
        ),
        (
            "time",
            f"{found['hours'] / 24:,.1f} days on {config.cards} x {config.card} at"
            f" {config.utilisation:.0%} of its peak",
        ),
        ("cost", f"{found['card_hours']:,.0f} card hours{cost}"),
        (
            "memory of a card",
            f"{found['state_bytes'] / gb:.1f} GB of state,"
            f" {found['activation_bytes_per_pair'] / 1e6:.1f} MB for a pair;"
            f" {found['card_bytes'] / gb:,.1f} of {found['card_memory'] / gb:.0f} GB in all",
        ),
        ("pairs of a card", f"{found['share']:,} a step; {fit}"),
        (
            "storage",
            f"{found['corpus_bytes'] / 1e12:,.2f} TB of shards,"
            f" {found['checkpoint_bytes'] / gb:.1f} GB a checkpoint",
        ),
        (
            "feed",
            f"{found['pairs_per_second']:,.0f} pairs/s,"
            f" {found['read_bytes_per_second'] / 1e6:,.0f} MB/s,"
            f" {found['loader_cores']:,} cores at {config.loader_rate:g} pictures/s",
        ),
    ]
