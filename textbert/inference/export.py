"""Export of a classifier: a folder for transformers, a file for ONNX Runtime."""

import importlib
import json
import logging
import time
import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import torch
from pytorch_pretrained_bert import BertForSequenceClassification, BertTokenizer

from textbert.data.labelled_texts import LabelledTexts
from textbert.evaluation.calibration import describe_calibration, format_threshold, get_calibration, probabilities
from textbert.evaluation.metrics import get_eval_report
from textbert.features.batching import collate, length_grouped_batches
from textbert.features.tokenization import MAX_POSITIONS
from textbert.inference.classifier import Classifier
from textbert.model.config import format_vocab
from textbert.model.loading import describe_sizes
from textbert.utils.files import atomic_write, write_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EXPORTS = ("huggingface", "onnx", "onnx-int8")

TEMPLATES = Path(__file__).parent / "templates"


def _import_package(name: str, packages: str) -> ModuleType:
    """Import the module `name`; raise ImportError with the pip command if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{error}: this export requires {name}: python -m pip install {packages}") from error


def fold_temperature_into_weights(classifier: Classifier) -> BertForSequenceClassification:
    """Return a copy of the model, on the CPU, with temperature and intercept folded into its weights."""
    model = deepcopy(classifier.model).cpu().eval()
    with torch.no_grad():
        model.classifier.weight /= classifier.settings["temperature"]
        model.classifier.bias /= classifier.settings["temperature"]
        model.classifier.bias[1] += classifier.settings.get("intercept", 0.0)
    return model


def _write_card(
    classifier: Classifier,
    folder: str | Path,
    kind: str,
    metrics: dict[str, float] | None,
    tokenizer_missing: str | None = None,
) -> None:
    """Write README.md, with the code that a service needs; `tokenizer_missing` says why there is no tokenizer.json."""
    settings = classifier.settings
    task = settings.get("parameters", {}).get("TASK_NAME", Path(folder).name)
    negative, positive = map(repr, settings["label_names"])
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), trim_blocks=True)  # Markdown: no escaping
    card = templates.get_template("card.md").render(
        task=task,
        kind=kind,
        negative=negative,
        positive=positive,
        metrics=metrics,
        trained=classifier.describe()[0],
        settings=settings,
        tokenizer_missing=tokenizer_missing,
        threshold=format_threshold(settings["threshold"]),
        calibration=" ".join(describe_calibration(settings, classifier.validation)),
    )
    write_text(Path(folder, "README.md"), card)


def export_huggingface(classifier: Classifier, folder: str | Path, metrics: dict[str, float] | None = None) -> None:
    """Write a folder that transformers' AutoModelForSequenceClassification and AutoTokenizer load offline.

    `metrics` is a dict from a name to a number, for the model card. config.json and the card have the threshold; the
    card also says that transformers cannot keep both head and tail of a long text, if the model was trained so.
    """
    from safetensors.torch import save

    folder, settings, model = Path(folder), classifier.settings, fold_temperature_into_weights(classifier)
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
        # for `Classifier.load`
        "classifier": settings
        | {"temperature": 1.0, "intercept": 0.0, "calibrated_in_weights": get_calibration(settings)},
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
    _write_card(classifier, folder, "huggingface", metrics)


def to_fast_tokenizer(tokenizer: BertTokenizer, max_seq_length: int, truncation: str) -> "Tokenizer":
    """Return a `tokenizers.Tokenizer` that returns the ids that a `TokenizationConfig` with these arguments does.

    It differs for characters that are newer than its Unicode tables or not in Unicode yet, and where a text contains
    "[SEP]" or another special token next to punctuation. Raises ValueError for "head+tail", which it does not support,
    and ImportError if tokenizers is not installed.
    """
    if truncation == "head+tail":
        raise ValueError("truncation is 'head+tail', but tokenizer.json supports only 'head' and 'tail'")
    _import_package("tokenizers", "tokenizers")
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    lower, vocabulary = tokenizer.basic_tokenizer.do_lower_case, dict(tokenizer.vocab)
    longest = tokenizer.wordpiece_tokenizer.max_input_chars_per_word
    fast = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=longest))
    fast.normalizer = normalizers.BertNormalizer(lowercase=lower, strip_accents=lower)
    if lower:  # a sigma that ends a word has its own lowercase form, which Python knows and tokenizers does not
        sigma = normalizers.Replace(Regex(r"(?<=\p{L})Σ(?!\p{L})"), "ς")
        fast.normalizer = normalizers.Sequence([sigma, fast.normalizer])
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    fast.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special)
    special_tokens = [name for name in tokenizer.basic_tokenizer.never_split if name in vocabulary]
    fast.add_special_tokens([AddedToken(name, single_word=True, normalized=False) for name in special_tokens])
    fast.enable_truncation(max_seq_length, direction="left" if truncation == "tail" else "right")
    fast.enable_padding(pad_id=vocabulary["[PAD]"], pad_token="[PAD]")
    return fast


def export(classifier: Classifier, kind: str, folder: str | Path, metrics: dict[str, float] | None = None) -> Path:
    """Export a classifier as one of `EXPORTS`; return the path of the result.

    "huggingface" is the folder `<folder>/huggingface/`, "onnx" the file `<folder>/onnx/model.onnx`, and "onnx-int8" the
    file `<folder>/onnx/model-int8.onnx`, with "onnx" beside it. README.md beside them has the code that a service
    needs, and shows `metrics`, a dict from a name to a number. Raises ImportError, with the pip command, for a package
    that is not installed.
    """
    if kind == "huggingface":
        path = Path(folder, "huggingface")
        export_huggingface(classifier, path, metrics)
        return path
    path = Path(folder, "onnx", "model.onnx")
    path.with_stem("model-int8").unlink(missing_ok=True)  # left by an earlier export
    export_onnx(classifier, path)
    missing = export_tokenizer(classifier, path.with_name("tokenizer.json"))
    _write_card(classifier, path.parent, "onnx", metrics, missing)
    return quantize_onnx(path) if kind == "onnx-int8" else path


def export_tokenizer(classifier: Classifier, path: Path) -> str | None:
    """Write tokenizer.json for the tokenizers library; return None, or print and return why there is none."""
    settings = classifier.settings
    try:
        tokenizer = to_fast_tokenizer(classifier.tokenizer, settings["max_seq_length"], settings["truncation"])
    except (ImportError, ValueError) as error:
        path.unlink(missing_ok=True)  # left by an earlier export
        print(f"{path} is left out: {error}")
        return str(error)
    write_text(path, tokenizer.to_str())
    return None


def export_onnx(classifier: Classifier, path: Path) -> None:
    """Write the model as ONNX, with the calibration in its weights.

    Inputs are input_ids, token_type_ids and attention_mask, int64 of shape (batch, length) with any batch and a length
    up to 512; the output is logits, float32 of shape (batch, 2). The metadata are strings: `threshold`, a number, and
    `label_names`, a JSON list with the names of the classes 0 and 1.
    """
    _import_package("onnxscript", "onnx onnxscript")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not installed
    names = ["input_ids", "token_type_ids", "attention_mask"]
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=MAX_POSITIONS)}
    inputs = tuple(torch.ones(2, 8, dtype=torch.int64) for _ in names)
    options: dict[str, Any] = {"input_names": names, "output_names": ["logits"], "dynamo": True}
    options |= {"dynamic_shapes": dict.fromkeys(names, axes), "verbose": False}
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about names of axes
        program: Any = torch.onnx.export(fold_temperature_into_weights(classifier), inputs, **options)
    settings = classifier.settings
    program.model.metadata_props["label_names"] = json.dumps(settings["label_names"])
    program.model.metadata_props["threshold"] = str(settings["threshold"])
    with atomic_write(path) as temporary:
        program.save(temporary, external_data=False)


def quantize_onnx(path: Path) -> Path:
    """Write a copy of an ONNX file with weights of 8 bits (dynamic quantization), `<name>-int8.onnx`; return its path.

    Weights use 7 of the bits, since sums would overflow on CPUs without VNNI instructions; activations are quantized
    at run time.
    """
    _import_package("onnxruntime", "onnx onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True}
    target = path.with_name(f"{path.stem}-int8.onnx")
    logging.disable(logging.WARNING)  # it recommends a preprocessing that makes no difference here
    try:
        with atomic_write(target) as temporary:
            quantize_dynamic(path, temporary, **options)
    finally:
        logging.disable(logging.NOTSET)
    return target


def open_onnx(path: Path) -> Any:
    """Return an onnxruntime InferenceSession of an ONNX file, on the CPU."""
    runtime = _import_package("onnxruntime", "onnxruntime")
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def compare_int8(
    classifier: Classifier, path: Path, texts: Sequence[str], labels: np.ndarray, batch_size: int = 32
) -> str:
    """Return a sentence that compares the file of `quantize_onnx` with its original in speed, MCC and size.

    texts, labels : examples that no decision was based on, such as dev.tsv's; labels are 0 and 1, of shape (n,)
    """
    paths = path, path.with_name(path.name.replace("-int8", ""))
    sessions, features = [open_onnx(each) for each in paths], classifier.convert(texts)
    logits, seconds = np.zeros((2, len(features), 2), np.float32), np.zeros(2)
    for batch in length_grouped_batches(features.lengths, batch_size):
        inputs = {name: tensor.numpy() for name, tensor in collate(features, batch)[0].items()}
        for i, session in enumerate(sessions):  # alternating, so that other load on the machine slows both
            start = time.perf_counter()
            logits[i, batch] = session.run(["logits"], inputs)[0]
            seconds[i] += time.perf_counter() - start
    threshold = classifier.settings["threshold"]
    int8, float32 = (get_eval_report("", labels, probabilities(each)[:, 1] >= threshold)["mcc"] for each in logits)
    size, full_size = (each.stat().st_size / 1e6 for each in paths)
    faster = seconds[1] / seconds[0]
    return (
        f"{path.name} on {len(texts):,} texts: {faster:.2f} times as fast as {paths[1].name}, "
        f"MCC {int8:.3f} instead of {float32:.3f} ({int8 - float32:+.3f}), {size:,.0f} MB instead of {full_size:,.0f}"
    )


def export_all(
    classifier: Classifier, kinds: Sequence[str], folder: Path, metrics: dict[str, float], texts: LabelledTexts
) -> None:
    """Export a classifier in several formats, see `export`; print the paths, and what 8-bit weights change on texts."""
    for kind in kinds:
        path = export(classifier, kind, folder, metrics)
        print(f"{path} written")
        if kind == "onnx-int8":
            print(compare_int8(classifier, path, texts.texts, texts.labels))
    print(f"{len(kinds)} exports requested")
