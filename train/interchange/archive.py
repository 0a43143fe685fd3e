"""What torch saved, read without running it: checkpoints of `torch.save` and TorchScript archives.

Both are zip files of a pickle, which holds structure, and of raw storages. Loading a TorchScript
archive with torch runs the code in it, and unpickling can call anything; here a pickle can only
make dicts, lists, numbers, strings, records of attributes, and descriptions of tensors. Whatever
else it asks for is an error that names it. The bytes of a tensor are read when it is wanted, after
its shape was found right.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from train.interchange.entries import Entries, Entry
from wit.errors import CheckpointError

LARGEST_PICKLE = 1 << 25  # bytes: of a training checkpoint with optimizer it is under a million
MOST_NODES, DEEPEST = 1 << 18, 64  # of the tree in it
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip member: signature, lengths of name and extra

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# What a damaged or hostile pickle makes the unpickler raise.
BROKEN = (
    *(pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError),
    *(OverflowError, RuntimeError, AssertionError, MemoryError, struct.error),
)


@dataclass(frozen=True)
class Archive:
    """The content of one file.

    Attributes:
        scripted: a TorchScript archive, not what `torch.save` wrote.
        content: dicts, lists and plain values, with an `Entry` for each tensor.
    """

    scripted: bool
    content: Any


class _Record(dict[str, Any]):
    """An object of a TorchScript archive: its attributes."""

    def __init__(self, *_: Any) -> None:
        super().__init__()


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    start: int  # in the file
    numel: int


def read_archive(path: Path) -> Archive:
    """The structure of a file, with its tensors described.

    Raises:
        CheckpointError: not a zip, cut off, compressed, or its pickle holds anything but data.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            name = next((name for name in members if name.endswith("/data.pkl")), None)
            if name is None:
                raise CheckpointError(f"{path}: a zip file, but without a data.pkl: not torch's")
            prefix = name.removesuffix("data.pkl")
            small = [name] + [order for order in members if order == f"{prefix}byteorder"]
            for member in small:
                if not _plain(members[member]):
                    raise CheckpointError(f"{path}: {member} is compressed, locked or too large")
            raw, *orders = map(archive.read, small)
            if orders not in ([], [b"little"]):
                raise CheckpointError(f"{path}: its numbers are not little-endian; save it anew")
            find = _finder(path, file, members, f"{prefix}data/")
            content = _Unpickler(io.BytesIO(raw), path, find).load()
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise CheckpointError(f"{path}: {_not_a_zip(path, error)}") from None
    except BROKEN as error:
        raise CheckpointError(f"{path}: its data.pkl is damaged: {_first(error)}") from None
    return Archive(any(key.startswith(f"{prefix}code/") for key in members), content)


def tensors(content: Any, path: Path) -> Entries:
    """Every tensor of nested dicts and records by its dotted name; other values are passed over.

    Raises:
        CheckpointError: the tree is too deep or too large to be a model.
    """
    found: Entries = {}
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    for _ in range(MOST_NODES):
        if not waiting:
            return found
        name, value, depth = waiting.pop()
        if isinstance(value, Entry):
            found[name] = value
        elif isinstance(value, dict) and depth < DEEPEST:
            parts = [(f"{name}.{key}" if name else str(key), value[key]) for key in value]
            waiting += [(key, part, depth + 1) for key, part in reversed(parts)]
    raise CheckpointError(f"{path}: more than {MOST_NODES:,} values: not a model")


def _plain(info: zipfile.ZipInfo) -> bool:
    """Whether a member is read into memory as it lies in the file, and is small."""
    locked = info.flag_bits & 1
    return (
        info.compress_type == zipfile.ZIP_STORED and not locked and info.file_size < LARGEST_PICKLE
    )


def _not_a_zip(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        return f"cut off or damaged ({_first(error)}); fetch it again"
    if start[:1] == b"\x80":
        return "a bare pickle, as torch saved before 1.6; save it anew with a newer torch"
    return "not a checkpoint: neither torch's zip file nor safetensors"


def _first(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _finder(
    path: Path, file: io.BufferedReader, members: dict[str, zipfile.ZipInfo], folder: str
) -> Callable[[str, torch.dtype, int], _Storage]:
    """Where a storage's bytes begin, after its length was compared with what is claimed."""
    size = path.stat().st_size

    def find(key: str, dtype: torch.dtype, numel: int) -> _Storage:
        info = members.get(folder + key)
        if info is None:
            raise CheckpointError(f"{path}: storage {key} is missing; fetch the file again")
        if info.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"{path}: {info.filename} is compressed; save it with torch.save")
        file.seek(info.header_offset)
        signature, name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        start = info.header_offset + LOCAL_HEADER.size + name + extra
        if signature != b"PK\3\4" or start + info.file_size > size:
            raise CheckpointError(f"{path}: {info.filename} is cut off; fetch the file again")
        if numel < 0 or numel * dtype.itemsize > info.file_size:
            raise CheckpointError(
                f"{path}: {info.filename} claims {numel:,} numbers of {dtype.itemsize} bytes and"
                f" has {info.file_size:,} bytes"
            )
        return _Storage(dtype, start, numel)

    return find


class _Unpickler(pickle._Unpickler):
    """The pure Python unpickler, for its memo is a dict and no opcode can make it allocate."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    del dispatch[pickle.BYTEARRAY8[0]]  # but this one, which no model needs

    def __init__(
        self,
        file: io.BytesIO,
        path: Path,
        find: Callable[[str, torch.dtype, int], _Storage],
    ) -> None:
        super().__init__(file)
        self._path, self._find = path, find

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if module.startswith("__torch__") or (module, name) == ("argparse", "Namespace"):
            return _Record
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            ("torch", "Size"): lambda *sizes: tuple(*sizes),
            ("torch.jit._pickle", "build_intlist"): list,
            ("torch.jit._pickle", "build_doublelist"): list,
            ("torch.jit._pickle", "build_boollist"): list,
            ("torch.jit._pickle", "build_tensorlist"): list,
            ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
        }
        if (module, name) not in known:
            raise CheckpointError(
                f"{self._path}: asks for {module}.{name}, which is not data; it was not run."
                " Take weights from who can be trusted, or as safetensors"
            )
        return known[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, numel = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(numel, int):
            raise ValueError("an unknown kind of storage")
        return self._find(str(key), dtype, numel)

    def load_build(self) -> None:
        """State for an object, without `__setstate__`; a state dict's metadata is passed over."""
        state = self.stack.pop()  # type: ignore[attr-defined]
        target = self.stack[-1]  # type: ignore[attr-defined]
        if isinstance(target, _Record) and isinstance(state, dict):
            target.update({str(key): value for key, value in state.items()})
        elif not isinstance(target, OrderedDict):
            raise ValueError(f"state for a {type(target).__name__}")

    dispatch[pickle.BUILD[0]] = load_build

    def _tensor(self, storage: _Storage, offset: int, shape: Any, stride: Any, *_: Any) -> Entry:
        shape, stride = tuple(map(int, shape)), tuple(map(int, stride))
        if len(shape) != len(stride) or min((*shape, *stride, offset), default=0) < 0:
            raise ValueError("a tensor of impossible shape")
        span = 0
        if 0 not in shape:
            span = 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if offset + span > storage.numel or math.prod(shape) > span:
            raise CheckpointError(
                f"{self._path}: a tensor of shape {shape} is larger than its {storage.numel:,}"
                " stored numbers"
            )
        path, dtype = self._path, storage.dtype
        start = storage.start + offset * dtype.itemsize

        def read() -> Tensor:
            raw = bytearray(span * dtype.itemsize)
            with path.open("rb") as file:
                file.seek(start)
                if file.readinto(raw) != len(raw):
                    raise CheckpointError(f"{path}: was cut off while it was read")
            if not raw:
                return torch.empty(shape, dtype=dtype)
            return torch.frombuffer(raw, dtype=dtype).as_strided(shape, stride)

        return Entry(shape, dtype, read)
