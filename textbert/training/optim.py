"""The optimizer, its learning rate schedule, class weights and adversarial embeddings."""

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from pytorch_pretrained_bert.modeling import BertForSequenceClassification


def make_optimizer(
    model: BertForSequenceClassification, learning_rate: float, layer_decay: float = 0.8, weight_decay: float = 0.01
) -> torch.optim.AdamW:
    """Return torch's AdamW for BERT, with a learning rate that is lower the closer a layer is to the input.

    The classifier and the pooler have `learning_rate`, the top layer `layer_decay` times that, the layer below its
    square times that, and the embeddings the smallest (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146; Zhang
    et al. 2020, https://arxiv.org/abs/2006.05987). Biases, LayerNorm and word embeddings have no weight decay: so the
    embeddings of tokens that the data lacks stay as they were pre-trained.
    """
    num_layers = model.config.num_hidden_layers
    groups = defaultdict(list)
    for name, parameter in model.named_parameters():
        if match := re.search(r"encoder\.layer\.(\d+)\.", name):
            distance = num_layers - int(match[1])  # from the classifier
        else:
            distance = num_layers + 1 if "embeddings." in name else 0
        is_word_embedding = "word_embeddings." in name
        has_decay = not (name.endswith(".bias") or "LayerNorm" in name or is_word_embedding)
        groups[distance, is_word_embedding, has_decay].append(parameter)  # an order that checkpoints rely on
    options = [
        {"params": parameters, "lr": learning_rate * layer_decay**distance, "weight_decay": weight_decay * has_decay}
        for (distance, _, has_decay), parameters in groups.items()
    ]
    return torch.optim.AdamW(options, fused=True)


def upgrade_optimizer_state(
    optimizer: torch.optim.Optimizer, optimizer_state: dict[str, Any], schedule_state: dict[str, Any]
) -> None:
    """Give the word embeddings a parameter group of their own in the states of older checkpoints, in place.

    There they share the first group, and its weight decay, with position and segment embeddings. The numbers of the
    parameters are the same, so what AdamW has stored for each stays as it is.
    """
    groups = optimizer_state["param_groups"]
    if len(groups) < len(optimizer.param_groups):
        word, *remaining = groups[0]["params"]
        groups[:1] = [groups[0] | {"params": [word], "weight_decay": 0.0}, groups[0] | {"params": remaining}]
        for values in (schedule_state["base_lrs"], schedule_state["_last_lr"], schedule_state["lr_lambdas"]):
            values.insert(0, values[0])


def make_schedule(
    optimizer: torch.optim.Optimizer, total_steps: int, warmup_proportion: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a schedule that raises the learning rate linearly during warm-up, then lowers it linearly to zero.

    warmup_proportion : fraction of the steps, from 0 to 1
    """
    warmup_steps = max(1, round(total_steps * warmup_proportion))

    def factor(step: int) -> float:
        return min((step + 1) / warmup_steps, (total_steps - step) / max(1, total_steps - warmup_steps))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def get_class_weights(kind: str | None, labels: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the weight of each class in the loss, a float32 tensor of shape (2,).

    kind : None for 1 and 1; "balanced" for scikit-learn's weights, with which both classes count the same
    labels : array of 0 and 1, of shape (n,)
    """
    from sklearn.utils.class_weight import compute_class_weight

    weights = compute_class_weight(kind, classes=np.array([0, 1]), y=np.asarray(labels))
    return torch.tensor(weights, dtype=torch.float32, device=device)


@contextmanager
def adversarial_embeddings(model: BertForSequenceClassification, epsilon: float) -> Iterator[None]:
    """Context manager that moves a model's word embeddings by `epsilon`, the L2 norm, along their gradient.

    The loss is higher there. Gradients of that loss, added to those of the unmoved embeddings, make adversarial
    training: the fast gradient method of Miyato et al. 2017, https://arxiv.org/abs/1605.07725, with one perturbation
    for the whole batch.
    """
    weight = model.bert.embeddings.word_embeddings.weight
    original = weight.detach().clone()
    with torch.no_grad():
        weight.add_(weight.grad * (epsilon / weight.grad.norm().clamp(min=1e-12)))
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(original)
