"""How good are a fine-tuned BERT and two simpler classifiers, trained on more and more texts?

    python tests/benchmarks/bench_learning_curve.py sample --seeds 1 2 42
    python tests/benchmarks/bench_learning_curve.py sample --seeds 1 2 42 --models tfidf frozen

The training sets are stratified samples of train.tsv, those that train.ipynb takes with TRAIN_ROWS and RANDOM_SEED:
with one seed, a smaller one is part of every larger one. Three models are trained on each and evaluated on dev.tsv,
without its texts that are in train.tsv as well:

- tfidf: the baseline of evaluate.ipynb, with its calibration and decision threshold
- frozen: the mean of the last layer's vectors of all tokens, from the pretrained BERT as it is, and logistic regression
  on these, with the penalty that cross-validation on the training set prefers, and a threshold of 0.5
- bert: train.ipynb with FOLDS = 0: a tenth of the sample is held out to choose epoch, calibration and threshold

Each result is added to `outputs/<task>/learning_curve.csv` as it comes, and those in it are not computed again: delete
the file to start over. The minutes are those of training and of predicting dev.tsv; the vectors of the frozen BERT are
computed once for all of its results, and not counted. Needs `train.tsv` and `dev.tsv` in `data/<task>/`, written by
data_prep.ipynb. The last BERT stays in `cache/` and `outputs/`.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from bench_quality import ROOT, run
from sklearn.linear_model import LogisticRegressionCV

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from loop import read_parameters

import tools
from textbert.data.labelled_texts import LabelledTexts
from textbert.data.normalization import hash_text
from textbert.evaluation.baseline import make_baseline, predict_baseline, tune_baseline
from textbert.features.batching import length_grouped_batches

PARAMETERS = read_parameters()  # of train.ipynb, with their default values
MODELS = ("tfidf", "frozen", "bert")


def read_texts(task):
    """Return (training texts, their labels, dev texts that are not among them, their labels)."""
    processor = tools.BinaryClassificationProcessor()
    examples = processor.get_train_examples(ROOT / "data" / task), processor.get_dev_examples(ROOT / "data" / task)
    train, dev = ([example.text_a for example in split] for split in examples)
    train_labels, dev_labels = (np.array([int(example.label) for example in split]) for split in examples)
    unseen = np.flatnonzero(~np.isin([hash_text(text) for text in dev], [hash_text(text) for text in train]))
    return train, train_labels, [dev[row] for row in unseen], dev_labels[unseen]


def predict_tfidf(texts, labels, dev_texts):
    """Train the baseline of evaluate.ipynb; return (probabilities of class 1, threshold)."""
    baseline = make_baseline()
    train = LabelledTexts(ROOT, [str(row) for row in range(len(texts))], texts, labels)
    tuning = tune_baseline(baseline, train)[0]
    baseline.fit(texts, labels)
    return predict_baseline(baseline, dev_texts, tuning), tuning["threshold"]


def convert(texts, labels, parameters):
    """Return the Features of texts with labels of 0 and 1; parameters are those of train.ipynb."""
    tokenizer = tools.load_tokenizer(parameters["BERT_MODEL"], ROOT / "cache")
    examples = [tools.InputExample(str(row), text, label=str(labels[row])) for row, text in enumerate(texts)]
    options = {"truncation": parameters["TRUNCATION"], "progress": False}
    length = parameters["MAX_SEQ_LENGTH"]
    return tools.convert_examples_to_features(examples, {"0": 0, "1": 1}, length, tokenizer, **options)


def compute_mean_vectors(texts):
    """Return the mean of the pretrained BERT's last vectors of a text's tokens, [CLS] and [SEP] included, (n, D)."""
    model = tools.load_model(PARAMETERS["BERT_MODEL"], ROOT / "cache").eval()
    features = convert(texts, [0] * len(texts), PARAMETERS)
    vectors = np.zeros((len(texts), model.config.hidden_size), np.float32)
    for batch in length_grouped_batches(features.lengths, 64, max_tokens=2048):
        with torch.inference_mode():
            inputs, _ = tools.collate(features, batch)
            outputs, _ = model.bert(**inputs, output_all_encoded_layers=False)  # (B, T, D)
            mask = inputs["attention_mask"].unsqueeze(2)
            vectors[batch] = ((outputs * mask).sum(dim=1) / mask.sum(dim=1)).numpy()
    return vectors


def predict_frozen(vectors, labels, dev_vectors):
    """Train a logistic regression on the vectors of texts; return (probabilities of class 1, threshold)."""
    options = {"scoring": "neg_log_loss", "l1_ratios": (0,), "use_legacy_attributes": False}
    classifier = LogisticRegressionCV(Cs=np.logspace(-3, 3, 13), cv=5, max_iter=1000, **options)
    return classifier.fit(vectors, labels).predict_proba(dev_vectors)[:, 1], 0.5


def predict_bert(task, size, seed, dev_texts):
    """Run train.ipynb; return (probabilities of class 1, threshold)."""
    run("train", TASK_NAME=task, TRAIN_ROWS=size, RANDOM_SEED=seed, FOLDS=0)
    classifier = tools.Classifier.load(ROOT / "cache" / f"{task}.tar.gz")
    return classifier.predict(dev_texts, progress=False)["probability"].to_numpy(), classifier.settings["threshold"]


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("task", help="folder under data/")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 200, 400, 800, 0], help="0 for all texts")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 42])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    options = parser.parse_args()
    texts, labels, dev_texts, dev_labels = read_texts(options.task)
    sizes = sorted({min(size or len(texts), len(texts)) for size in options.sizes})
    path = ROOT / "outputs" / options.task / "learning_curve.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = ["model", "texts", "seed"]
    done = set(pd.read_csv(path)[keys].itertuples(index=False, name=None)) if path.is_file() else set()
    planned = [(model, size, seed) for model in options.models for size in sizes for seed in options.seeds]
    missing = [key for key in planned if key not in done]
    if any(model == "frozen" for model, _, _ in missing):
        vectors, dev_vectors = compute_mean_vectors(texts), compute_mean_vectors(dev_texts)
    for model, size, seed in missing:
        sample = tools.stratified_sample(labels, size, seed)
        start = time.perf_counter()
        if model == "tfidf":
            y_prob, threshold = predict_tfidf([texts[row] for row in sample], labels[sample], dev_texts)
        elif model == "frozen":
            y_prob, threshold = predict_frozen(vectors[sample], labels[sample], dev_vectors)
        else:
            y_prob, threshold = predict_bert(options.task, size, seed, dev_texts)
        minutes = (time.perf_counter() - start) / 60
        metrics = tools.get_eval_report(options.task, dev_labels, y_prob >= threshold, y_prob)
        row = {"model": model, "texts": size, "seed": seed, "minutes": minutes, "threshold": threshold}
        row |= {name: metrics[name] for name in ("mcc", "accuracy", "roc_auc")}
        pd.DataFrame([row]).to_csv(path, mode="a", header=not path.is_file(), index=False)
        print(pd.DataFrame([row]).round(3).to_string(index=False), flush=True)
    table = pd.read_csv(path).groupby(["model", "texts"])[["mcc", "accuracy", "roc_auc", "minutes"]]
    print(table.agg(["mean", "min", "max"]).round(3).to_string())


if __name__ == "__main__":
    main()
