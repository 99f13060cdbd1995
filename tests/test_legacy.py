"""What the code before the package wrote can still be read: the files in `legacy/`, made by the script beside them."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, write_script

import tools

LEGACY = Path(__file__).parent / "legacy"


def test_features_are_used_as_they_are(tmp_path, capsys):
    for name in ("train.tsv", "train_features.pkl"):
        shutil.copy(LEGACY / name, tmp_path)
    tokenizer = tools.load_tokenizer(LEGACY / "tiny-bert.tar.gz")
    features = tools.load_or_convert_features(tmp_path, "train", tokenizer, 9)
    assert "41 features loaded from" in capsys.readouterr().out
    (tmp_path / "train_features.pkl").unlink()
    made = tools.load_or_convert_features(tmp_path, "train", tokenizer, 9)
    assert features.fingerprint == made.fingerprint and list(features) == list(made)


@pytest.mark.parametrize("load", [tools.load_features, lambda path: pickle.loads(path.read_bytes())])
def test_a_pair_is_what_it_was(load):
    first, second = load(LEGACY / "pair_features.pkl")
    tokenizer = tools.load_tokenizer(LEGACY / "tiny-bert.tar.gz")
    assert tokenizer.convert_ids_to_tokens(first.input_ids[:4]) == ["[CLS]", "good", "soup", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(second.input_ids[:6]) == ["[CLS]", "bad", "[SEP]", "soup", "7", "[SEP]"]
    assert second.segment_ids == [0, 0, 0, 1, 1, 1, 0, 0, 0] and (first.label_id, second.label_id) == (1, 0)


def test_an_archive_gives_the_same_answers():
    classifier = tools.Classifier.load(LEGACY / "tiny.tar.gz", "cpu")
    expected = pd.read_csv(LEGACY / "predictions.csv", dtype={"label": str})
    predicted = classifier.predict(["good soup", "bad soup 3", ""])
    assert predicted["label"].tolist() == expected["label"].tolist()
    np.testing.assert_allclose(predicted["probability"], expected["probability"], atol=1e-6)
    assert len(classifier.validation) == 9


def test_a_checkpoint_is_gone_on_from(tmp_path):
    (tmp_path / "textbert").symlink_to(ROOT / "textbert")
    shutil.copy(ROOT / "tools.py", tmp_path)
    for source, target in (
        ("train.tsv", "data/tiny"),
        ("tiny-bert.tar.gz", "cache"),
        ("checkpoint.pt", "outputs/tiny/checkpoint"),
    ):
        (tmp_path / target).mkdir(parents=True)
        shutil.copy(LEGACY / source, tmp_path / target)
    parameters = {"TASK_NAME": "tiny", "BERT_MODEL": "tiny-bert", "MAX_SEQ_LENGTH": 9, "TRAIN_BATCH_SIZE": 8}
    parameters |= {"NUM_TRAIN_EPOCHS": 2, "LEARNING_RATE": 3e-3, "VALIDATION_SHARE": 0.2}
    write_script("train", tmp_path / "run.py", **parameters)
    script = (tmp_path / "run.py").read_text()
    # the precision and the padding that it was written with, on every machine
    as_then = "devices.choose_mixed_precision = lambda: 'no'\nbatches.has_tensor_cores_or_amx = lambda: True\n"
    (tmp_path / "run.py").write_text(f"from textbert import batches, devices\n{as_then}{script}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, "run.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "Going on after step 3 of 8" in done.stdout, done.stderr
    losses = pd.read_csv(tmp_path / "outputs/tiny/losses.csv")
    # alike and not equal: the last layer, which computes for [CLS] alone since, draws its dropout otherwise
    np.testing.assert_allclose(losses, pd.read_csv(LEGACY / "losses.csv"), atol=1e-3)
