"""Whole runs: training goes on after whatever stopped it, and many processes train as one does.

`train.ipynb` runs here as docs/many-machines.md describes: parameters by papermill, a script by nbconvert, torchrun.
"""

import json
import os
import re
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
import torch
from conftest import ROOT, write_script
from papermill.exceptions import PapermillExecutionError

import tools
from textbert.model import archive

PARAMETERS = {
    "TASK_NAME": "tiny",
    "BERT_MODEL": "tiny-bert",
    "MAX_SEQ_LENGTH": 12,
    "TRAIN_BATCH_SIZE": 7,
    "EVAL_BATCH_SIZE": 5,
    "NUM_TRAIN_EPOCHS": 3,
    "GRADIENT_ACCUMULATION_STEPS": 2,
    "LEARNING_RATE": 3e-3,
    "VALIDATION_SHARE": 0.2,
    "CHECKPOINT_MINUTES": 0,  # one after every step
}
# Runs run.py in a child for each fate. A fate is an event (a step taken, a checkpoint half written), its number, and
# what happens then; only the process of that rank is hit. Forking saves importing torch for each. A signal that comes
# while a step's losses are summed is noted, and obeyed after the step that follows.
HARNESS = """
import os, runpy, signal, sys
import accelerate, matplotlib.pyplot, pandas, scipy.optimize, sklearn.metrics, sklearn.model_selection, torch
import tools
from textbert.training import distributed
from textbert.training import distributed

distributed.choose_mixed_precision = lambda: "no"
torch.set_num_threads(1)

def meet(event, number, what, rank=0):
    count = 0
    def happens():
        nonlocal count
        count += 1
        if count == int(number) and os.environ.get("RANK", "0") == str(rank):
            os.kill(os.getpid(), getattr(signal, what))
    really_sum, really_save = distributed.all_reduce_sum, torch.save
    def summed(*values):
        if event == "step":
            happens()
        return really_sum(*values)
    def saved(content, file, **options):
        really_save(content, file, **options)
        if event == "write" and not options:
            os.truncate(file.fileno(), file.tell() // 2)
            happens()
            file.truncate(0), file.seek(0)
            really_save(content, file)
    distributed.all_reduce_sum, torch.save = summed, saved

if "RANK" in os.environ:
    if sys.argv[1:]:
        meet(*sys.argv[1].split(":"))
    runpy.run_path("run.py", run_name="__main__")
    sys.exit()
for fate in sys.argv[1:]:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        if fate != "none":
            meet(*fate.split(":"))
        try:
            runpy.run_path("run.py", run_name="__main__")
        except BaseException as error:
            print(type(error).__name__, error, flush=True)
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = sorted(os.listdir("outputs/tiny/checkpoint")) if os.path.isdir("outputs/tiny/checkpoint") else []
    print(f"FATE {fate} STATUS {status} LEFT {' '.join(left)}", flush=True)
"""


def write(folder, **parameters):
    write_script("train", folder / "run.py", **{**PARAMETERS, **parameters})


@pytest.fixture
def project(tmp_path, bert_files):
    """A function that lays out a folder with a tiny data set, a tiny BERT and train.ipynb as a script."""

    def make(dropout=0.1, name="project", **parameters):
        folder = tmp_path / name
        data = folder / "data" / "tiny"
        data.mkdir(parents=True)
        for code in ("tools.py", "textbert"):
            (folder / code).symlink_to(ROOT / code)
        rng = np.random.default_rng(0)
        labels = [int(i % 4 == 0) for i in range(61)]
        lines = [f"{i}\t{k}\ta\t{('bad', 'good')[k]} soup {rng.integers(10**9)}\n" for i, k in enumerate(labels)]
        (data / "train.tsv").write_text("".join(lines))
        files = bert_files(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
        archive.write_archive(files, tools.get_archive_path("tiny-bert", folder / "cache"))
        (folder / "harness.py").write_text(HARNESS)
        write(folder, **parameters)
        return folder

    return make


def run(folder, *fates, processes=None):
    """Run the script once for each fate, or with several processes; return what subprocess.run does.

    Raises TimeoutExpired if it hangs.
    """
    command = [sys.executable] if processes is None else [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [] if processes is None else ["--nproc_per_node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    options = {"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": 900}
    return subprocess.run([*command, "harness.py", *fates], check=False, **options)


def results(folder):
    """Return what a training leaves, as bytes, but for config.json, which has the time of day."""
    names = ("losses.csv", "history.csv", "validation.csv", "vocab.txt")
    weights = torch.load(folder / "outputs/tiny/pytorch_model.bin", weights_only=True)
    found = {name: (folder / "outputs/tiny" / name).read_bytes() for name in names}
    return found | {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


def steps_in(output, pattern):
    """Return the numbers of the steps that stand where `pattern` has N."""
    return [int(number) for number in re.findall(pattern.replace("N", r"(\d+)"), output)]


def test_killed_and_stopped_at_any_step_the_end_is_the_same_to_the_bit(project):
    undisturbed, folder = project(name="undisturbed"), project(name="disturbed")
    assert "FATE none STATUS 0 LEFT \n" in run(undisturbed, "none").stdout
    fates = [
        "write:1:SIGKILL",  # of the checkpoint before the first step
        "step:4:SIGKILL",
        "write:1:SIGKILL",
        "step:1:SIGKILL",
        "step:3:SIGTERM",
        "write:2:SIGKILL",  # of the one at the end of the second epoch
        "step:2:SIGINT",
    ]
    output = run(folder, *fates, "none").stdout
    lines = [line for line in output.splitlines() if line.startswith("FATE ")]
    assert [int(line.split()[3]) for line in lines] == [-9, -9, -9, -9, 1, -9, 1, 0], output
    assert all("checkpoint.pt" in line.split() for line in lines[1:-1]) and lines[-1].endswith("LEFT ")
    assert max(len(line.split("LEFT")[1].split()) for line in lines) == 2  # the good one, and at most one half one
    assert steps_in(output, "stopped after step N: run it again to go on") == [7, 11]
    assert steps_in(output, "Going on after step N of 12") == [3, 3, 3, 7, 8, 11]
    assert results(folder) == results(undisturbed)
    # what is finished starts again; now a checkpoint is written at the end of an epoch alone, and when it is stopped
    write(folder, CHECKPOINT_MINUTES=1440)
    output = run(folder, "step:7:SIGKILL", "step:3:SIGTERM", "none").stdout
    assert steps_in(output, "STATUS -?N") == [9, 1, 0] and steps_in(output, "stopped after step N") == [8]
    assert steps_in(output, "Going on after step N of 12") == [4, 8]
    assert results(folder) == results(undisturbed)


def test_an_interrupted_search_goes_on_with_what_is_left(project):
    parameters = {"LEARNING_RATE": 1e-5, "SEARCH_LEARNING_RATES": [1e-2], "FOLDS": 2, "NUM_TRAIN_EPOCHS": 4}
    parameters |= {"GRADIENT_ACCUMULATION_STEPS": 1, "CLASS_WEIGHTS": "balanced"}
    undisturbed, folder = (project(name=name, **parameters) for name in ("undisturbed", "disturbed"))
    assert "done before" not in run(undisturbed, "none").stdout
    # trainings of 28 steps, folds of 20; what one run has finished is known to all that follow
    output = run(folder, "step:40:SIGKILL", "step:40:SIGTERM", "none").stdout
    assert steps_in(output, "STATUS -?N") == [9, 1, 0], output
    known = [part.count("done before") for part in output.split("FATE")]
    assert known[0] == 0 and known[:3] == sorted(known[:3]) and known[2] > 0
    assert results(folder) == results(undisturbed)
    settings = [json.loads((f / "outputs/tiny/config.json").read_text())["classifier"] for f in (folder, undisturbed)]
    for name in ("search", "folds"):
        assert len(settings[0][name]) == 2 and settings[0][name] == settings[1][name]
    assert settings[0]["parameters"]["LEARNING_RATE"] == 1e-2  # the better one, whose losses and history are kept
    losses, history = (pd.read_csv(folder / f"outputs/tiny/{name}.csv") for name in ("losses", "history"))
    assert history["training_loss"].tolist() == pytest.approx(losses["loss"].to_numpy().reshape(4, 7).mean(1).tolist())


def test_a_checkpoint_of_another_training_is_refused_until_told_to_start_again(project):
    folder = project()
    run(folder, "step:3:SIGKILL")
    write(folder, LEARNING_RATE=1e-3, EVAL_BATCH_SIZE=3, CHECKPOINT_MINUTES=1)
    refused = run(folder, "none").stdout
    assert "(LEARNING_RATE was 0.003 and is 0.001): set RESUME = False" in refused and "STATUS 1" in refused
    with open(folder / "data/tiny/train.tsv", "a") as file:
        file.write("61\t1\ta\tone more\n")
    write(folder)
    assert "(data was " in run(folder, "none").stdout
    write(folder, RESUME=False)
    assert "STATUS 0" in run(folder, "none").stdout


def test_evaluate_says_that_a_training_was_not_finished(project):
    folder = project()
    notebook = nbformat.read(ROOT / "evaluate.ipynb", as_version=4)
    nbformat.write(notebook, folder / "evaluate.ipynb")
    others = (folder / "data/tiny/train.tsv").read_text().replace("soup", "food")
    (folder / "data/tiny/dev.tsv").write_text(others)

    def evaluate():
        """Return what evaluate.ipynb prints, and the name of the error it ends with."""
        error, source, target = None, folder / "evaluate.ipynb", folder / "done.ipynb"
        try:
            papermill.execute_notebook(source, target, {"TASK_NAME": "tiny"}, cwd=folder, progress_bar=False)
        except PapermillExecutionError as caught:
            error = caught.ename
        done = nbformat.read(folder / "done.ipynb", as_version=4)
        return "".join(o.get("text", "") for cell in done.cells for o in cell.get("outputs", [])), error

    run(folder, "step:3:SIGKILL")
    printed, error = evaluate()
    assert "tiny was not finished: run train.ipynb again" in printed and error == "FileNotFoundError"
    run(folder, "none")
    printed, error = evaluate()
    assert "not finished" not in printed and error is None
    run(folder, "step:3:SIGKILL")
    printed, error = evaluate()
    assert "tiny was not finished" in printed and "is of an earlier training" in printed and error is None


# 48 rows to train: with 47 to a batch there is 1 in the last, too few for two
@pytest.mark.parametrize(
    "parameters",
    [
        {"TRAIN_BATCH_SIZE": 7, "CLASS_WEIGHTS": "balanced", "ADVERSARIAL_EPSILON": 0.1, "R_DROP": 1.0},
        {"TRAIN_BATCH_SIZE": 47},
    ],
)
def test_two_processes_train_as_one_does(project, parameters):
    folder = project(dropout=0.0, **parameters)
    assert "STATUS 0" in run(folder, "none").stdout
    one = {name: pd.read_csv(folder / f"outputs/tiny/{name}.csv") for name in ("losses", "history", "validation")}
    (folder / "data/tiny/train_features.pkl").unlink()
    done = run(folder, processes=2)
    assert done.returncode == 0, done.stderr
    for once in ("pytorch-pretrained-bert", "examples converted", "BERT with", "epoch 1: training loss", "is kept ("):
        assert done.stdout.count(once) == 1
    lines = [line for line in done.stdout.splitlines() if line]
    assert len(lines) == len(set(lines))
    assert "Figure(" not in done.stdout
    two = {name: pd.read_csv(folder / f"outputs/tiny/{name}.csv") for name in one}
    np.testing.assert_allclose(two["losses"], one["losses"], atol=1e-5)
    counts = ["epoch", "mcc", "tp", "tn", "fp", "fn", "accuracy", "f1"]
    assert two["history"][counts].equals(one["history"][counts])
    assert two["validation"][["id", "label"]].equals(one["validation"][["id", "label"]])
    np.testing.assert_allclose(two["validation"], one["validation"], atol=1e-4)


def test_a_killed_process_ends_all_and_the_job_goes_on(project):
    folder, undisturbed = project(name="killed"), project(name="undisturbed")
    killed = run(folder, "step:5:SIGKILL:1", processes=2)
    assert killed.returncode != 0
    assert "exitcode: -9" in killed.stderr, killed.stderr
    resumed = run(folder, processes=2)
    assert resumed.returncode == 0 and "Going on after step 4 of 12" in resumed.stdout, resumed.stderr
    assert run(undisturbed, processes=2).returncode == 0
    assert results(folder) == results(undisturbed)
