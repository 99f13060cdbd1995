"""How fast do the web services of docs/deploying.md answer, next to `Classifier.predict` in a process of its own?

    python tests/benchmarks/bench_service.py cache/sample.tar.gz [--rounds 3] [--requests 100] [--texts 1 16]

The service with this package and the one with the exported ONNX file run as servers of one worker process each, started
as the page says. They and `predict`, called in this process, take turns with the same requests, each of one or more
reviews of the sample; clients that send them at once are threads of this process. Needs the packages of
requirements-extras.txt.
"""

import argparse
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from bench_use import ROOT, read_texts
from services import MODELS, serve, write_service

from textbert.inference.classifier import Classifier
from textbert.inference.export import export

CLIENTS = (1, 8)


def write_files(folder, model, archive, classifier):
    """Write the service with one of `MODELS` to a new folder, and return the folder."""
    write_service(folder, model)
    if model == "Classifier":
        (folder / "cache").mkdir()
        shutil.copy(archive, folder / "cache/sample.tar.gz")
    else:
        path = export(classifier, "onnx", folder / "exported")
        for name in ("model.onnx", "tokenizer.json"):
            path.with_name(name).rename(folder / name)
    return folder


def time_requests(send, requests, clients):
    """Let `clients` send all requests; return the seconds that all of them took, and those of each."""

    def time_request(texts):
        start = time.perf_counter()
        send(texts)
        return time.perf_counter() - start

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:  # the only client is the main thread
        latencies = list((map if clients == 1 else pool.map)(time_request, requests))
    return time.perf_counter() - start, latencies


def race(ways, requests, rounds):
    """Let all ways take turns with the requests; print texts a second and the latencies of each, over all rounds.

    ways : dict from a name to (function that answers the texts of a request, number of clients)
    """
    seconds, latencies = {name: [] for name in ways}, {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            elapsed, each = time_requests(ways[name][0], requests if turn else requests[:10], ways[name][1])
            if turn:  # the first turn is a short one, to warm up
                seconds[name].append(elapsed)
                latencies[name] += each
    texts = sum(map(len, requests))
    for name in ways:
        p50, p99 = np.percentile(latencies[name], [50, 99]) * 1000
        rates = sorted(texts / elapsed for elapsed in seconds[name])
        print(
            f"{len(requests[0]):3} texts a request  {name:24} {np.median(rates):7.1f} texts a second "
            f"({rates[0]:.1f} to {rates[-1]:.1f})  p50 {p50:7.1f} ms  p99 {p99:7.1f} ms",
            flush=True,
        )


def check_answers(services, classifier, texts):
    """Check that the services predict what the classifier does."""
    expected = classifier.predict(texts, progress=False)["probability"]
    for model, service in services.items():
        gap = np.abs(expected - [prediction["probability"] for prediction in service.predict(texts)]).max()
        print(f"{model}: largest difference of a probability {gap:.1e} in {len(texts)} texts")
        assert gap < 1e-4


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("archive", help="of a fine-tuned model, made by train.ipynb")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each way gets")
    parser.add_argument("--requests", type=int, default=100, help="in each turn")
    parser.add_argument("--texts", type=int, nargs="+", default=[1, 16], help="in each request")
    options = parser.parse_args()
    classifier = Classifier.load(options.archive, "cpu")
    reviews = read_texts("sample", "task", None)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        services = {}
        for model in MODELS:
            files = write_files(Path(folder, model), model, options.archive, classifier)
            services[model] = stack.enter_context(serve(files, PYTHONPATH=str(ROOT)))
        check_answers(services, classifier, reviews[:100])
        ways = {"predict": (lambda texts: classifier.predict(texts, progress=False), 1)}
        for model, service in services.items():
            ways |= {f"{model}, {count} clients": (service.predict, count) for count in CLIENTS}
        for count in options.texts:
            requests = [np.resize(np.roll(reviews, -i * count), count).tolist() for i in range(options.requests)]
            race(ways, requests, options.rounds)
        for model, service in services.items():
            memory = service.process.memory_full_info()
            print(f"{model}: {memory.rss / 1e6:,.0f} MB resident, {memory.uss / 1e6:,.0f} MB of it its own")


if __name__ == "__main__":
    main()
