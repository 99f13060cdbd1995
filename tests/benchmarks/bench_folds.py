"""Does a setting help? Cross-validate it on train.tsv; dev.tsv is not used.

    python tests/benchmarks/bench_folds.py sample --seeds 1 2
    python tests/benchmarks/bench_folds.py sample --seeds 1 2 -p R_DROP 1.0

Each of the folds, which are the same for all seeds and settings, is held out in turn. A tenth of the other rows
(VALIDATION_SHARE) is the validation set that chooses the epoch, as in train.ipynb, whose loop this is; the rest is the
training set. The columns MCC, AUC, Brier and doubtful (the share of probabilities between 0.15 and 0.85) are of the
held-out fold, with the calibration and the threshold that the validation set has chosen. Compare two runs that differ
in one setting fold by fold. Needs `data/<task>/train.tsv`, written by data_prep.ipynb.
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path

import pandas as pd
from accelerate.utils import set_seed
from bench_quality import ROOT, read_value

sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parents[1])]
from loop import load_loop, read_parameters  # noqa: E402 (found by the line above)

import tools  # noqa: E402 (as above)
from textbert.data.splits import split_folds  # noqa: E402 (as above)
from textbert.evaluation.metrics import brier_and_ece  # noqa: E402 (as above)
from textbert.features.batching import BatchSampler  # noqa: E402 (as above)
from textbert.notebook.parameters import check_parameters  # noqa: E402 (as above)


def convert(task, parameters):
    """Return (texts, labels, groups or None, Features) of a task's train.tsv."""
    examples = list(tools.BinaryClassificationProcessor().get_train_examples(ROOT / "data" / task))
    tokenizer = tools.load_tokenizer(parameters["BERT_MODEL"], ROOT / "cache")
    options = {"truncation": parameters["TRUNCATION"], "progress": False}
    labels = {"0": 0, "1": 1}
    features = tools.convert_examples_to_features(examples, labels, parameters["MAX_SEQ_LENGTH"], tokenizer, **options)
    groups = tools.read_groups(ROOT / "data" / task)
    return [example.text_a for example in examples], features.labels.astype(int), groups, features


def train(accelerator, features, train_rows, validation_rows, held_out, parameters):
    """Train once; return the kept epoch, its metrics on the held-out rows, and the MCC of the last epoch, as a dict."""
    set_seed(parameters["RANDOM_SEED"])
    model = tools.load_model(parameters["BERT_MODEL"], ROOT / "cache")
    tools.reinitialize_pooler(model)
    names = ("TRAIN_BATCH_SIZE", "GRADIENT_ACCUMULATION_STEPS", "RANDOM_SEED")
    plan = BatchSampler(features.lengths, *(parameters[name] for name in names))
    loop = load_loop(accelerator, model, features, plan, **parameters)
    run = loop.fine_tune(train_rows, validation_rows, parameters["LEARNING_RATE"], parameters["NUM_TRAIN_EPOCHS"])
    last_mcc = loop.validate(held_out)["mcc"]
    decision = loop.experiment.calibrate(run)["decision"]  # the model has the weights of the kept epoch from here on
    logits = tools.predict_logits(model, features, 64, held_out)
    y_prob = tools.probabilities(logits, decision["temperature"], decision["intercept"])[:, 1]
    y_true = features.labels[held_out].astype(int)
    report = tools.get_eval_report("held out", y_true, y_prob >= decision["threshold"], y_prob)
    return {
        "kept epoch": run.best_epoch,
        "MCC": report["mcc"],
        "AUC": report["roc_auc"],
        "Brier": brier_and_ece(y_true, y_prob)[0],
        "doubtful": ((y_prob > 0.15) & (y_prob < 0.85)).mean(),
        "MCC of the last": last_mcc,
    }


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("task", help="folder under data/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="of train.ipynb")
    options = parser.parse_args()
    overrides = {name: read_value(value) for name, value in options.p}
    parameters = check_parameters("train", read_parameters() | overrides | {"TASK_NAME": options.task})
    texts, labels, groups, features = convert(options.task, parameters)
    accelerator, rows = tools.make_accelerator(), []
    for seed in options.seeds:
        parameters |= {"RANDOM_SEED": seed}
        for number, (others, held_out) in enumerate(split_folds(texts, labels, options.folds, 0, groups), start=1):
            texts_left, labels_left = [texts[row] for row in others], labels[others]
            groups_left = None if groups is None else groups[others]
            settings = parameters["VALIDATION_SHARE"], seed, groups_left
            splits = tools.split_train_validation(texts_left, labels_left, *settings)
            train_rows, validation_rows = (others[indices] for indices in splits)
            start = time.perf_counter()
            with contextlib.redirect_stdout(sys.stderr):
                result = train(accelerator, features, train_rows, validation_rows, held_out, parameters)
            rows.append({"seed": seed, "fold": number, **result, "minutes": (time.perf_counter() - start) / 60})
            print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False), flush=True)
    print(f"mean and standard deviation over {len(rows)} training runs:")
    print(pd.DataFrame(rows).drop(columns=["seed", "fold"]).agg(["mean", "std"]).round(4).to_string())


if __name__ == "__main__":
    main()
