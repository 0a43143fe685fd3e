"""`wit eval` from its command line to its files, with a real model of random weights."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from eval import results
from eval.compare import CompareConfig, compare
from eval.run import main
from train import checkpoint
from wit.errors import CheckpointError, ConfigError, InputError


def test_command(run, colour_set, caption_set, class_folder, capsys):
    sets = [f"--set={path}" for path in (caption_set, class_folder, colour_set)]
    assert main([f"--run={run}", *sets, "--device=cpu", "--batch_size=7"]) == 0
    out = capsys.readouterr().out
    for words in ("image to text R@1", "mean per class", "photos", "colours", str(run / "eval")):
        assert words in out
    kept = json.loads((run / "eval" / "photos-zeroshot.json").read_text())
    top = kept["metrics"]["top-1"]
    assert out.splitlines()[-1] == (
        f"zero-shot top-1 {100 * top['value']:.1f}% (chance 33.3%)"  # of the first such set
    )
    assert kept["model"]["step"] == 7
    assert len(kept["model"]["fingerprint"]) == 16
    rows = pq.read_table(run / "eval" / "photos-zeroshot.parquet")
    assert np.mean(np.array(rows["rank"]) == 0) == top["value"]
    assert json.loads((run / "eval" / "config.json").read_text())["config"]["batch_size"] == 7


def test_other_weights_are_encoded_anew(run, colour_set, capsys):
    arguments = [f"--run={run}", f"--set={colour_set}", "--device=cpu"]
    main(arguments)
    first = json.loads((run / "eval" / "colours-zeroshot.json").read_text())
    scores = pq.read_table(run / "eval" / "colours-zeroshot.parquet")["score"]
    state = checkpoint.load(run).state
    state["model"]["text_projection"] *= -1
    checkpoint.save(run, 7, state, keep=1)
    main(arguments)
    second = json.loads((run / "eval" / "colours-zeroshot.json").read_text())
    assert second["protocol_hash"] == first["protocol_hash"]
    assert second["model"]["fingerprint"] != first["model"]["fingerprint"]
    flipped = pq.read_table(run / "eval" / "colours-zeroshot.parquet")["score"]
    np.testing.assert_allclose(flipped, -np.array(scores), atol=1e-6)


def test_results_of_another_checkpoint_are_kept(run, colour_set, make_run, capsys):
    arguments = [f"--run={run}", f"--set={colour_set}", "--device=cpu"]
    out = run / "eval"
    main(arguments)
    first = json.loads((out / "colours-zeroshot.json").read_text())
    predictions = (out / "colours-zeroshot.parquet").read_bytes()
    main(arguments)  # the same checkpoint
    assert not [path for path in out.iterdir() if path.is_dir() and path.name != "cache"]
    other = make_run(run.parent / "other", seed=1)
    main([f"--run={other}", f"--set={colour_set}", "--device=cpu", f"--out={out}"])
    kept = out / first["model"]["fingerprint"]
    assert json.loads((kept / "colours-zeroshot.json").read_text()) == first
    assert (kept / "colours-zeroshot.parquet").read_bytes() == predictions
    (row,) = compare(CompareConfig(first=kept, second=out))["rows"]
    assert row["first"] == first["metrics"]["top-1"]["value"]


def test_older_results_do_not_stop_an_evaluation(run, colour_set, capsys):
    (run / "eval").mkdir()
    (run / "eval" / "old-zeroshot.json").write_text('{"protocol_hash": "x", "metrics": {}}')
    assert main([f"--run={run}", f"--set={colour_set}", "--device=cpu"]) == 0
    with pytest.raises(InputError, match=r"old-zeroshot\.json: of an older version"):
        results.load(run)


def test_a_csv_and_a_suite_of_ones_own(run, colour_set, tmp_path, png, capsys):
    (tmp_path / "sets").mkdir()
    colour_set.rename(tmp_path / "sets" / "wds_colours")
    (tmp_path / "sets" / "a.png").write_bytes(png("red"))
    (tmp_path / "sets" / "others.csv").write_text("image,caption\na.png,a red picture\n")
    registry = tmp_path / "mine.toml"
    registry.write_text('[colours]\ntitle = "Colours"\nclasses = 3\ntemplates = ["so {c}"]\n'
                        '[others]\ntitle = "Others"\nkind = "retrieval"\n'
                        'templates = ["a photo of {c}"]\nmetric = "mean R@1"')  # fmt: skip
    common = [f"--run={run}", f"--suite={tmp_path / 'sets'}", f"--registry={registry}",
              "--device=cpu", "--resamples=100"]  # fmt: skip
    assert main(common) == 0
    kept = json.loads((run / "eval" / "others-retrieval.json").read_text())
    assert kept["protocol"]["caption_template"] == "a photo of {c}"
    kept = json.loads((run / "eval" / "wds_colours-zeroshot.json").read_text())
    assert (kept["entry"], kept["protocol"]["templates"]) == ("colours", ["so {c}"])
    assert main([*common, "--protocol=own", "--task=zeroshot", f"--out={tmp_path / 'own'}"]) == 0
    kept = json.loads((tmp_path / "own" / "wds_colours-zeroshot.json").read_text())
    assert (kept["entry"], kept["protocol"]["templates"]) == ("", ["a {c} picture", "all {c}"])
    assert not (tmp_path / "own" / "others-retrieval.json").exists()


def test_own_templates(run, colour_set, tmp_path, capsys):
    templates = tmp_path / "mine.txt"
    templates.write_text("so {c}\n")
    main([f"--run={run}", f"--set={colour_set}", f"--templates={templates}", "--device=cpu"])
    kept = json.loads((run / "eval" / "colours-zeroshot.json").read_text())
    assert kept["protocol"]["templates"] == ["so {c}"]


@pytest.mark.parametrize(
    ("extra", "error", "message"),
    [
        (["--run={tmp}/none", "--set={set}"], CheckpointError, "none: not a run directory"),
        (["--run={run}", "--set={tmp}/none"], InputError, "none: no such evaluation set"),
        (["--run={run}", "--set={set}", "--set={set}"], ConfigError, "two sets are named colours"),
        (["--run={run}"], ConfigError, "set is missing"),
        (["--run={run}", "--set={set}", "--task=zero"], ConfigError, "no task zero; there are"),
        (["--run={run}", "--set={set}", "--task=retrieval"], ConfigError, "not for a classificat"),
        (["--run={run}", "--suite={tmp}"], ConfigError, "for a folder that holds sets"),
        (["--run={run}", "--suite={tmp}/none"], InputError, "none: no such folder"),
        (["--run={run}", "--set={set}", "--batch=3"], ConfigError, "did you mean --batch_size"),
        (["--run={run}", "--set={set}", "--batch_size=0"], ConfigError, "batch_size = .* range"),
        (["--run={run}", "--set={set}", "--split=../x"], ConfigError, "split"),
        (["--run={run}", "--set={set}", "--templates={tmp}/t"], InputError, "t: missing"),
    ],
)  # fmt: skip
def test_mistakes(run, colour_set, tmp_path, extra, error, message):
    arguments = [part.format(run=run, set=colour_set, tmp=tmp_path) for part in extra]
    with pytest.raises(error, match=message) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none(run, colour_set):
    with pytest.raises(ConfigError, match="this machine has no CUDA device"):
        main([f"--run={run}", f"--set={colour_set}", "--device=cuda"])


def test_options_are_read_without_torch():
    """`wit eval --help` must answer at once."""
    code = (
        "import sys, eval.run\n"
        "try: eval.run.main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--set" in done.stdout
