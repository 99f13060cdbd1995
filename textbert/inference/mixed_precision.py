"""Prediction in bfloat16 where a CPU multiplies its matrices faster (AMX), with the decisions of float32."""

import copy
from typing import Any

import numpy as np
from pytorch_pretrained_bert import BertForSequenceClassification

from textbert.features.batching import has_amx
from textbert.features.features import Features
from textbert.model.modeling import use_fused_kernels
from textbert.model.prediction import predict_logits

PRECISIONS = ("float32", "auto")

NUM_MEASURED = 64  # examples nearest to a decision, whose errors are the first to be measured

SAFETY_FACTOR = 4  # other errors were at most 2.2 times these, see tests/benchmarks/README.md

MIN_EXAMPLES = 256  # of fewer, too large a part would be computed twice


def copy_to_bfloat16(model: BertForSequenceClassification) -> BertForSequenceClassification | None:
    """Return a copy of a model with bfloat16 weights; None where that is no faster: on a GPU, or a CPU without AMX."""
    if next(model.parameters()).device.type != "cpu" or not has_amx():
        return None
    return use_fused_kernels(copy.deepcopy(model).bfloat16())


def _margin(logits: np.ndarray) -> np.ndarray:
    return logits[:, 1] - logits[:, 0]


def find_boundaries(settings: dict[str, Any]) -> np.ndarray:
    """Return the margins, differences of the two logits, where a label or `review` changes."""
    y_prob = np.array([settings["threshold"], *settings.get("review_range", [])])
    with np.errstate(divide="ignore"):  # a threshold of 0 or 1 is at infinity
        log_odds = np.log(y_prob) - np.log1p(-y_prob)
    return (log_odds - settings.get("intercept", 0.0)) * settings["temperature"]


def predict_twice(
    model: BertForSequenceClassification,
    bfloat16_model: BertForSequenceClassification | None,
    features: Features,
    batch_size: int,
    settings: dict[str, Any],
    progress: bool = True,
) -> np.ndarray:
    """Return logits for features, of shape (n, 2), computed in float32 wherever bfloat16 could change a decision.

    bfloat16_model : what `copy_to_bfloat16` returned for `model`; if None, or with few examples, all is in float32
    settings : those of a Classifier, which say where decisions change

    All examples are predicted in bfloat16. Those with a margin near to a change are predicted again, in float32, until
    no other is nearer than `SAFETY_FACTOR` times the largest error so far.
    """
    if bfloat16_model is None or len(features) < MIN_EXAMPLES:
        return predict_logits(model, features, batch_size, progress=progress)
    logits = predict_logits(bfloat16_model, features, batch_size, progress=progress)
    distance = np.abs(_margin(logits)[:, None] - find_boundaries(settings)).min(axis=1)  # (n,)
    is_exact, error = np.zeros(len(features), bool), 0.0
    rows = np.argsort(distance, kind="stable")[:NUM_MEASURED]
    while len(rows):
        exact = predict_logits(model, features, batch_size, rows, progress=False)
        error = max(error, float(np.abs(_margin(exact) - _margin(logits[rows])).max()))
        logits[rows], is_exact[rows] = exact, True
        rows = np.flatnonzero((distance <= SAFETY_FACTOR * error) & ~is_exact)
    return logits
