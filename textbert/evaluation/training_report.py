"""What train.ipynb shows: architecture and attention of a model, losses, learning rates, the best epoch."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from pytorch_pretrained_bert import BertForSequenceClassification, BertTokenizer

from textbert.utils.display import LIMIT, TRAIN_COLOUR


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


def _count_weights(module: torch.nn.Module) -> str:
    count = sum(parameter.numel() for parameter in module.parameters())
    return f"{f'{count / 1e6:.1f} M' if count > 99_999 else f'{count:,}'} weights"


def _name_modules(model: BertForSequenceClassification) -> list[tuple[str, torch.nn.Module | None]]:
    """Return names and modules from the embeddings up; the layers between first and last are one, without module."""
    layers = list(model.bert.encoder.layer)
    embeddings = f"embeddings: {model.config.hidden_size} numbers for each token"
    named: list[tuple[str, torch.nn.Module | None]] = [(embeddings, model.bert.embeddings)]
    named += [("layer 1: attention, feed-forward network", layers[0])]
    if len(layers) > 2:
        between = f"layers 2 to {len(layers) - 1}" if len(layers) > 3 else "layer 2"
        named += [(f"{between}: the same", None)]
    if len(layers) > 1:
        named += [(f"layer {len(layers)}: attention, feed-forward network", layers[-1])]
    named += [("pooler: reads the vector of [CLS] only", model.bert.pooler)]
    return [*named, (f"classifier: {model.num_labels} numbers, the logits", model.classifier)]


def draw_bert(model: BertForSequenceClassification, tokens: Sequence[str]) -> tuple[plt.Figure, str]:
    """Draw the architecture of a BERT, from some tokens at the bottom to the logits at the top.

    Each token has a vector, a square, in each layer; the lines between two layers are the attention.

    model : a BertForSequenceClassification
    tokens : with [CLS] and [SEP]; more than a handful are not legible

    Returns the figure and its alternative text.
    """
    blocks = [(name, _count_weights(module) if module else "") for name, module in _name_modules(model)]
    figure, ax = plt.subplots(figsize=(9, 0.75 * len(blocks) + 0.6), layout="constrained")
    columns = np.arange(len(tokens))
    for column, token in enumerate(tokens):
        ax.text(column, 0, token, ha="center", va="center", fontsize=11)
    for y, (name, note) in enumerate(blocks, start=1):
        is_new = y > len(blocks) - 2  # pooler and classifier
        targets = columns[:1] if is_new else columns
        for target in targets:
            sources = columns if note and name.startswith("layer") else [target]  # attention, or straight on
            ends = np.stack([sources, np.full(len(sources), target)])
            ax.plot(ends, [[y - 0.8], [y - 0.2]], color="#888888", linewidth=0.7)
        colour = "#f0a973" if is_new else "#9db7d5"
        ax.scatter(targets, np.full(len(targets), y), marker="s" if note else "$⋮$", s=150, color=colour)
        ax.text(len(tokens) - 0.3, y, f"{name}\n{note}".strip(), ha="left", va="center", fontsize=10)
    ax.set(xlim=(-0.6, 1.7 * len(tokens)), ylim=(-0.4, len(blocks) + 0.5))
    ax.axis("off")
    return figure, "From the tokens up: " + "; ".join(", ".join(filter(None, block)) for block in blocks) + "."


def _draw_weights(ax: plt.Axes, tokens: Sequence[str], weights: np.ndarray) -> None:
    """Draw the attention weights of one head, of shape (tokens, tokens), with the larger ones as numbers."""
    ax.imshow(weights, cmap="Greens", vmin=0, vmax=1)
    for (row, column), weight in np.ndenumerate(weights):
        if weight >= 0.1:
            colour = "white" if weight > 0.5 else "black"
            ax.text(column, row, f"{weight:.1f}", ha="center", va="center", color=colour, fontsize=9)
    ax.set_xticks(range(len(tokens)), tokens, rotation=90)
    ax.set_yticks(range(len(tokens)), tokens)
    ax.set(xlabel="... attends to this one", ylabel="this token ...")


def draw_attention(model: BertForSequenceClassification, tokenizer: BertTokenizer, text: str) -> tuple[plt.Figure, str]:
    """Draw how much each token of a short text attends to each other one, in a head of layers 1, 2 and the last.

    Of the heads of the lower two it is the one in which the second token of the text attends most to the first; of the
    last layer, the one in which [CLS] attends most to the text. These weights are framed.

    tokenizer : the model's BertTokenizer
    text : of at least two tokens

    Returns the figure and its alternative text.
    """
    tokens = ["[CLS]", *tokenizer.tokenize(text), "[SEP]"]
    attention = compute_attention(model, tokenizer.convert_tokens_to_ids(tokens))
    numbers = sorted({1, min(2, len(attention)), len(attention)})
    figure, axes = plt.subplots(1, len(numbers), figsize=(4 * len(numbers), 3.7), layout="constrained")
    sentences = [f"A row and a column for each token of {text!r}, darker where the row attends to the column."]
    for number, ax in zip(numbers, np.atleast_1d(axes)):
        heads, of_cls = attention[number - 1], number > 2
        weights = heads[:, 0, 1:-1].sum(axis=1) if of_cls else heads[:, 2, 1]
        head = int(weights.argmax())
        _draw_weights(ax, tokens, heads[head])
        corner, width = ((0.5, -0.5), len(tokens) - 2) if of_cls else ((0.5, 1.5), 1)
        ax.add_patch(plt.Rectangle(corner, width, 1, fill=False, linewidth=2))
        title = f"layer {number}, head {head + 1} of {len(heads)}"
        ax.set_title(title)
        rows = zip(tokens, heads[head])
        strongest = ", ".join(f"{token} {tokens[row.argmax()]} {row.max():.1f}" for token, row in rows)
        sentences.append(f"In {title}, each token, the one it attends to most, and how much: {strongest}.")
    return figure, " ".join(sentences)


def plot_batch_loss(losses: Sequence[float]) -> tuple[plt.Figure, str]:
    """Plot the loss of one and the same batch, step by step; return the figure and its alternative text."""
    figure, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
    ax.plot(range(1, len(losses) + 1), losses, "o-", color=TRAIN_COLOUR, markersize=3)
    ax.axhline(np.log(2), **LIMIT, label="guessing: 0.69")
    ax.set(xlabel="step", ylabel="loss of the batch", ylim=(0, None))
    ax.legend()
    return figure, f"The loss of the batch goes from {losses[0]:.2f} to {losses[-1]:.2f} in {len(losses)} steps."


def plot_schedule(learning_rates: Sequence[float]) -> tuple[plt.Figure, str]:
    """Plot the learning rate of each step of a training run; return the figure and its alternative text."""
    figure, ax = plt.subplots(figsize=(6, 2.2), layout="constrained")
    ax.plot(range(1, len(learning_rates) + 1), learning_rates, color=TRAIN_COLOUR)
    ax.set(xlabel="step", ylabel="learning rate\nof the classifier", ylim=(0, None))
    top = int(np.argmax(learning_rates)) + 1
    alt = (
        f"The learning rate rises to {max(learning_rates):.1e} at step {top:,} of {len(learning_rates):,}, then falls."
    )
    return figure, alt


def describe_best_epoch(history: pd.DataFrame, best_epoch: int) -> str:
    """Return a sentence on the epoch with the highest MCC, and the one whose weights are kept.

    history : a row for each epoch, with "epoch", "mcc" and "mcc_error"
    """
    epochs = history.set_index("epoch")
    highest = epochs["mcc"].idxmax()
    sentence = f"Epoch {highest} has the highest MCC, {epochs['mcc'][highest]:.3f} ± {epochs['mcc_error'][highest]:.3f}"
    if best_epoch == highest:
        return f"{sentence}, and is kept: no later one comes within one standard error"
    return f"{sentence}; epoch {best_epoch}, with {epochs['mcc'][best_epoch]:.3f}, is kept"
