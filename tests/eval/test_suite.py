"""The paper's whole suite, on stand-ins: each set's kind, metric and prompts, with few classes and
images; two models through `wit eval --suite`, `wit compare` and the report."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import duckdb
import numpy as np
import pytest

from eval import compare, registry
from eval.run import main

CLASSES, IMAGES = 6, 2  # at most, and of each class


def write_standin(root, entry, names, templates, tar, png, rng):
    """A folder in the community's layout; the class list is in another order than published."""
    classes = [each[0] for each in names][:CLASSES]
    order = rng.permutation(len(classes)).tolist()
    members = []
    for i in range(len(classes) * IMAGES):
        colour = tuple(rng.integers(0, 256, 3).tolist())
        members.append((f"s{i:07d}.png", png(colour, size=(8, 8))))
        if entry.kind == "multilabel":
            out = io.BytesIO()
            np.save(out, (np.arange(len(classes)) == i % len(classes)).astype(int))
            members.append((f"s{i:07d}.npy", out.getvalue()))
        elif entry.kind == "retrieval":
            members.append((f"s{i:07d}.txt", f"{classes[i % len(classes)]} {i}\nso {i}".encode()))
        else:
            members.append((f"s{i:07d}.cls", str(i % len(classes)).encode()))
    tar(root / "test" / "0.tar", members)
    (root / "test" / "nshards.txt").write_text("1")
    if entry.kind == "retrieval":
        (root / "dataset_type.txt").write_text("retrieval")
        return classes
    if entry.kind == "multilabel":
        (root / "dataset_type.txt").write_text("multilabel")
    listed = [classes[i].upper().replace(" ", "_") for i in order]
    (root / "classnames.txt").write_text("\n".join(listed))
    (root / "zeroshot_classification_templates.txt").write_text("\n".join(templates))
    return classes


@pytest.fixture(scope="module")
def suite(tmp_path_factory, tar, png):
    """All 36 sets as stand-ins, and a registry that says so."""
    known, folder = registry.read(), tmp_path_factory.mktemp("suite")
    rng = np.random.default_rng(0)
    lines = []
    for name, entry in known.entries.items():
        count = min(CLASSES, entry.classes or CLASSES)
        names = known.names(name)[:count] or tuple((f"{name} {i}",) for i in range(count))
        classes = write_standin(folder / f"wds_{name}_test", entry, names, known.templates(name),
                                tar, png, rng)  # fmt: skip
        (folder / f"{name}.names").write_text("\n".join(classes))
        lines += [f"[{name}]", f"title = {json.dumps(entry.title)}", f'group = "{entry.group}"',
                  f'kind = "{entry.kind}"', f'metric = "{entry.metric}"',
                  f"test = {len(classes) * IMAGES}",
                  f"templates = {json.dumps(known.templates(name))}"]  # fmt: skip
        if entry.kind != "retrieval":
            lines += [f"classes = {len(classes)}", f'names = "{name}.names"']
    (folder / "sets.toml").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def evaluated(suite, tmp_path_factory, make_run):
    """Two models of random weights, evaluated."""
    runs = [make_run(tmp_path_factory.mktemp("runs") / f"model{seed}", seed) for seed in (0, 1)]
    for run in runs:
        code = main([f"--run={run}", f"--suite={suite}", f"--registry={suite / 'sets.toml'}",
                     "--device=cpu", "--resamples=100"])  # fmt: skip
        assert code == 0
    return runs


def test_every_set_has_its_own_metric(evaluated):
    known = registry.read()
    for name, entry in known.entries.items():
        task = "retrieval" if entry.kind == "retrieval" else "zeroshot"
        kept = json.loads((evaluated[0] / "eval" / f"wds_{name}_test-{task}.json").read_text())
        assert (kept["entry"], kept["main"]) == (name, entry.metric)
        metric = kept["metrics"][entry.metric]
        assert metric["interval_95"][0] <= metric["value"] <= metric["interval_95"][1]
        if task == "zeroshot":
            assert kept["protocol"]["templates"] == list(known.templates(name))
            prompts = kept["tables"][0]["rows"]
            assert [row[0] for row in prompts][:2] == ["class name only", "a photo of a {c}."]
            assert prompts[2][1] == metric["value"]


def test_predictions_are_one_view_in_duckdb(evaluated):
    """The accuracy of every set, from the Parquet files of a model, in one question."""
    rows = duckdb.sql(
        "SELECT parse_filename(filename) AS file, avg((rank = 0)::INT) AS top FROM"
        f" read_parquet('{evaluated[0]}/eval/*-zeroshot.parquet', filename = true,"
        " union_by_name = true) WHERE rank IS NOT NULL GROUP BY ALL"
    ).fetchall()
    assert len(rows) == 27 - 1 + 7  # VOC has scores of all classes instead of a rank
    for file, top in rows:
        kept = json.loads((evaluated[0] / "eval" / file.replace("parquet", "json")).read_text())
        assert top == pytest.approx(kept["metrics"]["top-1"]["value"])


def test_csv_has_clip_benchmarks_columns(evaluated):
    with (evaluated[0] / "eval" / "results.csv").open() as file:
        rows = {row["dataset"]: row for row in csv.DictReader(file)}
    assert len(rows) == 36
    assert {"acc1", "acc5", "mean_per_class_recall", "mean_average_precision",
            "image_retrieval_recall@5", "text_retrieval_recall@5", "model_fullname"} <= set(
        rows["food101"])  # fmt: skip
    assert rows["food101"]["task"] == "zeroshot_classification"
    assert rows["mscoco"]["task"] == "zeroshot_retrieval"
    assert rows["voc2007"]["acc1"] == ""
    assert 0 <= float(rows["voc2007"]["mean_average_precision"]) <= 1


class Page(HTMLParser):
    """What a page refers to, and whether its elements close."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.ids, self.figures = [], [], [], 0

    def handle_starttag(self, tag, attrs):
        self.figures += tag == "figure"
        if tag not in ("meta", "link"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href"):
                self.links.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "link"):
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_stands_alone(evaluated):
    text = (evaluated[0] / "eval" / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.figures == 4
    assert all(link.startswith("#") for link in page.links)  # nothing is fetched
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert "<script" not in text
    assert "published: ViT-L/14" in text
    assert not re.search(r"#(101010|0072b2)\b", text.split("</style>")[1])  # all variables
    assert "prefers-color-scheme: dark" in text


def test_report_of_two_models(evaluated, tmp_path):
    out = tmp_path / "report"
    main(["report", *map(str, evaluated), f"--out={out}"])
    lines = (out / "results.md").read_text().splitlines()
    average = [
        line
        for line in lines
        if re.match(r"\| tiny \(model., step 7\) \| zeroshot, paper \| 27 \|", line)
    ]
    assert len(average) == 2
    paths = (evaluated[0] / "eval").glob("*zeroshot.json")
    kept = [json.loads(path.read_text()) for path in paths]
    paper = [one for one in kept if one["group"] == "paper"]
    mean = np.mean([one["metrics"][one["main"]]["value"] for one in paper])
    assert f"| {100 * mean:.1f} |" in average[0]
    assert "model1" in (out / "report.html").read_text()


def test_compare(evaluated):
    found = compare.compare(compare.CompareConfig(first=evaluated[0], second=evaluated[1],
                                                  resamples=200, every=True))  # fmt: skip
    mains = [row for row in found["rows"] if row["main"]]
    assert len(mains) == 36
    assert found["not_compared"] == []
    for row in found["rows"]:
        stem = f"{row['set']}-{row['task']}.json"
        kept = [json.loads((run / "eval" / stem).read_text()) for run in evaluated]
        values = [one["metrics"][row["metric"]]["value"] for one in kept]
        assert [row["first"], row["second"]] == pytest.approx(values)
        assert row["difference"] == pytest.approx(values[1] - values[0])
        assert row["p"] <= row["p_holm"] <= 1
    averages = {row["suite"]: row for row in found["averages"]}
    assert {suite: row["sets"] for suite, row in averages.items()} == {
        "zeroshot, paper": 27, "zeroshot, shift": 7, "retrieval": 2}  # fmt: skip
    low, high = averages["zeroshot, paper"]["interval_95"]
    assert low < averages["zeroshot, paper"]["difference"] < high
