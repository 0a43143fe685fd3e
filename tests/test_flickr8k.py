"""Part of runs/flickr8k.sh, on a folder of three photographs."""

import io
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eval.sets import open_set

ROOT = Path(__file__).parent.parent


def command(*arguments):
    return [sys.executable, str(ROOT / "runs" / "flickr8k.py"), *map(str, arguments)]


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    rows = []
    for i, split in enumerate(["train", "val", "train"]):
        Image.new("RGB", (40, 30), (80 * i, 0, 0)).save(folder / "images" / f"{i}.jpg")
        captions = [f"picture {i} of {n}" for n in range(5)]
        rows.append({"image": f"{i}.jpg", "captions": captions, "split": split})
    pq.write_table(pa.Table.from_pylist(rows), folder / "captions.parquet")
    return folder


def test_prepare(photos, tmp_path):
    subprocess.run(command("prepare", photos, tmp_path / "out"), env=environment(), check=True)
    rows = pq.read_table(tmp_path / "out" / "metadata.parquet").to_pylist()
    assert len(rows) == 10
    assert rows[5] == {"url": "http://photos.flickr8k.example/2.jpg", "text": "picture 2 of 0"}
    held_out = open_set(tmp_path / "out" / "retrieval")
    (sample,) = held_out.samples
    assert held_out.kind == "retrieval"
    assert sample.captions == tuple(f"picture 1 of {n}" for n in range(5))
    assert sample.read() == (photos / "images" / "1.jpg").read_bytes()


def test_split(photos, tmp_path):
    classes, file = tmp_path / "classes", tmp_path / "out" / "shades.csv"
    for name in ("dark", "light"):
        (classes / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (8, 8), (i, i, i)).save(classes / name / f"{i}.png")
    subprocess.run(command("split", classes, file), env=environment(), check=True)
    data = open_set(file, "test", ("train",))
    assert data.classes == ("dark", "light")
    assert (len(data.train.samples), len(data.samples)) == (12, 8)
    for part, each in ((data, 4), (data.train, 6)):
        assert [sample.label for sample in part.samples].count(0) == each
    assert not {s.key for s in data.samples} & {s.key for s in data.train.samples}


def test_serve(photos, tmp_path):
    port = tmp_path / "port"
    with subprocess.Popen(command("serve", photos, port), env=environment()) as server:
        try:
            deadline = time.monotonic() + 30
            while not port.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            host = f"http://127.0.0.1:{port.read_text()}"
            with urllib.request.urlopen(f"{host}/2.jpg", timeout=10) as answer:
                assert Image.open(io.BytesIO(answer.read())).size == (40, 30)
            with pytest.raises(urllib.error.HTTPError, match="404") as caught:
                urllib.request.urlopen(f"{host}/../captions.parquet", timeout=10)
            caught.value.close()
        finally:
            server.terminate()


@pytest.mark.parametrize("what", ["missing", "other columns"])
def test_captions_that_cannot_be_read(photos, tmp_path, what):
    path = photos / "captions.parquet"
    path.unlink()
    if what != "missing":
        pq.write_table(pa.table({"image": ["0.jpg"]}), path)
    done = subprocess.run(
        command("prepare", photos, tmp_path / "out"),
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert str(path) in done.stderr
    assert len(done.stderr.splitlines()) == 1
