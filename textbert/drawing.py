"""A drawing of what is inside BERT, with the sizes of a real model and the learning rate of each part."""

import matplotlib.pyplot as plt

from textbert.display import BLUE, ORANGE

GREY = "#e6e6e6"


def _count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def _box(ax, y, height, colour, title, note):
    """Draw a box with its title, and a note to its right."""
    ax.add_patch(plt.Rectangle((0, y), 6.6, height, facecolor=colour, edgecolor="#555555", linewidth=0.8))
    ax.text(3.3, y + height / 2, title, ha="center", va="center", fontsize=11)
    ax.text(6.9, y + height / 2, note, ha="left", va="center", fontsize=10, color="#444444")


def _describe_parts(model, rates):
    """Return (height, colour, title, note) of each part, from the words up; `rates` are those of the parts."""
    bert, size, layers = model.bert, model.config.hidden_size, model.config.num_hidden_layers
    parts = [(1.3, "#dbe5f1", f"each piece a vector of {size} numbers:\nword + position + segment", bert.embeddings)]
    parts += [(0.9, GREY, f"layer {n}: attention, then mixing", layer) for n, layer in enumerate(bert.encoder.layer, 1)]
    parts += [(0.9, "#fbe3d3", "pooler: reads the vector of [CLS] alone", bert.pooler)]
    parts += [(0.9, "#f6c7a5", f"classifier: {model.num_labels} logits", model.classifier)]
    described = []
    for (height, colour, title, part), rate in zip(parts, rates):
        count = _count(part)
        weights = f"{count / 1e6:.1f} M" if count > 99_999 else f"{count:,}"
        described.append((height, colour, title, f"{weights} weights\nrate {rate:.1e}"))
    if layers > 4:  # those between look alike
        described[3:layers] = [(0.8, "white", f"layers 3 to {layers - 1} likewise", "")]
    return described


def draw_bert(model, pieces, optimizer):
    """Return a figure of a BERT that reads some word pieces, from the pieces at its foot to the answer at its head.

    model : a BertForSequenceClassification
    pieces : list of strings, [CLS] and [SEP] included; a handful is legible
    optimizer : a new one of `make_optimizer`, whose learning rates are written beside the parts
    """
    rate_of = {id(weights): group["lr"] for group in optimizer.param_groups for weights in group["params"]}
    parts = [model.bert.embeddings, *model.bert.encoder.layer, model.bert.pooler, model.classifier]
    described = _describe_parts(model, [rate_of[id(next(part.parameters()))] for part in parts])
    figure, ax = plt.subplots(figsize=(5.2, 0.8 * len(described) + 2), layout="constrained")
    width = 6.6 / len(pieces)
    for place, piece in enumerate(pieces):
        colour = ORANGE if piece == "[CLS]" else BLUE
        ax.text((place + 0.5) * width, 0, piece, ha="center", va="center", fontsize=11, color=colour, weight="bold")
    y = 0.5
    for height, colour, title, note in described:
        ax.annotate("", (3.3, y + 0.45), (3.3, y), arrowprops={"arrowstyle": "->", "color": "#555555"})
        _box(ax, y + 0.45, height, colour, title, note)
        y += 0.45 + height
    ax.set(xlim=(-0.1, 9.3), ylim=(-0.5, y + 0.3))
    ax.axis("off")
    return figure
