"""Detect stale cells: which sections of a notebook have been run, and with which parameters."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from textbert.notebook.parameters import check_parameters

# for each notebook the sections whose results later cells use, in order, and the parameters that affect them
STAGES = {
    "data_prep": {
        "the check of the parameters": ("TASK_NAME",),
        "Look at the raw data": ("TRAIN_FILE", "TEST_FILE", "TEXT_COLUMN", "LABEL_COLUMN", "ID_COLUMN", "ENCODING"),
        "Labels: to 0 and 1": ("CLASSES", "LABEL_NAMES"),
        "Labels: to 0 and 1, second cell": (),
        "Texts: what must go, and what must stay": (),
        "Texts: what must go, and what must stay, second cell": (),
        "An evaluation set": ("DEV_SHARE", "RANDOM_SEED"),
        "Data quality": ("CLEAN_TRAIN",),
        "BERT's four columns": (),
        "Write the files and read them back": (),
    },
    "train": {
        "the check of the parameters": ("TASK_NAME",),
        "The examples": ("TASK_NAME",),
        "A validation set": ("TASK_NAME", "TRAIN_ROWS", "VALIDATION_SHARE", "RANDOM_SEED"),
        "The model": ("BERT_MODEL", "RANDOM_SEED"),
        "What BERT reads": ("BERT_MODEL", "MAX_SEQ_LENGTH", "TRUNCATION"),
        "The learning rate schedule": ("TRAIN_BATCH_SIZE", "GRADIENT_ACCUMULATION_STEPS", "RANDOM_SEED"),
        "Training": (
            "LEARNING_RATE",
            "NUM_TRAIN_EPOCHS",
            "WARMUP_PROPORTION",
            "CLASS_WEIGHTS",
            "R_DROP",
            "ADVERSARIAL_EPSILON",
            "ADVERSARIAL_SHARE",
            "PATIENCE",
        ),
        "More from the same data": ("SEARCH_LEARNING_RATES", "SEARCH_EPOCHS"),
        "More from the same data, second cell": (),
        "Cross-validation": ("FOLDS",),
        "Calibration": (),
        "The decision threshold": ("FALSE_POSITIVE_COST",),
        "Save and pack": (),
        "Save and pack, second cell": (),
        "Save and pack, third cell": (),
        "Save and pack, last cells": (),
    },
    "evaluate": {
        "the check of the parameters": ("TASK_NAME",),
        "The model": ("TASK_NAME", "OLD_ARCHIVE", "REFIT"),
        "Predict": (),
        "Two baselines": (),
        "Validation set and dev set": (),
        "Confidence intervals": (),
        "Confusion matrix and curves": (),
        "Calibration": (),
        "Decision threshold": (),
        "Error analysis": ("SHOW_MISTAKES",),
        "Label issues": ("CHECK_LABELS", "SHOW_MISTAKES"),
        "The report": (),
        "Try your own texts": (),
    },
}

CONTENT = "content"


class Stages:
    """The sections of a notebook that have been run, and with which parameters, so that cells can be run in any order.

    notebook : a key of `STAGES`
    """

    def __init__(self, notebook: str) -> None:
        self.notebook = notebook
        self.sections = STAGES[notebook]
        self.completed: dict[str, dict[str, Any]] = {}

    @contextmanager
    def running(self, section: str, names: dict[str, Any], content: Any = None) -> Iterator[dict[str, Any]]:
        """Context manager for the code of a section; yields the notebook's parameters.

        It checks the parameters, and that each earlier section was run with the current ones. If this section was last
        run with other parameters or other content, the later ones become out of date.

        names : the notebook's `globals()`
        content : a value that identifies what the section has read, such as a file's hash; None if it reads nothing

        Raises ValueError, naming the section to rerun from, and what `check_parameters` raises.
        """
        parameters, sections = check_parameters(self.notebook, names), list(self.sections)
        position = sections.index(section)
        for earlier in sections[:position]:
            self._check_completed(earlier, parameters)
        state = {name: parameters[name] for name in self.sections[section]} | {CONTENT: content}
        if self.completed.pop(section, None) != state:
            for later in sections[position:]:
                self.completed.pop(later, None)
        yield parameters
        self.completed[section] = state

    def check_current(self, section: str, names: dict[str, Any], content: Any = None) -> dict[str, Any]:
        """Check and record a section that is a single cell, as `running` does; return the parameters."""
        with self.running(section, names, content) as parameters:
            return parameters

    def _check_completed(self, section: str, parameters: dict[str, Any]) -> None:
        if section not in self.completed:
            raise ValueError(f"{section!r} has not been run, or is out of date. Rerun from that section")
        for name in self.sections[section]:
            value, used = parameters[name], self.completed[section][name]
            if used != value:
                raise ValueError(
                    f"{name} is {value!r}, but was {used!r} when {section!r} was run. Rerun from that section"
                )
