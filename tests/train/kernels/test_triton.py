"""The Triton kernels through Triton's interpreter, and on a GPU where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
CASES = [Path(__file__).with_name(name) for name in ("triton_cases.py", "pixels_cases.py")]


def run(script: Path, *args: str, **env: str) -> str:
    """The script in a process of its own: Triton reads TRITON_INTERPRET when it is imported."""
    done = subprocess.run(
        [sys.executable, str(script), *args],
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", CASES, ids=lambda path: path.stem)
def test_in_the_interpreter(script: Path) -> None:
    assert "all cases hold" in run(script, "cpu", TRITON_INTERPRET="1")


def test_tuning_checks_and_times_each_choice_of_tiles() -> None:
    script = Path(__file__).parents[3] / "bench" / "tune_loss.py"
    args = ("--device", "cpu", "--rows", "20", "--width", "20", "--dtype", "fp32", "--json")
    out = run(script, *args, TRITON_INTERPRET="1").splitlines()
    results = json.loads(out[-1])["results"]
    assert [len(r["tiles"]) for r in results] == [6, 6]
    assert all(0 <= r["error"] <= 1e-5 and r["seconds"] > 0 for r in results)
    assert out[-2].startswith('("cpu", torch.float32): Tiles(')


@pytest.mark.gpu
@pytest.mark.parametrize("script", CASES, ids=lambda path: path.stem)
def test_on_a_gpu(script: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert "all cases hold" in run(script, "cuda")
