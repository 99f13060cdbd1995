"""What judging a model needs beyond tools.py: how sure the figures are, why the model answers so, how to tell others.

Intervals and tests, calibration, thresholds, suspicious labels, the words that decided, the HTML report, export.
"""

import base64
import html
import io
import json
import logging
import re
import warnings
from copy import deepcopy
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy import stats

import tools

BLUE, ORANGE = "#4c72b0", "#dd8452"  # two colours that colour-blind people tell apart, too
FIGURES = ("mcc", "accuracy", "precision", "recall", "f1")


# ---------- How sure the figures are ----------------------------------------------------------------------------------


def _ratio(above, below):
    """Divide two arrays of one shape; 0 where there is nothing below the line."""
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0)


def count_figures(tp, tn, fp, fn):
    """Return `FIGURES` for arrays of counts of one shape (...), as one array of shape (5, ...)."""
    tp, tn, fp, fn = (np.asarray(count, float) for count in (tp, tn, fp, fn))
    root = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    shares = ((tp + tn, tp + tn + fp + fn), (tp, tp + fp), (tp, tp + fn), (2 * tp, 2 * tp + fp + fn))
    return np.stack([_ratio(tp * tn - fp * fn, root), *(_ratio(*share) for share in shares)])


def bootstrap_figures(labels, predictions, n_resamples=9999, seed=0):
    """Return the figures of some models with their 95 % bootstrap intervals.

    Parameters
    ----------
    labels : array of 0 and 1, of shape (n,)
    predictions : dict from a model's name to an array of 0 and 1, of shape (n,)

    The rows are drawn anew, with replacement and for all models alike, and the interval holds the middle 95 % of what
    comes out (percentile method, scipy.stats.bootstrap). Returns a DataFrame with the columns value, low and high,
    indexed by (model, figure); for each model but the last also ("<last> minus <model>", "mcc").
    """
    *others, last = predictions
    # all that counts of a row is a small number: its label, and what each model says of it
    codes = sum(np.asarray(bits, int) << i for i, bits in enumerate([labels, *predictions.values()]))
    kinds, codes = np.unique(codes, return_inverse=True)
    truth = kinds & 1 == 1

    def figures(sample, axis):
        """Return the figures of samples of codes, of shape (5 models + others, ...)."""
        counts = np.stack([(sample == kind).sum(axis) for kind in range(len(kinds))])  # (kinds, ...)
        found = []
        for i in range(len(predictions)):
            said = kinds >> (i + 1) & 1 == 1
            cells = (said & truth, ~said & ~truth, said & ~truth, ~said & truth)
            found.append(count_figures(*(counts[cell].sum(0) for cell in cells)))
        return np.concatenate([*found, *([found[-1][0] - f[0]] for f in found[:-1])])

    codes = codes.astype(np.uint8)
    batch = max(1, 10**7 // len(codes))  # resamples at a time, for the memory's sake
    options = {"vectorized": True, "method": "percentile", "n_resamples": n_resamples, "rng": seed, "batch": batch}
    interval = stats.bootstrap((codes,), figures, **options).confidence_interval
    index = [(model, figure) for model in predictions for figure in FIGURES]
    index += [(f"{last} minus {model}", "mcc") for model in others]
    values = {"value": figures(codes, 0), "low": interval.low, "high": interval.high}
    return pd.DataFrame(values, pd.MultiIndex.from_tuples(index, names=["model", "figure"]))


def format_intervals(table):
    """Return a table of `bootstrap_figures` with a column for each model, each cell as "0.71 (0.63 to 0.78)"."""
    cells = table.apply(lambda row: f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})", axis=1)
    return cells.unstack(0, sort=False).dropna(axis=1).rename_axis(index=None, columns=None)


def size_note(name, labels, predicted):
    """Say between which bounds the MCC of a part lies, and warn if it is too small to tell much.

    The rule: at least 30 texts of each class, and a 95 % interval no wider than 0.2. Arrays of shape (n,).
    """
    low, high = bootstrap_figures(labels, {name: predicted}).loc[(name, "mcc"), ["low", "high"]]
    rarer = int(min(np.sum(labels), len(labels) - np.sum(labels)))
    note = f"{name}: {len(labels):,} texts, {rarer:,} of the rarer class; MCC between {low:.2f} and {high:.2f}."
    if rarer < 30 or high - low > 0.2:
        return f"{note} TOO SMALL TO TELL MUCH: at least 30 of each class and an interval of at most 0.2 are needed."
    return note


def mcnemar(labels, first, second):
    """Compare two models on the same texts by McNemar's exact test; all arrays are of shape (n,).

    Only texts count that one model gets right and the other wrong. Returns (how many only the first gets right, how
    many only the second, the probability of so uneven a split if both were equally good).
    """
    first, second = np.asarray(first) == labels, np.asarray(second) == labels
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differ = only_first + only_second
    return only_first, only_second, float(stats.binomtest(only_first, differ).pvalue) if differ else 1.0


def accuracy_by(labels, predicted, groups):
    """Return the accuracy in each of some groups, all of shape (n,), with Wilson's 95 % interval, as a DataFrame."""
    right = pd.Series(np.asarray(labels) == predicted).groupby(groups, observed=True)
    table = right.agg(texts="size", right="sum")
    tests = [stats.binomtest(int(row.right), int(row.texts)) for row in table.itertuples()]
    low, high = np.array([test.proportion_ci(method="wilson") for test in tests]).reshape(-1, 2).T
    return table.assign(accuracy=table["right"] / table["texts"], low=low, high=high)


def length_groups(texts, groups=4):
    """Return for each text, as a Series, in which quarter of the lengths it lies, such as "12 to 31 words"."""
    words = pd.Series([len(text.split()) for text in texts])
    edges = np.unique(words.quantile(np.linspace(0, 1, groups + 1)[1:]).astype(int))
    names = [f"{low} to {high} words" for low, high in zip([words.min(), *edges[:-1] + 1], edges)]
    return pd.Series(pd.Categorical.from_codes(np.searchsorted(edges, words), names, ordered=True))


# ---------- Calibration and threshold ---------------------------------------------------------------------------------


def reliability(labels, positive, bins=10):
    """Compare probabilities of class 1 with how often it came true, both arrays of shape (n,).

    The bins are equally wide, [0, 0.1) to [0.9, 1]. Returns a DataFrame with a row for each bin that is not empty:
    texts, probability (their mean) and came_true (the share with label 1).
    """
    place = np.minimum((np.asarray(positive) * bins).astype(int), bins - 1)
    table = pd.DataFrame({"place": place, "probability": positive, "came_true": labels}).groupby("place")
    return table.mean().assign(texts=table.size())


def calibration(labels, positive, bins=10):
    """Return (Brier score, expected calibration error) of probabilities of class 1, arrays of shape (n,).

    Brier: the mean squared difference to the label. ECE: the mean gap between the probability and what came true over
    the bins of `reliability`, weighted by their texts (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
    """
    table = reliability(labels, positive, bins)
    gaps = (table["probability"] - table["came_true"]).abs()
    return float(np.mean((np.asarray(positive) - labels) ** 2)), float(np.average(gaps, weights=table["texts"]))


def threshold_curve(labels, positive, thresholds=None):
    """Return a DataFrame with threshold, mcc, precision and recall; None takes 0.01, 0.02, ... 0.99.

    A text counts as positive where its probability, in an array of shape (n,), reaches the threshold.
    """
    thresholds = np.arange(1, 100) / 100 if thresholds is None else np.asarray(thresholds, float)
    labels, positive = np.asarray(labels), np.asarray(positive)
    # how many of each class lie below each threshold
    fn, tn = (np.searchsorted(np.sort(positive[labels == label]), thresholds) for label in (1, 0))
    tp, fp = (labels == 1).sum() - fn, (labels == 0).sum() - tn
    mcc, _, precision, recall, _ = count_figures(tp, tn, fp, fn)
    return pd.DataFrame({"threshold": thresholds, "mcc": mcc, "precision": precision, "recall": recall})


def choose_threshold(positive, labels, false_positive_cost=1.0, seed=0):
    """Return (the probability from which on a text is called positive, why that one).

    If a false positive costs another multiple of a false negative than 1, the threshold with the least expected cost
    follows from the probabilities alone (Elkan 2001, The Foundations of Cost-Sensitive Learning). Else it is 0.5,
    unless another one has a better MCC and the 95 % bootstrap interval of the gain, over 2,000 resamples, excludes 0.

    positive : array of shape (n,), tempered probabilities of class 1
    labels : array of shape (n,) of 0 and 1
    """
    if false_positive_cost != 1:
        threshold = false_positive_cost / (1 + false_positive_cost)
        return threshold, f"a false positive costs {false_positive_cost:g} times as much as a false negative"
    values = np.unique(np.append(positive, 0.5))
    thresholds = np.append(0.5, (values[1:] + values[:-1]) / 2)  # 0.5 first: it wins a tie
    best = thresholds[threshold_curve(labels, positive, thresholds)["mcc"].argmax()]
    if best == 0.5:
        return 0.5, "no other has a better validation MCC"
    # resampling rows is drawing how often each kind comes: kinds are label, right at best, right at 0.5
    kinds = np.bincount(labels * 4 + (positive >= best) * 2 + (positive >= 0.5), minlength=8)
    drawn = np.random.default_rng(seed).multinomial(len(labels), kinds / len(labels), 2000).reshape(-1, 2, 2, 2)
    at_best, at_half = drawn.sum(3), drawn.sum(2)  # (resamples, label, prediction)
    gains = [count_figures(c[:, 1, 1], c[:, 0, 0], c[:, 0, 1], c[:, 1, 0])[0] for c in (at_best, at_half)]
    low, high = np.percentile(gains[0] - gains[1], [2.5, 97.5])
    interval = f"at {best:.3f} validation MCC would gain between {low:+.3f} and {high:+.3f} (95 % bootstrap interval)"
    return (float(best), interval) if low > 0 else (0.5, f"{interval}: that may be chance")


def plot_reliability(ax, labels, positives):
    """Draw the reliability of probabilities, a dict from a name to an array of shape (n,).

    The larger a dot, the more texts; the bars are Wilson's 95 % intervals.
    """
    ax.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
    for (name, positive), colour in zip(positives.items(), (ORANGE, BLUE)):
        table = reliability(labels, positive)
        place, share = table["probability"], table["came_true"]
        tests = [stats.binomtest(round(s * n), int(n)) for s, n in zip(share, table["texts"])]
        bounds = [test.proportion_ci(method="wilson") for test in tests]
        ax.vlines(place, [b.low for b in bounds], [b.high for b in bounds], color=colour, alpha=0.5, linewidth=1)
        ax.scatter(place, share, 15 + 200 * table["texts"] / table["texts"].sum(), color=colour, label=name)
    ax.set(title="Calibration", xlabel="probability the model gives", ylabel="share that came true")
    ax.legend(markerscale=0.6, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)


def plot_thresholds(ax, curve, threshold):
    """Draw a `threshold_curve` and mark the threshold in use."""
    for name, colour in (("mcc", BLUE), ("precision", ORANGE), ("recall", "#55a868")):
        ax.plot(curve["threshold"], curve[name], color=colour, label="MCC" if name == "mcc" else name)
    ax.axvline(threshold, color="grey", linestyle=":", label=f"in use: {threshold:.2f}")
    ax.set(title="Threshold (validation)", xlabel="threshold", ylim=(0, 1.03))
    ax.legend()


# ---------- Labels that look wrong ------------------------------------------------------------------------------------


def make_baseline():
    """Return the cheap model that BERT is compared with: TF-IDF of words and word pairs, and logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
    )


def suspicious_labels(texts, labels, positive, baseline, folds=5, seed=0):
    """Rank training rows by how little two models believe their labels, the most suspicious first.

    Parameters
    ----------
    texts, labels : lists or arrays of shape (n,)
    positive : BERT's probabilities of class 1, of shape (n,)
    baseline : a scikit-learn classifier of texts; it judges each row after learning from the other folds, so that it
        cannot know the label by heart, as BERT may

    Returns a DataFrame with row, baseline and bert (the probability that each gives to the label).
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    labels = np.asarray(labels)
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    out_of_fold = cross_val_predict(baseline, np.asarray(texts, object), labels, cv=split, method="predict_proba")[:, 1]
    believed = {
        name: np.where(labels == 1, p, 1 - p) for name, p in (("baseline", out_of_fold), ("bert", np.asarray(positive)))
    }
    table = pd.DataFrame({"row": np.arange(len(labels)), **believed})
    log_odds = sum(np.log(p / (1 - p)) for p in np.clip(list(believed.values()), 1e-9, 1 - 1e-9))  # as if independent
    return table.iloc[np.argsort(log_odds, kind="stable")]


# ---------- Why: the words that decided -------------------------------------------------------------------------------


def _kept_positions(pieces, room, truncation):
    """Return which of a text's word pieces BERT reads, as sorted positions; see tools.TRUNCATIONS."""
    if pieces <= room:
        return np.arange(pieces)
    head = {"head": room, "tail": 0, "head+tail": room // 4}[truncation]
    return np.concatenate([np.arange(head), np.arange(pieces - (room - head), pieces)])


def explain(classifier, text, batch_size=32, most=150):
    """Say how much each word of a text spoke for the positive class.

    A word's score is what the log-odds of the positive class lose when its word pieces are left out (Li, Monroe and
    Jurafsky 2016, https://arxiv.org/abs/1612.08220). Returns a DataFrame with word and score; the score is NaN for
    words beyond the length the model reads. Of texts with more than `most` words, neighbours are left out together
    and share the score.
    """
    memo = tools.WordPieceMemo(classifier.tokenizer)
    words = text.translate(dict.fromkeys(map(ord, memo.DELETED))).split()  # each is tokenized alone, as BERT does
    pieces = [np.frombuffer(memo.encode(word, len(word)), memo.dtype) for word in words]
    owner = np.repeat(np.arange(len(words)), [len(ids) for ids in pieces])  # the word that a piece belongs to
    ids = np.concatenate([*pieces, np.array([], memo.dtype)])
    size = classifier.settings["max_seq_length"]
    kept = _kept_positions(len(ids), size - 2, classifier.settings["truncation"])
    ids, owner = ids[kept], owner[kept]
    read = np.unique(owner)
    groups = np.array_split(read, max(1, min(most, len(read))))
    cls, sep = (np.frombuffer(memo.to_bytes([token]), memo.dtype) for token in ("[CLS]", "[SEP]"))
    variants = [ids, *(ids[~np.isin(owner, group)] for group in groups)]
    lengths = np.array([len(variant) + 2 for variant in variants], "<u2")
    rows = np.concatenate([part for variant in variants for part in (cls, variant, sep)])
    features = tools.Features(rows, lengths, lengths, np.full(len(variants), tools.UNLABELLED, "<i4"), size)
    logits = tools.predict_logits(classifier.model, features, batch_size, progress=False)  # batches by length
    log_odds = (logits[:, 1] - logits[:, 0]) / classifier.settings["temperature"]
    scores = np.full(len(words), np.nan)
    for group, without in zip(groups, log_odds[1:]):
        scores[group] = log_odds[0] - without
    return pd.DataFrame({"word": words, "score": scores})


def colour_words(words):
    """Return the HTML of a table of `explain`: blue for the positive class, orange for the other, grey if not read.

    The largest score has the full colour, but for texts in which no word weighs much: there all stay faint.
    """
    largest = np.nanmax([0.5, *words["score"].abs()])
    spans = []
    for word, score in words.itertuples(index=False):
        style, hint = "opacity:0.4", "not read"
        if not np.isnan(score):
            colour = "76,114,176" if score > 0 else "221,132,82"
            style, hint = f"background:rgba({colour},{0.8 * abs(score) / largest:.2f})", f"{score:+.2f}"
        style += ";padding:0 2px;border-radius:3px"
        spans.append(f'<span style="{style}" title="{hint}">{html.escape(word)}</span>')
    return " ".join(spans)


class Html(str):
    """HTML that shows itself in a notebook. It holds words of a text, so a report without texts leaves it out."""

    def _repr_html_(self):
        return str(self)

    def __repr__(self):
        lines = html.unescape(re.sub("<[^>]+>", "", self)).splitlines()
        return "\n".join(line.strip() for line in lines if line.strip())


def answer(classifier, text):
    """Return label, probability and coloured words of one text as HTML."""
    label, probability = classifier.predict([text], progress=False).iloc[0]
    positive = html.escape(str(classifier.settings["label_names"][1]))
    head = f"<b>{html.escape(str(label))}</b> · probability of {positive}: {probability:.2f}"
    return Html(
        f'<p class="mathjax_ignore" style="line-height:1.8">{head}<br>{colour_words(explain(classifier, text))}</p>'
    )


def text_box(classifier, text):
    """Return a box (ipywidgets) to type a text into, with a button that shows its answer."""
    import ipywidgets

    box = ipywidgets.Textarea(text, layout={"width": "100%", "height": "6em"})
    button, output = ipywidgets.Button(description="Classify", button_style="primary"), ipywidgets.HTML()

    def show(_):
        output.value = answer(classifier, box.value)

    button.on_click(show)
    show(None)
    return ipywidgets.VBox([box, button, output])


# ---------- The report ------------------------------------------------------------------------------------------------

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.55 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 0 auto; padding: 1rem; }}
h1 {{ line-height: 1.2 }}
h2 {{ margin-top: 2.2rem; border-bottom: 1px solid #ddd; padding-bottom: .2rem }}
.plots {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem }}
img {{ width: 100%; max-width: 32rem; height: auto }}
.table {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: .9rem; margin: .8rem 0 }}
tbody th {{ white-space: nowrap }}
th, td {{ padding: .3rem .6rem; text-align: left; vertical-align: top; border: 0; border-bottom: 1px solid #eee }}
.texts td:last-child {{ min-width: 16rem; overflow-wrap: anywhere }}
p {{ margin: .5rem 0 }}
@media (max-width: 40rem) {{
  th, td {{ padding: .3rem .2rem }}
  table {{ font-size: .8rem }}
  .texts tr {{ display: flex; flex-wrap: wrap; border-bottom: 1px solid #eee }}
  .texts th, .texts td {{ border: 0; min-width: 4.5rem }}
  .texts th:last-child {{ display: none }}
  .texts td:last-child {{ flex-basis: 100%; min-width: 0 }}
}}
.words {{ border-left: 3px solid #ddd; padding-left: .8rem; overflow-wrap: anywhere }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def _images(figure):
    """Return a matplotlib figure as an <img> for each of its axes, so that they find room on a phone, too."""
    images = []
    for axes in figure.axes:
        file = io.BytesIO()
        box = axes.get_tightbbox().padded(8).transformed(figure.dpi_scale_trans.inverted())
        figure.savefig(file, format="png", dpi=130, bbox_inches=box)
        title = html.escape(axes.get_title(), quote=True)
        images.append(f'<img alt="{title}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">')
    return "".join(images)


def _table(frame, longest=600):
    """Return a DataFrame as an HTML table, with everything in it escaped and texts cut to so many characters."""
    numbered, has_text = frame.index.dtype.kind == "i" and frame.index.name is None, "text" in frame
    if has_text:
        frame = frame.assign(text=[t if len(t) <= longest else f"{t[:longest]} …" for t in frame["text"]])
    options = {"border": 0, "index": not numbered, "classes": "texts" if has_text else None, "na_rep": "–"}
    with pd.option_context("display.max_colwidth", None):
        shown = frame.to_html(**options)
    return f'<div class="table">{shown}</div>'


def show_texts(frame):
    """Return a DataFrame with texts as HTML for a notebook, which would align them to the right, and set $ as math."""
    table = re.sub("<(t[dh])>", r'<\1 style="text-align:left">', _table(frame))
    return Html(f'<div class="mathjax_ignore">{table}</div>')


def write_report(path, title, sections, texts=True):
    """Write one self-contained HTML file.

    `sections` is a list of (heading, list of sentences, items); an item is a DataFrame, a matplotlib Figure or an
    `Html`. Without `texts` nothing of the data's texts gets in: columns named "text" and all `Html` are left out.
    """
    body = []
    for heading, sentences, items in sections:
        items = [item for item in items if texts or not isinstance(item, Html)]
        plots = "".join(_images(item) for item in items if isinstance(item, plt.Figure))
        body += [f"<h2>{html.escape(heading)}</h2>", *(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)]
        body += [f'<div class="plots">{plots}</div>'] if plots else []
        for item in items:
            if isinstance(item, Html):
                body.append(f'<div class="words">{item}</div>')
            elif isinstance(item, pd.DataFrame):
                body.append(_table(item if texts else item.drop(columns="text", errors="ignore")))
    tools.write_text(path, PAGE.format(title=html.escape(title), body="\n".join(body)))


# ---------- Export ----------------------------------------------------------------------------------------------------


def _require_package(name, command):
    """Return the module `name`; raise ImportError with the pip command if it is not installed."""
    try:
        return __import__(name)
    except ImportError as error:
        raise ImportError(f"{error}: this needs more packages. Run: python -m pip install {command}") from error


def _plain_model(classifier):
    """Return a copy of the model, on the CPU, whose logits are already divided by the temperature."""
    model = deepcopy(classifier.model).cpu().eval()
    with torch.no_grad():
        model.classifier.weight /= classifier.settings["temperature"]
        model.classifier.bias /= classifier.settings["temperature"]
    return model


CARD = """---
library_name: transformers
pipeline_tag: text-classification
---
# {task}

A BERT that tells {names[0]!r} from {names[1]!r}, fine-tuned on {settings[training_rows]:,} texts, {settings[trained]}.

```python
from transformers import pipeline

pipeline("text-classification", model=".")("your text", truncation=True, max_length={settings[max_seq_length]})
```

The probabilities are calibrated: the temperature ({settings[temperature]:.3f}) is part of the classifier's weights. Say
{names[1]!r} where its probability reaches the threshold **{settings[threshold]:.3f}** (a pipeline uses 0.5).

Of longer texts the model was trained on the {settings[truncation]} ({settings[max_seq_length]} word pieces).{remark}

{figures}
"""


def export_huggingface(classifier, folder, figures=None):
    """Write a folder that transformers' AutoModelForSequenceClassification and AutoTokenizer load offline.

    `figures` is a dict from a name to a number, for the model card. The threshold stands in config.json and in the
    card; what transformers cannot do, to read head and tail of a long text, is said there.
    """
    from safetensors.torch import save

    folder, settings, model = Path(folder), classifier.settings, _plain_model(classifier)
    names = settings["label_names"]
    task = settings.get("parameters", {}).get("TASK_NAME", folder.name)
    config = {
        **model.config.to_dict(),
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        "problem_type": "single_label_classification",
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        "layer_norm_eps": 1e-12,
        "pad_token_id": classifier.tokenizer.vocab["[PAD]"],
        "threshold": settings["threshold"],
    }
    side = "left" if settings["truncation"] == "tail" else "right"
    tokenizer = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": classifier.tokenizer.basic_tokenizer.do_lower_case,
        "model_max_length": settings["max_seq_length"],
        "truncation_side": side,
    }
    remark = " transformers can only keep the head." if settings["truncation"] == "head+tail" else ""
    rows = "".join(f"| {name} | {value:.3f} |\n" for name, value in (figures or {}).items())
    figures = f"On texts it had never seen:\n\n| figure | value |\n| --- | --- |\n{rows}" if rows else ""
    card = CARD.format(task=task, names=names, settings=settings, remark=remark, figures=figures)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with tools.replacing(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(weights, {"format": "pt"}))
    tools.write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    tools.write_text(folder / "tokenizer_config.json", json.dumps(tokenizer, indent=2) + "\n")
    tools.write_text(folder / "vocab.txt", tools.vocabulary_text(classifier.tokenizer.ids_to_tokens))
    tools.write_text(folder / "README.md", card)


def export(classifier, kind, folder, figures=None):
    """Export to "huggingface", `<folder>/huggingface/`, or "onnx", `<folder>/model.onnx`; return the path."""
    if kind == "huggingface":
        path = Path(folder, "huggingface")
        export_huggingface(classifier, path, figures)
    else:
        path = Path(folder, "model.onnx")
        export_onnx(classifier, path)
    return path


def check_huggingface(classifier, folder, texts):
    """Compare an exported folder, loaded by transformers, with the classifier.

    Returns (the largest difference of a probability among texts cut alike, the indices of texts cut otherwise).
    """
    auto = _require_package("transformers", "transformers")
    tokenizer = auto.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = auto.AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    ours = classifier.convert(texts)
    theirs = [tokenizer(text, truncation=True)["input_ids"] for text in texts]
    other = [i for i, ids in enumerate(theirs) if ids != ours.ids[ours.offsets[i] : ours.offsets[i + 1]].tolist()]
    alike = np.setdiff1d(np.arange(len(theirs)), other)
    expected = tools.probabilities(
        tools.predict_logits(classifier.model, ours, 32, alike), classifier.settings["temperature"]
    )
    largest = 0.0
    with torch.inference_mode():
        for row, probabilities in zip(alike, expected):
            given = model(torch.tensor([theirs[row]])).logits.softmax(-1)[0].numpy()
            largest = max(largest, float(np.abs(given - probabilities).max()))
    return largest, other


def export_onnx(classifier, path):
    """Write the model as ONNX, with the temperature in its weights: int64 inputs of shape (batch, length) to logits.

    Inputs are input_ids, token_type_ids and attention_mask; batch and length (up to 512) may be anything.
    """
    _require_package("onnxscript", "onnx onnxscript")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not there
    names = ["input_ids", "token_type_ids", "attention_mask"]
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=tools.MAX_POSITIONS)}
    inputs = tuple(torch.ones(2, 8, dtype=torch.int64) for _ in names)
    options = {"input_names": names, "output_names": ["logits"], "dynamic_shapes": dict.fromkeys(names, axes)}
    options |= {"dynamo": True, "external_data": False, "verbose": False}
    with tools.replacing(path) as temporary, torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about names of axes
        torch.onnx.export(_plain_model(classifier), inputs, str(temporary), **options)


def check_onnx(classifier, path, texts, batch_size=32):
    """Return the largest difference of a probability between an exported ONNX file, run by onnxruntime, and ours."""
    runtime = _require_package("onnxruntime", "onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    features = classifier.convert(texts)
    logits = tools.predict_logits(classifier.model, features, batch_size)
    expected = tools.probabilities(logits, classifier.settings["temperature"])
    largest = 0.0
    for batch in tools.plan_batches(features.lengths, batch_size):
        inputs = {name: tensor.numpy() for name, tensor in tools.make_batch(features, batch)[0].items()}
        logits = session.run(["logits"], inputs)[0]
        largest = max(largest, float(np.abs(tools.probabilities(logits) - expected[batch]).max()))
    return largest
