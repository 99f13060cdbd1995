"""The report on a model: sentences, tables and plots in one HTML file."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jinja2
import pandas as pd
from markupsafe import Markup

from textbert.evaluation.explanation import Html
from textbert.evaluation.plots import Plot
from textbert.utils.display import encode_figure
from textbert.utils.files import write_text

# what a reader who has not seen the notebook needs to know, by heading; {negative} and {positive} are the classes
INTRODUCTIONS = {
    "Metrics": "MCC, the Matthews correlation, is 0 at chance level, 1 for a perfect model. Accuracy is the fraction "
    "of texts that are right; precision that of {positive} among those predicted as {positive}; recall that of "
    "{positive} that is found; F1 their harmonic mean. In brackets are 95 % intervals.",
    "Curves": "On dev.tsv, on which nothing was decided in training.",
    "Calibration": "If six of ten texts with a probability of 0.6 are {positive}, and so on, the probabilities are "
    "calibrated: then the dots lie on the dashed line. The number beside a dot is that of its texts, the vertical line "
    "a 95 % interval. The last plot: how often a model is right if it decides only the most confident predictions.",
    "Decision threshold": "The plot shows texts of train.tsv (the validation set or, if labels are few, those of folds "
    "that were held out in turn), the sentences dev.tsv.",
    "Accuracy by class and length": "With 95 % intervals, low to high.",
    "Confident errors": "With the probability of {positive}.",
    "Uncertain predictions": "Those nearest to the threshold: to read by hand before the predictions are used.",
    "Label issues": "Training rows whose label may be wrong, with the probability that each model gives the label. "
    "A model knows by heart the labels it was trained on, so a row is judged only by a model that was not trained on "
    "it (–: there is none).",
    "Contributing words": "Without the words on cyan (underlined), {positive} would be less probable; without those on "
    "crimson (dashed), {negative} would be. The colours show what the prediction depends on, not why.",
}


def _render_plots(plot: Plot) -> list[dict[str, str]]:
    """Render each axes of a figure as an image of its own, so that they also fit on a phone."""
    plots, figure = [], plot.figure
    figure.canvas.draw()  # the layout is computed only now
    for axes, alt in zip(figure.axes, plot.alts, strict=True):
        bbox = axes.get_tightbbox()  # in pixels
        if bbox is None:  # it is invisible
            continue
        inches = bbox.padded(8).transformed(figure.dpi_scale_trans.inverted())
        plots.append({"alt": alt, "png": encode_figure(figure, dpi=130, bbox_inches=inches)})
    return plots


def _to_html(frame: pd.DataFrame, max_characters: int = 600) -> str:
    """Render a DataFrame as an HTML table; everything in it is escaped, and texts are truncated."""
    is_numbered = frame.index.dtype.kind == "i" and frame.index.name is None
    has_text = "text" in frame
    if has_text:
        texts = [t if len(t) <= max_characters else f"{t[:max_characters]} …" for t in frame["text"]]
        frame = frame.assign(text=texts)
    options = {"border": 0, "index": not is_numbered, "classes": "texts" if has_text else None, "na_rep": "–"}
    with pd.option_context("display.max_colwidth", None):
        table = frame.to_html(**options).replace("<th></th>", "<td></td>")  # above the index: no header
    head, body = table.split("</thead>")
    return "</thead>".join([head.replace("<th>", '<th scope="col">'), body.replace("<th>", '<th scope="row">')])


def render_table(frame: pd.DataFrame) -> Html:
    """Render a DataFrame with texts for a notebook, whose own tables are right-aligned and read $ as mathematics.

    One without rows is not shown.
    """
    if not len(frame):
        return Html("")
    table = re.sub("<(t[dh])( [^>]*)?>", r'<\1\2 style="text-align:left">', _to_html(frame))
    return Html(f'<div class="mathjax_ignore" style="overflow-x:auto">{table}</div>')


Item: TypeAlias = str | pd.DataFrame | dict[str, Any] | Plot | Html


def write_report(
    path: str | Path, title: str, sections: Mapping[str, Sequence[Item]], names: Sequence[str], texts: bool = True
) -> Path:
    """Write the report as one self-contained HTML file; return its path.

    sections : dict from a heading to the items below it: sentences, DataFrames, dicts of settings, plots and `Html`
    names : names of the two classes
    texts : False leaves out all texts of the data: columns named "text", and all `Html`
    """
    rendered = []
    for heading, items in sections.items():
        introduction = INTRODUCTIONS.get(heading, "").format(negative=repr(names[0]), positive=repr(names[1]))
        section: dict[str, Any] = {"heading": heading, "sentences": [introduction] if introduction else []}
        section |= {"plots": [], "tables": [], "words": []}
        for item in items:
            if isinstance(item, dict):
                item = pd.Series({name: str(value) for name, value in item.items()}).to_frame("value")
            if isinstance(item, pd.DataFrame) and len(item):
                frame = item if texts else item.drop(columns="text", errors="ignore")
                section["tables"].append(Markup(_to_html(frame)))
            elif isinstance(item, Plot):
                section["plots"] += _render_plots(item)
            elif isinstance(item, Html):
                section["words"] += [Markup(item)] if texts else []
            elif isinstance(item, str):
                section["sentences"].append(item)
        rendered.append(section)
    folder = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    page = jinja2.Environment(loader=folder, autoescape=True, trim_blocks=True).get_template("report.html")
    write_text(path, page.render(title=title, sections=rendered))
    return Path(path)
