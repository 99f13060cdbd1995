"""The benchmark of training runs, at a tiny size and without data, and prints what it is to measure."""

import os
import re
import subprocess
import sys

from conftest import ROOT


def run_benchmark(folder, *options):
    """Return what the benchmark prints in a folder without data."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BERT_TEST_DATA": str(folder)}
    environment.pop("PYTHONPATH", None)  # without those peers that are not installed anyway
    command = [sys.executable, str(ROOT / "tests/benchmarks/bench_train.py"), "--quick", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_benchmark_of_training_runs(tmp_path):
    printed = run_benchmark(tmp_path)
    for contender in ("2019 loop +float32 +torch", "ours +float32 +torch", "ours +float32 +ours"):
        for data in ("IMDB", "SST-2"):
            figures = re.search(rf"^{contender} +{data} +(.+)$", printed, re.M)[1].replace(",", "").split()
            assert all(float(figure.rstrip("%")) > 0 for figure in figures) and len(figures) >= 5
    for goal in (
        r"goal  1.4  measured +[\d.]+ \([\d.]+ to [\d.]+\)  IMDB: ours float32 ours / 2019 loop float32 torch",
        r"goal    8  measured +[\d.]+ \([\d.]+ to [\d.]+\)  SST-2: ours float32 ours / 2019 loop float32 torch",
        r"goal  1.1  measured +[\d.]+ \([\d.]+ to [\d.]+\)  IMDB: ours float32 ours / matmul float32",
        r"goal  80 s  measured [\d.]+ s an epoch",
        r"goal 240 s  measured [\d.]+ s an epoch",
        r"goal   4 s  measured [\d.]+ s to evaluate 100",
    ):
        assert re.search(goal, printed), goal


def test_benchmark_of_an_epoch_tells_how_fast_each_tenth_is(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a GPU has other epochs
    printed = run_benchmark(tmp_path, "--epoch", "--float32")
    figures = re.search(r"^ours +float32 +(.+)$", printed, re.M)[1].replace(",", "").split()
    assert len(figures) == 12 and all(float(figure) > 0 for figure in figures)
