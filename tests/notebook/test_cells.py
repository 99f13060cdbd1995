"""Cells that are run again: in order, or told from where on."""

import pytest
from test_parameters import TRAIN

from textbert.notebook.cells import Stages


def run_through(stages, names, *headings):
    for heading in headings:
        stages.check_current(heading, names)


def test_cells_are_run_again_in_order_or_told_from_where():
    names, stages = dict(TRAIN), Stages("train")
    headings = list(stages.headings)
    with pytest.raises(ValueError, match="'the check of the parameters' makes is not there.*from there on"):
        stages.check_current("The model", names)
    run_through(stages, names, *headings)
    run_through(stages, names, "A validation set", "Save and pack", "The model", "Save and pack")
    names["EVAL_BATCH_SIZE"] = 3  # changes nothing
    stages.check_current("Save and pack", names)
    names["VALIDATION_SHARE"] = 0.3
    with pytest.raises(ValueError, match="VALIDATION_SHARE is 0.3, but was 0.1 when 'A validation set' was run"):
        stages.check_current("Save and pack", names)
    stages.check_current("A validation set", names)
    with pytest.raises(ValueError, match="'The model' makes is not there, or out of date"):
        stages.check_current("Save and pack", names)
    run_through(stages, names, *headings[2:])
    names["FALSE_POSITIVE_COST"] = 2
    run_through(stages, names, *headings[headings.index("The decision threshold") :])


def test_an_old_model_is_not_packed_under_a_new_name():
    names, stages = dict(TRAIN), Stages("train")
    run_through(stages, names, *stages.headings)
    names["TASK_NAME"] = "another"
    with pytest.raises(ValueError, match="TASK_NAME is 'another', but was"):
        stages.check_current("Save and pack, last cells", names)
    names = dict(TRAIN)
    stages.check_current("Training", names | {"LEARNING_RATE": 0.5})
    with pytest.raises(ValueError, match="run the cells again from there on"):
        stages.check_current("Save and pack, last cells", names)


def test_what_failed_is_not_made():
    names, stages = dict(TRAIN), Stages("train")
    run_through(stages, names, *stages.headings)
    with pytest.raises(KeyboardInterrupt), stages.running("Training", names):
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="'Training' makes is not there"):
        stages.check_current("Save and pack", names)
    names["MAX_SEQ_LENGTH"] = "long"
    with pytest.raises(ValueError, match="MAX_SEQ_LENGTH is 'long'"):
        stages.check_current("A validation set", names)


def test_what_was_made_of_other_content_is_out_of_date():
    names, stages = dict(TRAIN), Stages("train")
    headings = list(stages.headings)
    run_through(stages, names, *headings)
    stages.check_current("The model", names, "1a")
    with pytest.raises(ValueError, match="'What BERT reads' makes is not there, or out of date"):
        stages.check_current("Training", names)
    run_through(stages, names, *headings[headings.index("What BERT reads") :])
    stages.check_current("The model", names, "1a")  # the same again
    run_through(stages, names, "Training", "Save and pack, last cells")
