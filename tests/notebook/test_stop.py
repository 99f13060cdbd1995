"""A training run that is stopped for good in a notebook: the best of its finished epochs is kept and packed."""

import json

import nbformat
import pytest
from conftest import ROOT, make_project
from jupyter_client.manager import start_new_kernel

from textbert.model.archive import read_archive

pytestmark = pytest.mark.slow

PARAMETERS = """
TASK_NAME, BERT_MODEL, MAX_SEQ_LENGTH = "tiny", "tiny-bert", 12
NUM_TRAIN_EPOCHS, LEARNING_RATE, VALIDATION_SHARE, FOLDS = 1000, 3e-3, 0.2, 0
"""


def test_stopped_run_is_kept(tmp_path, bert_files):
    folder = make_project(tmp_path, bert_files)
    lines = (f"{i}\t{i % 2}\ta\t{('bad', 'good')[i % 2]} soup {i}\n" for i in range(60))
    (folder / "data/tiny/train.tsv").write_text("".join(lines))
    cells = [cell for cell in nbformat.read(ROOT / "train.ipynb", 4).cells if cell.cell_type == "code"]
    manager, client = start_new_kernel(cwd=str(folder))

    def run(source):
        """Run a cell, and press the stop button after its first epoch; return its output and the name of its error."""
        printed = []

        def handle(message):
            text = message["content"].get("text", "")
            printed.append(text)
            if "epoch 1: " in text:
                manager.interrupt_kernel()

        reply = client.execute_interactive(source, output_hook=handle, timeout=300)["content"]
        return "".join(printed), reply.get("ename")

    try:
        for cell in cells:
            printed, error = run(cell.source)
            if "parameters" in cell.metadata.get("tags", []):
                printed, error = run(PARAMETERS)
            if "experiment.run(" in cell.source:
                assert "epoch 1: " in printed and error == "KeyboardInterrupt"
                printed, error = run("first_run = experiment.last_run")
            assert error is None, cell.source + printed
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    settings = json.loads(read_archive(folder / "cache/tiny.tar.gz")["config.json"])["classifier"]
    assert 1 <= settings["best_epoch"] < 1000
    assert not (folder / "outputs/tiny/checkpoint").exists()
