"""With few labels: do folds choose better than a tenth of the texts, and is BERT ahead of simpler classifiers?

    python tests/benchmarks/bench_few_labels.py sample
    python tests/benchmarks/bench_few_labels.py sst2 --sizes 50 100 200 400 --draws 1 2 3 4 5 --length 64

The training sets are stratified samples of train.tsv, one for each draw and size; with one draw, a smaller one is part
of every larger one. Four models are trained on each and evaluated on dev.tsv, without its texts that train.tsv has:

- tfidf: the baseline of evaluate.ipynb, with its calibration and decision threshold
- frozen: the mean of the last layer's vectors from the pre-trained BERT, and logistic regression
- tenth: BERT as train.ipynb trains it with FOLDS = 0: a tenth of the texts chooses epoch, calibration and threshold
- folds: BERT as train.ipynb trains it with few labels: out-of-fold predictions choose, and all texts are trained on

Each result is added to `outputs/<task>/few_labels.csv` as it comes, and those in it are not computed again: delete the
file to start over. Needs `data/<task>/`, written by data_prep.ipynb (or by bench_quality.py, for sst2 and imdb4k).
"""

import argparse
import contextlib
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from bench_learning_curve import PARAMETERS, compute_mean_vectors, convert, predict_frozen, predict_tfidf, read_texts
from bench_quality import ROOT

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from loop import load_loop

import tools
from textbert.evaluation.metrics import brier_and_ece

MODELS = ("tfidf", "frozen", "tenth", "folds")


def predict_bert(features, dev_features, texts, rows, seed, num_folds):
    """Train as train.ipynb does on some rows; return (probabilities of class 1 for dev.tsv, the fitted decision)."""
    torch.manual_seed(seed)
    model = tools.load_model(PARAMETERS["BERT_MODEL"], ROOT / "cache")
    tools.reinitialize_pooler(model)
    loop = load_loop(tools.make_accelerator(), model, features, None, **PARAMETERS | {"RANDOM_SEED": seed})
    some_texts, share = [texts[row] for row in rows], PARAMETERS["VALIDATION_SHARE"]
    *split, folds = tools.split_or_fold(rows, some_texts, features.labels[rows], share, seed, None, num_folds)
    with tempfile.TemporaryDirectory() as folder:
        loop.experiment.output_dir = Path(folder)
        run = loop.experiment.run(loop.fine_tune_run, *split, folds=folds)
        decision = loop.experiment.calibrate(run)["decision"]
    logits = tools.predict_logits(model, dev_features, 64)
    y_prob = tools.probabilities(logits, decision["temperature"], decision["intercept"])[:, 1]
    return y_prob, decision | {"kept epoch": run.best_epoch}


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("task", help="folder under data/")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200, 400])
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--length", type=int, default=PARAMETERS["MAX_SEQ_LENGTH"], help="MAX_SEQ_LENGTH")
    parser.add_argument("--folds", type=int, help="for the model of that name, instead of the notebook's number")
    parser.add_argument(
        "--pool", type=int, default=3000, help="how many texts of train.tsv the draws are from, at most"
    )
    options = parser.parse_args()
    texts, labels, dev_texts, dev_labels = read_texts(options.task)
    pool = tools.stratified_sample(labels, options.pool, 0)
    texts, labels = [texts[row] for row in pool], labels[pool]
    path = ROOT / "outputs" / options.task / "few_labels.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = ["model", "texts", "draw", "length"]
    done = set(pd.read_csv(path)[keys].itertuples(index=False, name=None)) if path.is_file() else set()
    planned = product(options.draws, options.sizes, options.models)
    names = {"folds": "folds" if options.folds is None else f"{options.folds} folds"}
    missing = [key for key in planned if (names.get(key[2], key[2]), key[1], key[0], options.length) not in done]
    if any(model == "frozen" for _, _, model in missing):
        vectors, dev_vectors = compute_mean_vectors(texts), compute_mean_vectors(dev_texts)
    parameters = PARAMETERS | {"MAX_SEQ_LENGTH": options.length}
    features, dev_features = convert(texts, labels, parameters), convert(dev_texts, dev_labels, parameters)
    for draw, size, model in missing:
        rows, fitted, start = tools.stratified_sample(labels, size, draw), {}, time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            if model == "tfidf":
                y_prob, threshold = predict_tfidf([texts[row] for row in rows], labels[rows], dev_texts)
            elif model == "frozen":
                y_prob, threshold = predict_frozen(vectors[rows], labels[rows], dev_vectors)
            else:
                num_folds = {"tenth": 0, "folds": options.folds}[model]
                y_prob, fitted = predict_bert(features, dev_features, texts, rows, draw, num_folds)
                threshold = fitted["threshold"]
        minutes = (time.perf_counter() - start) / 60
        report = tools.get_eval_report(options.task, dev_labels, y_prob >= threshold, y_prob)
        row = {"model": names.get(model, model), "texts": size, "draw": draw, "length": options.length}
        row |= {"mcc": report["mcc"], "brier": brier_and_ece(dev_labels, y_prob)[0], "roc_auc": report["roc_auc"]}
        row |= {name: fitted.get(name) for name in ("temperature", "kept epoch")} | {"threshold": threshold}
        frame = pd.DataFrame([row | {"minutes": minutes}])
        frame.to_csv(path, mode="a", header=not path.is_file(), index=False)
        print(frame.round(3).to_string(index=False), flush=True)
    table = pd.read_csv(path)
    for metric in ("mcc", "brier"):
        print(f"\n{metric}, mean and standard error over the draws:")
        by_model = table.pivot_table(metric, "texts", "model", ["mean", "sem"])
        print(by_model.round(3).to_string())


if __name__ == "__main__":
    main()
