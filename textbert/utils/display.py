"""What a person sees while the work goes on: bars, figures, durations."""

import os
import sys
import time

from tqdm.auto import tqdm

BLUE = "#4c72b0"  # two colours that colour-blind people tell apart, too

ORANGE = "#dd8452"


class ProgressBar(tqdm):
    """A tqdm bar that leaves nothing behind: a saved notebook shows a bar's widget as an error, or stuck at 0 %."""

    IS_WIDGET = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
    shown = None

    def __init__(self, **options):
        super().__init__(**options | ({"display": False} if self.IS_WIDGET else {}))
        if self.IS_WIDGET and not self.disable:
            from IPython.display import display

            self.shown = display(self.container, display_id=True)

    def close(self):
        """End the bar and, in a notebook, empty its place, also where it did not come to its end."""
        super().close()
        shown, self.shown = self.shown, None  # tqdm closes again when the bar is collected
        if shown:
            shown.update({}, raw=True)
            self.container.close()


def in_notebook():
    """Tell whether this code runs in a notebook's kernel, and not only beside a module that has imported one."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")


def progress_bar(total, description, unit="it", visible=True):
    """Return a `ProgressBar`.

    It is quiet if not `visible`, if nobody can see it, and if TQDM_DISABLE is set.
    """
    seen = sys.stderr.isatty() or in_notebook()
    options = {} if visible and seen and not os.environ.get("TQDM_DISABLE") else {"disable": True}
    return ProgressBar(total=total, desc=description, unit=unit, leave=False, mininterval=0.2, **options)


class LiveFigure:
    """A figure in a notebook that is drawn anew while the work goes on; elsewhere nothing.

    draw : function without arguments that returns a matplotlib figure
    """

    SECONDS = 5  # at least, from one drawing to the next
    SHARE = 0.02  # of the time, at most, goes to drawing

    def __init__(self, draw):
        self.draw = draw
        self.handle = show_figure(draw()) if in_notebook() else None
        self.drawn, self.pause = time.perf_counter(), self.SECONDS

    def update(self, at_once=False):
        """Draw again if it is time, or `at_once`."""
        begin = time.perf_counter()
        if self.handle and (at_once or begin - self.drawn > self.pause):
            self.handle.update(self.draw())
            self.drawn = time.perf_counter()
            self.pause = max(self.SECONDS, (self.drawn - begin) / self.SHARE)


def plot_training(losses, history, steps_per_epoch, floor):
    """Return a figure of a training: the loss of each step, and what validation says after each epoch.

    losses : list of floats, one for each step
    history : list of dicts with epoch, loss, mcc and mcc_error, its standard error, one for each epoch
    floor : MCC before training
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
    right.axhline(floor, color="grey", linestyle=":", label="before training")
    right.set(xlabel="epoch", ylabel="validation MCC")
    right.legend()
    plt.close(figure)  # or it is shown once more
    return figure


def show_figure(figure):
    """Show a matplotlib figure in a notebook and return the handle that updates it; elsewhere do nothing."""
    if not in_notebook():
        return None
    import matplotlib.pyplot as plt
    from IPython.display import display

    plt.close(figure)  # or it is shown once more
    return display(figure, display_id=True)


def format_duration(seconds):
    """Say a duration as a person would: "about 40 seconds", "about 2½ minutes", "about 3 hours"."""
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            halves = round(2 * seconds / size)
            return f"about {halves // 2}{'½' if halves % 2 else ''} {unit}"
    count = max(1, round(seconds))
    return f"about {count} second{'s' if count > 1 else ''}"
