"""Measure one process with all its cores against a local Dask cluster of as many workers with one thread each.

    python tests/benchmarks/bench_dask.py sample --texts imdb

Both classify the same texts, in turns, and their answers are compared. The workers are started, and have loaded the
classifier, before the clock runs: that start is what a small file does not pay back, and it is printed. The workers
are told how to keep memory; with --plain they have what Dask tells them by itself. The one process has malloc as it
comes. Needs pip install dask distributed pyarrow.
"""

import argparse
import time
from functools import cache

import dask
import dask.dataframe
import numpy as np
import pandas as pd
import torch
from bench_use import ROOT, read_texts
from dask.distributed import Client, LocalCluster

from textbert.inference.classifier import Classifier
from textbert.model.archive import get_archive_path

# Dask runs a task in a thread, and tells malloc to give memory back: both let the system fill it with zeros again and
# again. So all threads use one heap, which keeps it.
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


@cache
def get_classifier(path):
    """Load a classifier, once in each worker process; how many threads it takes is Dask's to say."""
    return Classifier.load(path, "cpu")


def score(part, path):
    """Return the answers to the texts of one part."""
    return get_classifier(path).predict(part["text"], progress=False)


def time_in_turns(ways, rows, repeats):
    """Print texts a second of each way, and the middle of its turns beside the first way's; return what each gave."""
    seconds, answers = {name: [] for name in ways}, {}
    for _ in range(repeats):
        for name, way in ways.items():  # never the same twice in a row: Dask may still hold the answers
            start = time.perf_counter()
            answers[name] = way()
            seconds[name].append(time.perf_counter() - start)
    first = np.array(next(iter(seconds.values())))
    for name, taken in seconds.items():
        each, times = ", ".join(f"{rows / second:.1f}" for second in taken), np.median(first / taken)
        print(f"{name:28} {rows / np.median(taken):8.1f} texts a second ({each}); in its turns {times:.3f} times")
    return answers


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("task", help="folder under data/, with its archive in cache/")
    parser.add_argument("--texts", choices=["task", "imdb"], default="task")
    parser.add_argument("--rows", type=int, default=2000, help="how many texts")
    parser.add_argument("--parts", type=int, default=8, help="into how many parts Dask cuts them")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="leave the workers the environment that Dask gives them")
    options = parser.parse_args()
    path = str(get_archive_path(options.task, ROOT / "cache"))
    table = pd.DataFrame({"text": read_texts(options.task, options.texts, options.rows)})
    here, threads, start = Classifier.load(path, "cpu"), torch.get_num_threads(), time.perf_counter()
    if not options.plain:
        dask.config.set({"distributed.nanny.pre-spawn-environ": ENVIRONMENT})
    workers = {"n_workers": threads, "threads_per_worker": 1, "dashboard_address": None, "memory_limit": 0}
    with LocalCluster(**workers) as cluster, Client(cluster) as client:
        client.run(get_classifier, path)
        print(f"{threads} workers were ready after {time.perf_counter() - start:.1f} s")
        parts = dask.dataframe.from_pandas(table, npartitions=options.parts)
        answers = parts.map_partitions(score, path, meta={"label": object, "probability": "f4"})
        ways = {
            f"one process, {threads} threads": lambda: here.predict(table["text"], progress=False),
            f"Dask, {threads} workers": answers.compute,
        }
        one, many = time_in_turns(ways, len(table), options.repeats).values()
    gap = np.abs(one["probability"] - many["probability"]).max()
    other = (one["label"].to_numpy() != many["label"].to_numpy()).sum()
    print(f"largest gap of a probability {gap:.1e}; {other} other labels")


if __name__ == "__main__":
    main()
