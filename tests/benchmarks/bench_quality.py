"""Run the notebooks on a task with several seeds and print the row of the results table.

    python tests/benchmarks/bench_quality.py sample --seeds 1 2 3
    python tests/benchmarks/bench_quality.py imdb4k --seeds 1 2 3 -p MAX_SEQ_LENGTH 256 -p NUM_TRAIN_EPOCHS 3

`imdb4k` is made when it is asked for: 4,000 training and 2,000 test reviews of the Large Movie Review Dataset, drawn
stratified with seed 42 from the folder named by BERT_TEST_DATA (default ../shared/data), in `data/imdb4k/`. The seeds
are those of train.ipynb; the model and report of the last seed stay in `cache/` and `outputs/`.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import pandas as pd
import papermill
import yaml
from sklearn.model_selection import train_test_split

ROOT = Path(__file__).resolve().parents[2]
TEST_DATA = Path(os.environ.get("BERT_TEST_DATA", ROOT.parent / "shared" / "data"))


def make_imdb4k(folder):
    """Write train.csv (4,000 rows) and test.csv (2,000 rows), half of each label, in Yelp's format."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", 4000), ("test", 2000)):
        source = TEST_DATA / "imdb" / f"{name}.csv.gz"
        if not source.is_file():
            sys.exit(f"{source} is absent: set BERT_TEST_DATA to the folder that holds imdb/")
        frame = pd.read_csv(source, header=None, dtype=str, keep_default_na=False)
        drawn, _ = train_test_split(frame, train_size=rows, random_state=42, stratify=frame[0])
        drawn.to_csv(folder / f"{name}.csv", header=False, index=False, quoting=1)


def run(notebook, **parameters):
    """Run one notebook in the project's folder; return the seconds it took."""
    start = time.perf_counter()
    copy = ROOT / "outputs" / parameters["TASK_NAME"] / f"{notebook}.ipynb"
    copy.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(ROOT / f"{notebook}.ipynb", copy, parameters, cwd=ROOT, progress_bar=False)
    return time.perf_counter() - start


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("task", help="folder under data/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="of train.ipynb")
    options = parser.parse_args()
    parameters = {name: yaml.safe_load(value) for name, value in options.p}
    if options.task == "imdb4k":
        make_imdb4k(ROOT / "data" / "imdb4k")
    run("data_prep", TASK_NAME=options.task)
    rows = []
    for seed in options.seeds:
        seconds = run("train", TASK_NAME=options.task, RANDOM_SEED=seed, **parameters)
        run("evaluate", TASK_NAME=options.task)
        report = json.loads((ROOT / "outputs" / options.task / "report" / "eval_results.json").read_text())
        results = report["results"]
        rows.append(
            {
                "seed": seed,
                "minutes of train.ipynb": seconds / 60,
                "validation MCC": report["archive"]["validation"]["mcc"],
                **{f"{name}: {m}": results[name][m] for name in list(results)[1:] for m in ("mcc", "accuracy")},
            }
        )
        print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False), flush=True)
    table = pd.DataFrame(rows).set_index("seed")
    print(table.agg(["mean", "std"]).round(3).to_string())


if __name__ == "__main__":
    main()
