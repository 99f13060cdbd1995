"""The benchmark of training runs, at a tiny size and without data, and prints what it is to measure."""

import os
import re
import subprocess
import sys

from conftest import ROOT


def test_benchmark_of_training_runs(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BERT_TEST_DATA": str(tmp_path)}
    environment.pop("PYTHONPATH", None)  # without peers: they take long to import
    command = [sys.executable, str(ROOT / "tests/benchmarks/bench_train.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    for contender in ("2019 loop +float32 +torch", "ours +float32 +torch", "ours +float32 +ours"):
        for data in ("IMDB", "SST-2"):
            figures = re.search(rf"^{contender} +{data} +(.+)$", done.stdout, re.M)[1].replace(",", "").split()
            assert all(float(figure.rstrip("%")) > 0 for figure in figures) and len(figures) >= 5
    for goal in (
        r"goal  1.4  measured +[\d.]+ \([\d.]+ to [\d.]+\)  IMDB: ours float32 ours / 2019 loop float32 torch",
        r"goal    8  measured +[\d.]+ \([\d.]+ to [\d.]+\)  SST-2: ours float32 ours / 2019 loop float32 torch",
        r"goal  1.1  measured +[\d.]+ \([\d.]+ to [\d.]+\)  IMDB: ours float32 ours / matmul float32",
        r"goal  80 s  measured [\d.]+ s an epoch",
        r"goal 240 s  measured [\d.]+ s an epoch",
        r"goal   4 s  measured [\d.]+ s to evaluate 100",
    ):
        assert re.search(goal, done.stdout), goal
