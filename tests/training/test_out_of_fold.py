"""With few labels, the predictions for held-out folds choose epoch, calibration and threshold; all rows are learned."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import matthews_corrcoef
from test_experiment import PARAMETERS, ROWS, TEXTS, features, hash_results, pack, start  # noqa: F401 (fixtures)

import tools
from textbert.data.normalization import hash_text
from textbert.training import out_of_fold, trainer
from textbert.training.checkpoints import get_checkpoint_path, is_unfinished
from textbert.training.out_of_fold import FinalRun, OutOfFold
from textbert.training.progress import find_best_epoch


@pytest.fixture
def split(start):  # noqa: F811 (the fixture)
    """(Rows to train, rows held out, folds) of the few examples."""
    labels = start()[0].setup.labels
    return tools.split_or_fold(ROWS, TEXTS, labels, 0.1, PARAMETERS["RANDOM_SEED"], None, 3)


def run_with_folds(experiment, fine_tune, split, **options):
    train_rows, held_out, folds = split
    return experiment.run(fine_tune, train_rows, held_out, folds=folds, **options)


# ---------- The run ---------------------------------------------------------------------------------------------------


def test_each_row_is_predicted_by_a_model_that_did_not_learn_from_it_and_the_last_learns_all(
    start,  # noqa: F811
    split,
    monkeypatch,
):
    for module in (trainer, out_of_fold):  # which epoch scores highest depends on how this machine rounds
        monkeypatch.setattr(module, "find_best_epoch", len)
    experiment, fine_tune = start()
    run = run_with_folds(experiment, fine_tune, split)
    assert isinstance(run, FinalRun) and np.array_equal(run.train_rows, ROWS)
    logits = pd.DataFrame(experiment.predict_held_out(run), run.held_out_rows)
    for train_rows, held_out in split[2]:
        assert not set(train_rows) & set(held_out)
        alone = experiment.train(fine_tune, experiment.config, train_rows, held_out)
        weights = alone.best_weights
        assert run.best_epoch == alone.best_epoch == 2
        experiment.setup.model.load_state_dict(weights)
        expected = tools.predict_logits(experiment.setup.model, experiment.setup.features, 64, held_out)
        np.testing.assert_array_equal(logits.loc[held_out], expected)
    scores = matthews_corrcoef(experiment.setup.labels[run.held_out_rows], logits.to_numpy().argmax(axis=1))
    assert run.summary == {"kept epoch": 2, "validation MCC": scores} == run.out_of_fold.summary
    assert run.history["mcc"].iloc[-1] == scores and set(run.history[["tp", "tn", "fp", "fn"]].sum(axis=1)) == {
        len(logits)
    }
    without = experiment.train(fine_tune, experiment.config, ROWS, ROWS[:4])  # validation draws no random numbers
    assert run.losses == without.losses
    assert experiment.calibrate(run)["logits"].shape == logits.shape


def test_epoch_is_that_of_all_held_out_rows():
    labels = np.array([0, 1] * 4)
    folds = [(np.arange(4, 8), np.arange(4)), (np.arange(4), np.arange(4, 8))]

    def as_logits(*epochs):
        return np.stack([np.eye(2)[list(predicted)] for predicted in epochs])

    first = as_logits([0, 1, 0, 1], [1, 0, 1, 0], [1, 0, 1, 0])  # right, wrong, wrong
    second = as_logits([0, 1, 0, 1], [0, 1, 0, 1], [1, 0, 1, 0])  # right, right, wrong
    predictions = OutOfFold(folds, [first, second], labels)
    assert [predictions.evaluate(epoch)["mcc"] for epoch in (1, 2, 3)] == [1.0, 0.0, -1.0]
    assert predictions.summary == {"kept epoch": 1, "validation MCC": 1.0}
    assert predictions.predict(2).to_numpy().argmax(axis=1).tolist() == [1, 0, 1, 0, 0, 1, 0, 1]
    assert [fold["validation MCC"] for fold in predictions.tabulate(2)] == [-1.0, 1.0]


def test_patience_counts_the_epochs_of_all_held_out_rows():
    labels = np.array([0, 1] * 40)
    wrong = np.arange(80)[None, :] < np.array([[30], [40], [40], [0]])  # the fourth epoch makes no mistake
    logits = np.eye(2)[np.where(wrong, 1 - labels, labels)]
    folds = [(np.zeros(0, int), np.arange(80))]
    assert OutOfFold(folds, [logits], labels).summary == {"kept epoch": 4, "validation MCC": 1.0}
    assert OutOfFold(folds, [logits], labels, patience=2).summary == {"kept epoch": 1, "validation MCC": 0.25}
    assert OutOfFold(folds, [logits], labels, patience=3).summary["kept epoch"] == 4


@pytest.mark.parametrize(
    ("scores", "expected"), [([0.5], 1), ([0.1, 0.6, 0.55], 3), ([0.1, 0.6, 0.1], 2), ([0.2] * 3, 3)]
)
def test_last_epoch_within_one_standard_error_of_the_highest_is_kept(scores, expected):
    counts = dict.fromkeys(("tp", "tn", "fp", "fn"), 5)  # a standard error of about 0.2
    assert find_best_epoch([counts | {"mcc": score} for score in scores]) == expected


def test_without_examples_metrics_are_unknown():
    report = tools.get_eval_report("t", np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    assert report.pop("task") == "t" and [report.pop(name) for name in ("tp", "tn", "fp", "fn")] == [0] * 4
    names = {"mcc", "accuracy", "precision", "recall", "f1", "roc_auc", "loss"}
    assert report.keys() == names and np.isnan(list(report.values())).all()


def test_interrupted_folds_go_on(start, split, tmp_path, capsys):  # noqa: F811
    experiment, fine_tune = start()
    expected = hash_results(run_with_folds(experiment, fine_tune, split))
    assert " to go in this fold\n" in capsys.readouterr().out
    again, fine_tune = start()
    assert hash_results(run_with_folds(again, fine_tune, split)) == expected
    assert capsys.readouterr().out.count("already done") == 3
    seen = []

    def stop_in_second_fold(run):
        seen.append(run)
        if len(seen) == 2:
            raise KeyboardInterrupt
        fine_tune(run)

    get_checkpoint_path(tmp_path / "tiny").unlink()
    over, fine_tune = start(resume=False)
    assert is_unfinished(tmp_path / "tiny")
    with pytest.raises(KeyboardInterrupt):
        run_with_folds(over, stop_in_second_fold, split)
    assert is_unfinished(tmp_path / "tiny") and not get_checkpoint_path(tmp_path / "tiny").is_file()
    capsys.readouterr()
    resumed, fine_tune = start()
    assert hash_results(run_with_folds(resumed, fine_tune, split)) == expected
    assert capsys.readouterr().out.count("already done") == 1
    labels = resumed.setup.labels
    others = tools.split_or_fold(ROWS, TEXTS, labels, 0.1, 7, None, 2)
    trained = []
    with pytest.raises(ValueError, match="rows to train and to validate was"):  # the checkpoint is of other folds
        run_with_folds(resumed, trained.append, others)
    assert trained == []  # it is refused at once


# ---------- What is done with it --------------------------------------------------------------------------------------


def test_search_compares_by_held_out_rows(start, split, capsys):  # noqa: F811
    experiment, fine_tune = start()
    first_run = run_with_folds(experiment, fine_tune, split)
    search, best_run = experiment.search(fine_tune, first_run, [], [2, 1])
    other = experiment.predict_folds(fine_tune, best_run.config, split[2]) if best_run is not first_run else None
    assert [row["epochs"] for row in search] == [2, 1] and isinstance(best_run, FinalRun)
    best = max(row["validation MCC"] for row in search)
    assert best_run.summary["validation MCC"] == best and (other is None or other.summary == best_run.summary)


def test_table_of_folds_and_learning_curve_train_nothing_on_the_rows_held_out(start, split, capsys):  # noqa: F811
    experiment, fine_tune = start()
    run = run_with_folds(experiment, fine_tune, split)
    trained = []

    def watch(run):
        trained.append(run)
        fine_tune(run)

    table = experiment.cross_validate(watch, TEXTS, ROWS, 3, run)
    assert [row["rows held out"] for row in table] == [len(held_out) for _, held_out in split[2]] and not trained
    assert "MCC over 3 folds: " in capsys.readouterr().out
    examples = [tools.InputExample("", text or "empty", label="0") for text in TEXTS]
    curve = experiment.learning_curve(watch, examples, run, [0.5])
    assert len(trained) == 3 and all(not set(run.train_rows) & set(run.held_out_rows) for run in trained)
    assert curve["texts"].is_monotonic_increasing and curve["MCC"].iloc[-1] == run.summary["validation MCC"]


def test_archive_has_the_predictions_of_the_folds(start, split, tokenizers, tmp_path):  # noqa: F811
    (tmp_path / "cache").mkdir()
    experiment, fine_tune = start()
    run = run_with_folds(experiment, fine_tune, split)
    results = experiment.calibrate(run)
    archive = pack(experiment, run, tokenizers["uncased"], tmp_path, rows=None, **results)[-1]
    classifier = tools.Classifier.load(archive, "cpu")
    columns = ["logit_0", "logit_1"]
    np.testing.assert_allclose(classifier.validation[columns], results["logits"], rtol=1e-6)
    np.testing.assert_allclose(classifier.out_of_fold[columns], results["logits"], rtol=1e-6)
    assert classifier.out_of_fold["text_hash"].tolist() == [hash_text(TEXTS[row]) for row in run.held_out_rows]
    assert f"; epoch {run.best_epoch} was kept, chosen on 3 held-out folds." in classifier.describe()[0]
    assert classifier.settings["training_rows"] == 13 and classifier.settings["validation_folds"] == 3
    assert not is_unfinished(tmp_path / "tiny")
