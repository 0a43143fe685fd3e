"""The cache of features: killed and resumed, shared by processes, and what texts it saves."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from eval import features
from eval.features import Encoder
from eval.sets import open_set
from train import load_model
from train.dist import world

from ..train import ranks


def encode(run, data, cache, pause, log, env):
    """What a process runs: it encodes one image at a time, slowly enough to be killed, in parts of
    4, and says which."""
    os.environ |= env
    features.CHUNK = 4
    torch.set_num_threads(1)
    prepare = features.decode
    with world("cpu") as processes, log.open("a") as out:

        def slowly(content, cap):
            time.sleep(pause)
            print(processes.rank, file=out, flush=True)
            return prepare(content, cap)

        features.decode = slowly
        features.ThreadPoolExecutor = lambda: ThreadPoolExecutor(1)
        encoder = Encoder(load_model(run), cache, 2, 10**6, 0, world=processes)
        print(encoder.images(open_set(data)).post_NE.shape, file=out)


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
    told = (run, colour_set, tmp_path / "cache", 0.1, tmp_path / "log", {})
    killed = ranks.server().Process(target=encode, args=told)
    killed.start()
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("cache/*.parts/000001.npz")):
        assert time.monotonic() < deadline
        assert killed.is_alive()
        time.sleep(0.01)
    killed.kill()
    killed.join()
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
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ranks.free_port())}
    processes = []
    for rank in range(2):
        env = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        told = (run, colour_set, tmp_path / "two", 0, tmp_path / f"log{rank}", env)
        processes.append(ranks.server().Process(target=encode, args=told))
        processes[-1].start()
    for one in processes:
        one.join()
    assert [one.exitcode for one in processes] == [0, 0]
    said = [(tmp_path / f"log{rank}").read_text().splitlines() for rank in range(2)]
    assert said == [[str(rank)] * 12 + ["(24, 128)"] for rank in range(2)]
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
