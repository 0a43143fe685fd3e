"""Evaluation sets written to temporary folders."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from eval import task
from eval.config import EvalConfig
from eval.features import Encoder
from eval.sets import open_set
from train import checkpoint
from train.config import TrainConfig
from train.model import CLIP
from wit.config import write_config
from wit.image import to_square
from wit.tokenizer import Tokenizer

WORDS = ["a red picture", "all green", "so blue", "a photo of the blue wall"]


@pytest.fixture(scope="session")
def make_run():
    """Write a run directory as `wit train` leaves it, but with the weights of the first step."""

    def make(folder, seed=0):
        folder.mkdir(parents=True)
        config = TrainConfig(run=folder, model={"image_size": 32, "width": 16, "text_width": 16})
        tokenizer = Tokenizer.train(WORDS * 3, 560)
        tokenizer.save(folder / "tokenizer.json")
        torch.manual_seed(seed)
        model = CLIP(config.model, tokenizer.vocab_size)
        checkpoint.save(folder, 7, {"model": model.state_dict(), "step": 7}, keep=1)
        write_config(config, folder / "config.json")
        return folder

    return make


@pytest.fixture
def run(tmp_path, make_run):
    return make_run(tmp_path / "run")


def picture(colour, size=(40, 30), form="PNG", **options):
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, form, **options)
    return out.getvalue()


def write_tar(path, members):
    """A plain webdataset tar of (name, bytes) members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


COLOURS = {"red": (230, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 230)}
FORMS = {"webp": "WEBP", "png": "PNG", "jpg": "JPEG", "jpeg": "JPEG"}


@pytest.fixture
def colour_set(tmp_path):
    """A classification set: 24 plain pictures of three colours in two shards, four formats."""
    root = tmp_path / "colours"
    for shard in range(2):
        members = []
        for i in range(12):
            number = shard * 12 + i
            ext = list(FORMS)[i % 4]
            colour = list(COLOURS.values())[number % 3]
            members.append((f"s{number:07d}.{ext}", picture(colour, form=FORMS[ext])))
            members.append((f"s{number:07d}.cls", str(number % 3).encode()))
        write_tar(root / "test" / f"{shard}.tar", members)
    (root / "test" / "nshards.txt").write_text("2")
    (root / "classnames.txt").write_text("\n".join(COLOURS))
    (root / "zeroshot_classification_templates.txt").write_text("a {c} picture\nall {c}\n")
    return root


@pytest.fixture
def caption_set(tmp_path):
    """A retrieval set: three plain pictures with one, two and three captions."""
    root = tmp_path / "captions"
    captions = {
        "red": ["red"],
        "green": ["green", "all green"],
        "blue": ["blue", "so blue", "a blue"],
    }
    members = []
    for i, (name, lines) in enumerate(captions.items()):
        members.append((f"s{i:07d}.png", picture(COLOURS[name])))
        members.append((f"s{i:07d}.txt", "\n".join(lines).encode()))
    write_tar(root / "test" / "0.tar", members)
    (root / "test" / "nshards.txt").write_text("1\n")
    (root / "dataset_type.txt").write_text("retrieval")
    return root


@pytest.fixture
def multilabel_set(tmp_path):
    """Six pictures, one or two colours in each; the last one's green is not judged."""
    root = tmp_path / "several"
    truths = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, -1, 0)]
    members = []
    for i, truth in enumerate(truths):
        colours = [c for c, shown in zip(COLOURS.values(), truth, strict=True) if shown == 1]
        colour = tuple(np.mean(colours, axis=0).astype(int).tolist())
        out = io.BytesIO()
        np.save(out, np.array(truth))
        members += [(f"s{i:07d}.png", picture(colour)), (f"s{i:07d}.npy", out.getvalue())]
    write_tar(root / "test" / "0.tar", members)
    (root / "test" / "nshards.txt").write_text("1")
    (root / "classnames.txt").write_text("\n".join(COLOURS))
    (root / "zeroshot_classification_templates.txt").write_text("{c}\n")
    (root / "dataset_type.txt").write_text("multilabel")
    return root


@pytest.fixture
def class_folder(tmp_path):
    """One sub-folder for each class, as people keep their pictures."""
    root = tmp_path / "photos"
    for name, colour in COLOURS.items():
        folder = root / f"{name}_wall"
        folder.mkdir(parents=True)
        for i in range(3):
            (folder / f"{i}.JPG").write_bytes(picture(colour, form="JPEG"))
        (folder / ".DS_Store").write_text("not a picture")
    (root / ".hidden").mkdir()
    return root


@pytest.fixture(scope="session")
def tar():
    return write_tar


@pytest.fixture(scope="session")
def png():
    return picture


@pytest.fixture
def split_set(tmp_path, png):
    """Class folders of two splits: noisy pictures of three colours."""
    rng = np.random.default_rng(0)
    root = tmp_path / "walls"
    for split, count in (("train", 10), ("test", 6)):
        for label, name in enumerate(("red", "green", "blue")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                colour = rng.integers(0, 120, 3)
                colour[label] = rng.integers(150, 255)
                (folder / f"{i}.png").write_bytes(png(tuple(int(c) for c in colour)))
    return root


class ColourModel:
    """Sees a picture's mean colour and, in a text, the words red, green and blue."""

    image_size, step, fingerprint, logit_scale = 8, 0, "colours", 10.0
    device = torch.device("cpu")

    def __init__(self):
        self.tokenizer = Tokenizer.train([" ".join(COLOURS)] * 9, 600)
        self.meaning_V3 = torch.zeros(self.tokenizer.vocab_size, 3)
        for i, word in enumerate(COLOURS):
            (token,) = self.tokenizer.ids([word])[0]
            self.meaning_V3[token, i] = 2.0

    def preprocess(self, image):
        return to_square(image, self.image_size).transpose(2, 0, 1)

    def tokenize(self, texts):
        return torch.from_numpy(self.tokenizer.encode(texts, 24))

    def image_features(self, img_BCHW):
        pre_BD = img_BCHW.float().mean(dim=(2, 3))
        return pre_BD, pre_BD / 50

    def encode_text(self, tokens_BL):
        return self.meaning_V3[tokens_BL].sum(dim=1) + 0.01


@pytest.fixture
def table(tmp_path, png):
    """Writes a CSV set: rows of a colour and columns; returns its path."""

    def write(rows, name="people"):
        columns = list(rows[0][1])
        lines = [",".join(["image", *columns])]
        for i, (colour, values) in enumerate(rows):
            (tmp_path / f"{name}{i}.png").write_bytes(png(colour))
            lines.append(",".join([f"{name}{i}.png", *(values[c] for c in columns)]))
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.fixture
def evaluate(tmp_path):
    encoder = Encoder(ColourModel(), tmp_path / "cache", 16, max_pixels=10**6, max_bad=0)

    def run(name, path, **settings):
        config = EvalConfig(set=[path], **settings)
        data = open_set(path, "test", task.TASKS[name].splits)
        return task.evaluate(name, data, encoder, config, {})

    return run


HOSTILE = {
    "script": "<script>window.hacked = 1</script> <img src=x onerror='window.hacked = 1'> picture",
    "turned": "a picture \u202egnp.exe\u202c of \u0635\u0648\u0631\u0629 and a \u05d1\u05d9\u05ea",
    "long": "picture " + "m" * 5000,
    "unbroken": "'\"><svg onload=alert(1)> picture {{7*7}} ${7*7} javascript:alert(1)",
}


@pytest.fixture(scope="session")
def gallery(tmp_path_factory):
    """A corpus of a local folder: fourteen pictures, some with captions that mean harm.

    One picture stands twice, one is too small, one caption is a file name, and no query is in one.
    """
    from pipeline.build import build
    from pipeline.config import ShardsConfig

    folder = tmp_path_factory.mktemp("gallery")
    rng = np.random.default_rng(0)
    captions = [f"a picture of {what}" for what in ("a lighthouse", "two dogs", "a red boat")]
    captions += ["a planted umbrella in a picture by the sea, a picture", *HOSTILE.values()]
    captions += ["the same boat again, a picture", "IMG_2034.JPG", "too small a picture"]
    captions += [
        "nothing is asked for here",
        "picture \u96e8\u4f1e umbrella",
        "a picture of umbrellas",
    ]
    rows = []
    for i, caption in enumerate(captions):
        noise = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
        side = 20 if "small" in caption else 120
        if "again" not in caption:  # the boat's bytes
            noise.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"p{i}.png")
        name = "p2.png" if "again" in caption else f"p{i}.png"
        (folder / f"q{i}.png").write_bytes((folder / name).read_bytes())
        rows.append({"image": f"q{i}.png", "text": caption, "license": "CC0"})
    rows.append({"image": "javascript:alert(1)//q.png", "text": "a picture that is not there"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "queries.txt").write_text("picture\numbrella\nlighthouse\nthe\n")
    text = {"languages": [], "max_chars": 6000, "min_alnum": 0.3}
    build(
        ShardsConfig(
            input=[str(folder / "rows.jsonl")],
            corpus=folder / "corpus",
            queries=folder / "queries.txt",
            text=text,
            pack={"shard_size": 5},
            engine={"threads": 1},
        )
    )
    return folder / "corpus"
