"""A classifier for others: as a folder for transformers, as a file for ONNX Runtime, and both compared with ours."""

import json
import logging
import time
import warnings
from copy import deepcopy
from pathlib import Path

import jinja2
import numpy as np
import torch

from textbert.evaluation.calibration import describe_calibration, format_threshold, get_fitted, probabilities
from textbert.evaluation.metrics import get_eval_report
from textbert.features.batching import collate, length_grouped_batches
from textbert.features.tokenization import MAX_POSITIONS
from textbert.model.config import format_vocab
from textbert.model.loading import describe_sizes
from textbert.model.prediction import predict_logits
from textbert.utils.files import atomic_write, write_text

EXPORTS = ("huggingface", "onnx", "onnx-int8")

TEMPLATES = Path(__file__).parent / "templates"


def _require_package(name, command):
    """Return the module `name`; raise ImportError with the pip command if it is not installed."""
    try:
        return __import__(name)
    except ImportError as error:
        raise ImportError(f"{error}: this needs more packages. Run: python -m pip install {command}") from error


def _plain_model(classifier):
    """Return a copy of the model, on the CPU, whose logits are calibrated: temperature and intercept are in them."""
    model = deepcopy(classifier.model).cpu().eval()
    with torch.no_grad():
        model.classifier.weight /= classifier.settings["temperature"]
        model.classifier.bias /= classifier.settings["temperature"]
        model.classifier.bias[1] += classifier.settings.get("intercept", 0.0)
    return model


def _get_probabilities(classifier, logits):
    return probabilities(logits, classifier.settings["temperature"], classifier.settings.get("intercept", 0.0))


def _write_card(classifier, folder, kind, figures, tokenizer_missing=None):
    """Write README.md, with the lines that a service needs; `tokenizer_missing` says why there is no tokenizer.json."""
    settings = classifier.settings
    task = settings.get("parameters", {}).get("TASK_NAME", Path(folder).name)
    pages = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), trim_blocks=True)  # Markdown: no escaping
    negative, positive = map(repr, settings["label_names"])
    named = {"task": task, "kind": kind, "negative": negative, "positive": positive, "figures": figures}
    named |= {"trained": classifier.describe()[0], "settings": settings, "tokenizer_missing": tokenizer_missing}
    named["threshold"] = format_threshold(settings["threshold"])
    named["calibration"] = " ".join(describe_calibration(settings, classifier.validation))
    card = pages.get_template("card.md").render(named)
    write_text(Path(folder, "README.md"), card)


def export_huggingface(classifier, folder, figures=None):
    """Write a folder that transformers' AutoModelForSequenceClassification and AutoTokenizer load offline.

    `figures` is a dict from a name to a number, for the model card. The threshold stands in config.json and in the
    card; what transformers cannot do, to read head and tail of a long text, is said there.
    """
    from safetensors.torch import save

    folder, settings, model = Path(folder), classifier.settings, _plain_model(classifier)
    names = settings["label_names"]
    config = {
        **describe_sizes(model),
        "architectures": ["BertForSequenceClassification"],
        "problem_type": "single_label_classification",
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        "torch_dtype": "float32",
        "layer_norm_eps": 1e-12,
        "pad_token_id": classifier.tokenizer.vocab["[PAD]"],
        "threshold": settings["threshold"],
        # for us, should it be loaded by `Classifier`
        "classifier": settings | {"temperature": 1.0, "intercept": 0.0, "calibrated_in_weights": get_fitted(settings)},
    }
    side = "left" if settings["truncation"] == "tail" else "right"
    tokenizer = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": classifier.tokenizer.basic_tokenizer.do_lower_case,
        "model_max_length": settings["max_seq_length"],
        "truncation_side": side,
    }
    if "[MASK]" not in classifier.tokenizer.vocab:
        tokenizer["mask_token"] = "[UNK]"  # or it would be added, with an id that the model does not have
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(weights, {"format": "pt"}))
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    write_text(folder / "tokenizer_config.json", json.dumps(tokenizer, indent=2) + "\n")
    write_text(folder / "vocab.txt", format_vocab(classifier.tokenizer.ids_to_tokens))
    _write_card(classifier, folder, "huggingface", figures)


def to_fast_tokenizer(tokenizer, max_seq_length, truncation):
    """Return a `tokenizers.Tokenizer` that cuts texts as a `TokenizationConfig` with these three arguments does.

    It differs for characters that came into Unicode after its tables or are in no Unicode yet, and where "[SEP]" or
    the like stands in a text next to other punctuation. Raises ValueError for "head+tail", which it does not know, and
    ImportError if tokenizers is not installed.
    """
    if truncation == "head+tail":
        raise ValueError("truncation is 'head+tail', but a tokenizer.json can only say 'head' or 'tail'")
    _require_package("tokenizers", "tokenizers")
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    lower, vocabulary = tokenizer.basic_tokenizer.do_lower_case, dict(tokenizer.vocab)
    longest = tokenizer.wordpiece_tokenizer.max_input_chars_per_word
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=longest))
    made.normalizer = normalizers.BertNormalizer(lowercase=lower, strip_accents=lower)
    if lower:  # as Python does, and tokenizers does not: the sigma that ends a word is another letter
        sigma = normalizers.Replace(Regex(r"(?<=\p{L})Σ(?!\p{L})"), "ς")
        made.normalizer = normalizers.Sequence([sigma, made.normalizer])
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special)
    kept = [name for name in tokenizer.basic_tokenizer.never_split if name in vocabulary]
    made.add_special_tokens([AddedToken(name, single_word=True, normalized=False) for name in kept])
    made.enable_truncation(max_seq_length, direction="left" if truncation == "tail" else "right")
    made.enable_padding(pad_id=vocabulary["[PAD]"], pad_token="[PAD]")
    return made


def find_cut_otherwise(tokenizer, features, texts):
    """Return the indices of texts for which a `tokenizers.Tokenizer` gives other ids than stand in our Features."""
    return _find_other(features, [tokenizer.encode(text).ids for text in texts])


def _find_other(features, theirs):
    ours = (features.ids[features.offsets[i] : features.offsets[i + 1]].tolist() for i in range(len(theirs)))
    return [i for i, ids in enumerate(ours) if ids != theirs[i]]


def export(classifier, kind, folder, figures=None):
    """Export as one of `EXPORTS` and return the path.

    "huggingface" is the folder `<folder>/huggingface/`, "onnx" the file `<folder>/onnx/model.onnx`, and "onnx-int8" the
    file `<folder>/onnx/model-int8.onnx`, with "onnx" beside it. README.md beside them has the lines that a service
    needs. `figures` is a dict from a name to a number, which it shows.
    """
    if kind == "huggingface":
        path = Path(folder, "huggingface")
        export_huggingface(classifier, path, figures)
        return path
    path = Path(folder, "onnx", "model.onnx")
    path.with_stem("model-int8").unlink(missing_ok=True)  # of an export before
    export_onnx(classifier, path)
    missing = export_tokenizer(classifier, path.with_name("tokenizer.json"))
    _write_card(classifier, path.parent, "onnx", figures, missing)
    return quantize_onnx(path) if kind == "onnx-int8" else path


def export_tokenizer(classifier, path):
    """Write the tokenizer.json that the tokenizers library loads; return None, or why there is none, and print it."""
    settings = classifier.settings
    try:
        made = to_fast_tokenizer(classifier.tokenizer, settings["max_seq_length"], settings["truncation"])
    except (ImportError, ValueError) as error:
        path.unlink(missing_ok=True)  # of an export before
        print(f"{path} is left out: {error}")
        return str(error)
    write_text(path, made.to_str())
    return None


def check_huggingface(classifier, folder, texts):
    """Compare an exported folder, loaded by transformers, with the classifier.

    Returns (the largest difference of a probability among texts cut alike, the indices of texts cut otherwise).
    """
    auto = _require_package("transformers", "transformers")
    tokenizer = auto.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = auto.AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    ours = classifier.convert(texts)
    theirs = [tokenizer(text, truncation=True)["input_ids"] for text in texts]
    other = _find_other(ours, theirs)
    alike = np.setdiff1d(np.arange(len(theirs)), other)
    expected = _get_probabilities(classifier, predict_logits(classifier.model, ours, 32, alike))
    largest = 0.0
    with torch.inference_mode():
        for row, ours_for_row in zip(alike, expected):
            given = model(torch.tensor([theirs[row]])).logits.softmax(-1)[0].numpy()
            largest = max(largest, float(np.abs(given - ours_for_row).max()))
    return largest, other


def export_onnx(classifier, path):
    """Write the model as ONNX, with the calibration in its weights: int64 inputs of shape (batch, length) to logits.

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


def quantize_onnx(path):
    """Write an ONNX file's weights as whole numbers of 8 bits, with which CPUs multiply faster; return its path.

    It is called `<name>-int8.onnx`. Weights take 7 of the bits, since sums overflow on CPUs without instructions for
    them (VNNI); what the weights multiply is rounded as it comes.
    """
    _require_package("onnxruntime", "onnx onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True}
    target = path.with_name(f"{path.stem}-int8.onnx")
    logging.disable(logging.WARNING)  # it advises what brings nothing here
    try:
        with atomic_write(target) as temporary:
            quantize_dynamic(path, temporary, **options)
    finally:
        logging.disable(logging.NOTSET)
    return target


def _open_onnx(path):
    runtime = _require_package("onnxruntime", "onnxruntime")
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def compare_int8(classifier, path, texts, labels, batch_size=32):
    """Say what the file of `quantize_onnx` gains and costs beside the one it was made from: size, speed and MCC.

    texts, labels : that take no part in any choice, such as dev.tsv's; labels an array of 0 and 1 of shape (n,)
    """
    paths = path, path.with_name(path.name.replace("-int8", ""))
    sessions, features = [_open_onnx(each) for each in paths], classifier.convert(texts)
    logits, seconds = np.zeros((2, len(features), 2), np.float32), np.zeros(2)
    for batch in length_grouped_batches(features.lengths, batch_size):
        inputs = {name: tensor.numpy() for name, tensor in collate(features, batch)[0].items()}
        for i, session in enumerate(sessions):  # in turns, so that whatever else the machine does slows both
            start = time.perf_counter()
            logits[i, batch] = session.run(["logits"], inputs)[0]
            seconds[i] += time.perf_counter() - start
    threshold = classifier.settings["threshold"]
    int8, float32 = (get_eval_report("", labels, probabilities(each)[:, 1] >= threshold)["mcc"] for each in logits)
    size, whole = (each.stat().st_size / 1e6 for each in paths)
    faster = seconds[1] / seconds[0]
    return (
        f"{path.name} on {len(texts):,} texts: {faster:.2f} times as fast as {paths[1].name}, "
        f"MCC {int8:.3f} for {float32:.3f} ({int8 - float32:+.3f}), {size:,.0f} MB for {whole:,.0f}"
    )


def check_onnx(classifier, path, texts, batch_size=32):
    """Return the largest difference of a probability between an exported ONNX file, run by onnxruntime, and ours."""
    session = _open_onnx(path)
    features = classifier.convert(texts)
    logits = predict_logits(classifier.model, features, batch_size)
    expected = _get_probabilities(classifier, logits)
    largest = 0.0
    for batch in length_grouped_batches(features.lengths, batch_size):
        inputs = {name: tensor.numpy() for name, tensor in collate(features, batch)[0].items()}
        logits = session.run(["logits"], inputs)[0]
        largest = max(largest, float(np.abs(probabilities(logits) - expected[batch]).max()))
    return largest
