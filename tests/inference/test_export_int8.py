"""The ONNX file with 8-bit weights: it is smaller and predicts nearly the same."""

import re

import exports
import numpy as np
from test_export import TEXTS, needs
from tiny import teach

from textbert.inference import export
from textbert.notebook.parameters import get_parameters


@needs("onnx", "onnxscript", "onnxruntime")
def test_the_quantized_file_predicts_nearly_the_same_and_its_cost_is_reported(bert_files, tmp_path):
    classifier = teach(bert_files, tmp_path)
    path = export.export(classifier, "onnx-int8", tmp_path / "out")
    models = path.parent.glob("*.onnx")
    assert sorted(each.name for each in models) == ["model-int8.onnx", "model.onnx"]
    assert path.name == "model-int8.onnx" and path.stat().st_size < (path.parent / "model.onnx").stat().st_size
    assert 0 < exports.compare_onnx(classifier, path, TEXTS) < 0.1
    labels = np.array([1, 0, 1, 1, 1, 0, 1])
    line = export.compare_int8(classifier, path, TEXTS, labels, batch_size=3)
    pattern = r"model-int8\.onnx on 7 texts: (\S+) times as fast as model\.onnx, "
    pattern += r"MCC (\S+) instead of (\S+) \((\S+)\), \d+ MB instead of \d+"
    faster, mcc, expected, difference = map(float, re.fullmatch(pattern, line).groups())
    assert faster > 0 and abs(mcc - expected - difference) < 2e-3
    predicted = classifier.predict(TEXTS, progress=False)["label"] == "good"
    tp, fp = (predicted & (labels == 1)).sum(), (predicted & (labels == 0)).sum()
    fn, tn = (~predicted & (labels == 1)).sum(), (~predicted & (labels == 0)).sum()
    product = float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert abs(expected - ((tp * tn - fp * fn) / product**0.5 if product else 0)) < 1e-3


def test_int8_is_a_valid_export():
    rule = get_parameters("evaluate")["EXPORT"].rule
    assert rule.is_valid(["huggingface", "onnx", "onnx-int8"]) and not rule.is_valid(["onnx-int4"])
