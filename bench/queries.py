"""A query list from a made-up dump of Wikipedia: how fast, how much memory, and is it bounded?

    python bench/queries.py [--megabytes 32] [--memory-limit 1GB] [--threads 1] [--json]

The dump is a multistream .xml.bz2 with articles of Zipfian words in wiki markup (links, references,
templates, tables) and, half as many, redirects and pages that are no articles. It is built twice,
a quarter of it and all of it, each in a process of its own: where memory is bounded, the peak does
not grow with the text. Memory is resident memory of the whole process, DuckDB and Python. The peak
of one process counts; with --threads N there are N of them. The last line of the table is what the
rate makes of 100 GB of XML, about that of the English Wikipedia: an extrapolation. Seconds are
CPU seconds, the start of Python included.
"""

from __future__ import annotations

import argparse
import bz2
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

ENWIKI = 100e9  # bytes of XML
STREAM = 100  # pages of one bz2 stream, as in the dumps


def write_dump(path: Path, size: int) -> int:
    """A dump of about `size` bytes of XML; returns its bytes."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    names = np.array(["".join(rng.choice(letters, n)) for n in rng.integers(2, 11, 200_000)])
    share = np.cumsum(1 / np.arange(1, len(names) + 1))
    share /= share[-1]
    written, number = 0, 0
    with path.open("wb") as file:
        while written < size:
            pages = []
            for _ in range(STREAM):
                number += 1
                pages.append(page(number, names[np.searchsorted(share, rng.random(900))]))
            data = "".join(pages).encode()
            file.write(bz2.compress(data, 1))
            written += len(data)
    return written


def page(number: int, drawn: np.ndarray) -> str:
    """An article, and for every second one a redirect."""
    text = "{{Infobox x\n| name = y\n| z = {{plainlist|\n* a}}\n}}\n"
    for at in range(0, len(drawn), 60):
        part = drawn[at : at + 60]
        text += f"== {part[0]} ==\n'''{part[1]}''' [[{part[2]}|{part[3]}]] "
        text += (
            " ".join(part[4:]) + "&lt;ref name=a&gt;a book, p. 3&lt;/ref&gt; [[" + part[0] + "]].\n"
        )
    text += "{| class=wikitable\n|-\n| a || b\n|}\n[[Category:Things]]\n"
    head = f"  <page>\n    <title>T{number}</title>\n    <ns>0</ns>\n"
    body = f'    <revision>\n      <text xml:space="preserve">{text}</text>\n    </revision>\n'
    redirect = '    <redirect title="A" />\n    <revision><text>x</text></revision>\n  </page>\n'
    return f"{head}{body}  </page>\n" + (head + redirect if number % 2 else "")


def built(text: Path, output: Path, options: argparse.Namespace) -> dict[str, float]:
    """CPU seconds of a build and the peak of its memory in MB."""
    command = [sys.executable, __file__, "--one", str(text), str(output)]
    command += ["--memory-limit", options.memory_limit, "--threads", str(options.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def build_one(text: Path, output: Path, options: argparse.Namespace) -> None:
    from pipeline.querylist.build import build
    from pipeline.querylist.config import BuildConfig

    engine = {"memory_limit": options.memory_limit, "threads": options.threads}
    settings = {"text": [text], "output": output, "engine": engine, "pairs": {"min_count": 25}}
    build(BuildConfig.model_validate(settings))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(use.ru_utime + use.ru_stime for use in used)
    peak = max(use.ru_maxrss for use in used) / 1024
    words = json.loads((output / "config.json").read_text())["text_words"]
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "words": words}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=32, help="of XML")
    parser.add_argument("--memory-limit", default="1GB", help="of DuckDB")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--one", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        build_one(*options.one, options)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for part in (4, 1):
            path = Path(folder) / f"{part}-pages-articles-multistream.xml.bz2"
            size = write_dump(path, options.megabytes * 1_000_000 // part)
            found = built(path, Path(folder) / f"out{part}", options)
            rows.append({"xml_mb": size / 1e6, "mb_per_s": size / 1e6 / found["seconds"], **found})
    table = Table(title=f"{options.threads} threads, {options.memory_limit}", title_justify="left")
    for column in ("XML MB", "words", "CPU s", "MB per CPU s", "peak MB"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row['xml_mb']:,.0f}",
            f"{row['words']:,.0f}",
            f"{row['seconds']:.1f}",
            f"{row['mb_per_s']:.1f}",
            f"{row['peak_mb']:,.0f}",
        )
    console = Console()
    console.print(table)
    hours = ENWIKI / 1e6 / rows[-1]["mb_per_s"] / 3600
    console.print(f"at that rate 100 GB of XML take {hours:.1f} core hours (extrapolated)")
    if options.json:
        print(json.dumps({**rows[-1], "small": rows[0], "enwiki_core_hours": hours}))


if __name__ == "__main__":
    main()
