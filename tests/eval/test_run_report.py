"""`wit report RUN ...`: curves, evaluations, differences and failures of training runs."""

import json
import shutil

import numpy as np
import pytest

from eval.runs import failures
from eval.runs.history import read
from wit.errors import InputError
from wit.progress import Progress
from wit.report_command import main
from wit.shard import Sample, write_shard

CAPTIONS = ["a red picture", "all green", "so blue", "<script>alert(1)</script> the blue wall"]


def train_for(run, steps, **extra):
    """metrics.jsonl as training writes it, cut off in the middle of a line."""
    rows = [{"step": s, "epoch": s / 10, "loss": 4 / s, "accuracy": s / 100, "lr": 1e-3,
             "samples_per_second": 500.0 + s, "seconds_per_step": 0.1, "data_wait": 0.02,
             "seconds": s / 10, "scale": 14.0 + s, **extra}
            for s in range(1, steps + 1)]  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (run / "metrics.jsonl").write_text(text + '{"step": 9, "lo')


def evaluated(run, folder, step, value):
    """A result of `wit eval`, as far as the page reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    metric = {"value": value, "interval_95": [value - 0.1, value + 0.1], "n": 50, "chance": 0.25,
              "interval_method": "wilson"}  # fmt: skip
    result = {"set": "colours", "entry": "", "group": "", "split": "test", "task": "zeroshot",
              "main": "top-1", "metrics": {"top-1": metric}, "protocol": {}, "protocol_hash": "0",
              "model": {"run": str(run), "step": step},
              "bad_samples": [], "notes": [], "tables": []}  # fmt: skip
    (folder / "colours-zeroshot.json").write_text(json.dumps(result))


@pytest.fixture
def shards(tmp_path, png):
    """A folder with one plain tar of sixteen pictures of few captions, and one that is broken."""
    folder = tmp_path / "shards"
    folder.mkdir()
    colours = [(200, 20, 20), (20, 200, 20), (20, 20, 200), (90, 90, 200)]
    samples = [Sample(f"s{i:03d}", png(colours[i % 4]), "png", CAPTIONS[i % 4]) for i in range(16)]
    write_shard(folder / "0.tar", [*samples, Sample("bad", b"\x89PNG\r\n\x1a\nno", "png", "lost")])
    return folder


def test_the_page_of_two_runs(make_run, shards, tmp_path):
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b<i>", seed=1)
    train_for(first, 8)
    train_for(second, 4, mfu=0.41, grad_norm=2.0)
    stored = json.loads((second / "config.json").read_text())
    stored["config"]["optim"]["lr"] = 0.25
    (second / "config.json").write_text(json.dumps(stored))
    with (second / "metrics.jsonl").open("a") as file:
        file.write('\n{"step": 2, "val/loss": 3.5, "val/image to text@1": 0.2}\n')
    evaluated(first, first / "eval" / "0123abc", 3, 0.5)  # of an earlier checkpoint, put aside
    evaluated(first, first / "eval", 7, 0.75)
    out = tmp_path / "page.html"
    assert main([str(first), str(second), "--out", str(out), "--pairs", str(shards)]) == 0
    text = out.read_text()
    captions = ("Loss", "Accuracy within the batch", "Scale of the logits", "Learning rate",
                "Throughput", "Time spent waiting for data", "Model FLOP utilisation (MFU)",
                "Norm of the gradient, before clipping", "Measured while training",
                "Loss on pairs kept for validation", "Results of wit eval over steps")  # fmt: skip
    for caption in captions:
        assert f"<figcaption>{caption}</figcaption>" in text
    assert "<td><bdi>optim.lr</bdi></td>" in text
    assert "0.25" in text
    assert "65.0 – 85.0" in text
    assert "40.0 – 60.0" in text
    assert "<i>" not in text
    assert "<script" not in text
    assert "16 pairs of" in text.replace("Among ", "")
    assert "1 more could not be read" in text
    assert "data:image/jpeg;base64," in text
    assert len(text) < 10_000_000


def test_arithmetic_stands_in_for_an_mfu_that_was_not_recorded(make_run, tmp_path):
    run = make_run(tmp_path / "a")
    train_for(run, 3)
    assert main([str(run), "--failures", "0"]) == 0
    text = (run / "report.html").read_text()
    assert "no MFU is recorded" in text
    assert "Model FLOP utilisation" not in text
    assert "They were not looked for" in text
    (history,) = read([run])
    (_, first), *_ = history.arithmetic()
    assert first > 0


def test_failures_are_those_of_the_cosines(make_run, shards, tmp_path):
    run = make_run(tmp_path / "a")
    found = failures.find(run, shards, 100, 0, Progress("test"))
    assert (found.n, found.unusable) == (16, 1)
    assert found.right + len(found.failures) == 16
    model = failures.load_model(run)
    texts = model.encode_text(model.tokenize(CAPTIONS), normalize=True)
    for failure in found.failures:
        picture = model.preprocess(failure.pair.picture)[None]
        cosine = (model.encode_image(picture, normalize=True) @ texts.T)[0].numpy()
        own = CAPTIONS.index(failure.pair.text)
        assert failure.own == pytest.approx(cosine[own], abs=1e-5)
        assert failure.nearest[0][0] == CAPTIONS[int(np.argmax(cosine))] != failure.pair.text
        # each caption stands four times
        assert failure.rank == 4 * int((cosine > cosine[own]).sum())
    margins = [failure.nearest[0][1] - failure.own for failure in found.failures]
    assert margins == sorted(margins, reverse=True)


def test_a_run_whose_corpus_is_gone(make_run, tmp_path):
    run = make_run(tmp_path / "a")
    train_for(run, 1)
    main([str(run), "--pairs", str(tmp_path / "absent")])
    assert "Not looked for: " in (run / "report.html").read_text()
    shutil.rmtree(run / "checkpoints")
    main([str(run), "--pairs", str(tmp_path / "absent")])
    assert "Not looked for: " in (run / "report.html").read_text()


def test_a_folder_without_metrics(make_run, tmp_path):
    run = make_run(tmp_path / "a")
    with pytest.raises(InputError, match=r"metrics\.jsonl: no such file; train some steps first"):
        main([str(run)])
