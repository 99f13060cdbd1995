"""From logits to calibrated probabilities: temperature and intercept, fitted, applied and described."""

import numpy as np
import torch
import torch.nn.functional as F

from textbert.utils.validation import as_1d_arrays


def probabilities(logits, temperature=1.0, intercept=0.0):
    """Return the softmax, row by row, of logits of shape (n, classes) divided by `temperature`.

    `intercept` is added to the divided logit of class 1.
    """
    scaled = np.asarray(logits, np.float64) / temperature
    scaled[:, 1] += intercept
    return torch.from_numpy(scaled).softmax(dim=1).numpy()


def _smooth_targets(labels):
    """Return labels, of shape (n,), as a little less than certain probabilities: see `fit_temperature`."""
    (labels,) = as_1d_arrays(labels)
    counts = np.bincount(labels, minlength=2)
    return np.where(labels == 1, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))


def fit_temperature(logits, labels):
    """Return the temperature, from 1/20 to 20, that makes the probabilities of logits fit the labels best.

    Dividing the logits, of shape (n, 2), by it changes no decision, only how sure the model says it is (temperature
    scaling, Guo et al. 2017, https://arxiv.org/abs/1706.04599). The labels count as a little less than certain, by one
    text more of each class (Platt 1999, Probabilistic Outputs for Support Vector Machines): a model that makes no
    mistake on a few texts would come out as sure as can be.
    """
    from scipy.optimize import minimize_scalar

    logits, believed = torch.tensor(np.asarray(logits), dtype=torch.float64), _smooth_targets(labels)
    targets = torch.tensor(np.stack([1 - believed, believed], axis=1))
    fit = minimize_scalar(lambda log: F.cross_entropy(logits / np.exp(log), targets).item(), bounds=np.log([0.05, 20]))
    return float(np.exp(fit.x))


def fit_calibration(logits, labels, class_weights=None, level=0.01):
    """Return (temperature, intercept) that make the probabilities of logits, of shape (n, 2), fit the labels best.

    A temperature only stretches percentages around 50 %. Where training has weighed the classes (`class_weights` is not
    None) they are shifted as well, and an intercept moves them back (Platt 1999). Elsewhere it is 0.0, and the
    temperature that of `fit_temperature`, unless a likelihood-ratio test says on these texts that this is not enough
    (p < `level`). Labels are smoothed as in `fit_temperature`, and the temperature has the same bounds.
    """
    from scipy.optimize import minimize
    from scipy.special import expit
    from scipy.stats import chi2

    logits, targets = np.asarray(logits, np.float64), _smooth_targets(labels)
    difference = logits[:, 1] - logits[:, 0]

    def loss(line):
        """The mean cross-entropy for a (slope, intercept), and its gradient."""
        log_odds = line[0] * difference + line[1]
        error = expit(log_odds) - targets
        value = np.mean(np.logaddexp(0, log_odds) - targets * log_odds)
        return value, np.array([np.mean(error * difference), np.mean(error)])

    temperature = fit_temperature(logits, labels)
    start = np.array([1 / temperature, 0.0])
    fit = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(1 / 20, 20), (-50, 50)])
    gain = 2 * len(targets) * (loss(start)[0] - fit.fun)
    if class_weights is None and not chi2.sf(gain, 1) < level:
        return temperature, 0.0
    return float(1 / fit.x[0]), float(fit.x[1])


def default_threshold(intercept, class_weights=None):
    """Return the probability from which on a text is called positive if nothing speaks for another: 0.5.

    If training has weighed the classes, so that more of a rare one are found, it is the calibrated probability of what
    the model by itself gives 0.5, or the calibration would undo the weights.
    """
    return 0.5 if class_weights is None else float(probabilities([[0, 0]], intercept=intercept)[0, 1])


def format_threshold(value):
    """Return a threshold with three decimals, or as many more as it takes not to look like 0, 0.5 or 1 if it is not."""
    digits = next((n for n in range(3, 9) if round(value, n) not in (0, 0.5, 1)), 3)
    return f"{value:.{digits}f}"


def get_fitted(settings):
    """Return what of temperature and intercept was fitted for a classifier's settings, wherever it is, as a dict."""
    own = {name: settings[name] for name in ("temperature", "intercept") if name in settings}
    return settings.get("calibrated_in_weights", own)


def describe_calibration(settings, validation=None):
    """Say in sentences, a list, what was done to a classifier's percentages; `validation` is its texts, or None."""
    fitted = get_fitted(settings)
    temperature, intercept = fitted["temperature"], fitted.get("intercept", 0.0)
    if settings.get("parameters", {}).get("CLASS_WEIGHTS") is not None and "intercept" not in fitted:
        return [
            "Its probabilities are shifted towards the rarer class: training has weighed the classes (CLASS_WEIGHTS), "
            f"and the temperature ({temperature:.3f}) that was fitted cannot mend that. Train again to have it mended."
        ]
    if temperature == 1 and intercept == 0:
        return ["Nothing was fitted to bring its probabilities closer to the observed frequencies."]
    what = f"A temperature ({temperature:.3f})"
    what += f" and an intercept ({intercept:.3f}) were fitted" if intercept else " was fitted"
    where = "validation texts" if validation is None else f"{len(validation):,} validation texts"
    sentences = [f"{what} on {where}, to bring its probabilities closer to the observed frequencies."]
    if not 1.01 / 20 < temperature < 20 / 1.01:
        sentences.append("The temperature is at its limit (0.05 or 20): the probabilities may still be far off.")
    return sentences
