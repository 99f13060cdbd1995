"""Stale cells: sections that are rerun in order, or a message from where to rerun."""

import pytest
from test_parameters import TRAIN

from textbert.notebook.cells import Stages


def run_sections(stages, names, *sections):
    for section in sections:
        stages.check_current(section, names)


def test_sections_are_rerun_in_order_or_the_stale_one_is_named():
    names, stages = dict(TRAIN), Stages("train")
    sections = list(stages.sections)
    with pytest.raises(
        ValueError, match="'the check of the parameters' has not been run, or is out of date. Rerun from that section"
    ):
        stages.check_current("The model", names)
    run_sections(stages, names, *sections)
    run_sections(stages, names, "A validation set", "Save and pack", "The model", "Save and pack")
    names["EVAL_BATCH_SIZE"] = 3  # affects no section
    stages.check_current("Save and pack", names)
    names["VALIDATION_SHARE"] = 0.3
    with pytest.raises(ValueError, match="VALIDATION_SHARE is 0.3, but was 0.1 when 'A validation set' was run"):
        stages.check_current("Save and pack", names)
    stages.check_current("A validation set", names)
    with pytest.raises(ValueError, match="'The model' has not been run, or is out of date"):
        stages.check_current("Save and pack", names)
    run_sections(stages, names, *sections[2:])
    names["FALSE_POSITIVE_COST"] = 2
    run_sections(stages, names, *sections[sections.index("The decision threshold") :])


def test_stale_model_is_not_packed_under_a_new_name():
    names, stages = dict(TRAIN), Stages("train")
    run_sections(stages, names, *stages.sections)
    names["TASK_NAME"] = "another"
    with pytest.raises(ValueError, match="TASK_NAME is 'another', but was"):
        stages.check_current("Save and pack, last cells", names)
    names = dict(TRAIN)
    stages.check_current("Training", names | {"LEARNING_RATE": 0.5})
    with pytest.raises(ValueError, match="but was 0.5 when 'Training' was run. Rerun from that section"):
        stages.check_current("Save and pack, last cells", names)


def test_interrupted_section_is_not_completed():
    names, stages = dict(TRAIN), Stages("train")
    run_sections(stages, names, *stages.sections)
    with pytest.raises(KeyboardInterrupt), stages.running("Training", names):
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="'Training' has not been run"):
        stages.check_current("Save and pack", names)
    names["MAX_SEQ_LENGTH"] = "long"
    with pytest.raises(ValueError, match="MAX_SEQ_LENGTH: expected an integer from 3 to 512, .* got 'long'"):
        stages.check_current("A validation set", names)


def test_section_that_read_other_content_makes_later_ones_stale():
    names, stages = dict(TRAIN), Stages("train")
    sections = list(stages.sections)
    run_sections(stages, names, *sections)
    stages.check_current("The model", names, "1a")
    with pytest.raises(ValueError, match="'What BERT reads' has not been run, or is out of date"):
        stages.check_current("Training", names)
    run_sections(stages, names, *sections[sections.index("What BERT reads") :])
    stages.check_current("The model", names, "1a")  # the same again
    run_sections(stages, names, "Training", "Save and pack, last cells")
