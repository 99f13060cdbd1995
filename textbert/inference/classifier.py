"""`Classifier`: a fine-tuned BERT with its tokenizer and settings, from texts to labels and probabilities."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_pretrained_bert import BertForSequenceClassification, BertTokenizer

from textbert.data.columns import TextColumns
from textbert.data.labelled_texts import LabelledTexts
from textbert.data.labels import find_moved_label
from textbert.data.normalization import find_hashed
from textbert.data.splits import split_train_validation
from textbert.data.tsv import read_task_info
from textbert.evaluation.calibration import describe_calibration, fit_calibration, format_threshold, probabilities
from textbert.evaluation.metrics import choose_threshold
from textbert.evaluation.review import needs_review
from textbert.features.conversion import convert_pairs
from textbert.features.features import IGNORE_INDEX, Features
from textbert.features.tokenization import TokenizationConfig
from textbert.inference.file_prediction import predict_file
from textbert.inference.mixed_precision import PRECISIONS, copy_to_bfloat16, predict_twice
from textbert.inference.target_file import output_columns
from textbert.inference.texts import take_texts, validate_texts
from textbert.model.config import VOCABULARY, merge_settings
from textbert.model.loading import build_model, build_tokenizer
from textbert.model.prediction import predict_logits
from textbert.model.sources import load_model_files
from textbert.utils.errors import translate_read_errors
from textbert.utils.files import check_file, is_file, is_folder
from textbert.utils.validation import as_1d_arrays, check_positive_int, check_type, find_violation, one_of


class Classifier:
    """A fine-tuned BERT with all that is needed to classify texts. Load one with `Classifier.load(archive)`.

    Attributes
    ----------
    model : BertForSequenceClassification, in evaluation mode
    tokenizer : BertTokenizer
    settings : dict of what training determined: max_seq_length, truncation, label_names, temperature, ...
    validation : DataFrame with the columns id, label, logit_0 and logit_1 of the held-out training texts, or None
    training_hashes : sorted int64 array of the hashes of all training and validation texts, or None
    path : the archive or folder it was loaded from
    out_of_fold : DataFrame with text_hash, logit_0 and logit_1 of texts that a cross-validation held out, or None
    bfloat16_model : a copy of the model that predicts most texts, see `load`, or None
    """

    def __init__(
        self,
        model: BertForSequenceClassification,
        tokenizer: BertTokenizer,
        settings: dict[str, Any],
        validation: pd.DataFrame | None = None,
        training_hashes: np.ndarray | None = None,
        path: str | Path | None = None,
        out_of_fold: pd.DataFrame | None = None,
        precision: str = "float32",
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self.validation = validation
        self.training_hashes = training_hashes
        self.path = path
        self.out_of_fold = out_of_fold
        self.bfloat16_model = copy_to_bfloat16(model) if precision == "auto" else None

    @classmethod
    def load(
        cls,
        archive_path: str | Path,
        device: str | torch.device | None = None,
        threshold: float | None = None,
        temperature: float | None = None,
        max_seq_length: int | None = None,
        label_names: list[str] | None = None,
        vocabulary: str | Path | None = None,
        precision: str = "float32",
    ) -> "Classifier":
        """Load an archive that train.ipynb packed, or the folder that it was packed from.

        Parameters
        ----------
        archive_path : `.tar.gz` or folder
        device : torch device; None uses a GPU if there is one
        threshold : lowest probability at which the positive class is predicted; None uses the archive's
        temperature : number that logits are divided by; None uses the archive's
        max_seq_length, label_names, vocabulary : what an archive of the 2019 guide lacks: the length to which its texts
            were truncated, in tokens, the names of the classes 0 and 1, and the path of its vocab.txt unless that is in
            the archive
        precision : "auto" predicts in bfloat16 on CPUs with AMX, which takes half the time, and again in float32 those
            texts whose label or review could differ. Other probabilities differ by up to about 0.03

        Raises FileNotFoundError, and ValueError for a file that is not an archive, a BERT that was not fine-tuned, an
        invalid value, or one that the archive already stores.
        """
        if violation := find_violation(precision, one_of(*PRECISIONS)):
            raise ValueError(f"precision is {violation}, but must be {one_of(*PRECISIONS).description}")
        if not is_folder(archive_path):
            check_file(archive_path, "train.ipynb makes it")
        files = load_model_files(archive_path)
        if vocabulary is not None:
            if VOCABULARY in files.contents:
                raise ValueError(f"{archive_path} already has a {VOCABULARY}; remove the argument vocabulary")
            check_file(vocabulary, "the 2019 guide saved it beside its model")
            with translate_read_errors(vocabulary):
                files = replace(files, contents={**files.contents, VOCABULARY: Path(vocabulary).read_bytes()})
        model = build_model(files, num_labels=2)
        arguments: dict[str, Any] = {"threshold": threshold, "temperature": temperature}
        arguments |= {"max_seq_length": max_seq_length, "label_names": label_names}
        overrides = {n: v.item() if isinstance(v, np.generic) else v for n, v in arguments.items() if v is not None}
        settings = merge_settings(files.config, overrides, files.source)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        parts = files.validation, files.training_hashes, files.source, files.out_of_fold, precision
        return cls(model.to(device).eval(), build_tokenizer(files), settings, *parts)

    def describe(self) -> list[str]:
        """Return sentences: when it was trained, on how many rows, and how a prediction is made."""
        settings = self.settings
        trained = "Nothing is known of its training."
        if {"trained", "training_rows", "best_epoch"} <= settings.keys():
            trained = f"Trained {settings['trained']} on {settings['training_rows']:,} rows; "
            choice = f", chosen on {folds} held-out folds" if (folds := settings.get("validation_folds")) else ""
            trained += f"epoch {settings['best_epoch']} was kept{choice}."
        threshold = format_threshold(settings["threshold"])
        decision = f"{settings['label_names'][1]!r} is predicted from a probability of {threshold} upwards."
        return [trained, decision, *describe_calibration(settings, self.validation)]

    def recompute_validation(
        self, train: LabelledTexts, share: float = 0.1, seed: int = 42, refit: bool = False
    ) -> str:
        """Compute the validation set that train.ipynb would split off, for a model whose archive has none (as in 2019).

        `train` are the texts of train.tsv; `share`, a fraction of them, and `seed` are VALIDATION_SHARE and RANDOM_SEED
        in train.ipynb. With `refit` temperature, intercept and threshold are fitted on this set and kept in `settings`.
        Returns a sentence that says what was done.
        """
        rows = split_train_validation(train.texts, train.labels.tolist(), share, seed, train.groups)[1]
        held_out = train.select(rows)
        y_true = held_out.labels
        logits = predict_logits(self.model, self.convert(held_out.texts), 32)
        self.validation = pd.DataFrame({"id": held_out.ids, "label": y_true})
        self.validation[["logit_0", "logit_1"]] = logits
        sentence = f"{len(rows):,} texts of train.tsv serve as the validation set"
        if refit:
            temperature, intercept = fit_calibration(logits, y_true)
            threshold, _ = choose_threshold(probabilities(logits, temperature, intercept)[:, 1], y_true, seed=seed)
            self.settings |= {"temperature": temperature, "threshold": threshold, "intercept": intercept}
            sentence += f"; temperature {temperature:.2f} and threshold {format_threshold(threshold)} were fitted on it"
        return f"{sentence}. If the model was trained on them, it looks better and more confident there than it is"

    def check_labels(self, data_dir: str | Path) -> str:
        """Compare the names and labels of the classes with those of `labels.json` in a folder; return a sentence.

        Raises ValueError if 0 and 1 stand for different classes there than in this model's training.
        """
        info = read_task_info(data_dir)
        ours, theirs = self.settings["label_names"], info["label_names"]
        path = Path(data_dir, "labels.json")
        if not is_file(path):
            return f"There is no {path}, so it cannot be checked that 0 is {ours[0]!r} and 1 is {ours[1]!r}."
        if ours != theirs:
            raise ValueError(
                f"{path} says 0 is {theirs[0]!r} and 1 is {theirs[1]!r}, but {self.path} was trained with 0 as "
                f"{ours[0]!r} and 1 as {ours[1]!r}: run train.ipynb again, or data_prep.ipynb as before training"
            )
        if label := find_moved_label(self.settings.get("classes"), info["classes"]):
            raise ValueError(
                f"{path} and {self.path} have the same names, but the label {label!r} is now in the other class: run "
                "train.ipynb again, or data_prep.ipynb with the same CLASSES as before training"
            )
        return f"{path} and {self.path} have the same classes."

    def exclude_training_texts(self, texts: Iterable[str], labels: Any, source: str | Path) -> tuple[np.ndarray, str]:
        """Return the rows of texts that the model was not trained on, a sorted array, and a sentence about them.

        The n texts are compared with the training texts after `normalize_text`; `labels` are 0 and 1, of shape (n,);
        `source` is the name of their file in messages. If the archive has no hashes, all rows are returned, and the
        sentence says that nothing could be checked. Raises ValueError if half of the texts or more were in the
        training, or if only one class is left.
        """
        text_array, labels = as_1d_arrays(np.array(list(texts), object), labels)
        if self.training_hashes is None:
            return np.arange(len(text_array)), (
                f"cannot check for training-set overlap: {self.path} was saved before hashes were recorded. Run "
                "train.ipynb again to record them"
            )
        is_training_text = find_hashed(text_array, self.training_hashes)
        rows, count = np.flatnonzero(~is_training_text), int(is_training_text.sum())
        of_source = f"of the {len(text_array):,} texts of {source}"
        counted = f"{count:,} {of_source} were in the training of {self.path}"
        if 2 * count >= len(text_array) or len(set(labels[rows].tolist())) < 2:
            hint = "run train.ipynb again (after data_prep.ipynb with CLEAN_TRAIN = True if two files share texts)"
            raise ValueError(f"{counted}, so too few are left to evaluate it on: {hint}")
        return rows, f"{counted} and are left out" if count else f"the model was trained on none {of_source}"

    def predict(self, texts: Iterable[str], batch_size: int = 128, progress: bool = True) -> pd.DataFrame:
        """Classify texts.

        `texts` are n strings: a list, tuple, array, Series or iterator. The model reads at most `batch_size` at once.

        Returns a DataFrame with n rows in the order of the texts: `label`, the name of the class; `probability`, that
        of the positive class; and, if the model was trained with a TARGET_ACCURACY, `review`, which is True where a
        person should decide. Predictions for a Series carry its index.

        Raises TypeError for anything else, such as a single string or a DataFrame, or an element that is no string, and
        ValueError for a batch_size that is not a positive integer.
        """
        check_positive_int("batch_size", batch_size)
        predictions = self.predict_features(self.convert(texts, progress), batch_size, progress)
        return predictions.set_axis(texts.index) if isinstance(texts, pd.Series) else predictions

    def predict_table(
        self, table: pd.DataFrame, text_column: TextColumns = "text", batch_size: int = 128, progress: bool = True
    ) -> pd.DataFrame:
        """Classify the texts in a column of a DataFrame, or in a list of columns, joined as in training.

        Returns a copy with the columns of `predict`, called `predicted_label`, ... if the table has one of their names.
        Predictions are matched to rows by position, not by index.

        Raises
        ------
        TypeError : for a table that is not a DataFrame, and what `predict` raises
        ValueError : if the table has no such column, or two, or already has columns with the names to be added
        """
        check_type("table", table, pd.DataFrame, "pandas")
        texts = take_texts(table, text_column, self.settings.get("text_column"))
        names = output_columns(table.columns, "the table", "review_range" in self.settings)
        predictions = self.predict(texts, batch_size, progress)
        return table.assign(**{name: predictions[column].array for name, column in zip(names, predictions)})

    def predict_features(self, features: Features, batch_size: int = 128, progress: bool = True) -> pd.DataFrame:
        """Classify the features that `convert` returns; the result is that of `predict`."""
        models = self.model, self.bfloat16_model
        return self.predictions_from_logits(predict_twice(*models, features, batch_size, self.settings, progress))

    def convert(self, texts: Iterable[str], progress: bool = False) -> Features:
        """Convert texts to features, with the tokenizer, length and truncation of the model's training."""
        strings = validate_texts(texts)
        config = TokenizationConfig(self.tokenizer, self.settings["max_seq_length"], self.settings["truncation"])
        labels = np.full(len(strings), IGNORE_INDEX, "<i4")
        return convert_pairs(config, [(text, None) for text in strings], labels, progress=progress)

    def predictions_from_logits(self, logits: np.ndarray) -> pd.DataFrame:
        """Return the DataFrame of `predict` for logits of shape (n, 2)."""
        y_prob = probabilities(logits, self.settings["temperature"], self.settings.get("intercept", 0.0))[:, 1]
        predicted = (y_prob >= self.settings["threshold"]).astype(int)
        columns = {"label": pd.Index(self.settings["label_names"])[predicted], "probability": y_prob}
        if "review_range" in self.settings:
            columns["review"] = needs_review(y_prob, self.settings["review_range"])
        return pd.DataFrame(columns)

    def predict_file(
        self,
        source: str | Path,
        target: str | Path,
        text_column: TextColumns = "text",
        batch_rows: int = 5000,
        batch_size: int = 128,
        progress: bool = True,
        encoding: str = "utf-8",
        header: bool | None = None,
    ) -> int:
        """Classify the texts of a CSV or TSV file of any size.

        Parameters
        ----------
        source : the file, compressed or not (`.gz`, `.zip`, ...); its dialect is detected as in data_prep.ipynb, and
            the whole file is checked before the first text is classified
        target : a `.csv` or `.tsv` file, in UTF-8: all columns of the source, and those of `predict` (probabilities
            with six decimals), called `predicted_label`, ... if the source has a column with one of their names. All
            strings are quoted
        text_column : a name, or a number from 0; or a list of columns, whose texts are joined as in training. The
            default also finds the columns used in training if none is "text"
        batch_rows : how many rows are read, classified and written at a time
        batch_size : how many texts the model reads at once, at most
        progress : whether to show a progress bar
        encoding : of the source
        header : whether the first row has the names of the columns. None detects this, and raises ValueError if
            `text_column` is a number and the first row may be either. Without a header, the target's columns are named
            by their numbers

        Returns the number of rows. A text that is empty, or has nothing that BERT reads, gets an empty label and
        probability. Prints at the end how many there are of these, and how many texts were too long or consist mostly
        of words unknown to the model.

        The target appears when all rows are done; until then `<target>.part` grows. After an interruption, the same
        call resumes there and produces the same file. Divide jobs of many hours: see docs/many-machines.md.

        Raises FileNotFoundError, WriteError, and ValueError for a file that is not such a table, a target that cannot
        be written, or a batch_rows or batch_size that is not a positive integer.
        """
        return predict_file(
            self, source, target, text_column, batch_rows, batch_size, progress, encoding=encoding, header=header
        )
