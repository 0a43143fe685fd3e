"""The Triton kernels through Triton's interpreter, and on a GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
CASES = ("triton_cases.py", "pixels_cases.py")


def run(script: str, device: str, **env: str) -> str:
    """The script in a process of its own: Triton reads TRITON_INTERPRET when it is imported."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script)), device],
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", CASES)
def test_in_the_interpreter(script: str) -> None:
    assert "all cases hold" in run(script, "cpu", TRITON_INTERPRET="1")


@pytest.mark.gpu
@pytest.mark.parametrize("script", CASES)
def test_on_a_gpu(script: str) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert "all cases hold" in run(script, "cuda")
