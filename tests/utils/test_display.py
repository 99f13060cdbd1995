"""What a person sees: a bar where somebody looks, and nothing elsewhere."""

import io
import sys

import pytest
from reference import LABELS

import tools
from textbert.utils import display


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("progress", "terminal", "seen"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_progress_is_seen_where_somebody_looks(tokenizers, monkeypatch, progress, terminal, seen):
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    examples = [tools.InputExample(i, f"word{i}", label="0") for i in range(1100)]
    tools.convert_examples_to_features(examples, LABELS, 9, tokenizers["cased"], processes=1, progress=progress)
    shown = sys.stderr.getvalue()
    assert ("Converting" in shown and "1100" in shown) == seen and bool(shown) == seen


@pytest.mark.parametrize(("visible", "switch", "seen"), [(True, "", True), (True, "1", False), (False, "", False)])
def test_a_bar_can_be_switched_off(monkeypatch, visible, switch, seen):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TQDM_DISABLE", switch)
    with display.progress_bar(7, "Washing up", " cups", visible) as bar:
        bar.update(7)
        bar.refresh()
    shown = sys.stderr.getvalue()
    assert ("Washing up" in shown and "7/7" in shown) == seen and bool(shown) == seen
    assert shown.endswith("\r") or not seen  # nothing is left of it
