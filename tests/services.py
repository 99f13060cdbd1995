"""The web service of docs/deploying.md: its files in a folder, its server process, and requests to it."""

import http.client
import json
import os
import re
import shlex
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
from pages import ROOT, take_block

from textbert.inference.classifier import Classifier
from textbert.inference.export import export

TIMEOUT = 600  # seconds; a busy machine starts processes slowly
SERVICE = "FastAPI("  # what only its block contains
MODELS = {"Classifier": '.to_dict("records")', "ONNX": "InferenceSession("}
START = next(line for line in take_block("uvicorn", "bash").splitlines() if line.startswith("uvicorn"))


def write_service(folder, model, archive):
    """Write service.py, its page, one of `MODELS` as model.py and what that reads to a folder; return the folder."""
    (folder / "page").mkdir(parents=True)
    (folder / "service.py").write_text(take_block(SERVICE), encoding="utf-8")
    (folder / "model.py").write_text(take_block(MODELS[model]), encoding="utf-8")
    (folder / "page/index.html").write_text(take_block("fetch(", "html"), encoding="utf-8")
    if model == "Classifier":
        (folder / "cache").mkdir()
        shutil.copy(archive, folder / "cache/sample.tar.gz")
    else:
        path = export(Classifier.load(archive, "cpu"), "onnx", folder)
        for name in ("model.onnx", "tokenizer.json"):
            path.with_name(name).rename(folder / name)
    return folder


@dataclass
class Service:
    """A running server."""

    port: int
    process: psutil.Popen

    def request(self, method, path, body=None):
        """Return the status and the body of an answer; a request whose body is an iterator is sent in chunks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        connection.request(method, path, body)
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer

    def predict(self, texts):
        """Return the predictions for a list of texts, as a list of dicts."""
        status, body = self.request("POST", "/predict", json.dumps(texts))
        assert status == 200, body
        return json.loads(body)

    def is_healthy(self):
        """Return whether the server answers that it is; False if it refuses or closes the connection."""
        try:
            return self.request("GET", "/health") == (200, b'{"status":"ok"}')
        except ConnectionError:
            return False

    def wait(self, condition, description):
        """Wait until a function returns True."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {description}"
            time.sleep(0.02)


@contextmanager
def serve(folder, port=0, workers=1):
    """Context manager that runs the server as the page says, and yields it when it is healthy; port 0 is a free one."""
    command = [sys.executable, "-m", *shlex.split(START), "--workers", str(workers), "--port", str(port)]
    command += ["--timeout-worker-healthcheck", str(TIMEOUT)]  # a busy machine keeps workers from answering in 5 s
    log = folder / "log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(log, "w") as file:
        process = psutil.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file)
    service = Service(port, process)

    def is_listening():
        assert process.poll() is None, log.read_text()
        return "Uvicorn running on" in log.read_text()

    try:
        service.wait(is_listening, "the server")
        service.port = int(re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text())[1])
        service.wait(service.is_healthy, "the model")
        yield service
    finally:
        family = [*process.children(recursive=True), process] if process.is_running() else []
        if process.is_running():
            process.terminate()
        for survivor in psutil.wait_procs(family, timeout=20)[1]:
            survivor.kill()
        process.wait()
