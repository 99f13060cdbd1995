"""How a training run is done: the parameters of train.ipynb that affect one, by name."""

import math
from dataclasses import dataclass, fields
from typing import Any

import torch

from textbert.training.optim import make_schedule
from textbert.utils.validation import find_violation, integer, none_or, number, one_of

# the parameters that affect a single run, and what each may be; a TrainingConfig has them as fields, in lower case
RULES = {
    "LEARNING_RATE": number(0, 1, exclusive_min=True, exclusive_max=True),
    "NUM_TRAIN_EPOCHS": integer(1, 1000),
    "TRAIN_BATCH_SIZE": integer(1, 65536),
    "GRADIENT_ACCUMULATION_STEPS": integer(1, 65536),
    "WARMUP_PROPORTION": number(0, 1, exclusive_max=True),
    "CLASS_WEIGHTS": none_or(one_of("balanced")),
    "R_DROP": number(0, 100),
    "ADVERSARIAL_EPSILON": number(0, 100),
    "ADVERSARIAL_SHARE": number(0, 1, exclusive_min=True),
    "PATIENCE": none_or(integer(1, 1000)),
    "RANDOM_SEED": integer(0, 2**32 - 1),
}

# the parameters that affect a run only through its model, its features or its rows
DATA_PARAMETERS = ("TASK_NAME", "BERT_MODEL", "MAX_SEQ_LENGTH", "TRUNCATION", "VALIDATION_SHARE", "TRAIN_ROWS")

MIN_STEPS = 50  # see `describe_few_steps`


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train. Each field is the parameter of train.ipynb with that name in capitals, and has its default.

    learning_rate : of classifier and pooler; `make_optimizer` gives those of the layers below
    num_train_epochs : how many at most
    train_batch_size : examples in a batch, over all devices
    gradient_accumulation_steps : batches in a step
    warmup_proportion : fraction of the steps in which the learning rate rises
    class_weights : None, or "balanced", see `get_class_weights`
    r_drop : weight of the R-Drop loss; 0 for off
    adversarial_epsilon : norm of the perturbation in adversarial training; 0 for off
    adversarial_share : fraction of the epochs, the first ones, with adversarial training
    patience : how many epochs may pass without a higher MCC; None for all
    random_seed : of the order of the batches, and of dropout

    Raises ValueError, naming the parameter, for an invalid value.
    """

    learning_rate: float = 2e-4
    num_train_epochs: int = 8
    train_batch_size: int = 16
    gradient_accumulation_steps: int = 1
    warmup_proportion: float = 0.1
    class_weights: str | None = None
    r_drop: float = 0.0
    adversarial_epsilon: float = 0.0
    adversarial_share: float = 1.0
    patience: int | None = None
    random_seed: int = 42

    def __post_init__(self) -> None:
        for name, value in self.to_parameters().items():
            if violation := find_violation(value, RULES[name]):
                raise ValueError(f"{name}: expected {RULES[name].description}, got {violation}")

    def to_parameters(self) -> dict[str, Any]:
        """Return the values as a dict by the names of the parameters."""
        return {field.name.upper(): getattr(self, field.name) for field in fields(self)}

    def describe_few_steps(self, num_examples: int) -> str:
        """Return a hint if a run over so many examples has too few steps to learn much, else an empty string.

        Of 50 examples, the 32 steps of eight epochs were too few: with sixteen epochs the MCC was higher in 14 of 15
        draws from three data sets, by 0.054 in the mean. With 100 examples and 56 steps there was no such difference.
        """
        steps = len(self.get_learning_rates(num_examples))
        if steps >= MIN_STEPS:
            return ""
        return f"Hint: these are only {steps} steps; NUM_TRAIN_EPOCHS = {2 * self.num_train_epochs} may do better"

    def get_learning_rates(self, num_examples: int) -> list[float]:
        """Return the learning rate of the classifier in each step of a run over so many examples."""
        steps = math.ceil(num_examples / (self.train_batch_size * self.gradient_accumulation_steps))
        optimizer = torch.optim.SGD([torch.zeros((), requires_grad=True)], self.learning_rate)
        (factor,) = make_schedule(optimizer, self.num_train_epochs * steps, self.warmup_proportion).lr_lambdas
        return [self.learning_rate * factor(step) for step in range(self.num_train_epochs * steps)]
