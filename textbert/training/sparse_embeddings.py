"""Training on the rows of the embedding matrix whose tokens occur in the data.

A token that never occurs has no gradient, and word embeddings have no weight decay (see `make_optimizer`), so AdamW
leaves its row as it is. Without the unused rows neither the optimizer nor gradient clipping passes over them at each
step; on short texts that is a third of the time.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_pretrained_bert.modeling import BertForSequenceClassification

from textbert.features.features import Features


class PrunedEmbedding(torch.nn.Module):
    """An Embedding without the rows of unused tokens.

    weight : parameter of shape (tokens in use, hidden), in the order of the token ids
    """

    def __init__(self, full: torch.nn.Embedding, ids: torch.Tensor) -> None:
        """Take the rows `ids`, rising, of shape (n,), from the embedding matrix; other ids raise IndexError later."""
        super().__init__()
        self.weight = torch.nn.Parameter(full.weight.detach()[ids])
        self.ids: torch.Tensor
        self.row_of_id: torch.Tensor
        self.initial_weight: torch.Tensor
        device = self.weight.device
        row_of_id = torch.full((full.num_embeddings,), -1, device=device)  # -1 is out of range in `F.embedding`
        row_of_id[ids] = torch.arange(len(ids), device=device)
        # buffers that are not persistent follow the model to its device and stay out of its state_dict
        self.register_buffer("ids", ids.to(device), persistent=False)
        self.register_buffer("row_of_id", row_of_id, persistent=False)
        self.register_buffer("initial_weight", full.weight.detach(), persistent=False)  # (vocabulary, hidden)
        self.full_padding_idx = full.padding_idx
        self.padding_idx = int(row_of_id[full.padding_idx])

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings, of shape (batch, length, hidden), of ids of shape (batch, length)."""
        return F.embedding(self.row_of_id[input_ids], self.weight, padding_idx=self.padding_idx)

    def full_weight(self) -> torch.Tensor:
        """Return the whole embedding matrix as it is now, a new tensor of shape (vocabulary, hidden)."""
        weight = self.initial_weight.clone()
        weight[self.ids] = self.weight.detach()
        return weight


def used_token_ids(model: BertForSequenceClassification, features: Features) -> torch.Tensor:
    """Return the ids of the tokens in the features, and of padding, in rising order: a tensor of shape (n,)."""
    embedding = model.bert.embeddings.word_embeddings
    is_used = np.zeros(len(embedding.weight), bool)
    is_used[features.ids] = is_used[embedding.padding_idx] = True
    return torch.from_numpy(np.flatnonzero(is_used))


def prune_embeddings(model: BertForSequenceClassification, ids: torch.Tensor) -> None:
    """Replace a model's embedding matrix by a `PrunedEmbedding`, until `restore_embeddings`."""
    embeddings = model.bert.embeddings
    embeddings.word_embeddings = PrunedEmbedding(embeddings.word_embeddings, ids)


def restore_embeddings(model: BertForSequenceClassification) -> None:
    """Put the whole embedding matrix, with the trained rows, back into a model if it was pruned."""
    embeddings = model.bert.embeddings
    pruned = embeddings.word_embeddings
    if isinstance(pruned, PrunedEmbedding):
        weight = pruned.initial_weight.copy_(pruned.full_weight())
        embeddings.word_embeddings = torch.nn.Embedding.from_pretrained(
            weight, freeze=False, padding_idx=pruned.full_padding_idx
        )


def _pruned_weights(model: torch.nn.Module) -> dict[str, PrunedEmbedding]:
    """Return the pruned embeddings of a model by the names of their weights in its state_dict."""
    modules = model.named_modules()
    return {f"{name}.weight": module for name, module in modules if isinstance(module, PrunedEmbedding)}


def full_state_dict(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a model's state_dict with the whole embedding matrix, also while it is pruned."""
    state_dict = model.state_dict()
    state_dict.update({name: pruned.full_weight() for name, pruned in _pruned_weights(model).items()})
    return state_dict


def load_full_state_dict(model: torch.nn.Module, state_dict: dict[str, torch.Tensor]) -> None:
    """Load what `full_state_dict` returned; a pruned model takes the rows in use: the others have not changed."""
    rows = {name: state_dict[name][pruned.ids.cpu()] for name, pruned in _pruned_weights(model).items()}
    model.load_state_dict({**state_dict, **rows})


def resize_adam_state(
    optimizer: torch.optim.Optimizer, state: dict[str, Any], weight: torch.Tensor, ids: torch.Tensor
) -> None:
    """Give AdamW's moments of the embedding matrix, in a state_dict, as many rows as the parameter `weight` has.

    Those are all rows, or the rows `ids`. A run of several processes keeps all, and so did every run once. Moments of
    unused tokens are zero. With the last two arguments bound it is a hook for `register_load_state_dict_pre_hook`.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    position = next(i for i, parameter in enumerate(parameters) if parameter is weight)
    moments = state["state"].get(position, {})  # empty before the first step
    for name in moments.keys() & {"exp_avg", "exp_avg_sq"}:
        if len(moments[name]) > len(weight):
            moments[name] = moments[name][ids]
        elif len(moments[name]) < len(weight):
            moments[name] = torch.zeros(weight.shape, dtype=weight.dtype).index_copy(0, ids, moments[name])
