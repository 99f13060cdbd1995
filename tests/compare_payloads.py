"""What compare_with_commit.py computes with each version of the code: functions from files to dicts of arrays.

A copy of this file lies in the folder of each version, is imported there, and finds the `tools` of that folder.
"""

import csv
import gzip
import io
import json
import os
import pickle
import string
import tarfile
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np

LENGTHS, TRUNCATIONS = (32, 128, 512), ("head", "tail", "head+tail")
LABEL_MAP = {"0": 0, "1": 1}


def save_arrays(path: str, payload: Callable, *args, **kwargs) -> None:
    """Write the arrays that one of the functions below returns; RuntimeError if another folder's `tools` is found."""
    import tools

    if Path(tools.__file__).resolve().parent != Path.cwd().resolve():
        raise RuntimeError(f"tools was imported from {tools.__file__}, expected one in {Path.cwd()}")
    np.savez(path, **payload(*args, **kwargs))


def to_array(features: Iterable) -> np.ndarray:
    """Return InputFeatures as an int32 array of shape (n, 3 * max_seq_length + 1): ids, mask, segments, label."""
    return np.array([f.input_ids + f.input_mask + f.segment_ids + [f.label_id] for f in features], np.int32)


def read_corpora() -> dict[str, list]:
    """Return lists of InputExamples: the sample, pairs of its texts, and 2,000 IMDB reviews if they are there."""
    import tools

    processor = tools.BinaryClassificationProcessor()
    corpora = {"train": processor.get_train_examples("data/sample"), "dev": processor.get_dev_examples("data/sample")}
    texts, labels = [example.text_a for example in corpora["dev"]], (None, "0", "1")
    corpora["pairs"] = [tools.InputExample(i, *pair, labels[i % 3]) for i, pair in enumerate(zip(texts, texts[1:]))]
    path = Path(os.environ["BERT_TEST_DATA"], "imdb", "train.csv.gz")
    if path.is_file():
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            rows = list(islice(csv.reader(file), 2000))
        corpora["IMDB"] = [tools.InputExample(i, text, None, str(int(y) - 1)) for i, (y, text) in enumerate(rows)]
    return corpora


def convert_corpora() -> dict[str, np.ndarray]:
    """Convert each corpus at each length and truncation; pickle some of the features, a list of them as in 2019."""
    import tools

    tokenizer, arrays = tools.load_tokenizer("base"), {}
    Path("pickles").mkdir()
    for name, examples in read_corpora().items():
        for length in LENGTHS:
            for truncation in TRUNCATIONS:
                options = {"progress": False, "truncation": truncation}
                features = tools.convert_examples_to_features(examples, LABEL_MAP, length, tokenizer, **options)
                key = f"{name} {length} {truncation}"
                arrays[key] = to_array(features)
                if name in ("dev", "pairs"):
                    tools.save_features(features, f"pickles/{key}.pkl")
    rows = list(tools.load_features("pickles/dev 32 head.pkl"))
    type(rows[0]).__module__ = "tools"  # the module that defined the class in 2019
    Path("pickles/2019.pkl").write_bytes(pickle.dumps(rows))
    return arrays


def load_pickles(folder: str, function: str) -> dict[str, np.ndarray]:
    """Load the features in a folder with `load_features` or `pickle.load`."""
    import tools

    paths = sorted(Path(folder).glob("*.pkl"))
    if function == "pickle.load":
        return {path.stem: to_array(pickle.loads(path.read_bytes())) for path in paths}
    return {path.stem: to_array(tools.load_features(path)) for path in paths}


def reuse_features() -> dict[str, np.ndarray]:
    """Return the fingerprint of train.tsv's and dev.tsv's features, and whether their files were used as they are."""
    import tools

    tokenizer, values = tools.load_tokenizer("base"), {}
    for split in ("train", "dev"):
        path = Path("data/sample", f"{split}_features.pkl")
        inode = path.stat().st_ino  # another one if the file is replaced
        features = tools.load_or_convert_features("data/sample", split, tokenizer, 128)
        values[split] = np.array([features.fingerprint, f"used: {path.stat().st_ino == inode}"])
    return values


def compute_logits() -> dict[str, np.ndarray]:
    """Return the logits of the base model with a classifier drawn from a fixed seed, and metrics of random answers."""
    import torch

    import tools

    examples, tokenizer = read_corpora()["dev"][:64], tools.load_tokenizer("base")
    torch.manual_seed(0)
    model = tools.load_model("base").eval()
    rows = list(tools.convert_examples_to_features(examples, LABEL_MAP, 64, tokenizer, progress=False))
    inputs = [torch.tensor([getattr(row, name) for row in rows]) for name in ("input_ids", "segment_ids", "input_mask")]
    with torch.no_grad():
        logits = model(*inputs).numpy()
    labels, probabilities = np.arange(999) % 2, np.random.default_rng(0).random(999)
    report = tools.get_eval_report("task", labels, probabilities >= 0.4, probabilities)
    return {
        "logits": logits,
        "metrics": np.array([json.dumps({k: report[k] for k in ("mcc", "tp", "tn", "fp", "fn")})]),
    }


def predict(path: str, **options) -> dict[str, np.ndarray]:
    """Return labels and probabilities of the sample's dev.tsv by an archive's model; write them to predictions.csv."""
    import pandas as pd

    import tools
    from textbert.classifier import Classifier

    if Classifier is not tools.Classifier:
        raise RuntimeError("textbert.classifier and tools have different Classifiers")
    classifier = Classifier.load(path, "cpu", **options)
    texts = [example.text_a for example in read_corpora()["dev"]]
    pd.DataFrame({"id": range(len(texts)), "text": texts}).to_csv("texts.csv", index=False)
    classifier.predict_file("texts.csv", "predictions.csv", progress=False)
    predicted = classifier.predict(texts, progress=False)
    return {"labels": predicted["label"].to_numpy(str), "probabilities": predicted["probability"].to_numpy()}


def pack(folder: str) -> dict[str, np.ndarray]:
    """Pack the folder of a fine-tuned model; return the bytes of each file in the archive."""
    import tools

    tools.pack_model(folder, "packed.tar.gz")
    with tarfile.open("packed.tar.gz") as archive:
        return {m.name: np.frombuffer(archive.extractfile(m).read(), np.uint8) for m in archive.getmembers()}


# ---------- Models, written by pytorch-pretrained-bert alone ----------------------------------------------------------


def write_archive_of_2019(base: Path, folder: Path) -> tuple[Path, dict]:
    """Write the archive of a classifier on a base model, without vocabulary and settings.

    Returns the path and the options of `Classifier.load` that it needs.
    """
    import torch
    from pytorch_pretrained_bert import BertForSequenceClassification

    torch.manual_seed(1)
    model = BertForSequenceClassification.from_pretrained(str(base), num_labels=2)
    folder.mkdir()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    model.config.to_json_file(str(folder / "config.json"))
    with tarfile.open(base) as archive:
        (folder / "vocab.txt").write_bytes(archive.extractfile("vocab.txt").read())
    with tarfile.open(folder / "yelp.tar.gz", "w:gz", compresslevel=1) as archive:
        for name in ("config.json", "pytorch_model.bin"):
            archive.add(folder / name, name)
    options = {"vocabulary": str(folder / "vocab.txt"), "max_seq_length": 64, "label_names": ["bad", "good"]}
    return folder / "yelp.tar.gz", options


def write_tiny_base(path: Path) -> Path:
    """Write the archive of a random BERT whose vocabulary is mostly characters; return its path."""
    import torch
    from pytorch_pretrained_bert.modeling import BertConfig, BertForPreTraining

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "good", "bad", *string.digits, *string.punctuation]
    tokens += [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    torch.manual_seed(0)
    config, weights = BertConfig(len(tokens), 32, 2, 2, 64), io.BytesIO()
    torch.save(BertForPreTraining(config).state_dict(), weights)
    files = {"config.json": config.to_json_string().encode(), "pytorch_model.bin": weights.getvalue()}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (files | {"vocab.txt": "\n".join([*tokens, ""]).encode()}).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
