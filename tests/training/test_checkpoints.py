"""What a training keeps: stop requests, a checkpoint that brings everything back, and results of finished trials."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from test_parameters import TRAIN

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
def test_a_stop_is_noted_once_and_obeyed_twice(number, capsys):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), catch_stop_signals() as asked:
        assert not asked
        os.kill(os.getpid(), number)
        assert asked == [number.name] and "Stopping as soon as" in capsys.readouterr().out
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_ctrl_break_asks_on_windows(monkeypatch, capsys):
    if not hasattr(signal, "SIGUSR1"):
        pytest.skip("there is a real SIGBREAK here, and nothing to stand for it")
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)  # which stands for it here
    before = signal.getsignal(signal.SIGUSR1)
    with catch_stop_signals() as asked:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert asked == ["SIGUSR1"]
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_stop_is_told_in_the_way_that_is_given(capsys):
    said = []
    with catch_stop_signals(said.append):
        os.kill(os.getpid(), signal.SIGTERM)
    assert len(said) == 1 and capsys.readouterr().out == ""


# ---------- Checkpoint ------------------------------------------------------------------------------------------------


def make_accelerator():
    """Return one process, whose precision is the same on every machine."""
    return Accelerator(cpu=True, mixed_precision="no")


def make_training():
    """Return (accelerator, model, optimizer, schedule) of one weight."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return make_accelerator(), model, optimizer, make_schedule(optimizer, 10, 0.5)


def test_a_checkpoint_brings_everything_back(tmp_path):
    path = get_checkpoint_path(tmp_path)
    kept = make_training()
    assert Checkpoint(path, {}).load(*kept) is None
    _, model, optimizer, schedule = kept
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    schedule.step()
    progress = {"epoch": 3, "losses": [0.5], "best_weights": {"w": torch.ones(2)}}
    Checkpoint(path, {"SEED": 1}).save(*kept, progress)
    drawn = torch.rand(3)
    other = make_training()
    found = Checkpoint(path, {"SEED": 1}).load(*other)
    assert found["losses"] == [0.5] and torch.equal(found["best_weights"]["w"], torch.ones(2))
    assert torch.equal(torch.rand(3), drawn)
    assert torch.equal(other[1].weight, model.weight) and other[3].get_last_lr() == schedule.get_last_lr()
    assert str(other[2].state_dict()) == str(optimizer.state_dict())
    remove_checkpoint(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_identity_is_refused_until_told_to_start_again(tmp_path):
    path = get_checkpoint_path(tmp_path)
    Checkpoint(path, {"SEED": 1, "EPOCHS": 3, "old": None}).save(*make_training(), {})
    message = r"other settings or data \(SEED was 1 and is 2; new was None and is 'x'\): set RESUME = False"
    with pytest.raises(ValueError, match=message):
        Checkpoint(path, {"EPOCHS": 3, "SEED": 2, "new": "x"}).load(*make_training())
    assert Checkpoint(path, {"SEED": 2}, resume=False).load(*make_training()) is None
    assert Checkpoint(path, {"EPOCHS": 3, "SEED": 1}).load(*make_training()) == {}  # what was not set was None


def test_what_the_first_process_finds_all_take_up(tmp_path, monkeypatch):
    path = get_checkpoint_path(tmp_path)
    Checkpoint(path, {}).save(*make_training(), {"epoch": 3})
    (found,) = handed_round = [torch.load(path, weights_only=True)]
    monkeypatch.setattr("accelerate.utils.broadcast_object_list", lambda own: own if own != [None] else handed_round)
    _, *others = make_training()
    second = SimpleNamespace(is_main_process=False, num_processes=2, process_index=1)
    elsewhere = Checkpoint(tmp_path / "another disk.pt", {})
    assert elsewhere.load(second, *others) == {"epoch": 3}
    assert torch.equal(others[0].weight, found["model"]["weight"])
    handed_round[0] = ValueError("refused")
    with pytest.raises(ValueError, match="refused"):
        elsewhere.load(second, *others)


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_no_riddle(tmp_path, damage):
    path = get_checkpoint_path(tmp_path)
    Checkpoint(path, {}).save(*make_training(), {})
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged .* set RESUME = False"):
        Checkpoint(path, {}).load(*make_training())


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    path = get_checkpoint_path(tmp_path)
    path.parent.mkdir()
    torch.save({"identity": {}, "model": Attack()}, path)
    with pytest.raises(ValueError, match="is damaged"):
        Checkpoint(path, {}).load(*make_training())
    assert not (tmp_path / "executed").exists()


BASE = {"BERT_MODEL": "mybert", CONTENT: "1a"}


@pytest.mark.parametrize(
    ("theirs", "ours", "differs"),
    [
        (BASE, BASE, None),
        (BASE, {**BASE, CONTENT: "2b"}, f"{CONTENT} was '1a' and is '2b'"),
        (BASE, {**BASE, "BERT_MODEL": "renamed"}, None),
        ({"BERT_MODEL": "mybert"}, BASE, None),  # of a time before it was noted
        ({"BERT_MODEL": "other"}, BASE, "BERT_MODEL was 'other' and is 'mybert'"),
        ({**BASE, SPLIT: "aa"}, {**BASE, SPLIT: "bb"}, f"{SPLIT} was 'aa' and is 'bb'"),
        (BASE, {**BASE, SPLIT: "bb"}, None),  # of before, too
        ({**BASE, SPLIT: "aa"}, BASE, None),
    ],
)
def test_base_and_split_are_known_by_what_they_hold(tmp_path, theirs, ours, differs):
    path = get_checkpoint_path(tmp_path)
    Checkpoint(path, theirs).save(*make_training(), {"epoch": 3})
    if differs:
        with pytest.raises(ValueError, match=rf"other settings or data \({differs}\)"):
            Checkpoint(path, ours).load(*make_training())
    else:
        assert Checkpoint(path, ours).load(*make_training()) == {"epoch": 3}


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), MemoryError(), RuntimeError("out of memory")]
)
def test_a_checkpoint_that_cannot_be_read_now_is_not_called_damaged(tmp_path, monkeypatch, error):
    path = get_checkpoint_path(tmp_path)
    Checkpoint(path, {}).save(*make_training(), {})

    def load(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(errors.ReadError, match=r"checkpoint\.pt cannot be read \([^)]*\): [^R]*$"):
        Checkpoint(path, {}).load(*make_training())
    assert path.is_file()


def test_where_a_checkpoint_lies_on_another_disk_the_links_stay(tmp_path):
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
    assert path.parent.is_symlink() and file.is_symlink() and [found.name for found in large.iterdir()] == ["folder"]


# ---------- Trials ----------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    """Stands for Ctrl-C or a power cut."""


class Tried:
    """Stands for `fine_tune`: notes its arguments, and is interrupted where the rate is None."""

    def __init__(self):
        self.calls = []

    def __call__(self, rate, epochs):
        if rate is None:
            raise Interrupted
        self.calls.append((rate, epochs))
        return SimpleNamespace(summary={"best epoch": epochs, "validation MCC": rate / 3})


def search(path, identity, rates, **options):
    """Try some learning rates; return (which were really tried, the results)."""
    tried, trials = Tried(), TrialCache(path, identity, **options)
    found = [trials.run(make_accelerator(), f"learning rate {i}", tried, rate, 2) for i, rate in enumerate(rates)]
    return tried.calls, found


def test_a_finished_trial_is_not_run_again_after_an_interruption(tmp_path, capsys):
    path = get_checkpoint_path(tmp_path).with_name("trials.json")
    tried, expected = search(tmp_path / "undisturbed.json", {"SEED": 1}, [0.1, 0.2, 0.7])
    assert tried == [(0.1, 2), (0.2, 2), (0.7, 2)]
    assert expected[2] == {"best epoch": 2, "validation MCC": 0.7 / 3}
    for interrupted in ([None], [0.1, 0.2, None]):
        with pytest.raises(Interrupted):
            search(path, {"SEED": 1}, interrupted)
    capsys.readouterr()
    tried, found = search(path, {"SEED": 1}, [0.1, 0.2, 0.7])
    assert tried == [(0.7, 2)] and found == expected  # to the last bit
    assert capsys.readouterr().out.splitlines() == [
        "learning rate 0: done before",
        "learning rate 1: done before",
        "learning rate 2:",
    ]
    assert search(path, {"SEED": 1}, [None] * 3) == ([], expected)
    remove_checkpoint(tmp_path)
    assert not path.exists()


def test_another_identity_runs_it_again(tmp_path):
    path = tmp_path / "trials.json"
    search(path, {"SEED": 1, "rates": [1, 2]}, [0.1])
    for identity in ({"SEED": 2, "rates": [1, 2]}, {"SEED": 1, "rates": [2, 1]}, {"SEED": 1}, {}):
        tried, found = search(path, identity, [0.3])
        assert tried == [(0.3, 2)] and found[0]["validation MCC"] == pytest.approx(0.1)
    # of each it is known which it was, in whatever order its parts stand
    tried, found = search(path, {"rates": [1, 2], "SEED": 1}, [None])
    assert tried == [] and found[0]["validation MCC"] == 0.1 / 3


def test_trials_of_another_base_are_tried_again(tmp_path):
    path = tmp_path / "trials.json"
    search(path, BASE, [0.1])
    assert search(path, {**BASE, "BERT_MODEL": "renamed"}, [None])[0] == []
    assert search(path, {**BASE, CONTENT: "2b"}, [0.2])[0] == [(0.2, 2)]


def test_trials_from_before_the_base_was_hashed_are_not_run_again(tmp_path):
    path = tmp_path / "trials.json"
    search(path, {"BERT_MODEL": "mybert", "SEED": 1}, [0.1])
    assert search(path, {**BASE, "SEED": 1}, [None])[0] == []
    for identity in ({**BASE, "SEED": 2}, {**BASE, "BERT_MODEL": "other", "SEED": 1}):
        assert search(path, identity, [0.2])[0] == [(0.2, 2)]


def test_trials_that_cannot_be_read_now_are_kept(tmp_path, monkeypatch):
    path = tmp_path / "trials.json"
    search(path, {}, [0.1])
    before = path.read_bytes()

    def read_text(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(errors.ReadError, match=r"trials\.json cannot be read \(Permission denied\)"):
        search(path, {}, [0.1])
    assert path.read_bytes() == before


def test_resume_false_runs_it_again(tmp_path):
    path = tmp_path / "trials.json"
    search(path, {}, [0.1, 0.2])
    assert search(path, {}, [0.3], resume=False)[0] == [(0.3, 2)]
    assert search(path, {}, [None, 0.4])[0] == [(0.4, 2)]  # what was there before is forgotten


@pytest.mark.parametrize("damage", [b"", b'{"a": ', b"[1, 2]", b"null", b"\xff\xfe", None])
def test_damaged_trials_are_no_riddle(tmp_path, damage):
    path = tmp_path / "trials.json"
    search(path, {}, [0.1])
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    assert search(path, {}, [0.1])[0] == [(0.1, 2)]
    assert search(path, {}, [None])[0] == []  # and it is whole again


def test_only_the_first_process_writes_trials(tmp_path):
    accelerator = SimpleNamespace(is_main_process=False, print=lambda *_: None)
    make_accelerator()  # what hands the results around needs one
    trials, tried = TrialCache(tmp_path / "trials.json", {}), Tried()
    assert trials.run(accelerator, "fold 1", tried, 0.3, 2)["best epoch"] == 2
    assert list(tmp_path.iterdir()) == []


def test_rows_are_part_of_what_decides():
    features, model = SimpleNamespace(fingerprint="data"), SimpleNamespace(fingerprint="base")
    split = ([0, 2, 3], [1, 4])
    splits = [split, ([0, 2, 3, 1], [4]), ([2, 0, 3], [1, 4]), tuple(map(np.array, split))]
    hashes = [get_run_config(features, model, TRAIN, rows)[SPLIT] for rows in splits]
    assert hashes[0] == hashes[3] and len(set(hashes)) == 3 and SPLIT not in get_run_config(features, model, TRAIN)


def test_a_trial_with_other_rows_is_another_one(tmp_path):
    def fine_tune(rows, held_out):
        return SimpleNamespace(summary=[len(rows), len(held_out)])

    trials, accelerator = TrialCache(tmp_path / "trials.json", {"SEED": 1}), make_accelerator()
    for rows in (np.arange(5), np.arange(4), np.arange(5)):
        assert trials.run(accelerator, "fold 1", fine_tune, rows, np.arange(2)) == [len(rows), 2]
    assert len(trials._read()) == 2
    trials.path.write_text('{"[\\"fold 2\\", {\\"SEED\\": 1}]": "of before"}')
    assert trials.run(accelerator, "fold 2", fine_tune, np.arange(5), np.arange(2)) == "of before"
