"""A classifier for others: as a folder for transformers, as a file for ONNX Runtime, and both compared with ours."""

import json
import logging
import warnings
from copy import deepcopy
from pathlib import Path

import jinja2
import numpy as np
import torch

from textbert.archive import vocabulary_text
from textbert.batches import make_batch, plan_batches, predict_logits
from textbert.files import atomic_write, write_text
from textbert.measures import probabilities
from textbert.parameters import MAX_POSITIONS

TEMPLATES = Path(__file__).parent / "templates"


def _require_package(name, command):
    """Return the module `name`; raise ImportError with the pip command if it is not installed."""
    try:
        return __import__(name)
    except ImportError as error:
        raise ImportError(f"{error}: this needs more packages. Run: python -m pip install {command}") from error


def _plain_model(classifier):
    """Return a copy of the model, on the CPU, whose logits are already divided by the temperature."""
    model = deepcopy(classifier.model).cpu().eval()
    with torch.no_grad():
        model.classifier.weight /= classifier.settings["temperature"]
        model.classifier.bias /= classifier.settings["temperature"]
    return model


def export_huggingface(classifier, folder, figures=None):
    """Write a folder that transformers' AutoModelForSequenceClassification and AutoTokenizer load offline.

    `figures` is a dict from a name to a number, for the model card. The threshold stands in config.json and in the
    card; what transformers cannot do, to read head and tail of a long text, is said there.
    """
    from safetensors.torch import save

    folder, settings, model = Path(folder), classifier.settings, _plain_model(classifier)
    names = settings["label_names"]
    task = settings.get("parameters", {}).get("TASK_NAME", folder.name)
    config = {
        **model.config.to_dict(),
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        "problem_type": "single_label_classification",
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        "layer_norm_eps": 1e-12,
        "pad_token_id": classifier.tokenizer.vocab["[PAD]"],
        "threshold": settings["threshold"],
    }
    side = "left" if settings["truncation"] == "tail" else "right"
    tokenizer = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": classifier.tokenizer.basic_tokenizer.do_lower_case,
        "model_max_length": settings["max_seq_length"],
        "truncation_side": side,
    }
    pages = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), trim_blocks=True)  # Markdown: no escaping
    named = {"task": task, "negative": repr(names[0]), "positive": repr(names[1])}
    card = pages.get_template("card.md").render(**named, settings=settings, figures=figures)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(weights, {"format": "pt"}))
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    write_text(folder / "tokenizer_config.json", json.dumps(tokenizer, indent=2) + "\n")
    write_text(folder / "vocab.txt", vocabulary_text(classifier.tokenizer.ids_to_tokens))
    write_text(folder / "README.md", card)


def export(classifier, kind, folder, figures=None):
    """Export to "huggingface", `<folder>/huggingface/`, or "onnx", `<folder>/model.onnx`; return the path."""
    if kind == "huggingface":
        path = Path(folder, "huggingface")
        export_huggingface(classifier, path, figures)
    else:
        path = Path(folder, "model.onnx")
        export_onnx(classifier, path)
    return path


def check_huggingface(classifier, folder, texts):
    """Compare an exported folder, loaded by transformers, with the classifier.

    Returns (the largest difference of a probability among texts cut alike, the indices of texts cut otherwise).
    """
    auto = _require_package("transformers", "transformers")
    tokenizer = auto.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = auto.AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    ours = classifier.convert(texts)
    theirs = [tokenizer(text, truncation=True)["input_ids"] for text in texts]
    other = [i for i, ids in enumerate(theirs) if ids != ours.ids[ours.offsets[i] : ours.offsets[i + 1]].tolist()]
    alike = np.setdiff1d(np.arange(len(theirs)), other)
    expected = probabilities(predict_logits(classifier.model, ours, 32, alike), classifier.settings["temperature"])
    largest = 0.0
    with torch.inference_mode():
        for row, ours_for_row in zip(alike, expected):
            given = model(torch.tensor([theirs[row]])).logits.softmax(-1)[0].numpy()
            largest = max(largest, float(np.abs(given - ours_for_row).max()))
    return largest, other


def export_onnx(classifier, path):
    """Write the model as ONNX, with the temperature in its weights: int64 inputs of shape (batch, length) to logits.

    Inputs are input_ids, token_type_ids and attention_mask; batch and length (up to 512) may be anything.
    """
    _require_package("onnxscript", "onnx onnxscript")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not there
    names = ["input_ids", "token_type_ids", "attention_mask"]
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=MAX_POSITIONS)}
    inputs = tuple(torch.ones(2, 8, dtype=torch.int64) for _ in names)
    options = {"input_names": names, "output_names": ["logits"], "dynamic_shapes": dict.fromkeys(names, axes)}
    options |= {"dynamo": True, "external_data": False, "verbose": False}
    with atomic_write(path) as temporary, torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about names of axes
        torch.onnx.export(_plain_model(classifier), inputs, str(temporary), **options)


def check_onnx(classifier, path, texts, batch_size=32):
    """Return the largest difference of a probability between an exported ONNX file, run by onnxruntime, and ours."""
    runtime = _require_package("onnxruntime", "onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    features = classifier.convert(texts)
    logits = predict_logits(classifier.model, features, batch_size)
    expected = probabilities(logits, classifier.settings["temperature"])
    largest = 0.0
    for batch in plan_batches(features.lengths, batch_size):
        inputs = {name: tensor.numpy() for name, tensor in make_batch(features, batch)[0].items()}
        logits = session.run(["logits"], inputs)[0]
        largest = max(largest, float(np.abs(probabilities(logits) - expected[batch]).max()))
    return largest
