"""Does big input pass through data_prep.ipynb and converter.py, in how much memory and how much time?

    python tests/benchmarks/bench_big.py [--reviews 2000000] [--tasks TASK ...] [--folder FOLDER]

Makes a task of Yelp's form and size of text from IMDB sentences (about 134 words a review, half of them with Yelp's
escaped line breaks), takes it through data_prep.ipynb and converter.py, and then does the same to a single text of
50 MB, to a file with one row, and to a million rows of which one near the end is bad. Memory is the peak of the sum of
PSS over all processes. Everything is written to a temporary folder, which goes at the end: about 6 GB of disk for two
million reviews.

Reads IMDB reviews from the folder BERT_TEST_DATA (default: ../shared/data); the model must be in cache/.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from itertools import chain, islice
from pathlib import Path

import psutil
from bench_features import ROOT, list_children, make_yelp_sized, proportional_size, read_imdb

MODEL = "all-MiniLM-L6-v2"
GOAL = 3.5e9  # bytes


def write_csv(path, rows):
    """Write (label, text) rows in Yelp's form."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)


def make_reviews(count):
    """Yield (label, text) of reviews as Yelp's files have them."""
    for i, text in enumerate(make_yelp_sized(list(read_imdb()), count)):
        yield i % 2 + 1, text.replace(". ", r".\n\n", 2) if i % 2 else text


def make_short(count):
    """Yield (label, text) of short texts, each different."""
    return ((i % 2 + 1, f"soup {i} was {('bad', 'good')[i % 2]}") for i in range(count))


def make_big(folder, reviews):
    """Write so many reviews to learn from, and 38,000, as many as Yelp's, to judge with."""
    rows = make_reviews(reviews + 38_000)
    write_csv(folder / "train.csv", islice(rows, reviews))
    write_csv(folder / "test.csv", rows)


def make_long(folder, text):
    """Write fifty short texts and a very long one."""
    write_csv(folder / "train.csv", [*make_short(50), (2, text)])
    write_csv(folder / "test.csv", make_short(50))


def make_bad_row(folder):
    """Write a million rows of which one near the end has three columns."""
    rows = make_short(1_000_000)
    write_csv(folder / "train.csv", chain(islice(rows, 999_000), [(1, "too", "many")], rows))


def make_one_row(folder):
    """Write a single row."""
    write_csv(folder / "train.csv", make_short(1))


# name: a function that writes the tables of that task to a folder, given how many reviews are wanted
TASKS = {
    "big": make_big,
    "long_words": lambda folder, _: make_long(folder, "good soup, " * 4_500_000),
    "long_a": lambda folder, _: make_long(folder, "a" * 50_000_000),
    "long_han": lambda folder, _: make_long(folder, "\u4e2d\u6587\u3002" * 5_500_000),
    "bad_row": lambda folder, _: make_bad_row(folder),
    "one_row": lambda folder, _: make_one_row(folder),
}


def run(command, folder):
    """Run a command; return (its status, seconds, peak memory of all its processes in bytes, what it printed)."""
    environment = {**os.environ, "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
    start, peak = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as output:
        process = psutil.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, sum(map(proportional_size, [process, *list_children(process)])))
            time.sleep(0.5)  # of gigabytes it takes a while to add up who shares what
        output.seek(0)
        return process.returncode, time.monotonic() - start, peak, output.read()


def measure(task, folder):
    """Take a task through data_prep.ipynb and converter.py, and print a line about each."""
    notebook = [sys.executable, "-m", "papermill", "data_prep.ipynb", "out.ipynb", "-p", "TASK_NAME", task]
    converter = [sys.executable, "converter.py", "--data-dir", f"data/{task}", "--model", MODEL]
    kept = folder / "data" / task / "train.tsv"
    for name, command in (("data_prep", [*notebook, "--no-progress-bar"]), ("converter", converter)):
        if name == "converter" and not kept.is_file():
            continue
        status, seconds, peak, printed = run(command, folder)
        size = f"{(folder / 'data' / task / 'train.csv').stat().st_size / 1e9:.2f} GB"
        last = " ".join(printed.strip().splitlines()[-1:])
        print(
            f"{task:10} {size} {name:9}: status {status}, {seconds / 60:.1f} min, {peak / 1e9:.2f} GB | {last[:300]}",
            flush=True,
        )
        if peak > GOAL:
            print(f"  more than the {GOAL / 1e9:.1f} GB that were to be enough")


def main():
    """Make the tasks and measure them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--reviews", type=int, default=2_000_000)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--folder", help="where the temporary folder is made; default: the system's")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for file in ("data_prep.ipynb", "tools.py", "textbert", "converter.py", "cache"):
            (folder / file).symlink_to(ROOT / file)
        for task in options.tasks:
            TASKS[task](folder / "data" / task, options.reviews)
            measure(task, folder)


if __name__ == "__main__":
    main()
