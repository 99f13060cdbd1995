"""The benchmark of training runs works at a tiny size, without data, and prints what it should measure."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow


def run_benchmark(folder, *options):
    """Run the benchmark in a folder without data and return its output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BERT_TEST_DATA": str(folder)}
    environment.pop("PYTHONPATH", None)  # peers take part only if they are installed
    command = [sys.executable, str(ROOT / "tests/benchmarks/bench_train.py"), "--quick", *options]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_benchmark_of_training_runs(tmp_path):
    output = run_benchmark(tmp_path)
    for contender in ("2019 loop +float32 +torch", "ours +float32 +torch", "ours +float32 +ours"):
        for data in ("IMDB", "SST-2"):
            values = re.search(rf"^{contender} +{data} +(.+)$", output, re.M)[1].replace(",", "").split()
            assert all(float(value.rstrip("%")) > 0 for value in values) and len(values) >= 5
    for goal in (
        r"goal  1.4  measured +[\d.]+ \([\d.]+ to [\d.]+\)  IMDB: ours float32 ours / 2019 loop float32 torch",
        r"goal    8  measured +[\d.]+ \([\d.]+ to [\d.]+\)  SST-2: ours float32 ours / 2019 loop float32 torch",
        r"goal  1.1  measured +[\d.]+ \([\d.]+ to [\d.]+\)  IMDB: ours float32 ours / matmul float32",
        r"goal  80 s  measured [\d.]+ s an epoch",
        r"goal 240 s  measured [\d.]+ s an epoch",
        r"goal   4 s  measured [\d.]+ s to evaluate 100",
    ):
        assert re.search(goal, output), goal


def test_benchmark_of_an_epoch_prints_the_speed_of_each_tenth(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # on a GPU the epochs are different
    output = run_benchmark(tmp_path, "--epoch", "--float32")
    values = re.search(r"^ours +float32 +(.+)$", output, re.M)[1].replace(",", "").split()
    assert len(values) == 12 and all(float(value) > 0 for value in values)
