"""Check examples and encode their labels."""

from collections.abc import Hashable, Iterable, Mapping
from numbers import Integral
from typing import Any, Protocol

import numpy as np

from textbert.features.features import IGNORE_INDEX


class Example(Protocol):
    """The attributes of `tools.InputExample` that the functions below need."""

    guid: Any
    text_a: str
    text_b: str | None
    label: Any


def check_examples(examples: Iterable[Example]) -> None:
    """Raise ValueError, which names the example, unless all are InputExamples of one or two strings."""
    for row, example in enumerate(examples):
        if not all(hasattr(example, name) for name in ("guid", "text_a", "text_b", "label")):
            raise ValueError(f"example {row} is {example!r:.80}, but must be an InputExample")
        for name, text, types in (("text_a", example.text_a, str), ("text_b", example.text_b, str | None)):
            if not isinstance(text, types):
                raise ValueError(
                    f"example {example.guid!r} has the {name} {text!r:.80}, but it must be a string, '' if empty"
                )


def encode_example_labels(
    examples: Iterable[Example], label_map: Mapping[Any, int] | None, output_mode: str
) -> np.ndarray:
    """Return the labels of n examples as an array of shape (n,), int32, or float64 in regression.

    An example without a label gets `IGNORE_INDEX`, in regression NaN. Raises ValueError for a label that is not in
    `label_map`, in regression for one that is not a number.
    """
    if output_mode == "regression":
        return np.array([_to_float(example) for example in examples], "<f8")
    if output_mode != "classification":
        raise ValueError(f"output_mode is {output_mode!r}, but must be classification or regression")
    if not isinstance(label_map, Mapping) or not all(isinstance(value, Integral) for value in label_map.values()):
        raise ValueError(f"label_map is {label_map!r}, but must be a dict from label to integer, such as {{'0': 0}}")
    label_ids = {None: IGNORE_INDEX, **label_map}
    labels = []
    for example in examples:
        if not isinstance(example.label, Hashable) or example.label not in label_ids:
            raise ValueError(f"example {example.guid!r} has the label {example.label!r}, which is not in {label_map}")
        labels.append(label_ids[example.label])
    return np.array(labels, "<i4")


def _to_float(example: Example) -> float:
    """Return the label of an example as a float, NaN if it has none; ValueError if it is not a number."""
    try:
        number = np.nan if example.label is None else float(example.label)
    except (ValueError, TypeError):
        number = np.inf
    if np.isinf(number):
        raise ValueError(
            f"example {example.guid!r} has the label {example.label!r}, but in regression it must be a number"
        )
    return number
