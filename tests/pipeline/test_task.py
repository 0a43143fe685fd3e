"""How working processes start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
from pipeline.task import processes
if __name__ == "__main__":
    one = processes().Process(target=print, args=("it works",))
    one.start()
    one.join()
    raise SystemExit(one.exitcode)
"""


def test_files_of_the_working_folder_are_not_imported(tmp_path: Path) -> None:
    """Whatever they are called: the folder may be anybody's."""
    script = tmp_path / "script" / "run.py"  # its own folder is on the path, as that of `wit` is
    script.parent.mkdir()
    script.write_text(CODE)
    for name in ("pipeline", "aiohttp", "duckdb"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "it works\n", "")
