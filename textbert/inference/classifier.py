"""An archive of a fine-tuned BERT in use: from texts to answers, in memory or file to file."""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from textbert.data.labels import find_moved_label
from textbert.data.normalization import find_hashed
from textbert.data.splits import split_train_validation
from textbert.data.tsv import read_task_info
from textbert.evaluation.calibration import describe_calibration, fit_calibration, format_threshold, probabilities
from textbert.evaluation.metrics import choose_threshold
from textbert.features.conversion import convert_pairs
from textbert.features.features import IGNORE_INDEX
from textbert.features.tokenization import TokenizationConfig
from textbert.inference.source_table import SourceTable
from textbert.inference.target_file import FORMAT, TargetFile, output_columns
from textbert.model.config import VOCABULARY, merge_settings
from textbert.model.loading import build_model, build_tokenizer
from textbert.model.prediction import predict_logits
from textbert.model.sources import load_model_files
from textbert.utils.display import progress_bar
from textbert.utils.errors import translate_read_errors, translate_write_errors
from textbert.utils.files import check_file, exclusive_lock, is_file, is_folder
from textbert.utils.validation import as_1d_arrays, check_positive_int, check_type


def _take_texts(texts):
    """Return texts in a row as a list; TypeError for what is no row of texts, or holds what is no text."""
    kinds = {
        str | bytes | bytearray: "put it into a list",
        pd.DataFrame: 'give one of its columns, such as table["text"]',
        Mapping: "give a list of its texts",
        set | frozenset: "it has no order: give a list",
        os.PathLike | io.IOBase: "read its texts, or use predict_file",
    }
    remedies = [remedy for kind, remedy in kinds.items() if isinstance(texts, kind)]
    if not isinstance(texts, Iterable) or getattr(texts, "ndim", 1) != 1:
        remedies.append("a text for each answer is needed")
    if remedies:
        shown = repr(texts)[:50] if not isinstance(texts, pd.DataFrame) else "with a shape of " + str(texts.shape)
        raise TypeError(
            f"texts must be a list of texts (or a Series, an array, an iterator), but is a {type(texts).__name__}, "
            f"{shown}: {remedies[0]}"
        )
    texts = list(texts)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {row} is {text!r}, but must be a string; '' if there is none")
    return texts


def _use_one_thread():
    """torch's threads do not survive a fork: what waits for them would wait for ever."""
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_use_one_thread)


class Classifier:
    """A fine-tuned BERT with all that is needed to classify texts: `Classifier.load(archive)`.

    `settings` are what training has decided; `validation` is a DataFrame with the columns id, label, logit_0 and
    logit_1 of the texts it decided on, and `seen` an array of the digests of all texts that training has looked at;
    each is None if the archive has none. `path` is where it was loaded from.
    """

    def __init__(self, model, tokenizer, settings, validation=None, seen=None, path=None):
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self.validation = validation
        self.seen = seen
        self.path = path

    @classmethod
    def load(
        cls,
        archive_path,
        device=None,
        threshold=None,
        temperature=None,
        max_seq_length=None,
        label_names=None,
        vocabulary=None,
    ):
        """Load an archive that train.ipynb packed, or the folder that it was packed from.

        device : a torch device; None takes a GPU if there is one
        threshold : the probability from which on the positive class is said; None takes the archive's
        temperature : what logits are divided by; None takes the archive's
        max_seq_length, label_names, vocabulary : what an archive of the 2019 guide does not know: the length its texts
            were cut at, the names of the classes 0 and 1, and the path of its vocab.txt, if that is not in the archive

        Raises FileNotFoundError, and ValueError for an archive that is none, holds a BERT that was not fine-tuned, or
        says itself what was given.
        """
        if not is_folder(archive_path):
            check_file(archive_path, "train.ipynb makes it")
        files = load_model_files(archive_path)
        if vocabulary is not None:
            if VOCABULARY in files.contents:
                raise ValueError(f"{archive_path} already has a {VOCABULARY}; remove that argument")
            check_file(vocabulary, "the 2019 guide saved it beside its model")
            with translate_read_errors(vocabulary):
                files = replace(files, contents={**files.contents, VOCABULARY: Path(vocabulary).read_bytes()})
        model = build_model(files, num_labels=2)
        arguments = {"threshold": threshold, "temperature": temperature}
        arguments |= {"max_seq_length": max_seq_length, "label_names": label_names}
        overrides = {n: v.item() if isinstance(v, np.generic) else v for n, v in arguments.items() if v is not None}
        settings = merge_settings(files.config, overrides, files.source)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        validation, seen = files.validation, files.training_hashes
        return cls(model.to(device).eval(), build_tokenizer(files), settings, validation, seen, files.source)

    def describe(self):
        """Return in sentences, a list, when it was trained, on how much, and how its answers come about."""
        settings = self.settings
        trained = "Nothing is known of its training."
        if {"trained", "training_rows", "best_epoch"} <= settings.keys():
            trained = f"Trained {settings['trained']} on {settings['training_rows']:,} rows; "
            trained += f"epoch {settings['best_epoch']} was kept."
        threshold = format_threshold(settings["threshold"])
        decides = f"The answer is {settings['label_names'][1]!r} from a probability of {threshold} upwards."
        return [trained, decides, *describe_calibration(settings, self.validation)]

    def recompute_validation(self, examples, share=0.1, seed=42, refit=False):
        """Give a model whose archive has no validation part, as those of 2019, the one that train.ipynb would draw.

        Returns a sentence about it. `examples` are the InputExamples of train.tsv, `share` and `seed` are as in
        train.ipynb. With `refit` temperature and threshold are fitted on that part.
        """
        texts, labels = [example.text_a for example in examples], [int(example.label) for example in examples]
        rows = split_train_validation(texts, labels, share, seed)[1]
        logits = predict_logits(self.model, self.convert([texts[row] for row in rows]), 32)
        truth = np.array(labels)[rows]
        self.validation = pd.DataFrame({"id": [examples[row].guid for row in rows], "label": truth})
        self.validation[["logit_0", "logit_1"]] = logits
        if refit:
            temperature, intercept = fit_calibration(logits, truth)
            threshold, _ = choose_threshold(probabilities(logits, temperature, intercept)[:, 1], truth, seed=seed)
            self.settings |= {"temperature": temperature, "threshold": threshold, "intercept": intercept}
        taken = f"{len(rows):,} texts of train.tsv serve as validation part"
        if refit:
            taken += f"; temperature {temperature:.2f} and threshold {format_threshold(threshold)} were fitted on them"
        return f"{taken}. If its training has seen them, it looks better and surer there than it is"

    def check_labels(self, data_dir):
        """Compare the classes, their names and labels, with `labels.json` in a folder; return a sentence about it.

        Raises ValueError if there 0 and 1 are other classes than in this model's training.
        """
        info = read_task_info(data_dir)
        ours, theirs = self.settings["label_names"], info["label_names"]
        path = Path(data_dir, "labels.json")
        if not is_file(path):
            return f"There is no {path}: that 0 is {ours[0]!r} and 1 is {ours[1]!r} cannot be checked."
        if ours != theirs:
            raise ValueError(
                f"{path} says 0 is {theirs[0]!r} and 1 is {theirs[1]!r}, but {self.path} was trained with 0 as "
                f"{ours[0]!r} and 1 as {ours[1]!r}: run train.ipynb again, or data_prep.ipynb as it was run before it"
            )
        if label := find_moved_label(self.settings.get("classes"), info["classes"]):
            raise ValueError(
                f"{path} and {self.path} have the same names, but the label {label!r} is now in the other class: run "
                "train.ipynb again, or data_prep.ipynb with CLASSES as before it"
            )
        return f"{path} and {self.path} have the same classes."

    def exclude_training_texts(self, texts, labels, source):
        """Return (the rows of texts that training has not looked at, as a sorted array, a sentence about them).

        Texts are compared by `normalize_text`; labels are 0 and 1, of shape (n,); messages call the file `source`. All
        rows are returned if the archive has no digests; the sentence says that nothing could be checked. Raises
        ValueError if half of the texts were seen, or what is left has one class.
        """
        texts, labels = as_1d_arrays(np.array(list(texts), object), labels)
        if self.seen is None:
            return np.arange(len(texts)), (
                f"whether training has seen them cannot be checked, for {self.path} is of a time before it noted that: "
                "train again with train.ipynb to know"
            )
        seen = find_hashed(texts, self.seen)
        rows, count = np.flatnonzero(~seen), int(seen.sum())
        of = f"of the {len(texts):,} texts of {source}"
        counted = f"{count:,} {of} were in the training of {self.path}"
        if 2 * count >= len(texts) or len(set(labels[rows].tolist())) < 2:
            remedy = "run train.ipynb again (after data_prep.ipynb with CLEAN_TRAIN = True if two files share texts)"
            raise ValueError(f"{counted}, so that too few are left to judge it by: {remedy}")
        return rows, f"{counted} and are left out" if count else f"it has seen none {of} in training"

    def predict(self, texts, batch_size=128, progress=True):
        """Classify texts.

        Returns a DataFrame with a row for each text, in order: `label`, the name of the class, and `probability`, that
        of the positive class. `texts` is a list, tuple, array, Series (whose index the answers carry) or iterator of
        strings. Raises TypeError for anything else, such as a single string or a DataFrame, or for what is no string in
        it, and ValueError for a `batch_size` (at most so many texts at once) that is not a positive integer.
        """
        check_positive_int("batch_size", batch_size)
        answers = self.predict_features(self.convert(texts, progress), batch_size, progress)
        return answers.set_axis(texts.index) if isinstance(texts, pd.Series) else answers

    def predict_table(self, table, text_column="text", batch_size=128, progress=True):
        """Classify the texts in a column of a DataFrame; return a copy of it with the two columns of `predict` added.

        Each row has its own answer, whatever its index. The columns are called `predicted_label` and
        `predicted_probability` if the table has one of the names of `predict`. Raises ValueError if it has all of them,
        or if it has no such column, or two, TypeError for what is no DataFrame, and what `predict` raises.
        """
        check_type("table", table, pd.DataFrame, "pandas")
        if list(table.columns).count(text_column) != 1:
            columns = ", ".join(map(repr, table.columns))
            raise ValueError(f"expected one column {text_column!r}, got the columns {columns}")
        answers = self.predict(table[text_column], batch_size, progress)
        return table.assign(
            **dict(zip(output_columns(table.columns, "the table"), (answers[c].array for c in answers)))
        )

    def predict_features(self, features, batch_size=128, progress=True):
        """Classify what `convert` returns; the result is that of `predict`."""
        return self.decide(predict_logits(self.model, features, batch_size, progress=progress))

    def convert(self, texts, progress=False):
        """Convert texts to the Features that this model was trained on."""
        texts = _take_texts(texts)
        conversion = TokenizationConfig(self.tokenizer, self.settings["max_seq_length"], self.settings["truncation"])
        labels = np.full(len(texts), IGNORE_INDEX, "<i4")
        return convert_pairs(conversion, [(text, None) for text in texts], labels, progress=progress)

    def predict_file(
        self,
        source,
        target,
        text_column="text",
        batch_rows=5000,
        batch_size=128,
        progress=True,
        encoding="utf-8",
        header=None,
    ):
        """Classify the texts of a CSV or TSV file of any size; return how many rows there are.

        source : the file, compressed or not (`.gz`, `.zip` and the like); how it is written is found as in
            data_prep.ipynb, and all of it is checked before the work
        target : a file called `.csv` or `.tsv`, in UTF-8, with all columns of the source, and `label` and `probability`
            (six decimals), which are called `predicted_label` and `predicted_probability` if the source has one of
            these. All texts are quoted
        text_column : a name or a number from 0. Without a column "text" it is the one that the training's texts were in
        header : whether the first row names the columns. None finds out, and refuses a file for which `text_column` is
            a number and the first row may be either. Without a header the target's columns have their numbers as names

        An empty text, or one of which BERT reads nothing, has an empty label and probability. The last lines that are
        printed say how many these are, and how many texts were too long or are of words that the model does not know.

        The target appears when all is done; until then `<target>.part` grows by `batch_rows` rows at a time.
        Interrupted, the same call goes on there, and ends in the same file. What takes longer than some hours is a case
        for several processes: see docs/many-machines.md.

        Raises FileNotFoundError, WriteError, and ValueError for a file that is not such a table, a target that
        cannot be written, or a size that is not a positive integer.
        """
        source = Path(source)
        check_file(source, "predict_file reads a CSV or TSV file")
        check_positive_int("batch_rows", batch_rows)
        check_positive_int("batch_size", batch_size)
        file = TargetFile(Path(target), source)
        table = SourceTable.open(source, encoding, text_column, header, self.settings.get("text_column"))
        added = output_columns(table.header, source)
        fingerprint = self._get_fingerprint(table, encoding, batch_rows, batch_size)
        with exclusive_lock(file.path, 0, "wait until it is done"), translate_write_errors(file.part):
            done, counts = file.resume(fingerprint)
            with progress_bar(table.count, "Predicting", " rows", progress) as bar:
                self._append_answers(table, file, fingerprint, done, counts, (batch_rows, batch_size), bar)
            table.require_unchanged()
            file.finish()
        before = f", {done:,} of them before" if done else ""
        print(f"{table.count:,} texts classified in {target}: {' and '.join(added)}{before}")
        self._say_counts(counts, table.count)
        return table.count

    def _append_answers(self, table, target, fingerprint, done, counts, sizes, bar):
        """Write the rows of a table that are not `done`, with their answers, to the target's part; add to `counts`."""
        (batch_rows, batch_size), read, rows = sizes, 0, table.read_rows()
        with open(target.part, "ab") as file:
            if not done:
                target.write(file, [[*table.header, *output_columns(table.header, table.path)]])
            while chunk := list(islice(rows, batch_rows)):
                read += len(chunk)
                bar.update(len(chunk))
                if read <= done:
                    continue
                features = self.convert([row[table.column] for row in chunk])
                predicted = self.predict_features(features, batch_size, progress=False).round(6)
                answers = zip(chunk, predicted.itertuples(index=False), features.lengths > 2)
                target.write(file, ([*row, *(answer if is_read else ("", ""))] for row, answer, is_read in answers))
                counts.update(self._count_unread(features))
                target.save_progress(fingerprint, read, file.tell(), counts)

    def _count_unread(self, features):
        """Count the texts that are empty, that fill what the model reads, and that are mostly [UNK]: a dict."""
        unknown = np.add.reduceat(features.ids == self.tokenizer.vocab["[UNK]"], features.offsets[:-1], dtype=int)
        pieces = features.lengths.astype(int) - 2  # without [CLS] and [SEP]
        found = {"empty": pieces == 0, "full": features.lengths == features.max_seq_length}
        found["unknown"] = 2 * unknown > pieces
        return {name: int(which.sum()) for name, which in found.items()}

    def _say_counts(self, counts, rows):
        """Print how many texts got no answer, or one that rests on a part of them."""
        if counts["empty"]:
            print(f"  {counts['empty']:,} are empty, or have nothing that BERT reads: so are their answers")
        if counts["full"]:
            longest = self.settings["max_seq_length"]
            print(f"  {counts['full']:,} fill the {longest} tokens that the model reads: what a text has beyond is cut")
        if counts["unknown"] > 0.01 * rows:
            print(f"  {counts['unknown']:,} are mostly [UNK], words that the model does not know: do not rely on these")

    def _get_fingerprint(self, table, *options):
        """Return a SHA-256 of all that decides what `predict_file` writes."""
        basic = self.tokenizer.basic_tokenizer
        about = [FORMAT, table.digest, table.column, table.header, table.has_header, *options, self.settings]
        about += [self.model.config.to_dict(), list(self.tokenizer.vocab.items())]
        about += [basic.do_lower_case, basic.never_split, self.tokenizer.wordpiece_tokenizer.max_input_chars_per_word]
        digest = hashlib.sha256(json.dumps(about, default=str).encode())  # str: settings may be numbers of numpy
        for name, tensor in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def decide(self, logits):
        """Turn logits of shape (n, 2) into the DataFrame of `predict`."""
        positive = probabilities(logits, self.settings["temperature"], self.settings.get("intercept", 0.0))[:, 1]
        said = (positive >= self.settings["threshold"]).astype(int)
        return pd.DataFrame({"label": pd.Index(self.settings["label_names"])[said], "probability": positive})
