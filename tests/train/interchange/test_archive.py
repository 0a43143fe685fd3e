"""Files from strangers: nothing in them runs, nothing is believed before it was compared."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from train import load_model
from train.interchange.archive import read_archive, tensors
from train.interchange.entries import read_safetensors
from wit.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


def one_line(path: Path, message: str, **options: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(path, **options)
    assert "\n" not in str(caught.value)
    assert str(path.name) in str(caught.value)


def rewritten(path: Path, change) -> Path:
    """The zip again, with `change(name, bytes)` for each member."""
    with zipfile.ZipFile(path) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for name, data in members.items():
            new.writestr(name, change(name, data))
    return path


def test_tensors_as_torch_reads_them(tmp_path: Path) -> None:
    base = torch.arange(60.0).reshape(3, 4, 5)
    content = OrderedDict(
        whole=base,
        part=base[1:, :, 2],
        turned=base.permute(2, 0, 1),
        scalar=torch.tensor(2.5, dtype=torch.float64),
        half=torch.randn(3).half(),
        brain=torch.randn(2, 2).bfloat16(),
        ids=torch.tensor([1, 2, 3]),
        none=torch.empty(0, 3),
        parameter=torch.nn.Parameter(torch.ones(2)),
        nested={"a": [1, "two"], "b": torch.ones(1)},
    )
    path = tmp_path / "some.pt"
    torch.save(content, path)
    archive = read_archive(path)
    assert not archive.scripted
    found = tensors(archive.content, path)
    right = torch.load(path, weights_only=True)
    right["nested.b"] = right.pop("nested")["b"]
    assert found.keys() == right.keys()
    for name, tensor in right.items():
        read = found[name].read()
        assert (found[name].shape, found[name].dtype) == (tuple(tensor.shape), tensor.dtype)
        assert torch.equal(read, tensor)


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, (f"touch {self.mark}",))


def test_code_in_a_pickle_does_not_run(vit, tmp_path: Path) -> None:
    path, mark = tmp_path / "bomb.pt", tmp_path / "ran"
    torch.save(vit.state | {"x": Bomb(mark)}, path)
    one_line(path, "asks for (posix|nt|os).system, which is not data; it was not run")
    assert not mark.exists()
    path.write_bytes(pickle.dumps(Bomb(mark)))
    one_line(path, "a bare pickle")
    assert not mark.exists()


def test_code_in_a_torchscript_archive_does_not_run(vit, scripted, tmp_path: Path) -> None:
    """Its functions are never compiled: damaged ones don't matter."""
    path = scripted({**vit.state, "vocab_size": torch.tensor(1)}, tmp_path / "model.pt")
    words = tmp_path / "words.json"
    vit.tokenizer.save(words)
    rewritten(path, lambda name, data: b"def" if "/code/" in name else data)
    with pytest.raises(RuntimeError):
        torch.jit.load(path)
    assert load_model(path, vocab=str(words)).config.width == 128


@pytest.mark.parametrize(
    "attack",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.",  # attributes for ours
        b"ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb.",
        b"c__torch__.x\nY\n)R}X\x06\x00\x00\x00updateK\x01sb.",
        b"(K\x01K\x02K\x03tQ.",  # a persistent id of three numbers
        b"\x80\x02" + b"(" * 5000,
        b"\x80\x05\x96" + (1 << 50).to_bytes(8, "little") + b".",  # a petabyte of bytearray
        b"",
    ],
)
def test_pickles_that_no_one_wrote(attack: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.pt"
    with zipfile.ZipFile(path, "w") as new:
        new.writestr("odd/data.pkl", attack)
    one_line(path, "damaged|holds no tensors|state for")


def claiming(shape: tuple[int, ...], stride: tuple[int, ...], numel: int, path: Path) -> Path:
    """A file of four numbers whose pickle says otherwise."""

    class Pickler(pickle._Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, "0", "cpu", numel) if obj == "data" else None

    class Tensor:
        def __reduce__(self):
            rebuild = torch._utils._rebuild_tensor_v2
            return rebuild, ("data", 0, shape, stride, False, OrderedDict())

    with zipfile.ZipFile(path, "w") as new:
        with new.open("x/data.pkl", "w") as file:
            Pickler(file, 2).dump({"text_projection": Tensor()})
        new.writestr("x/data/0", bytes(16))
    return path


@pytest.mark.parametrize(
    ("shape", "stride", "numel", "message"),
    [
        ((2**40,), (1,), 2**40, "claims 1,099,511,627,776 numbers .* has 16 bytes"),
        ((2**40,), (1,), 4, "larger than its 4 stored numbers"),
        ((2**40,), (0,), 4, "larger than its 4 stored numbers"),
        ((4,), (-1,), 4, "impossible shape"),
        ((4,), (1, 1), 4, "impossible shape"),
    ],
)
def test_claims_beyond_the_file(shape, stride, numel, message: str, tmp_path: Path) -> None:
    one_line(claiming(shape, stride, numel, tmp_path / "big.pt"), message)


def test_a_compressed_member_is_refused(vit, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(vit.state, path)
    with zipfile.ZipFile(path) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in members.items():
            new.writestr(name, data)
    one_line(path, "is compressed")


def test_too_many_values(tmp_path: Path) -> None:
    """Two references to the same, thirty times over, are a billion names."""
    value: dict[str, object] = {}
    for _ in range(30):
        value = {"a": value, "b": value}
    path = tmp_path / "laughs.pt"
    torch.save(value, path)
    one_line(path, "not a model")


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 100, -50])
def test_cut_off(vit, ending: str, kept: int, tmp_path: Path) -> None:
    path = tmp_path / f"model{ending}"
    save = safetensors.torch.save_file if ending == ".safetensors" else torch.save
    save(vit.state, path)
    path.write_bytes(path.read_bytes()[:kept])
    one_line(path, "fetch it again|not a checkpoint")


def test_a_safetensors_header_that_claims_terabytes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    size = 4 * 2**40
    header = {"text_projection": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, size]}}
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(16))
    one_line(path, "not a whole safetensors file")
    path.write_bytes(struct.pack("<Q", 2**60) + raw)
    one_line(path, "not a whole safetensors file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("visual.proj"), "visual.proj is missing"),
        (lambda s: s.pop("text_projection"), "text_projection is missing"),
        (
            lambda s: s.update({"visual.head.weight": torch.ones(2)}),
            "visual.head.weight is of anot",
        ),
        (lambda s: s.update({"visual.proj": torch.ones(3, 2)}), r"shape \(3, 2\), the config asks"),
        (
            lambda s: s.update({"ln_final.bias": torch.ones(64, dtype=torch.int8)}),
            "is int8, not fl",
        ),
        (lambda s: s.update({"ln_final.bias": torch.full((64,), torch.inf)}), "are not finite"),
        (lambda s: s.update({"positional_embedding": torch.ones(3)}), r"has shape \(3,\)"),
        (lambda s: s.update({"visual.positional_embedding": torch.ones(7, 128)}), "square grid"),
        (lambda s: s.update({"visual.conv1.weight": torch.ones(100, 3, 8, 8)}), "shape|divided"),
    ],
)
def test_tensors_that_do_not_fit(vit, change, message: str, tmp_path: Path) -> None:
    state = dict(vit.state)
    change(state)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, path)
    words = tmp_path / "words.json"
    vit.tokenizer.save(words)
    one_line(path, message, activation="gelu", vocab=str(words))


def test_the_command_says_so_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    torch.save({"x": Bomb(tmp_path / "ran")}, path)
    command = [sys.executable, "-m", "wit.cli", "export", str(path), f"--out={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"wit: {path}: asks for posix.system")
    assert done.stderr.count("\n") == 1
    assert {child.name for child in tmp_path.iterdir()} == {"bomb.pt"}


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_a_checkpoint_error(data: st.DataObject, tmp_path: Path) -> None:
    """Bytes of a file changed at random: it is read, or refused."""
    path = tmp_path / "small.pt"
    if not path.exists():
        torch.save({"a": torch.ones(3), "b": {"c": torch.zeros(2, 2).half()}}, path)
        safetensors.torch.save_file({"a": torch.ones(3)}, tmp_path / "small.safetensors")
    for name, read in (("small.pt", read_archive), ("small.safetensors", read_safetensors)):
        raw = bytearray((tmp_path / name).read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            raw[data.draw(st.integers(0, min(len(raw), 600) - 1))] = data.draw(st.integers(0, 255))
        damaged = tmp_path / f"damaged-{name}"
        damaged.write_bytes(raw)
        with contextlib.suppress(CheckpointError):
            found = read(damaged)
            if name == "small.pt":
                found = tensors(found.content, damaged)
            for entry in found.values():
                entry.read()
