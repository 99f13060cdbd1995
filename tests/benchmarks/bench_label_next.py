"""What to label next: do texts that are chosen teach a BERT more than texts drawn at random?

    python tests/benchmarks/bench_label_next.py sample
    python tests/benchmarks/bench_label_next.py imdb4k -p MAX_SEQ_LENGTH 128

Each draw takes a stratified sample of 200 texts of train.tsv and trains on it. The model predicts a pool, at most 2,000
of the other texts, of which 200 are labelled next:

- random: drawn from the pool
- uncertain: those with a probability nearest to 0.5
- uncertain+clusters: of three times as many uncertain ones, those that `select_to_label` chooses

Then the pretrained weights are trained on all 400 and evaluated on dev.tsv, without its texts that are in train.tsv;
"first" is the model of the first 200. Everything is trained with the loop and the parameters of train.ipynb, on all of
the texts, and the last epoch is kept: there is no validation set, and so no calibration, and a threshold of 0.5. Within
a draw everything has the same seed and the same initial weights. The methods were fixed before dev.tsv was opened.

Each result is added to `outputs/<task>/label_next.csv` as it comes, and those in it with the same settings are not
computed again; a draw must be completed on the kind of machine it was begun on. A missing task is made as by
bench_quality.py, with data_prep.ipynb.
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate.utils import set_seed
from bench_learning_curve import convert, read_texts
from bench_quality import ROOT, prepare_task, read_value
from scipy import stats

sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parents[1])]
from loop import load_loop, read_parameters  # noqa: E402 (found by the line above)

import tools  # noqa: E402 (as above)
from textbert.evaluation.metrics import brier_and_ece  # noqa: E402 (as above)
from textbert.features.batching import length_grouped_batches  # noqa: E402 (as above)
from textbert.notebook.parameters import check_parameters  # noqa: E402 (as above)
from textbert.utils.validation import as_1d_arrays, check_positive_int  # noqa: E402 (as above)

ARMS = ("random", "uncertain", "uncertain+clusters")
METRICS = {"mcc": 1, "brier": -1}  # 1 if higher is better


def rank_by_uncertainty(y_prob: np.ndarray) -> np.ndarray:
    """Return the positions of n probabilities, the nearest to 0.5 first; of equally near ones the earlier first."""
    return np.argsort(np.abs(np.asarray(y_prob, np.float64) - 0.5), kind="stable")


def select_to_label(
    y_prob: np.ndarray, vectors: np.ndarray, count: int, seed: int = 0, candidates_per_label: int = 3
) -> np.ndarray:
    """Choose texts that a model is uncertain about and that differ from each other (after Zhdanov 2019).

    Of the `candidates_per_label * count` texts with a probability nearest to 0.5, k-means makes `count` clusters, and
    the most uncertain text of each is chosen. If there are fewer clusters, because texts have the same vector, the
    second of each follow, and so on.

    y_prob : probabilities of class 1, of shape (n,)
    vectors : what the model's classifier reads of each text, the output of the pooler, of shape (n, D)
    count : number of texts to choose; if there are not so many, all are chosen
    seed : of k-means

    Returns positions, of shape (min(count, n),), in the order in which to label them, the most uncertain first. Raises
    ValueError for a count that is not a positive integer, and if there is not one vector for each probability.
    """
    from sklearn.cluster import KMeans

    check_positive_int("count", count)
    (y_prob,) = as_1d_arrays(y_prob)
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or len(vectors) != len(y_prob):
        raise ValueError(f"vectors: expected shape ({len(y_prob)}, D), one for each probability, got {vectors.shape}")
    candidates = rank_by_uncertainty(y_prob)[: candidates_per_label * count]
    if len(candidates) <= count:
        return candidates
    different = len(np.unique(vectors[candidates], axis=0))
    clusters = KMeans(min(count, different), random_state=seed).fit_predict(vectors[candidates])
    rank = pd.Series(clusters).groupby(clusters).cumcount().to_numpy()  # in its cluster, from 0
    return candidates[np.sort(np.argsort(rank, kind="stable")[:count])]


def convert_task(task, parameters, dev_rows):
    """Return (Features of the texts of train.tsv, followed by those of dev.tsv, the number of the former)."""
    texts, labels, dev_texts, dev_labels = read_texts(task)
    sample = tools.stratified_sample(dev_labels, dev_rows, seed=0)
    all_texts, all_labels = [*texts, *(dev_texts[row] for row in sample)], [*labels, *dev_labels[sample]]
    return convert(all_texts, all_labels, parameters), len(texts)


def fine_tune(loop, rows):
    """Train the initial weights on some rows; the model has the weights of the last epoch afterwards."""
    config = loop.experiment.config
    # the loop validates after each epoch, in vain here, so as little as possible: on a text of each class
    few = rows[np.unique(loop.experiment.setup.labels[rows], return_index=True)[1]]
    with contextlib.redirect_stdout(sys.stderr):
        loop.fine_tune(rows, few, config.learning_rate, config.num_train_epochs)


def predict_with_vectors(model, features, rows):
    """Return (probabilities of class 1, of shape (n,), the vectors that the classifier reads, of shape (n, D))."""
    device = next(model.parameters()).device
    vectors, logits = np.zeros((len(rows), model.config.hidden_size), np.float32), np.zeros((len(rows), 2), np.float32)
    model.eval()
    for batch in length_grouped_batches(features.lengths[rows], 64, max_tokens=2048):
        with torch.inference_mode():
            inputs, _ = tools.collate(features, rows[batch], device)
            _, pooled = model.bert(**inputs, output_all_encoded_layers=False)  # (B, D)
            vectors[batch], logits[batch] = pooled.cpu().numpy(), model.classifier(pooled).cpu().numpy()
    return tools.probabilities(logits)[:, 1], vectors


def evaluate(model, features, rows):
    """Return the MCC at a threshold of 0.5, the Brier score and the ROC AUC on some rows, as a dict."""
    y_prob = tools.probabilities(tools.predict_distributed(model, features, 64, rows))[:, 1]
    labels = features.labels[rows].astype(int)
    report = tools.get_eval_report("dev", labels, y_prob >= 0.5, y_prob)
    return {"mcc": report["mcc"], "brier": brier_and_ece(labels, y_prob)[0], "roc_auc": report["roc_auc"]}


def choose(arm, y_prob, vectors, count, seed):
    """Return the positions of the texts of the pool that an arm labels next, of shape (count,)."""
    if arm == "random":
        return np.random.default_rng(seed).choice(len(y_prob), count, replace=False)
    if arm == "uncertain":
        return rank_by_uncertainty(y_prob)[:count]
    return select_to_label(y_prob, vectors, count, seed)


def split_pool(labels, first, pool, seed):
    """Return (rows of a stratified sample of `first` texts, rows of at most `pool` of the others), both sorted."""
    sample = tools.stratified_sample(labels, first, seed)
    unlabelled = np.setdiff1d(np.arange(len(labels)), sample)
    return sample, np.sort(np.random.default_rng(seed).permutation(unlabelled)[:pool])


def measure_draw(loop, sample, pool, dev, arms, more, seed):
    """Yield a dict of results for the first texts, and then for each arm, with `more` texts of the pool.

    sample, pool, dev : arrays of row numbers of the features
    """
    setup = loop.experiment.setup
    model, features = setup.model, setup.features
    start = time.perf_counter()
    fine_tune(loop, sample)
    y_prob, vectors = predict_with_vectors(model, features, pool)
    yield {"arm": "first", "texts": len(sample)} | describe(model, features, sample, dev, start)
    for arm in arms:
        start = time.perf_counter()
        rows = np.concatenate([sample, pool[choose(arm, y_prob, vectors, more, seed)]])
        fine_tune(loop, rows)
        yield {"arm": arm, "texts": len(rows)} | describe(model, features, rows, dev, start)


def describe(model, features, rows, dev, start):
    """Return the results of a model that was trained on some rows, as a dict; `start` is when that began."""
    result = evaluate(model, features, dev) | {"class 1": features.labels[rows].mean()}
    return result | {"minutes": (time.perf_counter() - start) / 60}


def compare(results):
    """Return a DataFrame of the paired differences from random, with a row for each metric and other arm.

    results : DataFrame with the columns draw, arm, mcc and brier
    """
    rows = []
    for metric, sign in METRICS.items():
        table = results.pivot(index="draw", columns="arm", values=metric)
        for arm in table.columns.intersection(ARMS[1:]):
            pairs = table[["random", arm]].dropna()
            difference = pairs[arm] - pairs["random"]
            row = {"metric": metric, "arm": arm, "random": pairs["random"].mean(), "chosen": pairs[arm].mean()}
            row |= {"difference": difference.mean(), "standard error": difference.sem()}
            row |= {"p (t test)": stats.t.sf(abs(difference.mean() / difference.sem()), len(pairs) - 1) * 2}
            rows.append(row | {"better": f"{(sign * difference > 0).sum()} of {len(pairs)}"})
    return pd.DataFrame(rows)


def parse_options():
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("task", help="folder under data/")
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="seeds of everything")
    parser.add_argument("--first", type=int, default=200, help="texts of the first training run")
    parser.add_argument("--more", type=int, default=200, help="texts to label next")
    parser.add_argument("--pool", type=int, default=2000, help="texts to choose from, at most")
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS, help="what to label next; random is needed")
    parser.add_argument("--dev-rows", type=int, help="of a stratified sample of dev.tsv; without it all")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="of train.ipynb")
    return parser.parse_args()


def main():
    """Run the command line."""
    options = parse_options()
    overrides = {name: read_value(value) for name, value in options.p}
    parameters = check_parameters("train", read_parameters() | overrides | {"TASK_NAME": options.task})
    if not (ROOT / "data" / options.task / "train.tsv").is_file():
        prepare_task(options.task)
    settings = f"{options.first} + {options.more} of {options.pool}, dev {options.dev_rows or 'all'}, {overrides}"
    path = ROOT / "outputs" / options.task / "label_next.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = ["settings", "draw", "arm"]
    done = set(pd.read_csv(path)[keys].itertuples(index=False, name=None)) if path.is_file() else set()
    features, num_train = convert_task(options.task, parameters, options.dev_rows)
    labels, dev = features.labels[:num_train], np.arange(num_train, len(features))
    accelerator = tools.make_accelerator()
    for draw in options.draws:
        arms = [arm for arm in options.arms if (settings, draw, arm) not in done]
        if not arms:
            continue
        set_seed(draw)
        model = tools.load_model(parameters["BERT_MODEL"], ROOT / "cache")
        tools.reinitialize_pooler(model)
        loop = load_loop(accelerator, model, features, None, **parameters | {"RANDOM_SEED": draw})
        split = split_pool(labels, options.first, options.pool, draw)
        for result in measure_draw(loop, *split, dev, arms, options.more, draw):
            row = pd.DataFrame([{"settings": settings, "draw": draw, **result}])
            if (settings, draw, result["arm"]) not in done:
                row.to_csv(path, mode="a", header=not path.is_file(), index=False)
            print(row.drop(columns="settings").round(4).to_string(index=False), flush=True)
    results = pd.read_csv(path).query("settings == @settings")
    print(settings, results.groupby(["texts", "arm"])[["mcc", "brier", "roc_auc", "minutes"]].mean().round(4), sep="\n")
    print(compare(results).round(4).to_string(index=False))


if __name__ == "__main__":
    main()
