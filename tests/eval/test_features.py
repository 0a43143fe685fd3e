"""The cache of features: killed and resumed, shared by processes, and what texts it saves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from eval import features
from eval.features import Encoder
from eval.sets import open_set
from train import load_model

# Encodes one image at a time, slowly enough to be killed, in parts of 4.
ENCODE = """
import sys, time, torch
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from eval import features
from eval.sets import open_set
from train.dist import world
from train import load_model
features.CHUNK = 4
run, data, cache, pause = sys.argv[1:]
torch.set_num_threads(1)
def say(what):  # in one piece, for processes share the pipe
    sys.stdout.write(f"{what}\\n")
    sys.stdout.flush()
with world("cpu") as processes:
    model = load_model(Path(run))
    encoder = features.Encoder(model, Path(cache), 2, 10**6, 0, world=processes)
    prepare = features.decode
    def slowly(data, cap):
        time.sleep(float(pause))
        say(processes.rank)
        return prepare(data, cap)
    features.decode = slowly
    features.ThreadPoolExecutor = lambda: ThreadPoolExecutor(1)
    say(encoder.images(open_set(Path(data))).post_NE.shape)
"""


@pytest.fixture
def encoder(run, tmp_path):
    return Encoder(load_model(run), tmp_path / "cache", 7, 10**6, 0)


def folders(cache):
    return sorted(path.name for path in cache.iterdir())


def test_features_before_and_after_the_projection(run, colour_set, encoder):
    data = open_set(colour_set)
    found = encoder.images(data)
    model = encoder.model
    pixels = [model.preprocess(features.decode(s.read(), 10**6)) for s in data.samples]
    img_BCSS = torch.from_numpy(np.stack(pixels))
    post_NE = model.encode_image(img_BCSS)
    torch.testing.assert_close(torch.from_numpy(found.post_NE.copy()), post_NE, atol=1e-5, rtol=0)
    projected_NE = torch.from_numpy(found.pre_ND.copy()) @ model.clip.visual.proj
    torch.testing.assert_close(projected_NE, post_NE, atol=1e-5, rtol=0)
    assert found.pre_ND.shape == (24, model.config.width)
    np.testing.assert_allclose(np.linalg.norm(found.image_NE, axis=1), 1, atol=1e-6)


def test_precision_and_split_have_entries_of_their_own(run, colour_set, encoder, tar, png):
    tar(colour_set / "train" / "0.tar", [("a.png", png("red")), ("a.cls", b"0")])
    (colour_set / "train" / "nshards.txt").write_text("1")
    data = open_set(colour_set, also=("train",))
    full = encoder.images(data)
    half = Encoder(encoder.model, encoder.cache, 7, 10**6, 0, precision="bf16").images(data)
    assert len(folders(encoder.cache)) == 2
    assert 0 < np.abs(full.post_NE - half.post_NE).max() < 0.1 * np.abs(full.post_NE).max()
    assert len(encoder.images(data.train).post_NE) == 1
    assert len(folders(encoder.cache)) == 3


def test_killed_and_resumed(run, colour_set, tmp_path, monkeypatch):
    """Parts that were finished are not encoded again, and the features are the same bytes."""
    command = [sys.executable, "-c", ENCODE, str(run), str(colour_set), str(tmp_path / "cache")]
    killed = subprocess.Popen([*command, "0.1"], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("cache/*.parts/000001.npz")):
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    done = len(list(tmp_path.glob("cache/*.parts/*.npz")))
    assert 2 <= done < 6

    monkeypatch.setattr(features, "CHUNK", 4)
    decoded = []
    decode = features.decode
    monkeypatch.setattr(features, "decode", lambda *args: (decoded.append(1), decode(*args))[1])
    data = open_set(colour_set)
    for cache, images in (("cache", 24 - 4 * done), ("whole", 24)):
        decoded.clear()
        Encoder(load_model(run), tmp_path / cache, 2, 10**6, 0).images(data)
        assert len(decoded) == images
    (folder,) = (tmp_path / "cache").iterdir()
    for name in ("pre.npy", "post.npy", "kept.npy", "bad.json", "key.json"):
        expected = (tmp_path / "whole" / folder.name / name).read_bytes()
        assert (folder / name).read_bytes() == expected


def test_two_processes_share_the_work(run, colour_set, tmp_path):
    script = tmp_path / "encode.py"
    script.write_text(ENCODE)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
               f"--master-port={29600 + os.getpid() % 300}", str(script), str(run),
               str(colour_set)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run([*command, str(tmp_path / "two"), "0"], capture_output=True, text=True,
                          check=True, env=environment)  # fmt: skip
    lines = done.stdout.splitlines()
    assert (lines.count("0"), lines.count("1"), lines.count("(24, 128)")) == (12, 12, 2)
    alone = Encoder(load_model(run), tmp_path / "one", 2, 10**6, 0).images(open_set(colour_set))
    (folder,) = (tmp_path / "two").iterdir()
    np.testing.assert_allclose(np.load(folder / "post.npy"), alone.post_NE, atol=1e-5)


def test_texts_are_encoded_once_and_without_padding(encoder):
    texts = ["a red picture", "all green", "A  red picture", "so blue " * 9, "all green", "x"]
    asked = []
    encode = encoder.model.clip.encode_text
    encoder.model.clip.encode_text = lambda tokens_BL: (
        asked.append(tuple(tokens_BL.shape)), encode(tokens_BL))[1]  # fmt: skip
    small = Encoder(encoder.model, encoder.cache, 2, 10**6, 0)
    found = small.texts(texts)
    assert [rows for rows, _ in asked] == [2, 2]  # four of six differ
    assert asked[0][1] < asked[1][1]  # short ones first, by themselves
    one = np.concatenate([small.texts([text]) for text in texts])
    np.testing.assert_allclose(found, one, atol=1e-6)
