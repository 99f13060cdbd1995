"""A classifier in a real Dask cluster of two workers predicts as one process does, even if a worker is killed."""

import multiprocessing
import os
from functools import cache
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from conftest import SETTINGS, make_reviews

from textbert.inference.classifier import Classifier
from textbert.model.archive import write_archive

NEEDED = "optional: pip install dask distributed pyarrow"
dask = pytest.importorskip("dask", reason=NEEDED, exc_type=ImportError)
distributed = pytest.importorskip("distributed", reason=NEEDED, exc_type=ImportError)
dataframe = pytest.importorskip("dask.dataframe", reason=NEEDED, exc_type=ImportError)

PARTITIONS = 8
TIMEOUT = 600  # seconds; a busy machine starts processes slowly
DTYPES = {"label": object, "probability": "f4"}


@cache
def get_classifier(path):
    """Load a classifier, once in each process."""
    return Classifier.load(path, "cpu")


def score(partition, path):
    """Return the predictions for the texts of one partition."""
    return get_classifier(path).predict(partition["text"], progress=False).astype(DTYPES)


def score_with_origin(partition, path):
    """Do what `score` does, and add to each prediction which process made it and how."""
    predictions = score(partition, path).assign(process=os.getpid(), threads=torch.get_num_threads())
    daemon = multiprocessing.current_process().daemon
    return predictions.assign(daemon=daemon, loaded=get_classifier.cache_info().misses)


def score_or_die(partition, path, notes):
    """Do what `score` does, but die of SIGKILL on the first attempt at the fourth partition."""
    number = partition["number"].iloc[0] // 10
    predictions = score(partition, path)
    (Path(notes) / f"{number} {os.getpid()}").touch()
    if number == 3 and len(list(Path(notes).glob("3 *"))) == 1:
        psutil.Process().kill()
    return predictions


@pytest.fixture(scope="module")
def texts():
    """Eighty texts, for eight partitions of ten."""
    return make_reviews(10 * PARTITIONS, seed=5).assign(number=range(10 * PARTITIONS))


@pytest.fixture(scope="module")
def archive(bert_files, texts, tmp_path_factory):
    """The path of the archive of a classifier that predicts "good" for half of the texts."""
    path = tmp_path_factory.mktemp("dask") / "tiny.tar.gz"
    files = {"seed": 1, "initializer_range": 0.5}
    write_archive(bert_files(classifier=SETTINGS, **files), path)
    middle = Classifier.load(path, "cpu").predict(texts["text"], progress=False)["probability"].median()
    write_archive(bert_files(classifier={**SETTINGS, "threshold": float(middle)}, **files), path)
    return str(path)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of two worker processes with one thread each, which end with the tests."""
    waits = {f"distributed.comm.timeouts.{name}": f"{TIMEOUT}s" for name in ("connect", "tcp")}
    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": 0, "silence_logs": "CRITICAL"}
    options |= {"host": "127.0.0.1", "dashboard_address": None, "local_directory": tmp_path_factory.mktemp("cluster")}
    settings = dask.config.set({**waits, "distributed.scheduler.worker-ttl": None})
    with settings, distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        client.wait_for_workers(2, timeout=TIMEOUT)
        yield client
        client.wait_for_workers(2, timeout=TIMEOUT)  # a killed one is replaced
        workers = [psutil.Process(process) for process in client.run(os.getpid).values()]
    assert len(workers) == 2 and not psutil.wait_procs(workers, timeout=TIMEOUT)[1]


def predict_here(texts, archive):
    """Return the predictions of this process, one partition at a time, with one thread."""
    partitions = [texts.iloc[start : start + 10] for start in range(0, len(texts), 10)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return pd.concat(score(partition, archive) for partition in partitions)
    finally:
        torch.set_num_threads(threads)


def predict_in_cluster(texts, function, archive, *arguments, **columns):
    """Return the predictions of the cluster."""
    partitions = dataframe.from_pandas(texts, npartitions=PARTITIONS)
    return partitions.map_partitions(function, archive, *arguments, meta=DTYPES | columns).compute()


def test_two_workers_predict_as_one_process_does(client, texts, archive):
    columns = {"process": int, "threads": int, "daemon": bool, "loaded": int}
    found = predict_in_cluster(texts, score_with_origin, archive, **columns)
    expected = predict_here(texts, archive)
    assert found["label"].tolist() == expected["label"].tolist()
    assert found["label"].value_counts().tolist() == [40, 40]
    # partitions with the same texts make batches of the same shapes
    assert found["probability"].to_numpy().tobytes() == expected["probability"].to_numpy().tobytes()
    assert found.index.equals(texts.index)
    at_once = get_classifier(archive).predict(texts["text"], progress=False)
    assert found["probability"].to_numpy() == pytest.approx(at_once["probability"].to_numpy(), abs=1e-5)
    assert os.getpid() not in found["process"].tolist()
    assert set(found["threads"]) == {1}  # as Dask tells its workers
    assert set(found["loaded"]) == {1}
    assert found["daemon"].all()  # which may not start processes for the conversion


def test_the_partition_of_a_killed_worker_is_done_again(client, texts, archive, tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    found = predict_in_cluster(texts, score_or_die, archive, str(notes))
    expected = predict_here(texts, archive)
    assert found["label"].tolist() == expected["label"].tolist()
    assert found["probability"].to_numpy().tobytes() == expected["probability"].to_numpy().tobytes()
    done = [path.name.split() for path in notes.iterdir()]
    assert {number for number, _ in done} == set(map(str, range(PARTITIONS)))
    assert len({process for number, process in done if number == "3"}) == 2
