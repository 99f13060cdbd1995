"""The web service of docs/deploying.md, as written there: each model, behind uvicorn, and the page in a browser."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from conftest import ROOT
from services import MODELS, serve, write_service
from tiny import TEXTS, teach

from textbert.inference.export import export
from textbert.model.archive import pack_model
from textbert.model.loading import save_model

PACKAGES = {"Classifier": ["fastapi", "uvicorn"]}
PACKAGES["ONNX"] = [*PACKAGES["Classifier"], "onnx", "onnxscript", "onnxruntime", "tokenizers"]
REQUESTS = 200
TEXT = "good soup"


def needs(model):
    """Return the mark that skips a test, with the command that installs what the service with a model lacks."""
    missing = [package for package in PACKAGES[model] if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"optional: pip install {' '.join(missing)}")


pytestmark = needs("Classifier")
EACH_MODEL = [pytest.param(model, marks=needs(model)) for model in MODELS]


@pytest.fixture(scope="module")
def classifier(bert_files, tmp_path_factory):
    """A tiny Classifier that knows "good" from "bad", with a calibration and a threshold of its own."""
    return teach(bert_files, tmp_path_factory.mktemp("taught"))


def write_files(folder, model, classifier):
    """Write the service with a classifier, as one of `MODELS`, to a folder; return the environment that it needs."""
    write_service(folder, model)
    if model == "ONNX":
        path = export(classifier, "onnx", folder / "exported")
        for name in ("model.onnx", "tokenizer.json"):
            path.with_name(name).rename(folder / name)
        return {"PYTHONPATH": ""}
    save_model(classifier.model, classifier.tokenizer, folder / "saved", classifier.settings)
    pack_model(folder / "saved", folder / "cache/sample.tar.gz")
    return {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module", params=EACH_MODEL)
def files(request, classifier, tmp_path_factory):
    """The folder of the service with each model in turn, and its environment."""
    folder = tmp_path_factory.mktemp("service")
    return folder, write_files(folder, request.param, classifier)


@pytest.fixture(scope="module")
def service(files):
    """A running server with each model in turn."""
    folder, environment = files
    with serve(folder, **environment) as service:
        yield service


def check(predictions, classifier, texts):
    """Check that the predictions of a service are those of the classifier."""
    expected = classifier.predict(texts, progress=False)
    assert [prediction["label"] for prediction in predictions] == expected["label"].tolist()
    found = [prediction["probability"] for prediction in predictions]
    assert found == pytest.approx(expected["probability"].tolist(), abs=1e-5)
    assert all(prediction.keys() == {"label", "probability"} for prediction in predictions)


# ---------- Answers ---------------------------------------------------------------------------------------------------

ODD_TEXTS = ["", " ", "\0", "good\n\tsoup", "<b>bad</b>", "é 😀 中文", "[SEP] good", "good " * 500, '"', "\\ud800"]


def test_answers_are_those_of_predict(service, classifier):
    texts = [*TEXTS, *ODD_TEXTS]
    predictions = service.predict(texts)
    check(predictions, classifier, texts)
    assert len({prediction["label"] for prediction in predictions}) == 2
    for text, prediction in zip(texts, predictions):
        (alone,) = service.predict([text])
        assert alone["label"] == prediction["label"]
        assert alone["probability"] == pytest.approx(prediction["probability"], abs=1e-5)


def test_many_requests_at_once(service, classifier):
    texts = [f"{word} {i}" for i in range(REQUESTS) for word in ("good", "the soup was bad")]
    barrier = Barrier(REQUESTS)

    def send(number):
        barrier.wait()
        return service.predict(texts[2 * number : 2 * number + number % 2 + 1])

    with ThreadPoolExecutor(REQUESTS) as pool:
        answers = list(pool.map(send, range(REQUESTS)))
    assert [len(answer) for answer in answers] == [1, 2] * (REQUESTS // 2)
    sent = [text for i in range(REQUESTS) for text in texts[2 * i : 2 * i + i % 2 + 1]]
    check([prediction for answer in answers for prediction in answer], classifier, sent)
