"""Arithmetic, nothing measured: what each of the paper's nine models needs of cards and network.

    python bench/roofline.py [--card H100] [--batch 32768] [--utilisation 0.4] [--json]

For the paper's batch: the smallest power of two of cards on which it fits with all activations
kept (`wit plan` has the formulas), the memory of one card there, and the seconds of a step if the
share `utilisation` of the card's dense bf16 peak is reached. Then what a ring sends from each card
in a step, by the formulas that bench/communication.py holds against counted bytes: gradients
(ddp), or weights twice and gradients once (fsdp), all fp32; and the loss's features and their
gradient. `GB/s` is what a card's link must carry for all of it to take a tenth of the step.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table

from train.config import MODELS, ModelConfig
from train.cost import parameters
from train.plan import CARDS, Run

PUBLISHED = [name for name in MODELS if name.startswith(("RN", "ViT"))]


def smallest(run: Run) -> Run:
    """The same run on the smallest power of two of cards that have room for it."""
    while run.largest_share < math.ceil(run.batch / run.cards):
        run = replace(run, cards=2 * run.cards)
    return run


def sent(run: Run) -> tuple[float, float]:
    """Bytes that each card sends in a step for the model, and for the loss."""
    share = (run.cards - 1) / run.cards
    of_weights = 4 * parameters(run.model)
    of_loss = (2 * 4 * run.batch * run.model.embed_dim + 2 * 16 * run.batch) * share
    return (3 if run.sharded else 2) * of_weights * share, of_loss


def needs(name: str, card: str, batch: int, utilisation: float, sharded: bool) -> dict[str, Any]:
    model = ModelConfig.model_validate({"name": name})
    args = (model, batch, batch, 1, CARDS[card], utilisation, model.context_length)
    run = smallest(Run(*args, sharded=sharded))
    seconds = 3600 * run.hours
    of_model, of_loss = sent(run)
    return {
        "cards": run.cards,
        "gigabytes": run.card_bytes / 1e9,
        "state_gigabytes": run.state_bytes / 1e9,
        "seconds": seconds,
        "sent_model_gigabytes": of_model / 1e9,
        "sent_loss_gigabytes": of_loss / 1e9,
        "link": (of_model + of_loss) / 1e9 / (seconds / 10),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--card", choices=CARDS, default="H100")
    parser.add_argument("--batch", type=int, default=32_768)
    parser.add_argument("--utilisation", type=float, default=0.4, help="assumed, of the peak")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    title = f"arithmetic: batch {options.batch:,} on {options.card}, {options.utilisation:.0%} used"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    columns = ("cards", "GB a card", "of it state", "s a step", "GB sent", "for loss", "GB/s")
    for column in ("model", "", *columns):
        table.add_column(column, justify="left" if column in ("model", "") else "right")
    results = {}
    for name in PUBLISHED:
        for how in ("ddp", "fsdp"):
            row = needs(name, options.card, options.batch, options.utilisation, how == "fsdp")
            results[f"{name} {how}"] = row
            numbers = [f"{row[key]:.2f}" for key in list(row)[1:]]
            table.add_row(name, how, str(row["cards"]), *numbers)
    Console().print(table)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
