"""Binary text classification with BERT: the public API of the package `textbert`, for notebooks and other projects.

Examples and their conversion to features are defined here; everything else is re-exported from the package, and what
the conversion does not need is imported when it is first used. Nothing runs on import. Model and tokenizer are those of
pytorch-pretrained-bert 0.6.2.
"""

import csv
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pytorch_pretrained_bert.tokenization import BertTokenizer

from textbert.data.tsv import TsvChunk, clean_text, read_groups, read_lines, read_tsv_rows
from textbert.features.batching import collate
from textbert.features.conversion import convert_batches, convert_pairs, may_start_workers, worker_pool
from textbert.features.examples import check_examples, encode_example_labels
from textbert.features.features import Features, InputFeatures
from textbert.features.lazy_tokenizer import get_twin
from textbert.features.storage import check_labels_match, get_fingerprint, load_features, load_if_current, save_features
from textbert.features.tokenization import TokenizationConfig, count_tokens, encode_pairs
from textbert.model.archive import get_archive_path, pack_model
from textbert.model.loading import clone_state_dict, load_model, load_tokenizer, reinitialize_pooler
from textbert.model.prediction import predict_logits
from textbert.utils.display import show_figure
from textbert.utils.files import check_disk_space, check_file
from textbert.utils.processes import main_process_first

if TYPE_CHECKING:  # at run time `__getattr__` imports these
    from textbert.data.folds import describe_split, split_or_fold
    from textbert.data.splits import split_train_validation, stratified_sample
    from textbert.evaluation.calibration import probabilities
    from textbert.evaluation.metrics import choose_threshold, get_eval_report
    from textbert.inference.classifier import Classifier
    from textbert.notebook.session import start_notebook
    from textbert.training.config import TrainingConfig
    from textbert.training.distributed import make_accelerator, predict_distributed
    from textbert.training.experiment import Experiment

__all__ = [
    "BinaryClassificationProcessor",
    "check_labels_match",
    "choose_threshold",
    "Classifier",
    "clean_text",
    "clone_state_dict",
    "collate",
    "convert_example_to_feature",
    "convert_examples_to_features",
    "count_tokens",
    "DataProcessor",
    "describe_split",
    "Experiment",
    "Features",
    "get_archive_path",
    "get_eval_report",
    "InputExample",
    "InputFeatures",
    "load_features",
    "load_model",
    "load_or_convert_features",
    "load_tokenizer",
    "make_accelerator",
    "pack_model",
    "predict_distributed",
    "predict_logits",
    "probabilities",
    "read_groups",
    "reinitialize_pooler",
    "save_features",
    "show_figure",
    "split_or_fold",
    "split_train_validation",
    "start_notebook",
    "stratified_sample",
    "TrainingConfig",
]

# from a name to its module, which is imported when the name is first used: the conversion needs none of these, and they
# import pandas and scikit-learn
LAZY_IMPORTS = {
    "choose_threshold": "textbert.evaluation.metrics",
    "Classifier": "textbert.inference.classifier",
    "describe_split": "textbert.data.folds",
    "Experiment": "textbert.training.experiment",
    "get_eval_report": "textbert.evaluation.metrics",
    "make_accelerator": "textbert.training.distributed",
    "predict_distributed": "textbert.training.distributed",
    "probabilities": "textbert.evaluation.calibration",
    "split_or_fold": "textbert.data.folds",
    "split_train_validation": "textbert.data.splits",
    "start_notebook": "textbert.notebook.session",
    "stratified_sample": "textbert.data.splits",
    "TrainingConfig": "textbert.training.config",
}

if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> Any:
        """Return an object of `LAZY_IMPORTS`, see PEP 562."""
        if name not in LAZY_IMPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(LAZY_IMPORTS[name]), name)


def __dir__() -> list[str]:
    """Return all names, for completion in an editor or a notebook."""
    return sorted({*globals(), *LAZY_IMPORTS})


@dataclass
class InputExample:
    """A text, or a pair of texts, with its label (None if it is unknown; in regression a number)."""

    guid: Any
    text_a: str
    text_b: str | None = None
    label: str | float | None = None


class DataProcessor:
    """Base class of processors, which turn a data set into lists of InputExample."""

    def get_train_examples(self, data_dir: str | Path) -> list[InputExample]:
        """Return the InputExamples for training."""
        raise NotImplementedError

    def get_dev_examples(self, data_dir: str | Path) -> list[InputExample]:
        """Return the InputExamples for evaluation."""
        raise NotImplementedError

    def get_labels(self) -> list[str]:
        """Return the list of labels, as strings."""
        raise NotImplementedError

    @classmethod
    def _read_tsv(cls, input_file: str | Path, quotechar: str | None = None) -> list[list[str]]:
        """Return the rows of a tab-separated file, each a list of fields; without a `quotechar` nothing is quoted."""
        if quotechar is None:
            return [fields for _, fields in read_lines(input_file)]
        with open(input_file, encoding="utf-8", newline="") as file:
            return list(csv.reader(file, delimiter="\t", quotechar=quotechar))


class BinaryClassificationProcessor(DataProcessor):
    """Processor of `train.tsv` and `dev.tsv`, whose columns are id, label (0 or 1), the letter a, and text."""

    def get_train_examples(self, data_dir: str | Path) -> list[InputExample]:
        """Return the InputExamples of `train.tsv`, see `read_examples`."""
        return self.get_examples(Path(data_dir, "train.tsv"))

    def get_dev_examples(self, data_dir: str | Path) -> list[InputExample]:
        """Return the InputExamples of `dev.tsv`, see `read_examples`."""
        return self.get_examples(Path(data_dir, "dev.tsv"))

    def get_labels(self) -> list[str]:
        """Return ["0", "1"]."""
        return ["0", "1"]

    def get_examples(self, path: str | Path, output_mode: str = "classification") -> list[InputExample]:
        """Return the InputExamples of a TSV file as a list, see `read_examples`."""
        return list(self.read_examples(path, output_mode))

    def read_examples(self, path: str | Path, output_mode: str = "classification") -> Iterator[InputExample]:
        """Yield the InputExamples of one TSV file; see `read_tsv_rows` for its errors."""
        for guid, label, text in read_tsv_rows(path, output_mode, self.get_labels()):
            yield InputExample(guid, text, label=label)


def convert_examples_to_features(
    examples: Iterable[InputExample],
    label_map: Mapping[Any, int] | None,
    max_seq_length: int,
    tokenizer: BertTokenizer,
    output_mode: str = "classification",
    processes: int | None = None,
    progress: bool = True,
    truncation: str = "head",
) -> Features:
    """Convert InputExamples to Features: [CLS] text [SEP], or [CLS] text [SEP] second text [SEP].

    The tokens are exactly those of the tokenizer, a pytorch-pretrained-bert BertTokenizer.

    Parameters
    ----------
    examples : InputExamples, a list or an iterator; a label of None becomes `IGNORE_INDEX` (in regression NaN)
    label_map : dict from label to integer; not used in regression
    max_seq_length : maximum number of tokens, including [CLS] and [SEP]; at most 512, or what the model allows
    output_mode : "classification" or "regression"
    processes : maximum number of processes; None uses more than one if starting them pays off
    progress : show a progress bar, if there is a notebook or a terminal to show it in
    truncation : what to keep of a text that is too long: its "head", its "tail", or "head+tail" (a quarter of the
        tokens from the head; Sun et al. 2019). Of a pair, the longer text is truncated first.

    Raises ValueError for an invalid argument, a text that is not a string or an unknown label, and BrokenExecutor (a
    RuntimeError) if a worker process was killed.
    """
    examples = list(examples)
    check_examples(examples)
    pairs = [(example.text_a, example.text_b) for example in examples]
    labels = encode_example_labels(examples, label_map, output_mode)
    return convert_pairs(TokenizationConfig(tokenizer, max_seq_length, truncation), pairs, labels, processes, progress)


def convert_example_to_feature(
    example_row: tuple[InputExample, Mapping[Any, int] | None, int, BertTokenizer, str],
) -> InputFeatures:
    """Convert one example; `example_row` is (example, label_map, max_seq_length, tokenizer, output_mode).

    Returns the same InputFeatures as `convert_examples_to_features`.
    """
    example, label_map, max_seq_length, tokenizer, output_mode = example_row
    check_examples([example])
    labels = encode_example_labels([example], label_map, output_mode)
    config = TokenizationConfig(get_twin(tokenizer), max_seq_length)
    config.validate(pairs=example.text_b is not None)
    ((ids, length_a),), dtype = encode_pairs(config, [(example.text_a, example.text_b)], "<u4")
    return InputFeatures.pad(np.frombuffer(ids, dtype).tolist(), length_a, labels[0].item(), max_seq_length)


def _convert_tsv(tsv: Path, config: TokenizationConfig, output_mode: str, processes: int | None) -> Features:
    """Convert a TSV file to Features, after every line has been checked.

    For a large file, worker processes, which pay off in any case, start during that check. The texts are read again
    when they are encoded, so they are never all in memory.
    """
    processor = BinaryClassificationProcessor()
    label_map = {label: i for i, label in enumerate(processor.get_labels())}
    chunks = TsvChunk.split(tsv)
    cores = 1
    if len(chunks) > TsvChunk.MIN_CHUNKS_FOR_WORKERS and may_start_workers():
        from joblib import cpu_count  # a slow import, and few files are that large

        cores = processes or cpu_count()
    with worker_pool(config, cores) if cores > 1 else nullcontext() as pool:
        fingerprint = get_fingerprint(tsv, config, output_mode)
        labels = encode_example_labels(processor.read_examples(tsv, output_mode), label_map, output_mode)
        check_disk_space(tsv.parent, len(labels) * (4 * config.max_seq_length + 12))
        features = convert_batches(config, chunks, labels, cores if pool else processes, pool)
    features.fingerprint = fingerprint
    return features


def load_or_convert_features(
    data_dir: str | Path,
    split: str,
    tokenizer: BertTokenizer,
    max_seq_length: int,
    truncation: str = "head",
    output_mode: str = "classification",
    processes: int | None = None,
) -> Features:
    """Return the Features of `<data_dir>/<split>.tsv`, cached in `<data_dir>/<split>_features.pkl`.

    The cache is used if its fingerprint shows that it was made from the same file with the same settings; otherwise the
    texts are converted and it is replaced. Prints which was done. If `torch.distributed` connects several processes,
    all of them must call this: the main process converts, the others read the cache. See `convert_examples_to_features`
    for the parameters and `BinaryClassificationProcessor` for the errors of the TSV file.
    """
    tsv, cache_path = Path(data_dir, f"{split}.tsv"), Path(data_dir, f"{split}_features.pkl")
    config = TokenizationConfig(tokenizer, max_seq_length, truncation)
    check_file(tsv, "data_prep.ipynb makes it")
    config.validate()
    with main_process_first():
        return _load_or_convert(tsv, cache_path, config, output_mode, processes)


def _load_or_convert(
    tsv: Path, cache_path: Path, config: TokenizationConfig, output_mode: str, processes: int | None
) -> Features:
    if features := load_if_current(cache_path, get_fingerprint(tsv, config, output_mode)):
        print(f"{len(features):,} features loaded from {cache_path}")
        return features
    start = time.perf_counter()
    try:
        features = _convert_tsv(tsv, config, output_mode, processes)
    except KeyboardInterrupt as error:  # a long traceback helps nobody
        raise error.with_traceback(None) from None
    rate = len(features) / (time.perf_counter() - start)
    save_features(features, cache_path)
    print(f"{len(features):,} examples converted ({rate:,.0f} a second) and saved to {cache_path}")
    return features
