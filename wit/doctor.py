"""`wit doctor`: what this machine can do, on one screen, and how to get what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from rich.console import Console
from rich.table import Table

from wit.config import Settings, load

# distribution -> (import name, extra that brings it, what it is for)
PARTS = {
    "duckdb": ("duckdb", "pipeline", "wit shards, stats, sql"),
    "aiohttp": ("aiohttp", "pipeline", "the download of images"),
    "py3langid": ("py3langid", "pipeline", "the language filter"),
    "ahocorasick_rs": ("ahocorasick_rs", "matcher", "match.engine aho_corasick"),
    "rensa": ("rensa", "minhash", "dedupe.near_texts"),
    "torch": ("torch", "train", "wit train, eval"),
    "s3fs": ("s3fs", "s3", "metadata from S3, corpora to it"),
    "tensorboard": ("tensorboard", "train", "curves of a run"),
    "triton": ("triton", "triton", "wit train --compile on a GPU"),
    "torchao": ("torchao", "lowbit", "8-bit and bf16 optimiser states, fp8"),
    "wandb": ("wandb", "wandb", "logging to Weights & Biases"),
    "faiss-cpu": ("faiss", "browse", "wit browse of more than 50,000 pairs"),
    "ray": ("ray", "ray", "wit shards --engine ray"),
    "timm": ("timm", "timm", "no command yet"),
}


class DoctorConfig(Settings):
    """Say what this machine can do."""

    as_json: bool = Field(default=False, alias="json")
    """Print one JSON object instead of tables."""


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> list[str]:
    """Name and memory of each NVIDIA GPU, as its own tool reports them."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return []
    return answer.stdout.strip().splitlines() if answer.returncode == 0 else []


def _part(distribution: str) -> dict[str, Any]:
    module, extra, purpose = PARTS[distribution]
    present = importlib.util.find_spec(module) is not None
    version = None
    if present:
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:  # it came with another distribution
            version = "present"
    install = None if present else f"pip install -e '.[{extra}]'"
    return {"version": version, "for": purpose, "install": install}


def survey(folder: Path) -> dict[str, Any]:
    """Everything the doctor says, as plain data; `folder` is where the disk is measured."""
    from PIL import features

    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "wit": importlib.metadata.version("wit"),
        "cores": _cores(),
        "memory_gib": round(_memory_gib(), 1),
        "disk_free_gib": round(shutil.disk_usage(folder).free / 2**30, 1),
        "gpus": _gpus(),
        "image_formats": {name: bool(features.check(name)) for name in ("jpg", "webp", "avif")},
        "parts": {name: _part(name) for name in PARTS},
    }


def advice(found: dict[str, Any]) -> list[str]:
    """What the survey means for the user, one sentence a line."""
    lines = []
    if not found["gpus"]:
        lines.append("No NVIDIA GPU was found: training runs on the CPU, for small models only.")
    elif found["parts"]["torch"]["version"]:
        lines.append("Training runs on the GPU; start one process per GPU with torchrun.")
    if found["disk_free_gib"] < 20:
        lines.append("Under 20 GiB of disk is free: a million pairs at 256 px need about 30 GiB.")
    if not found["image_formats"]["avif"]:
        lines.append("This Pillow can't decode AVIF: such images get the reason image_format.")
    return lines


def main(argv: Sequence[str]) -> int:
    config = load(DoctorConfig, argv, prog="wit doctor")
    found = survey(Path.cwd())
    if config.as_json:
        json.dump(found, sys.stdout, indent=1)
        print()
        return 0
    console = Console()
    machine = Table("machine", "", title="wit doctor", title_justify="left")
    for key, text in (
        ("wit, Python, system", f"{found['wit']}, {found['python']}, {found['system']}"),
        ("cores", str(found["cores"])),
        ("memory", f"{found['memory_gib']} GiB"),
        ("disk free here", f"{found['disk_free_gib']} GiB"),
        ("GPU", "; ".join(found["gpus"]) or "none"),
        ("image formats", ", ".join(k for k, v in found["image_formats"].items() if v)),
    ):
        machine.add_row(key, text)
    console.print(machine)
    parts = Table("part", "version", "for", "to install")
    for name, part in found["parts"].items():
        version = part["version"] or "[yellow]missing[/]"
        install = (part["install"] or "").replace("[", "\\[")
        parts.add_row(name, version, part["for"], install)
    console.print(parts)
    for line in advice(found):
        console.print(line)
    return 0
