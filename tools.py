"""Binary text classification with BERT: the front door of the package `textbert`, for notebooks and other projects.

Here stand the examples and how they become features; everything else is handed on from the rooms behind. Nothing runs
on import. Model and tokenizer are those of pytorch-pretrained-bert 0.6.2.
"""

import csv
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np

from textbert.archive import get_archive_path, pack_model, require_replaceable, save_seen, write_archive
from textbert.batches import Plan, make_batch, plan_batches, predict_logits
from textbert.bert import copy_weights, load_model, load_tokenizer, reset_pooler, save_model, speed_up
from textbert.checkpoints import Checkpoint, Trials, get_checkpoint_path, get_identity, remove_checkpoint, training_lock
from textbert.classifier import Classifier
from textbert.devices import (
    get_environment,
    main_process_first,
    make_accelerator,
    pick_precision,
    predict_shared,
    sum_over_processes,
    take_share,
    tracked,
)
from textbert.display import describe_seconds, progress_bar, show_figure
from textbert.features import (
    UNLABELLED,
    Features,
    InputFeatures,
    get_fingerprint,
    label_ids,
    load_features,
    load_if_current,
    require_same_rows,
    require_texts,
    save_features,
)
from textbert.files import (
    CannotWriteError,
    atomic_write,
    exclusive_lock,
    hash_file,
    require_disk_space,
    require_encoding,
    require_file,
    write_text,
)
from textbert.measures import choose_threshold, fit_temperature, get_eval_report, probabilities
from textbert.parameters import (
    DEFAULT_MODEL,
    MAX_POSITIONS,
    PRETRAINED_MODELS,
    TRUNCATIONS,
    check_parameters,
    get_deciding,
)
from textbert.splits import digest_text, pick_rows, split_folds, split_train_validation
from textbert.stages import Stages
from textbert.training import Run, get_class_weights, make_optimizer, make_schedule
from textbert.tsv import TsvPart, clean_text, read_label_names, read_lines, write_task, write_tsv
from textbert.vectors import moved_words
from textbert.wordpieces import Conversion, WordPieceMemo, count_word_pieces, encode_alone
from textbert.workers import convert_batches, convert_pairs, may_start_workers, worker_pool

__all__ = [
    "DEFAULT_MODEL",
    "MAX_POSITIONS",
    "PRETRAINED_MODELS",
    "TRUNCATIONS",
    "UNLABELLED",
    "atomic_write",
    "BinaryClassificationProcessor",
    "CannotWriteError",
    "check_parameters",
    "Checkpoint",
    "choose_threshold",
    "Classifier",
    "clean_text",
    "Conversion",
    "convert_example_to_feature",
    "convert_examples_to_features",
    "copy_weights",
    "count_word_pieces",
    "DataProcessor",
    "describe_seconds",
    "digest_text",
    "exclusive_lock",
    "Features",
    "fit_temperature",
    "get_archive_path",
    "get_checkpoint_path",
    "get_class_weights",
    "get_deciding",
    "get_environment",
    "get_eval_report",
    "get_fingerprint",
    "get_identity",
    "hash_file",
    "InputExample",
    "InputFeatures",
    "load_features",
    "load_model",
    "load_or_convert_features",
    "load_tokenizer",
    "main_process_first",
    "make_accelerator",
    "make_batch",
    "make_optimizer",
    "make_schedule",
    "moved_words",
    "pack_model",
    "pick_precision",
    "pick_rows",
    "Plan",
    "plan_batches",
    "predict_logits",
    "predict_shared",
    "probabilities",
    "progress_bar",
    "read_label_names",
    "remove_checkpoint",
    "require_disk_space",
    "require_encoding",
    "require_file",
    "require_replaceable",
    "require_same_rows",
    "reset_pooler",
    "Run",
    "save_features",
    "save_model",
    "save_seen",
    "show_figure",
    "speed_up",
    "split_folds",
    "split_train_validation",
    "Stages",
    "sum_over_processes",
    "take_share",
    "tracked",
    "training_lock",
    "Trials",
    "WordPieceMemo",
    "write_archive",
    "write_text",
    "write_task",
    "write_tsv",
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
        """Yield the InputExamples of one TSV file.

        Raises FileNotFoundError, and ValueError (file, line, value, rule) for bytes that are not UTF-8, a line without
        four columns, a label other than 0 and 1 (in regression: one that is no number), or an empty file or one class.
        """
        counts = Counter()
        for number, fields in read_lines(path):
            if len(fields) != 4:
                raise ValueError(
                    f"{path}, line {number} has {len(fields)} columns, but must have four, separated by tabs: "
                    "id, label, the letter a, text. data_prep.ipynb writes such a file"
                )
            guid, label, _, text = fields
            if not self._is_label(label, output_mode):
                header = ". It looks like a header: delete that line" if number == 1 else ""
                known = " or ".join(self.get_labels())
                raise ValueError(
                    f"{path}, line {number} has the label {label[:50]!r}, but it must be {known} (in regression a "
                    f"number); data_prep.ipynb turns 1 and 2 into 0 and 1{header}"
                )
            counts[label] += 1
            yield InputExample(guid, text, label=label)
        if output_mode == "classification" and len(counts) < 2:
            raise ValueError(
                f"{path} has {counts.total()} examples with the labels {list(counts)}, but both "
                f"{' and '.join(self.get_labels())} are needed: "
                "nothing can be learned or measured with one class"
            )
        if not counts:
            raise ValueError(f"{path} is empty: data_prep.ipynb writes a line for each text")

    def _is_label(self, label, output_mode):
        if output_mode == "classification":
            return label in self.get_labels()
        try:
            return np.isfinite(float(label))
        except ValueError:
            return False


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
    examples : InputExamples, a list or an iterator; a label of None becomes `UNLABELLED` (in regression NaN)
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
    require_texts(examples)
    pairs = [(example.text_a, example.text_b) for example in examples]
    labels = label_ids(examples, label_map, output_mode)
    return convert_pairs(Conversion(tokenizer, max_seq_length, truncation), pairs, labels, processes, progress)


def convert_example_to_feature(example_row):
    """Convert one example; `example_row` is (example, label_map, max_seq_length, tokenizer, output_mode).

    Returns the InputFeatures that `convert_examples_to_features` gives for it.
    """
    example, label_map, max_seq_length, tokenizer, output_mode = example_row
    require_texts([example])
    labels = label_ids([example], label_map, output_mode)
    conversion = Conversion(tokenizer, max_seq_length)
    conversion.require_sound(pairs=example.text_b is not None)
    ids, first = encode_alone(conversion, example.text_a, example.text_b)
    return Features(ids, np.array([len(ids)]), np.array([first]), labels, max_seq_length)[0]


def _convert_tsv(tsv, conversion, output_mode, processes):
    """Return the Features of a TSV file; every line is checked before the work begins.

    Of a large file it is known that workers are worth their start-up: they start while it is checked. The texts are
    read again where they are encoded, and never all kept.
    """
    processor, parts = BinaryClassificationProcessor(), TsvPart.split(tsv)
    label_map = {label: i for i, label in enumerate(processor.get_labels())}
    many = (processes or joblib.cpu_count()) if may_start_workers() else 1
    with worker_pool(conversion, many) if many > 1 and len(parts) > TsvPart.MANY else nullcontext() as pool:
        fingerprint = get_fingerprint(tsv, conversion, output_mode)
        labels = label_ids(processor.read_examples(tsv, output_mode), label_map, output_mode)
        require_disk_space(tsv.parent, len(labels) * (4 * conversion.max_seq_length + 12))
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
    conversion = Conversion(tokenizer, max_seq_length, truncation)
    require_file(tsv, "data_prep.ipynb makes it")
    conversion.require_sound()
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
