"""`wit embed` over every kind of input, with bad samples, killed and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from train import checkpoint, load_model
from train.config import TrainConfig
from train.embed_command import main
from train.embed_sources import items
from train.model import CLIP
from wit.config import write_config
from wit.errors import ConfigError, InputError
from wit.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    tokenizer = Tokenizer.train(["a red cat", "a blue dog"] * 3, 560)
    tokenizer.save(folder / "tokenizer.json")
    model = {"image_size": 16, "stem": (), "patch": 8, "width": 16, "text_width": 16, "layers": 1}
    config = TrainConfig(run=folder, model=model | {"embed_dim": 8})
    torch.manual_seed(0)
    clip = CLIP(config.model, tokenizer.vocab_size)
    checkpoint.save(folder, 3, {"model": clip.state_dict(), "step": 3}, keep=1)
    write_config(config, folder / "config.json")
    return folder


def encoded(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def folder_of(path: Path, count: int) -> Path:
    """Pictures in sub-folders; the third is cut off, the fifth is text."""
    for i in range(count):
        file = path / f"{i % 2}" / f"{i:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        data = encoded(i)
        file.write_bytes(data[:300] if i == 2 else b"no picture" if i == 4 else data)
    (path / "notes.txt").write_text("not a picture")
    (path / ".hidden.png").write_bytes(b"")
    return path


def features(model, keys: list[str], path: Path) -> np.ndarray:
    pictures = [model.preprocess(Image.open(path / key)) for key in keys]
    return model.encode_image(torch.stack(pictures), normalize=True).numpy()


def test_a_folder_of_pictures(run: Path, tmp_path: Path, capsys) -> None:
    pictures, out = folder_of(tmp_path / "in", 11), tmp_path / "out"
    argv = [str(pictures), f"--model={run}", f"--out={out}", "--part=4", "--batch_size=3"]
    assert main(argv) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "left out: 1 not_an_image",
        "left out: 1 truncated_image",
        f"9 of 11 images: {out}",
    ]
    assert "embed          9 of 11 images in" in said.err
    table = pq.read_table(out)  # a folder of Parquet, as everyone reads it
    keys = table["key"].to_pylist()
    right = [f"{i % 2}/{i:03d}.png" for i in range(11)]
    assert keys == [key for key in sorted(right) if key not in ("0/002.png", "0/004.png")]
    found = np.array(table["feature"].to_pylist(), np.float32)
    np.testing.assert_allclose(found, features(load_model(run), keys, pictures), atol=1e-6)
    manifest = json.loads((out / "_manifest.json").read_text())
    assert manifest["samples"] == manifest["rows"] + sum(manifest["reasons"].values()) == 11
    meta = json.loads(pq.read_schema(out / "00000.parquet").metadata[b"wit"])
    assert [bad["reason"] for bad in meta["bad"]] == ["truncated_image", "not_an_image"]

    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert main(argv) == 0  # nothing is done again
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")} == stamps
    for change in (["--no-normalize"], ["--precision=bf16"]):
        with pytest.raises(InputError, match="choose another --out, or remove it"):
            main([*argv, *change])
    (pictures / "1" / "001.png").write_bytes(encoded(99))
    with pytest.raises(InputError, match="was made with digest"):
        main(argv)


def test_npy_and_half(run: Path, tmp_path: Path) -> None:
    pictures, out = folder_of(tmp_path / "in", 6), tmp_path / "out"
    argv = [str(pictures), f"--model={run}", f"--out={out}", "--format=npy", "--dtype=float16"]
    assert main(argv) == 0
    keys = pq.read_table(out / "00000.parquet")["key"].to_pylist()
    found = np.load(out / "00000.npy")
    assert (found.dtype, found.shape) == (np.float16, (4, 8))
    np.testing.assert_allclose(found, features(load_model(run), keys, pictures), atol=1e-3)


def test_shards(run: Path, corpus: Path, tmp_path: Path) -> None:
    """Pictures and captions of a corpus: the same order, the same keys."""
    for what in ("images", "captions"):
        out = tmp_path / what
        assert main([str(corpus), f"--model={run}", f"--out={out}", f"--what={what}"]) == 0
    images, captions = (pq.read_table(tmp_path / what) for what in ("images", "captions"))
    assert images["key"] == captions["key"]
    assert len(images) == 48
    model = load_model(run)
    first = model.tokenize(["A small red square. The ground is grey, picture 0."])
    right = model.encode_text(first, normalize=True)[0].tolist()
    assert captions["feature"][0].as_py() == pytest.approx(right, abs=1e-6)


def test_tars_of_anyone(tmp_path: Path) -> None:
    """Pictures need no captions, captions no pictures; what lacks its own is counted."""
    members = {"a.png": encoded(1), "b.txt": b"a cat", "c.png": encoded(2), "c.txt": b"\xff"}
    members |= {"d.json": b'{"caption": "a dog"}', "d.webp": b""}
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, BytesIO(data))
    found, _ = items(tmp_path / "some.tar", "images", None)
    assert [(i.key, i.reason) for i in found] == [
        *(("a", None), ("b", "no_image"), ("c", None), ("d", None)),
    ]
    assert found[0].read() == members["a.png"]
    found, _ = items(tmp_path, "captions", None)
    assert [(i.key, i.text, i.reason) for i in found] == [
        ("a", None, "no_caption"),
        ("b", "a cat", None),
        ("c", None, "bad_caption"),
        ("d", "a dog", None),
    ]


@pytest.mark.parametrize("kind", ["txt", "parquet", "csv", "tsv", "jsonl"])
def test_lists_of_captions(kind: str, run: Path, tmp_path: Path) -> None:
    texts = ["a red cat", "two, dogs", "émigré"]
    path, out = tmp_path / f"in.{kind}", tmp_path / "out"
    table = pa.table({"url": ["u"] * 3, "caption": texts})
    if kind == "txt":
        path.write_text("\n".join(texts) + "\n", "utf-8")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    elif kind == "parquet":
        pq.write_table(table, path)
    else:
        options = pa.csv.WriteOptions(delimiter="\t" if kind == "tsv" else ",")
        pa.csv.write_csv(table, path, options)
    assert main([str(path), f"--model={run}", f"--out={out}", "--batch_size=2"]) == 0
    found = pq.read_table(out)
    assert found["key"].to_pylist() == ["0", "1", "2"]
    model = load_model(run)
    right = model.encode_text(model.tokenize(texts), normalize=True).numpy()
    np.testing.assert_allclose(np.array(found["feature"].to_pylist()), right, atol=1e-6)


# Ends with kill -9 while the third part is written: its features are there, its keys are not.
KILLED = """
import os, signal, sys
calls = 0
def fsync(number, real=os.fsync):
    global calls
    calls += 1
    if calls == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    real(number)
os.fsync = fsync
from train.embed_command import main
main(sys.argv[1:])
"""


def test_killed_and_run_again(run: Path, tmp_path: Path) -> None:
    """The finished parts stand, and the result is that of one go."""
    pictures = folder_of(tmp_path / "in", 22)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    argv = [str(pictures), f"--model={run}", "--part=4", "--batch_size=3", "--format=npy"]
    script = [sys.executable, "-c", KILLED, *argv, f"--out={killed}"]
    done = subprocess.run(script, check=False, timeout=200)
    assert done.returncode == -signal.SIGKILL
    stand = {p.name: p.stat().st_mtime_ns for p in killed.glob("*.parquet")}
    assert sorted(stand) == ["00000.parquet", "00001.parquet"]
    assert (killed / "00002.npy").exists()
    for out in (killed, whole):
        assert main([*argv, f"--out={out}"]) == 0
    assert {name: (killed / name).stat().st_mtime_ns for name in stand} == stand
    files = sorted(path.name for path in whole.iterdir())
    assert sorted(path.name for path in killed.iterdir()) == files
    assert len(files) == 2 * 6 + 1
    for name in files:
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("none", [], InputError, "none: no such file or folder"),
        ("empty", [], InputError, "empty: holds no images"),
        ("bad.bin", [], InputError, "neither pictures nor captions"),
        ("bad.parquet", [], InputError, "bad.parquet: can't be read"),
        ("bad.csv", [], InputError, "no column caption or text or TEXT; it has x, y"),
        ("bad.csv", ["--column=z"], InputError, "no column z; it has x, y"),
        ("bad.csv", ["--what=images"], InputError, "holds captions, not images"),
        ("all_bad", [], InputError, "none of 1 images could be used"),
        ("bad.csv", ["--part=0"], ConfigError, "part = '0' is out of range"),
    ],
)
def test_mistakes(name: str, options, error, message: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "all_bad").mkdir()
    (tmp_path / "all_bad" / "a.png").write_bytes(b"no")
    (tmp_path / "bad.bin").write_bytes(b"x")
    (tmp_path / "bad.parquet").write_bytes(b"x")
    (tmp_path / "bad.csv").write_text("x,y\n1,2\n")
    argv = [str(tmp_path / name), f"--model={run}", f"--out={tmp_path / 'out'}", *options]
    with pytest.raises(error, match=message) as caught:
        main(argv)
    assert "\n" not in str(caught.value)
