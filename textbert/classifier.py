"""An archive of a fine-tuned BERT in use: from texts to answers, in memory or file to file."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Set
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from textbert.archive import SEEN, VOCABULARY, complete_settings, read_config, read_seen, read_validation
from textbert.batches import predict_logits
from textbert.bert import build_model, build_tokenizer
from textbert.delimited import count_rows, read_delimited, read_rows
from textbert.display import progress_bar
from textbert.features import UNLABELLED
from textbert.files import exclusive_lock, explain_writing, replace_file, require_file, write_text
from textbert.hub import read_bert
from textbert.measures import choose_threshold, describe_calibration, fit_calibration, probabilities
from textbert.packed import require_sound, require_text, split_suffixes
from textbert.parameters import require_count
from textbert.splits import digest_text, split_train_validation
from textbert.tsv import read_label_names
from textbert.wordpieces import Conversion
from textbert.workers import convert_pairs


def _find_text_column(header, text_column, source):
    """Return the position of the text column; ValueError if it is not there."""
    names = [name.strip() for name in header]
    if type(text_column) is int and 0 <= text_column < len(names):
        return text_column
    wanted = text_column.strip() if isinstance(text_column, str) else text_column
    if names.count(wanted) > 1:
        places = [i for i, name in enumerate(names) if name == wanted]
        raise ValueError(
            f"{source}: the name {wanted!r} is there twice: give its number, one of {places}, in text_column"
        )
    if wanted not in names:
        raise ValueError(
            f"{source} has no column {text_column!r}: set text_column to one of "
            f"{', '.join(map(repr, names))}, or to its number from 0"
        )
    return names.index(wanted)


def _name_answers(header, source):
    """Return the names of the two columns that are added; ValueError if all that might be are taken."""
    for names in (["label", "probability"], ["predicted_label", "predicted_probability"]):
        if not {name.strip() for name in header} & set(names):
            return names
    raise ValueError(f"{source} has columns of the names that would be added, {names[0]!r} and the like: rename them")


def _read_header(source, encoding, text_column):
    """Return (header, position of the text column, number of rows, Form) of a table; all of it is checked."""
    kind, compression = split_suffixes(source)
    if kind in (".xlsx", ".xls", ".parquet", ".jsonl", ".json"):
        raise ValueError(f"predict_file reads CSV and TSV, and {source} is neither: save the table as CSV (UTF-8)")
    if compression:
        require_sound(source)
    require_text(source, encoding, "encoding")
    (header, rows), form = read_delimited(source, kind, encoding, count_rows, "encoding")
    if header is None:
        raise ValueError(f"{source} is empty: it needs a header, and a row for each text")
    unusual = form.describe(kind)
    named = f"{source} (read as a table with {unusual})" if unusual else source
    return header, _find_text_column(header, text_column, named), rows - 1, form


def _require_target(target, source):
    """Raise ValueError for a target that cannot be written, CannotWriteError if there is no right to."""
    if target.suffix.lower() in (".gz", ".bz2", ".zip", ".xz", ".zst", ".xlsx", ".parquet"):
        raise ValueError(f"target is {target}, but must be another file than the source, and not a compressed one")
    if target.is_dir() or not target.name:
        raise ValueError(f"target is {target}, but must be a file and not a folder")
    if target.resolve() == source.resolve() or (target.exists() and target.samefile(source)):
        raise ValueError(f"target is {target}, but must be another file than the source")
    part = Path(f"{target}.part")
    with explain_writing(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for path in (part, Path(f"{part}.json"), target):
                if path.exists():
                    open(path, "ab").close()
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise ValueError(f"target is {target}, but {error.filename} is in its way: give another one") from None


def _find_done(part, state, fingerprint):
    """Return how many rows an interrupted `predict_file` has done; what it wrote after them is cut off."""
    try:
        known = json.loads(state.read_text())
        if known["fingerprint"] == fingerprint and part.stat().st_size >= known["bytes"]:
            os.truncate(part, known["bytes"])
            return known["rows"]
    except (OSError, ValueError, KeyError, TypeError):  # no such file, or a damaged one
        pass
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(b"")
    return 0


def _to_csv(rows):
    """Return rows as CSV in bytes; quoting all texts keeps a lone carriage return."""
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerows(rows)
    return file.getvalue().encode()


def _take_texts(texts):
    """Return texts in a row as a list; TypeError for what is no row of texts, or holds what is no text."""
    kinds = {
        str | bytes | bytearray: "put it into a list",
        pd.DataFrame: 'give one of its columns, such as table["text"]',
        Mapping: "give a list of its texts",
        Set: "it has no order: give a list",
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
        if not Path(archive_path).is_dir():
            require_file(archive_path, "train.ipynb makes it")
        files, path = read_bert(archive_path, cache_dir=None)
        if vocabulary is not None:
            if VOCABULARY in files:
                raise ValueError(f"{path} has a {VOCABULARY} of its own: leave out vocabulary={str(vocabulary)!r}")
            require_file(vocabulary, "the 2019 guide saved it beside its model")
            files[VOCABULARY] = Path(vocabulary).read_bytes()
        config = read_config(files, path)
        model = build_model(files, path, num_labels=2, new_weights=False)
        given = {"threshold": threshold, "temperature": temperature}
        given |= {"max_seq_length": max_seq_length, "label_names": label_names}
        given = {n: v.item() if isinstance(v, np.generic) else v for n, v in given.items() if v is not None}
        settings = complete_settings(config, given, path)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        validation = read_validation(files["validation.csv"], path) if "validation.csv" in files else None
        seen = read_seen(files[SEEN], path) if SEEN in files else None
        return cls(model.to(device).eval(), build_tokenizer(files, path), settings, validation, seen, path)

    def describe(self):
        """Return in sentences, a list, when it was trained, on how much, and how its answers come about."""
        settings = self.settings
        trained = "Nothing is known of its training."
        if {"trained", "training_rows", "best_epoch"} <= settings.keys():
            trained = f"Trained {settings['trained']} on {settings['training_rows']:,} rows; "
            trained += f"epoch {settings['best_epoch']} was kept."
        decides = f"The answer is {settings['label_names'][1]!r} from a probability of {settings['threshold']:.3g}"
        return [trained, f"{decides} upwards.", *describe_calibration(settings, self.validation)]

    def take_validation(self, examples, share=0.1, seed=42, refit=False):
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
        fitted = f"; temperature {temperature:.2f} and threshold {threshold:.3f} were fitted on them" if refit else ""
        return f"{taken}{fitted}. If its training has seen them, it looks better and surer there than it is"

    def check_labels(self, data_dir):
        """Compare the names of the classes with `labels.json` in a folder; return a sentence about it.

        Raises ValueError if there 0 and 1 are other classes than in this model's training.
        """
        ours, theirs = self.settings["label_names"], read_label_names(data_dir)
        path = Path(data_dir, "labels.json")
        if not path.is_file():
            return f"There is no {path}: that 0 is {ours[0]!r} and 1 is {ours[1]!r} cannot be checked."
        if ours != theirs:
            raise ValueError(
                f"{path} says 0 is {theirs[0]!r} and 1 is {theirs[1]!r}, but {self.path} was trained with 0 as "
                f"{ours[0]!r} and 1 as {ours[1]!r}: run train.ipynb again, or data_prep.ipynb as it was run before it"
            )
        return f"{path} and {self.path} have the same classes."

    def find_unseen(self, texts, labels, source):
        """Return (the rows of texts that training has not looked at, as a sorted array, a sentence about them).

        Texts are compared with case and white space folded; labels are an array of 0 and 1, of shape (n,), and `source`
        is what messages call the file. Without digests in the archive all rows are returned, and the sentence says that
        nothing could be checked. Raises ValueError if half of the texts were seen, or what is left has one class.
        """
        if self.seen is None:
            return np.arange(len(texts)), (
                f"whether training has seen them cannot be checked, for {self.path} is of a time before it noted that: "
                "train again with train.ipynb to know"
            )
        seen = np.isin(np.array([digest_text(text) for text in texts], np.int64), self.seen)
        rows, count = np.flatnonzero(~seen), int(seen.sum())
        of = f"of the {len(texts):,} texts of {source}"
        counted = f"{count:,} {of} were in the training of {self.path}"
        if 2 * count >= len(texts) or len(set(np.asarray(labels)[rows].tolist())) < 2:
            remedy = "run train.ipynb again (after data_prep.ipynb with CLEAN_TRAIN = True if two files share texts)"
            raise ValueError(f"{counted}, so that too few are left to judge it by: {remedy}")
        if count:
            return rows, f"{counted} and are left out"
        return rows, f"it has seen none {of} in training"

    def predict(self, texts, batch_size=128, progress=True):
        """Classify texts.

        Returns a DataFrame with a row for each text, in order: `label`, the name of the class, and `probability`, that
        of the positive class. `texts` is a list, tuple, array, Series (whose index the answers carry) or iterator of
        strings. Raises TypeError for anything else, such as a single string or a DataFrame, or for what is no string in
        it, and ValueError for a `batch_size` (at most so many texts at once) that is no whole number from 1.
        """
        require_count("batch_size", batch_size)
        features = self.convert(texts, progress)
        answers = self.decide(predict_logits(self.model, features, batch_size, progress=progress))
        return answers.set_index(texts.index) if isinstance(texts, pd.Series) else answers

    def convert(self, texts, progress=False):
        """Convert texts to the Features that this model was trained on."""
        texts = _take_texts(texts)
        conversion = Conversion(self.tokenizer, self.settings["max_seq_length"], self.settings["truncation"])
        labels = np.full(len(texts), UNLABELLED, "<i4")
        return convert_pairs(conversion, [(text, None) for text in texts], labels, progress=progress)

    def predict_file(
        self, source, target, text_column="text", batch_rows=5000, batch_size=128, progress=True, encoding="utf-8"
    ):
        """Classify the texts of a CSV or TSV file of any size; return how many there are.

        `source` has a header and may be compressed (`.gz`, `.zip` and the like); how it is written is found as in
        data_prep.ipynb, and all of it is checked before the work. `text_column` is a name or a number from 0. `target`
        is CSV in UTF-8 with all its columns, and `label` and `probability` (six decimals), which are called
        `predicted_label` and `predicted_probability` if it has one of these. It appears when all is done; until then
        `<target>.part` grows by `batch_rows` rows at a time. Interrupted, the same call goes on there, and ends in the
        same file. What takes longer than some hours is a case for several processes: see "For a hundred million texts"
        in README.

        Raises FileNotFoundError, CannotWriteError, and ValueError for a file that is not such a table, a target that
        cannot be written, or a size that is no whole number from 1.
        """
        source, target = Path(source), Path(target)
        require_file(source, "predict_file reads a CSV or TSV file with a header")
        require_count("batch_rows", batch_rows)
        require_count("batch_size", batch_size)
        _require_target(target, source)
        part, state = Path(f"{target}.part"), Path(f"{target}.part.json")
        header, column, rows, form = _read_header(source, encoding, text_column)
        added = _name_answers(header, source)
        about = [source.stat().st_size, source.stat().st_mtime_ns, column, encoding, batch_rows, batch_size]
        weights = self.model.classifier.weight.detach().cpu().numpy().tobytes()
        fingerprint = hashlib.sha256(json.dumps([about, self.settings]).encode() + weights).hexdigest()
        with exclusive_lock(target, 0, "wait until it is done"), explain_writing(part):
            done, read = _find_done(part, state, fingerprint), 0
            with open(part, "ab") as file, progress_bar(rows, "Predicting", " rows", progress) as bar:
                if not done:
                    file.write(_to_csv([[*header, *added]]))
                texts = islice(read_rows(source, form), 1, None)
                while chunk := list(islice(texts, batch_rows)):
                    read += len(chunk)
                    bar.update(len(chunk))
                    if read <= done:
                        continue
                    predicted = self.predict([row[column] for row in chunk], batch_size, progress=False).round(6)
                    answers = zip(chunk, predicted.itertuples(index=False))
                    file.write(_to_csv([*row, *answer] for row, answer in answers))
                    file.flush()
                    os.fsync(file.fileno())  # the state vouches for these rows, also after a power cut
                    write_text(state, json.dumps({"fingerprint": fingerprint, "rows": read, "bytes": file.tell()}))
            replace_file(part, target)
            state.unlink(missing_ok=True)
        before = f", {done:,} of them before" if done else ""
        print(f"{rows:,} texts classified in {target}: {' and '.join(added)}{before}")
        return rows

    def decide(self, logits):
        """Turn logits of shape (n, 2) into the DataFrame of `predict`."""
        positive = probabilities(logits, self.settings["temperature"], self.settings.get("intercept", 0.0))[:, 1]
        said = (positive >= self.settings["threshold"]).astype(int)
        return pd.DataFrame({"label": np.array(self.settings["label_names"], object)[said], "probability": positive})
