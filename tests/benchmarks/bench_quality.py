"""Run the notebooks on a task with several seeds and print the row of the results table.

    python tests/benchmarks/bench_quality.py sample --seeds 1 2 3
    python tests/benchmarks/bench_quality.py imdb4k --seeds 1 2 3 -p MAX_SEQ_LENGTH 256 -p NUM_TRAIN_EPOCHS 3
    python tests/benchmarks/bench_quality.py sst2 --seeds 1 --validation-only -p LEARNING_RATE 1e-4

Three tasks are created on demand in `data/<task>/`, from the folder named by BERT_TEST_DATA (default ../shared/data):
`imdb25k`, the Large Movie Review Dataset with 25,000 training and 25,000 test reviews, `imdb4k`, a stratified sample of
4,000 and 2,000 of them (seed 42), and `sst2`, the Stanford Sentiment Treebank as in GLUE, 67,349 phrases and 872
sentences. The seeds are those of train.ipynb; model and report of the last seed stay in `cache/` and `outputs/`. With
`--validation-only` dev.tsv is not opened: this is how settings are chosen.
"""

import argparse
import ast
import csv
import json
import os
import sys
import time
from pathlib import Path

import pandas as pd
import papermill
from sklearn.model_selection import train_test_split

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from textbert.evaluation.results import to_display_names  # noqa: E402 (found by the line above)

TEST_DATA = Path(os.environ.get("BERT_TEST_DATA", ROOT.parent / "shared" / "data"))


def read_source(name, **options):
    """Read a table from the folder with larger real data; exit with a message if it is not there."""
    if not (TEST_DATA / name).is_file():
        sys.exit(f"{TEST_DATA / name} is missing: set BERT_TEST_DATA to the folder that contains it")
    return pd.read_csv(TEST_DATA / name, dtype=str, keep_default_na=False, **options)


def read_imdb4k():
    """Yield ("train", 4,000 rows) and ("test", 2,000 rows), half of each label."""
    for name, rows in (("train", 4000), ("test", 2000)):
        frame = read_source(f"imdb/{name}.csv.gz", header=None)
        yield name, train_test_split(frame, train_size=rows, random_state=42, stratify=frame[0])[0]


def read_imdb25k():
    """Yield ("train", 25,000 rows) and ("test", 25,000 rows)."""
    for name in ("train", "test"):
        yield name, read_source(f"imdb/{name}.csv.gz", header=None)


def read_sst2():
    """Yield ("train", 67,349 rows) and ("test", the 872 of GLUE's dev file: test labels are secret)."""
    for name, source in (("train", "train.tsv.gz"), ("test", "dev.tsv")):
        yield name, read_source(f"sst2/{source}", sep="\t", quoting=csv.QUOTE_NONE)


LOADERS = {"imdb4k": read_imdb4k, "imdb25k": read_imdb25k, "sst2": read_sst2}


def read_value(text):
    """Parse a parameter from the command line as a Python literal; if it is none, return the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def run(notebook, **parameters):
    """Run a notebook in the project's folder; return the elapsed seconds."""
    start = time.perf_counter()
    copy = ROOT / "outputs" / parameters["TASK_NAME"] / f"{notebook}.ipynb"
    copy.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(ROOT / f"{notebook}.ipynb", copy, parameters, cwd=ROOT, progress_bar=False)
    return time.perf_counter() - start


def prepare_task(task):
    """Write the tables of a task of `LOADERS`, and run data_prep.ipynb on those of any task."""
    if task in LOADERS:
        for name, frame in LOADERS[task]():
            path = ROOT / "data" / task / f"{name}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.to_csv(path, header=False, index=False, quoting=csv.QUOTE_ALL)
    run("data_prep", TASK_NAME=task)


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("task", help="folder under data/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--validation-only", action="store_true", help="do not open dev.tsv")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="for train.ipynb")
    options = parser.parse_args()
    parameters = {name: read_value(value) for name, value in options.p}
    prepare_task(options.task)
    rows = []
    for seed in options.seeds:
        seconds = run("train", TASK_NAME=options.task, RANDOM_SEED=seed, **parameters)
        outputs = ROOT / "outputs" / options.task
        settings = json.loads((outputs / "config.json").read_text())["classifier"]
        row = {"seed": seed, "minutes of train.ipynb": seconds / 60, "kept epoch": settings["best_epoch"]}
        row |= {f"validation {metric}": settings["validation"][metric] for metric in ("mcc", "accuracy")}
        if not options.validation_only:
            run("evaluate", TASK_NAME=options.task)
            results = json.loads((outputs / "report" / "eval_results.json").read_text())["results"]
            for name, report in list(to_display_names(results).items())[1:]:  # without the majority class
                row |= {f"{name}: {metric}": report[metric] for metric in ("mcc", "accuracy")}
        rows.append(row)
        print(pd.DataFrame([row]).round(3).to_string(index=False), flush=True)
    table = pd.DataFrame(rows).set_index("seed")
    print(table.agg(["mean", "std"]).round(3).to_string())


if __name__ == "__main__":
    main()
