"""The names of the compared models in eval_results.json, which are older than those that are displayed.

They stay as they were, for programs that read the file.
"""

from typing import Any

FILE_NAMES = {"majority class": "always the same", "TF-IDF": "counting words"}


def to_file_names(by_model: dict[str, Any]) -> dict[str, Any]:
    """Return a dict whose keys name models, such as "BERT minus TF-IDF", with their names in eval_results.json."""
    renamed = {}
    for key, value in by_model.items():
        for displayed, in_file in FILE_NAMES.items():
            key = key.replace(displayed, in_file)
        renamed[key] = value
    return renamed


def to_display_names(by_model: dict[str, Any]) -> dict[str, Any]:
    """Return a dict keyed by models as eval_results.json names them with the names that are displayed."""
    displayed = {in_file: name for name, in_file in FILE_NAMES.items()}
    return {displayed.get(key, key): value for key, value in by_model.items()}
