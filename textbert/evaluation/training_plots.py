"""Plots of train.ipynb: the attention of a model, the loss of one batch, and the learning rate of each step."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from pytorch_pretrained_bert import BertForSequenceClassification, BertTokenizer

from textbert.utils.display import BLUE


def compute_attention(model: BertForSequenceClassification, input_ids: Sequence[int]) -> np.ndarray:
    """Return the attention weights of a text without dropout, an array of shape (layers, heads, tokens, tokens).

    Each row adds up to 1: it says how much the token of that row takes over from each token of the text.

    model : a BertForSequenceClassification; its weights and its mode do not change
    input_ids : of one text, with [CLS] and [SEP]
    """
    weights = []
    with torch.no_grad():
        ids = torch.tensor([list(input_ids)], device=next(model.parameters()).device)
        was_training = model.training
        model.eval()
        hidden_states = model.bert.embeddings(ids)  # (1, L, D)
        mask = hidden_states.new_zeros(1, 1, 1, ids.shape[1])  # no padding
        for layer in model.bert.encoder.layer:
            attention = layer.attention.self
            shape = (ids.shape[1], attention.num_attention_heads, attention.attention_head_size)  # (L, H, S)
            query, key = (
                project(hidden_states).view(shape).transpose(0, 1) for project in (attention.query, attention.key)
            )
            scores = query @ key.transpose(1, 2) / attention.attention_head_size**0.5  # (H, L, L)
            weights.append(scores.softmax(dim=-1).float().cpu().numpy())
            hidden_states = layer(hidden_states, mask)
        model.train(was_training)
    return np.stack(weights)


def draw_attention(model: BertForSequenceClassification, tokenizer: BertTokenizer, text: str) -> plt.Figure:
    """Draw how much each token of a short text attends to each other one, in one head of each of the two lowest layers.

    Of the heads of a layer it is the one in which the second token of the text attends most to the first.

    tokenizer : the model's BertTokenizer
    text : of at least two tokens
    """
    tokens = ["[CLS]", *tokenizer.tokenize(text), "[SEP]"]
    attention = compute_attention(model, tokenizer.convert_tokens_to_ids(tokens))[:2]
    figure, axes = plt.subplots(1, len(attention), figsize=(4.6 * len(attention), 4.1), layout="constrained")
    for number, (ax, heads) in enumerate(zip(np.atleast_1d(axes), attention), start=1):
        head = int(heads[:, 2, 1].argmax())
        ax.imshow(heads[head], cmap="Blues", vmin=0, vmax=1)
        for (row, column), weight in np.ndenumerate(heads[head]):
            if weight >= 0.1:
                colour = "white" if weight > 0.5 else "black"
                ax.text(column, row, f"{weight:.1f}", ha="center", va="center", color=colour, fontsize=9)
        ax.set_xticks(range(len(tokens)), tokens, rotation=90)
        ax.set_yticks(range(len(tokens)), tokens)
        title = f"layer {number}, head {head + 1} of {len(heads)}"
        ax.set(title=title, xlabel="... takes over from this one", ylabel="this token ...")
    return figure


def plot_batch_loss(losses: Sequence[float]) -> plt.Figure:
    """Plot the loss of one and the same batch, step by step."""
    figure, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
    ax.plot(range(1, len(losses) + 1), losses, "o-", color=BLUE, markersize=3)
    ax.axhline(np.log(2), color="black", linestyle="--", linewidth=1, label="guessing: 0.69")
    ax.set(xlabel="step", ylabel="loss of the batch", ylim=(0, None))
    ax.legend()
    return figure


def plot_schedule(learning_rates: Sequence[float], steps_per_epoch: int) -> plt.Figure:
    """Plot the learning rate of each step of a training run."""
    figure, ax = plt.subplots(figsize=(6, 2.2), layout="constrained")
    ax.plot(range(1, len(learning_rates) + 1), learning_rates, color=BLUE)
    ax.set(xlabel=f"step ({steps_per_epoch} in an epoch)", ylabel="learning rate", ylim=(0, None))
    return figure
