"""The model that BERT is compared with: words counted, weighed by logistic regression, and tuned as BERT is."""

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from textbert.data.normalization import hash_text
from textbert.data.words import WORD
from textbert.evaluation.calibration import default_threshold, fit_calibration, format_threshold, probabilities
from textbert.evaluation.metrics import choose_threshold

_find_words = TfidfVectorizer(ngram_range=(1, 2)).build_analyzer()

_find_words_of_any_script = TfidfVectorizer(ngram_range=(1, 2), token_pattern=WORD).build_analyzer()


def _find_terms(text):
    """Return the words and word pairs of a text; where it has no word of two letters, what stands between spaces.

    Where words are not parted by spaces each character counts as one, as it does to BERT.
    """
    find = _find_words if text.isascii() else _find_words_of_any_script  # the same for English, and faster
    return find(text) or text.lower().split() or [""]


def make_baseline(class_weights=None):
    """Return the cheap model that BERT is compared with: TF-IDF of words and word pairs, and logistic regression.

    class_weights : None, or "balanced" if BERT was trained so
    """
    model = LogisticRegression(C=10, max_iter=1000, class_weight=class_weights)
    return make_pipeline(TfidfVectorizer(analyzer=_find_terms, sublinear_tf=True), model)


def assign_folds(texts, labels, folds, seed):
    """Return [(rows to learn, rows held out), ...], equal texts in one fold; fewer folds where a class has few texts.

    The list is empty where a class has fewer than two different texts.
    """
    digests = np.array([hash_text(text) for text in texts], np.int64)
    group = np.unique(digests, return_inverse=True)[1]
    holds_positive = np.zeros(group.max(initial=-1) + 1, int)  # a text may be there with both labels
    np.maximum.at(holds_positive, group, labels)
    folds = min(folds, *np.bincount(holds_positive, minlength=2))
    if folds < 2:
        return []
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(holds_positive, holds_positive)
    held_out = [np.isin(group, chosen) for _, chosen in splits]
    return [(np.flatnonzero(~held), np.flatnonzero(held)) for held in held_out]


def _get_logits(baseline, texts):
    """Return a fitted baseline's answers as BERT gives them: logits of shape (n, 2)."""
    log_odds = baseline.decision_function(texts)
    return np.stack([-log_odds / 2, log_odds / 2], axis=1)


def tune_baseline(baseline, texts, labels, class_weights=None, false_positive_cost=1.0, seed=0, many=10_000):
    """Fit calibration and threshold of a baseline as train.ipynb fits BERT's, on texts that it has not learned.

    Three folds in turn are held out of the texts, a list, and labels, of shape (n,); of more than `many` texts a tenth.
    Equal texts stay together. Returns (dict with temperature, intercept and threshold, a sentence about them); where a
    class has fewer than two texts they are 1.0, 0.0 and 0.5.
    """
    labels, folds = np.asarray(labels), 3 if len(texts) <= many else 10
    splits = assign_folds(texts, labels, folds, seed)[: 3 if folds == 3 else 1]
    if not splits:
        return {"temperature": 1.0, "intercept": 0.0, "threshold": 0.5}, "too few texts to fit its threshold on"
    logits = []
    for learned, held_out in splits:
        baseline.fit([texts[row] for row in learned], labels[learned])
        logits.append(_get_logits(baseline, [texts[row] for row in held_out]))
    logits, truth = np.concatenate(logits), labels[np.concatenate([held_out for _, held_out in splits])]
    temperature, intercept = fit_calibration(logits, truth, class_weights)
    positive = probabilities(logits, temperature, intercept)[:, 1]
    usual = default_threshold(intercept, class_weights)
    threshold, reason = choose_threshold(positive, truth, false_positive_cost, seed, usual)
    tuned = {"temperature": temperature, "intercept": intercept, "threshold": threshold}
    how = f"it says yes from {format_threshold(threshold)} on: {reason}"
    return tuned, f"{how}. It was tuned on {len(truth):,} texts held out of train.tsv, and has learned them since"


def predict_baseline(baseline, texts, tuned):
    """Return a fitted baseline's calibrated probabilities of class 1; `tuned` is what `tune_baseline` returned."""
    return probabilities(_get_logits(baseline, texts), tuned["temperature"], tuned["intercept"])[:, 1]


def find_label_issues(texts, labels, positive, baseline, folds=5, seed=0):
    """Rank training rows by how little two models believe their labels, the most suspicious first.

    Parameters
    ----------
    texts, labels : lists or arrays of shape (n,)
    positive : BERT's probabilities of class 1, of shape (n,)
    baseline : a scikit-learn classifier of texts; it judges each row after learning from the other folds, in which that
        text is not, so that it cannot know the label by heart, as BERT may
    folds : at most; no more than the rarer class has different texts

    Returns a DataFrame with row, baseline and bert (the probability that each gives to the label); a text that is there
    more than once has several rows. It is empty, and that is said, where a class has fewer than two different texts.
    """
    labels = np.asarray(labels, int)
    split = assign_folds(texts, labels, folds, seed)
    if not split:
        print(f"Among {len(labels)} rows a class has fewer than two texts: too few to tell which labels may be wrong")
        return pd.DataFrame({"row": [], "baseline": [], "bert": []}).astype({"row": int})
    out_of_fold = cross_val_predict(baseline, np.asarray(texts, object), labels, cv=split, method="predict_proba")[:, 1]
    believed = {
        name: np.where(labels == 1, p, 1 - p) for name, p in (("baseline", out_of_fold), ("bert", np.asarray(positive)))
    }
    table = pd.DataFrame({"row": np.arange(len(labels)), **believed})
    log_odds = sum(np.log(p / (1 - p)) for p in np.clip(list(believed.values()), 1e-9, 1 - 1e-9))  # as if independent
    return table.iloc[np.argsort(log_odds, kind="stable")]
