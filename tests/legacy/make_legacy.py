"""Make the files of this folder: what the code before the package `textbert` wrote, to show that it can still be read.

    git worktree add /tmp/before 05f5615 && PYTHONPATH=/tmp/before python tests/legacy/make_legacy.py /tmp/before

`05f5615` is the last commit whose `tools.py` held everything. Run with the packages of its requirements.txt.
"""

import io
import json
import os
import shutil
import signal
import string
import subprocess
import sys
import tempfile
from pathlib import Path

import papermill
import torch
from nbconvert import ScriptExporter
from pytorch_pretrained_bert.modeling import BertConfig, BertForPreTraining

import tools  # the one of that commit
from textbert.model import archive

HERE = Path(__file__).resolve().parent
PARAMETERS = {
    "TASK_NAME": "tiny",
    "BERT_MODEL": "tiny-bert",
    "MAX_SEQ_LENGTH": 9,
    "TRAIN_BATCH_SIZE": 8,
    "NUM_TRAIN_EPOCHS": 2,
    "LEARNING_RATE": 3e-3,
    "VALIDATION_SHARE": 0.2,
    "CHECKPOINT_STEPS": 3,
}


def make_base(path):
    """Write the archive of a tiny random BERT."""
    characters = [*string.ascii_lowercase, *string.digits]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *characters, *(f"##{c}" for c in characters), "good", "bad", "soup"]
    config = BertConfig(len(pieces), 8, 1, 2, 16, max_position_embeddings=16)
    torch.manual_seed(0)
    file = io.BytesIO()
    torch.save(BertForPreTraining(config).state_dict(), file)
    files = {"config.json": json.dumps(config.to_dict()).encode(), "pytorch_model.bin": file.getvalue()}
    archive.write_archive(files | {"vocab.txt": ("\n".join(pieces) + "\n").encode()}, path)


def main(before):
    """Train a tiny task with the code in the folder `before`: to its end, and until it is killed."""
    os.chdir(tempfile.mkdtemp())
    for name in ("tools.py", "report.py", "download.py"):
        shutil.copy(before / name, name)
    data = Path("data/tiny")
    data.mkdir(parents=True)
    rows = (f"{i}\t{i % 2}\ta\t{('bad', 'good')[i % 2]} soup {i * 7919 % 1000}\n" for i in range(41))
    (data / "train.tsv").write_text("".join(rows))
    make_base(Path("cache/tiny-bert.tar.gz"))
    prepared = papermill.execute_notebook(before / "train.ipynb", None, PARAMETERS, prepare_only=True)
    script = ScriptExporter().from_notebook_node(prepared)[0]
    killed = "import os, tools\nreally, count = distributed.all_reduce_sum, []\n"
    killed += "def summed(*values):\n    count.append(1)\n"
    killed += (
        f"    os.kill(os.getpid(), {int(signal.SIGKILL)}) if len(count) == 6 else None\n    return really(*values)\n"
    )
    killed += "tools.all_reduce_sum = summed\n"
    Path("killed.py").write_text("import tools\ntools.choose_mixed_precision = lambda: 'no'\n" + killed + script)
    Path("whole.py").write_text("import tools\ntools.choose_mixed_precision = lambda: 'no'\n" + script)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "PYTHONPATH": ""}
    assert subprocess.run([sys.executable, "killed.py"], env=environment).returncode == -signal.SIGKILL
    shutil.copy("outputs/tiny/checkpoint/checkpoint.pt", HERE / "checkpoint.pt")
    subprocess.run([sys.executable, "whole.py"], env=environment, check=True)
    for path in ("cache/tiny-bert.tar.gz", "cache/tiny.tar.gz", "data/tiny/train.tsv", "data/tiny/train_features.pkl"):
        shutil.copy(path, HERE)
    for name in ("losses.csv", "history.csv"):
        shutil.copy(Path("outputs/tiny", name), HERE)
    tokenizer = tools.load_tokenizer("tiny-bert")
    features = tools.convert_examples_to_features(
        [tools.InputExample(0, "good soup", label="1"), tools.InputExample(1, "bad", "soup 7", "0")],
        {"0": 0, "1": 1}, 9, tokenizer
    )  # fmt: skip
    tools.save_features(features, HERE / "pair_features.pkl")
    predicted = tools.Classifier.load("cache/tiny.tar.gz", "cpu").predict(["good soup", "bad soup 3", ""])
    predicted.to_csv(HERE / "predictions.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
