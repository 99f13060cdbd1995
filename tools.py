"""Binary text classification with BERT: the front door of the package `textbert`, for notebooks and other projects.

Here stand the examples and how they become features; everything else is handed on from the rooms behind. Nothing runs
on import. Model and tokenizer are those of pytorch-pretrained-bert 0.6.2.
"""

import csv
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np

from textbert.data.splits import split_folds, split_train_validation, stratified_sample
from textbert.data.tsv import TsvChunk, clean_text, read_lines, read_tsv_rows, write_task
from textbert.evaluation.calibration import probabilities
from textbert.evaluation.metrics import choose_threshold, get_eval_report
from textbert.features.batching import BatchSampler, collate, length_grouped_batches
from textbert.features.conversion import convert_batches, convert_pairs, may_start_workers, worker_pool
from textbert.features.features import (
    Features,
    InputFeatures,
    check_labels_match,
    check_texts,
    encode_example_labels,
    get_fingerprint,
    load_features,
    load_if_current,
    save_features,
)
from textbert.features.tokenization import TokenizationConfig, count_tokens, encode_single
from textbert.inference.classifier import Classifier
from textbert.model.archive import get_archive_path, pack_model
from textbert.model.config import DEFAULT_MODEL
from textbert.model.loading import clone_state_dict, load_model, load_tokenizer, reinitialize_pooler, save_model
from textbert.model.prediction import predict_logits
from textbert.notebook.cells import Stages
from textbert.notebook.parameters import check_parameters
from textbert.training.distributed import get_environment
from textbert.training.optim import get_class_weights, make_optimizer, make_schedule
from textbert.training.trainer import Run
from textbert.utils.display import format_duration, show_figure
from textbert.utils.files import check_disk_space, check_file

__all__ = [
    "BatchSampler",
    "BinaryClassificationProcessor",
    "check_labels_match",
    "check_parameters",
    "choose_threshold",
    "Classifier",
    "clean_text",
    "clone_state_dict",
    "collate",
    "convert_example_to_feature",
    "convert_examples_to_features",
    "count_tokens",
    "DataProcessor",
    "DEFAULT_MODEL",
    "Features",
    "format_duration",
    "get_archive_path",
    "get_class_weights",
    "get_environment",
    "get_eval_report",
    "InputExample",
    "InputFeatures",
    "length_grouped_batches",
    "load_features",
    "load_model",
    "load_or_convert_features",
    "load_tokenizer",
    "make_optimizer",
    "make_schedule",
    "pack_model",
    "predict_logits",
    "probabilities",
    "reinitialize_pooler",
    "Run",
    "save_features",
    "save_model",
    "show_figure",
    "split_folds",
    "split_train_validation",
    "Stages",
    "stratified_sample",
    "write_task",
]


@dataclass
class InputExample:
    """A text, or a pair of texts, with its label (None where it is unknown)."""

    guid: object
    text_a: str
    text_b: str | None = None
    label: str | None = None


class DataProcessor:
    """Base class for what turns a data set into lists of InputExample."""

    def get_train_examples(self, data_dir):
        """Return the InputExamples for training."""
        raise NotImplementedError

    def get_dev_examples(self, data_dir):
        """Return the InputExamples for evaluation."""
        raise NotImplementedError

    def get_labels(self):
        """Return the list of labels, as strings."""
        raise NotImplementedError

    @classmethod
    def _read_tsv(cls, input_file, quotechar=None):
        """Return the lines of a tab-separated file, each a list of fields; quoted only if there is a `quotechar`."""
        if quotechar is None:
            return [fields for _, fields in read_lines(input_file)]
        with open(input_file, encoding="utf-8", newline="") as file:
            return list(csv.reader(file, delimiter="\t", quotechar=quotechar))


class BinaryClassificationProcessor(DataProcessor):
    """Reads `train.tsv` and `dev.tsv`: id, label (0 or 1), the letter a, text."""

    def get_train_examples(self, data_dir):
        """Return the InputExamples of `train.tsv`; see `get_examples`."""
        return self.get_examples(Path(data_dir, "train.tsv"))

    def get_dev_examples(self, data_dir):
        """Return the InputExamples of `dev.tsv`; see `get_examples`."""
        return self.get_examples(Path(data_dir, "dev.tsv"))

    def get_labels(self):
        """Return ["0", "1"]."""
        return ["0", "1"]

    def get_examples(self, path, output_mode="classification"):
        """Return the InputExamples of one TSV file as a list; see `read_examples`."""
        return list(self.read_examples(path, output_mode))

    def read_examples(self, path, output_mode="classification"):
        """Yield the InputExamples of one TSV file; see `read_tsv_rows` for its errors."""
        for guid, label, text in read_tsv_rows(path, output_mode, self.get_labels()):
            yield InputExample(guid, text, label=label)


def convert_examples_to_features(
    examples,
    label_map,
    max_seq_length,
    tokenizer,
    output_mode="classification",
    processes=None,
    progress=True,
    truncation="head",
):
    """Convert InputExamples to Features: [CLS] text [SEP], or [CLS] text [SEP] second text [SEP].

    The word pieces are exactly those of the tokenizer, a pytorch-pretrained-bert BertTokenizer.

    Parameters
    ----------
    examples : InputExamples, a list or an iterator; a label of None becomes `IGNORE_INDEX` (in regression NaN)
    label_map : dict from label to integer; not used in regression
    max_seq_length : how many word pieces to keep, special ones included; at most 512, or what the tokenizer's model has
    output_mode : "classification" or "regression"
    processes : how many to use at most; None starts more than one when that is worth their start-up
    progress : show a progress bar, if there is a notebook or a terminal to show it in
    truncation : what to keep of a text that is too long: its "head", its "tail", or "head+tail" (a quarter of the room
        for the head; Sun et al. 2019). Of a pair the longer text is cut first.

    Raises ValueError for a bad argument, a text that is no string or an unknown label, BrokenExecutor (a RuntimeError)
    if a worker was killed.
    """
    examples = list(examples)
    check_texts(examples)
    pairs = [(example.text_a, example.text_b) for example in examples]
    labels = encode_example_labels(examples, label_map, output_mode)
    return convert_pairs(TokenizationConfig(tokenizer, max_seq_length, truncation), pairs, labels, processes, progress)


def convert_example_to_feature(example_row):
    """Convert one example; `example_row` is (example, label_map, max_seq_length, tokenizer, output_mode).

    Returns the InputFeatures that `convert_examples_to_features` gives for it.
    """
    example, label_map, max_seq_length, tokenizer, output_mode = example_row
    check_texts([example])
    labels = encode_example_labels([example], label_map, output_mode)
    conversion = TokenizationConfig(tokenizer, max_seq_length)
    conversion.validate(pairs=example.text_b is not None)
    ids, first = encode_single(conversion, example.text_a, example.text_b)
    return Features(ids, np.array([len(ids)]), np.array([first]), labels, max_seq_length)[0]


def _convert_tsv(tsv, conversion, output_mode, processes):
    """Return the Features of a TSV file; every line is checked before the work begins.

    Of a large file it is known that workers are worth their start-up: they start while it is checked. The texts are
    read again where they are encoded, and never all kept.
    """
    processor, parts = BinaryClassificationProcessor(), TsvChunk.split(tsv)
    label_map = {label: i for i, label in enumerate(processor.get_labels())}
    many = (processes or joblib.cpu_count()) if may_start_workers() else 1
    with worker_pool(conversion, many) if many > 1 and len(parts) > TsvChunk.MANY else nullcontext() as pool:
        fingerprint = get_fingerprint(tsv, conversion, output_mode)
        labels = encode_example_labels(processor.read_examples(tsv, output_mode), label_map, output_mode)
        check_disk_space(tsv.parent, len(labels) * (4 * conversion.max_seq_length + 12))
        features = convert_batches(conversion, parts, labels, many if pool else processes, pool)
    features.fingerprint = fingerprint
    return features


def load_or_convert_features(
    data_dir, split, tokenizer, max_seq_length, truncation="head", output_mode="classification", processes=None
):
    """Return the Features of `<data_dir>/<split>.tsv`, and keep them in `<split>_features.pkl`.

    The pickle is used if it was made from the same file with the same settings, which its fingerprint tells; else the
    texts are converted and the pickle is replaced. Prints which. See `convert_examples_to_features` for the parameters
    and `BinaryClassificationProcessor` for the errors of the TSV file.
    """
    tsv, pickled = Path(data_dir, f"{split}.tsv"), Path(data_dir, f"{split}_features.pkl")
    conversion = TokenizationConfig(tokenizer, max_seq_length, truncation)
    check_file(tsv, "data_prep.ipynb makes it")
    conversion.validate()
    if features := load_if_current(pickled, get_fingerprint(tsv, conversion, output_mode)):
        print(f"{len(features):,} features loaded from {pickled}")
        return features
    start = time.perf_counter()
    try:
        features = _convert_tsv(tsv, conversion, output_mode, processes)
    except KeyboardInterrupt as stopped:  # who has stopped it need not wade through what was called
        raise stopped.with_traceback(None) from None
    rate = len(features) / (time.perf_counter() - start)
    save_features(features, pickled)
    print(f"{len(features):,} examples converted ({rate:,.0f} a second) and saved to {pickled}")
    return features
