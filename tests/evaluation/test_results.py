"""eval_results.json keeps the names of models that programs which read it rely on."""

import json

import numpy as np
import pandas as pd

from textbert.evaluation import metrics
from textbert.evaluation.results import make_card, to_display_names, to_file_names, write_results


def test_names_in_the_file_and_on_the_screen():
    by_model = {"majority class": 1, "TF-IDF": 2, "BERT": 3}
    in_file = to_file_names(by_model)
    assert list(in_file.items()) == [("always the same", 1), ("counting words", 2), ("BERT", 3)]
    assert list(to_display_names(in_file).items()) == list(by_model.items())
    assert list(to_file_names({"BERT minus TF-IDF": 4})) == ["BERT minus counting words"]


def test_the_files_have_what_programs_read(tmp_path):
    labels, models = np.array([0, 1] * 10), {"TF-IDF": np.zeros(20, int), "BERT": np.array([0, 1] * 10)}
    results = {name: metrics.get_eval_report("t", labels, predicted) for name, predicted in models.items()}
    intervals = metrics.bootstrap_metrics(labels, models, 99)
    table = pd.DataFrame({"row": [1], "text": ["a, b"]})
    about = {"dev_rows": 20, "TF-IDF": {"threshold": 0.5}}
    paths = write_results(
        tmp_path, results, intervals, metrics.mcnemar(labels, labels, models["TF-IDF"]), table, **about
    )
    assert [path.name for path in paths] == ["eval_results.txt", "eval_results.json", "predictions.csv"]
    assert paths[0].read_text().splitlines()[:2] == ["task = t", "mcc = 1.0"]
    content = json.loads(paths[1].read_text())
    assert content["results"]["BERT"]["mcc"] == 1 and content["counting words"] == {"threshold": 0.5}
    assert content["intervals"]["counting words"]["precision"]["value"] is None  # undefined, and JSON has no NaN
    assert content["mcnemar"]["only_bert"] == 10 and content["dev_rows"] == 20
    assert pd.read_csv(paths[2]).to_dict("list") == {"row": [1], "text": ["a, b"]}
    errors = pd.DataFrame({"Brier score": [0.1]}, ["after calibration"])
    card = make_card(["no", "yes"], labels, intervals, errors)
    assert card["texts labelled 'no'"] == 10 and card["mcc"] == 1 and card["Brier score"] == 0.1
