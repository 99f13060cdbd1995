"""BERT's word vectors while it is trained: those of the words in use alone, moved or not, then the whole table again.

To the vector of a word that does not occur AdamW does nothing but its decay, which can as well be done once. So neither
optimizer nor clipping need pass over it at each step: on short texts that is a third of the time.
"""

import numpy as np
import torch
import torch.nn.functional as F


class PrunedEmbedding(torch.nn.Module):
    """The vectors of some words, in the place of BERT's table, an Embedding of shape (words, hidden).

    For all who save or load weights it is the whole table: its state has the vectors of the other words as well, times
    what `decay` returns. What is loaded for those is not taken up, for they follow from where the training began.
    """

    def __init__(self, whole, ids, decay):
        """Take the vectors of `ids`, a tensor of shape (n,), from the table; an id not among them is an IndexError."""
        super().__init__()
        self.whole, self.decay = (whole,), decay  # in a tuple it is no part of the model
        self.weight = torch.nn.Parameter(whole.weight.detach()[ids])  # (n, hidden)
        rows = torch.full((len(whole.weight),), -1, device=self.weight.device)
        rows[ids] = torch.arange(len(ids), device=rows.device)
        self.register_buffer("rows", rows, persistent=False)
        self.padding = int(rows[whole.padding_idx])
        self.register_state_dict_post_hook(PrunedEmbedding._give_whole)
        self.register_load_state_dict_pre_hook(PrunedEmbedding._take_used)

    def forward(self, input_ids):
        """Return vectors of shape (batch, length, hidden) for ids of shape (batch, length)."""
        return F.embedding(self.rows[input_ids], self.weight, padding_idx=self.padding)

    def fill(self):
        """Return the whole table as it is by now, of shape (words, hidden)."""
        table = self.whole[0].weight.detach() * self.decay()
        table[self.rows >= 0] = self.weight.detach()  # both by rising ids
        return table

    def _give_whole(self, state, prefix, metadata):
        state[f"{prefix}weight"] = self.fill()

    def _take_used(self, state, prefix, *others):
        table = state[f"{prefix}weight"]
        state[f"{prefix}weight"] = table[(self.rows >= 0).to(table.device)]


def used_token_ids(model, features):
    """Return the ids of the words that features hold, and of the padding, rising: a tensor of shape (n,)."""
    vectors = model.bert.embeddings.word_embeddings
    used = np.zeros(len(vectors.weight), bool)
    used[features.ids] = used[vectors.padding_idx] = True
    return torch.from_numpy(np.flatnonzero(used))


def prune_embeddings(model, ids, decay):
    """Replace a model's table by `PrunedEmbedding`, until `restore_embeddings`."""
    embeddings = model.bert.embeddings
    embeddings.word_embeddings = PrunedEmbedding(embeddings.word_embeddings, ids, decay)


def restore_embeddings(model):
    """Put the whole table back, with what was learned, if it is not there."""
    embeddings = model.bert.embeddings
    if isinstance(used := embeddings.word_embeddings, PrunedEmbedding):
        (whole,) = used.whole
        with torch.no_grad():
            whole.weight.copy_(used.fill())
        embeddings.word_embeddings = whole


def resize_adam_state(optimizer, state, vectors, ids):
    """Give what AdamW has kept of word vectors as many rows as `vectors`, the parameter, has: those of `ids`, or all.

    A training by several processes keeps the whole table, as all did once. Moments of words not in use are zero.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    position = next(i for i, parameter in enumerate(parameters) if parameter is vectors)
    kept = state["state"].get(position, {})  # nothing before the first step
    for name in kept.keys() & {"exp_avg", "exp_avg_sq"}:
        if len(kept[name]) > len(vectors):
            kept[name] = kept[name][ids]
        elif len(kept[name]) < len(vectors):
            kept[name] = torch.zeros(vectors.shape, dtype=vectors.dtype).index_copy(0, ids, kept[name])
