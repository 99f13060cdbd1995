"""The baseline that BERT is compared with: TF-IDF and logistic regression, calibrated and tuned as BERT is."""

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline

from textbert.data.groups import get_groups_by_text, unite_groups
from textbert.data.labelled_texts import LabelledTexts
from textbert.data.normalization import hash_text
from textbert.data.words import WORD
from textbert.evaluation.calibration import default_threshold, fit_calibration, format_threshold, probabilities
from textbert.evaluation.metrics import choose_threshold

_analyze_ascii = TfidfVectorizer(ngram_range=(1, 2)).build_analyzer()

_analyze_unicode = TfidfVectorizer(ngram_range=(1, 2), token_pattern=WORD).build_analyzer()


def split_words(text: str) -> list[str]:
    """Return the words and word pairs of a text, or what is between its spaces if no word has two letters.

    In scripts without spaces between words each character counts as a word, as it does for BERT.
    """
    analyze = _analyze_ascii if text.isascii() else _analyze_unicode  # the same for ASCII, and faster
    return analyze(text) or text.lower().split() or [""]


def make_baseline(class_weights: str | None = None) -> Pipeline:
    """Return an unfitted scikit-learn pipeline: TF-IDF of words and word pairs, then logistic regression.

    class_weights : None, or "balanced" if BERT was trained with class weights
    """
    model = LogisticRegression(C=10, max_iter=1000, class_weight=class_weights)
    return make_pipeline(TfidfVectorizer(analyzer=split_words, sublinear_tf=True), model)


def assign_folds(
    texts: list[str], labels: np.ndarray, folds: int, seed: int, groups: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split rows into stratified folds that keep equal texts together; return [(training rows, held-out rows), ...].

    A class with fewer different texts than `folds` reduces the number of folds; with fewer than two, the list is empty.

    groups : array of the number of each text's group, of shape (n,), to keep groups together, too; then a class in
        fewer groups reduces the number of folds. Equal texts of several groups unite these, unless the result has more
        than one `folds`-th of the rows. None for no groups
    """
    hashes = np.array([hash_text(text) for text in texts], np.int64)
    same_text = np.unique(hashes, return_inverse=True)[1]
    if groups is not None:
        return _assign_group_folds(same_text, labels, folds, seed, groups)
    has_positive = np.zeros(same_text.max(initial=-1) + 1, int)  # a text may occur with both labels
    np.maximum.at(has_positive, same_text, labels)
    folds = min(folds, *np.bincount(has_positive, minlength=2))
    if folds < 2:
        return []
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(has_positive, has_positive)
    masks = [np.isin(same_text, held_out_texts) for _, held_out_texts in splits]
    return [(np.flatnonzero(~mask), np.flatnonzero(mask)) for mask in masks]


def _assign_group_folds(
    same_text: np.ndarray, labels: np.ndarray, folds: int, seed: int, groups: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the folds of `assign_folds` for groups; equal texts have the same number in `same_text`."""
    numbers = np.unique(groups, return_inverse=True)[1]
    united = unite_groups(numbers, get_groups_by_text(numbers, same_text), len(labels) // folds)
    most = min(folds, *(len(np.unique(united[labels == label])) for label in (0, 1)))
    for count in range(most, 1, -1):
        splits = list(StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(united, labels, united))
        if all(len(set(labels[train].tolist())) == 2 for train, _ in splits):
            return splits
    return []


def _get_logits(baseline: Pipeline, texts: list[str]) -> np.ndarray:
    """Return the predictions of a fitted baseline as logits like BERT's, of shape (n, 2)."""
    log_odds = baseline.decision_function(texts)
    return np.stack([-log_odds / 2, log_odds / 2], axis=1)


def tune_baseline(
    baseline: Pipeline,
    train: LabelledTexts,
    class_weights: str | None = None,
    false_positive_cost: float = 1.0,
    seed: int = 0,
    max_cv_texts: int = 10_000,
) -> tuple[dict[str, float], str]:
    """Fit the calibration and decision threshold of a baseline, by the rules of train.ipynb, on held-out predictions.

    These come from 3-fold cross-validation, or with more than `max_cv_texts` texts from a single held-out tenth. Equal
    texts stay together, and so do groups, see `assign_folds`. The baseline must be fitted again afterwards, on all
    texts.

    Returns (dict with temperature, intercept and threshold, a description of them). If a class has fewer than two
    different texts, they are 1.0, 0.0 and 0.5.
    """
    labels, folds = train.labels, 3 if len(train) <= max_cv_texts else 10
    splits = assign_folds(train.texts, labels, folds, seed, train.groups)[: 3 if folds == 3 else 1]
    if not splits:
        return {"temperature": 1.0, "intercept": 0.0, "threshold": 0.5}, "there are too few to fit its threshold"
    fold_logits = []
    for training_rows, held_out_rows in splits:
        baseline.fit(train.select(training_rows).texts, labels[training_rows])
        fold_logits.append(_get_logits(baseline, train.select(held_out_rows).texts))
    logits, y_true = np.concatenate(fold_logits), labels[np.concatenate([held_out for _, held_out in splits])]
    temperature, intercept = fit_calibration(logits, y_true, class_weights)
    y_prob = probabilities(logits, temperature, intercept)[:, 1]
    default = default_threshold(intercept, class_weights)
    threshold, reason = choose_threshold(y_prob, y_true, false_positive_cost, seed, default)
    parameters = {"temperature": temperature, "intercept": intercept, "threshold": threshold}
    description = f"its threshold is {format_threshold(threshold)}: {reason}"
    return parameters, f"{description}. It was fitted on out-of-fold predictions of {len(y_true):,} texts"


def predict_baseline(baseline: Pipeline, texts: list[str], parameters: dict[str, float]) -> np.ndarray:
    """Return the calibrated probabilities of class 1, of shape (n,); `parameters` are those of `tune_baseline`."""
    return probabilities(_get_logits(baseline, texts), parameters["temperature"], parameters["intercept"])[:, 1]
