"""Progress bars: shown in a terminal, hidden elsewhere or on request."""

import io
import sys

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
