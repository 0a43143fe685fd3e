"""`wit queries build` and `wit queries report`."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.querylist.config import BuildConfig, ReportConfig
from wit.config import load
from wit.errors import ConfigError

USAGE = """usage: wit queries ACTION [options]

actions:
  build   make a query list from Wikipedia, WordNet and lists of your own
  report  say what a list holds and what it covers

`wit queries ACTION --help` lists the options of an action."""


def main(argv: Sequence[str]) -> int:
    """Run one action; the list that it made or read is reported on stdout."""
    action, *rest = argv or ("--help",)
    if action in ("-h", "--help"):
        print(USAGE)
    elif action == "build":
        config = load(BuildConfig, rest, prog="wit queries build")
        from pipeline.querylist.build import build

        build(config)
    elif action == "report":
        wanted = load(ReportConfig, rest, prog="wit queries report")
        from pipeline.querylist.report import report

        report(wanted.output, wanted.captions, wanted.engine)
    else:
        raise ConfigError(f"wit queries {action}: unknown action: use build or report")
    return 0
