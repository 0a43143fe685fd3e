"""Pictures or captions to features in files, part by part, so that a killed run goes on.

OUT/00000.parquet holds the keys and features of the first samples that could be used; with `npy`
the features lie in OUT/00000.npy, row by row. The Parquet file comes last and carries, in its
metadata, what it was made from and which samples were left out and why; it is there or it isn't.
OUT/_manifest.json is written at the end: samples = rows + samples by reason.

B samples of a batch, N rows of a part, E dimensions of the shared space, S side of a picture.
"""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from train.embed_sources import Item, What, digest
from train.loaded import LoadedModel
from wit.config import write_json
from wit.errors import CheckpointError, CorpusError, InputError
from wit.image import ImageError, decode
from wit.progress import Progress, duration

if TYPE_CHECKING:
    from train.embed_command import EmbedConfig

META = b"wit"
MANIFEST = "_manifest.json"  # readers of Parquet folders pass over an underscore


@dataclass(frozen=True)
class Bad:
    """A sample that was left out."""

    key: str
    file: str
    reason: str


def embed(model: LoadedModel, found: list[Item], what: What, config: EmbedConfig) -> dict[str, Any]:
    """Embed every sample that isn't yet; returns the manifest.

    Raises:
        InputError: `out` holds features of something else, or no sample could be used.
        CheckpointError: features are not finite.
    """
    options = config.model_dump(
        include={"part", "format", "normalize", "dtype", "precision", "max_pixels"}
    )
    about = {"model": model.fingerprint, "what": what, "samples": len(found)}
    about |= {"digest": digest(found), **options}
    config.out.mkdir(parents=True, exist_ok=True)
    parts = {
        config.out / f"{start // config.part:05d}.parquet": found[start : start + config.part]
        for start in range(0, len(found), config.part)
    }
    left_out = {path: _finished(path, about) for path in parts}
    todo = [path for path, bad in left_out.items() if bad is None]
    total, done, progress = sum(len(parts[path]) for path in todo), 0, Progress("embed")
    with ThreadPoolExecutor(config.threads) as pool:
        for path in todo:
            done_items: list[Item] = []
            bad: list[Bad] = []
            features: list[npt.NDArray[np.float32]] = []
            for batch, pixels_or_texts, lost in _batches(parts[path], what, model, config, pool):
                if pixels_or_texts:
                    features.append(_encode(model, pixels_or_texts, what, config))
                done_items += batch
                bad += lost
                done += len(batch) + len(lost)
                progress(done, total, what)
            _write(path, done_items, features, bad, about, model.embed_dim)
            left_out[path] = bad
    lost = [bad for part in left_out.values() for bad in part or ()]
    reasons = Counter(bad.reason for bad in lost)
    rows = sum(pq.read_metadata(path).num_rows for path in parts)
    assert len(found) == rows + sum(reasons.values())
    manifest = {**about, "rows": rows, "reasons": dict(reasons), "parts": len(parts)}
    write_json(manifest, config.out / MANIFEST)
    progress.finish(f"{rows:,} of {len(found):,} {what} in {duration(progress.seconds)}")
    if not rows:
        raise InputError(f"none of {len(found):,} {what} could be used: {dict(reasons)}")
    return manifest


def _batches(
    part: Sequence[Item], what: What, model: LoadedModel, config: EmbedConfig, pool: Executor
) -> Iterator[tuple[list[Item], list[Any], list[Bad]]]:
    """Samples that can be used with their pixels or texts, and those that can't; read ahead."""

    def prepare(item: Item) -> Tensor | str | Bad:
        if item.reason is not None:
            return Bad(item.key, str(item.file), item.reason)
        if what == "captions":
            return item.text or ""
        try:
            return model.preprocess(decode(item.read(), config.max_pixels))
        except ImageError as error:
            return Bad(item.key, str(item.file), str(error.reason))
        except (OSError, CorpusError):
            return Bad(item.key, str(item.file), "unreadable")

    waiting: deque[tuple[Sequence[Item], list[Future[Tensor | str | Bad]]]] = deque()
    starts = iter(range(0, len(part), config.batch_size))
    while True:
        while len(waiting) < 2 and (start := next(starts, None)) is not None:
            batch = part[start : start + config.batch_size]
            waiting.append((batch, [pool.submit(prepare, item) for item in batch]))
        if not waiting:
            return
        batch, futures = waiting.popleft()
        made = [future.result() for future in futures]
        good = [(i, m) for i, m in zip(batch, made, strict=True) if not isinstance(m, Bad)]
        bad = [m for m in made if isinstance(m, Bad)]
        yield [item for item, _ in good], [ready for _, ready in good], bad


def _encode(
    model: LoadedModel, ready: list[Any], what: What, config: EmbedConfig
) -> npt.NDArray[np.float32]:
    low = config.precision == "bf16"
    with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=low):
        if what == "images":
            features_BE = model.encode_image(torch.stack(ready), config.normalize)
        else:
            features_BE = model.encode_text(model.tokenize(ready), config.normalize)
    if not torch.isfinite(features_BE).all():
        raise CheckpointError(f"{config.model}: its features of {what} are not finite")
    plain: npt.NDArray[np.float32] = features_BE.float().cpu().numpy()
    return plain


def _finished(path: Path, about: dict[str, Any]) -> list[Bad] | None:
    """What a finished part left out; None if it is still to be made.

    Raises:
        InputError: the part was made of something else.
    """
    if not path.is_file():
        return None
    try:
        stored = json.loads(pq.read_schema(path).metadata[META])
        was, bad = stored["about"], [Bad(**entry) for entry in stored["bad"]]
    except (pa.ArrowInvalid, OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not of `wit embed`; choose another --out") from None
    for key, value in about.items():
        if was.get(key) != value:
            raise InputError(
                f"{path}: was made with {key} = {was.get(key)}, now it is {value}; choose another"
                " --out, or remove it"
            )
    return bad


def _write(
    path: Path,
    items: list[Item],
    features: list[npt.NDArray[np.float32]],
    bad: list[Bad],
    about: dict[str, Any],
    dim: int,
) -> None:
    """Write one part: features first where they are a file of their own, the Parquet file last."""
    dtype = np.dtype(about["dtype"])
    feature_NE = np.concatenate([np.empty((0, dim)), *features]).astype(dtype)
    columns: dict[str, Any] = {"key": pa.array([item.key for item in items], pa.string())}
    if any(item.uid for item in items):
        columns["uid"] = pa.array([item.uid for item in items], pa.string())
    if about["format"] == "npy":
        with _durable(path.with_suffix(".npy")) as file:
            np.save(file, feature_NE)
    else:
        flat = pa.array(feature_NE.reshape(-1))
        columns["feature"] = pa.FixedSizeListArray.from_arrays(flat, dim)
    meta = {"about": about, "bad": [asdict(entry) for entry in bad]}
    table = pa.table(columns).replace_schema_metadata({META: json.dumps(meta)})
    with _durable(path) as file:
        pq.write_table(table, file)


@contextmanager
def _durable(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when it is whole and on disk."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
