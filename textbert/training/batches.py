"""The training batches of the loop in train.ipynb: inputs, loss and gradients of each part of an optimizer step.

A step is one batch or, if gradients are accumulated, several. Each process takes a shard of every batch, and a CPU
splits a large batch into micro-batches. Whatever the parts, the gradients of a step are those of one loss: the mean
over all examples of the step, each with the weight of its class.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_pretrained_bert.modeling import BertForSequenceClassification

from textbert.features.batching import collate
from textbert.features.features import Features
from textbert.model.state_dict import StateDict
from textbert.training.distributed import shard_batch
from textbert.training.optim import adversarial_embeddings

if TYPE_CHECKING:
    from accelerate import Accelerator  # its import takes seconds, and predicting does not need it


@dataclass(frozen=True)
class LossFunction:
    """The loss of a training run, summed over examples.

    class_weights : tensor of shape (2,); an example counts as much as its class does
    r_drop : weight of the divergence between two predictions of each text (Liang et al. 2021,
        https://arxiv.org/abs/2106.14448); 0 for one prediction of each
    """

    class_weights: torch.Tensor
    r_drop: float = 0.0

    def repeat_inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the inputs of a batch, with R-Drop twice: two forward passes, with different dropout, in one."""
        if not self.r_drop:
            return inputs
        return {name: torch.cat([values, values]) for name, values in inputs.items()}

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the sum of the losses, a 0-dimensional tensor.

        logits : of shape (batch, 2), or (2 * batch, 2) for inputs that were repeated
        targets : int64 tensor of shape (batch,)
        """
        options: dict[str, Any] = {"weight": self.class_weights, "reduction": "sum"}
        if not self.r_drop:
            return F.cross_entropy(logits, targets, **options)
        first, second = logits.log_softmax(dim=1).chunk(2)
        losses = [F.nll_loss(output, targets, **options) for output in (first, second)]
        symmetric_kl = ((first.exp() - second.exp()) * (first - second)).sum(dim=1) / 2
        return (losses[0] + losses[1]) / 2 + self.r_drop * (self.class_weights[targets] * symmetric_kl).sum()


@dataclass(frozen=True)
class TrainingSetup:
    """What all training runs of a task share.

    model : a BertForSequenceClassification with fused kernels
    prepared_model : what `accelerator.prepare` returned for it; its forward pass is that of training
    initial_state : what `clone_state_dict` returned for the weights that each run starts from
    features : the features of training and validation set
    labels : of all features, an array of 0 and 1, of shape (n,)
    baseline_mcc : MCC before training, for the plot
    """

    accelerator: "Accelerator"
    model: BertForSequenceClassification
    prepared_model: torch.nn.Module
    initial_state: StateDict
    features: Features
    labels: np.ndarray
    baseline_mcc: float = 0.0


@dataclass
class OptimizerStep:
    """One step of the optimizer: its batches, and the loss so far.

    batches : arrays of row numbers; on a CPU these are micro-batches
    epsilon : norm of the adversarial perturbation of the word embeddings; 0 for none
    """

    setup: TrainingSetup
    loss_function: LossFunction
    batches: list[np.ndarray]
    epsilon: float = 0.0
    loss: torch.Tensor = field(init=False)  # of this process, without the adversarial one
    backward_passes: int = 0  # likewise

    def __post_init__(self) -> None:
        class_weights = self.loss_function.class_weights
        self.weight = sum(class_weights[self.setup.labels[batch]].sum() for batch in self.batches)
        self.loss = torch.zeros((), device=self.setup.accelerator.device)

    def parts(self) -> Iterator["TrainingBatch"]:
        """Yield a TrainingBatch for each batch; devices exchange gradients only in the backward pass of the last."""
        accelerator, model = self.setup.accelerator, self.setup.prepared_model
        for batch in self.batches:
            shard, shard_weight = shard_batch(batch, accelerator)  # of weight 0 if empty
            inputs, targets = collate(self.setup.features, shard, accelerator.device)
            inputs = self.loss_function.repeat_inputs(inputs)
            is_last = batch is self.batches[-1]
            with nullcontext() if is_last else accelerator.no_sync(model), self._check_forward():
                yield TrainingBatch(inputs, targets.long(), is_last, shard_weight, self)

    @contextmanager
    def _check_forward(self) -> Iterator[None]:
        """Context manager that raises RuntimeError unless the wrapper of several devices is called, if there is one."""
        if self.setup.prepared_model is self.setup.model:
            yield
            return
        calls: list[None] = []
        handle = self.setup.prepared_model.register_forward_pre_hook(lambda *_: calls.append(None))
        try:
            yield
        finally:
            handle.remove()
        if not calls:
            raise RuntimeError(
                "with several devices a batch must pass through the model that run.session() yields (with run.session()"
                " as model: ...), or the devices would not exchange gradients"
            )

    def add_adversarial_gradients(self) -> None:
        """Add the gradients of all parts at word embeddings that were moved along the gradient of the step."""
        with adversarial_embeddings(self.setup.model, self.epsilon):
            for part in self.parts():
                part.add_gradients(part.loss(self.setup.prepared_model(**part.inputs)))


@dataclass(frozen=True)
class TrainingBatch:
    """What the loop of train.ipynb gets: the examples of one forward and backward pass.

    inputs : dict of the model's arguments, int64 tensors of shape (batch, length); with R-Drop (2 * batch, length)
    targets : the labels, an int64 tensor of shape (batch,)
    completes_step : True if the optimizer must take its step after this batch
    weight : 0.0 if the examples are only there because each process needs some, else 1.0
    step : the step that this batch is a part of
    """

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor
    completes_step: bool
    weight: float
    step: OptimizerStep

    def loss(self, logits: torch.Tensor) -> torch.Tensor:
        """Return what these examples contribute to the loss of the step, the weighted mean over all its examples."""
        return self.weight * self.step.loss_function(logits, self.targets) / self.step.weight

    def add_gradients(self, loss: torch.Tensor) -> None:
        """Compute the gradients of the loss and add them to those of the parameters."""
        accelerator = self.step.setup.accelerator
        accelerator.backward(accelerator.num_processes * loss)  # it averages over the devices, and we want the sum

    def backward(self, loss: torch.Tensor) -> None:
        """Compute the gradients of what `loss` returned, and add it to the loss of the step.

        With adversarial training the last part of a step adds the gradients of the perturbed embeddings.
        """
        self.add_gradients(loss)
        self.step.loss += loss.detach()
        self.step.backward_passes += 1
        if self.completes_step and self.step.epsilon:
            self.step.add_adversarial_gradients()
