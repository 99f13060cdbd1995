"""The three notebooks run, in order, by parameters alone, and do what they say; nothing here looks at their form."""

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
import torch
from conftest import ROOT
from papermill.exceptions import PapermillExecutionError
from pytorch_pretrained_bert.modeling import BertForSequenceClassification

import tools

NOTEBOOKS = ("data_prep", "train", "evaluate")
TINY = {"BERT_MODEL": "tiny-bert", "MAX_SEQ_LENGTH": 12}
TRAINING = {
    **TINY,
    "TRAIN_BATCH_SIZE": 7,
    "EVAL_BATCH_SIZE": 5,
    "NUM_TRAIN_EPOCHS": 2,
    "GRADIENT_ACCUMULATION_STEPS": 2,
    "LEARNING_RATE": 3e-3,
    "VALIDATION_SHARE": 0.2,
}


def make_reviews(rows, seed):
    """Return a frame in Yelp's format, each text different, with what real files have in them."""
    rng = np.random.default_rng(seed)
    oddities = ['say "hi"', "a,b", "tab\there", "line\nbreak", "line\\nbreak", "<br />", "café 😀", "A\x85B", "null"]
    labels = np.arange(rows) % 2 + 1
    words = [("bad", "good")[label - 1] for label in labels]
    texts = [f"{word} soup {rng.integers(10**9)} {oddities[i % 9]}" for i, word in enumerate(words)]
    return pd.DataFrame({"label": labels, "text": texts})


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, bert_files):
    """A folder with copies of the project's files, a tiny data set and a tiny BERT."""
    folder = tmp_path_factory.mktemp("project")
    for name in (
        *(f"{notebook}.ipynb" for notebook in NOTEBOOKS),
        "tools.py",
        "report.py",
        "download.py",
        "converter.py",
    ):
        shutil.copy(ROOT / name, folder)
    task = folder / "data" / "tiny"
    task.mkdir(parents=True)
    for seed, (name, rows) in enumerate((("train", 61), ("test", 23))):
        frame = make_reviews(rows, seed)
        if name == "train":
            frame.loc[len(frame)] = [1, "  "]
        frame.to_csv(task / f"{name}.csv", header=False, index=False, quoting=1)
    tools.write_archive(bert_files(), tools.archive_path("tiny-bert", folder / "cache"))
    return folder


def twice(cell):
    """Return a cell and its copy; text and the parameters (a copy would undo papermill's) stay single."""
    if cell.cell_type != "code" or "parameters" in cell.metadata.get("tags", []):
        return [cell]
    return [cell, nbformat.NotebookNode({**cell, "id": f"{cell.id}-again", "outputs": []})]


def run(workspace, notebook, doubled=False, **parameters):
    """Run a notebook as papermill does and return all that it printed."""
    source = nbformat.read(workspace / f"{notebook}.ipynb", as_version=4)
    if doubled:
        source.cells = [copy for cell in source.cells for copy in twice(cell)]
    path = workspace / f"run_{notebook}.ipynb"
    nbformat.write(source, path)
    done = papermill.execute_notebook(
        path, path, {"TASK_NAME": "tiny", **parameters}, cwd=workspace, progress_bar=False
    )
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not any(output.get("name") == "stderr" and "arning" in output.text for output in outputs)
    return "".join(output.get("text", "") for output in outputs)


def run_all(workspace, doubled=False):
    """Run all three notebooks; return what they printed."""
    return {
        "data_prep": run(workspace, "data_prep", doubled, **TINY),
        "train": run(workspace, "train", doubled, **TRAINING),
        "evaluate": run(workspace, "evaluate", doubled, EVAL_BATCH_SIZE=5),
    }


@pytest.fixture(scope="module")
def printed(workspace):
    """What the three notebooks print when they are run in order."""
    return run_all(workspace)


def weights(workspace):
    return torch.load(workspace / "outputs/tiny/pytorch_model.bin", weights_only=True)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_data_prep(workspace, printed):
    assert "train.csv: 1 rows with empty text left out: row 62" in printed["data_prep"]
    assert "train: 61 examples, texts identical: True, labels identical: True" in printed["data_prep"]
    lines = (workspace / "data/tiny/train.tsv").read_text(encoding="utf-8").split("\n")
    assert lines[-1] == "" and len(lines) == 62
    assert all(len(line.split("\t")) == 4 and line.split("\t")[2] == "a" for line in lines[:-1])
    assert lines[7].endswith("A\x85B") and lines[3].endswith("line break") and lines[4].endswith("line break")


def test_train_leaves_a_model_that_the_library_loads(workspace, printed):
    model = BertForSequenceClassification.from_pretrained(str(workspace / "outputs/tiny"), num_labels=2)
    for name, tensor in weights(workspace).items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert "new, and learned from your data as they should be: classifier.weight" in printed["train"]
    assert "left out, not needed to classify" in printed["train"]
    history = pd.read_csv(workspace / "outputs/tiny/history.csv")
    assert history["epoch"].tolist() == [1, 2]
    settings = json.loads((workspace / "outputs/tiny/config.json").read_text())["classifier"]
    assert settings["best_epoch"] == history["epoch"][history["mcc"].idxmax()]
    assert settings["parameters"] == {
        **{"TASK_NAME": "tiny", "RANDOM_SEED": 42, "WARMUP_PROPORTION": 0.1, "TRAIN_ROWS": None, "TRUNCATION": "head"},
        **{"RESUME": True, "CHECKPOINT_STEPS": 500},
        **TRAINING,
    }


def test_validation_is_held_out_and_its_logits_are_the_archive_s(workspace, printed):
    validation = pd.read_csv(workspace / "outputs/tiny/validation.csv", dtype={"id": str})
    examples = tools.BinaryClassificationProcessor().get_train_examples(workspace / "data/tiny")
    assert 8 <= len(validation) <= 16
    texts = {example.guid: example.text_a for example in examples}
    classifier = tools.Classifier.load(workspace / "cache/tiny.tar.gz")
    predicted = classifier.predict([texts[guid] for guid in validation["id"]])
    expected = classifier.decide(validation[["logit_0", "logit_1"]].to_numpy())
    np.testing.assert_allclose(predicted["probability"], expected["probability"], atol=1e-6)


def test_evaluate_reports_what_the_predictions_say_and_leaves_the_archive(workspace, printed):
    report_dir = workspace / "outputs/tiny/report"
    before = digest(workspace / "cache/tiny.tar.gz")
    assert "soup" in (report_dir / "report.html").read_text()
    run(workspace, "evaluate", REPORT_TEXTS=False, CHECK_LABELS=0, SHOW_MISTAKES=0, EXPORT=["huggingface"])
    assert digest(workspace / "cache/tiny.tar.gz") == before
    assert "soup" not in (report_dir / "report.html").read_text()
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
    assert f"mcc = {report['mcc']}" in printed["evaluate"]


def test_same_seed_same_model_and_other_seed_other_model(workspace, printed):
    first = weights(workspace)
    assert "features loaded from" in run(workspace, "train", **TRAINING)
    assert all(torch.equal(first[name], tensor) for name, tensor in weights(workspace).items())
    run(workspace, "train", **{**TRAINING, "RANDOM_SEED": 7})
    assert any(not torch.equal(first[name], tensor) for name, tensor in weights(workspace).items())


def test_every_cell_can_be_run_twice(workspace, printed):
    files = ("data/tiny/train.tsv", "data/tiny/dev.tsv", "data/tiny/train_features.pkl")
    run_all(workspace)
    once, model = [digest(workspace / name) for name in files], weights(workspace)
    results = (workspace / "outputs/tiny/report/eval_results.txt").read_text()
    run_all(workspace, doubled=True)
    assert [digest(workspace / name) for name in files] == once
    assert all(torch.equal(model[name], tensor) for name, tensor in weights(workspace).items())
    assert (workspace / "outputs/tiny/report/eval_results.txt").read_text() == results


def test_converter_and_notebook_make_the_same_features(workspace, printed):
    pickled = workspace / "data/tiny/train_features.pkl"
    by_notebook = digest(pickled)
    pickled.unlink()
    command = [sys.executable, "converter.py", "--data-dir", "data/tiny", "--model", "tiny-bert"]
    command += ["--max-seq-length", "12"]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""
    assert "84 examples in" in done.stdout.splitlines()[-1]
    assert digest(pickled) == by_notebook
    assert "61 features loaded from" in run(workspace, "train", **TRAINING)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data-dir", "data/nowhere", "--model", "tiny-bert"], "data_prep.ipynb makes it"),
        (["--data-dir", "data/tiny", "--model", "data/none.tar.gz"], "data/none.tar.gz is missing"),
        (["--data-dir", "data/tiny", "--model", "tiny-bert", "--max-seq-length", "513"], "513"),
        (["--data-dir", "data/tiny", "--model", "tiny-bert", "--processes", "0"], "processes is 0"),
    ],
)
def test_converter_refuses(workspace, printed, arguments, message):
    before = sorted(path.name for path in (workspace / "data/tiny").iterdir())
    command = [sys.executable, "converter.py", *arguments]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in (workspace / "data/tiny").iterdir()) == before


@pytest.mark.parametrize(
    ("notebook", "parameters", "message"),
    [
        ("data_prep", {"TASK_NAME": "nowhere"}, "data/nowhere/train.csv is missing"),
        ("train", {"TASK_NAME": "nowhere"}, "data/nowhere/train.tsv is missing: data_prep.ipynb makes it"),
        ("evaluate", {"TASK_NAME": "nowhere"}, "data_prep.ipynb makes it"),
        ("train", {"LEARNING_RATES": 0.1}, "did you mean LEARNING_RATE?"),
        ("train", {"MAX_SEQ_LENGTH": 513}, "MAX_SEQ_LENGTH is 513"),
        ("train", {"TASK_NAME": "bert-base-cased"}, "TASK_NAME is 'bert-base-cased'"),
        ("evaluate", {"LEARNING_RATE": 0.1}, "LEARNING_RATE is not a parameter of evaluate.ipynb"),
    ],
)
def test_notebooks_refuse(workspace, printed, notebook, parameters, message):
    with pytest.raises(PapermillExecutionError, match=message.replace("?", r"\?")):
        run(workspace, notebook, **parameters)


def test_evaluate_refuses_a_model_that_was_not_fine_tuned(workspace, printed):
    shutil.copytree(workspace / "data/tiny", workspace / "data/raw", dirs_exist_ok=True)
    shutil.copy(workspace / "cache/tiny-bert.tar.gz", workspace / "cache/raw.tar.gz")
    with pytest.raises(PapermillExecutionError, match="without a fine-tuned classifier"):
        run(workspace, "evaluate", TASK_NAME="raw")


def test_a_full_disk_is_noticed_before_the_work(workspace, printed, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 5_000_000))
    with pytest.raises(OSError, match=r"7 MB of disk are needed for this and 5 MB are free"):
        tools.require_disk_space(workspace, 7_000_000)


def test_tools_alone_featurize_and_predict_from_a_notebook(workspace, printed, tmp_path):
    shutil.copy(ROOT / "tools.py", tmp_path)
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
    assert "True True" in done.cells[-1].outputs[-1].text


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
