"""What a model adds: the nearest of texts, pictures and pairs, and labels for a picture."""

import base64
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest

from eval.browse import nearest, vectors
from eval.browse.nearest import Nearest
from eval.browse.postings import state_of
from pipeline import optout
from pipeline.removal import remove
from train import load_model
from wit.errors import InputError
from wit.image import decode


def clustered(n, width, seed=0):
    """Features of length 1 around a few centres, as those of pictures are."""
    rng = np.random.default_rng(seed)
    centre_CE = rng.normal(size=(40, width))
    found_NE = centre_CE[rng.integers(0, 40, n)] + 0.4 * rng.normal(size=(n, width))
    return (found_NE / np.linalg.norm(found_NE, axis=1, keepdims=True)).astype(np.float32)


def write_parts(folder, feature_NE, part=700):
    folder.mkdir()
    for number, start in enumerate(range(0, len(feature_NE), part)):
        piece = feature_NE[start : start + part]
        np.save(folder / f"{number:05d}.npy", piece.astype(np.float16))
        keys = [f"{i:09d}" for i in range(start, start + len(piece))]
        pq.write_table(vectors.pa.table({"key": keys}), folder / f"{number:05d}.parquet")


@pytest.mark.parametrize("exact", [10_000, 100])
def test_the_nearest_are_those_of_a_comparison_with_all(tmp_path, monkeypatch, exact):
    if exact == 100:
        pytest.importorskip("faiss", reason="needs the extra browse")
    monkeypatch.setattr(vectors, "EXACT", exact)
    monkeypatch.setattr(vectors, "PROBES", 16)
    feature_NE = clustered(3000, 16)
    write_parts(tmp_path / "images", feature_NE)
    stored_NE = feature_NE.astype(np.float16).astype(np.float32)
    found = vectors.Vectors(tmp_path / "images")
    assert found.key_N[2345] == "000002345"
    assert np.array_equal(found.take(np.array([2999, 0, 701])), stored_NE[[2999, 0, 701]])
    few_N, many_N = np.arange(3000) % 50 == 0, np.arange(3000) % 2 == 0
    hits = 0
    for query_E in clustered(20, 16, seed=1):
        for allowed_N in (None, few_N, many_N):
            masked_N = stored_NE @ query_E
            masked_N = masked_N if allowed_N is None else np.where(allowed_N, masked_N, -2)
            place_K, cosine_K = found.nearest(query_E, 10, allowed_N)
            assert list(cosine_K) == sorted(cosine_K, reverse=True)
            assert np.allclose(cosine_K, masked_N[place_K], atol=1e-5)  # no approximate cosine
            hits += len(set(place_K) & set(np.argsort(-masked_N)[:10]))
    assert hits >= (600 if exact == 10_000 else 570)
    files = {path.name for path in (tmp_path / "images").iterdir()}
    assert ("ivf.faiss" in files) == (exact == 100)
    assert not any(name.endswith(".tmp") for name in files)
    if exact == 100:
        made = (tmp_path / "images" / "ivf.faiss").stat().st_mtime_ns
        again = vectors.Vectors(tmp_path / "images").nearest(query_E, 10, None)
        assert np.array_equal(again[0], found.nearest(query_E, 10, None)[0])
        assert (tmp_path / "images" / "ivf.faiss").stat().st_mtime_ns == made


def nearest_of(page, checkpoint, state=None):
    model = load_model(checkpoint)
    options = {"model": checkpoint, "batch_size": 8, "threads": 1, "max_pixels": 10**6}
    parts = (page.corpus, state or state_of(page.corpus), page.reader, page.pictures)
    page.nearest = Nearest(model, "run", *parts, options, 10**6)
    return page.nearest


def encoded(data):
    return base64.b64encode(data).decode()


def test_search_by_text_picture_and_pair(page, checkpoint, png, capsys):
    stale = page.corpus / "browse" / "features-0123-4567"
    stale.mkdir()
    model = nearest_of(page, checkpoint).model
    assert not stale.exists()
    kept = [row for row in pq.read_table(page.corpus / "pairs").to_pylist() if row["key"]]
    pixels = [model.preprocess(decode(page.picture(row["key"]), 10**6))[None] for row in kept]
    image_NE = np.concatenate([model.encode_image(p, normalize=True).numpy() for p in pixels])
    captions = model.tokenize([row["text"] for row in kept])
    text_NE = model.encode_text(captions, normalize=True).numpy()

    def expect(asked, feature_NE, query_E, filters=()):
        found = page.search({**asked, "filters": list(filters)})["pairs"]
        scores = feature_NE @ query_E
        best = sorted(range(len(kept)), key=lambda i: -scores[i])
        if filters:
            best = [i for i in best if "umbrella" in kept[i]["text"]]
        shown = {row["row"]: scores[i] for i, row in enumerate(kept)}
        assert [card["cosine"] for card in found] == pytest.approx(
            [scores[i] for i in best], abs=2e-3
        )
        for card in found:
            assert card["cosine"] == pytest.approx(shown[card["row"]], abs=2e-3)

    query_E = model.encode_text(model.tokenize(["a boat"]), normalize=True).numpy()[0]
    expect({"mode": "text", "text": "a boat"}, image_NE, query_E)
    named = [{"column": "text", "op": "contains", "value": "umbrella"}]
    expect({"mode": "text", "text": "a boat"}, image_NE, query_E, named)
    expect({"mode": "like", "key": kept[3]["key"]}, image_NE, image_NE[3])
    expect({"mode": "like", "key": kept[3]["key"], "target": "captions"}, text_NE, image_NE[3])
    expect({"mode": "like", "key": kept[3]["key"], "by": "caption"}, image_NE, text_NE[3])
    drop = {"mode": "image", "picture": encoded(page.picture(kept[5]["key"]))}
    expect(drop, image_NE, image_NE[5])
    expect({**drop, "target": "captions"}, text_NE, image_NE[5])
    capsys.readouterr()
    nearest_of(page, checkpoint)  # features are there: nothing is embedded again
    assert "embed" not in capsys.readouterr().err


def test_a_removal_takes_the_features_along(page, checkpoint):
    nearest_of(page, checkpoint)
    uid = page.search({"text": "lighthouse"})["pairs"][0]["uid"]
    assert list((page.corpus / "browse").glob("features-*"))
    remove(page.corpus, optout.parse([uid], "test"))
    assert not (page.corpus / "browse").exists()


def bomb():
    """A PNG of a few bytes that declares 60,000 by 60,000 pixels."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def test_labels_for_a_picture(page, checkpoint, png):
    nearest_of(page, checkpoint)
    asked = {"picture": encoded(png((230, 20, 20))), "labels": ["red", " green", "red"]}
    answer = page.classify({**asked, "template": "a {c} picture"})
    assert {one["label"] for one in answer["labels"]} == {"red", "green"}
    assert sum(one["probability"] for one in answer["labels"]) == pytest.approx(1)
    assert answer["labels"][0]["probability"] >= answer["labels"][1]["probability"]
    good = {"template": "{c}", **asked}
    for change, said in (
        ({"picture": encoded(bomb())}, "more pixels than the cap"),
        ({"picture": encoded(b"<svg onload=alert(1)>")}, "can't decode|not an image"),
        ({"picture": encoded(png((1, 2, 3))[:60])}, "cut off or damaged"),
        ({"picture": encoded(b"\x89PNG" + bytes(1_000_001))}, "more than 1,000,000 bytes"),
        ({"picture": "%%%"}, "did not arrive whole"),
        ({"picture": ""}, "drop a picture"),
        ({"labels": ["one"]}, "2 to 100"),
        ({"labels": [f"{i}" for i in range(101)]}, "2 to 100"),
        ({"labels": "red"}, "a list"),
        ({"template": "no place"}, "write {c}"),
    ):
        with pytest.raises(InputError, match=said):
            page.classify({**good, **change})


def test_two_dropped_pictures_at_once(page, checkpoint, png, monkeypatch):
    found, inside, most = nearest_of(page, checkpoint), [], []

    def counted(data, max_pixels):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)  # as long as others would need to come in
        inside.pop()
        return decode(data, max_pixels)

    monkeypatch.setattr(nearest, "decode", counted)
    asked = {"picture": encoded(png((230, 20, 20)))}
    with ThreadPoolExecutor(8) as pool:
        features = list(pool.map(lambda _: found.query("image", asked, page.pictures), range(8)))
        named = list(pool.map(lambda _: found.classify(asked, ["a", "b"], "{c}"), range(8)))
    assert max(most) <= nearest.DECODED
    assert (len(features), len(named)) == (8, 8)
