"""Several processes convert as one does, and none is left behind, whoever is stopped or killed."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import ROOT
from reference import HARD_TEXTS, convert

from textbert.features import conversion as features_conversion
from textbert.features import tokenization


class OnArrival(str):
    """A text that has some Python run in the worker process that receives it; it arrives as "good"."""

    code = ""

    def __reduce__(self):
        return eval, (f"({self.code}, 'good')[1]",)


def test_two_processes_give_the_same_as_one(tokenizers, tmp_path, workers_in_time):
    class Traced(OnArrival):
        code = f"open({str(tmp_path)!r} + '/' + str(__import__('os').getpid()), 'w').close()"

    pairs = [("good food", "very good"), (Traced("good"), None), *zip(HARD_TEXTS, reversed(HARD_TEXTS))] * 100
    assert len(pairs) > 4 * 500  # several parcels of work
    one = convert(pairs, 16, tokenizers["cased"], processes=1, truncation="head+tail")
    assert list(tmp_path.iterdir()) == []
    two = convert(pairs, 16, tokenizers["cased"], processes=2, truncation="head+tail")
    encoders = [path.name for path in tmp_path.iterdir()]
    assert encoders, "no worker process was started"
    assert str(os.getpid()) not in encoders
    for name in ("ids", "lengths", "first_lengths", "labels"):
        assert getattr(one, name).dtype == getattr(two, name).dtype
        assert np.array_equal(getattr(one, name), getattr(two, name)), name


def test_a_killed_worker_ends_in_an_error(tokenizers, tmp_path, workers_in_time):
    """As when the system is out of memory. The conversion once waited forever for such a process."""
    killed = tmp_path / "killed"

    class Deadly(OnArrival):
        code = f"(open({str(killed)!r}, 'w').close(), __import__('os').kill(__import__('os').getpid(), 9))"

    raised = []

    def run():
        try:
            convert([("good", None), (Deadly("good"), None)] * 1500, 16, tokenizers["cased"], processes=2)
        except RuntimeError as error:
            raised.append((error, time.time()))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(300)
    assert raised, "the conversion goes on without its worker" if thread.is_alive() else "no error was raised"
    error, when = raised[0]
    assert "processes=1" in str(error)
    assert when - killed.stat().st_mtime < 10
    # and the next conversion is not hurt
    assert len(convert([("good", None)] * 1500, 16, tokenizers["cased"], processes=2)) == 1500


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_stops_the_conversion_and_its_workers(tokenizers, tmp_path, processes):
    with open(tmp_path / "tokenizer.pkl", "wb") as file:
        pickle.dump(tokenizers["uncased"], file)
    (tmp_path / "script.py").write_text(
        "import multiprocessing, os, pickle, signal, threading, tools\n"
        "tokenizer = pickle.load(open('tokenizer.pkl', 'rb'))\n"
        "texts = (' '.join(f'w{i}x{j}' for j in range(100)) for i in range(20_000))\n"
        "examples = [tools.InputExample(i, text, label='0') for i, text in enumerate(texts)]\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background starts without it
        "threading.Timer(3, os.killpg, (0, signal.SIGINT)).start()\n"  # to all, as a terminal and Jupyter do
        "try:\n"
        f"    tools.convert_examples_to_features(examples, {{'0': 0}}, 512, tokenizer, processes={processes})\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', multiprocessing.active_children())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "script.py"]
    options = {"capture_output": True, "text": True, "timeout": 300, "check": False, "start_new_session": True}
    done = subprocess.run(command, cwd=tmp_path, env=environment, **options)
    assert (done.stdout, done.stderr) == ("interrupted []\n", "")


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no signal masks")
def test_workers_leave_ctrl_c_to_the_process_that_started_them(tokenizers):
    with features_conversion.worker_pool(tokenization.TokenizationConfig(tokenizers["uncased"], 9), 2) as pool:
        of_worker = pool.result(timeout=300).submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result(timeout=300)
    assert signal.SIGINT in of_worker and signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


class FailingPool:
    """A pool whose end makes loky's own thread fail, and another one too."""

    def shutdown(self, kill_workers):
        assert kill_workers
        for name in ("ExecutorManagerThread", "another"):
            fail_in_a_thread(name)


def fail_in_a_thread(name):
    thread = threading.Thread(target=int, args=("no number",), name=name)
    thread.start()
    thread.join()


def test_only_lokys_own_thread_fails_in_silence_and_only_while_workers_are_killed(monkeypatch):
    failed = []

    def hook(arguments):
        failed.append((arguments.thread.name, arguments.exc_type))

    monkeypatch.setattr(threading, "excepthook", hook)
    features_conversion.kill_workers(FailingPool())
    assert failed == [("another", ValueError)]
    assert threading.excepthook is hook
    fail_in_a_thread("ExecutorManagerThread")
    assert failed[1:] == [("ExecutorManagerThread", ValueError)]


def test_failures_are_heard_again_where_the_workers_could_not_be_killed():
    hook = threading.excepthook
    with pytest.raises(AttributeError, match="shutdown"):
        features_conversion.kill_workers(None)
    assert threading.excepthook is hook


@pytest.mark.parametrize("error", [ImportError("no functioning sem_open"), OSError(38, "Function not implemented")])
def test_where_no_process_can_be_started_this_one_does_all(monkeypatch, tokenizers, capsys, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(features_conversion, "_start_workers", fail)
    conversion, pairs = tokenization.TokenizationConfig(tokenizers["uncased"], 9), [("good soup", None)] * 2100
    labels = np.zeros(len(pairs), "<i4")
    features = features_conversion.convert_pairs(conversion, pairs, labels, 3, progress=False)
    assert features[:] == features_conversion.convert_pairs(conversion, pairs, labels, 1, progress=False)[:]
    assert capsys.readouterr().out.count("No other process can be started here") == 1
