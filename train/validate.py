"""Evaluation while training, by all processes: loss and retrieval on pairs that are not trained on.

The loss is that of whole batches as in training, over the pairs of all processes, without crops
and dropout; retrieval is over all pairs. Evaluation sets are the affair of plug-ins (entry points
of the group `wit.evaluators`), of which `eval/` is one: training doesn't know it.

b rows of this process, N pairs of all, n of this one, E features, S side, L tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from train import low_bit
from train.captions import Captions
from train.config import TrainConfig
from train.dist import World
from train.interchange import Preprocess
from train.loaded import LoadedModel
from train.loss import contrastive_loss
from train.model import CLIP
from train.pairs import BadSamples, Pairs
from train.precision import Numbers
from wit import image, shard
from wit.errors import ConfigError, InputError, SampleError
from wit.tokenizer import Tokenizer

GROUP = "wit.evaluators"
RANKS = (1, 5, 10)
ROWS = 1024  # of the matrix of cosines held at once

# a model, sets, the processes, a folder for what may be thrown away: to numbers by name, in the
# main process; the others may return nothing
Evaluator = Callable[[LoadedModel, Sequence[Path], World, Path], Mapping[str, float]]


class Validation:
    """What `config.validation` asks for; called with a model by all processes together."""

    def __init__(
        self, config: TrainConfig, tokenizer: Tokenizer, bad: BadSamples, here: World
    ) -> None:
        """
        Raises:
            ConfigError: sets without a plug-in that evaluates them.
            InputError, CorpusError: see `Pairs`.
        """
        self._config, self._tokenizer, self._bad, self._world = config, tokenizer, bad, here
        asked, data = config.validation, config.data
        self._every, self._active = asked.every, bool(asked.corpus or asked.sets)
        self._pairs: Pairs | None = None
        if asked.corpus:
            room = int(data.shard_cache_gb * 1e9)
            self._pairs = Pairs(asked.corpus, bad, None, data.shard_cache, room)
        self._captions = Captions(tokenizer, config.model.context_length)
        for path in asked.sets:
            if not path.exists():
                raise InputError(f"validation.sets: {path}: no such set; check the path")
        self._evaluators: list[Evaluator] = []
        if asked.sets:
            self._evaluators = [point.load() for point in entry_points(group=GROUP)]
            if not self._evaluators:
                raise ConfigError(
                    f"validation.sets needs an evaluator (entry point {GROUP}): run `make setup`"
                )

    def due(self, step: int, steps: int) -> bool:
        """Whether an evaluation follows this step."""
        return self._active and (step % self._every == 0 or step == steps)

    def __call__(self, model: CLIP, trained: CLIP, step: int) -> dict[str, float]:
        """Numbers by name, the same in every process.

        Args:
            model: the one to evaluate: the running mean of the weights, where there is one.
            trained: the one that is trained, taken where the config says so.
        """
        chosen = low_bit.in_fp32(model if self._config.validation.ema else trained)
        was = chosen.training
        chosen.eval()
        self._world.share_buffers(chosen)  # each process has running statistics of its own share
        found: dict[str, float] = {}
        if self._pairs is not None:
            found |= self._on_pairs(chosen, self._pairs)
        for evaluate in self._evaluators:
            loaded = self._loaded(chosen, step)
            folder = self._config.run / "validation"
            found |= evaluate(loaded, self._config.validation.sets, self._world, folder)
        chosen.train(was)
        shared: dict[str, float] = self._world.gather_objects(found)[0]
        return shared

    @torch.no_grad()
    def _on_pairs(self, model: CLIP, pairs: Pairs) -> dict[str, float]:
        total = min(len(pairs), self._config.validation.pairs)
        batch = min(self._config.batch, total)
        losses: list[float] = []
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        with ThreadPoolExecutor(self._config.data.workers) as pool:
            for start in range(0, total, batch):
                stop = min(start + batch, total)
                rows = range(start + self._world.rank, stop, self._world.size)
                loss, features = self._batch(model, pairs, rows, pool)
                if stop - start == batch:  # a smaller one is an easier one
                    losses.append(loss)
                if features is not None:
                    kept.append(features)
        found = {"val/loss": float(np.mean(losses))}
        if kept:
            image_nE, text_nE, group_n2 = (torch.cat(parts) for parts in zip(*kept, strict=True))
            found |= recall(image_nE, text_nE, group_n2, self._world)
        return found

    def _batch(
        self, model: CLIP, pairs: Pairs, rows: range, pool: ThreadPoolExecutor
    ) -> tuple[float, tuple[Tensor, Tensor, Tensor] | None]:
        """The loss of one batch of all processes; features and groups of this one's rows."""
        read = [one for one in pool.map(lambda i: self._read(pairs, i), rows) if one is not None]
        size, device = self._config.model.image_size, self._world.device
        img_bSSC = (
            np.stack([one[0] for one in read]) if read else np.zeros((0, size, size, 3), np.uint8)
        )
        img_bCSS = torch.from_numpy(img_bSSC).permute(0, 3, 1, 2).to(device)
        draw_b2 = np.ones((len(read), 2)) * 0.5
        tokens_bL = torch.zeros((0, self._config.model.context_length), dtype=torch.long)
        if read:
            ids_bL = self._captions.tokens([one[1] for one in read], draw_b2, 0.0, rotate=False)
            tokens_bL = torch.from_numpy(ids_bL)
        tokens_bL = tokens_bL.to(device)
        with Numbers(self._config.precision, device).autocast:
            if self._config.model.objective in ("bag_of_words", "caption"):
                loss = self._predicted(model, img_bCSS, tokens_bL)
                return loss, None
            image_bE, text_bE = model.encode_image(img_bCSS), model.encode_text(tokens_bL)
        log_scale, bias = model.logit_scale, model.logit_bias
        part = contrastive_loss(image_bE, text_bE, log_scale, bias=bias, world=self._world)
        groups = torch.tensor([one[2] for one in read], dtype=torch.long).reshape(-1, 2)
        return self._world.mean(part), (unit(image_bE), unit(text_bE), groups.to(device))

    def _predicted(self, model: CLIP, img_bCSS: Tensor, tokens_bL: Tensor) -> float:
        """The mean loss of the pairs of all processes, where each has one of its own."""
        sums_2 = torch.zeros(2, device=img_bCSS.device)
        if len(img_bCSS):
            loss_b = model(img_bCSS, tokens_bL)[0]
            sums_2 = torch.stack([loss_b.sum(), torch.ones_like(loss_b).sum()]).float()
        total, count = self._world.sum(sums_2).tolist()
        return float(total / max(1.0, count))

    def _read(self, pairs: Pairs, i: int) -> tuple[np.ndarray, list[np.ndarray], list[int]] | None:
        """Pixels, ids of the caption, and what equal pictures and equal captions share."""
        raw, config = pairs.read(i), self._config
        try:
            caption = shard.read_caption(raw.text_ext, raw.text)
            picture = image.decode(raw.image, config.data.max_pixels)
        except (image.ImageError, ValueError) as error:
            reason = error.reason if isinstance(error, image.ImageError) else "bad_caption"
            self._bad.add(SampleError(pairs.key(i), pairs.file(i), reason))
            return None
        pixels = np.asarray(image.to_square(image.to_rgb(picture), config.model.image_size))
        groups = [_number(raw.image), _number(caption.encode())]
        return pixels, self._captions.sentences(caption), groups

    def _loaded(self, model: CLIP, step: int) -> LoadedModel:
        config = self._config.model
        return LoadedModel(
            clip=model,
            tokenizer=self._tokenizer,
            config=config,
            transform=Preprocess(config.image_size),
            step=step,
            source="in training",
            fingerprint=f"step {step}",
        )


def recall(image_nE: Tensor, text_nE: Tensor, group_n2: Tensor, world: World) -> dict[str, float]:
    """Share of pictures that find a caption of theirs among the first k of all, and the reverse.

    A row is right for another if their pictures or their captions are equal: of five captions of a
    photograph, each is right. Ties count against the model.

    Args:
        image_nE, text_nE: of unit length, in fp32.
        group_n2: equal numbers for equal pictures, and for equal captions.
    """
    counts = world.counts(len(image_nE), image_nE.device)
    group_N2 = world.gather_rows(group_n2, counts)
    found: dict[str, float] = {}
    for name, query_nE, target_nE in (
        ("image_to_text", image_nE, text_nE),
        ("text_to_image", text_nE, image_nE),
    ):
        target_NE = world.gather_rows(target_nE, counts)
        hits = torch.zeros(len(RANKS), dtype=torch.float64, device=image_nE.device)
        parts = zip(torch.split(query_nE, ROWS), torch.split(group_n2, ROWS), strict=True)
        for query_BE, group_B2 in parts:
            score_BN = query_BE @ target_NE.T
            own_BN = (group_B2[:, None] == group_N2).any(dim=2)
            best_B1 = score_BN.masked_fill(~own_BN, -torch.inf).amax(dim=1, keepdim=True)
            above_B = ((score_BN >= best_B1) & ~own_BN).sum(dim=1)
            hits += torch.stack([(above_B < k).sum() for k in RANKS])
        shares = world.sum(hits) / max(1, sum(counts))
        found |= {f"val/{name}@{k}": share for k, share in zip(RANKS, shares.tolist(), strict=True)}
    return found


def unit(features_bE: Tensor) -> Tensor:
    return F.normalize(features_bE.float(), dim=-1)


def _number(data: bytes) -> int:
    """63 bits that stand for some bytes."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()) >> 1
