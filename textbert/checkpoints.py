"""What a training keeps so that it can be stopped, killed and gone on with."""

import json
import shutil
import signal
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from textbert.files import atomic_write, exclusive_lock, write_text

# what checkpoints of before hold, though no single training depends on it; and what they lack, with the value they had
ONCE_DECIDING = ("FALSE_POSITIVE_COST", "SEARCH_LEARNING_RATES", "SEARCH_EPOCHS", "FOLDS")
DECIDING_SINCE = {"R_DROP": 0.0, "ADVERSARIAL_SHARE": 1.0}


@contextmanager
def stop_requests(say=print):
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
    """Remove what is kept of a training for the case that it is interrupted."""
    shutil.rmtree(get_checkpoint_path(output_dir).parent, ignore_errors=True)


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
        bit. Raises ValueError for a checkpoint that is damaged or has another identity (and names the difference).
        """
        from accelerate.utils import broadcast_object_list

        # what the first process finds, even on another disk
        (state,) = broadcast_object_list([self._read() if accelerator.is_main_process and self.resume else None])
        if isinstance(state, ValueError):
            raise state
        if state is None:
            return None
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
        """Return the state in the file, None if there is no file, or the ValueError for one that cannot be taken up."""
        remedy = "set RESUME = False to start again, or choose another TASK_NAME"
        if not self.path.is_file():
            return None
        ours = self.identity
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            theirs = {name: DECIDING_SINCE[name] for name in DECIDING_SINCE.keys() & ours} | state["identity"]
        except Exception as error:  # damaged bytes can raise nearly anything
            return ValueError(f"{self.path} is damaged ({type(error).__name__}): {remedy}")
        names = [name for name in {**theirs, **ours} if name not in ONCE_DECIDING]
        if changed := [name for name in names if theirs.get(name) != ours.get(name)]:
            what = "; ".join(f"{name} was {theirs.get(name)!r} and is {ours.get(name)!r}" for name in changed)
            return ValueError(
                f"{self.path} is of an unfinished training with other settings or data ({what}): {remedy}"
            )
        return state


class Trials:
    """Results of trainings that were tried, kept in a file until all is done: an interrupted search goes on there.

    path : of the file
    identity : dict of what decides the results, as plain values; those of another one are not used
    resume : False forgets what the file holds
    """

    def __init__(self, path, identity, resume=True):
        self.path = Path(path)
        self.identity = identity
        if not resume:
            self.path.unlink(missing_ok=True)

    def run(self, accelerator, name, fine_tune, *arguments):
        """Return the `summary` of `fine_tune(*arguments)`, a `Run`; from the file if it is known there."""
        from accelerate.utils import broadcast_object_list

        key = json.dumps([name, self.identity], sort_keys=True)
        (known,) = broadcast_object_list([self._read()])  # what the first process finds, even on another disk
        if key in known:
            accelerator.print(f"{name}: done before")
            return known[key]
        accelerator.print(f"{name}:")
        summary = fine_tune(*arguments).summary
        if accelerator.is_main_process:
            write_text(self.path, json.dumps(known | {key: summary}))
        return summary

    def _read(self):
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # there is none, or a damaged one
            known = {}
        return known if isinstance(known, dict) else {}
