"""From shards to batches: order, sameness of batches however they are made, bad samples."""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from train.captions import Captions
from train.config import DataConfig, TrainConfig
from train.data import Batch, Loader, crop
from train.dist import World
from train.order import epoch_order, permuted
from train.pairs import BadSamples, Pairs
from wit.errors import ConfigError, CorpusError, InputError, SampleError, TooManyBadSamples
from wit.tokenizer import Tokenizer

Make = Callable[..., TrainConfig]


def loader(config: TrainConfig, rank: int = 0, size: int = 1) -> tuple[Loader, list[SampleError]]:
    seen: list[SampleError] = []
    bad = BadSamples(config.data.max_bad, seen.append)
    pairs = Pairs(config.corpus, bad)
    captions = Captions(Tokenizer.train(pairs.texts(bad), 600), 16)
    world = World(rank, size, torch.device("cpu"))
    return Loader(pairs, captions, config, bad, world), seen


def batches(
    config: TrainConfig, start: int, stop: int, rank: int = 0, size: int = 1
) -> list[Batch]:
    return list(loader(config, rank, size)[0].batches(start, stop))


def texts(corpus: Path | str) -> list[str]:
    bad = BadSamples(0, print)
    return list(Pairs(corpus, bad).texts(bad))


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.img_bCSS, b.img_bCSS) and torch.equal(a.tokens_bL, b.tokens_bL)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 200))
def test_an_epoch_holds_each_sample_once(seed: int, epoch: int, samples: int) -> None:
    order = epoch_order(seed, epoch, (samples,))
    assert sorted(order.tolist()) == list(range(samples))


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = {tuple(epoch_order(seed, epoch, (50,))) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@given(st.integers(0, 9), st.integers(1, 700))
def test_a_computed_order_holds_each_sample_once(seed: int, samples: int) -> None:
    order = epoch_order(seed, 0, (samples,), drawn=0)
    every = order[np.arange(samples)]
    assert sorted(every.tolist()) == list(range(samples)) == list(range(len(order)))
    assert [int(order[i]) for i in range(0, samples, 50)] == every[::50].tolist()


def test_a_computed_order_is_well_mixed() -> None:
    """Neighbours in it lie as far apart as chance would have it, and epochs differ."""
    n = 100_000
    a, b = (epoch_order(3, epoch, (n,), drawn=0)[np.arange(n)] for epoch in (0, 1))
    assert np.abs(np.diff(a)).mean() == pytest.approx(n / 3, rel=0.02)
    assert abs(np.corrcoef(a, np.arange(n))[0, 1]) < 0.02
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.02


def test_the_order_of_hundreds_of_millions_takes_no_memory() -> None:
    order = epoch_order(0, 5, (400_000_000,))
    some = order[np.arange(399_990_000, 400_000_000)]
    assert len(set(some.tolist())) == 10_000
    assert some.min() >= 0
    assert some.max() < 400_000_000
    inverse_free = permuted(np.arange(10_000), 400_000_000, 7)
    assert len(set(inverse_free.tolist())) == 10_000


def test_batches_have_the_promised_form(make_config: Make) -> None:
    first = batches(make_config(), 0, 1)[0]
    assert first.img_bCSS.shape == (16, 3, 16, 16)
    assert first.img_bCSS.dtype == torch.uint8
    assert first.img_bCSS.is_contiguous(memory_format=torch.channels_last)
    assert first.tokens_bL.shape[0] == 16
    assert first.tokens_bL.shape[1] == int((first.tokens_bL != 0).sum(dim=1).max())


@pytest.mark.parametrize(
    "changes",
    [{"data__workers": 5}, {"data__prefetch": 1}, {"data__cache_mb": 0}],
)
def test_batches_do_not_depend_on_how_they_are_made(make_config: Make, changes) -> None:
    base = make_config().data.model_dump()
    config = make_config(data={**base, **{k.split("__")[1]: v for k, v in changes.items()}})
    expected, got = batches(make_config(), 0, 7), batches(config, 0, 7)
    assert len(got) == 7
    assert all(same(a, b) for a, b in zip(got, expected, strict=True))


def test_a_run_can_start_anywhere(make_config: Make) -> None:
    config = make_config()
    assert all(
        same(a, b) for a, b in zip(batches(config, 4, 8), batches(config, 0, 8)[4:], strict=True)
    )


def test_processes_share_the_batch_of_one(make_config: Make) -> None:
    whole = batches(make_config(), 0, 3)
    parts = [batches(make_config(), 0, 3, rank, 4) for rank in range(4)]
    for step, batch in enumerate(whole):
        joined = torch.cat([part[step].img_bCSS for part in parts])
        assert torch.equal(joined, batch.img_bCSS)


def test_pictures_and_captions_stay_together(make_config: Make) -> None:
    """The colour that a caption names is the colour of the square in its picture."""
    config = make_config(data={"crop_min": 1.0}, model={"image_size": 32, "stem": (), "patch": 8})
    tokenizer = Tokenizer.train(texts(config.corpus), 600)
    checked = 0
    for batch in batches(config, 0, 3):
        for img_CSS, ids_L in zip(batch.img_bCSS.int(), batch.tokens_bL.tolist(), strict=True):
            red, green, blue = img_CSS
            seen = {
                "red": (red - torch.maximum(green, blue) > 60).sum().item(),
                "green": (green - torch.maximum(red, blue) > 60).sum().item(),
                "blue": (blue - torch.maximum(red, green) > 60).sum().item(),
                "yellow": (torch.minimum(red, green) - blue > 80).sum().item(),
            }
            if max(seen.values()) > 10:  # the crop may have missed a small square
                checked += 1
                assert max(seen, key=lambda name: seen[name]) in tokenizer.decode(ids_L).split()
    assert checked > 30


@pytest.mark.parametrize("size", [(64, 64), (90, 40), (40, 90)])
def test_crops_are_squares_of_the_promised_area(size: tuple[int, int]) -> None:
    """On a picture whose pixels hold their own place, a crop says where it came from."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width), np.arange(height)[:, None]
    picture, config = Image.fromarray(pixels), DataConfig(crop_min=0.25, flip=False)
    rng = np.random.default_rng(0)
    for _ in range(50):
        draw = rng.random(4).tolist()
        out = np.asarray(crop(picture, 16, draw, config)).astype(float)
        side = min(size) * (0.25 + 0.75 * draw[0]) ** 0.5
        for channel, axis, length, at in ((0, 1, width, draw[1]), (1, 0, height, draw[2])):
            profile = out[..., channel].mean(axis=1 - axis)[4:12]
            assert np.diff(profile).mean() == pytest.approx(side / 16, abs=0.2)
            centre = (length - side) * at + side / 2 - 0.5
            assert profile.mean() == pytest.approx(centre, abs=0.7)


def test_flip_mirrors_half_of_the_pictures() -> None:
    picture = Image.fromarray(np.tile(np.arange(16, dtype=np.uint8)[:, None] * 16, (16, 1, 3)))
    plain = np.asarray(crop(picture, 16, [0, 0, 0, 0.4], DataConfig()))
    assert (
        np.asarray(crop(picture, 16, [0, 0, 0, 0.4], DataConfig(flip=True))) == plain[:, ::-1]
    ).all()
    assert (np.asarray(crop(picture, 16, [0, 0, 0, 0.6], DataConfig(flip=True))) == plain).all()
    assert (plain == np.asarray(picture)).all()


def test_captions_give_whole_texts_one_sentence_or_begin_anywhere() -> None:
    texts = ["One red square. Two blue ones! Is it? Yes", "no end", ""] * 3
    tokenizer = Tokenizer.train(texts, 600)
    captions = Captions(tokenizer, 40)
    parts = [captions.sentences(text) for text in texts]
    rng = np.random.default_rng(0)
    whole = captions.tokens(parts, rng.random((9, 2)), 0.0, rotate=False)
    assert (whole == tokenizer.encode(texts, whole.shape[1])).all()
    ones = {
        tokenizer.decode(row)
        for _ in range(30)
        for row in captions.tokens(parts[:3], rng.random((3, 2)), 1.0, rotate=True)
    }
    assert ones == {"one red square .", "two blue ones !", "is it ?", "yes", "no end", ""}
    turned = captions.tokens(parts[:1] * 99, rng.random((99, 2)), 0.0, rotate=True)
    assert {tokenizer.decode(row) for row in turned} == {
        "one red square . two blue ones ! is it ? yes",
        "two blue ones ! is it ? yes one red square .",
        "is it ? yes one red square . two blue ones !",
        "yes one red square . two blue ones ! is it ?",
    }
    short = Captions(tokenizer, 5).tokens(parts[:1], rng.random((1, 2)), 0.0, rotate=False)
    assert short.shape == (1, 5)
    assert short[0, -1] == tokenizer.eot


def damaged(make_corpus: Callable[..., Path], tmp_path: Path, keys: int) -> Path:
    """A corpus whose first pictures are overwritten with zeros inside the tar."""
    corpus = make_corpus(tmp_path / "damaged", shards=1, count=24)
    rows = pq.read_table(corpus / "shards" / "index.parquet").to_pylist()
    with (corpus / "shards" / "00000.tar").open("r+b") as file:
        for row in rows[:keys]:
            file.seek(row["offset"])
            file.write(bytes(row["size"]))
    return corpus


def test_bad_samples_are_replaced_logged_once_and_counted(make_config, make_corpus, tmp_path):
    config = make_config(corpus=damaged(make_corpus, tmp_path, 3), batch=8)
    data, seen = loader(config)
    got = list(data.batches(0, 12))
    assert [len(batch.img_bCSS) for batch in got] == [8] * 12
    assert sorted(error.key for error in seen) == ["000000000", "000000001", "000000002"]
    assert {str(error.reason) for error in seen} == {"not_an_image"}
    assert all(error.file.endswith("00000.tar") for error in seen)
    assert all(same(a, b) for a, b in zip(got[6:], batches(config, 6, 12), strict=True))


def test_too_many_bad_samples_stop_the_run(make_config, make_corpus, tmp_path) -> None:
    config = make_config(corpus=damaged(make_corpus, tmp_path, 3), batch=8, data={"max_bad": 2})
    with pytest.raises(TooManyBadSamples, match="more than data"):
        batches(config, 0, 12)


def test_a_corpus_of_bad_pictures_ends_with_a_message(make_config, make_corpus, tmp_path) -> None:
    config = make_config(corpus=damaged(make_corpus, tmp_path, 24), batch=8)
    with pytest.raises(TooManyBadSamples, match="no usable sample"):
        batches(config, 0, 1)


def foreign(folder: Path) -> Path:
    """Two tars as other tools write them: jpeg and json captions, one sample without picture."""
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"data-{shard}.tar", "w") as tar:
            for i in range(6):
                out = io.BytesIO()
                Image.new("RGB", (20, 30), (40 * i, 0, 0)).save(out, "JPEG")
                members = {"jpeg": out.getvalue(), "json": b'{"caption": "a red one"}'}
                if (shard, i) == (0, 2):
                    del members["jpeg"]
                if (shard, i) == (1, 3):
                    members["json"] = b'{"caption": 5}'
                for ext, data in members.items():
                    info = tarfile.TarInfo(f"x/{shard}{i}.{ext}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


def test_reads_a_foreign_webdataset_folder(make_config: Make, tmp_path: Path) -> None:
    data, seen = loader(make_config(corpus=foreign(tmp_path / "foreign"), batch=5))
    assert data.steps_per_epoch == 11 // 5
    assert [(error.key, error.reason) for error in seen] == [
        ("x/02", "no_image"),
        ("x/13", "bad_caption"),
    ]
    assert len(list(data.batches(0, 4))) == 4


def test_missing_shards_and_large_batches_are_named(make_config, make_corpus, tmp_path) -> None:
    with pytest.raises(InputError, match="48 samples are fewer than batch = 64"):
        loader(make_config(batch=64))
    corpus = make_corpus(tmp_path / "gone")
    data, _ = loader(make_config(corpus=corpus))
    (corpus / "shards" / "00001.tar").unlink()
    with pytest.raises(CorpusError, match=r"00001\.tar"):
        list(data.batches(0, 3))
    with pytest.raises(CorpusError, match=r"00001\.tar"):
        loader(make_config(corpus=corpus))


def test_memory_for_pictures_is_bounded(make_config: Make) -> None:
    data, _ = loader(make_config(data={"cache_mb": 0}))
    list(data.batches(0, 3))
    assert data._samples._kept == {}


def test_sentences_begin_after_their_share_of_the_run(make_config: Make) -> None:
    """Before it a batch holds whole captions; from it on, the drawn sentences."""
    base = make_config(steps=6).data.model_dump()

    def run(**changes: float) -> list[Batch]:
        return batches(make_config(steps=6, data={**base, **changes}), 0, 6)

    whole, drawn = run(sentences=0.0), run(sentences=1.0)
    late = run(sentences=1.0, sentences_after=0.5)
    assert not any(same(a, b) for a, b in zip(whole, drawn, strict=True))
    assert all(same(a, b) for a, b in zip(late[:3], whole[:3], strict=True))
    assert all(same(a, b) for a, b in zip(late[3:], drawn[3:], strict=True))


@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.05, 3)), min_size=1, max_size=3),
    st.integers(0, 3),
    st.booleans(),
    st.booleans(),
)
def test_weights_are_times_in_an_epoch(
    sources: list[tuple[int, float]], epoch: int, resample: bool, computed: bool
) -> None:
    counts, weights = zip(*sources, strict=True)
    whole = epoch_order(0, epoch, counts, weights, resample, 0 if computed else 1 << 24)
    order = np.asarray(whole[np.arange(len(whole))])
    first = 0
    for count, weight in sources:
        times = np.bincount(order[(order >= first) & (order < first + count)] - first)
        assert times.sum() == int(count * weight)
        if not resample:  # no sample twice more often than another
            assert times.max(initial=0) <= math.ceil(weight)
            assert len(times[times > 0]) == min(count, int(count * weight))
        first += count
    assert len(order) == sum(int(count * weight) for count, weight in sources)


def test_drawn_with_replacement() -> None:
    order = epoch_order(0, 0, (1000,), (), resample=True)
    assert len(order) == 1000
    assert 580 < len(set(order.tolist())) < 690  # 1 - 1/e of them


def test_several_corpora_are_one(make_config: Make, make_corpus, tmp_path: Path) -> None:
    a, b = make_corpus(tmp_path / "a", shards=1), make_corpus(tmp_path / "b", shards=2)
    config = make_config(corpus=f"{a}::{b}")
    both, alone = Pairs(config.corpus, BadSamples(0, print)), Pairs(b, BadSamples(0, print))
    assert both.counts == [24, 48]
    assert texts(config.corpus)[24:] == texts(b)
    assert both.file(24 + 30) == alone.file(30) == str(b / "shards" / "00001.tar")
    assert both.read(24 + 30) == alone.read(30)
    assert loader(config)[0].steps_per_epoch == 72 // 16
    weighted = config.model_copy(
        update={"data": config.data.model_copy(update={"weights": (2, 0.5)})}
    )
    assert loader(weighted)[0].steps_per_epoch == (48 + 24) // 16
    assert len(list(loader(weighted)[0].batches(0, 4))) == 4
    wrong = config.model_copy(update={"data": config.data.model_copy(update={"weights": (2,)})})
    with pytest.raises(ConfigError, match="1 values and corpus 2 sources"):
        loader(wrong)


def test_a_list_chooses_samples(corpus: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen.txt"
    chosen.write_text("uid\n1-3\n0-7\nabsent\n", "utf-8")
    pairs = Pairs(corpus, BadSamples(0, print), chosen)
    assert [pairs.key(i) for i in range(len(pairs))] == ["000000007", "000010003"]
    assert list(pairs.texts(BadSamples(0, print))) == [texts(corpus)[i] for i in (7, 27)]
    chosen.write_text("absent\n", "utf-8")
    with pytest.raises(InputError, match="holds no uid or key of"):
        Pairs(corpus, BadSamples(0, print), chosen)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "0.tar").write_bytes((corpus / "shards" / "00000.tar").read_bytes())
    chosen.write_text("000000007\n", "utf-8")  # without an index there are keys alone
    assert len(Pairs(foreign, BadSamples(0, print), chosen)) == 1
