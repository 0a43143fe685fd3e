"""Part of runs/efficiency.sh: a set of captions to choose from, and the picture of the results.

efficiency.py choices PHOTOS SET   100 held-out photographs of Flickr8k, each a class of its
                                   own, named by its first caption
efficiency.py plot OUT             OUT/efficiency.svg and a table, from OUT/OBJECTIVE/at/STEP
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import matplotlib
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from eval import results
from wit.charts import MUTED, SERIES, style
from wit.errors import InputError, WitError

OBJECTIVES = {
    "contrastive": "contrastive",
    "bag_of_words": "bag of words",
    "caption": "caption language model",
}
CHOICES = 100
Point = tuple[int, float, float, float, float]  # pictures seen; value, its interval, chance


def choices(photos: Path, out: Path) -> None:
    """An evaluation set in which a photograph's class is its caption."""
    try:
        rows = pq.read_table(photos / "captions.parquet").to_pylist()
    except FileNotFoundError:
        raise InputError(f"{photos}/captions.parquet: missing; give Flickr8k's folder") from None
    captions: dict[str, Path] = {}
    for row in rows:
        if row["split"] == "val" and len(captions) < CHOICES:
            captions.setdefault(row["captions"][0].strip(), photos / "images" / row["image"])
    (out / "test").mkdir(parents=True, exist_ok=True)
    (out / "classnames.txt").write_text("".join(f"{text}\n" for text in captions), "utf-8")
    (out / "zeroshot_classification_templates.txt").write_text("{c}\n", "utf-8")
    with tarfile.open(out / "test" / "0.tar", "w") as tar:
        for i, path in enumerate(captions.values()):
            tar.add(path, f"{i:04d}.jpg")
            label = tarfile.TarInfo(f"{i:04d}.cls")
            label.size = len(str(i))
            tar.addfile(label, io.BytesIO(str(i).encode()))
    (out / "test" / "nshards.txt").write_text("1\n")


def points(run: Path) -> dict[str, list[Point]]:
    """Zero-shot results of a run's checkpoints: of each set, in the order of pictures seen."""
    config = json.loads((run / "config.json").read_text("utf-8"))["config"]
    found: dict[str, list[Point]] = {}
    for folder in sorted((run / "at").glob("step_*")):
        seen = int(folder.name.removeprefix("step_")) * config["batch"]
        for stored in results.load(folder):
            main = stored.main
            point = (seen, main["value"], *main["interval_95"], main["chance"])
            found.setdefault(stored.name[0], []).append(point)
    return found


def plot(out: Path) -> None:
    runs = {name: points(out / name) for name in OBJECTIVES}
    sets = list(dict.fromkeys(name for found in runs.values() for name in found))
    if not sets:
        raise InputError(f"{out}: no results; run runs/efficiency.sh")
    table = Table(title="zero-shot accuracy after so many pictures", title_justify="left")
    for column in ("set", "objective", "pictures", "accuracy"):
        table.add_column(column)
    with style(), matplotlib.rc_context({"svg.hashsalt": "efficiency"}):
        figure = Figure(figsize=(4.2 * len(sets), 3.2), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
            for (run, found), colour in zip(runs.items(), SERIES, strict=False):
                seen, value, low, high, chance = zip(*found[name], strict=True)
                axes.plot(seen, value, "o-", ms=3, lw=1.4, color=colour, label=OBJECTIVES[run])
                axes.fill_between(seen, low, high, color=colour, alpha=0.15, lw=0)
                axes.axhline(chance[0], color=MUTED, lw=0.8, ls=":")
                for pictures, share in zip(seen, value, strict=True):
                    table.add_row(name, OBJECTIVES[run], f"{pictures:,}", f"{share:.1%}")
            axes.set(title=name, xlabel="pictures seen in training", ylim=(0, 1))
            axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        figure.axes[0].set_ylabel("zero-shot accuracy; dotted: chance")
        figure.axes[0].legend(loc="upper left")
        figure.savefig(out / "efficiency.svg", metadata={"Date": None, "Creator": None})
    Console().print(table)
    print(f"{out / 'efficiency.svg'}: written")


def main(argv: list[str]) -> None:
    match argv:
        case ["choices", photos, out]:
            choices(Path(photos), Path(out))
        case ["plot", out]:
            plot(Path(out))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except WitError as error:
        sys.exit(f"efficiency: {error}")
