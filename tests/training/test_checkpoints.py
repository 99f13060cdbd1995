"""Stop signals, checkpoints that restore everything, and the results of finished trials."""

import os
import signal
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from loop import read_parameters

import tools
from textbert.training.checkpoints import (
    CONTENT,
    SPLIT,
    Checkpoint,
    TrialCache,
    catch_stop_signals,
    get_checkpoint_path,
    get_run_config,
    remove_checkpoint,
)
from textbert.training.optim import make_schedule
from textbert.utils import errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_stop_signal_is_recorded_and_second_one_interrupts(number, capsys):
    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), catch_stop_signals() as stop_signals:
        assert not stop_signals
        os.kill(os.getpid(), number)
        assert stop_signals == [number.name] and "Stopping after the current step" in capsys.readouterr().out
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is handler


def test_another_stop_signal_is_no_repetition():
    """A scheduler's SIGTERM reaches a kernel itself, and by way of make tutorial, which interrupts it."""
    with catch_stop_signals() as stop_signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert stop_signals == ["SIGTERM", "SIGINT"]


def test_ctrl_break_is_a_stop_signal_on_windows(monkeypatch, capsys):
    if not hasattr(signal, "SIGUSR1"):
        pytest.skip("this system has no signal that could stand in for SIGBREAK")
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)  # as a stand-in
    handler = signal.getsignal(signal.SIGUSR1)
    with catch_stop_signals() as stop_signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop_signals == ["SIGUSR1"]
    assert signal.getsignal(signal.SIGUSR1) is handler


def test_stop_signal_is_reported_by_the_given_function(capsys):
    messages = []
    with catch_stop_signals(messages.append):
        os.kill(os.getpid(), signal.SIGTERM)
    assert len(messages) == 1 and capsys.readouterr().out == ""


# ---------- Checkpoint ------------------------------------------------------------------------------------------------


def make_accelerator():
    """Return an Accelerator of one process, with the same precision on every machine."""
    return Accelerator(cpu=True, mixed_precision="no")


def make_training():
    """Return (accelerator, model, optimizer, schedule), for a model of one weight."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return make_accelerator(), model, optimizer, make_schedule(optimizer, 10, 0.5)


def test_checkpoint_restores_everything(tmp_path):
    path = get_checkpoint_path(tmp_path)
    original = make_training()
    assert Checkpoint(path, {}).load(*original) is None
    _, model, optimizer, schedule = original
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    schedule.step()
    progress = {"epoch": 3, "losses": [0.5], "best_weights": {"w": torch.ones(2)}}
    Checkpoint(path, {"SEED": 1}).save(*original, progress)
    expected = torch.rand(3)
    resumed = make_training()
    restored = Checkpoint(path, {"SEED": 1}).load(*resumed)
    assert restored["losses"] == [0.5] and torch.equal(restored["best_weights"]["w"], torch.ones(2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(resumed[1].weight, model.weight) and resumed[3].get_last_lr() == schedule.get_last_lr()
    assert str(resumed[2].state_dict()) == str(optimizer.state_dict())
    remove_checkpoint(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_with_another_config_is_refused_unless_resume_is_false(tmp_path):
    path = get_checkpoint_path(tmp_path)
    Checkpoint(path, {"SEED": 1, "EPOCHS": 3, "old": None}).save(*make_training(), {})
    message = r"different settings or data \(SEED was 1 and is 2; new was None and is 'x'\): set RESUME = False"
    with pytest.raises(ValueError, match=message):
        Checkpoint(path, {"EPOCHS": 3, "SEED": 2, "new": "x"}).load(*make_training())
    assert Checkpoint(path, {"SEED": 2}, resume=False).load(*make_training()) is None
    assert Checkpoint(path, {"EPOCHS": 3, "SEED": 1}).load(*make_training()) == {}  # a missing key is None


def test_all_processes_load_the_checkpoint_of_the_main_process(tmp_path, monkeypatch):
    path = get_checkpoint_path(tmp_path)
    Checkpoint(path, {}).save(*make_training(), {"epoch": 3})
    (state,) = broadcast = [torch.load(path, weights_only=True)]
    monkeypatch.setattr("accelerate.utils.broadcast_object_list", lambda own: own if own != [None] else broadcast)
    _, *others = make_training()
    second = SimpleNamespace(is_main_process=False, num_processes=2, process_index=1)
    elsewhere = Checkpoint(tmp_path / "another disk.pt", {})
    assert elsewhere.load(second, *others) == {"epoch": 3}
    assert torch.equal(others[0].weight, state["model"]["weight"])
    broadcast[0] = ValueError("refused")
    with pytest.raises(ValueError, match="refused"):
        elsewhere.load(second, *others)


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_corrupt_checkpoint_is_refused_with_a_hint(tmp_path, damage):
    path = get_checkpoint_path(tmp_path)
    Checkpoint(path, {}).save(*make_training(), {})
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    with pytest.raises(ValueError, match=r"checkpoint\.pt is corrupt .* set RESUME = False"):
        Checkpoint(path, {}).load(*make_training())


def test_checkpoint_cannot_execute_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    path = get_checkpoint_path(tmp_path)
    path.parent.mkdir()
    torch.save({"identity": {}, "model": Attack()}, path)
    with pytest.raises(ValueError, match="is corrupt"):
        Checkpoint(path, {}).load(*make_training())
    assert not (tmp_path / "executed").exists()


BASE = {"BERT_MODEL": "mybert", CONTENT: "1a"}


@pytest.mark.parametrize(
    ("saved", "current", "difference"),
    [
        (BASE, BASE, None),
        (BASE, {**BASE, CONTENT: "2b"}, f"{CONTENT} was '1a' and is '2b'"),
        (BASE, {**BASE, "BERT_MODEL": "renamed"}, None),
        ({"BERT_MODEL": "mybert"}, BASE, None),  # of an older checkpoint
        ({"BERT_MODEL": "other"}, BASE, "BERT_MODEL was 'other' and is 'mybert'"),
        ({**BASE, SPLIT: "aa"}, {**BASE, SPLIT: "bb"}, f"{SPLIT} was 'aa' and is 'bb'"),
        (BASE, {**BASE, SPLIT: "bb"}, None),  # the same
        ({**BASE, SPLIT: "aa"}, BASE, None),
    ],
)
def test_model_and_split_are_compared_by_content(tmp_path, saved, current, difference):
    path = get_checkpoint_path(tmp_path)
    Checkpoint(path, saved).save(*make_training(), {"epoch": 3})
    if difference:
        with pytest.raises(ValueError, match=rf"different settings or data \({difference}\)"):
            Checkpoint(path, current).load(*make_training())
    else:
        assert Checkpoint(path, current).load(*make_training()) == {"epoch": 3}


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), MemoryError(), RuntimeError("out of memory")]
)
def test_unreadable_checkpoint_is_not_called_corrupt(tmp_path, monkeypatch, error):
    path = get_checkpoint_path(tmp_path)
    Checkpoint(path, {}).save(*make_training(), {})

    def load(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(errors.ReadError, match=r"checkpoint\.pt cannot be read \([^)]*\): [^R]*$"):
        Checkpoint(path, {}).load(*make_training())
    assert path.is_file()


def test_symbolic_links_to_checkpoints_are_kept(tmp_path):
    large = tmp_path / "large"
    (large / "folder").mkdir(parents=True)
    path = get_checkpoint_path(tmp_path / "a")
    path.parent.parent.mkdir()
    path.parent.symlink_to(large / "folder")
    file = get_checkpoint_path(tmp_path / "b")
    file.parent.mkdir(parents=True)
    file.symlink_to(large / "file.pt")
    for task, link in (("a", path), ("b", file)):
        Checkpoint(link, {}).save(*make_training(), {"epoch": 1})
        assert Checkpoint(link, {}).load(*make_training()) == {"epoch": 1}
        remove_checkpoint(tmp_path / task)
        assert Checkpoint(link, {}).load(*make_training()) is None
    assert path.parent.is_symlink() and file.is_symlink() and [entry.name for entry in large.iterdir()] == ["folder"]


# ---------- Trials ----------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    """Stands in for Ctrl-C or a power cut."""


class FakeFineTune:
    """Stands in for `fine_tune`: records its arguments, and is interrupted where the rate is None."""

    def __init__(self):
        self.calls = []

    def __call__(self, rate, epochs):
        if rate is None:
            raise Interrupted
        self.calls.append((rate, epochs))
        return {"kept epoch": epochs, "validation MCC": rate / 3}


def search(path, config, rates, **options):
    """Try some learning rates; return (the arguments of the runs, the results)."""
    fine_tune, trials = FakeFineTune(), TrialCache(path, config, **options)
    results = [trials.run(make_accelerator(), f"learning rate {i}", fine_tune, rate, 2) for i, rate in enumerate(rates)]
    return fine_tune.calls, results


def test_finished_trial_is_not_repeated_after_an_interruption(tmp_path, capsys):
    path = get_checkpoint_path(tmp_path).with_name("trials.json")
    calls, expected = search(tmp_path / "undisturbed.json", {"SEED": 1}, [0.1, 0.2, 0.7])
    assert calls == [(0.1, 2), (0.2, 2), (0.7, 2)]
    assert expected[2] == {"kept epoch": 2, "validation MCC": 0.7 / 3}
    for interrupted in ([None], [0.1, 0.2, None]):
        with pytest.raises(Interrupted):
            search(path, {"SEED": 1}, interrupted)
    capsys.readouterr()
    calls, results = search(path, {"SEED": 1}, [0.1, 0.2, 0.7])
    assert calls == [(0.7, 2)] and results == expected  # bitwise identical
    assert capsys.readouterr().out.splitlines() == [
        "learning rate 0: already done",
        "learning rate 1: already done",
        "learning rate 2:",
    ]
    assert search(path, {"SEED": 1}, [None] * 3) == ([], expected)
    remove_checkpoint(tmp_path)
    assert not path.exists()


def test_trial_with_another_config_is_run(tmp_path):
    path = tmp_path / "trials.json"
    search(path, {"SEED": 1, "rates": [1, 2]}, [0.1])
    for config in ({"SEED": 2, "rates": [1, 2]}, {"SEED": 1, "rates": [2, 1]}, {"SEED": 1}, {}):
        calls, results = search(path, config, [0.3])
        assert calls == [(0.3, 2)] and results[0]["validation MCC"] == pytest.approx(0.1)
    # each is found again, whatever the order of its keys
    calls, results = search(path, {"rates": [1, 2], "SEED": 1}, [None])
    assert calls == [] and results[0]["validation MCC"] == 0.1 / 3


def test_trial_with_another_model_is_run(tmp_path):
    path = tmp_path / "trials.json"
    search(path, BASE, [0.1])
    assert search(path, {**BASE, "BERT_MODEL": "renamed"}, [None])[0] == []
    assert search(path, {**BASE, CONTENT: "2b"}, [0.2])[0] == [(0.2, 2)]


def test_trials_saved_before_models_were_hashed_are_not_repeated(tmp_path):
    path = tmp_path / "trials.json"
    search(path, {"BERT_MODEL": "mybert", "SEED": 1}, [0.1])
    assert search(path, {**BASE, "SEED": 1}, [None])[0] == []
    for config in ({**BASE, "SEED": 2}, {**BASE, "BERT_MODEL": "other", "SEED": 1}):
        assert search(path, config, [0.2])[0] == [(0.2, 2)]


def test_unreadable_trials_are_kept(tmp_path, monkeypatch):
    path = tmp_path / "trials.json"
    search(path, {}, [0.1])
    before = path.read_bytes()

    def read_text(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(errors.ReadError, match=r"trials\.json cannot be read \(Permission denied\)"):
        search(path, {}, [0.1])
    assert path.read_bytes() == before


def test_resume_false_repeats_trials(tmp_path):
    path = tmp_path / "trials.json"
    search(path, {}, [0.1, 0.2])
    assert search(path, {}, [0.3], resume=False)[0] == [(0.3, 2)]
    assert search(path, {}, [None, 0.4])[0] == [(0.4, 2)]  # earlier results are deleted


@pytest.mark.parametrize("damage", [b"", b'{"a": ', b"[1, 2]", b"null", b"\xff\xfe", None])
def test_corrupt_trials_are_run_again(tmp_path, capsys, damage):
    path = tmp_path / "trials.json"
    search(path, {}, [0.1])
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    capsys.readouterr()
    assert search(path, {}, [0.1])[0] == [(0.1, 2)]
    assert "trials.json is corrupt: its trials will be run again" in capsys.readouterr().out
    assert search(path, {}, [None])[0] == []  # and the file is valid again


def test_only_the_main_process_writes_trials(tmp_path):
    accelerator = SimpleNamespace(is_main_process=False, print=lambda *_: None)
    make_accelerator()  # broadcasting the results needs one
    trials, fine_tune = TrialCache(tmp_path / "trials.json", {}), FakeFineTune()
    assert trials.run(accelerator, "fold 1", fine_tune, 0.3, 2)["kept epoch"] == 2
    assert list(tmp_path.iterdir()) == []


def test_run_config_depends_on_the_rows():
    parameters = read_parameters()
    features, model = SimpleNamespace(fingerprint="data"), SimpleNamespace(fingerprint="base")
    split = ([0, 2, 3], [1, 4])
    splits = [split, ([0, 2, 3, 1], [4]), ([2, 0, 3], [1, 4]), tuple(map(np.array, split))]
    hashes = [get_run_config(features, model, parameters, rows)[SPLIT] for rows in splits]
    assert hashes[0] == hashes[3] and len(set(hashes)) == 3 and SPLIT not in get_run_config(features, model, parameters)


def test_run_config_depends_on_what_features_without_a_file_contain(tokenizers):
    texts, labels, lengths = ["good", "bad"], ("0", "1"), (9, 8)
    model, contents = SimpleNamespace(fingerprint="base"), set()
    for text, label, length in [(texts[0], "0", 9), (texts[0], "0", 9), *product(texts, labels, lengths)]:
        examples = [tools.InputExample(0, text, label=label)]
        features = tools.convert_examples_to_features(
            examples, {"0": 0, "1": 1}, length, tokenizers["uncased"], progress=False
        )
        contents.add(get_run_config(features, model, {})["data"])
    assert len(contents) == 8
    features.fingerprint = "of a file"
    assert get_run_config(features, model, {})["data"] == "of a file"


def test_trial_with_other_rows_is_run(tmp_path):
    def fine_tune(rows, held_out):
        return [len(rows), len(held_out)]

    trials, accelerator = TrialCache(tmp_path / "trials.json", {"SEED": 1}), make_accelerator()
    for rows in (np.arange(5), np.arange(4), np.arange(5)):
        assert trials.run(accelerator, "fold 1", fine_tune, rows, np.arange(2)) == [len(rows), 2]
    assert len(trials._read()) == 2
    trials.path.write_text('{"[\\"fold 2\\", {\\"SEED\\": 1}]": "older result"}')
    assert trials.run(accelerator, "fold 2", fine_tune, np.arange(5), np.arange(2)) == "older result"
