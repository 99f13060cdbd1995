"""Does a setting help? Train on folds of train.tsv and judge each training by the fold held out: dev.tsv stays closed.

    python tests/benchmarks/bench_folds.py sample --seeds 1 2
    python tests/benchmarks/bench_folds.py sample --seeds 1 2 -p R_DROP 1.0

Each of the folds, which are the same for all seeds and settings, is held out in turn. Of the other rows a tenth
(VALIDATION_SHARE) chooses the epoch, as in train.ipynb, whose loop this is; the rest is learned from. Two runs that
differ in one setting are compared training by training. Needs `data/<task>/train.tsv`, made by data_prep.ipynb.
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from accelerate.utils import set_seed
from bench_quality import ROOT, read_value

sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parents[1])]
from loop import load_loop, read_parameters  # noqa: E402 (found by the line above)

import tools  # noqa: E402 (as above)
from textbert.notebook.parameters import check_parameters  # noqa: E402 (as above)
from textbert.training import distributed  # noqa: E402


def convert(task, parameters):
    """Return (texts, labels, Features) of a task's train.tsv."""
    examples = list(tools.BinaryClassificationProcessor().get_train_examples(ROOT / "data" / task))
    tokenizer = tools.load_tokenizer(parameters["BERT_MODEL"], ROOT / "cache")
    how = {"truncation": parameters["TRUNCATION"], "progress": False}
    labels = {"0": 0, "1": 1}
    features = tools.convert_examples_to_features(examples, labels, parameters["MAX_SEQ_LENGTH"], tokenizer, **how)
    return [example.text_a for example in examples], features.labels.astype(int), features


def train(accelerator, features, learned, chosen, held, parameters):
    """Train once; return a dict with the epoch that is kept, and the MCC of the rows held out then and at the end."""
    set_seed(parameters["RANDOM_SEED"])
    bert = tools.load_model(parameters["BERT_MODEL"], ROOT / "cache")
    tools.reinitialize_pooler(bert)
    how = ("TRAIN_BATCH_SIZE", "GRADIENT_ACCUMULATION_STEPS", "RANDOM_SEED")
    plan = tools.BatchSampler(features.lengths, *(parameters[name] for name in how))
    loop = load_loop(accelerator, bert, features, plan, **parameters)
    run = loop.fine_tune(learned, chosen, parameters["LEARNING_RATE"], parameters["NUM_TRAIN_EPOCHS"])
    last = loop.validate(held)["mcc"]
    bert.load_state_dict(run.progress.best_weights)
    return {"kept epoch": run.progress.best_epoch, "MCC": loop.validate(held)["mcc"], "MCC of the last": last}


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("task", help="folder under data/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="of train.ipynb")
    options = parser.parse_args()
    given = {name: read_value(value) for name, value in options.p}
    parameters = check_parameters("train", read_parameters() | given | {"TASK_NAME": options.task})
    texts, labels, features = convert(options.task, parameters)
    accelerator, rows = distributed.make_accelerator(), []
    for seed in options.seeds:
        parameters |= {"RANDOM_SEED": seed}
        for number, (others, held) in enumerate(tools.split_folds(texts, labels, options.folds, 0), start=1):
            parts = [texts[row] for row in others], labels[others], parameters["VALIDATION_SHARE"], seed
            learned, chosen = (others[part] for part in tools.split_train_validation(*parts))
            start = time.perf_counter()
            with contextlib.redirect_stdout(sys.stderr):
                found = train(accelerator, features, learned, chosen, held, parameters)
            rows.append({"seed": seed, "fold": number, **found, "minutes": (time.perf_counter() - start) / 60})
            print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False), flush=True)
    scores = np.array([row["MCC"] for row in rows])
    print(f"mean {scores.mean():.4f}, standard deviation {scores.std(ddof=1):.4f} over {len(scores)} trainings")


if __name__ == "__main__":
    main()
