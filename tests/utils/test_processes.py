"""Several processes: the main one goes first, and what it has done is not done again."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from textbert.utils.processes import is_distributed, main_process_first

SCRIPT = """
import sys, time
from pathlib import Path
import torch
import tools
from textbert.utils.processes import is_distributed, main_process_first

torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
assert is_distributed()
with main_process_first():
    print("in turn", flush=True)
    done = Path("done").exists()
    if not done:
        time.sleep(1)
        Path("done").touch()
assert done == (rank > 0)
tokenizer, model = tools.load_tokenizer("tiny-bert"), tools.load_model("tiny-bert")
features = tools.load_or_convert_features(".", "train", tokenizer, 9)
assert len(features) == 5 and model.num_labels == 2
try:
    with main_process_first():
        raise ValueError("expected")
except ValueError as error:
    sys.stderr.write(f"{rank}: {error}|")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_work_is_done_once_and_printed_once(data_dir, bert_files):
    from textbert.model.archive import write_archive

    (data_dir / "cache").mkdir()
    write_archive(bert_files(), data_dir / "cache" / "tiny-bert.tar.gz")
    (data_dir / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "3", "script.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    options = {"capture_output": True, "text": True, "timeout": 600}
    result = subprocess.run(command, cwd=data_dir, env=environment, check=False, **options)
    assert result.returncode == 0, result.stderr
    for once in ("in turn", "5 examples converted", "BERT with"):
        assert result.stdout.count(once) == 1, once
    assert "loaded from" not in result.stdout.replace("weights, loaded from", "")  # by the others, silently
    assert all(f"{rank}: expected|" in result.stderr for rank in range(3))  # no process waits for one that fails


def test_single_process_just_runs(capsys):
    assert not is_distributed()
    with main_process_first():
        print("at once")
    assert capsys.readouterr().out == "at once\n"
    with pytest.raises(KeyError), main_process_first():
        raise KeyError
