"""Progress bars, figures with alternative texts, their colours, and durations."""

import base64
import html
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# one meaning for each colour, in all notebooks and in the report; distinguishable for colour-blind readers, too
TRAIN_COLOUR = "#4c72b0"  # the texts that a model is trained on: blue
VALIDATION_COLOUR, DEV_COLOUR = "#dd8452", "#8172b3"  # those of the validation set: orange; of dev.tsv: purple
BERT_COLOUR, BASELINE_COLOUR = "#55a868", "#8c8c8c"  # two models: green and grey
NEGATIVE_COLOUR, POSITIVE_COLOUR = "#c8374a", "#1f9fbf"  # two classes, and the words for them: crimson and cyan
LIMIT: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1.2}  # how thresholds and limits are drawn

IMAGE_DPI, SCREEN_DPI = 120, 96  # of the image, and of the screen: sharp also where pixels are small


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
    describe : function without arguments that returns its alternative text
    """

    MIN_SECONDS = 5  # between two redraws
    MAX_FRACTION = 0.02  # of the time that redrawing may take

    def __init__(self, draw: Callable[[], "Figure"], describe: Callable[[], str] = lambda: "a figure") -> None:
        self.draw, self.describe = draw, describe
        self.handle = show_figure(draw(), describe()) if in_notebook() else None
        self.last_drawn, self.pause = time.perf_counter(), float(self.MIN_SECONDS)

    def update(self, at_once: bool = False) -> None:
        """Redraw if enough time has passed since the last time, or unconditionally if `at_once`."""
        start = time.perf_counter()
        if self.handle and (at_once or start - self.last_drawn > self.pause):
            self.handle.update(render_figure(self.draw(), self.describe()), raw=True)
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
    smooth = pd.Series(losses, dtype=float).ewm(span=max(1, len(losses) // 30)).mean()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    left.plot(losses, color=TRAIN_COLOUR, alpha=0.25, label="training, each step")
    left.plot(smooth, color=TRAIN_COLOUR, label="training, smoothed")
    left.plot(epochs["epoch"] * steps_per_epoch - 1, epochs["loss"], "o-", color=VALIDATION_COLOUR, label="validation")
    left.set(xlabel="step", ylabel="loss", ylim=(0, None))
    options = {"fmt": "o-", "color": VALIDATION_COLOUR, "capsize": 3, "label": "validation ± standard error"}
    right.errorbar(epochs["epoch"], epochs["mcc"], epochs["mcc_error"], **options)
    # from below the lowest epoch, as epochs differ by less than their distance from 0
    bottom = right.get_ylim()[0] if history else min(0, baseline_mcc)
    right.axhline(baseline_mcc, color="grey", linestyle=":", label=f"before training: {baseline_mcc:.2f}")
    if len(epochs):
        highest = epochs.loc[epochs["mcc"].idxmax()]
        limit = highest["mcc"] - highest["mcc_error"]
        right.axhline(limit, **LIMIT, label="highest − standard error")
        best = epochs[epochs["mcc"] >= limit].iloc[-1:]  # see `find_best_epoch`
        ring = {"markersize": 14, "markerfacecolor": "none", "markeredgecolor": "black", "label": "kept"}
        right.plot(best["epoch"], best["mcc"], "o", **ring)
    right.set(xlabel="epoch", ylabel="validation MCC", ylim=(bottom, 1))
    for ax in (left, right):  # below, where they cover nothing
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, markerscale=0.6)
    plt.close(figure)  # otherwise the notebook would show it a second time
    return figure


def describe_training(losses: Sequence[float], history: Sequence[dict[str, float]], baseline_mcc: float) -> str:
    """Return the alternative text of `plot_training`, which has the same arguments."""
    sentences = ["The training loss of each step, and validation loss and MCC after each epoch."]
    if losses:
        last = losses[-max(1, len(losses) // 10) :]
        end = f"{sum(last) / len(last):.2f}, the mean of the last {len(last):,} of {len(losses):,} steps"
        sentences.append(f"The training loss goes from {losses[0]:.2f} to {end}.")
    if history:
        rows = ", ".join(f"{row['loss']:.2f} and {row['mcc']:.2f}" for row in history)
        sentences.append(f"Validation loss and MCC by epoch: {rows}; before training the MCC is {baseline_mcc:.2f}.")
    return " ".join(sentences)


def encode_figure(figure: "Figure", **options: Any) -> str:
    """Return a matplotlib figure as the base64 string of a PNG file; `options` are those of `savefig`."""
    file = io.BytesIO()
    settings: dict[str, Any] = {"dpi": IMAGE_DPI, "bbox_inches": "tight"} | options
    figure.savefig(file, format="png", **settings)
    return base64.b64encode(file.getvalue()).decode()


def render_figure(figure: "Figure", alt: str) -> dict[str, str]:
    """Return what a notebook displays for a figure, by MIME type: an image in HTML, or only its alternative text.

    Notebooks have no place for the alternative text of a PNG image by itself. In the HTML, its width is that on screen.
    """
    png = encode_figure(figure)
    width = int.from_bytes(base64.b64decode(png[:32])[16:20], "big") * SCREEN_DPI // IMAGE_DPI  # as in the PNG's header
    style = "max-width:100%;height:auto;background:white"
    image = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{png}" width="{width}" style="{style}">'
    return {"text/html": image, "text/plain": alt}


def show_figure(figure: "Figure", alt: str) -> Any:
    """Show a matplotlib figure in a notebook and return the display handle that updates it; None elsewhere.

    alt : what is to be seen in it, for readers who cannot see it
    """
    import matplotlib.pyplot as plt

    plt.close(figure)  # otherwise the notebook would show it a second time
    if not in_notebook():
        return None
    from IPython.display import display

    return display(render_figure(figure, alt), raw=True, display_id=True)


def format_duration(seconds: float) -> str:
    """Format a duration for a reader: "about 40 seconds", "about 2½ minutes", "about 3 hours"."""
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            halves = round(2 * seconds / size)
            return f"about {halves // 2}{'½' if halves % 2 else ''} {unit}"
    count = max(1, round(seconds))
    return f"about {count} second{'s' if count > 1 else ''}"
