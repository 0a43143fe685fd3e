"""Each half imports where the other half's packages are absent (`make test` runs each
half's own tests that way too, with --without)."""

import pkgutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

import pipeline
import train
import wit

SCRIPT = """
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
for module in {modules!r}:
    importlib.import_module(module)
assert not [m for m in {absent!r} if m in sys.modules]
"""


def modules_of(package: object) -> list[str]:
    path, name = package.__path__, package.__name__  # type: ignore[attr-defined]
    return [module.name for module in pkgutil.walk_packages(path, f"{name}.")]


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        (wit, ["torch", "duckdb", "img2dataset", "webdataset", "pandas"]),
        (pipeline, ["torch", "tensorboard", "triton"]),
        (train, ["duckdb", "img2dataset", "pandas", "cv2"]),
    ],
    ids=["wit", "pipeline", "train"],
)
def test_imports_without_the_other_half(package: object, absent: list[str]) -> None:
    modules = modules_of(package)
    if find_spec("triton") is None:  # it comes with CUDA builds of torch, and for Linux only
        modules = [module for module in modules if ".kernels.triton_" not in module]
    assert len(modules) >= 5
    script = SCRIPT.format(absent=absent, modules=modules)
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert answer.returncode == 0, answer.stderr
