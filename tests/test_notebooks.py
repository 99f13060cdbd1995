"""The three notebooks run, in order, by parameters alone, and do what they say; nothing here looks at their form."""

import contextlib
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
import torch
from conftest import ROOT, make_project
from papermill.exceptions import PapermillExecutionError
from pytorch_pretrained_bert.modeling import BertForSequenceClassification

import tools
from textbert.data.labelled_texts import read_labelled_texts
from textbert.data.normalization import hash_text
from textbert.data.tsv import write_task
from textbert.evaluation.metrics import format_metric, standard_error

TINY = {"BERT_MODEL": "tiny-bert", "MAX_SEQ_LENGTH": 12}
YELPS = {"LABEL_NAMES": ["bad", "good"], "ESCAPED_NEWLINES": True}
TRAINING = {
    **TINY,
    "TRAIN_BATCH_SIZE": 7,
    "EVAL_BATCH_SIZE": 5,
    "NUM_TRAIN_EPOCHS": 2,
    "GRADIENT_ACCUMULATION_STEPS": 2,
    "LEARNING_RATE": 3e-3,
    "VALIDATION_SHARE": 0.2,
    "FOLDS": 0,
}


def slow(test):
    """Mark a test as slow; its notebooks run in kernels that start at once."""
    return pytest.mark.slow(pytest.mark.usefixtures("forked_kernels")(test))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, bert_files):
    """A folder with copies of the project's files, a tiny data set and a tiny BERT."""
    return make_project(tmp_path_factory.mktemp("project"), bert_files)


def twice(cell):
    """Return a cell and its copy; text and the parameters (a copy would undo papermill's) stay single."""
    if cell.cell_type != "code" or "parameters" in cell.metadata.get("tags", []):
        return [cell]
    return [cell, nbformat.NotebookNode({**cell, "id": f"{cell.id}-again", "outputs": []})]


def run(workspace, notebook, doubled=False, **parameters):
    """Run a notebook as papermill does and return all that it printed or showed, of tables the text."""
    source = nbformat.read(workspace / f"{notebook}.ipynb", as_version=4)
    if doubled:
        source.cells = [copy for cell in source.cells for copy in twice(cell)]
    path = workspace / f"run_{notebook}.ipynb"
    nbformat.write(source, path)
    done = papermill.execute_notebook(
        path, path, {"TASK_NAME": "tiny", **parameters}, cwd=workspace, progress_bar=False
    )
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output.text for output in outputs if output.get("name") == "stderr" or "Warning:" in str(output)] == []
    return "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)


def run_all(workspace, doubled=False):
    """Run all three notebooks; return what they printed."""
    return {
        "data_prep": run(workspace, "data_prep", doubled, **TINY, **YELPS),
        "train": run(workspace, "train", doubled, **TRAINING),
        "evaluate": run(workspace, "evaluate", doubled, EVAL_BATCH_SIZE=5),
    }


def find_best(history):
    """Return the last epoch of a history whose MCC is within one standard error of the highest, as a dict."""
    epochs = history.to_dict("records")
    highest = max(epochs, key=lambda epoch: epoch["mcc"])
    return [epoch for epoch in epochs if epoch["mcc"] >= highest["mcc"] - standard_error(highest)][-1]


def weights(workspace, task="tiny"):
    return torch.load(workspace / "outputs" / task / "pytorch_model.bin", weights_only=True)


def read_results(workspace):
    """Return what the three notebooks make: digests of files, the figures of the report, and the weights as bytes."""
    files = ("data/tiny/train.tsv", "data/tiny/dev.tsv", "data/tiny/train_features.pkl")
    report = (workspace / "outputs/tiny/report/eval_results.txt").read_text()
    return (
        [digest(workspace / name) for name in files],
        report,
        {name: tensor.numpy().tobytes() for name, tensor in weights(workspace).items()},
    )


@pytest.fixture(scope="module")
def first_run(workspace):
    """The three notebooks run in order: (what they print, their results).

    Their kernels are new interpreters, in which a warning at an import would be shown.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("JUPYTER_PATH", raising=False)
        printed = run_all(workspace)
    return printed, read_results(workspace)


@pytest.fixture(scope="module")
def printed(first_run):
    """What the three notebooks print when they are run in order."""
    return first_run[0]


def copy_task(workspace, name):
    """Copy what data_prep.ipynb has made of the tiny data set as another task."""
    shutil.copytree(
        workspace / "data/tiny", workspace / "data" / name, ignore=shutil.ignore_patterns("*.pkl", "*.lock")
    )


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_data_prep(workspace, printed):
    assert "1 rows with empty text are left out\n  train: row 62\n" in printed["data_prep"]
    assert r"the two characters \n count as a line break: True" in printed["data_prep"]
    assert "train: 61 of 61 examples are identical" in printed["data_prep"]
    lines = (workspace / "data/tiny/train.tsv").read_text(encoding="utf-8").split("\n")
    assert lines[-1] == "" and len(lines) == 62
    assert all(len(line.split("\t")) == 4 and line.split("\t")[2] == "a" for line in lines[:-1])
    assert lines[7].endswith("A\x85B") and lines[3].endswith("line break") and lines[4].endswith("line break")


def test_train_leaves_a_model_that_the_library_loads(workspace, printed):
    model = BertForSequenceClassification.from_pretrained(str(workspace / "outputs/tiny"), num_labels=2)
    for name, tensor in weights(workspace).items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert "newly initialized (will be trained on your data): classifier.weight" in printed["train"]
    assert "left out, not needed for classification" in printed["train"]
    history = pd.read_csv(workspace / "outputs/tiny/history.csv")
    assert history["epoch"].tolist() == [1, 2]
    settings = json.loads((workspace / "outputs/tiny/config.json").read_text())["classifier"]
    assert settings["best_epoch"] == find_best(history)["epoch"]
    assert settings["parameters"] == {
        **{"TASK_NAME": "tiny", "RANDOM_SEED": 42, "WARMUP_PROPORTION": 0.1, "TRAIN_ROWS": None, "TRUNCATION": "head"},
        **{"RESUME": True, "CHECKPOINT_MINUTES": 5, "CLASS_WEIGHTS": None, "FALSE_POSITIVE_COST": 1.0},
        **{"R_DROP": 0.0, "ADVERSARIAL_EPSILON": 0.0, "ADVERSARIAL_SHARE": 1.0, "PATIENCE": None},
        **{"SEARCH_LEARNING_RATES": [], "SEARCH_EPOCHS": [], "TARGET_ACCURACY": None, "TRACK_WITH": None},
        "LEARNING_CURVE": [],
        **TRAINING,
    }


def test_validation_set_is_held_out_and_its_logits_are_in_the_archive(workspace, printed):
    validation = pd.read_csv(workspace / "outputs/tiny/validation.csv", dtype={"id": str})
    examples = tools.BinaryClassificationProcessor().get_train_examples(workspace / "data/tiny")
    assert 8 <= len(validation) <= 16
    texts = {example.guid: example.text_a for example in examples}
    classifier = tools.Classifier.load(workspace / "cache/tiny.tar.gz")
    predicted = classifier.predict([texts[guid] for guid in validation["id"]])
    expected = classifier.predictions_from_logits(validation[["logit_0", "logit_1"]].to_numpy())
    np.testing.assert_allclose(predicted["probability"], expected["probability"], atol=1e-6)


def test_evaluate_reports_what_the_predictions_say_and_leaves_the_archive(workspace, printed):
    report_dir = workspace / "outputs/tiny/report"
    before = digest(workspace / "cache/tiny.tar.gz")
    assert "soup" in (report_dir / "report.html").read_text()
    run(workspace, "evaluate", REPORT_TEXTS=False, CHECK_LABELS=0, SHOW_MISTAKES=0, EXPORT=["huggingface"])
    assert digest(workspace / "cache/tiny.tar.gz") == before
    page = re.sub("base64,[A-Za-z0-9+/=]+", "", (report_dir / "report.html").read_text())  # letters may spell anything
    assert "soup" not in page and "<img" in page
    assert (workspace / "outputs/tiny/huggingface/model.safetensors").is_file()
    results = json.loads((report_dir / "eval_results.json").read_text())
    report = results["results"]["BERT"]
    assert results["intervals"]["BERT"]["mcc"]["value"] == pytest.approx(report["mcc"])
    predictions = pd.read_csv(report_dir / "predictions.csv", keep_default_na=False)
    right = predictions["label"] == predictions["predicted"]
    assert len(predictions) == 23 == report["tp"] + report["tn"] + report["fp"] + report["fn"]
    assert right.mean() == pytest.approx(report["accuracy"])
    assert set(predictions["label"]) == {"bad", "good"}
    lines = dict(line.split(" = ") for line in (report_dir / "eval_results.txt").read_text().splitlines())
    assert float(lines["mcc"]) == report["mcc"] and int(lines["tp"]) == report["tp"]
    assert f"MCC on dev.tsv: BERT {format_metric(report['mcc'])} (" in printed["evaluate"]


# ---------- Data of any shape -----------------------------------------------------------------------------------------


def read_tsv(path):
    """Return (id, a number unless it is the table's own, label, text) of each line of a file of data_prep.ipynb."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    rows = (line.split("\t") for line in lines)
    return [(int(own) if own.isdecimal() else own, int(label), text) for own, label, _, text in rows]


@slow
def test_names_of_the_classes_change_no_text(workspace, printed):
    """LABEL_NAMES only names; ESCAPED_NEWLINES decides about the two characters that Yelp writes for a line break."""
    shutil.copytree(workspace / "data/tiny", workspace / "data/named", ignore=shutil.ignore_patterns("*.tsv", "*.pkl"))
    texts = {}
    for name, parameters in {"labels": {}, "names": {"LABEL_NAMES": ["bad", "good"]}, "escaped": YELPS}.items():
        run(workspace, "data_prep", **TINY, TASK_NAME="named", **parameters)
        texts[name] = [text for _, _, text in read_tsv(workspace / "data/named/train.tsv")]
    assert texts["labels"] == texts["names"] and r"\n" in "".join(texts["names"])
    assert texts["escaped"] == [text.replace(r"\n", " ") for text in texts["names"]]


@pytest.fixture(scope="module")
def planted(workspace):
    """A task with a header, 0/1 labels in code page 1252, nine negatives to a positive, and all data quality issues."""
    train = [(int(i >= 54), f"letter {i} was {'fun' if i >= 54 else 'dull'}") for i in range(60)]
    train += [
        (0, "letter 3 was dull"),
        (0, "Letter  4\nWAS dull"),
        (1, "letter 5 was dull"),  # which is also there with the other label
        (0, "caf\u00e9 <br /> cr\u00e8me"),
        (0, "it is in C:\\new\\notes"),
        (1, "caf\u00e9".encode().decode("cp1252")),
        (0, " \t"),
    ]
    test = [(int(i >= 16), f"note {i}") for i in range(20)] + [(0, "LETTER 7\twas dull "), (1, "letter 8 was dull")]
    task = workspace / "data" / "planted"
    task.mkdir()
    for name, rows in (("train", train), ("test", test)):
        frame = pd.DataFrame(rows, columns=["target", "review"])
        frame.to_csv(task / f"{name}.csv.gz", index=False, encoding="cp1252")
    return task


@slow
def test_another_encoding_is_an_error_that_names_it(workspace, planted):
    with pytest.raises(PapermillExecutionError, match=r"line 66: its byte 6 \(0xe9\) is not UTF-8.*'cp1252'"):
        run(workspace, "data_prep", TASK_NAME="planted")
    assert sorted(path.name for path in planted.iterdir()) == ["test.csv.gz", "train.csv.gz"]


@slow
def test_planted_problems_are_found_and_cleaned_by_parameters_alone(workspace, planted):
    output = run(workspace, "data_prep", **TINY, TASK_NAME="planted", ENCODING="cp1252", CLEAN_TRAIN=True)
    assert "train.csv.gz: 67 rows, columns used: {'label': 'target', 'text': 'review'}" in output
    assert "label 1, the positive class: '1', from ['1']" in output
    assert "The rarer class makes up 12% of train" in output and "FALSE_POSITIVE_COST if one kind of" in output
    assert "1 rows with empty text are left out\n  train: row 68\n" in output
    report = pd.read_csv(workspace / "outputs/planted/data_report.csv", index_col="a text that")
    assert {issue: (row["train"], row["dev"]) for issue, row in report.iterrows()} == {
        "repeats an earlier text": (3, 0),
        "appears with both labels": (3, 1),
        "is in both train and dev": (2, 2),
        "has a near duplicate in train": (0, 0),  # these texts have fewer than five words
        "has HTML": (1, 0),
        "has mojibake (wrong encoding)": (1, 0),
    }
    assert report["what to do"].str.len().min() > 20
    assert "\nis in both train and dev: 2 of train, 2 of dev (train-test overlap" in output
    # two examples of each, with the line in the file (a header is row 1)
    assert "train\n62\nrepeats an earlier text\nletter 3 was dull\n" in output
    assert re.search(r"train\n63\nrepeats an earlier text\nLetter\s+4 WAS dull\n", output)
    for row, letter in ((9, 7), (10, 8)):
        assert re.search(f"\ntrain\n{row}\n.*is in both train and dev\nletter {letter} was dull\n", output)
    assert "dev\n22\nis in both train and dev\nLETTER 7 was dull\n" in output
    assert "dev\n23\nappears with both labels; is in both train and dev\nletter 8 was dull" in output
    assert "6 texts dropped from train" in output
    train, dev = read_tsv(planted / "train.tsv"), read_tsv(planted / "dev.tsv")
    assert (len(train), len(dev)) == (60, 22)
    texts = [text for _, _, text in train]
    assert {"it is in C:\\new\\notes", "caf\u00e9 <br /> cr\u00e8me", "letter 3 was dull"} <= set(texts)
    assert not {f"letter {i} was dull" for i in (5, 7, 8)} & set(texts)
    assert (55, 0, "letter 53 was dull") in train and (56, 1, "letter 54 was fun") in train
    info = json.loads((planted / "labels.json").read_text())
    assert (info["label_names"], info["text_column"], info["id_column"]) == (["0", "1"], "review", None)
    assert {name: about["sha256"] for name, about in info["tables"].items()} == {
        "train": digest(planted / "train.csv.gz"),
        "dev": digest(planted / "test.csv.gz"),
    }


@pytest.fixture(scope="module")
def stars(workspace):
    """A task of one file with one to five stars; some texts are contained in others, and some occur twice."""
    words = ["bad", "bad", "odd", "good", "good"]
    rows = [(f"place {i} was {words[i % 5]} and the soup {words[i % 5]}", i % 5 + 1) for i in range(100)]
    # rows 101 to 140: each is contained in one of the others
    rows += [(f"PLACE {i} was\t{words[i % 5]}", i % 5 + 1) for i in range(40)]
    rows += [("the soup", 1), (rows[10][0], 1), (rows[14][0].title(), 5)]
    task = workspace / "data" / "stars"
    task.mkdir()
    lines = [json.dumps({"id": f"r{i}", "text": text, "stars": n}) for i, (text, n) in enumerate(rows)]
    (task / "reviews.jsonl").write_text("\n".join(lines))
    return task


@slow
def test_stars_are_an_error_that_says_how_to_make_two_classes(workspace, stars):
    with pytest.raises(PapermillExecutionError, match=r"5 different labels.*'1' 30 times \(first in row 1\).*CLASSES"):
        run(workspace, "data_prep", TASK_NAME="stars")
    assert [path.name for path in stars.iterdir()] == ["reviews.jsonl"]


@pytest.fixture(scope="module")
def stars_printed(workspace, stars):
    """What data_prep.ipynb prints for the stars with classes."""
    return run(workspace, "data_prep", **TINY, TASK_NAME="stars", CLASSES=[[1, 2], [4, 5]], DEV_SHARE=0.3)


@slow
def test_classes_are_merged_and_a_dev_set_is_held_out(workspace, stars, stars_printed):
    assert "train: 28 rows with other labels are left out" in stars_printed
    assert "label 0, the negative class: '1 or 2', from ['1', '2']" in stars_printed
    assert "1 texts (0.9%) are contained in texts of both sets and left out\n" in stars_printed
    train, dev = read_tsv(stars / "train.tsv"), read_tsv(stars / "dev.tsv")
    assert len(train) + len(dev) == 143 - 28 - 1
    assert 0.2 < len(dev) / 114 < 0.4
    kept = [number for number in range(140) if number % 5 != 2] + [141, 142]  # not the three stars, nor "the soup"
    assert sorted(int(own.removeprefix("r")) for own, _, _ in train + dev) == kept  # the table's own ids
    for _, label, text in train + dev:
        assert ("good" in text.lower()) == label
    folded = [{" ".join(text.lower().split()) for _, _, text in part} for part in (train, dev)]
    assert not any(f" {one} " in f" {other} " or f" {other} " in f" {one} " for one in folded[0] for other in folded[1])
    report = pd.read_csv(workspace / "outputs/stars/data_report.csv", index_col=0)
    assert report.loc["repeats an earlier text", ["train", "dev"]].sum() == 2
    assert report.loc["is in both train and dev", ["train", "dev"]].sum() == 0


@slow
def test_training_with_all_options(workspace, stars, stars_printed):
    """Class weights, patience, targets, few labels and a search at once; predictions have the label names."""
    parameters = {
        **TRAINING,
        **{"TASK_NAME": "stars", "CLASS_WEIGHTS": "balanced", "PATIENCE": 2, "FOLDS": 3},
        **{"SEARCH_LEARNING_RATES": [1e-6, 3e-3], "SEARCH_EPOCHS": [7], "TARGET_ACCURACY": [0.55, 0.99]},
    }
    output = run(workspace, "train", **parameters)
    assert "rows to train. A validation set of fewer than 100" in output and "would be too small" in output
    settings = json.loads((workspace / "outputs/stars/config.json").read_text())["classifier"]
    search, folds = settings["search"], settings["folds"]
    # the training run that was requested comes first
    tried = [(3e-3, 2), (1e-6, 7), (3e-3, 7)]
    assert [(row["learning rate"], row["epochs"]) for row in search] == tried
    winner = max(search, key=lambda row: row["validation MCC"])
    assert winner["learning rate"] == 3e-3
    assert f"Kept: {winner['epochs']} epochs with a learning rate of 0.003" in output
    assert settings["parameters"] == {
        **settings["parameters"],
        **parameters,
        "LEARNING_RATE": 3e-3,
        "NUM_TRAIN_EPOCHS": winner["epochs"],
    }
    scores = [fold["validation MCC"] for fold in folds]
    assert f"MCC over 3 folds: {np.mean(scores):.3f} ± {np.std(scores):.3f}" in output
    examples = tools.BinaryClassificationProcessor().get_train_examples(stars)
    assert sum(fold["rows held out"] for fold in folds) == len(examples) == settings["training_rows"]
    assert settings["validation_folds"] == 3 and {fold["kept epoch"] for fold in folds} == {settings["best_epoch"]}
    history = pd.read_csv(workspace / "outputs/stars/history.csv")
    assert len(history) == min(winner["epochs"], history["epoch"][history["mcc"].idxmax()] + 2)
    # the training run is the one that the search tried
    best = find_best(history)
    assert (best["mcc"], best["epoch"]) == (winner["validation MCC"], winner["kept epoch"])
    assert settings["best_epoch"] == best["epoch"]
    losses = pd.read_csv(workspace / "outputs/stars/losses.csv")
    assert losses["step"].tolist() == list(range(1, len(losses) + 1))
    steps = len(losses) // len(history)
    assert losses["loss"][:steps].mean() == pytest.approx(history["training_loss"][0])
    assert settings["intercept"] != 0 and f"threshold {settings['threshold']:.3f}: " in output
    assert settings["label_names"] == ["1 or 2", "4 or 5"] and settings["positive_class"] == "4 or 5"
    predicted = tools.Classifier.load(workspace / "cache/stars.tar.gz").predict(["good soup", "bad soup"])
    assert set(predicted["label"]) <= {"1 or 2", "4 or 5"}
    low, high = settings["review_range"]
    assert 0 <= low <= settings["threshold"] <= high == 1 and low != high  # too few for a target of 0.99
    assert predicted["review"].tolist() == [low < value < high for value in predicted["probability"]]
    assert predicted["label"].eq("4 or 5").tolist() == predicted["probability"].ge(settings["threshold"]).tolist()
    output = run(workspace, "evaluate", TASK_NAME="stars")
    assert "The model decides" in output or "are left to a person" in output
    predictions = pd.read_csv(workspace / "outputs/stars/report/predictions.csv")
    assert set(predictions["label"]) == {"1 or 2", "4 or 5"} >= set(predictions["predicted"])


def evaluate_labels(workspace, task):
    """Run evaluate.ipynb for a task; return the classifier, its training texts and the report, of which it shows all.

    It judges the labels of as many rows as there are.
    """
    train = read_labelled_texts(workspace / "data" / task / "train.tsv")
    printed = run(workspace, "evaluate", TASK_NAME=task, SHOW_MISTAKES=len(train), CHECK_LABELS=len(train))
    assert "MCC on dev.tsv: BERT " in printed
    page = (workspace / "outputs" / task / "report/report.html").read_text()
    return tools.Classifier.load(workspace / f"cache/{task}.tar.gz", "cpu"), train, page


def read_label_issues(page):
    """Return the probabilities that BERT gives to labels in the report's table of label issues, as strings."""
    (table,) = [part for part in page.split("<table")[1:] if ">TF-IDF</th>" in part and ">text</th>" in part]
    rows = re.findall("<tr>(.*?)</tr>", table.split("</thead>")[1], re.DOTALL)
    return [re.findall("<td>(.*?)</td>", row, re.DOTALL)[3] for row in rows]


@slow
def test_with_few_labels_all_rows_are_held_out_learned_and_judged(workspace, printed):
    copy_task(workspace, "few")
    parameters = {**TRAINING, "TASK_NAME": "few", "FOLDS": None}
    output = run(workspace, "train", **parameters)
    assert "61 rows to train. A validation set of fewer than 100, or with fewer than 20 of a class, would" in output
    assert "5 folds hold out 61 rows instead" in output and "all 61 rows:" in output
    assert all(f"held-out fold {number} of 5, 2 epochs at 0.003:" in output for number in range(1, 6))
    classifier, train, page = evaluate_labels(workspace, "few")
    settings, columns = classifier.settings, ["logit_0", "logit_1"]
    assert classifier.validation["id"].tolist() == train.ids
    assert classifier.validation["label"].tolist() == train.labels.tolist()
    assert classifier.out_of_fold[columns].equals(classifier.validation[columns])
    assert classifier.out_of_fold["text_hash"].tolist() == [hash_text(text) for text in train.texts]
    assert settings["training_rows"] == 61 and settings["validation_folds"] == 5
    assert sum(settings["validation"][name] for name in ("tp", "tn", "fp", "fn")) == 61
    scores = [fold["validation MCC"] for fold in settings["folds"]]
    assert sum(fold["rows held out"] for fold in settings["folds"]) == 61
    assert f"MCC over 5 folds: {np.mean(scores):.3f} ± {np.std(scores):.3f}" in output
    history = pd.read_csv(workspace / "outputs/few/history.csv")
    assert history[["tp", "tn", "fp", "fn"]].sum(axis=1).tolist() == [61, 61]
    assert settings["best_epoch"] == find_best(history)["epoch"]
    assert weights(workspace, "few").keys() == weights(workspace).keys()
    assert f"on 61 rows; epoch {settings['best_epoch']} was kept, chosen on 5 held-out folds." in page
    assert "fitted on 61 training examples, each predicted by a model that was not trained on it." in page
    assert "BERT was trained on 61 texts, the baseline on 61." in page
    judged = read_label_issues(page)
    assert len(judged) == 61 and all(0 <= float(probability) <= 1 for probability in judged)


@slow
def test_with_many_labels_folds_are_a_cross_validation_beside_the_validation_set(workspace):
    """Half of 240 rows are enough for a validation set."""
    rng, frames = np.random.default_rng(0), {}
    for name, count in (("train", 240), ("dev", 30)):
        labels = np.arange(count) % 2
        texts = [f"{('bad', 'good')[label]} soup {rng.integers(10**9)}" for label in labels]
        columns = {"id": [f"r{i}" for i in range(count)], "label": labels, "alpha": "a", "text": texts}
        frames[name] = pd.DataFrame(columns)
    (workspace / "data/many").mkdir()
    write_task(frames, ["bad", "good"], workspace / "data/many")
    parameters = {**TRAINING, **{"TASK_NAME": "many", "VALIDATION_SHARE": 0.5, "FOLDS": 2, "TRAIN_BATCH_SIZE": 30}}
    output = run(workspace, "train", **parameters)
    assert "120 rows to train, 120 to validate" in output and "held-out fold" not in output
    assert all(f"fold {number} of 2, 2 epochs at 0.003:" in output for number in (1, 2))
    classifier, train, page = evaluate_labels(workspace, "many")
    settings = classifier.settings
    scores = [fold["validation MCC"] for fold in settings["folds"]]
    assert f"MCC over 2 folds: {np.mean(scores):.3f} ± {np.std(scores):.3f}" in output
    assert sum(fold["rows held out"] for fold in settings["folds"]) == 240 == len(classifier.out_of_fold)
    assert settings["training_rows"] == 120 == len(classifier.validation) and settings["validation_folds"] == 0
    assert set(classifier.out_of_fold["text_hash"]) == {hash_text(text) for text in train.texts}
    assert f"on 120 rows; epoch {settings['best_epoch']} was kept." in page
    assert "fitted on 120 validation examples." in page and "–" not in read_label_issues(page)


@slow
def test_a_second_run_with_every_cell_twice_makes_the_same(workspace, first_run):
    """To the bit, as the seed is the same: no cell depends on how often it has run."""
    run_all(workspace, doubled=True)
    (files, report, model), (files_before, report_before, model_before) = read_results(workspace), first_run[1]
    assert files == files_before and report == report_before
    assert [name for name in model if model[name] != model_before[name]] == []


@slow
def test_converter_and_notebook_make_the_same_features(workspace, first_run):
    pickled = workspace / "data/tiny/train_features.pkl"
    by_notebook = digest(pickled)
    pickled.unlink()
    command = [sys.executable, "converter.py", "--data-dir", "data/tiny", "--model", "tiny-bert"]
    command += ["--max-seq-length", "12"]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""
    assert "84 examples in" in done.stdout.splitlines()[-1]
    assert digest(pickled) == by_notebook
    assert "61 features loaded from" in run(workspace, "train", **{**TRAINING, "RANDOM_SEED": 7})
    assert read_results(workspace)[2] != first_run[1][2]  # another seed gives another model


def test_converter_in_a_terminal_shows_a_bar_and_no_warning(workspace, printed):
    pty, termios = (
        pytest.importorskip(name, reason="there are no pseudo-terminals here") for name in ("pty", "termios")
    )
    command = [
        sys.executable,
        "converter.py",
        "--data-dir",
        "data/tiny",
        "--model",
        "tiny-bert",
        "--max-seq-length",
        "9",
    ]
    environment = {**os.environ, "PYTHONWARNINGS": "always"}
    environment.pop("TQDM_DISABLE", None)
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 80))  # or it has no columns, and no space for a bar
    shown = b""
    with subprocess.Popen(command, cwd=workspace, env=environment, stdout=end, stderr=end) as process:
        os.close(end)
        with contextlib.suppress(OSError):  # raised at the end of a terminal on Linux
            while part := os.read(terminal, 1000):
                shown += part
    os.close(terminal)
    assert process.returncode == 0 and b"Converting: " in shown and b"84 examples in" in shown
    assert not re.search(b"arning|Error|Traceback", shown), shown.decode()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data-dir", "data/nowhere", "--model", "tiny-bert"], "data_prep.ipynb makes it"),
        (["--data-dir", "data/tiny", "--model", "data/none.tar.gz"], "data/none.tar.gz is missing"),
        (["--data-dir", "data/tiny", "--model", "tiny-bert", "--max-seq-length", "513"], "513"),
        (["--data-dir", "data/tiny", "--model", "tiny-bert", "--processes", "0"], "processes: expected a positive"),
    ],
)
def test_converter_refuses(workspace, printed, arguments, message):
    before = sorted(path.name for path in (workspace / "data/tiny").iterdir())
    command = [sys.executable, "converter.py", *arguments]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in (workspace / "data/tiny").iterdir()) == before


@slow
@pytest.mark.parametrize(
    ("notebook", "parameters", "message"),
    [
        ("data_prep", {"TASK_NAME": "nowhere"}, "data/nowhere holds no table: put train.csv"),
        ("train", {"TASK_NAME": "nowhere"}, "data/nowhere/train.tsv is missing: data_prep.ipynb makes it"),
        ("evaluate", {"TASK_NAME": "nowhere"}, "data_prep.ipynb makes it"),
        ("train", {"LEARNING_RATES": 0.1}, "did you mean LEARNING_RATE?"),
        ("train", {"MAX_SEQ_LENGTH": 513}, "MAX_SEQ_LENGTH: expected an integer from 3 to 512, .*, got 513"),
        ("train", {"TASK_NAME": "bert-base-cased"}, "TASK_NAME: expected .*, got 'bert-base-cased'"),
        ("evaluate", {"LEARNING_RATE": 0.1}, "LEARNING_RATE is not a parameter of evaluate.ipynb"),
    ],
)
def test_notebooks_refuse(workspace, printed, notebook, parameters, message):
    with pytest.raises(PapermillExecutionError, match=message.replace("?", r"\?")):
        run(workspace, notebook, **parameters)


@slow
def test_evaluate_refuses_a_model_that_was_not_fine_tuned(workspace, printed):
    shutil.copytree(workspace / "data/tiny", workspace / "data/raw", dirs_exist_ok=True)
    shutil.copy(workspace / "cache/tiny-bert.tar.gz", workspace / "cache/raw.tar.gz")
    with pytest.raises(PapermillExecutionError, match="without a fine-tuned classifier"):
        run(workspace, "evaluate", TASK_NAME="raw")


def test_tools_and_the_package_featurize_and_predict_from_a_notebook(workspace, printed, tmp_path):
    shutil.copy(ROOT / "tools.py", tmp_path)
    shutil.copytree(ROOT / "textbert", tmp_path / "textbert", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(workspace / "cache/tiny.tar.gz", tmp_path / "mine.tar.gz")
    cells = [
        "from tools import Classifier, InputExample, convert_examples_to_features",
        "classifier = Classifier.load('mine.tar.gz')",
        "examples = [InputExample(0, 'good soup', label='1')] * 1300",
        "features = convert_examples_to_features(examples, {'1': 1}, 12, classifier.tokenizer, processes=2)",
        "assert len(features) == 1300 and features[-1].label_id == 1",
        "predicted = classifier.predict(['good soup', '', 'bad ' * 1000])\n"
        "print(predicted['label'].isin(['bad', 'good']).all(), predicted['probability'].between(0, 1).all())",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "use.ipynb")
    done = papermill.execute_notebook(tmp_path / "use.ipynb", None, cwd=tmp_path, progress_bar=False)
    # a line that is printed can arrive in several messages, and a bar that took long leaves one of its own
    printed = [output.text for output in done.cells[-1].outputs if output.get("name") == "stdout"]
    assert "".join(printed) == "True True\n"


@slow
def test_a_script_without_main_guard_can_use_workers(tmp_path, tokenizers):
    with open(tmp_path / "tokenizer.pkl", "wb") as file:
        pickle.dump(tokenizers["uncased"], file)
    (tmp_path / "script.py").write_text(
        "import pickle, tools\n"
        "tokenizer = pickle.load(open('tokenizer.pkl', 'rb'))\n"
        "examples = [tools.InputExample(i, f'good soup {i}', label='0') for i in range(2100)]\n"
        "features = tools.convert_examples_to_features(examples, {'0': 0}, 12, tokenizer, processes=2)\n"
        "print(len(features), features[2099].input_ids == tools.convert_example_to_feature("
        "(examples[2099], {'0': 0}, 12, tokenizer, 'classification')).input_ids)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "2100 True\n", done.stderr
