"""The names of the compared models in eval_results.json, which are older than the displayed ones.

They do not change, as programs read the file.
"""

from typing import Any

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
