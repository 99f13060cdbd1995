"""The classifier of a task, checked against the data of the task before it is evaluated on it."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from textbert.data.labelled_texts import LabelledTexts
from textbert.data.normalization import hash_text
from textbert.data.tsv import find_changed_tables
from textbert.inference.classifier import Classifier
from textbert.model.archive import get_archive_path
from textbert.training.checkpoints import is_unfinished
from textbert.utils.display import format_duration


def load_task_classifier(
    task_name: str, train: LabelledTexts, legacy_settings: dict[str, Any] | None = None, refit: bool = False
) -> Classifier:
    """Load the classifier of a task from its archive; print what it is, and what does not fit the task's files.

    train : the texts of the task's train.tsv
    legacy_settings, refit : only for an archive from 2019: what it lacks, see `Classifier.load`, and whether to fit
        its calibration, see `Classifier.recompute_validation`

    Raises FileNotFoundError, and ValueError if the archive or the names of the classes are not those of the task.
    """
    archive = get_archive_path(task_name)
    if is_unfinished(Path("outputs", task_name)):
        print(f"The last run of {task_name} was not finished: run train.ipynb again")
        print(f"to resume it. {archive}, if it exists, is of an earlier training run")
    classifier = Classifier.load(archive, **(legacy_settings or {}))
    if classifier.validation is None:  # an archive from 2019
        print(classifier.recompute_validation(train, refit=refit))
    data_dir = train.path.parent
    print(*classifier.describe(), classifier.check_labels(data_dir), *find_changed_tables(data_dir), sep="\n")
    return classifier


def exclude_training_texts(classifier: Classifier, texts: LabelledTexts) -> tuple[LabelledTexts, np.ndarray, str]:
    """Return the texts that the model was not trained on, their rows, and a sentence about them.

    See `Classifier.exclude_training_texts`, which does it, and its errors.
    """
    rows, sentence = classifier.exclude_training_texts(texts.texts, texts.labels, texts.path)
    return texts.select(rows), rows, sentence


def predict_validation(classifier: Classifier) -> np.ndarray:
    """Return the probabilities of class 1 for `Classifier.validation`, from its logits; of shape (n,)."""
    assert classifier.validation is not None
    logits = classifier.validation[["logit_0", "logit_1"]].to_numpy()
    return classifier.predictions_from_logits(logits)["probability"].to_numpy()


def predict_held_out(classifier: Classifier, texts: LabelledTexts) -> np.ndarray:
    """Return BERT's probabilities of class 1 for training texts, of shape (n,); NaN where it was trained on the text.

    Those for folds that were held out (see FOLDS in train.ipynb), which are in the archive, are by models that were not
    trained on the text; without them, only the texts of the validation set have a probability.
    """
    if (held_out := classifier.out_of_fold) is not None:
        logits = held_out[["logit_0", "logit_1"]].to_numpy()
        by_hash = dict(zip(held_out["text_hash"], classifier.predictions_from_logits(logits)["probability"]))
        return np.array([by_hash.get(hash_text(text), np.nan) for text in texts.texts])
    y_prob = np.full(len(texts), np.nan)
    if classifier.validation is not None and classifier.training_hashes is not None:  # in 2019 nothing was held out
        rows = np.flatnonzero(np.isin(texts.ids, classifier.validation["id"]))
        y_prob[rows] = classifier.predict(texts.select(rows).texts, progress=False)["probability"]
    return y_prob


def measure_speed(classifier: Classifier, texts: list[str]) -> str:
    """Return a sentence that says how many texts a second are classified here, and how long a million would take."""
    start = time.perf_counter()
    classifier.predict(texts, progress=False)
    rate = len(texts) / (time.perf_counter() - start)
    return f"{rate:,.0f} such texts a second here: a million take {format_duration(1e6 / rate)}"
