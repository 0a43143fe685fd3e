"""`wit eval report RUN ...`: one page for the results of one or several models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from wit.config import Settings, load


class ReportConfig(Settings):
    """Write results.csv, results.md and report.html of evaluated models, side by side."""

    runs: CliPositionalArg[list[Path]]
    """run directories, or folders of results"""
    overlap: Path | None = None
    """overlap.json of `wit eval overlap`, to be drawn (figure 17)."""
    human: Path | None = None
    """human.json of `wit eval human --analyse --model ...`, to be drawn (figure 16)."""
    out: Path = Field(Path("data/report"))
    """Folder of the report."""


def main(argv: Sequence[str]) -> int:
    """Run the command; raises WitError for what the user can mend."""
    config = load(ReportConfig, argv, prog="wit eval report")
    from eval import export, results, study_figures

    of_studies = study_figures.draw(config.human, config.overlap)
    found = [stored for run in config.runs for stored in results.load(run)]
    config.out.mkdir(parents=True, exist_ok=True)
    export.write_all(found, config.out, of_studies)
    print(f"report: {config.out / 'report.html'}")
    return 0
