"""The settings of a training run, and the dict of them that checkpoints store."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from loop import make_config, read_parameters

from textbert.notebook.parameters import get_parameters
from textbert.training.config import DATA_PARAMETERS, RULES, TrainingConfig

DEFAULTS = read_parameters()


def test_fields_are_parameters_of_train_in_lower_case():
    config = make_config(DEFAULTS)
    assert config.to_parameters() == {name: DEFAULTS[name] for name in RULES}
    assert config.learning_rate == DEFAULTS["LEARNING_RATE"] and config.patience is None
    with pytest.raises(FrozenInstanceError):
        config.learning_rate = 1.0
    with pytest.raises(TypeError):  # by name only
        TrainingConfig(*config.to_parameters().values())


def test_each_parameter_belongs_to_the_run_or_to_its_data():
    assert {*DATA_PARAMETERS, *RULES} <= get_parameters("train").keys() and not set(DATA_PARAMETERS) & RULES.keys()


def test_checkpoints_have_the_same_parameters_as_ever(request):
    legacy = torch.load(request.path.parents[1] / "legacy" / "checkpoint.pt", weights_only=True)["identity"]
    names = {*DATA_PARAMETERS, *RULES}
    assert legacy.keys() - names == {"data", "FALSE_POSITIVE_COST", "FOLDS", "SEARCH_EPOCHS", "SEARCH_LEARNING_RATES"}
    assert names - legacy.keys() == {"R_DROP", "ADVERSARIAL_SHARE"}  # newer ones, see DEFAULTS_OF_NEW_KEYS


def test_learning_rates_match_hand_computation():
    sizes = {"train_batch_size": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 2}
    config = replace(make_config(DEFAULTS), learning_rate=0.6, warmup_proportion=0.5, **sizes)
    # of 17 examples, 8 in each step, the last one is in a step of its own: 3 steps in each epoch
    assert config.get_learning_rates(17) == pytest.approx([0.2, 0.4, 0.6, 0.6, 0.4, 0.2])
    assert len(config.get_learning_rates(16)) == 4


def test_few_steps_are_named_with_a_remedy():
    config = TrainingConfig(num_train_epochs=7, train_batch_size=4)
    assert config.describe_few_steps(25) == "Hint: these are only 49 steps; NUM_TRAIN_EPOCHS = 14 may do better"
    assert config.describe_few_steps(29) == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 0), ("num_train_epochs", 0), ("train_batch_size", 2.0), ("gradient_accumulation_steps", None),
     ("warmup_proportion", 1), ("class_weights", "equal"), ("r_drop", -1), ("adversarial_epsilon", float("nan")),
     ("adversarial_share", 0), ("patience", 0), ("random_seed", 2**32)],
)  # fmt: skip
def test_invalid_value_is_refused_by_the_name_of_the_parameter(name, value):
    with pytest.raises(ValueError, match=f"{name.upper()}: expected .*, got {value!r}"):
        replace(make_config(DEFAULTS), **{name: value})
