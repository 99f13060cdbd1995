"""What is found out about a model, for people: plots, labels to check, the HTML report."""

import base64
import io
import math
import re
from pathlib import Path

import jinja2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from markupsafe import Markup
from scipy.stats import binomtest, fisher_exact, norm

from textbert.evaluation.calibration import format_threshold
from textbert.evaluation.explanation import Html
from textbert.evaluation.metrics import format_metric, get_eval_report
from textbert.utils.files import write_text


def _read_plots(figure):
    """Return each axes of a matplotlib figure as a picture of its own, so that they find room on a phone, too."""
    plots = []
    for axes in figure.axes:
        file = io.BytesIO()
        box = axes.get_tightbbox().padded(8).transformed(figure.dpi_scale_trans.inverted())
        figure.savefig(file, format="png", dpi=130, bbox_inches=box)
        plots.append({"title": axes.get_title(), "png": base64.b64encode(file.getvalue()).decode()})
    return plots


def _to_html(frame, longest=600):
    """Return a DataFrame as an HTML table, with everything in it escaped and texts cut to so many characters."""
    numbered = frame.index.dtype.kind == "i" and frame.index.name is None
    has_text = "text" in frame
    if has_text:
        frame = frame.assign(text=[t if len(t) <= longest else f"{t[:longest]} …" for t in frame["text"]])
    options = {"border": 0, "index": not numbered, "classes": "texts" if has_text else None, "na_rep": "–"}
    with pd.option_context("display.max_colwidth", None):
        return frame.to_html(**options)


def _share(right, texts):
    """Return "88 of 100"; as it is counted where that would round to none or to all, or where there are fewer texts."""
    rounded = round(100 * right / texts)
    if texts < 100 or (rounded in (0, 100) and right not in (0, texts)):
        return f"{right:,} of {texts:,}"
    return f"{rounded} of 100"


def _split_groups(groups):
    """Return the rows of a table of groups as (those of the classes, those of the lengths, which may be none)."""
    texts = groups["texts"].to_numpy()
    found = [count for count in (2, 1) if len(texts) > 2 and texts[:count].sum() == texts[count:].sum()]
    count = found[0] if found else len(texts)
    return groups.iloc[:count], groups.iloc[count:]


def _compare_classes(model, classes):
    """Say how many of each class were found, and set the share of right answers beside always naming the same class."""
    right, texts = classes["right"].sum(), classes["texts"].sum()
    found = " and ".join(f"{row.right:,} of {row.texts:,} {str(row.Index)!r}" for row in classes.itertuples())
    often = classes["texts"].max()
    always = f"always saying {str(classes.index[classes['texts'].argmax()])!r}"
    if right > often and _share(right, texts) == _share(often, texts):
        return f"It found {found}; {always} is right in {often:,} of {texts:,}, {model} in {right:,}."
    if right > often:
        return f"It found {found}; {always} is right in {_share(often, texts)}."
    if right == often:
        return f"It found {found}; {always} is right just as often."
    return f"It found {found}; {always} is right MORE OFTEN, in {often:,} of {texts:,} texts and not {right:,}."


def _get_missed_class(classes):
    """Return the class that a model never names, where it names the other of two for every text, or None."""
    missed = classes.index[classes["right"] == 0]
    all_found = classes.index[classes["right"] == classes["texts"]]
    return str(missed[0]) if len(missed) == len(all_found) == 1 else None


def summarize(intervals, model, opponent, chance, groups):
    """Say in three paragraphs, to somebody who knows no statistics, what was found out about a model.

    Parameters
    ----------
    intervals : DataFrame of `bootstrap_metrics`
    model, opponent : their names in it; the model is the last
    chance : probability of `mcnemar`
    groups : DataFrame of `accuracy_by` for the classes, and below it, if there is one, for the lengths in their order
    """
    classes, _ = _split_groups(groups)
    right, texts = classes[["right", "texts"]].sum().tolist()
    share, least = _share(right, texts), math.floor(100 * binomtest(right, texts).proportion_ci(method="wilson").low)
    first = f"{model} is right in {share} texts; in at least {least}{'' if share.endswith(' of 100') else ' of 100'}"
    first += f", as far as can be told from {texts:,} texts. {_compare_classes(model, classes)}"
    low, high = intervals.loc[(model, "mcc"), ["low", "high"]]
    if _get_missed_class(classes) is not None:
        first += " It gives every text the same answer, which is no better than guessing."
    elif high < 0:
        first += " It is WORSE than guessing: see whether the two classes were exchanged."
    elif not low > 0:
        first += " Nobody can tell from these texts whether it is better than guessing."
    return [first, _compare_models(intervals, model, opponent, chance, texts), describe_worst_group(groups)]


def _compare_models(intervals, model, opponent, chance, texts):
    """Say which of two models is better: by the share of right answers, and by the MCC, which must not agree."""
    ours, theirs = (round(texts * intervals.loc[(name, "accuracy"), "value"]) for name in (model, opponent))
    lead = intervals.loc[(f"{model} minus {opponent}", "mcc")]
    by_share = int(np.sign(ours - theirs)) if chance <= 0.05 else 0
    by_mcc = int(lead["low"] > 0) - int(lead["high"] < 0)
    shares = [_share(count, texts) for count in (ours, theirs)]
    if shares[0] == shares[1] and ours != theirs:
        shares = [f"{count:,} of {texts:,}" for count in (ours, theirs)]
    other, alike = f"{opponent}, which is right in {shares[1]}", "where both classes count alike (MCC)"
    if by_share == by_mcc == 0:
        return f"Nobody can tell from these texts whether it is better than {other}."
    if by_share == by_mcc:
        return f"It is {'better' if by_mcc > 0 else 'WORSE'} than {other}, and that is hardly chance."
    if by_mcc == 0:
        more = "more often" if by_share > 0 else "LESS OFTEN"
        return f"It is right {more} than {other}, and that is hardly chance; {alike}, nobody can tell which is better."
    if by_share == 0:
        verdict = f"Nobody can tell from these texts whether it is right more often than {other}; but {alike}"
        return f"{verdict} it does {'better' if by_mcc > 0 else 'WORSE'}, and that is hardly chance."
    better, worse = (model, opponent) if by_mcc > 0 else (opponent, model)
    verdict = (
        f"{worse[0].upper()}{worse[1:]} is right more often ({shares[by_mcc > 0]}), but {better} does better {alike}"
    )
    return f"{verdict}; both are hardly chance."


def _find_trend(lengths):
    """Return (z, p) of the Cochran-Armitage test for a trend of the share of right answers over ordered groups."""
    right, texts = lengths["right"].to_numpy(float), lengths["texts"].to_numpy(float)
    share, place = right.sum() / texts.sum(), np.arange(len(texts))
    variance = share * (1 - share) * (texts @ place**2 - (texts @ place) ** 2 / texts.sum())
    z = place @ (right - texts * share) / math.sqrt(variance) if variance > 0 else 0.0
    return z, float(2 * norm.sf(abs(z)))


def describe_worst_group(groups):
    """Say where a model errs most, if the table of groups (see `summarize`) can tell it.

    A group is named if so few right answers beside those of all other texts have a probability of at most 5 % by
    Fisher's exact test, divided by the number of groups (Bonferroni); a trend over three or more lengths, if its own is
    at most 5 %.
    """
    classes, lengths = _split_groups(groups)
    right, texts = classes[["right", "texts"]].sum().tolist()
    if right in (0, texts):
        return f"It made {'no mistake' if right else 'only mistakes'} on these {texts:,} texts."
    groups = pd.concat([classes.rename(index=lambda name: repr(str(name))), lengths])
    here = groups["right"].to_numpy(), (groups["texts"] - groups["right"]).to_numpy()
    tests = [fisher_exact([[r, right - r], [w, texts - right - w]], "less").pvalue for r, w in zip(*here)]
    weak = groups[np.array(tests) * len(groups) <= 0.05]
    said = []
    if len(weak):
        worst = weak.iloc[weak["accuracy"].argmin()]
        said.append(
            f"It errs most here, as far as can be told: {worst.name}, with {worst['right']:,.0f} of "
            f"{worst['texts']:,.0f} texts right (of all texts {_share(right, texts)})."
            f"{' These are few.' if worst['texts'] < 30 else ''}"
        )
    z, p = _find_trend(lengths) if len(lengths) > 2 else (0.0, 1.0)
    if p <= 0.05:
        counts = ", ".join(f"{row.right:,} of {row.texts:,}" for row in lengths.itertuples())
        more = "longer" if z < 0 else "shorter"
        said.append(
            f"It errs more often in {more} texts: from the shortest to the longest, {counts} are right (p = {p:.2g})."
        )
    mistakes = "one mistake" if texts - right == 1 else f"{texts - right:,} mistakes"
    return " ".join(said) or (
        f"Nobody can tell from its {mistakes} whether it errs more often in some class or at some length."
    )


def compare_thresholds(labels, positives, thresholds, positive_class="yes"):
    """Say in sentences, a list, what the threshold alone does for some models.

    labels : array of 0 and 1, of shape (n,)
    positives, thresholds : dicts from a model's name to its probabilities of class 1, of shape (n,), and its threshold
    """
    sentences = []
    for name, threshold in thresholds.items():
        chosen, half = (get_eval_report("", labels, positives[name] >= at)["mcc"] for at in (threshold, 0.5))
        sentence = (
            f"{name[0].upper()}{name[1:]} says {positive_class} from {format_threshold(threshold)} on, "
            f"with an MCC of {format_metric(chosen)}"
        )
        sentences.append(sentence + (f"; from 0.5 on it would be {format_metric(half)}." if threshold != 0.5 else "."))
    return sentences


def render_table(frame):
    """Return a DataFrame with texts as HTML for a notebook, which would align them to the right, and set $ as math."""
    table = re.sub("<(t[dh])>", r'<\1 style="text-align:left">', _to_html(frame))
    return Html(f'<div class="mathjax_ignore" style="overflow-x:auto">{table}</div>')


def write_report(path, title, sections, texts=True):
    """Write one self-contained HTML file.

    `sections` is a list of (heading, list of sentences, items); an item is a DataFrame, a matplotlib Figure or an
    `Html`. Without `texts` nothing of the data's texts gets in: columns named "text" and all `Html` are left out.
    """
    shown = []
    for heading, sentences, items in sections:
        frames = [item for item in items if isinstance(item, pd.DataFrame)]
        frames = frames if texts else [frame.drop(columns="text", errors="ignore") for frame in frames]
        section = {"heading": heading, "sentences": sentences}
        section["plots"] = [plot for item in items if isinstance(item, plt.Figure) for plot in _read_plots(item)]
        section["tables"] = [Markup(_to_html(frame)) for frame in frames]
        section["words"] = [Markup(item) for item in items if texts and isinstance(item, Html)]
        shown.append(section)
    folder = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    page = jinja2.Environment(loader=folder, autoescape=True, trim_blocks=True).get_template("report.html")
    write_text(path, page.render(title=title, sections=shown))
