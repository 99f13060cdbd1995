"""Several processes convert exactly as one does, and none remains, whichever is interrupted or killed."""

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

from textbert.features import conversion
from textbert.features.tokenization import TokenizationConfig


class CodeText(str):
    """A text that executes Python code in the worker process that unpickles it, where it becomes "good"."""

    code = ""

    def __reduce__(self):
        return eval, (f"({self.code}, 'good')[1]",)


def test_two_processes_give_the_same_as_one(tokenizers, tmp_path, workers_in_time):
    class Traced(CodeText):
        code = f"open({str(tmp_path)!r} + '/' + str(__import__('os').getpid()), 'w').close()"

    pairs = [("good food", "very good"), (Traced("good"), None), *zip(HARD_TEXTS, reversed(HARD_TEXTS))] * 100
    assert len(pairs) > 4 * 500  # several batches for the workers
    one = convert(pairs, 16, tokenizers["cased"], processes=1, truncation="head+tail")
    assert list(tmp_path.iterdir()) == []
    two = convert(pairs, 16, tokenizers["cased"], processes=2, truncation="head+tail")
    pids = [path.name for path in tmp_path.iterdir()]
    assert pids, "no worker process was started"
    assert str(os.getpid()) not in pids
    for name in ("ids", "lengths", "segment_a_lengths", "labels"):
        assert getattr(one, name).dtype == getattr(two, name).dtype
        assert np.array_equal(getattr(one, name), getattr(two, name)), name


def test_a_killed_worker_raises_an_error(tokenizers, tmp_path, workers_in_time):
    """As when the system is out of memory. The conversion used to wait forever for such a process."""
    killed = tmp_path / "killed"

    class Deadly(CodeText):
        code = f"(open({str(killed)!r}, 'w').close(), __import__('os').kill(__import__('os').getpid(), 9))"

    errors = []

    def run():
        try:
            convert([("good", None), (Deadly("good"), None)] * 1500, 16, tokenizers["cased"], processes=2)
        except RuntimeError as error:
            errors.append((error, time.time()))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(300)
    assert errors, "the conversion waits for its worker" if thread.is_alive() else "no error was raised"
    error, error_time = errors[0]
    assert "was killed (out of memory?)" in str(error) and "processes=1" in str(error)
    assert error_time - killed.stat().st_mtime < 10
    # and the next conversion works
    assert len(convert([("good", None)] * 1500, 16, tokenizers["cased"], processes=2)) == 1500


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_interrupts_the_conversion_and_its_workers(tokenizers, tmp_path, processes):
    with open(tmp_path / "tokenizer.pkl", "wb") as file:
        pickle.dump(tokenizers["uncased"], file)
    (tmp_path / "script.py").write_text(
        "import multiprocessing, os, pickle, signal, threading, tools\n"
        "tokenizer = pickle.load(open('tokenizer.pkl', 'rb'))\n"
        "texts = (' '.join(f'w{i}x{j}' for j in range(100)) for i in range(20_000))\n"
        "examples = [tools.InputExample(i, text, label='0') for i, text in enumerate(texts)]\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job starts without it
        "threading.Timer(3, os.killpg, (0, signal.SIGINT)).start()\n"  # to the whole group, as terminals and Jupyter do
        "try:\n"
        f"    tools.convert_examples_to_features(examples, {{'0': 0}}, 512, tokenizer, processes={processes})\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', multiprocessing.active_children())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "script.py"]
    options = {"capture_output": True, "text": True, "timeout": 300, "check": False, "start_new_session": True}
    result = subprocess.run(command, cwd=tmp_path, env=environment, **options)
    assert (result.stdout, result.stderr) == ("interrupted []\n", "")


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no signal masks")
def test_workers_ignore_ctrl_c(tokenizers):
    with conversion.worker_pool(TokenizationConfig(tokenizers["uncased"], 9), 2) as pool:
        worker_mask = pool.result(timeout=300).submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result(timeout=300)
    assert signal.SIGINT in worker_mask and signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


class FailingPool:
    """A pool whose shutdown makes loky's own thread fail, and another thread."""

    def shutdown(self, kill_workers):
        assert kill_workers
        for name in ("ExecutorManagerThread", "another"):
            fail_in_thread(name)


def fail_in_thread(name):
    thread = threading.Thread(target=int, args=("not a number",), name=name)
    thread.start()
    thread.join()


def test_only_failures_of_lokys_own_thread_are_hidden_and_only_while_workers_are_killed(monkeypatch):
    failures = []

    def hook(args):
        failures.append((args.thread.name, args.exc_type))

    monkeypatch.setattr(threading, "excepthook", hook)
    conversion.kill_workers(FailingPool())
    assert failures == [("another", ValueError)]
    assert threading.excepthook is hook
    fail_in_thread("ExecutorManagerThread")
    assert failures[1:] == [("ExecutorManagerThread", ValueError)]


def test_failures_are_shown_again_if_the_workers_could_not_be_killed():
    hook = threading.excepthook
    with pytest.raises(AttributeError, match="shutdown"):
        conversion.kill_workers(None)
    assert threading.excepthook is hook


@pytest.mark.parametrize("error", [ImportError("no functioning sem_open"), OSError(38, "Function not implemented")])
def test_without_worker_processes_this_one_converts_alone(monkeypatch, tokenizers, capsys, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(conversion, "_start_workers", fail)
    config, pairs = TokenizationConfig(tokenizers["uncased"], 9), [("good soup", None)] * 2100
    labels = np.zeros(len(pairs), "<i4")
    features = conversion.convert_pairs(config, pairs, labels, 3, progress=False)
    assert features[:] == conversion.convert_pairs(config, pairs, labels, 1, progress=False)[:]
    assert capsys.readouterr().out.count("Cannot start worker processes here") == 1
