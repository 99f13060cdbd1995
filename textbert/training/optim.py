"""The optimizer, its learning rate schedule, class weights and adversarial embeddings."""

import re
from collections import defaultdict
from contextlib import contextmanager

import numpy as np
import torch

# ---------- Optimizer and schedule ------------------------------------------------------------------------------------


def make_optimizer(model, learning_rate, layer_decay=0.8, weight_decay=0.01):
    """Return torch's AdamW for BERT, with a smaller learning rate the deeper a layer lies.

    The classifier and the pooler learn at `learning_rate`, the top layer at `layer_decay` times that, the one below at
    its square, and the embeddings slowest (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146; Zhang et al. 2020,
    https://arxiv.org/abs/2006.05987). Biases and LayerNorm do not decay.
    """
    layers = model.config.num_hidden_layers
    groups = defaultdict(list)
    for name, parameter in model.named_parameters():
        if match := re.search(r"encoder\.layer\.(\d+)\.", name):
            depth = layers - int(match[1])
        else:
            depth = layers + 1 if "embeddings." in name else 0
        groups[depth, not name.endswith(".bias") and "LayerNorm" not in name].append(parameter)
    options = [
        {"params": parameters, "lr": learning_rate * layer_decay**depth, "weight_decay": weight_decay * decays}
        for (depth, decays), parameters in groups.items()
    ]
    return torch.optim.AdamW(options, fused=True)


def make_schedule(optimizer, total_steps, warmup_proportion):
    """Let the learning rate rise in a line over the first share of the steps, then fall in a line to zero."""
    warmup = max(1, round(total_steps * warmup_proportion))

    def factor(step):
        return min((step + 1) / warmup, (total_steps - step) / max(1, total_steps - warmup))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def get_class_weights(kind, labels, device="cpu"):
    """Return how much a text of each class counts, a float32 tensor of shape (2,).

    kind : None for 1 and 1; "balanced" for weights with which both classes count the same
    labels : array of 0 and 1, of shape (n,)
    """
    from sklearn.utils.class_weight import compute_class_weight

    weights = compute_class_weight(kind, classes=np.array([0, 1]), y=np.asarray(labels))
    return torch.tensor(weights, dtype=torch.float32, device=device)


@contextmanager
def adversarial_embeddings(model, epsilon):
    """Move a model's word vectors by `epsilon` along their gradient while the block runs.

    There the loss is higher; its gradients, added to those of the vectors as they are, make for adversarial training
    (the fast gradient method of Miyato et al. 2017, https://arxiv.org/abs/1605.07725, here for a batch as a whole).
    """
    vectors = model.bert.embeddings.word_embeddings.weight
    before = vectors.detach().clone()
    with torch.no_grad():
        vectors.add_(vectors.grad * (epsilon / vectors.grad.norm().clamp(min=1e-12)))
    try:
        yield
    finally:
        with torch.no_grad():
            vectors.copy_(before)
