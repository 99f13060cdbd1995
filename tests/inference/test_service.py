"""The web service of docs/deploying.md, as written there: each model, behind uvicorn, and the page in a browser."""

import http.client
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from conftest import SETTINGS
from pages import take_block
from services import MODELS, SERVICE, serve, write_service
from tiny import TEXTS, teach

from textbert.inference.classifier import Classifier
from textbert.model.archive import pack_model, write_archive
from textbert.model.loading import save_model

PACKAGES = {"Classifier": ["fastapi", "uvicorn"]}
PACKAGES["ONNX"] = [*PACKAGES["Classifier"], "onnx", "onnxscript", "onnxruntime", "tokenizers"]
REQUESTS = 200
TEXT = "good soup"


def needs(model):
    """Return the mark that skips a test, with the command that installs what the service with a model lacks."""
    missing = [package for package in PACKAGES[model] if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"optional: pip install {' '.join(missing)}")


pytestmark = [pytest.mark.slow, needs("Classifier")]
EACH_MODEL = [pytest.param(model, marks=needs(model)) for model in MODELS]
# for what depends on the server and not on the model: this one starts without torch
ONNX_ALONE = pytest.mark.parametrize("folder", [EACH_MODEL[-1]], indirect=True)


@pytest.fixture(scope="module")
def archive(bert_files, tmp_path_factory):
    """The archive of a tiny classifier that knows "good" from "bad", with a calibration and a threshold of its own."""
    folder = tmp_path_factory.mktemp("taught")
    taught = teach(bert_files, folder)
    save_model(taught.model, taught.tokenizer, folder / "saved", taught.settings | {"intercept": 0.2})
    pack_model(folder / "saved", folder / "sample.tar.gz")
    return folder / "sample.tar.gz"


@pytest.fixture(scope="module")
def classifier(archive):
    return Classifier.load(archive, "cpu")


@pytest.fixture(scope="module", params=EACH_MODEL)
def folder(request, archive, tmp_path_factory):
    """The folder of the service with each model in turn."""
    return write_service(tmp_path_factory.mktemp("service"), request.param, archive)


@pytest.fixture(scope="module")
def service(folder):
    """A running server with each model in turn."""
    with serve(folder) as service:
        yield service
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(600) in (0, -signal.SIGTERM)


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


# ---------- Refusals --------------------------------------------------------------------------------------------------

INVALID = {
    '["good soup"': "Invalid JSON: EOF",
    "": "Invalid JSON: EOF",
    "[good]": "Invalid JSON",
    "['good']": "Invalid JSON",
    "[" * 5000: "Invalid JSON: recursion limit",
    '["\\ud83d"]': "Invalid JSON",  # half of a surrogate pair
    '["\\ude00 good"]': "Invalid JSON",
    b'["\xff"]': "Invalid JSON: invalid unicode",
    '"good"': "got 'good': Input should be a valid array",
    '{"texts": ["good"]}': "got {'texts': ['good']}: Input should be a valid array",
    "null": "got None: Input should be a valid array",
    "[]": "got []: List should have at least 1 item",
    "[1]": "got 1: Input should be a valid string",
    '["good", null]': "got None: Input should be a valid string",
    '[["good"]]': "got ['good']: Input should be a valid string",
    "[NaN]": "got nan: Input should be a valid string",
}


@pytest.mark.parametrize("body", INVALID, ids=lambda body: repr(body)[:20])
def test_an_invalid_body_is_refused(service, body):
    status, answer = service.request("POST", "/predict", body)
    detail = json.loads(answer)["detail"]
    assert status == 422 and detail.startswith("expected a JSON list of 1 to 100 texts, got ")
    assert INVALID[body] in detail and len(detail) < 300
    assert service.is_healthy()


def test_a_surrogate_pair_is_one_character(service):
    status, answer = service.request("POST", "/predict", '["good \\ud83d\\ude00"]')
    assert status == 200 and json.loads(answer) == service.predict(["good 😀"])


@pytest.mark.parametrize("count", [101, 300_000])
def test_too_many_texts_are_refused(service, count):
    assert len(service.predict(["good"] * 100)) == 100
    for item in ('""', "1"):
        status, answer = service.request("POST", "/predict", f"[{','.join([item] * count)}]")
        assert status == 413, answer
        assert f"List should have at most 100 items after validation, not {count}" in json.loads(answer)["detail"]


def send_in_chunks(body):
    """Return an iterator over the parts of a body, which http.client sends in chunks, without a Content-Length."""
    return iter([body[start : start + 50_000] for start in range(0, len(body), 50_000)])


@pytest.mark.parametrize("send", [bytes, send_in_chunks], ids=["Content-Length", "chunked"])
def test_too_large_a_body_is_refused(service, send):
    largest = b'["%s"]' % (b"good " * 200_000)[: 1_000_000 - 4]
    status, answer = service.request("POST", "/predict", send(largest))
    assert status == 200 and json.loads(answer) == service.predict(["good " * 24])
    for body in (largest + b" ", largest * 30):
        status, answer = service.request("POST", "/predict", send(body))
        assert status == 413
        assert json.loads(answer)["detail"] == "the body has more than 1,000,000 bytes: send fewer texts at a time"
    assert service.is_healthy()


def test_other_addresses_and_methods_are_refused(service):
    for path in ("/nowhere", "/service.py", "/model.py", "/../service.py", "/%2e%2e/service.py", "/docs"):
        assert service.request("GET", path)[0] == 404, path
    assert service.request("GET", "/predict")[0] == 405


# ---------- The life of a server --------------------------------------------------------------------------------------


def begin_request(service, body):
    """Send the head of a request and half of its body; return the connection."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=600)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[: len(body) // 2])
    return connection


def test_a_client_that_goes_away_does_no_harm(service):
    for _ in range(5):
        begin_request(service, b'["good soup"]').close()
    assert service.is_healthy() and len(service.predict([TEXT])) == 1


@ONNX_ALONE
def test_a_stopped_server_answers_what_it_was_asked_and_can_be_restarted(folder, classifier):
    body = json.dumps(TEXTS).encode()
    with serve(folder) as service:
        connections = [begin_request(service, body) for _ in range(20)]
        assert service.is_healthy()  # so those above have arrived, too
        service.process.send_signal(signal.SIGTERM)
        service.wait(lambda: not service.is_healthy(), "the port to close")
        with pytest.raises(ConnectionRefusedError):
            service.predict([TEXT])
        assert service.process.poll() is None
        for connection in connections:
            connection.send(body[len(body) // 2 :])
        for connection in connections:
            response = connection.getresponse()
            assert response.status == 200
            check(json.loads(response.read()), classifier, TEXTS)
        assert service.process.wait(600) in (0, -signal.SIGTERM)
    with serve(folder, service.port) as restarted:
        assert restarted.port == service.port
        check(restarted.predict(TEXTS), classifier, TEXTS)


SLOW_MODEL = """
from pathlib import Path
from time import sleep

def predict(texts):
    Path("begun").touch()
    while not Path("go").exists():
        sleep(0.01)
    return [{"label": "good", "probability": 0.9} for _ in texts]
"""


def test_a_server_that_predicts_is_healthy_and_can_be_stopped(archive, tmp_path):
    write_service(tmp_path, "Classifier", archive)
    (tmp_path / "model.py").write_text(SLOW_MODEL)
    with ThreadPoolExecutor(1) as pool, serve(tmp_path) as service:
        predictions = pool.submit(service.predict, [TEXT])
        service.wait((tmp_path / "begun").exists, "the prediction to begin")
        assert service.is_healthy()
        service.process.send_signal(signal.SIGTERM)
        service.wait(lambda: not service.is_healthy(), "the port to close")
        assert not predictions.done()
        (tmp_path / "go").touch()
        assert predictions.result(600) == [{"label": "good", "probability": 0.9}]


@ONNX_ALONE
def test_workers_have_a_process_and_a_model_each(folder, classifier):
    with serve(folder, workers=2) as service:
        with ThreadPoolExecutor(8) as pool:
            for predictions in pool.map(service.predict, [TEXTS] * 40):
                check(predictions, classifier, TEXTS)
        workers = [child for child in service.process.children() if "spawn_main" in " ".join(child.cmdline())]
        assert len(workers) == 2
    assert not any(worker.is_running() for worker in workers)


# ---------- What the page says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [EACH_MODEL[-1]])
def test_the_onnx_file_needs_neither_torch_nor_this_package(archive, tmp_path, model):
    write_service(tmp_path, model, archive)
    code = "import sys, service, model; model.predict(['good', 'bad']); print(*sys.modules)"
    options = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": ""}, "capture_output": True, "text": True}
    process = subprocess.run([sys.executable, "-c", code], check=True, **options)
    packages = {name.split(".")[0] for name in process.stdout.split()}
    assert {"onnxruntime", "tokenizers", "fastapi"} <= packages
    assert not packages & {"torch", "textbert", "pytorch_pretrained_bert", "transformers", "pandas", "tools"}


def test_the_service_is_short():
    assert len([line for line in take_block(SERVICE).splitlines() if line]) <= 25


def test_the_request_on_the_page_is_answered(service):
    """Send what its curl command sends."""
    (line,) = [line for line in take_block("curl", "bash").splitlines() if line.startswith("curl")]
    _, address, option, body = shlex.split(line)
    assert option == "--data" and address == "http://127.0.0.1:8000/predict"
    assert len(service.predict(json.loads(body))) == 2


# ---------- The form in a browser -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def marked_service(bert_files, tmp_path_factory):
    """A running server whose classes have names that would be HTML."""
    folder = tmp_path_factory.mktemp("marked")
    names = ["<b>bad</b>", "<img src=x onerror=document.title='attacked'>"]
    write_archive(bert_files(classifier=SETTINGS | {"label_names": names}), folder / "sample.tar.gz")
    with serve(write_service(folder, "Classifier", folder / "sample.tar.gz")) as service:
        yield service


@pytest.fixture
def page(browser, marked_service):
    """The form in a new tab, with the errors of its script in `page.errors`."""
    page = browser.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(error))
    page.goto(f"http://127.0.0.1:{marked_service.port}/")
    yield page
    page.close()


def try_text(page, text):
    """Type a text, press the button and return what the page shows."""
    page.get_by_label("Text").fill(text)
    with page.expect_response("**/predict"):
        page.get_by_role("button", name="Classify").click()
    page.wait_for_function("document.querySelector('output').textContent.includes(document.forms[0].text.value)")
    return page.locator("output").inner_text()


def test_the_form_shows_an_answer_as_text(page, marked_service):
    for text in ("good soup", "<b>bad</b> & <script>document.title='attacked'</script>", "é 😀"):
        (prediction,) = marked_service.predict([text])
        shown = try_text(page, text)
        assert shown == f"{prediction['label']} ({prediction['probability']:.3f}): {text}"
        assert page.locator("output *").count() == 0
    assert page.title() == "Try the classifier" and page.errors == []


def test_the_form_shows_why_there_is_no_answer(page):
    page.get_by_label("Text").fill("x" * 1_000_000)
    page.get_by_role("button", name="Classify").click()
    page.wait_for_function("document.querySelector('output').textContent.startsWith('the body has more than')")
    page.get_by_label("Text").fill("good")
    page.route("**/predict", lambda route: route.abort())
    page.get_by_role("button", name="Classify").click()
    page.wait_for_function("document.querySelector('output').textContent.includes('Failed to fetch')")
    assert page.errors == []
