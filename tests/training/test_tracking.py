"""What accelerate's trackers log of a training run: tensorboard's files are read back."""

import json
import os
import subprocess
import sys
import tarfile
from contextlib import suppress

import accelerate.tracking
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from accelerate.utils import LoggerType
from conftest import ROOT, make_project, write_script
from tiny import fake_loss, make_features, make_loop, make_model

from textbert.notebook.parameters import TRACKER
from textbert.training import batches
from textbert.training.checkpoints import Checkpoint
from textbert.training.config import DATA_PARAMETERS, RULES
from textbert.training.distributed import TRACKERS, experiment_tracker
from textbert.utils.validation import find_violation

PARAMETERS = {"LEARNING_RATE": 1e-3, "NUM_TRAIN_EPOCHS": 2, "SEARCH_EPOCHS": [2, 4], "PATIENCE": None, "RESUME": True}


class Killed(Exception):
    """Stands in for SIGKILL."""


@pytest.fixture(scope="module")
def features(tokenizers):
    return make_features(tokenizers["uncased"])


@pytest.fixture
def read_metrics():
    """Return a function that reads the metrics in a folder, as a dict from name to a list of (step, value)."""
    reason = "optional: pip install tensorboard"
    pytest.importorskip("tensorboard", reason=reason)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder):
        events = EventAccumulator(str(folder), {"scalars": 0}).Reload()
        return {
            name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]
        }

    return read


def learn(features, output_dir, name="training", track_with="tensorboard", checkpoint=None, **names):
    """Train for two epochs of three steps, tracked; return the Run."""
    return start(features, output_dir, track_with, **names)(name, checkpoint)


def start(features, output_dir, track_with="tensorboard", loss=None, **names):
    """Return a function `learn_as(name, checkpoint)` that trains, tracked, and returns the Run."""
    loop, rows = make_loop(make_model(), features, 5, **names), np.arange(13)

    def learn_as(name, checkpoint=None):
        tracker = experiment_tracker(loop.experiment.accelerator, track_with, output_dir, name, PARAMETERS)
        with fake_loss(loss):
            return loop.fine_tune(rows, rows, 1e-3, 2, checkpoint, tracker)

    return learn_as


def test_tensorboard_has_losses_validation_and_parameters(features, tmp_path, read_metrics):
    run = learn(features, tmp_path / "task")
    folder = tmp_path / "task" / "tracking" / "training" / "task"
    metrics, losses = read_metrics(folder), run.progress.losses
    assert metrics.pop("training/loss") == [(step, np.float32(loss)) for step, loss in enumerate(losses, start=1)]
    means = [np.float32(np.mean(losses[:3])), np.float32(np.mean(losses[3:]))]
    assert metrics.pop("training/mean_loss") == [(3, means[0]), (6, means[1])]
    reports = run.progress.history
    assert metrics.pop("validation/mcc") == [(3, np.float32(reports[0]["mcc"])), (6, np.float32(reports[1]["mcc"]))]
    names = reports[0].keys() - {"task", "epoch", "training_loss", "mcc", "mcc_error"}
    assert metrics.keys() == {f"validation/{name}" for name in names} and "loss" in names
    (settings,) = folder.glob("*/hparams.yml")
    expected = {"training": "training", **PARAMETERS, "SEARCH_EPOCHS": "[2, 4]", "PATIENCE": "None"}
    assert yaml.safe_load(settings.read_text()) == expected


def test_tracking_changes_no_result(features, tmp_path, read_metrics):
    untracked, tracked = (learn(features, tmp_path, track_with=n).progress for n in (None, "tensorboard"))
    assert untracked.losses == tracked.losses
    assert all(torch.equal(untracked.best_weights[name], tensor) for name, tensor in tracked.best_weights.items())


@pytest.mark.parametrize("step", [2, 5])
def test_steps_of_a_resumed_run_continue(features, monkeypatch, tmp_path, read_metrics, step):
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", PARAMETERS, minutes=0)
    with monkeypatch.context() as patch, suppress(Killed):
        real, calls = batches.shard_batch, []

        def shard_batch(batch, accelerator):
            calls.append(batch)
            if len(calls) == step + 1:
                raise Killed
            return real(batch, accelerator)

        patch.setattr(batches, "shard_batch", shard_batch)
        learn(features, tmp_path, checkpoint=checkpoint)
    folder = tmp_path / "tracking" / "training" / tmp_path.name
    assert [step for step, _ in read_metrics(folder)["training/loss"]] == list(range(1, step + 1))
    run = learn(features, tmp_path, checkpoint=checkpoint)
    losses = [(number, np.float32(loss)) for number, loss in enumerate(run.progress.losses, start=1)]
    assert sorted(read_metrics(folder)["training/loss"]) == losses and len(losses) == 6
    assert [number for number, _ in sorted(read_metrics(folder)["validation/mcc"])] == [3, 6]


def test_each_run_is_tracked_separately(features, tmp_path, read_metrics):
    """As those of a search and of folds, one after the other with one accelerator."""
    names = ["training", "learning rate 0.001, 2 epochs", "fold 1 of 2"]
    factors = iter(np.repeat([1.0, 2.0, 3.0], 6))
    learn_as = start(features, tmp_path, loss=lambda: 0.5 * next(factors))
    for name in names:
        learn_as(name)
    for factor, name in enumerate(names, start=1):
        losses = read_metrics(tmp_path / "tracking" / name / tmp_path.name)["training/loss"]
        assert losses == [(step, 0.5 * factor) for step in range(1, 7)]


def test_tracker_is_finished_when_training_fails(features, monkeypatch, tmp_path):
    events = []

    class Tracker(accelerate.tracking.GeneralTracker):
        name, requires_logging_directory, tracker = "spy", False, None

        def __init__(self, run_name):
            super().__init__()
            events.append(run_name)

        def finish(self):
            events.append("finished")

    def loss():
        raise Killed

    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "spy", Tracker)
    for _ in range(2):
        with pytest.raises(Killed):
            learn(features, tmp_path / "task", track_with="spy", loss=loss)
    assert events == ["task", "finished"] * 2


TWO_PROCESSES = """
import sys
from textbert.training.distributed import make_accelerator, experiment_tracker

accelerator = make_accelerator()
assert accelerator.num_processes == 2
with experiment_tracker(accelerator, "tensorboard", sys.argv[1], "training", {}) as log:
    log({"training/loss": 1.0 + accelerator.process_index}, 1)
accelerator.end_training()
"""


def test_only_the_main_process_writes(tmp_path, read_metrics):
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "two.py", "task"]
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "task" / "tracking" / "training" / "task"
    assert read_metrics(folder) == {"training/loss": [(1, 1.0)]}
    assert len(list(folder.glob("events.*"))) == 1


def run_notebook(python, name, folder, **parameters):
    """Run a notebook as a script in a folder; `python` is the beginning of the command."""
    write_script(name, folder / f"{name}.py", TASK_NAME="tiny", BERT_MODEL="tiny-bert", MAX_SEQ_LENGTH=12, **parameters)
    command = [*python, f"{name}.py"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_train_tracks_the_run_that_is_kept(bert_files, tmp_path, read_metrics, fork_server):
    """Separately from those of a search and of folds."""
    make_project(tmp_path, bert_files)
    run_notebook(fork_server.python, "data_prep", tmp_path)
    options = {"SEARCH_LEARNING_RATES": [1e-3], "FOLDS": 2, "LEARNING_RATE": 3e-3, "NUM_TRAIN_EPOCHS": 2}
    run_notebook(fork_server.python, "train", tmp_path, TRACK_WITH="tensorboard", **options)
    output_dir = tmp_path / "outputs" / "tiny"
    folders = [path / "tiny" for path in (output_dir / "tracking").iterdir()]
    losses = [read_metrics(folder)["training/loss"] for folder in folders]
    assert all([step for step, _ in run] == list(range(1, len(run) + 1)) for run in losses)
    kept = pd.read_csv(output_dir / "losses.csv")["loss"].tolist()
    (folder,) = (folder for folder, run in zip(folders, losses) if [loss for _, loss in run] == pytest.approx(kept))
    with tarfile.open(tmp_path / "cache" / "tiny.tar.gz") as tar:
        classifier = json.load(tar.extractfile("config.json"))["classifier"]
    (settings,) = folder.glob("*/hparams.yml")
    assert yaml.safe_load(settings.read_text())["LEARNING_RATE"] == classifier["parameters"]["LEARNING_RATE"]


# ---------- The parameter ---------------------------------------------------------------------------------------------


def test_trackers_are_those_of_accelerate():
    assert sorted(accelerate.tracking.LOGGER_TYPE_TO_CLASS) == list(TRACKERS)


def test_tracker_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [LoggerType.TENSORBOARD])
    TRACKER.check_available("tensorboard"), TRACKER.check_available(None)
    assert "TRACK_WITH" not in {*RULES, *DATA_PARAMETERS}  # or a checkpoint would be refused
    with pytest.raises(ImportError, match="TRACK_WITH is 'comet_ml', which .* Run: python -m pip install comet_ml"):
        TRACKER.check_available("comet_ml")
    assert find_violation("comet_ml", TRACKER) is None and find_violation("Tensorboard", TRACKER) == "'Tensorboard'"
