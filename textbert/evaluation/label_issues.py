"""Find training rows whose label may be wrong: those in which two models have the least confidence."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import Pipeline

from textbert.data.labelled_texts import LabelledTexts
from textbert.evaluation.baseline import assign_folds, make_baseline


def _get_label_confidence(labels: np.ndarray, y_prob: np.ndarray) -> np.ndarray:
    """Return the probability of each label, given that of class 1; all arrays are of shape (n,)."""
    return np.where(labels == 1, y_prob, 1 - y_prob)


def find_label_issues(
    texts: Sequence[str],
    labels: np.ndarray,
    y_prob: np.ndarray,
    baseline: Pipeline,
    folds: int = 5,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> pd.DataFrame:
    """Rank training rows by the confidence of two models in their labels, the least confident first.

    Parameters
    ----------
    texts : list of n strings
    labels : array of 0 and 1, of shape (n,)
    y_prob : BERT's probabilities of class 1, of shape (n,); NaN where it was trained on the text and knows the label
        by heart, and where the other model decides alone
    baseline : a scikit-learn classifier of texts; its predictions are out-of-fold, so it cannot have memorized a label.
        Equal texts are in one fold
    folds : maximum number of folds; there are no more than the minority class has different texts
    groups : array of the number of each text's group, of shape (n,), which are then in one fold, too; None for none

    Returns a DataFrame with the columns row, and baseline and bert, the probability that each model gives to the label.
    A text that occurs several times has several rows. If a class has fewer than two different texts, prints a line and
    returns an empty DataFrame.
    """
    labels = np.asarray(labels, int)
    splits = assign_folds(list(texts), labels, folds, seed, groups)
    if not splits:
        units = "different texts" if groups is None else "groups"
        print(f"One class has fewer than two {units} among {len(labels)} rows: too few to find label issues")
        return pd.DataFrame({"row": [], "baseline": [], "bert": []}).astype({"row": int})
    out_of_fold = cross_val_predict(baseline, np.asarray(texts, object), labels, cv=splits, method="predict_proba")
    confidence = {
        "baseline": _get_label_confidence(labels, out_of_fold[:, 1]),
        "bert": _get_label_confidence(labels, np.asarray(y_prob)),
    }
    clipped = np.clip(list(confidence.values()), 1e-9, 1 - 1e-9)
    # the mean of those that there are: with the sum, a row that both models judge would always come before the others
    log_odds = np.nanmean(np.log(clipped / (1 - clipped)), axis=0)
    return pd.DataFrame({"row": np.arange(len(labels)), **confidence}).iloc[np.argsort(log_odds, kind="stable")]


def tabulate_label_issues(texts: LabelledTexts, y_prob: np.ndarray, names: Sequence[str], count: int) -> pd.DataFrame:
    """Return the rows of `find_label_issues` for some training texts as a table to read, at most `count`.

    y_prob : BERT's probabilities of class 1, of shape (n,); NaN where it was trained on the text
    names : names of the two classes
    """
    issues = find_label_issues(texts.texts, texts.labels, y_prob, make_baseline(), groups=texts.groups).head(count)
    suspects = texts.select(issues["row"].to_numpy())
    columns = {texts.id_name: suspects.ids, "label": [names[label] for label in suspects.labels]}
    bert = ["–" if np.isnan(p) else p for p in issues["bert"].round(2)]
    columns |= {"TF-IDF": issues["baseline"].round(2).tolist(), "BERT": bert}
    return pd.DataFrame(columns | {"text": suspects.texts})
