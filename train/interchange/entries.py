"""Tensors that are described but not yet read, and the model that they fill.

Names, shapes and types are compared with what the config asks for before a byte of weights is
read or allocated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from train.config import MODELS, ModelConfig
from train.model.clip import CLIP
from train.model.predictive import new_model
from wit.config import explain
from wit.errors import CheckpointError

MOST_BLOCKS, LONGEST_SIDE = 1024, 1 << 20  # of a tower; of a tensor that a config may ask for
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: what it is, and how to read it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def T(self) -> Entry:
        """Of a matrix, the transposed one."""
        return Entry(self.shape[::-1], self.dtype, lambda: self.read().T)

    def view(self, *shape: int) -> Entry:
        """The same numbers in another shape of as many."""
        return Entry(shape, self.dtype, lambda: self.read().reshape(shape))


Entries = dict[str, Entry]


def stacked(parts: list[Entry]) -> Entry:
    """Tensors of one shape below one another along their first side."""
    first = parts[0]
    shape = (sum(part.shape[0] for part in parts), *first.shape[1:])
    return Entry(shape, first.dtype, lambda: torch.cat([part.read() for part in parts]))


def read_safetensors(path: Path) -> Entries:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: not such a file, cut off, or its header claims what isn't there.
    """
    found: Entries = {}
    try:
        file: Any = safe_open(path, "pt")
        for name in file.keys():  # noqa: SIM118
            part = file.get_slice(name)
            dtype = DTYPES.get(part.get_dtype())
            if dtype is None:
                raise CheckpointError(f"{path}: {name} is {part.get_dtype()}, which is not read")
            found[name] = Entry(tuple(part.get_shape()), dtype, _reader(file, name))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (SafetensorError, OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: not a whole safetensors file: {first}; fetch it again"
        ) from None
    return found


def _reader(file: Any, name: str) -> Callable[[], Tensor]:
    def read() -> Tensor:
        tensor: Tensor = file.get_tensor(name)
        return tensor

    return read


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: missing, or something else.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{path}: missing") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: damaged: not JSON; fetch it again") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: damaged: not a JSON object")
    return found


def model_config(values: dict[str, Any], path: Path) -> ModelConfig:
    """The config of plain towers, under the paper's name where it is one of the nine.

    Raises:
        CheckpointError: the values don't fit together.
    """
    base = "tiny-resnet" if values.get("tower") == "resnet" else "tiny"
    plain = {} if values.get("tower") == "resnet" else {"stem": (), "pool": "class"}
    try:
        config = ModelConfig.model_validate({"name": base, **plain, **values})
        for name in MODELS:
            same = ModelConfig.model_validate({"name": name, "activation": config.activation})
            if same.model_copy(update={"name": base}) == config:
                return same
    except ValidationError as error:
        raise CheckpointError(f"{path}: {explain(ModelConfig, error)}") from None
    return config


def fill(
    config: ModelConfig, vocab_size: int, entries: Entries, path: Path, device: torch.device | str
) -> CLIP:
    """The model of these tensors, in fp32, in evaluation mode, but for its pictures' mean and std.

    Raises:
        CheckpointError: a tensor is missing, is of another shape, or belongs to another model.
    """
    clip = skeleton(config, vocab_size, path)
    wanted = {name: tuple(tensor.shape) for name, tensor in clip.state_dict().items()}
    problem = _difference(wanted, entries)
    if problem:
        raise CheckpointError(f"{path}: {problem}")
    state: dict[str, Tensor] = {}
    for name, shape in wanted.items():
        if name not in entries:  # a count that evaluation never looks at
            state[name] = torch.zeros(shape, dtype=torch.long, device=device)
            continue
        tensor = entries[name].read()
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name} has values that are not finite")
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        state[name] = tensor.to(device, dtype, copy=True).contiguous()
    clip.load_state_dict(state, assign=True)
    return clip.eval()


def skeleton(config: ModelConfig, vocab_size: int, path: Path) -> CLIP:
    """The model without weights: names and shapes, nothing is allocated.

    Raises:
        CheckpointError: a config that claims a model beyond all measure.
    """
    for claimed in (config.layers, config.text_layers, *config.blocks):
        if claimed > MOST_BLOCKS:
            raise CheckpointError(f"{path}: claims {claimed:,} blocks; at most {MOST_BLOCKS}")
    grid = config.image_size // config.pixels_per_token
    widths = (config.width, config.text_width, config.embed_dim, config.context_length)
    if max(*widths, vocab_size, grid * grid) > LONGEST_SIDE or min(vocab_size, grid) < 1:
        raise CheckpointError(f"{path}: claims sizes that no model has")
    with torch.device("meta"):
        return new_model(config, vocab_size)


def _difference(wanted: dict[str, tuple[int, ...]], entries: Entries) -> str | None:
    missing = [n for n in wanted if n not in entries and not n.endswith("num_batches_tracked")]
    if missing:
        return f"{_some(missing)} missing"
    extra = [name for name in entries if name not in wanted]
    if extra:
        return f"{_some(extra)} of another kind of model; nothing here reads it"
    for name, entry in entries.items():
        if entry.shape != wanted[name]:
            return f"{name} has shape {entry.shape}, the config asks for {wanted[name]}"
        counts = name.endswith("num_batches_tracked")
        if entry.dtype.is_floating_point == counts:
            return f"{name} is {str(entry.dtype).removeprefix('torch.')}, not floating point"
    return None


def _some(names: Iterable[str]) -> str:
    first, *rest = names
    return f"{first} and {len(rest)} more are" if rest else f"{first} is"


def side(entry: Entry, what: str, path: Path) -> int:
    """The grid of a table of positions: n of n * n + 1 rows.

    Raises:
        CheckpointError: not one more than a square.
    """
    grid = math.isqrt(max(0, entry.shape[0] - 1))
    if len(entry.shape) != 2 or grid * grid + 1 != entry.shape[0]:
        raise CheckpointError(f"{path}: {what} of shape {entry.shape} is not of a square grid")
    return grid
