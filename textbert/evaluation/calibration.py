"""From logits to calibrated probabilities: temperature and intercept are fitted, applied and described."""

from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from textbert.utils.validation import as_1d_arrays


def probabilities(logits: np.ndarray, temperature: float = 1.0, intercept: float = 0.0) -> np.ndarray:
    """Return the softmax of each row of logits of shape (n, classes) after dividing them by `temperature`.

    `intercept` is added to the divided logit of class 1. The result is a float64 array of the shape of `logits`.
    """
    scaled = np.asarray(logits, np.float64) / temperature
    scaled[:, 1] += intercept
    return torch.from_numpy(scaled).softmax(dim=1).numpy()


def _smooth_targets(labels: np.ndarray) -> np.ndarray:
    """Return labels of shape (n,) as probabilities that are a little less than certain, see `fit_temperature`."""
    (labels,) = as_1d_arrays(labels)
    counts = np.bincount(labels, minlength=2)
    return np.where(labels == 1, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Fit the temperature, from 1/20 to 20, that minimizes the cross-entropy of logits of shape (n, 2).

    Dividing by it changes no prediction, only the confidence (temperature scaling, Guo et al. 2017,
    https://arxiv.org/abs/1706.04599). The labels, of shape (n,), are smoothed as if each class had one more example of
    either label (Platt 1999, Probabilistic Outputs for Support Vector Machines): otherwise a model that makes no
    mistake on a few examples would be given all the confidence the bounds allow.
    """
    from scipy.optimize import minimize_scalar

    scores, smoothed = torch.tensor(np.asarray(logits), dtype=torch.float64), _smooth_targets(labels)
    targets = torch.tensor(np.stack([1 - smoothed, smoothed], axis=1))

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(scores / np.exp(log_temperature), targets).item()

    fit = minimize_scalar(loss, bounds=np.log([0.05, 20]))
    return float(np.exp(fit.x))


def fit_calibration(
    logits: np.ndarray, labels: np.ndarray, class_weights: str | None = None, level: float = 0.01
) -> tuple[float, float]:
    """Fit the temperature and intercept that minimize the cross-entropy of logits of shape (n, 2).

    A temperature only stretches probabilities around 0.5. Training with class weights (`class_weights` is not None)
    also shifts them, which the intercept undoes (Platt 1999). Without class weights the intercept is 0.0 and the
    temperature that of `fit_temperature`, unless a likelihood-ratio test on these examples rejects this (p < `level`).
    Labels are smoothed as in `fit_temperature`, and the temperature has the same bounds.
    """
    from scipy.optimize import minimize
    from scipy.special import expit
    from scipy.stats import chi2

    logits, targets = np.asarray(logits, np.float64), _smooth_targets(labels)
    difference = logits[:, 1] - logits[:, 0]

    def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the mean cross-entropy for (slope, intercept), and its gradient."""
        log_odds = coefficients[0] * difference + coefficients[1]
        error = expit(log_odds) - targets
        value = np.mean(np.logaddexp(0, log_odds) - targets * log_odds)
        return value, np.array([np.mean(error * difference), np.mean(error)])

    temperature = fit_temperature(logits, labels)
    start = np.array([1 / temperature, 0.0])
    fit = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(1 / 20, 20), (-50, 50)])
    likelihood_ratio = 2 * len(targets) * (loss(start)[0] - fit.fun)
    if class_weights is None and not chi2.sf(likelihood_ratio, 1) < level:
        return temperature, 0.0
    return float(1 / fit.x[0]), float(fit.x[1])


def default_threshold(intercept: float, class_weights: str | None = None) -> float:
    """Return the decision threshold to use without a reason for another: 0.5.

    After training with class weights, whose purpose is to find more of a rare class, it is the calibrated probability
    that corresponds to an uncalibrated 0.5; otherwise the calibration would undo the weights.
    """
    return 0.5 if class_weights is None else float(probabilities(np.zeros((1, 2)), intercept=intercept)[0, 1])


def format_threshold(value: float) -> str:
    """Format a threshold with three decimals, or more if it would otherwise look like exactly 0, 0.5 or 1."""
    digits = next((n for n in range(3, 9) if round(value, n) not in (0, 0.5, 1)), 3)
    return f"{value:.{digits}f}"


def get_calibration(settings: dict[str, Any]) -> dict[str, float]:
    """Return the temperature and, if there is one, the intercept that were fitted for a classifier.

    After an export they are part of the weights, and its settings hold a copy of them.
    """
    fitted = {name: settings[name] for name in ("temperature", "intercept") if name in settings}
    return settings.get("calibrated_in_weights", fitted)


def describe_calibration(settings: dict[str, Any], validation: pd.DataFrame | None = None) -> list[str]:
    """Describe in sentences how the probabilities of a classifier with these settings were calibrated.

    `validation` is a DataFrame with the examples it was fitted on, whose number is mentioned; None if unknown.
    """
    fitted = get_calibration(settings)
    temperature, intercept = fitted["temperature"], fitted.get("intercept", 0.0)
    if settings.get("parameters", {}).get("CLASS_WEIGHTS") is not None and "intercept" not in fitted:
        return [
            "Its probabilities are shifted towards the minority class by the class weights in training (CLASS_WEIGHTS),"
            f" which a temperature ({temperature:.3f}) alone cannot correct. Run train.ipynb again to fit an intercept."
        ]
    if temperature == 1 and intercept == 0:
        return ["Its probabilities were not calibrated."]
    parameters = f"a temperature ({temperature:.3f})"
    parameters += f" and an intercept ({intercept:.3f})" if intercept else ""
    count = "" if validation is None else f"{len(validation):,} "
    examples = f"{count}validation examples"
    if settings.get("validation_folds"):
        examples = f"{count}training examples, each predicted by a model that was not trained on it"
    sentences = [f"Its probabilities were calibrated with {parameters}, fitted on {examples}."]
    if not 1.01 / 20 < temperature < 20 / 1.01:
        sentences.append("The temperature is at its limit (0.05 or 20): the probabilities may still be far off.")
    return sentences
