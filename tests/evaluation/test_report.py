"""The report: hostile texts are escaped, without texts there is none, and a screen reader can read it."""

import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from textbert.evaluation import explanation, plots, report

HOSTILE = "<script>alert('x')</script> & \"quotes\" <img src=x onerror=alert(1)> {braces}"


def write(path, texts):
    fig, axes = plt.subplots(1, 2)
    axes[0].set(title=f"One {HOSTILE}")
    plt.close(fig)
    words = pd.DataFrame({"word": HOSTILE.split(), "score": np.linspace(-1, 1, len(HOSTILE.split()))})
    words["space_before"] = True
    table = pd.DataFrame({"id": ["7"], "probability": [0.25], "text": [f"Secret {HOSTILE}"]}, index=[3])
    scores = pd.DataFrame({"mcc": [0.5]}, index=[f"model {HOSTILE}"])
    plot = plots.Plot(fig, (f"one {HOSTILE}", "two"))
    items = [HOSTILE, table, scores, plot, explanation.Html(f"Secret {explanation.highlight_words(words)}")]
    sections = {
        HOSTILE: items,
        "Empty": [pd.DataFrame(), {"RATE": 0.1, "NAME": HOSTILE}],
        "Confident errors": ["9 of 99"],
    }
    assert report.write_report(path, HOSTILE, sections, ["<bad>", "good"], texts) == path
    return path.read_text(encoding="utf-8")


def test_the_report_escapes_everything(tmp_path):
    page = write(tmp_path / "report.html", texts=True)
    assert "<script" not in page and "onerror=alert(1)>" not in page and "{braces}" in page
    assert page.count('src="data:image/png;base64,') == 2  # one for each of the figure's axes
    assert "Secret &lt;script&gt;" in page and "0.25" in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is loaded from elsewhere


def test_long_texts_are_truncated():
    rendered = report.render_table(pd.DataFrame({"text": ["x" * 600, "y" * 2000]}))
    assert "x" * 600 + "<" in rendered and "y" * 600 + " …<" in rendered


def test_texts_are_readable_in_a_notebook():
    frame = pd.DataFrame({"label": ["<bad>"], "text": ["from $5 to $9 " + "x" * 100]}, index=[7])
    rendered = report.render_table(frame)
    # otherwise $5 to $ is a formula
    assert 'class="mathjax_ignore"' in rendered and rendered.count("text-align:left") == 4
    assert "&lt;bad&gt;" in rendered and "x" * 100 in rendered and ">7<" not in rendered
    assert repr(rendered).splitlines() == ["label", "text", "<bad>", "from $5 to $9 " + "x" * 100]
    assert report.render_table(frame[:0]) == "" == report.render_table(pd.DataFrame())


def test_the_report_without_texts(tmp_path):
    page = write(tmp_path / "report.html", texts=False)
    assert "Secret" not in page and "0.25" in page and "mcc" in page


class Structure(HTMLParser):
    """The tags of a page, in order: (tag, attributes, text up to the next tag)."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append([tag, dict(attributes), ""])

    def handle_data(self, data):
        if self.tags:
            self.tags[-1][2] += data.strip()

    def find(self, *names):
        return [(attributes, text) for tag, attributes, text in self.tags if tag in names]


@pytest.mark.parametrize("texts", [True, False])
def test_a_screen_reader_can_read_the_report(tmp_path, texts):
    page = Structure(write(tmp_path / "report.html", texts))
    assert page.find("html")[0][0]["lang"] == "en" and page.find("title")[0][1] and len(page.find("main", "h1")) == 2
    images = [attributes["alt"] for attributes, _ in page.find("img")]
    assert images == [f"one {HOSTILE}", "two"]
    headers = page.find("th")
    assert len(headers) > 5 and all(text and attributes["scope"] in ("row", "col") for attributes, text in headers)
    assert len(page.find("h2")) == 3 and not page.find("h3")
    labels = [attributes["aria-labelledby"] for attributes, _ in page.find("section")]
    assert labels == [attributes["id"] for attributes, _ in page.find("h2")]
    # a table that is wider than the screen can be scrolled with the keyboard
    regions = [attributes for attributes, _ in page.find("div") if attributes["class"] == "table"]
    assert len(regions) == 3 and all(region["tabindex"] == "0" and region["aria-label"] for region in regions)


AXE = os.environ.get("BERT_TEST_AXE", "")  # path of axe.min.js, which is in the wheel of axe-playwright-python

CHROMIUM = shutil.which(os.environ.get("BERT_TEST_BROWSER") or "chromium")


@pytest.mark.skipif(not (Path(AXE).is_file() and CHROMIUM), reason="BERT_TEST_AXE has no axe.min.js, or no chromium")
@pytest.mark.parametrize("width", [1000, 390])
def test_axe_finds_nothing_in_the_report(tmp_path, width):
    playwright = pytest.importorskip("playwright.sync_api")
    write(tmp_path / "report.html", texts=True)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM)
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.goto((tmp_path / "report.html").as_uri())
        page.add_script_tag(path=AXE)
        results = page.evaluate("axe.run()")
        assert len(results["passes"]) > 10
        assert [(issue["id"], [node["html"] for node in issue["nodes"]]) for issue in results["violations"]] == []
        page.evaluate("document.querySelector('img').removeAttribute('alt')")
        assert "image-alt" in [issue["id"] for issue in page.evaluate("axe.run()")["violations"]]
        browser.close()
