"""The `wit` command: a table of subcommands, each imported only when it is called.

`wit --help` must answer at once, so nothing heavy is imported here.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from wit.errors import MissingExtra, WitError

# name -> (module, one line of help, the extra that brings its dependencies).
# Each module has `main(argv: Sequence[str]) -> int`.
COMMANDS = {
    "queries": ("pipeline.querylist.command", "make a query list, say what it covers", "pipeline"),
    "shards": ("pipeline.run", "build a corpus: metadata to shards and catalogue", "pipeline"),
    "stats": ("pipeline.stats", "print what a corpus holds and what it dropped", "pipeline"),
    "balance": ("pipeline.plan", "plan the cap on pairs per query", "pipeline"),
    "report": ("wit.report_command", "one page about a corpus, or about runs", ""),
    "sql": ("pipeline.sql_command", "ask the catalogue a question in SQL", "pipeline"),
    "verify": ("pipeline.verify", "check every file of a corpus against its manifest", "pipeline"),
    "reshard": ("pipeline.reshard", "select from a corpus or cut its shards anew", "pipeline"),
    "merge": ("pipeline.merge", "join two corpora without duplicates", "pipeline"),
    "remove": ("pipeline.remove", "take opted-out pairs out of a finished corpus", "pipeline"),
    "sample": ("pipeline.sample.command", "write or serve the embedded sample", "pipeline"),
    "browse": ("eval.browse.command", "look at a corpus and search it on a local page", "browse"),
    "train": ("train.command", "train a CLIP model on a corpus", "train"),
    "models": ("train.models_command", "list the models with their sizes and costs", ""),
    "runs": ("train.runs_command", "list runs, their metrics and what differs", ""),
    "plan": ("train.plan_command", "work out time, memory and cost of a training", ""),
    "eval": ("eval.run", "evaluate a trained model", "eval"),
    "compare": ("eval.compare", "compare two evaluated models, with paired tests", "eval"),
    "classify": ("train.classify_command", "say which labels fit a picture best", "train"),
    "embed": ("train.embed_command", "write features of pictures or captions", "train"),
    "export": ("train.export_command", "write a model in the formats of other tools", "train"),
    "doctor": ("wit.doctor", "say what this machine can do", ""),
}


def usage() -> str:
    lines = ["usage: wit COMMAND [options]", "", "commands:"]
    lines += [f"  {name:<8} {text}" for name, (_, text, _) in COMMANDS.items()]
    lines += ["", "`wit COMMAND --help` lists the options of a command."]
    return "\n".join(lines)


def run(argv: Sequence[str]) -> int:
    """Run one command line; returns the exit code (0 done, 2 a mistake the user can mend)."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {close[0]}?" if close else "; `wit --help` lists the commands"
        raise WitError(f"unknown command {name}{hint}")
    module, _, extra = COMMANDS[name]
    try:
        command = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if not extra or missing in ("wit", "pipeline", "train", "eval"):
            raise
        raise MissingExtra(missing, extra) from None
    code: int = command.main(rest)
    return code


def _stopped() -> NoReturn:
    print("wit: stopped; run the same command again: what was saved is kept", file=sys.stderr)
    sys.exit(130)


def main() -> None:
    """Entry point: errors become one line on stderr and exit code 2."""
    try:
        sys.exit(run(sys.argv[1:]))
    except WitError as error:
        print(f"wit: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _stopped()
    except RuntimeError as error:
        if str(error) != "Query interrupted":  # how DuckDB reports Ctrl-C in the middle of a query
            raise
        _stopped()
    except BrokenPipeError:  # the reader of a pipe went away: not a mistake
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a full disk, a missing permission
        where = f"{error.filename}: " if error.filename else ""
        print(f"wit: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
