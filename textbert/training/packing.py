"""What a finished training run leaves: its model with settings, its tables, and the archive of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pytorch_pretrained_bert.tokenization import BertTokenizer

from textbert.data.normalization import hash_text
from textbert.features.examples import Example
from textbert.model.archive import pack_model, save_training_hashes
from textbert.model.config import OUT_OF_FOLD, VALIDATION
from textbert.model.loading import save_model
from textbert.training.checkpoints import remove_checkpoint
from textbert.training.distributed import get_environment
from textbert.training.out_of_fold import get_folds
from textbert.training.trainer import Run
from textbert.utils.files import exclusive_lock, write_text


@dataclass(frozen=True, kw_only=True)
class PackingList:
    """What is packed beside the model.

    task_info : what `read_task_info` returned; of its keys only label_names is required
    examples : all examples, as their rows are numbered
    rows : array of the rows whose texts count as known to the model; None for those of the run
    logits : of the run's held-out rows, before calibration, of shape (n, 2)
    decision : dict of temperature, intercept, threshold and, optionally, review_range
    validation : metrics on the held-out rows with that threshold
    parameters : those of train.ipynb by name, TRUNCATION at least; learning rate and epochs become those of the run
    search, folds : a dict for each run of a search or of a cross-validation
    out_of_fold : DataFrame with the columns logit_0 and logit_1 of the rows that folds held out, or None
    """

    tokenizer: BertTokenizer
    task_info: dict[str, Any]
    examples: Sequence[Example]
    logits: np.ndarray
    decision: dict[str, Any]
    validation: dict[str, Any]
    parameters: dict[str, Any]
    rows: np.ndarray | None = None
    search: Sequence[dict[str, Any]] = ()
    folds: Sequence[dict[str, Any]] = ()
    out_of_fold: pd.DataFrame | None = None


def make_settings(run: Run, packing: PackingList, max_seq_length: int) -> dict[str, Any]:
    """Return what config.json stores under "classifier": whatever a user of the model must know."""
    label_names, config = packing.task_info["label_names"], run.config
    tuned = {"LEARNING_RATE": config.learning_rate, "NUM_TRAIN_EPOCHS": config.num_train_epochs}
    return {
        "do_lower_case": packing.tokenizer.basic_tokenizer.do_lower_case,
        "max_seq_length": max_seq_length,
        "truncation": packing.parameters["TRUNCATION"],
        "label_names": label_names,
        **{name: packing.task_info.get(name) for name in ("classes", "text_column", "id_column")},
        "positive_class": label_names[1],
        **{name: value for name, value in packing.decision.items() if value is not None},
        "trained": time.strftime("%Y-%m-%d %H:%M"),
        "training_rows": len(run.train_rows),
        "best_epoch": run.best_epoch,
        "validation_folds": len(get_folds(run)),  # in place of a validation set; 0 with one
        "validation": packing.validation,
        "parameters": packing.parameters | tuned,
        "search": list(packing.search) if len(packing.search) > 1 else [],
        "folds": list(packing.folds),
        "versions": get_environment(),
    }


def make_tables(run: Run, packing: PackingList) -> dict[str, pd.DataFrame]:
    """Return the tables of a run by file name: its history, the loss of each step, and the logits of held-out rows."""
    validation = pd.DataFrame(packing.logits, columns=["logit_0", "logit_1"])
    validation.insert(0, "id", [packing.examples[row].guid for row in run.held_out_rows])
    validation.insert(1, "label", run.setup.labels[run.held_out_rows])
    losses = pd.DataFrame({"step": range(1, len(run.losses) + 1), "loss": run.losses})
    tables = {"history.csv": run.history, "losses.csv": losses, VALIDATION: validation}
    if packing.out_of_fold is None:
        return tables
    text_hashes = [hash_text(packing.examples[row].text_a) for row in packing.out_of_fold.index]
    return tables | {OUT_OF_FOLD: packing.out_of_fold.assign(text_hash=text_hashes)}


def write_run(run: Run, packing: PackingList, max_seq_length: int, output_dir: Path, archive: Path) -> None:
    """Write model, tables and hashes into a task's folder, pack them, and remove the checkpoint."""
    settings, tables = make_settings(run, packing, max_seq_length), make_tables(run, packing)
    rows = np.union1d(run.train_rows, run.held_out_rows) if packing.rows is None else packing.rows
    texts = [packing.examples[row].text_a for row in rows]
    with exclusive_lock(output_dir / "checkpoint"):
        save_model(run.model, packing.tokenizer, output_dir, settings)
        (output_dir / OUT_OF_FOLD).unlink(missing_ok=True)  # of an earlier run
        for name, table in tables.items():
            write_text(output_dir / name, table.to_csv(index=False))
        save_training_hashes([hash_text(text) for text in texts], output_dir)
        pack_model(output_dir, archive)
        remove_checkpoint(output_dir)
