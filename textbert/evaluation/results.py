"""The files with the results. In eval_results.json the compared models have other names than in the notebook.

These are older and do not change, as programs read the file.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from textbert.utils.files import write_text

FILE_NAMES = {"majority class": "always the same", "TF-IDF": "counting words"}


def to_file_names(by_model: dict[str, Any]) -> dict[str, Any]:
    """Rename models in the keys of a dict, such as "BERT minus TF-IDF", to their names in eval_results.json."""
    renamed = {}
    for key, value in by_model.items():
        for displayed, in_file in FILE_NAMES.items():
            key = key.replace(displayed, in_file)
        renamed[key] = value
    return renamed


def to_display_names(by_model: dict[str, Any]) -> dict[str, Any]:
    """Rename the models that are the keys of a dict from their names in eval_results.json to the displayed ones."""
    displayed = {in_file: name for name, in_file in FILE_NAMES.items()}
    return {displayed.get(key, key): value for key, value in by_model.items()}


def write_results(
    folder: Path,
    results: dict[str, dict[str, Any]],
    intervals: pd.DataFrame,
    mcnemar: tuple[int, int, float],
    predictions: pd.DataFrame,
    **about: Any,
) -> list[Path]:
    """Write eval_results.txt, with the metrics of BERT, eval_results.json, with everything, and predictions.csv.

    results : dict from a model's name to its `get_eval_report`
    intervals, mcnemar : of `bootstrap_metrics`, and of `mcnemar` with BERT first
    predictions : the table to write as predictions.csv
    about : what else is to be in eval_results.json

    Returns the paths.
    """
    lines = "".join(f"{name} = {value}\n" for name, value in results["BERT"].items())
    defined = intervals.astype(object).where(intervals.notna(), None)  # JSON has no NaN
    by_model = {name: table.droplevel(0).T.to_dict() for name, table in defined.groupby(level=0, sort=False)}
    everything = to_file_names(about) | {"results": to_file_names(results), "intervals": to_file_names(by_model)}
    everything["mcnemar"] = dict(zip(("only_bert", "only_baseline", "p_value"), mcnemar))
    contents = {"eval_results.txt": lines, "eval_results.json": json.dumps(everything, indent=2) + "\n"}
    contents["predictions.csv"] = predictions.to_csv(index=False)
    for name, content in contents.items():
        write_text(folder / name, content)
    return [folder / name for name in contents]


def make_card(
    names: Sequence[str], labels: np.ndarray, intervals: pd.DataFrame, calibration_errors: pd.DataFrame
) -> dict[str, float]:
    """Return the metrics for the model card of an export, a dict from a name to a number.

    calibration_errors : table with a row "after calibration"
    """
    counts = np.bincount(labels, minlength=2).tolist()
    card: dict[str, float] = {f"texts labelled {name!r}": count for name, count in zip(names, counts)}
    card |= intervals.loc["BERT", "value"].dropna().to_dict()
    return card | calibration_errors.loc["after calibration"].to_dict()
