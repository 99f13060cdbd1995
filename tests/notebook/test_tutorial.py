"""`make tutorial` prints headings and output of the notebooks, and nothing else."""

import os
import subprocess
import sys

import nbformat
import pytest
from conftest import make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory, bert_files):
    """A folder with the project's files, whose notebooks use a tiny BERT and few epochs."""
    folder = make_project(tmp_path_factory.mktemp("project"), bert_files)
    for path in folder.glob("*.ipynb"):
        text = path.read_text(encoding="utf-8").replace(
            'BERT_MODEL = \\"all-MiniLM-L6-v2\\"', 'BERT_MODEL = \\"tiny-bert\\"'
        )
        path.write_text(text.replace("NUM_TRAIN_EPOCHS = 8", "NUM_TRAIN_EPOCHS = 2"), encoding="utf-8")
    return folder


def run(folder, task, **environment):
    """Run the tutorial as the Makefile does; return the completed process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "textbert.notebook.tutorial", task]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_headings_and_output_are_printed(project):
    process = run(project, "tiny")
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    headings = ["1 · Prepare the data", "2 · Fine-tune BERT", "Training", "3 · Evaluate, and use it"]
    positions = [lines.index(heading) for heading in headings]
    assert positions == sorted(positions)
    under_training = lines[positions[2] : positions[3]]
    assert any(line.startswith("  epoch 2: training loss") for line in under_training)
    assert "Figure" not in process.stdout and "Cell" not in process.stdout
    end = lines[-6:]
    assert end[0].startswith("Done in about") and [line.split("  ")[-1] for line in end[1:4]] == [
        "majority class",
        "TF-IDF",
        "BERT",
    ]
    assert "outputs/tiny/report/report.html" in end[4] and end[5].startswith("Next: make lab")
    executed = nbformat.read(project / "outputs/tiny/train.ipynb", as_version=4)
    assert any("Trained in about" in str(cell.get("outputs")) for cell in executed.cells)


def test_failing_cell_ends_it_with_one_line(project):
    process = run(project, "nowhere", PYTHONIOENCODING="ascii")  # the encoding of a pipe on some machines
    assert process.returncode == 1 and "1 \\xb7 Prepare the data" in process.stdout
    assert "data_prep.ipynb stopped: FileNotFoundError: data/nowhere holds no table" in process.stderr
    assert "Traceback" not in process.stderr and len(process.stderr.strip().splitlines()) == 1
