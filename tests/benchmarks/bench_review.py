"""How often does TARGET_ACCURACY keep what it promises? A simulation, for the claim of `find_review_range`.

    python tests/benchmarks/bench_review.py

Validation sets of several sizes are drawn from calibrated models of several strengths (the standard deviation of their
log-odds), of which the true accuracy outside of any range is known.
"""

import sys
from itertools import product
from pathlib import Path

import numpy as np
from scipy.special import expit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from textbert.evaluation.review import find_review_range, get_confidence  # noqa: E402 (found by the line above)

DRAWS = 600


def simulate(strength, size, target, rng):
    """Return the fractions of draws in which a range was found, and in which the true accuracy missed the target."""
    confidence = np.sort(np.abs(strength * rng.normal(size=1_000_000)))[::-1]
    true_accuracy = np.cumsum(expit(confidence)) / np.arange(1, len(confidence) + 1)  # of the most confident
    found = missed = 0
    for _ in range(DRAWS):
        y_prob = expit(strength * rng.normal(size=size))
        review_range = find_review_range(y_prob, (rng.random(size) < y_prob).astype(int), 0.5, target)
        if review_range != [0, 1]:
            found += 1
            decided = np.count_nonzero(confidence >= get_confidence(np.array(review_range[:1]), 0.5)[0])
            missed += true_accuracy[decided - 1] < target
    return found / DRAWS, missed / DRAWS


def main():
    rng = np.random.default_rng(0)
    print("strength  examples  target  range found  true accuracy below the target")
    for strength, size, target in product((1.5, 2.5, 4.0, 7.0), (168, 500, 2000), (0.9, 0.95)):
        found, missed = simulate(strength, size, target, rng)
        print(f"{strength:8}  {size:8,}  {target:6}  {found:11.0%}  {missed:30.1%}", flush=True)


if __name__ == "__main__":
    main()
