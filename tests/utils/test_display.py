"""Progress bars: shown in a terminal, hidden elsewhere or on request. Figures: shown with an alternative text."""

import io
import re
import sys

import matplotlib.pyplot as plt
import pytest
from reference import LABELS

import tools
from textbert.utils import display


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("progress", "terminal", "visible"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_progress_is_shown_in_a_terminal_only(tokenizers, monkeypatch, progress, terminal, visible):
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    examples = [tools.InputExample(i, f"word{i}", label="0") for i in range(1100)]
    tools.convert_examples_to_features(examples, LABELS, 9, tokenizers["cased"], processes=1, progress=progress)
    output = sys.stderr.getvalue()
    assert ("Converting" in output and "1100" in output) == visible and bool(output) == visible


@pytest.mark.parametrize(("visible", "switch", "expected"), [(True, "", True), (True, "1", False), (False, "", False)])
def test_bar_can_be_disabled_and_clears_its_line(monkeypatch, visible, switch, expected):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TQDM_DISABLE", switch)
    with display.progress_bar(7, "Washing up", " cups", visible) as bar:
        bar.update(7)
        bar.refresh()
    output = sys.stderr.getvalue()
    assert ("Washing up" in output and "7/7" in output) == expected and bool(output) == expected
    assert output.endswith("\r") or not expected


def test_a_figure_is_shown_with_its_alternative_text():
    figure, ax = plt.subplots(figsize=(3, 2))
    ax.plot([1, 2])
    data = display.render_figure(figure, 'a line that "rises"')
    plt.close(figure)
    width = int(re.search(r' width="(\d+)"', data["text/html"])[1])
    assert data["text/html"].startswith('<img alt="a line that &quot;rises&quot;" src="data:image/png;base64,')
    assert 0.8 * 3 * 96 < width < 1.2 * 3 * 96 and data["text/plain"] == 'a line that "rises"'


def test_the_figure_of_a_training_run_is_described():
    history = [{"epoch": 1, "loss": 0.5, "mcc": 0.6, "mcc_error": 0.1}, {"epoch": 2, "loss": 0.4, "mcc": 0.7}]
    text = display.describe_training([0.7] * 10 + [0.2] * 10, history, 0.05)
    assert "goes from 0.70 to 0.20, the mean of the last 2 of 20 steps" in text
    assert "by epoch: 0.50 and 0.60, 0.40 and 0.70; before training the MCC is 0.05" in text
    assert "goes" not in display.describe_training([], [], 0.05)
