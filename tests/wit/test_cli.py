"""The `wit` command as people meet it: help, mistakes, exit codes."""

import subprocess
import sys

import pytest

from wit.cli import COMMANDS, run
from wit.errors import WitError

HEAVY = ("torch", "duckdb", "img2dataset", "webdataset", "pandas")


def wit(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wit.cli", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_help_lists_every_command() -> None:
    answer = wit("--help")
    assert answer.returncode == 0
    for name in COMMANDS:
        assert f"  {name} " in answer.stdout


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_of_a_command_imports_nothing_heavy(name: str) -> None:
    script = (
        "import sys\n"
        "from wit.cli import run\n"
        "try:\n"
        f"    run(['{name}', '--help'])\n"
        "except SystemExit as leave:\n"
        "    assert not leave.code\n"
        f"print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert "usage: wit" in answer.stdout
    assert answer.stdout.splitlines()[-1] == "HEAVY []"


def test_an_unknown_command_names_the_nearest() -> None:
    with pytest.raises(WitError, match="did you mean shards"):
        run(["shard"])


@pytest.mark.parametrize("name", ["shards", "stats", "train"])
def test_a_mistake_is_one_line_and_exit_code_2(name: str) -> None:
    answer = wit(name, "--no-such-option")
    assert answer.returncode == 2
    assert answer.stderr.startswith("wit: unknown option --no-such-option")
    assert answer.stderr.count("\n") == 1
