"""Prediction for a file of any size, a few thousand rows at a time; an interrupted run is resumed."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pandas as pd
import torch
from pytorch_pretrained_bert import BertForSequenceClassification, BertTokenizer

from textbert.data.columns import TextColumns, join_texts
from textbert.features.features import Features
from textbert.inference.source_table import SourceTable
from textbert.inference.target_file import FORMAT, TargetFile, output_columns
from textbert.utils.display import progress_bar
from textbert.utils.errors import translate_write_errors
from textbert.utils.files import check_file, exclusive_lock
from textbert.utils.validation import check_positive_int


class FeatureClassifier(Protocol):
    """The part of `Classifier` that `predict_file` uses; it is described there."""

    model: BertForSequenceClassification
    tokenizer: BertTokenizer
    settings: dict[str, Any]

    def convert(self, texts: Any, progress: bool = False) -> Features:
        """Convert texts to features."""

    def predict_features(self, features: Features, batch_size: int = 128, progress: bool = True) -> pd.DataFrame:
        """Return a label and a probability for each example."""


def predict_file(
    classifier: FeatureClassifier,
    source: str | Path,
    target: str | Path,
    text_column: TextColumns = "text",
    batch_rows: int = 5000,
    batch_size: int = 128,
    progress: bool = True,
    encoding: str = "utf-8",
    header: bool | None = None,
) -> int:
    """Classify the texts of a table and write it with two more columns; see `Classifier.predict_file`.

    Four steps: check the source from its first row to its last, find out how far an earlier run got
    (`TargetFile.resume`), classify what is left, and rename the result to `target`.
    """
    source = Path(source)
    check_file(source, "predict_file reads a CSV or TSV file")
    check_positive_int("batch_rows", batch_rows)
    check_positive_int("batch_size", batch_size)
    file = TargetFile(Path(target), source)
    table = SourceTable.open(source, encoding, text_column, header, classifier.settings.get("text_column"))
    added = output_columns(table.header, source, "review_range" in classifier.settings)
    fingerprint = get_prediction_fingerprint(classifier, table, encoding, batch_rows, batch_size)
    with exclusive_lock(file.path, 0, "wait until it is done"), translate_write_errors(file.partial_path):
        rows_done, counts = file.resume(fingerprint)
        bar = progress_bar(table.count, "Predicting", " rows", progress)
        with bar, open(file.partial_path, "ab") as partial:
            if not rows_done:
                file.write(partial, [[*table.header, *added]])
            rows_read = 0
            for chunk in _chunks(table, batch_rows):
                rows_read += len(chunk)
                bar.update(len(chunk))
                if rows_read > rows_done:
                    counts.update(_predict_chunk(classifier, chunk, table.columns, batch_size, file, partial))
                    file.save_progress(fingerprint, rows_read, partial.tell(), counts)
        table.check_unchanged()
        file.finish()
    resumed = f", {rows_done:,} of them in an earlier run" if rows_done else ""
    print(f"{table.count:,} texts classified in {target}: {' and '.join(added)}{resumed}")
    _print_counts(counts, table.count, classifier.settings["max_seq_length"])
    return table.count


def _chunks(table: SourceTable, size: int) -> Iterator[list[list[str]]]:
    """Yield the rows of a table as lists of at most `size`."""
    rows = table.read_rows()
    while chunk := list(islice(rows, size)):
        yield chunk


def _predict_chunk(
    classifier: FeatureClassifier,
    rows: list[list[str]],
    text_columns: list[int],
    batch_size: int,
    target: TargetFile,
    partial: IO[bytes],
) -> dict[str, int]:
    """Classify some rows and write them with their predictions; return the counts of `_count_unreliable`."""
    features = classifier.convert([join_texts([row[column] for column in text_columns]) for row in rows])
    predictions = classifier.predict_features(features, batch_size, progress=False).round(6)
    has_tokens = features.lengths > 2  # besides [CLS] and [SEP]
    unreadable = ["", "", True][: predictions.shape[1]]  # a person reads them
    target.write(
        partial,
        (
            [*row, *(prediction if readable else unreadable)]
            for row, prediction, readable in zip(rows, predictions.itertuples(index=False), has_tokens)
        ),
    )
    reviews = predictions["review"][has_tokens].sum() if "review" in predictions else 0
    return {"review": int(reviews), **_count_unreliable(features, classifier.tokenizer.vocab["[UNK]"])}


def _count_unreliable(features: Features, unknown_id: int) -> dict[str, int]:
    """Count the texts that are empty, that fill all the tokens that the model reads, and that are mostly [UNK]."""
    tokens = features.lengths.astype(int) - 2  # without [CLS] and [SEP]
    unknown = np.add.reduceat(features.ids == unknown_id, features.offsets[:-1], dtype=int)
    return {
        "empty": int((tokens == 0).sum()),
        "full": int((features.lengths == features.max_seq_length).sum()),
        "unknown": int((2 * unknown > tokens).sum()),
    }


def _print_counts(counts: Counter, rows: int, max_seq_length: int) -> None:
    """Print how many texts got no prediction, or one based on only part of the text."""
    if counts["review"]:
        print(f"  {counts['review']:,} are left to a person: their column review is True")
    if counts["empty"]:
        print(f"  {counts['empty']:,} are empty, or contain nothing that BERT reads: their predictions are empty, too")
    if counts["full"]:
        print(f"  {counts['full']:,} fill the {max_seq_length} tokens that the model reads: the rest is truncated")
    if counts["unknown"] > 0.01 * rows:
        print(f"  {counts['unknown']:,} are mostly [UNK], words unknown to the model: do not rely on their predictions")


def get_prediction_fingerprint(classifier: FeatureClassifier, table: SourceTable, *options: Any) -> str:
    """Return the SHA-256 of everything that affects the output of `predict_file`: table, model, settings, options."""
    tokenizer = classifier.tokenizer
    basic, settings = tokenizer.basic_tokenizer, classifier.settings
    inputs = [FORMAT, table.digest, table.columns, table.header, table.has_header, *options, settings]
    inputs += [classifier.model.config.to_dict(), list(tokenizer.vocab.items())]
    inputs += [basic.do_lower_case, basic.never_split, tokenizer.wordpiece_tokenizer.max_input_chars_per_word]
    digest = hashlib.sha256(json.dumps(inputs, default=str).encode())  # str: settings may be numpy numbers
    for name, tensor in classifier.model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
