"""Progress bars, live figures and durations."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE = "#4c72b0", "#dd8452"  # distinguishable for colour-blind readers, too


class ProgressBar(tqdm):
    """A tqdm bar that removes itself when it is closed.

    Left in place, its widget would appear in a saved notebook as an error, or frozen at 0 %.
    """

    IS_WIDGET = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
    display_handle: Any = None

    def __init__(self, **options: Any) -> None:
        """Create a bar; `options` are those of `tqdm`."""
        super().__init__(**options | ({"display": False} if self.IS_WIDGET else {}))
        if self.IS_WIDGET and not self.disable:
            from IPython.display import display

            self.display_handle = display(self.container, display_id=True)

    def close(self) -> None:
        """Close the bar and, in a notebook, remove its output, even after an interruption."""
        super().close()
        handle, self.display_handle = self.display_handle, None  # tqdm closes again when the bar is collected
        if handle:
            handle.update({}, raw=True)
            self.container.close()


def in_notebook() -> bool:
    """Return True if this code runs in a notebook's kernel; an imported IPython is not enough."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")


def progress_bar(total: int | None, description: str, unit: str = "it", visible: bool = True) -> ProgressBar:
    """Return a `ProgressBar`.

    It prints nothing if `visible` is False, if stderr is neither a terminal nor a notebook, or if TQDM_DISABLE is set.
    """
    has_viewer = sys.stderr.isatty() or in_notebook()
    options = {} if visible and has_viewer and not os.environ.get("TQDM_DISABLE") else {"disable": True}
    return ProgressBar(total=total, desc=description, unit=unit, leave=False, mininterval=0.2, **options)


class LiveFigure:
    """A figure in a notebook that is redrawn as the work progresses; does nothing elsewhere.

    draw : function without arguments that returns a matplotlib figure
    """

    MIN_SECONDS = 5  # between two redraws
    MAX_FRACTION = 0.02  # of the time that redrawing may take

    def __init__(self, draw: Callable[[], "Figure"]) -> None:
        self.draw = draw
        self.handle = show_figure(draw()) if in_notebook() else None
        self.last_drawn, self.pause = time.perf_counter(), float(self.MIN_SECONDS)

    def update(self, at_once: bool = False) -> None:
        """Redraw if enough time has passed since the last time, or unconditionally if `at_once`."""
        start = time.perf_counter()
        if self.handle and (at_once or start - self.last_drawn > self.pause):
            self.handle.update(self.draw())
            self.last_drawn = time.perf_counter()
            self.pause = max(self.MIN_SECONDS, (self.last_drawn - start) / self.MAX_FRACTION)


def plot_training(
    losses: Sequence[float], history: Sequence[dict[str, float]], steps_per_epoch: int, baseline_mcc: float
) -> "Figure":
    """Return a figure of a training run: the loss of each step, and loss and MCC on the validation set by epoch.

    losses : the training loss of each step
    history : for each finished epoch a dict with "epoch", "loss", "mcc" and "mcc_error", the standard error of the MCC
    baseline_mcc : validation MCC before training
    """
    import matplotlib.pyplot as plt
    import pandas as pd

    epochs = pd.DataFrame(history, columns=["epoch", "loss", "mcc", "mcc_error"])
    smooth = pd.Series(losses, dtype=float).rolling(max(1, len(losses) // 30), min_periods=1).mean()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
    left.plot(losses, color=BLUE, alpha=0.25)
    left.plot(smooth, color=BLUE, label="training, smoothed")
    left.plot(epochs["epoch"] * steps_per_epoch - 1, epochs["loss"], "o-", color=ORANGE, label="validation")
    left.set(xlabel="step", ylabel="loss")
    left.legend()
    right.errorbar(epochs["epoch"], epochs["mcc"], epochs["mcc_error"], fmt="o-", color=ORANGE, capsize=3)
    right.axhline(baseline_mcc, color="grey", linestyle=":", label="before training")
    right.set(xlabel="epoch", ylabel="validation MCC")
    right.legend()
    plt.close(figure)  # otherwise the notebook would show it a second time
    return figure


def show_figure(figure: "Figure") -> Any:
    """Show a matplotlib figure in a notebook and return the display handle that updates it; None elsewhere."""
    if not in_notebook():
        return None
    import matplotlib.pyplot as plt
    from IPython.display import display

    plt.close(figure)  # otherwise the notebook would show it a second time
    return display(figure, display_id=True)


def format_duration(seconds: float) -> str:
    """Format a duration for a reader: "about 40 seconds", "about 2½ minutes", "about 3 hours"."""
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            halves = round(2 * seconds / size)
            return f"about {halves // 2}{'½' if halves % 2 else ''} {unit}"
    count = max(1, round(seconds))
    return f"about {count} second{'s' if count > 1 else ''}"
