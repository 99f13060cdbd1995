"""Comparison of exported models, run by the libraries they are for, with the classifier that was exported."""

import numpy as np
import torch

from textbert.evaluation.calibration import probabilities
from textbert.features.batching import collate, length_grouped_batches
from textbert.inference.export import open_onnx


def predict_positive(classifier, features):
    """Return the classifier's probability of the positive class for each example, of shape (n,)."""
    return classifier.predict_features(features, 32, progress=False)["probability"].to_numpy()


def find_tokenized_differently(tokenizer, features, texts):
    """Return the indices of texts for which a `tokenizers.Tokenizer` gives other ids than our Features have."""
    return find_differences(features, [tokenizer.encode(text).ids for text in texts])


def find_differences(features, theirs):
    """Return the indices of examples whose ids differ from those in `theirs`, a list of lists."""
    ours = (features.ids[features.offsets[i] : features.offsets[i + 1]].tolist() for i in range(len(theirs)))
    return [i for i, ids in enumerate(ours) if ids != theirs[i]]


def compare_huggingface(classifier, folder, texts):
    """Compare an exported folder, loaded by transformers, with the classifier.

    Returns the largest difference of a probability among texts with equal ids, and the indices of the others.
    """
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    features = classifier.convert(texts)
    ids = [tokenizer(text, truncation=True)["input_ids"] for text in texts]
    differences = find_differences(features, ids)
    expected, largest = predict_positive(classifier, features), 0.0
    with torch.inference_mode():
        for row in np.setdiff1d(np.arange(len(ids)), differences):
            probability = model(torch.tensor([ids[row]])).logits.softmax(-1)[0, 1].item()
            largest = max(largest, abs(probability - expected[row]))
    return largest, differences


def compare_onnx(classifier, path, texts, batch_size=32):
    """Return the largest difference of a probability between an exported ONNX file, run by onnxruntime, and ours."""
    session, features = open_onnx(path), classifier.convert(texts)
    expected, largest = predict_positive(classifier, features), 0.0
    for batch in length_grouped_batches(features.lengths, batch_size):
        inputs = {name: tensor.numpy() for name, tensor in collate(features, batch)[0].items()}
        logits = session.run(["logits"], inputs)[0]
        largest = max(largest, float(np.abs(probabilities(logits)[:, 1] - expected[batch]).max()))
    return largest
