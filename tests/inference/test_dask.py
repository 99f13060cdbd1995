"""A classifier in a real Dask cluster of two worker processes: the answers of one process, even if one is killed."""

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

PARTS = 8
PATIENCE = 600  # seconds; a busy machine starts processes slowly
ANSWERS = {"label": object, "probability": "f4"}


@cache
def get_classifier(path):
    """Load a classifier, once in each process."""
    return Classifier.load(path, "cpu")


def score(part, path):
    """Return the answers to the texts of one part."""
    return get_classifier(path).predict(part["text"], progress=False).astype(ANSWERS)


def score_and_tell(part, path):
    """Do what `score` does, and say beside each answer how it came about."""
    answers = score(part, path).assign(process=os.getpid(), threads=torch.get_num_threads())
    daemon = multiprocessing.current_process().daemon
    return answers.assign(daemon=daemon, loaded=get_classifier.cache_info().misses)


def score_or_die(part, path, notes):
    """Do what `score` does, but die of SIGKILL in the midst of it the first time that the fourth part comes."""
    number = part["number"].iloc[0] // 10
    answers = score(part, path)
    (Path(notes) / f"{number} {os.getpid()}").touch()
    if number == 3 and len(list(Path(notes).glob("3 *"))) == 1:
        psutil.Process().kill()
    return answers


@pytest.fixture(scope="module")
def texts():
    """Eight parts of ten texts."""
    return make_reviews(10 * PARTS, seed=5).assign(number=range(10 * PARTS))


@pytest.fixture(scope="module")
def archive(bert_files, texts, tmp_path_factory):
    """The path of the archive of a classifier that finds half of the texts good."""
    path = tmp_path_factory.mktemp("dask") / "tiny.tar.gz"
    files = {"seed": 1, "initializer_range": 0.5}
    write_archive(bert_files(classifier=SETTINGS, **files), path)
    middle = Classifier.load(path, "cpu").predict(texts["text"], progress=False)["probability"].median()
    write_archive(bert_files(classifier={**SETTINGS, "threshold": float(middle)}, **files), path)
    return str(path)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of two worker processes with one thread each, which are gone when the tests are."""
    waits = {f"distributed.comm.timeouts.{name}": f"{PATIENCE}s" for name in ("connect", "tcp")}
    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": 0, "silence_logs": "CRITICAL"}
    options |= {"host": "127.0.0.1", "dashboard_address": None, "local_directory": tmp_path_factory.mktemp("cluster")}
    settings = dask.config.set({**waits, "distributed.scheduler.worker-ttl": None})
    with settings, distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        client.wait_for_workers(2, timeout=PATIENCE)
        yield client
        client.wait_for_workers(2, timeout=PATIENCE)  # a killed one has a successor
        workers = [psutil.Process(process) for process in client.run(os.getpid).values()]
    assert len(workers) == 2 and not psutil.wait_procs(workers, timeout=PATIENCE)[1]


def predict_here(texts, archive):
    """Return the answers of this process, part by part, with one thread."""
    parts = [texts.iloc[start : start + 10] for start in range(0, len(texts), 10)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return pd.concat(score(part, archive) for part in parts)
    finally:
        torch.set_num_threads(threads)


def predict_in_cluster(texts, function, archive, *arguments, **columns):
    """Return the answers of the cluster."""
    parts = dataframe.from_pandas(texts, npartitions=PARTS)
    return parts.map_partitions(function, archive, *arguments, meta=ANSWERS | columns).compute()


def test_two_workers_predict_as_one_process_does(client, texts, archive):
    columns = {"process": int, "threads": int, "daemon": bool, "loaded": int}
    found = predict_in_cluster(texts, score_and_tell, archive, **columns)
    expected = predict_here(texts, archive)
    assert found["label"].tolist() == expected["label"].tolist()
    assert found["label"].value_counts().tolist() == [40, 40]
    # parts of the same texts make batches of the same shapes
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
    assert {number for number, _ in done} == set(map(str, range(PARTS)))
    assert len({process for number, process in done if number == "3"}) == 2
