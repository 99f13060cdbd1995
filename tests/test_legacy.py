"""Files of the code before the package can still be read: those in `legacy/`, made by the script beside them."""

import os
import pickle
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, write_script

import tools

LEGACY = Path(__file__).parent / "legacy"


def test_legacy_features_are_used_without_conversion(tmp_path, capsys):
    for name in ("train.tsv", "train_features.pkl"):
        shutil.copy(LEGACY / name, tmp_path)
    tokenizer = tools.load_tokenizer(LEGACY / "tiny-bert.tar.gz")
    features = tools.load_or_convert_features(tmp_path, "train", tokenizer, 9)
    assert "41 features loaded from" in capsys.readouterr().out
    (tmp_path / "train_features.pkl").unlink()
    converted = tools.load_or_convert_features(tmp_path, "train", tokenizer, 9)
    assert features.fingerprint == converted.fingerprint and list(features) == list(converted)


@pytest.mark.parametrize("load", [tools.load_features, lambda path: pickle.loads(path.read_bytes())])
def test_legacy_features_of_pairs_are_unchanged(load):
    first, second = load(LEGACY / "pair_features.pkl")
    tokenizer = tools.load_tokenizer(LEGACY / "tiny-bert.tar.gz")
    assert tokenizer.convert_ids_to_tokens(first.input_ids[:4]) == ["[CLS]", "good", "soup", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(second.input_ids[:6]) == ["[CLS]", "bad", "[SEP]", "soup", "7", "[SEP]"]
    assert second.segment_ids == [0, 0, 0, 1, 1, 1, 0, 0, 0] and (first.label_id, second.label_id) == (1, 0)


def test_a_legacy_archive_gives_the_same_predictions():
    classifier = tools.Classifier.load(LEGACY / "tiny.tar.gz", "cpu")
    expected = pd.read_csv(LEGACY / "predictions.csv", dtype={"label": str})
    predicted = classifier.predict(["good soup", "bad soup 3", ""])
    assert predicted["label"].tolist() == expected["label"].tolist()
    np.testing.assert_allclose(predicted["probability"], expected["probability"], atol=1e-6)
    assert len(classifier.validation) == 9


@pytest.mark.slow
def test_training_resumes_from_a_legacy_checkpoint(tmp_path, fork_server):
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
    parameters |= {"NUM_TRAIN_EPOCHS": 2, "LEARNING_RATE": 3e-3, "VALIDATION_SHARE": 0.2, "FOLDS": 0}
    write_script("train", tmp_path / "run.py", **parameters)
    script = (tmp_path / "run.py").read_text()
    # the precision and the padding that it was written with, on every machine
    imports = "from textbert.features import batching\nfrom textbert.training import distributed\n"
    patches = "distributed.choose_mixed_precision = lambda: 'no'\nbatching.has_tensor_cores_or_amx = lambda: True\n"
    (tmp_path / "run.py").write_text(imports + patches + script)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    command = [*fork_server.python, "run.py"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0 and "Resuming from step 3 of 8" in result.stdout, result.stderr
    losses = pd.read_csv(tmp_path / "outputs/tiny/losses.csv")
    # similar but not equal: the last layer, which now computes for [CLS] alone, draws different dropout masks
    np.testing.assert_allclose(losses, pd.read_csv(LEGACY / "losses.csv"), atol=1e-3)
