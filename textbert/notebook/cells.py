"""What the cells of a notebook have made, and with which parameters: so they can be run again, in any order."""

from contextlib import contextmanager

from textbert.notebook.parameters import check_parameters

# the headings of a notebook under which something is made, and the parameters that decide what
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
        "Hold something out": ("TASK_NAME", "TRAIN_ROWS", "VALIDATION_SHARE", "RANDOM_SEED"),
        "The model": ("BERT_MODEL", "RANDOM_SEED"),
        "What BERT reads": ("BERT_MODEL", "MAX_SEQ_LENGTH", "TRUNCATION"),
        "How the learning rate moves": ("TRAIN_BATCH_SIZE", "GRADIENT_ACCUMULATION_STEPS", "RANDOM_SEED"),
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
        "More from the same texts": ("SEARCH_LEARNING_RATES", "SEARCH_EPOCHS"),
        "More from the same texts, second cell": (),
        "How much is chance?": ("FOLDS",),
        "How sure is sure?": (),
        "Where does a yes begin?": ("FALSE_POSITIVE_COST",),
        "Save and pack": (),
        "Save and pack, second cell": (),
        "Save and pack, third cell": (),
        "Save and pack, last cells": (),
    },
    "evaluate": {
        "the check of the parameters": ("TASK_NAME",),
        "The model": ("TASK_NAME", "OLD_ARCHIVE", "REFIT"),
        "Predict": (),
        "Two models to compare with": (),
        "Validation and dev, side by side": (),
        "How sure are these figures?": (),
        "Look at it": (),
        "Can you believe its percentages?": (),
        "Where to draw the line": (),
        "Where is it wrong?": ("SHOW_MISTAKES",),
        "Are the labels right?": ("CHECK_LABELS", "SHOW_MISTAKES"),
        "A report to pass on": (),
        "Try your own": (),
    },
}

CONTENT = "what was read"


class Stages:
    """What the cells of a notebook have made so far, with which parameters: so they can be run in any order."""

    def __init__(self, notebook):
        """Begin with nothing made; `notebook` is one of `STAGES`."""
        self.notebook = notebook
        self.headings = STAGES[notebook]
        self.made = {}

    @contextmanager
    def running(self, heading, names, content=None):
        """Check the parameters, and that all that was made under earlier headings is as they say; note this one.

        `names` is the notebook's `globals()`, `content` tells what was read, as a digest does. If this is made with
        other parameters or of other content than the last time, what was made under later headings is out of date.
        Raises ValueError, which says from where to run again.
        """
        parameters, headings = check_parameters(self.notebook, names), list(self.headings)
        given = {one: {name: parameters[name] for name in decisive} for one, decisive in self.headings.items()}
        place = headings.index(heading)
        for earlier in headings[:place]:
            self._require(earlier, given[earlier])
        made = given[heading] | {CONTENT: content}
        if self.made.pop(heading, None) != made:
            for later in headings[place:]:
                self.made.pop(later, None)
        yield parameters
        self.made[heading] = made

    def check_current(self, heading, names, content=None):
        """Do what `making` does, for what a single cell makes; return the parameters."""
        with self.running(heading, names, content) as parameters:
            return parameters

    def _require(self, heading, values):
        if heading not in self.made:
            raise ValueError(f"what {heading!r} makes is not there, or out of date: run the cells again from there on")
        for name, value in values.items():
            if self.made[heading][name] != value:
                raise ValueError(
                    f"{name} is {value!r}, but was {self.made[heading][name]!r} when {heading!r} was run: run the "
                    "cells again from there on"
                )
