"""Whole runs of train.ipynb: training resumes after every kind of interruption, and many processes train as one does.

It runs as docs/many-machines.md describes: parameters by papermill, a script by nbconvert, torchrun.
"""

import json
import os
import re
import subprocess
from collections import Counter

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

pytestmark = pytest.mark.slow

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
    "FOLDS": 0,
    "CHECKPOINT_MINUTES": 0,  # one after every step
}
# Runs run.py in a forked child for each interruption, which saves importing torch. An interruption is an event (a step
# completed, a checkpoint half written), its number, a signal, and the rank of the process that gets it. A signal sent
# while the losses of a step are summed is recorded, and obeyed after the next step.
HARNESS = """
import os, runpy, signal, sys
import accelerate, matplotlib.pyplot, pandas, scipy.optimize, sklearn.metrics, sklearn.model_selection, torch
import tools
from textbert.training import distributed, trainer


distributed.choose_mixed_precision = lambda: "no"
torch.set_num_threads(1)

def interrupt(event, number, signal_name, rank=0):
    count = 0
    def send_signal_if_due():
        nonlocal count
        count += 1
        if count == int(number) and os.environ.get("RANK", "0") == str(rank):
            os.kill(os.getpid(), getattr(signal, signal_name))
    real_sum, real_save = distributed.all_reduce_sum, torch.save
    def all_reduce_sum(*values):
        if event == "step":
            send_signal_if_due()
        return real_sum(*values)
    def save(content, file, **options):
        real_save(content, file, **options)
        if event == "write" and not options:
            os.truncate(file.fileno(), file.tell() // 2)
            send_signal_if_due()
            file.truncate(0), file.seek(0)
            real_save(content, file)
    trainer.all_reduce_sum, torch.save = all_reduce_sum, save

if "RANK" in os.environ:
    if sys.argv[1:]:
        interrupt(*sys.argv[1].split(":"))
    runpy.run_path("run.py", run_name="__main__")
    sys.exit()
for interruption in sys.argv[1:]:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        if interruption != "none":
            interrupt(*interruption.split(":"))
        try:
            runpy.run_path("run.py", run_name="__main__")
        except BaseException as error:
            print(type(error).__name__, error, flush=True)
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    files = sorted(os.listdir("outputs/tiny/checkpoint")) if os.path.isdir("outputs/tiny/checkpoint") else []
    print(f"RUN {interruption} STATUS {status} FILES {' '.join(files)}", flush=True)
"""


def write(folder, **parameters):
    write_script("train", folder / "run.py", **{**PARAMETERS, **parameters})


@pytest.fixture
def project(tmp_path, bert_files):
    """Return a function that makes a folder with a tiny data set, a tiny BERT and train.ipynb as a script."""

    def make(dropout=0.1, name="project", rows=61, **parameters):
        folder = tmp_path / name
        data = folder / "data" / "tiny"
        data.mkdir(parents=True)
        for code in ("tools.py", "textbert"):
            (folder / code).symlink_to(ROOT / code)
        rng = np.random.default_rng(0)
        labels = [int(i % 4 == 0) for i in range(rows)]
        lines = [f"{i}\t{k}\ta\t{('bad', 'good')[k]} soup {rng.integers(10**9)}\n" for i, k in enumerate(labels)]
        (data / "train.tsv").write_text("".join(lines))
        files = bert_files(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
        archive.write_archive(files, tools.get_archive_path("tiny-bert", folder / "cache"))
        (folder / "harness.py").write_text(HARNESS)
        write(folder, **parameters)
        return folder

    return make


@pytest.fixture
def run(fork_server):
    """Return a function that runs the script once for each interruption, or with several processes.

    It returns what subprocess.run does, and raises TimeoutExpired if the script hangs.
    """

    def run_harness(folder, *interruptions, processes=None):
        command = fork_server.python
        if processes is not None:
            command = [*command, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
            command += ["--no-python", *fork_server.python]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        options = {"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": 900}
        return subprocess.run([*command, "harness.py", *interruptions], check=False, **options)

    return run_harness


def results(folder):
    """Return the files that training writes, as bytes, without config.json, which has the time of day."""
    names = ["losses.csv", "history.csv", "validation.csv", "vocab.txt"]
    names += ["out_of_fold.csv"] if (folder / "outputs/tiny/out_of_fold.csv").is_file() else []
    weights = torch.load(folder / "outputs/tiny/pytorch_model.bin", weights_only=True)
    files = {name: (folder / "outputs/tiny" / name).read_bytes() for name in names}
    return files | {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


def steps_in(output, pattern):
    """Return the numbers in an output at the place of N in `pattern`."""
    return [int(number) for number in re.findall(pattern.replace("N", r"(\d+)"), output)]


def test_run_killed_and_stopped_at_any_step_ends_bitwise_identical(project, run):
    undisturbed, folder = project(name="undisturbed"), project(name="disturbed")
    assert "RUN none STATUS 0 FILES \n" in run(undisturbed, "none").stdout
    interruptions = [
        "write:1:SIGKILL",  # of the checkpoint before the first step
        "step:4:SIGKILL",
        "write:1:SIGKILL",
        "step:1:SIGKILL",
        "step:3:SIGTERM",
        "write:2:SIGKILL",  # of the one at the end of the second epoch
        "step:2:SIGINT",
    ]
    output = run(folder, *interruptions, "none").stdout
    lines = [line for line in output.splitlines() if line.startswith("RUN ")]
    assert [int(line.split()[3]) for line in lines] == [-9, -9, -9, -9, 1, -9, 1, 0], output
    assert all("checkpoint.pt" in line.split() for line in lines[1:-1]) and lines[-1].endswith("FILES ")
    assert (
        max(len(line.split("FILES")[1].split()) for line in lines) == 2
    )  # the complete checkpoint, and at most one incomplete
    assert steps_in(output, "stopped after step N: run it again to resume") == [7, 11]
    assert steps_in(output, "Resuming from step N of 12") == [3, 3, 3, 7, 8, 11]
    assert results(folder) == results(undisturbed)
    # a finished run starts over; now there are checkpoints only after each epoch and when it is stopped
    write(folder, CHECKPOINT_MINUTES=1440)
    output = run(folder, "step:7:SIGKILL", "step:3:SIGTERM", "none").stdout
    assert steps_in(output, "STATUS -?N") == [9, 1, 0] and steps_in(output, "stopped after step N") == [8]
    assert steps_in(output, "Resuming from step N of 12") == [4, 8]
    assert results(folder) == results(undisturbed)


def test_interrupted_folds_resume(project, run):
    """With few labels: five folds, each of 12 steps, and then a run of 15 on all rows."""
    undisturbed, folder = (project(name=name, FOLDS=None) for name in ("undisturbed", "disturbed"))
    assert "already done" not in run(undisturbed, "none").stdout
    # losses are also summed at the end of each run, which makes a thirteenth event
    output = run(folder, "step:17:SIGTERM", "step:4:SIGKILL", "step:55:SIGTERM", "none").stdout
    first, _, third, last = output.split("RUN ")[:4]  # what is printed before a SIGKILL may be lost
    assert steps_in(output, "STATUS -?N") == [1, 9, 1, 0], output
    assert re.findall("RUN .* FILES (.*)", output) == ["trials.json", "trials.json", "checkpoint.pt trials.json", ""]
    assert "stopped after step 5: run it again to resume" in first and "fold 2 of 5" in first
    assert [part.count("already done") for part in (first, third, last)] == [0, 1, 5]
    assert "stopped after step 4: run" in third and "Resuming from step 4 of 15" in last
    assert results(folder) == results(undisturbed) and "out_of_fold.csv" in results(folder)


# 90 rows are too few for a validation set, so folds choose; with 200 they come after
@pytest.mark.parametrize(("rows", "batch_size"), [(90, 7), (200, 15)])
def test_interrupted_search_resumes(project, run, rows, batch_size):
    parameters = {"LEARNING_RATE": 1e-5, "SEARCH_LEARNING_RATES": [1e-2], "FOLDS": 2, "NUM_TRAIN_EPOCHS": 4}
    parameters |= {"GRADIENT_ACCUMULATION_STEPS": 1, "CLASS_WEIGHTS": "balanced", "VALIDATION_SHARE": 0.5}
    parameters |= {"rows": rows, "TRAIN_BATCH_SIZE": batch_size}
    undisturbed, folder = (project(name=name, **parameters) for name in ("undisturbed", "disturbed"))
    # the folds of the winner are done when it is trained on all rows
    assert run(undisturbed, "none").stdout.count("already done") == (2 if rows == 90 else 0)
    # folds of 28 steps, and training runs of 52, with 200 rows of 28; results of one run are used by all that follow
    output = run(folder, "step:40:SIGKILL", "step:40:SIGTERM", "none").stdout
    assert steps_in(output, "STATUS -?N") == [9, 1, 0], output
    counts = [part.count("already done") for part in output.split("RUN ")]
    assert counts[0] == 0 and counts[:3] == sorted(counts[:3]) and counts[2] > 0
    assert results(folder) == results(undisturbed)
    settings = [json.loads((f / "outputs/tiny/config.json").read_text())["classifier"] for f in (folder, undisturbed)]
    for name in ("search", "folds"):
        assert len(settings[0][name]) == 2 and settings[0][name] == settings[1][name]
    assert settings[0]["parameters"]["LEARNING_RATE"] == 1e-2  # the better one, whose losses and history are saved
    losses, history = (pd.read_csv(folder / f"outputs/tiny/{name}.csv") for name in ("losses", "history"))
    assert history["training_loss"].tolist() == pytest.approx(losses["loss"].to_numpy().reshape(4, -1).mean(1).tolist())


def test_checkpoint_with_other_settings_is_refused_unless_resume_is_false(project, run):
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


@pytest.mark.usefixtures("forked_kernels")
def test_evaluate_reports_an_unfinished_training_run(project, run):
    folder = project()
    notebook = nbformat.read(ROOT / "evaluate.ipynb", as_version=4)
    nbformat.write(notebook, folder / "evaluate.ipynb")
    others = (folder / "data/tiny/train.tsv").read_text().replace("soup", "food")
    (folder / "data/tiny/dev.tsv").write_text(others)

    def evaluate():
        """Run evaluate.ipynb; return its output, and the name of the error that stops it."""
        error, source, target = None, folder / "evaluate.ipynb", folder / "done.ipynb"
        try:
            papermill.execute_notebook(source, target, {"TASK_NAME": "tiny"}, cwd=folder, progress_bar=False)
        except PapermillExecutionError as papermill_error:
            error = papermill_error.ename
        executed = nbformat.read(folder / "done.ipynb", as_version=4)
        return "".join(o.get("text", "") for cell in executed.cells for o in cell.get("outputs", [])), error

    run(folder, "step:3:SIGKILL")
    printed, error = evaluate()
    assert "tiny was not finished: run train.ipynb again" in printed and error == "FileNotFoundError"
    run(folder, "none")
    printed, error = evaluate()
    assert "not finished" not in printed and error is None
    run(folder, "step:3:SIGKILL")
    printed, error = evaluate()
    assert "tiny was not finished" in printed and "is of an earlier training" in printed and error is None


# 48 training rows: with batches of 47 the last one has 1, too few for two processes
@pytest.mark.parametrize(
    "parameters",
    [
        {"TRAIN_BATCH_SIZE": 7, "CLASS_WEIGHTS": "balanced", "ADVERSARIAL_EPSILON": 0.1, "R_DROP": 1.0},
        {"TRAIN_BATCH_SIZE": 47},
        {"FOLDS": 2},
    ],
)
def test_two_processes_train_as_one_does(project, run, parameters):
    folder = project(dropout=0.0, **parameters)
    with open(folder / "run.py", "a") as script:
        script.write("np.save(f'held_out_{accelerator.process_index}.npy', logits)\n")
    printed_by_one = run(folder, "none").stdout
    assert "STATUS 0" in printed_by_one
    one = {name: pd.read_csv(folder / f"outputs/tiny/{name}.csv") for name in ("losses", "history", "validation")}
    (folder / "data/tiny/train_features.pkl").unlink()
    result = run(folder, processes=2)
    assert result.returncode == 0, result.stderr
    for once in ("pytorch-pretrained-bert", "examples converted", "BERT with", "is kept ("):
        assert result.stdout.count(once) == 1
    assert result.stdout.count("epoch 1: training loss") == 1 + parameters.get("FOLDS", 0)
    lines, lines_of_one = (Counter(filter(None, text.splitlines())) for text in (result.stdout, printed_by_one))
    assert [line for line, count in lines.items() if count > max(1, lines_of_one[line])] == []
    assert "Figure(" not in result.stdout
    two = {name: pd.read_csv(folder / f"outputs/tiny/{name}.csv") for name in one}
    np.testing.assert_allclose(two["losses"], one["losses"], atol=1e-5)
    counts = ["epoch", "mcc", "tp", "tn", "fp", "fn", "accuracy", "f1"]
    assert two["history"][counts].equals(one["history"][counts])
    assert two["validation"][["id", "label"]].equals(one["validation"][["id", "label"]])
    np.testing.assert_allclose(two["validation"], one["validation"], atol=1e-4)
    held_out = [np.load(folder / f"held_out_{rank}.npy") for rank in range(2)]
    assert np.array_equal(*held_out) and len(held_out[0]) == len(two["validation"])


def test_job_ends_with_a_killed_process_and_resumes(project, run):
    folder, undisturbed = project(name="killed"), project(name="undisturbed")
    killed = run(folder, "step:5:SIGKILL:1", processes=2)
    assert killed.returncode != 0
    assert re.search(r"exitcode *: -9", killed.stderr), killed.stderr
    resumed = run(folder, processes=2)
    assert resumed.returncode == 0 and "Resuming from step 4 of 12" in resumed.stdout, resumed.stderr
    assert run(undisturbed, processes=2).returncode == 0
    assert results(folder) == results(undisturbed)
