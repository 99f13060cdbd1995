"""The drawing of BERT says what a real model has."""

import matplotlib.pyplot as plt
import pytest
from pytorch_pretrained_bert.modeling import BertConfig, BertForSequenceClassification

import tools
from textbert.evaluation.plots import draw_bert


@pytest.mark.parametrize(
    ("layers", "shown"), [(1, ["layer 1:"]), (4, ["layer 1:", "layer 2:", "layer 3:", "layer 4:"])]
)
def test_every_layer_of_a_small_model_is_drawn(layers, shown):
    texts = read_drawing(layers)
    assert [text[:8] for text in texts if text.startswith("layer ")] == shown
    assert texts[:3] == ["[CLS]", "soup", "[SEP]"] and texts[-2] == "classifier: 2 logits"


def test_weights_and_rates_are_the_models():
    texts = read_drawing(6)
    assert "layers 3 to 5 likewise" in texts and sum("attention" in text for text in texts) == 3
    # 8 x 2 weights and 2 biases; the embeddings learn at 0.8 to the power of 7 times the rate
    assert texts[-1] == "18 weights\nrate 1.0e-03"
    embeddings = texts[texts.index("each piece a vector of 8 numbers:\nword + position + segment") + 1]
    assert embeddings == f"{8 * (50 + 16 + 2 + 2)} weights\nrate {1e-3 * 0.8**7:.1e}"


def read_drawing(layers):
    config = BertConfig(50, 8, layers, 2, 16, max_position_embeddings=16)
    model = BertForSequenceClassification(config, 2)
    figure = draw_bert(model, ["[CLS]", "soup", "[SEP]"], tools.make_optimizer(model, 1e-3))
    texts = [text.get_text() for text in figure.axes[0].texts if text.get_text()]
    plt.close(figure)
    return texts
