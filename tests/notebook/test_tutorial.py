"""`make tutorial` prints headings and output of the notebooks, passes their parameters on, and can be interrupted."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from unittest import mock

import nbformat
import pytest
from conftest import ROOT, make_project

from textbert.model.archive import read_archive
from textbert.notebook.tutorial import (
    NOTEBOOKS,
    Interrupted,
    StreamingClient,
    assign_parameters,
    main,
    parse_parameters,
    run_notebook,
    run_tutorial,
)

TINY = "BERT_MODEL=tiny-bert NUM_TRAIN_EPOCHS=2 FOLDS=0 DEV_SHARE=0.3"


@pytest.fixture(scope="module")
def project(tmp_path_factory, bert_files):
    """A folder with the project's files, a tiny data set and a tiny BERT."""
    return make_project(tmp_path_factory.mktemp("project"), bert_files)


def run(folder, *arguments, **environment):
    """Run the tutorial as the Makefile does; return the completed process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "textbert.notebook.tutorial", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def read_executed(project, name):
    return nbformat.read(project / f"outputs/tiny/{name}.ipynb", as_version=4)


def test_headings_and_output_are_printed(project):
    process = run(project, "TASK_NAME=tiny", TINY)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    headings = ["1 · Prepare the data", "2 · Fine-tune BERT", "Training", "3 · Evaluate, and use it"]
    positions = [lines.index(heading) for heading in headings]
    assert positions == sorted(positions)
    under_training = lines[positions[2] : positions[3]]
    assert any(line.startswith("  epoch 2: training loss") for line in under_training)
    assert not any(line.startswith("  epoch 3") for line in lines)
    assert "Figure" not in process.stdout and "Cell" not in process.stdout
    assert "unknown parameter" not in process.stdout + process.stderr
    end = lines[-6:]
    assert end[0].startswith("Done in about") and [line.split("  ")[-1] for line in end[1:4]] == [
        "majority class",
        "TF-IDF",
        "BERT",
    ]
    assert "outputs/tiny/report/report.html" in end[4] and end[5].startswith("Next: make lab")
    assert any("Trained in about" in str(cell.get("outputs")) for cell in read_executed(project, "train").cells)


def test_each_parameter_goes_to_the_notebooks_that_have_it(project):
    injected = {}
    for name in NOTEBOOKS:
        cells = read_executed(project, name).cells
        (source,) = [cell.source for cell in cells if "injected-parameters" in cell.metadata.get("tags", [])]
        injected[name] = sorted(source.splitlines()[1:])
    task, model = 'TASK_NAME = "tiny"', 'BERT_MODEL = "tiny-bert"'
    assert injected["data_prep"] == [model, "DEV_SHARE = 0.3", task]
    assert injected["train"] == [model, "FOLDS = 0", "NUM_TRAIN_EPOCHS = 2", task] and injected["evaluate"] == [task]


@pytest.mark.slow
@pytest.mark.usefixtures("forked_kernels")
def test_program_begins_with_a_later_notebook(project, capsys):
    archive, tsv = project / "cache/tiny.tar.gz", project / "data/tiny/train.tsv"
    before = archive.stat().st_mtime_ns, tsv.stat().st_mtime_ns
    results = run_tutorial({"TASK_NAME": "tiny", "SHOW_MISTAKES": 1}, start="evaluate", folder=project)
    assert (archive.stat().st_mtime_ns, tsv.stat().st_mtime_ns) == before
    saved = json.loads((project / "outputs/tiny/report/eval_results.json").read_text(encoding="utf-8"))["results"]
    assert list(results) == ["majority class", "TF-IDF", "BERT"]
    assert [result["mcc"] for result in results.values()] == [result["mcc"] for result in saved.values()]
    printed = capsys.readouterr().out
    assert "3 · Evaluate, and use it" in printed and "2 · Fine-tune BERT" not in printed


@pytest.mark.slow
@pytest.mark.usefixtures("forked_kernels")
def test_failing_cell_ends_it_with_one_line(project):
    process = run(project, "TASK_NAME=nowhere", PYTHONIOENCODING="ascii")  # the encoding of a pipe on some machines
    assert process.returncode == 1 and "1 \\xb7 Prepare the data" in process.stdout
    assert "data_prep.ipynb stopped: FileNotFoundError: data/nowhere holds no table" in process.stderr
    assert "Traceback" not in process.stderr and len(process.stderr.strip().splitlines()) == 1
    with pytest.raises(RuntimeError, match="evaluate.ipynb stopped: FileNotFoundError"):
        run_tutorial({"TASK_NAME": "nowhere"}, start="evaluate", folder=project)


# ---------- Signals ---------------------------------------------------------------------------------------------------

STOPPED = """
import time
print("ready")
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("saved")
    raise KeyboardInterrupt("run it again to resume") from None
"""
SWALLOWED = STOPPED.replace("raise", "#")
STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, lambda *arguments: print("not now"))
print("ready")
time.sleep(600)
"""
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def run_cell(folder, source):
    """Run a notebook of two cells, of which the first has this source; check that the second does not run."""
    cells = [nbformat.v4.new_code_cell(text) for text in (source, "print('next')")]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "train.ipynb")
    try:
        run_notebook("train", {"TASK_NAME": "tiny"}, folder)
    finally:
        executed = nbformat.read(folder / "outputs/tiny/train.ipynb", as_version=4)
        printed = "".join(output.get("text", "") for cell in executed.cells for output in cell.get("outputs", []))
        assert "next" not in printed


@pytest.fixture
def own_kernels(monkeypatch):
    """Let notebooks run in kernels that get signals, as forked ones do not."""
    monkeypatch.delenv("JUPYTER_PATH", raising=False)


@pytest.fixture
def signals(monkeypatch, own_kernels):
    """A dict from a text to the signal that this process gets when a cell prints the text."""
    by_text = {}
    process_message = StreamingClient.process_message

    def process(client, message, *arguments):
        number = by_text.get(message["content"].get("text", "").strip())
        if number:
            client.stop_time -= 2  # what came before is long ago
            signal.raise_signal(number)
        return process_message(client, message, *arguments)

    monkeypatch.setattr(StreamingClient, "process_message", process)
    return by_text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "source, advice", [(STOPPED, "run it again to resume"), (SWALLOWED, "run it again, from there")]
)
def test_signal_lets_the_cell_end(source, advice, number, tmp_path, signals, capsys):
    signals["ready"] = number
    with pytest.raises(Interrupted, match=f"^Interrupted in train.ipynb: {advice}") as caught:
        run_cell(tmp_path, source)
    assert caught.value.signal_number == number and "saved" in capsys.readouterr().out


def test_second_signal_kills_the_kernel(tmp_path, signals):
    signals |= {"ready": signal.SIGINT, "not now": signal.SIGTERM}
    with pytest.raises(Interrupted, match="with FROM=train") as caught:
        run_cell(tmp_path, STUBBORN)
    assert caught.value.signal_number == signal.SIGINT


def test_killed_kernel_is_an_error_with_a_short_message(tmp_path):
    with pytest.raises(RuntimeError, match="^train.ipynb stopped: its process was killed"):
        run_cell(tmp_path, KILLED)


def test_signal_that_comes_twice_at_once_counts_once():
    client = StreamingClient(nbformat.v4.new_notebook())
    with mock.patch.object(StreamingClient, "signal_kernel") as sent:
        client.task_poll_for_reply = mock.Mock(done=lambda: False)  # a cell is running
        client.handle_signal(signal.SIGTERM)
        client.handle_signal(signal.SIGTERM)
        assert sent.call_args_list == [mock.call(signal.SIGINT)]
        client.stop_time -= 2
        client.handle_signal(signal.SIGINT)
        assert sent.call_args_list == [mock.call(signal.SIGINT), mock.call(signal.SIGKILL)]
    assert client.stop_signal == signal.SIGTERM


@pytest.mark.parametrize(
    "error, status, line",
    [
        (Interrupted("Interrupted in train.ipynb: x", signal.SIGTERM), 143, "Interrupted in train.ipynb: x"),
        (KeyboardInterrupt(), 130, "Interrupted: run it again"),
    ],
)
def test_signal_ends_it_with_one_line(error, status, line, capsys):
    with mock.patch("textbert.notebook.tutorial.run_tutorial", side_effect=error):
        assert main([]) == status
    assert capsys.readouterr().err == f"\n{line}\n"


@pytest.mark.slow
def test_interrupted_training_resumes_to_the_same_model(tmp_path, bert_files, own_kernels):
    """Ctrl-C comes after the first epoch; how folds resume is tested in test_resume.py."""
    folder = tmp_path / "interrupted"
    folder.mkdir()
    make_project(folder, bert_files)
    parameters = {"TASK_NAME": "tiny", "BERT_MODEL": "tiny-bert", "NUM_TRAIN_EPOCHS": 30, "FOLDS": 0}
    words = [f"{name}={value}" for name, value in parameters.items()]
    command = [sys.executable, "-m", "textbert.notebook.tutorial", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, start_new_session=True, **pipes) as process:
        assert any(line.startswith("  epoch 1: ") for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)  # the process group, as a terminal does
        printed, error = process.communicate()
    assert process.returncode == 130 and "Stopping after the current step" in printed
    assert re.fullmatch(r"\nInterrupted in train.ipynb: stopped after step \d+: run it again to resume\n", error)
    assert (folder / "outputs/tiny/checkpoint/checkpoint.pt").exists()
    whole = shutil.copytree(folder, tmp_path / "whole", ignore=shutil.ignore_patterns("checkpoint"))
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert "Resuming from step" in done.stdout
    run_notebook("train", parameters, whole)
    models = [read_archive(path / "cache/tiny.tar.gz")["pytorch_model.bin"] for path in (folder, whole)]
    assert models[0] == models[1]


# ---------- Parameters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ("", {}),
        ("  ENCODING=cp1252  MAX_SEQ_LENGTH=128 ", {"ENCODING": "cp1252", "MAX_SEQ_LENGTH": 128}),
        ("TEXT_COLUMN=it's the text FOLDS=3", {"TEXT_COLUMN": "it's the text", "FOLDS": 3}),
        ("""CLASSES=[['1', "2"], ["4"]] PATIENCE=None""", {"CLASSES": [["1", "2"], ["4"]], "PATIENCE": None}),
        ("""LEARNING_RATE=1e-4 ID_COLUMN="7" REFIT=true""", {"LEARNING_RATE": 1e-4, "ID_COLUMN": "7", "REFIT": True}),
        ("TRAIN_FILE=a=b.csv ENCODING=", {"TRAIN_FILE": "a=b.csv", "ENCODING": ""}),
        ("SEARCH_EPOCHS=[2,\n 4]\nFOLDS=2", {"SEARCH_EPOCHS": [2, 4], "FOLDS": 2}),
    ],
)
def test_command_line_is_parsed(arguments, expected):
    assert parse_parameters(arguments) == expected


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("tickets FOLDS=3", "expected NAME=VALUE, such as ENCODING=cp1252, got 'tickets'"),
        ("FOLDS=3 REFIT=True FOLDS=4", "FOLDS is given 2 times"),
    ],
)
def test_command_line_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse_parameters(arguments)


@pytest.mark.parametrize(
    "given, notebooks, message",
    [
        ({"MAX_SEQ_LENGHT": 128}, NOTEBOOKS, "MAX_SEQ_LENGHT is not a parameter .* did you mean MAX_SEQ_LENGTH"),
        ({"encoding": "cp1252"}, NOTEBOOKS, "encoding is not a parameter of any notebook: did you mean ENCODING"),
        ({"ENCODING": "cp1252x"}, NOTEBOOKS, "ENCODING: expected the name of an encoding, .* got 'cp1252x'"),
        ({"MAX_SEQ_LENGTH": 1000}, NOTEBOOKS, "MAX_SEQ_LENGTH: expected an integer from 3 to 512.* got 1000"),
        ({"CLASS_WEIGHTS": "balanced", "FALSE_POSITIVE_COST": 5}, NOTEBOOKS, "CLASS_WEIGHTS is 'balanced' and"),
        ({"ENCODING": "cp1252"}, NOTEBOOKS[1:], "of data_prep.ipynb, but only train and evaluate would run"),
    ],
)
def test_parameters_are_refused(given, notebooks, message):
    with pytest.raises(ValueError, match=message):
        assign_parameters(given, notebooks)


def test_value_is_converted_once_for_all_notebooks(capsys):
    assigned = assign_parameters({"TASK_NAME": 2024, "EVAL_BATCH_SIZE": "8"}, NOTEBOOKS)
    assert {name: values["TASK_NAME"] for name, values in assigned.items()} == dict.fromkeys(NOTEBOOKS, "2024")
    assert assigned["train"]["EVAL_BATCH_SIZE"] == assigned["evaluate"]["EVAL_BATCH_SIZE"] == 8
    printed = "TASK_NAME: interpreting 2024 as '2024'\nEVAL_BATCH_SIZE: interpreting '8' as 8\n"
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("arguments", [["FOLD=3"], ["TASK_NAME=../x"], ["tiny"], ["--from", "evaluate", "FOLDS=3"]])
def test_invalid_parameter_ends_it_before_anything_runs(arguments, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1


def test_start_and_folder_are_checked(tmp_path):
    with pytest.raises(ValueError, match="start: expected data_prep, train, evaluate, got 'tran'"):
        run_tutorial({}, start="tran")
    with pytest.raises(FileNotFoundError, match="folder must be that of the project"):
        run_tutorial({}, folder=tmp_path)


@pytest.mark.parametrize(
    "options, expected",
    [
        ([], ["data_prep", "TASK_NAME=sample", ""]),
        (["TASK_NAME=t", "FROM=train", """PARAMETERS=CLASSES=[['1'], ["2"]]  TEXT_COLUMN=a's b"""], None),
    ],
)
def test_make_passes_the_parameters_on(options, expected, tmp_path):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / "requirements.txt").touch()
    for name, script in {"python": "printf '%s\\n' \"$@\"", "pip": "true"}.items():
        path = tmp_path / ".venv/bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    (tmp_path / ".venv/ready").touch()
    from_make = ("TASK_NAME", "FROM", "PARAMETERS", "MAKEFLAGS", "MAKELEVEL")  # the tests may be started by make
    environment = {name: value for name, value in os.environ.items() if name not in from_make}
    command = ["make", "-f", ROOT / "Makefile", "tutorial", *options]
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    expected = expected or ["train", "TASK_NAME=t", """CLASSES=[['1'], ["2"]]  TEXT_COLUMN=a's b"""]
    assert process.stdout.splitlines() == ["-m", "textbert.notebook.tutorial", "--from", *expected]
