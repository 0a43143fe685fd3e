"""From shards to batches: index -> bytes -> picture -> batch -> device. Nothing else in between.

Any step's batch is a pure function of the shards, the seed and the step, so a run can start
anywhere, with any number of threads or processes. Pictures travel as uint8, captions as ids.
Threads decode, because Pillow lets go of the interpreter lock; where shards lie behind a network,
others fetch ahead of them.

B batch of all processes, b batch of this one, S side, L longest caption of the batch, E samples
of an epoch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from train.captions import Captions, Sentences
from train.config import DataConfig, TrainConfig
from train.dist import World
from train.order import Order, epoch_order, epoch_samples
from train.pairs import BadSamples, Pairs, Raw
from wit import image, shard
from wit.errors import ConfigError, InputError, SampleError, TooManyBadSamples

ROWS_PER_TASK = 32


@dataclass(frozen=True)
class Batch:
    """This process's part of one step: uint8 (b, 3, S, S), channels last, and ids (b, L); the
    numbers of its samples, as `Pairs` counts them."""

    img_bCSS: Tensor
    tokens_bL: Tensor
    samples_b: tuple[int, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The same batch on the device; from pinned memory the copy doesn't wait."""
        return Batch(
            self.img_bCSS.to(device, non_blocking=True),
            self.tokens_bL.to(device, non_blocking=True),
            self.samples_b,
        )


class Sample(NamedTuple):
    """A decoded picture and the ids of its caption."""

    number: int
    picture: Image.Image
    caption: Sentences


class Samples:
    """Decoded samples by number, the first of them kept in memory up to a bound."""

    def __init__(self, pairs: Pairs, captions: Captions, config: DataConfig, size: int) -> None:
        self._pairs, self._captions, self._config = pairs, captions, config
        # what the smallest crop needs, so that large JPEGs may be decoded at a part of their size
        self._min_side = math.ceil(size / math.sqrt(config.crop_min))
        self._kept: dict[int, Sample] = {}
        self._room = config.cache_mb << 20
        self._ahead: dict[int, Future[Raw]] = {}
        self._lock = Lock()

    def fetch(self, numbers: Iterable[int], pool: ThreadPoolExecutor) -> None:
        """Begin to read samples that will be asked for."""
        for i in numbers:
            if i not in self._kept and i not in self._ahead:
                self._ahead[i] = pool.submit(self._pairs.read, i)

    def get(self, i: int) -> Sample:
        """Raises SampleError when the picture can't be decoded or the caption can't be read."""
        ahead = self._ahead.pop(i, None)
        if (kept := self._kept.get(i)) is not None:
            return kept
        raw = ahead.result() if ahead else self._pairs.read(i)
        try:
            picture = image.load(raw.image, self._config.max_pixels, self._min_side).image
            caption = self._captions.sentences(shard.read_caption(raw.text_ext, raw.text))
        except (image.ImageError, ValueError) as error:
            reason = error.reason if isinstance(error, image.ImageError) else "bad_caption"
            raise SampleError(self._pairs.key(i), self._pairs.file(i), reason) from None
        size = 4 * picture.width * picture.height  # Pillow keeps RGB in 4 bytes
        size += sum(ids.nbytes for ids in caption)
        sample = Sample(i, picture, caption)
        with self._lock:
            if size <= self._room and i not in self._kept:
                self._room -= size
                self._kept[i] = sample
        return sample


def crop(
    picture: Image.Image, size: int, draw_4: Sequence[float], config: DataConfig
) -> Image.Image:
    """A random square of the picture, resized: the paper's only augmentation (section 2.5).

    Args:
        picture: any size.
        size: side of the result.
        draw_4: uniform in [0, 1): area, left, top, flip.
        config: least area and flip.
    """
    area = config.crop_min + (1 - config.crop_min) * draw_4[0]
    side = min(picture.size) * math.sqrt(area)
    left, top = (picture.width - side) * draw_4[1], (picture.height - side) * draw_4[2]
    box = (left, top, left + side, top + side)
    square = picture.resize((size, size), Image.Resampling.BICUBIC, box)
    if config.flip and draw_4[3] < 0.5:
        square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return square


class Loader:
    """Batches of a run. Each epoch is a new order, cut into whole batches; the samples that are
    left over at its end sit out that epoch.

    Attributes:
        steps_per_epoch: whole batches of an epoch.
        steps: of the whole run.
    """

    def __init__(
        self,
        pairs: Pairs,
        captions: Captions,
        config: TrainConfig,
        bad: BadSamples,
        here: World,
    ) -> None:
        weights, counts = config.data.weights, tuple(pairs.counts)
        if weights and len(weights) != len(counts):
            raise ConfigError(
                f"data.weights has {len(weights)} values and corpus {len(counts)} sources;"
                " give one for each"
            )
        samples = sum(epoch_samples(counts, weights))
        if config.batch > samples:
            raise InputError(
                f"{pairs.path}: {samples} samples are fewer than batch ="
                f" {config.batch}; give --batch {samples} or less"
            )
        self._pairs, self._captions, self._bad = pairs, captions, bad
        self._config = config.data
        self._counts = counts
        self.steps_per_epoch = samples // config.batch
        self.steps = config.steps or max(1, round(config.epochs * self.steps_per_epoch))
        self._size, self._batch, self._seed = config.model.image_size, config.batch, config.seed
        share = config.batch // here.size
        self._rows = range(here.rank * share, (here.rank + 1) * share)
        self._pin = here.device.type == "cuda"
        self._samples = Samples(pairs, captions, config.data, self._size)

    def keys(self, numbers: Sequence[int]) -> list[str]:
        """Shard and key of samples, for people."""
        return [f"{self._pairs.file(i)}: {self._pairs.key(i)}" for i in numbers]

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """The batches of steps `start` to `stop` - 1, some of them prepared ahead."""
        pool = ThreadPoolExecutor(self._config.workers, "decode")
        fetchers = ThreadPoolExecutor(self._config.connections, "fetch")
        waiting: deque[_Pending] = deque()
        try:
            for step in range(start, stop):
                waiting.append(self._submit(pool, fetchers, step))
                if len(waiting) > self._config.prefetch:
                    yield self._finish(waiting.popleft())
            while waiting:
                yield self._finish(waiting.popleft())
        finally:
            fetchers.shutdown(wait=False, cancel_futures=True)
            pool.shutdown(cancel_futures=True)

    def _submit(
        self, pool: ThreadPoolExecutor, fetchers: ThreadPoolExecutor, step: int
    ) -> _Pending:
        epoch, at = divmod(step, self.steps_per_epoch)
        order_E = epoch_order(
            self._seed, epoch, self._counts, self._config.weights, self._config.resample
        )
        draw_B6 = np.random.default_rng([self._seed, step, 1]).random((self._batch, 6))
        shape = (len(self._rows), self._size, self._size, 3)
        img_bSSC = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pin)
        out = img_bSSC.numpy()
        if self._pairs.remote:
            first = at * self._batch
            rows = order_E[np.arange(first + self._rows.start, first + self._rows.stop)]
            self._samples.fetch(rows.tolist(), fetchers)
        tasks = [
            pool.submit(self._fill, out, rows, order_E, at * self._batch, draw_B6)
            for rows in (
                self._rows[i : i + ROWS_PER_TASK] for i in range(0, len(self._rows), ROWS_PER_TASK)
            )
        ]
        draw_b2 = draw_B6[self._rows.start : self._rows.stop, 4:]
        begun = step >= self._config.sentences_after * self.steps
        return _Pending(img_bSSC, draw_b2, self._config.sentences if begun else 0.0, tasks)

    def _fill(
        self,
        out_bSSC: npt.NDArray[np.uint8],
        rows: range,
        order_E: Order,
        first: int,
        draw_B6: npt.NDArray[np.float64],
    ) -> list[tuple[int, Sentences]]:
        """Decode and crop some rows of a batch; returns which samples they hold, and captions."""
        used = []
        for row in rows:
            sample = self._usable(order_E, first + row)
            square = crop(sample.picture, self._size, draw_B6[row, :4].tolist(), self._config)
            out_bSSC[row - self._rows.start] = np.asarray(square)
            used.append((sample.number, sample.caption))
        return used

    def _usable(self, order_E: Order, position: int) -> Sample:
        """The sample at a position; for a bad one, that of the same row some batches later."""
        for at in range(position, position + self._batch * len(order_E), self._batch):
            try:
                return self._samples.get(int(order_E[at % len(order_E)]))
            except SampleError as error:
                self._bad.add(error)
        raise TooManyBadSamples(f"{self._pairs.path}: no usable sample for a row of the batch")

    def _finish(self, pending: _Pending) -> Batch:
        used = [one for task in pending.tasks for one in task.result()]
        ids_bL = self._captions.tokens(
            [caption for _, caption in used],
            pending.draw_b2,
            pending.sentences,
            self._config.rotate_sentences,
        )
        tokens_bL = torch.from_numpy(ids_bL)
        if self._pin:
            tokens_bL = tokens_bL.pin_memory()
        numbers_b = tuple(number for number, _ in used)
        return Batch(pending.img_bSSC.permute(0, 3, 1, 2), tokens_bL, numbers_b)


@dataclass(frozen=True)
class _Pending:
    img_bSSC: Tensor
    draw_b2: npt.NDArray[np.float64]
    sentences: float
    tasks: list[Future[list[tuple[int, Sentences]]]]
