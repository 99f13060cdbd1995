"""Tiny objects for several test files: thirteen features, a BERT with random weights, its training, a trained one."""

from contextlib import contextmanager, nullcontext
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from conftest import make_vocabulary
from loop import load_loop
from pytorch_pretrained_bert.modeling import BertConfig, BertForSequenceClassification

import tools
from textbert.features.batching import BatchSampler
from textbert.model import archive, modeling
from textbert.training.batches import TrainingBatch

TEXTS = [
    "good food",
    "bad",
    "the soup was not good",
    "very bad place and a bad soup",
    "",
    "a cafe",
    "good, good, very good. the food was good",
    "unaffable",
    "the place was bad",
    "soup",
    "not good and not bad",
    "very, very good soup",
    "don't",
]  # 13 of them, a prime, so that no batch size divides them evenly


def make_features(tokenizer, max_seq_length=19):
    """Return thirteen features with alternating labels 0 and 1; every third is that of a pair of texts."""
    examples = [
        tools.InputExample(i, text, "good place" if i % 3 == 0 else None, str(i % 2)) for i, text in enumerate(TEXTS)
    ]
    return tools.convert_examples_to_features(examples, {"0": 0, "1": 1}, max_seq_length, tokenizer, progress=False)


def make_model(dropout=0.0, seed=0, spread=0.0, **config):
    """Return a small BERT with fused kernels and random weights.

    spread : standard deviation of what is added to each weight, which makes the logits of texts differ more
    """
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, **config}
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    torch.manual_seed(seed)
    model = BertForSequenceClassification(BertConfig(len(make_vocabulary(False)), **sizes, **rates), 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * spread)
    return modeling.use_fused_kernels(model)


@contextmanager
def fake_loss(loss):
    """Context manager in which the loss of each batch is what the function `loss` returns; None for the real one.

    It has gradients, which are zero.
    """

    def compute(batch, logits):
        return 0 * logits.sum() + loss()

    with nullcontext() if loss is None else mock.patch.object(TrainingBatch, "loss", compute):
        yield


def make_loop(model, features, batch_size, accumulation=1, seed=0, **names):
    """Return the `Loop` of train.ipynb, in float32 on every machine; see `load_loop`."""
    sampler = BatchSampler(features.lengths, batch_size, accumulation, seed)
    return load_loop(Accelerator(cpu=True, mixed_precision="no"), model, features, sampler, **names)


def train(model, features, epochs, batch_size, accumulation=1, learning_rate=1e-3, checkpoint=None, **names):
    """Fine-tune a model on all features as train.ipynb does, and return the Run; `loss` as for `fake_loss`."""
    loss = names.pop("loss", None)
    loop = make_loop(model, features, batch_size, accumulation, **names)
    rows = np.arange(len(features))
    with fake_loss(loss):
        return loop.fine_tune(rows, rows, learning_rate, epochs, checkpoint)


def make_report(mcc, texts=10**6):
    """Return a report like that of `get_eval_report`, for balanced classes with the same error rate."""
    correct = round(texts / 4 * (1 + mcc))  # of each class
    errors = texts // 2 - correct
    return {"mcc": mcc, "tp": correct, "tn": correct, "fp": errors, "fn": errors}


def make_sentence(rng):
    """Return a text of filler words with the one word that decides its label, and the label."""
    label = int(rng.integers(2))
    words = list(rng.choice(["the", "a", "and", "was", "food", "place", "soup", "cafe"], rng.integers(2, 9)))
    words.insert(rng.integers(len(words) + 1), ("bad", "good")[label])
    return " ".join(words), label


def teach(bert_files, folder):
    """Return a Classifier with a tiny BERT that has learned what "good" and "bad" mean, and nothing else."""
    settings = {"do_lower_case": True, "max_seq_length": 24, "truncation": "head", "label_names": ["bad", "good"]}
    settings |= {"positive_class": "good", "temperature": 1.7, "threshold": 0.4, "trained": "today"}
    settings |= {"training_rows": 99, "parameters": {"TASK_NAME": "tiny"}}
    path = folder / "taught.tar.gz"
    archive.write_archive(bert_files(classifier=settings), path)
    classifier = tools.Classifier.load(path, "cpu")
    rng, model = np.random.default_rng(0), classifier.model  # in eval mode: without dropout it learns faster
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(100):
        texts, labels = zip(*(make_sentence(rng) for _ in range(16)))
        # neutral texts without either word, or the model would need to learn only one of the two
        neutral = [text.replace("good", "soup").replace("bad", "soup") for text in texts]
        inputs, _ = tools.collate(classifier.convert(texts + tuple(neutral)), np.arange(32))
        targets = torch.cat([F.one_hot(torch.tensor(labels), 2).float(), torch.full((16, 2), 0.5)])
        F.cross_entropy(model(**inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return classifier
