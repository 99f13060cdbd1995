"""The runs of an experiment, its search, folds and packed files, with the loop of train.ipynb and a tiny BERT."""

import json
import tarfile
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from loop import load_loop, make_config, read_parameters
from tiny import TEXTS, fake_loss, make_features, make_model, make_report

import tools
from textbert.data.normalization import hash_text
from textbert.data.splits import split_folds
from textbert.evaluation.calibration import fit_calibration
from textbert.model.archive import read_archive
from textbert.model.loading import clone_state_dict
from textbert.training import runs
from textbert.training.checkpoints import CONTENT, SPLIT, get_checkpoint_path, hash_rows
from textbert.training.config import DATA_PARAMETERS

PARAMETERS = read_parameters() | {"LEARNING_RATE": 1e-3, "NUM_TRAIN_EPOCHS": 2, "TRAIN_BATCH_SIZE": 5}
TRAIN_ROWS, VALIDATION_ROWS = np.array([0, 1, 2, 3, 5, 8, 11, 12]), np.array([4, 6, 7, 9, 10])
ROWS = np.arange(13)


@pytest.fixture(scope="module")
def features(tokenizers):
    features = make_features(tokenizers["uncased"])
    features.fingerprint = "data"
    return features


@pytest.fixture
def start(features, tmp_path):
    """A function from options of an Experiment, and names of the notebook, to (the experiment, fine_tune)."""

    def make(names=None, dropout=0.1, **options):
        model = make_model(dropout=dropout)
        model.fingerprint = "weights"
        accelerator = Accelerator(cpu=True, mixed_precision="no")
        fine_tune = load_loop(accelerator, model, features, None, **(names or {})).fine_tune_run
        data_parameters = {name: PARAMETERS[name] for name in DATA_PARAMETERS}
        arguments = accelerator, model, clone_state_dict(model), features, features.labels, make_config(PARAMETERS)
        return tools.Experiment(*arguments, tmp_path / "tiny", data_parameters, **options), fine_tune

    return make


def hash_results(run):
    """Return everything that a run has computed, as a list of comparable values."""
    weights = {name: tensor.numpy().tobytes() for name, tensor in run.best_weights.items()}
    return [run.losses, run.progress.history, run.summary, weights]


# ---------- A run -----------------------------------------------------------------------------------------------------


def test_run_is_saved_under_the_names_that_checkpoints_always_had(start, capsys, tmp_path):
    experiment, fine_tune = start()
    run = experiment.run(fine_tune, TRAIN_ROWS, VALIDATION_ROWS)
    assert f"epoch {run.best_epoch} is kept (see below)" in capsys.readouterr().out.splitlines()[-1]
    checkpoint = torch.load(get_checkpoint_path(tmp_path / "tiny"), weights_only=True)
    assert checkpoint["identity"] == {
        "data": "data",
        CONTENT: "weights",
        SPLIT: hash_rows(TRAIN_ROWS, VALIDATION_ROWS),
        **{name: value for name, value in PARAMETERS.items() if name in DATA_PARAMETERS},
        **make_config(PARAMETERS).to_parameters(),
    }
    assert len(checkpoint["identity"]) == 3 + 17
    assert run.history.columns[:2].tolist() == ["epoch", "training_loss"] and "task" not in run.history
    assert len(run.history) == 2 and len(run.losses) == 4


def test_finished_run_is_resumed_unless_settings_differ(start, capsys):
    experiment, fine_tune = start()
    run = experiment.run(fine_tune, TRAIN_ROWS, VALIDATION_ROWS)
    again, fine_tune = start()
    assert hash_results(again.run(fine_tune, TRAIN_ROWS, VALIDATION_ROWS)) == hash_results(run)
    assert "Resuming from step 4 of 4" in capsys.readouterr().out
    with pytest.raises(ValueError, match="rows to train and to validate was"):
        again.run(fine_tune, TRAIN_ROWS[1:], VALIDATION_ROWS)
    start_over, fine_tune = start(resume=False)
    assert hash_results(start_over.run(fine_tune, TRAIN_ROWS, VALIDATION_ROWS)) == hash_results(run)
    assert "Resuming" not in capsys.readouterr().out


def test_run_starts_from_the_initial_weights_whatever_was_done_since(start):
    experiment, fine_tune = start()
    expected = hash_results(experiment.train(fine_tune, experiment.config, TRAIN_ROWS, VALIDATION_ROWS))
    with torch.no_grad():
        for parameter in experiment.setup.model.parameters():
            parameter.add_(1.0)
    torch.rand(99)
    assert hash_results(experiment.train(fine_tune, experiment.config, TRAIN_ROWS, VALIDATION_ROWS)) == expected


def test_data_parameters_must_be_complete(start, features):
    experiment, _ = start()
    setup = experiment.setup
    arguments = setup.accelerator, setup.model, setup.initial_state, features, features.labels, experiment.config, "x"
    with pytest.raises(ValueError, match="data_parameters: expected .'TASK_NAME', .*, got .'TASK_NAME',"):
        tools.Experiment(*arguments, {"TASK_NAME": "t"})


def test_full_disk_is_noticed_before_the_run(start, monkeypatch):
    experiment, fine_tune = start()
    size = sum(tensor.nbytes for tensor in experiment.setup.initial_state.values())
    for free, is_enough in ((10 * size, True), (10 * size - 1, False)):
        monkeypatch.setattr("shutil.disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        with nullcontext() if is_enough else pytest.raises(OSError, match="MB of disk space, only"):
            experiment.run(fine_tune, TRAIN_ROWS, VALIDATION_ROWS)


def test_run_that_was_stopped_for_good_has_the_best_of_its_finished_epochs(start):
    experiment, fine_tune = start()
    whole_run = experiment.train(fine_tune, experiment.config, TRAIN_ROWS, VALIDATION_ROWS)

    def stop_in_second_epoch(run):
        all_batches = run.batches

        def batches(epoch):
            run.stop_signals += ["SIGINT"] * epoch  # as the stop button does
            yield from all_batches(epoch)

        run.batches = batches
        fine_tune(run)

    with pytest.raises(KeyboardInterrupt, match="stopped after step 3: run it again to resume"):
        experiment.run(stop_in_second_epoch, TRAIN_ROWS, VALIDATION_ROWS)
    run = experiment.last_run
    assert run.best_epoch == 1 and run.history.equals(whole_run.history[:1]) and run.losses == whole_run.losses[:3]
    experiment.setup.model.load_state_dict(run.best_weights)
    search, best_run = experiment.search(fine_tune, run, [], [])
    assert best_run is run and [row["kept epoch"] for row in search] == [1]


# ---------- Search and folds ------------------------------------------------------------------------------------------


class FakeRun:
    """Stands in for `Run`: its validation MCC is given by (learning rate, epochs)."""

    scores: dict = {}

    def __init__(self, setup, config, train_rows, validation_rows, checkpoint, tracker, plan):
        self.config, self.checkpoint = config, checkpoint
        self.rows = self.train_rows, self.held_out_rows = train_rows, validation_rows
        self.best_epoch, self.best_weights = config.num_train_epochs, setup.initial_state
        score = self.scores.get((config.learning_rate, config.num_train_epochs), 0.25)
        self.summary = {"kept epoch": self.best_epoch, "validation MCC": score}


@pytest.fixture
def calls(monkeypatch):
    """The FakeRuns that the loop `calls.append` got, in order."""
    monkeypatch.setattr(runs, "Run", FakeRun)
    return []


def test_search_tries_each_combination_once_and_trains_the_winner_again(start, calls, monkeypatch, capsys):
    scores = {(1e-3, 2): 0.1, (1e-3, 3): 0.5, (1e-2, 2): 0.5, (1e-2, 3): 0.4}
    monkeypatch.setattr(FakeRun, "scores", scores)
    experiment, _ = start()
    first_run = experiment.run(calls.append, TRAIN_ROWS, VALIDATION_ROWS)
    search, run = experiment.search(calls.append, first_run, [1e-3, 1e-2], [2, 3])
    tried = [(call.config.learning_rate, call.config.num_train_epochs) for call in calls]
    assert tried == [(1e-3, 2), (1e-3, 3), (1e-2, 2), (1e-2, 3), (1e-3, 3)]  # the first of two equal ones wins
    assert [call.checkpoint and call.checkpoint.path.name for call in calls] == [
        *("checkpoint.pt", None, None, None, "winner, 3 at 0.001.pt")
    ]
    assert all(call.rows == (pytest.approx(TRAIN_ROWS), pytest.approx(VALIDATION_ROWS)) for call in calls)
    assert run is calls[-1]
    columns = ["learning rate", "epochs", "kept epoch", "validation MCC"]
    assert [list(row) for row in search] == [columns] * 4
    assert [tuple(row.values()) for row in search] == [(rate, n, n, mcc) for (rate, n), mcc in scores.items()]
    capsys.readouterr()
    again, _ = start()  # after an interruption
    repeated, _ = again.search(calls.append, first_run, [1e-3, 1e-2], [2, 3])
    assert repeated == search and len(calls) == 6
    assert capsys.readouterr().out.count("already done") == 3


@pytest.mark.parametrize(("rates", "epochs", "count"), [([], [], 1), ([1e-3], [], 1), ([1e-2], [], 2), ([], [3, 4], 3)])
def test_empty_list_stands_for_the_value_of_the_first_run(start, calls, rates, epochs, count):
    experiment, _ = start()
    first_run = experiment.run(calls.append, TRAIN_ROWS, VALIDATION_ROWS)
    search, run = experiment.search(calls.append, first_run, rates, epochs)
    assert len(search) == len(calls) == count and run is first_run  # of equal ones the first is kept


def test_folds_are_held_out_once_with_the_settings_of_the_run(start, calls, monkeypatch, capsys):
    experiment, _ = start()
    monkeypatch.setattr(FakeRun, "scores", {(1e-2, 3): 0.75})
    rows = ROWS[::-1]
    texts = [TEXTS[row] for row in rows]
    tuned = SimpleNamespace(config=make_config(PARAMETERS | {"LEARNING_RATE": 1e-2, "NUM_TRAIN_EPOCHS": 3}))
    folds = experiment.cross_validate(calls.append, texts, rows, 3, tuned)
    splits = split_folds(texts, experiment.setup.labels[rows], 3, PARAMETERS["RANDOM_SEED"])
    for call, fold, (train, held_out) in zip(calls, folds, splits, strict=True):
        assert call.checkpoint is None and call.config == tuned.config
        assert np.array_equal(call.rows[0], rows[train]) and np.array_equal(call.rows[1], rows[held_out])
        assert fold == {"rows held out": len(held_out), "kept epoch": 3, "validation MCC": 0.75}
    assert experiment.out_of_fold.index.tolist() == [row for call in calls for row in call.rows[1].tolist()]
    assert "fold 3 of 3, 3 epochs at 0.01:" in capsys.readouterr().out
    assert experiment.cross_validate(calls.append, texts, rows, 0, tuned) == [] and len(calls) == 3
    experiment.cross_validate(calls.append, texts, rows, 3, tuned)
    assert len(calls) == 3 and capsys.readouterr().out.count("already done") == 3
    groups = rows // 3
    experiment.cross_validate(calls.append, texts, rows, 2, tuned, groups)
    splits = split_folds(texts, experiment.setup.labels[rows], 2, PARAMETERS["RANDOM_SEED"], groups)
    assert [call.rows[1].tolist() for call in calls[3:]] == [rows[held_out].tolist() for _, held_out in splits]
    assert not {row // 3 for row in calls[3].rows[1]} & {row // 3 for row in calls[4].rows[1]}


def test_learning_curve_trains_on_nested_stratified_parts(start, calls, monkeypatch, capsys):
    experiment, _ = start()
    examples = [SimpleNamespace(text_a=text or "empty") for text in TEXTS]
    run = experiment.run(calls.append, TRAIN_ROWS, VALIDATION_ROWS)
    table = experiment.learning_curve(calls.append, examples, run, [0.5, 0.25])
    quarter, half = (call.train_rows.tolist() for call in calls[1:])
    labels = experiment.setup.labels
    assert set(quarter) < set(half) < set(TRAIN_ROWS) and labels[quarter].tolist().count(1) == 1
    assert sorted(labels[half].tolist()) == [0, 0, 1, 1]
    assert table["texts"].tolist() == [2, 4, 8]
    assert table.columns.tolist() == ["texts", "MCC", "standard error", "MCC of word counts"]
    assert "From 4 to 8 texts the MCC changes by +0.00 (95 % interval" in capsys.readouterr().out
    again = experiment.learning_curve(calls.append, examples, run, [0.25, 0.5])
    assert again.equals(table) and len(calls) == 3 and capsys.readouterr().out.count("already done") == 2
    assert experiment.learning_curve(calls.append, examples, run, []) is None and len(calls) == 3


def test_word_counts_of_a_learning_curve_have_the_class_weights_of_the_run(start, calls):
    """Three of four training texts have label 0, also where they say tea, but weights make tea a word of label 1."""
    experiment, _ = start()
    train_rows, validation_rows = np.array([0, 1, 2, 3, 4, 6, 8, 10]), np.array([5, 7, 9, 11, 12])
    examples = [SimpleNamespace(text_a="soup" if row in (0, 2, 4, 12) else "tea") for row in ROWS]
    for class_weights, expected in ((None, 0), ("balanced", 1)):
        config = make_config(PARAMETERS | {"CLASS_WEIGHTS": class_weights})
        run = experiment.run(calls.append, train_rows, validation_rows, config)
        table = experiment.learning_curve(calls.append, examples, run, [0.5])
        assert table["MCC of word counts"].iloc[-1] == expected


def test_held_out_rows_are_predicted_by_the_model_that_did_not_learn_from_them(start, tokenizers, tmp_path, capsys):
    (tmp_path / "cache").mkdir()
    experiment, fine_tune = start(dropout=0)
    run = experiment.run(fine_tune, TRAIN_ROWS, VALIDATION_ROWS)
    folds = experiment.cross_validate(fine_tune, TEXTS, ROWS, 3, run)
    for fold, (train, held_out) in zip(
        folds, split_folds(TEXTS, experiment.setup.labels, 3, PARAMETERS["RANDOM_SEED"])
    ):
        assert list(fold) == ["rows held out", "kept epoch", "validation MCC"]
        model = experiment.setup.model
        model.load_state_dict(experiment.train(fine_tune, run.config, train, held_out).best_weights)
        logits = tools.predict_logits(model, experiment.setup.features, 64, held_out)
        np.testing.assert_array_equal(experiment.out_of_fold.loc[held_out], logits)
    capsys.readouterr()
    again, fine_tune = start(dropout=0)  # after an interruption the folds are read from a file
    again.cross_validate(fine_tune, TEXTS, ROWS, 3, run)
    assert again.out_of_fold.equals(experiment.out_of_fold) and "already done" in capsys.readouterr().out
    pack(again, run, tokenizers["uncased"], tmp_path)
    table = tools.Classifier.load(tmp_path / "cache/tiny.tar.gz", "cpu").out_of_fold
    assert sorted(table["text_hash"]) == sorted(hash_text(TEXTS[row]) for row in experiment.out_of_fold.index)
    again.cross_validate(fine_tune, TEXTS, ROWS, 0, run)
    pack(again, run, tokenizers["uncased"], tmp_path)
    assert tools.Classifier.load(tmp_path / "cache/tiny.tar.gz", "cpu").out_of_fold is None
    assert not (tmp_path / "tiny/out_of_fold.csv").exists()


def test_interrupted_search_with_real_runs_gives_the_same_results(start, tmp_path):
    def search(stop_after=None):
        experiment, fine_tune = start({"validate": lambda rows: make_report(0.5)})
        losses = iter(range(1, 99))

        def loss():
            if next(losses) == stop_after:
                raise KeyboardInterrupt
            return 0.5

        with fake_loss(loss):
            first_run = experiment.run(fine_tune, TRAIN_ROWS, VALIDATION_ROWS)
            return experiment.search(fine_tune, first_run, [1e-2], [1, 2])[0]

    with pytest.raises(KeyboardInterrupt):
        search(stop_after=8)  # 4 steps of the first run, 2 of the first trial, in the second one
    trials = json.loads(get_checkpoint_path(tmp_path / "tiny").with_name("trials.json").read_text())
    assert len(trials) == 1
    results = search()
    assert [row["epochs"] for row in results] == [2, 1, 2] and len(results) == 3


# ---------- Without train.ipynb --------------------------------------------------------------------------------------


def test_calibration_is_that_of_train(start):
    experiment, fine_tune = start()
    run = experiment.run(fine_tune, TRAIN_ROWS, VALIDATION_ROWS)
    experiment.setup.model.load_state_dict(experiment.setup.initial_state)
    results = experiment.calibrate(run)
    logits = tools.predict_logits(experiment.setup.model, experiment.setup.features, 64, VALIDATION_ROWS)
    assert np.array_equal(results["logits"], logits)
    best = run.history.set_index("epoch").loc[run.best_epoch]
    assert experiment.validate(VALIDATION_ROWS)["mcc"] == best["mcc"]
    temperature, intercept = fit_calibration(logits, VALIDATION_ROWS % 2)
    assert results["decision"] == {"temperature": temperature, "intercept": intercept, "threshold": 0.5}
    assert results["validation"]["task"] == "tiny" and results["validation"]["mcc"] == best["mcc"]
    costly = experiment.calibrate(run, false_positive_cost=4)
    assert costly["decision"]["threshold"] == 0.8 and costly["validation"]["tp"] <= results["validation"]["tp"]


def test_run_is_packed_without_the_files_of_the_notebooks(start, tokenizers, tmp_path):
    (tmp_path / "cache").mkdir()
    experiment, fine_tune = start()
    run = experiment.run(fine_tune, TRAIN_ROWS[1:], VALIDATION_ROWS)
    about = {"task_info": {"label_names": ["bad", "good"]}, "parameters": {"TRUNCATION": "head"}, "rows": None}
    archive = pack(experiment, run, tokenizers["uncased"], tmp_path, **about, **experiment.calibrate(run))[-1]
    classifier = tools.Classifier.load(archive, "cpu")
    known = classifier.training_hashes.tolist()
    assert known == sorted(hash_text(TEXTS[row]) for row in ROWS[1:])  # row 0 is in neither part
    assert classifier.settings["text_column"] is None and classifier.settings["classes"] is None


# ---------- Packing ---------------------------------------------------------------------------------------------------


def pack(experiment, run, tokenizer, tmp_path, **changes):
    """Pack a run with plausible results; return what `pack` returns."""
    examples = [SimpleNamespace(guid=f"id {row}", text_a=text) for row, text in enumerate(TEXTS)]
    task_info = {"label_names": ["bad", "good"], "classes": [["1"], ["2"]], "text_column": 1, "id_column": None}
    results = {"tokenizer": tokenizer, "task_info": task_info | {"tables": {}}, "examples": examples, "rows": ROWS[:12]}
    results |= {"logits": np.arange(10, dtype=np.float32).reshape(5, 2), "validation": {"mcc": 0.5}}
    results |= {"decision": {"temperature": 1.5, "intercept": 0.25, "threshold": 0.75}, "parameters": PARAMETERS}
    return experiment.pack(run, tmp_path / "cache" / "tiny.tar.gz", **results | changes)


def test_packed_files_are_those_that_evaluate_reads(start, tokenizers, tmp_path, capsys):
    (tmp_path / "cache").mkdir()
    experiment, fine_tune = start()
    run = experiment.run(fine_tune, TRAIN_ROWS, VALIDATION_ROWS)
    search = [{"learning rate": 1e-3}, {"learning rate": 1e-2}]
    with torch.no_grad():
        experiment.setup.model.classifier.bias.fill_(99.0)
    packed = pack(experiment, run, tokenizers["uncased"], tmp_path, search=search, folds=[{"kept epoch": 1}])
    names = ["config.json", "history.csv", "losses.csv", "pytorch_model.bin", "seen.bin", "validation.csv", "vocab.txt"]
    assert [path.name for path in packed] == [*names, "tiny.tar.gz"] and all(path.is_file() for path in packed)
    assert "tiny.tar.gz is packed, and the checkpoint is removed" in capsys.readouterr().out
    output_dir = tmp_path / "tiny"
    assert not (output_dir / "checkpoint").exists()
    settings = json.loads((output_dir / "config.json").read_text())["classifier"]
    assert list(settings) == [
        *("do_lower_case", "max_seq_length", "truncation", "label_names", "classes", "text_column", "id_column"),
        *("positive_class", "temperature", "intercept", "threshold", "trained", "training_rows", "best_epoch"),
        *("validation_folds", "validation", "parameters", "search", "folds", "versions"),
    ]
    assert settings["parameters"] == PARAMETERS and settings["search"] == search and len(settings["folds"]) == 1
    assert (settings["max_seq_length"], settings["training_rows"], settings["id_column"]) == (19, 8, None)
    assert (settings["temperature"], settings["intercept"], settings["threshold"]) == (1.5, 0.25, 0.75)
    weights = torch.load(output_dir / "pytorch_model.bin", weights_only=True)
    assert all(torch.equal(weights[name], tensor) for name, tensor in run.best_weights.items())
    validation = pd.read_csv(output_dir / "validation.csv")
    assert validation["id"].tolist() == [f"id {row}" for row in VALIDATION_ROWS]
    assert validation["label"].tolist() == [row % 2 for row in VALIDATION_ROWS]
    assert validation[["logit_0", "logit_1"]].to_numpy().ravel().tolist() == list(range(10))
    losses, history = (pd.read_csv(output_dir / f"{name}.csv") for name in ("losses", "history"))
    assert losses["step"].tolist() == [1, 2, 3, 4] and losses["loss"].tolist() == pytest.approx(run.losses)
    assert history.columns.tolist() == run.history.columns.tolist() and history["epoch"].tolist() == [1, 2]
    hashes = np.frombuffer((output_dir / "seen.bin").read_bytes(), "<i8").tolist()
    assert hashes == sorted(hash_text(text) for text in TEXTS[:12])
    assert set(read_archive(packed[-1])) <= {*names} and tarfile.is_tarfile(packed[-1])
    assert tools.Classifier.load(packed[-1], "cpu").predict(["good soup"])["label"][0] in ("bad", "good")


def test_packed_parameters_are_those_of_the_run_kept(start, calls, tokenizers, tmp_path):
    experiment, _ = start()
    experiment.setup.model.load_state_dict(experiment.setup.initial_state)
    config = make_config(PARAMETERS | {"LEARNING_RATE": 1e-2, "NUM_TRAIN_EPOCHS": 3})
    history = pd.DataFrame({"epoch": [1], "mcc": [0.5]})
    run = SimpleNamespace(config=config, train_rows=TRAIN_ROWS, held_out_rows=VALIDATION_ROWS, best_epoch=1)
    vars(run).update(losses=[0.5], history=history, model=experiment.setup.model, setup=experiment.setup)
    run.best_weights = experiment.setup.initial_state
    (tmp_path / "cache").mkdir()
    one_trial = [{"learning rate": 1e-3}]  # the first run alone is no search
    pack(experiment, run, tokenizers["uncased"], tmp_path, search=one_trial, parameters={"TRUNCATION": "tail"})
    settings = json.loads((tmp_path / "tiny" / "config.json").read_text())["classifier"]
    assert settings["parameters"] == {"TRUNCATION": "tail", "LEARNING_RATE": 1e-2, "NUM_TRAIN_EPOCHS": 3}
    assert settings["search"] == [] and settings["truncation"] == "tail"


def test_only_the_main_process_packs(start, tokenizers, tmp_path, capsys):
    experiment, fine_tune = start()
    run = experiment.run(fine_tune, TRAIN_ROWS, VALIDATION_ROWS)
    before = sorted(path.name for path in (tmp_path / "tiny").rglob("*"))
    capsys.readouterr()
    experiment.accelerator = SimpleNamespace(is_main_process=False, wait_for_everyone=lambda: None)
    pack(experiment, run, tokenizers["uncased"], tmp_path)
    assert sorted(path.name for path in (tmp_path / "tiny").rglob("*")) == before
    assert capsys.readouterr().out == ""
