"""The fast BERT's weights: copied, taken back, and drawn anew where that is wanted."""

import numpy as np
import pytest
import torch
from tiny import make_features, make_model, train

from textbert.batches import predict_logits
from textbert.bert import copy_weights, reset_pooler


def test_copied_weights_stay_as_they_were(tokenizers):
    model, features = make_model(), make_features(tokenizers["uncased"])
    kept = copy_weights(model)
    logits = predict_logits(model, features, 5, progress=False)
    train(model, features, epochs=1, batch_size=5)
    assert not np.array_equal(predict_logits(model, features, 5, progress=False), logits)
    model.load_state_dict(kept)
    assert np.array_equal(predict_logits(model, features, 5, progress=False), logits)


def test_the_pooler_alone_is_reset():
    model = make_model(hidden_size=64)
    before = copy_weights(model)
    reset_pooler(model)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"bert.pooler.dense.weight"}  # the bias was zero and is
    assert model.bert.pooler.dense.weight.std().item() == pytest.approx(0.02, rel=0.1)
