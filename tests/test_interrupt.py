"""Ctrl-C, as a terminal sends it: to the whole group of processes, in the middle of the work."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wit.config import as_json

ROOT = Path(__file__).parents[1]


def interrupted(arguments, begun):
    """Run a command, press Ctrl-C when `begun()` is true, and return (exit code, output)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "wit.cli", *map(str, arguments)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        # where tests run in the background, Ctrl-C is ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        while not begun():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate()
    finally:
        process.kill()
    return process.returncode, output


def test_a_download_goes_on_where_it_was(sample, tmp_path):
    """In the middle of the download, with its processes at work."""
    corpus = tmp_path / "corpus"
    plain = as_json(sample.model_copy(update={"corpus": corpus}))
    config = {
        "corpus": str(corpus), "input": plain["input"], "queries": plain["queries"],
        "fetch": {**plain["fetch"], "processes": 2, "host_rate": 20.0}, "image": plain["image"],
        "text": plain["text"], "balance": plain["balance"],
    }  # fmt: skip
    toml = tmp_path / "config.toml"
    toml.write_text(to_toml(config), "utf-8")
    command = ["shards", "--config", toml]

    def begun():
        ledgers = [*corpus.glob("stages/60_fetch.*.tmp/*/*")]
        return any(path.is_file() and path.stat().st_size for path in ledgers)

    code, output = interrupted(command, begun)
    assert code == 130
    assert "wit: stopped; run the same command again: what was saved is kept" in output
    assert "Traceback" not in output
    assert not (corpus / "manifest.json").exists()
    again = [*command, "--fetch.host_rate", "0"]  # as fast as it can
    assert subprocess.run([sys.executable, "-m", "wit.cli", *map(str, again)], cwd=ROOT,
                          capture_output=True, check=False).returncode == 0  # fmt: skip
    assert (corpus / "manifest.json").exists()


def to_toml(values, prefix=""):
    """Plain values as TOML; what is null is left out."""
    lines = [f"{json.dumps(key)} = {inline(value)}" for key, value in values.items()
             if value is not None]  # fmt: skip
    return prefix + "\n".join(lines) + "\n"


def inline(value):
    if isinstance(value, dict):
        inner = (f"{json.dumps(k)} = {inline(v)}" for k, v in value.items() if v is not None)
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value)


@pytest.fixture(scope="module")
def training(corpus, tmp_path_factory):
    """A run that Ctrl-C stopped: (folder, exit code, output, command)."""
    run = tmp_path_factory.mktemp("training") / "run"
    command = [
        "train", "--corpus", corpus, "--run", run, "--batch", 16, "--epochs", 2000, "--device",
        "cpu", "--model.image_size", 32, "--model.width", 16,
        "--model.text_width", 16, "--loop.log_every", 1,
        "--no-loop.tensorboard",
    ]  # fmt: skip
    metrics = run / "metrics.jsonl"
    code, output = interrupted(command, lambda: metrics.exists() and metrics.stat().st_size > 0)
    return run, code, output, command


def test_training_saves_its_last_step(training):
    run, code, output, _ = training
    assert code == 130
    assert "stopping after this step; Ctrl-C again stops at once" in output
    (step,) = re.findall(r"stopped at step (\d+); the same command goes on from here", output)
    assert "Traceback" not in output
    assert (run / "checkpoints" / f"step_{int(step):08d}.pt").exists()


def test_an_evaluation_stops_in_one_line(training, tmp_path):
    """While pictures are encoded; the chunks that are done are kept."""
    from PIL import Image

    data = tmp_path / "set"
    for name in ("red", "blue"):
        (data / name).mkdir(parents=True)
        for i in range(1500):
            Image.new("RGB", (40, 30), name).save(data / name / f"{i}.png", compress_level=0)
    out = tmp_path / "out"
    command = ["eval", "--run", training[0], "--set", data, "--out", out]
    code, output = interrupted(command, lambda: any(out.rglob("*.npz")))
    assert code == 130
    assert "wit: stopped; run the same command again" in output
    assert "Traceback" not in output
