"""Models that predict captions, from `wit eval` to the class it finds."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from eval import likelihood
from eval.prompts import fill
from eval.run import main
from eval.sets import open_set
from train import checkpoint, load_model
from train.config import TrainConfig
from train.model.predictive import new_model
from wit.config import write_config
from wit.errors import CheckpointError
from wit.image import decode
from wit.tokenizer import Tokenizer


@pytest.fixture(params=["bag_of_words", "caption"])
def run(tmp_path, request):
    """A run directory with a model of random weights."""
    folder = tmp_path / "run"
    folder.mkdir()
    model = {"image_size": 32, "width": 16, "text_width": 16, "objective": request.param}
    config = TrainConfig(run=folder, model=model)
    tokenizer = Tokenizer.train(["a red picture", "all green", "so blue"] * 3, 560)
    tokenizer.save(folder / "tokenizer.json")
    torch.manual_seed(0)
    net = new_model(config.model, tokenizer.vocab_size)
    checkpoint.save(folder, 7, {"model": net.state_dict(), "step": 7}, keep=1)
    write_config(config, folder / "config.json")
    return folder


def test_classes_are_ranked_by_the_score_of_their_prompts(run, colour_set, monkeypatch, capsys):
    monkeypatch.setattr(likelihood, "PROMPTS", 2)
    assert main([f"--run={run}", f"--set={colour_set}", "--device=cpu", "--batch_size=4"]) == 0
    assert "mean per class" in capsys.readouterr().out
    rows = pq.read_table(run / "eval" / "colours-zeroshot.parquet").to_pylist()
    model, data = load_model(run), open_set(colour_set)
    prompts = [prompt for name in data.classes for prompt in fill(data.templates, name)]
    for row, sample in zip(rows, data.samples, strict=True):
        picture = model.preprocess(decode(sample.read(), 10**8))
        score_1M = model.score(picture[None], model.tokenize(prompts))
        score_C = score_1M.view(len(data.classes), -1).mean(dim=1)
        np.testing.assert_allclose(row["score"], score_C[sample.label], rtol=1e-4)
        assert row["rank"] == int((score_C >= score_C[sample.label]).sum()) - 1
    kept = json.loads((run / "eval" / "colours-zeroshot.json").read_text())
    assert main([f"--run={run}", f"--set={colour_set}", "--device=cpu"]) == 0  # from the cache
    assert json.loads((run / "eval" / "colours-zeroshot.json").read_text()) == kept


def test_retrieval_is_refused_in_one_line(run, caption_set):
    with pytest.raises(CheckpointError, match="has no text features, only scores of pairs"):
        main([f"--run={run}", f"--set={caption_set}", "--device=cpu"])
