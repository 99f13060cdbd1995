"""What a training keeps so that it can be stopped, killed and gone on with."""

import hashlib
import json
import shutil
import signal
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from textbert.utils.errors import translate_read_errors, translate_write_errors
from textbert.utils.files import atomic_write, exclusive_lock, is_file, write_text

# what checkpoints of before hold, though no single training depends on it; and what they lack, with the value they had
IGNORED_LEGACY_KEYS = ("FALSE_POSITIVE_COST", "SEARCH_LEARNING_RATES", "SEARCH_EPOCHS", "FOLDS")

DEFAULTS_OF_NEW_KEYS = {"R_DROP": 0.0, "ADVERSARIAL_SHARE": 1.0}

SPLIT = "rows to train and to validate"  # which checkpoints of before do not know

CONTENT = "content of BERT_MODEL"  # what decides in place of its name, but for checkpoints that do not know it


@contextmanager
def catch_stop_signals(say=print):
    """Yield a list that is empty until Ctrl-C, the stop button or SIGTERM asks to stop; asked twice, stop at once.

    On Windows, where no process gets SIGTERM, Ctrl-Break and the closing of the console ask, too.
    """
    asked = []

    def ask(signal_number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(signal.Signals(signal_number).name)
        say("Stopping as soon as the step is done (once more to stop at once) ...")

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def get_checkpoint_path(output_dir):
    """Return the path of the checkpoint of a task; where it exists, a training was not finished."""
    return Path(output_dir, "checkpoint", "checkpoint.pt")


def remove_checkpoint(output_dir):
    """Remove what is kept of a training for the case that it is interrupted; links stay, what is behind them goes."""
    folder = get_checkpoint_path(output_dir).parent
    with translate_write_errors(folder):
        for path in folder.glob("*"):
            if path.is_symlink():
                path.resolve().unlink(missing_ok=True)
            else:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()


def hash_rows(*parts):
    """Return the SHA-256, in hexadecimal, of arrays of row numbers."""
    return hashlib.sha256(json.dumps([np.asarray(part).tolist() for part in parts]).encode()).hexdigest()


def get_run_config(features, model, training_config, rows=None):
    """Return what decides the result of a training, as a dict: what it reads, what it starts from, how it goes on.

    features : `Features`, of which the fingerprint tells
    model : what `load_model` returned, whose fingerprint tells what BERT_MODEL held
    training_config : dict of the parameters that a training run depends on, see `get_training_config`
    rows : (those to train with, those to validate with), two arrays, since an update may split otherwise
    """
    split = {} if rows is None else {SPLIT: hash_rows(*rows)}
    return {"data": features.fingerprint, CONTENT: model.fingerprint, **split, **training_config}


def training_lock(accelerator, output_dir):
    """Return a context in which this training is the only one of its task; TimeoutError if another one goes on."""
    remedy = "wait until it is done, or take another TASK_NAME"
    path = get_checkpoint_path(output_dir).parent
    return exclusive_lock(path, 0, remedy) if accelerator.is_main_process else nullcontext()


@dataclass(frozen=True)
class Checkpoint:
    """Where a training keeps what it needs to go on as if it had never stopped.

    path : of the file; the one before stays until a new one is whole
    identity : dict of what decides the result, such as parameters and data; a checkpoint of another one is refused
    minutes : of training from one checkpoint to the next within an epoch
    resume : False starts again, whatever the file holds
    """

    path: Path
    identity: dict
    minutes: float = 5
    resume: bool = True

    def save(self, accelerator, model, optimizer, schedule, progress):
        """Write a checkpoint; all processes must call it, the first one writes.

        progress : dict of what the loop keeps: its position, losses, history, best weights, as plain values and tensors
        """
        from accelerate.utils import gather_object

        random = {"cpu": torch.get_rng_state()}  # nothing in the loop draws from Python's or numpy's global state
        if accelerator.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state()
        of_each_process = gather_object([random])
        if accelerator.is_main_process:
            state = {"model": model, "optimizer": optimizer, "schedule": schedule}
            state = {name: owner.state_dict() for name, owner in state.items()}
            state |= {"random": of_each_process, "progress": progress, "identity": self.identity}
            with atomic_write(self.path) as temporary, open(temporary, "wb") as file:
                torch.save(state, file)
        accelerator.wait_for_everyone()

    def load(self, accelerator, model, optimizer, schedule):
        """Take up the checkpoint; return its progress, or None if there is none to go on from.

        With as many processes and threads as before the training ends as if it had never stopped, on a CPU to the last
        bit. Raises ValueError for a checkpoint that is damaged or has another identity (and names the difference), and
        ReadError for one that cannot be read just now.
        """
        from accelerate.utils import broadcast_object_list

        # what the first process finds, even on another disk
        (state,) = broadcast_object_list([self._read() if accelerator.is_main_process and self.resume else None])
        if isinstance(state, Exception):
            raise state
        if state is None:
            return None
        with translate_read_errors(self.path):  # which takes memory
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
        if len(state["random"]) == accelerator.num_processes:
            random = state["random"][accelerator.process_index]
            torch.set_rng_state(random["cpu"])
            if "cuda" in random and accelerator.device.type == "cuda":
                torch.cuda.set_rng_state(random["cuda"])
        return state["progress"]

    def _read(self):
        """Return the state in the file, None if there is no file, or the error for one that cannot be taken up."""
        try:
            with translate_read_errors(self.path):
                return self._read_state() if is_file(self.path) else None
        except (OSError, ValueError) as error:
            return error

    def _read_state(self):
        remedy, ours = "set RESUME = False to start again, or choose another TASK_NAME", self.identity
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            theirs = {name: DEFAULTS_OF_NEW_KEYS[name] for name in DEFAULTS_OF_NEW_KEYS.keys() & ours} | state[
                "identity"
            ]
        except Exception as error:  # damaged bytes can raise nearly anything
            raise ValueError(f"{self.path} is damaged ({type(error).__name__}): {remedy}") from None
        ignored = {*IGNORED_LEGACY_KEYS, "BERT_MODEL" if CONTENT in theirs.keys() & ours else CONTENT}
        ignored |= {SPLIT} - (theirs.keys() & ours)
        names = [name for name in {**theirs, **ours} if name not in ignored]
        if changed := [name for name in names if theirs.get(name) != ours.get(name)]:
            what = "; ".join(f"{name} was {theirs.get(name)!r} and is {ours.get(name)!r}" for name in changed)
            raise ValueError(f"{self.path} is of an unfinished training with other settings or data ({what}): {remedy}")
        return state


class TrialCache:
    """Results of trainings that were tried, kept in a file until all is done: an interrupted search goes on there.

    path : of the file
    identity : dict of what decides the results, as plain values; those of another one are not used
    resume : False forgets what the file holds
    """

    def __init__(self, path, identity, resume=True):
        self.path = Path(path)
        self.identity = identity
        if not resume:
            with translate_write_errors(self.path):
                self.path.unlink(missing_ok=True)

    def run(self, accelerator, name, fine_tune, *arguments):
        """Return the `summary` of `fine_tune(*arguments)`, a `Run`; from the file if it is known there.

        Arrays among the arguments are of row numbers.
        """
        from accelerate.utils import broadcast_object_list

        keys = self._get_keys(name, arguments)
        (known,) = broadcast_object_list([self._read()])  # what the first process finds, even on another disk
        if isinstance(known, OSError):
            raise known
        if results := [known[key] for key in keys if known.get(key) is not None]:
            accelerator.print(f"{name}: done before")
            return results[0]
        accelerator.print(f"{name}:")
        summary = fine_tune(*arguments).summary
        if accelerator.is_main_process:
            write_text(self.path, json.dumps(known | {keys[0]: summary}))
        return summary

    def _get_keys(self, name, arguments):
        """Return the key of a trial in the file, followed by those that older files have for it."""
        identities = [{key: value for key, value in self.identity.items() if key != CONTENT}]
        if CONTENT in self.identity:
            identities.insert(0, {key: value for key, value in self.identity.items() if key != "BERT_MODEL"})
        if rows := [argument for argument in arguments if isinstance(argument, np.ndarray)]:
            identities.insert(0, identities[0] | {SPLIT: hash_rows(*rows)})
        return [json.dumps([name, identity], sort_keys=True) for identity in identities]

    def _read(self):
        """Return the results in the file, {} if there are none, or the error for a file that cannot be read."""
        try:
            with translate_read_errors(self.path):
                known = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:  # not to be written over: they may have taken hours
            return error
        except (ValueError, RecursionError):
            known = None
        if not isinstance(known, dict):
            print(f"{self.path} is damaged: what was tried before is tried again")
            return {}
        return known
