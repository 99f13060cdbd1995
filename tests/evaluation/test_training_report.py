"""What train.ipynb shows of a model and its training: the attention is that of the model, figures are described."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from tiny import make_model

from textbert.evaluation import training_report


def test_attention_is_that_of_the_model():
    """The library's own module multiplies the same weights with the values: its context gives them away."""
    model, ids = make_model(spread=0.3), [2, 7, 8, 9, 3]
    weights = training_report.compute_attention(model.train(), ids)
    assert weights.shape == (2, 2, 5, 5) and model.training
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    model.eval()
    with torch.no_grad():
        attention = model.bert.encoder.layer[0].attention.self
        hidden_states = model.bert.embeddings(torch.tensor([ids]))
        context = attention(hidden_states, torch.zeros(1, 1, 1, 5))[0].view(5, 2, 16)
        values = attention.value(hidden_states)[0].view(5, 2, 16)
    expected = np.einsum("hij,jhd->ihd", weights[0], values.numpy())
    np.testing.assert_allclose(context.numpy(), expected, atol=1e-5)


def test_attention_is_drawn_of_the_heads_that_show_it_best(tokenizers):
    model, tokenizer = make_model(spread=0.3, num_hidden_layers=3), tokenizers["uncased"]
    figure, alt = training_report.draw_attention(model, tokenizer, "Not bad!")
    tokens = ["[CLS]", "not", "bad", "!", "[SEP]"]
    weights = training_report.compute_attention(model, tokenizer.convert_tokens_to_ids(tokens))
    for number, (ax, heads) in enumerate(zip(figure.axes, weights), start=1):
        head = heads[:, 2, 1].argmax() if number < 3 else heads[:, 0, 1:-1].sum(axis=1).argmax()
        assert ax.get_title() == f"layer {number}, head {head + 1} of 2"
        np.testing.assert_array_equal(ax.images[0].get_array(), heads[head])
        assert [label.get_text() for label in ax.get_yticklabels()] == tokens
    plt.close(figure)
    assert "'Not bad!'" in alt and "layer 2" in alt and "layer 3" in alt and alt.count("[SEP] ") >= 3


def test_one_layer_is_drawn_alone(tokenizers):
    figure, _ = training_report.draw_attention(make_model(num_hidden_layers=1), tokenizers["uncased"], "not bad")
    assert len(figure.axes) == 1
    plt.close(figure)


@pytest.mark.parametrize(
    ("layers", "titles"),
    [
        (1, ["layer 1: attention, feed-forward network"]),
        (2, ["layer 1: attention, feed-forward network", "layer 2: attention, feed-forward network"]),
        (3, ["layer 1: attention", "layer 2: the same", "layer 3: attention"]),
        (6, ["layer 1: attention", "layers 2 to 5: the same", "layer 6: attention"]),
    ],
)
def test_architecture_is_that_of_the_model(layers, titles):
    model = make_model(num_hidden_layers=layers)
    tokens = ["[CLS]", "soup", "[SEP]"]
    figure, alt = training_report.draw_bert(model, tokens)
    texts = [text.get_text() for text in figure.axes[0].texts]
    plt.close(figure)
    size = model.config.hidden_size
    assert texts[:3] == tokens and len(texts) == 3 + len(titles) + 3
    assert all(text.startswith(title) for text, title in zip(texts[4:-2], titles, strict=True))
    assert texts[-1] == f"classifier: 2 numbers, the logits\n{2 * size + 2} weights"
    count = sum(weights.numel() for weights in model.bert.embeddings.parameters())
    assert texts[3] == f"embeddings: {size} numbers for each token\n{count:,} weights"
    assert all(text.replace("\n", ", ") in alt for text in texts[3:])


def test_losses_and_rates_are_described():
    figure, alt = training_report.plot_batch_loss([0.7, 0.3, 0.01])
    assert alt == "The loss of the batch goes from 0.70 to 0.01 in 3 steps."
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.7, 0.3, 0.01]
    plt.close(figure)
    figure, alt = training_report.plot_schedule([1e-4, 2e-4, 1e-4, 0])
    assert alt == "The learning rate rises to 2.0e-04 at step 2 of 4, then falls."
    plt.close(figure)


@pytest.mark.parametrize(
    ("best_epoch", "expected"),
    [
        (2, "Epoch 2 has the highest MCC, 0.800 ± 0.050, and is kept: no later one comes within one standard error"),
        (3, "Epoch 2 has the highest MCC, 0.800 ± 0.050; epoch 3, with 0.760, is kept"),
    ],
)
def test_the_epoch_that_is_kept_is_named(best_epoch, expected):
    history = pd.DataFrame({"epoch": [1, 2, 3], "mcc": [0.7, 0.8, 0.76], "mcc_error": 0.05})
    assert training_report.describe_best_epoch(history, best_epoch) == expected
