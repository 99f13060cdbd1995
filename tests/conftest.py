"""What the tests share: tiny vocabularies, a tiny BERT, a model hub on loopback, and the folder of real data."""

import io
import json
import os
import shutil
import string
import sys
import tarfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

# the servers of these tests are on loopback, whatever proxy or offline settings this machine has
os.environ.pop("HF_HUB_OFFLINE", None)
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
# with tiny models, threads would only wait for each other, also in the kernels and scripts that tests start
os.environ["OMP_NUM_THREADS"] = "1"

import huggingface_hub.constants
import numpy as np
import pandas as pd
import papermill
import pytest
import torch
from accelerate.state import AcceleratorState
from forked import ForkServer
from hypothesis import HealthCheck, settings, strategies
from nbconvert import ScriptExporter
from pytorch_pretrained_bert.modeling import BertConfig, BertForPreTraining, BertForSequenceClassification
from pytorch_pretrained_bert.tokenization import BertTokenizer
from safetensors.torch import save
from servers import Server

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # tools.py and textbert/ stand there, also for the worker processes

from textbert.features import conversion  # noqa: E402
from textbert.model.archive import get_archive_path, write_archive  # noqa: E402

quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile("tests", deadline=None, derandomize=True, max_examples=100, suppress_health_check=quiet)
settings.register_profile("fuzz", deadline=None, max_examples=20_000, suppress_health_check=quiet)
settings.load_profile("tests")  # pytest --hypothesis-profile=fuzz takes the other

# what an archive must contain about its classifier
SETTINGS = {
    "do_lower_case": True,
    "max_seq_length": 9,
    "truncation": "head",
    "label_names": ["bad", "good"],
    "positive_class": "good",
    "temperature": 1.5,
    "threshold": 0.5,
}

# any text (without surrogates), with characters that break tables more often than by chance
HARD = "\t\r\n\"',\\ \x00\x0b\x0c\x1c\x1d\x1e\x1f\x85\u2028\u2029\ufeff"
texts = strategies.text(strategies.characters(exclude_categories=["Cs"]) | strategies.sampled_from(HARD))

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "a", "and", "was", "not", "bad", "good", "very", "food", "place", "soup", "cafe", "un", "don"]
PIECES = ["aff", "able", "##aff", "##able", "##ing", "##ly", "##s", "##ed"]


# these take minutes; the last ones of two processes should end at about the same time, so short ones come last
LONGEST = ("test_faults", "test_resume", "test_rerun", "test_notebooks", "test_browser", "test_service", "test_docs")


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_make_parametrize_id(val, argname):
    """Name bytes by their argument: compressed bytes vary with the time, but xdist needs equal ids in all processes."""
    return argname if isinstance(val, bytes) else None


def make_vocabulary(cased):
    """Return a small BERT vocabulary as a list: single characters, their ## forms, some words and word pieces."""
    characters = string.ascii_lowercase + string.digits + "ßяйب中文\u0301😀"
    capitals = [*string.ascii_uppercase, *"éüÉ", "The", "Good", "##THE"] if cased else []
    pieces = [*characters, *capitals]
    pieces += [f"##{piece}" for piece in pieces if not piece.startswith("##")]
    return [*SPECIAL, *dict.fromkeys([*pieces, *WORDS, *PIECES, *string.punctuation, "…", "。"])]


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory):
    """The library's own tokenizers with a tiny vocabulary, as a dict: "cased" and "uncased"."""
    folder = tmp_path_factory.mktemp("vocabularies")
    made = {}
    for casing in ("cased", "uncased"):
        path = folder / f"{casing}.txt"
        path.write_text("\n".join(make_vocabulary(casing == "cased")) + "\n", encoding="utf-8")
        made[casing] = BertTokenizer(str(path), do_lower_case=casing == "uncased")
    return made


@pytest.fixture(params=["cased", "uncased"])
def tokenizer(request, tokenizers):
    """Each of the two tiny tokenizers in turn."""
    return tokenizers[request.param]


def make_reviews(rows, seed):
    """Return a frame in Yelp's format, each text different, with what real files have in them."""
    rng = np.random.default_rng(seed)
    oddities = ['say "hi"', "a,b", "tab\there", "line\nbreak", "line\\nbreak", "<br />", "café 😀", "A\x85B", "null"]
    labels = np.arange(rows) % 2 + 1
    words = [("bad", "good")[label - 1] for label in labels]
    texts = [f"{word} soup {rng.integers(10**9)} {oddities[i % 9]}" for i, word in enumerate(words)]
    return pd.DataFrame({"label": labels, "text": texts})


def write_script(notebook, path, **parameters):
    """Write a notebook of the project as a script, with these parameters."""
    source = ROOT / f"{notebook}.ipynb"
    prepared = papermill.execute_notebook(source, None, parameters, prepare_only=True, progress_bar=False)
    path.write_text(ScriptExporter().from_notebook_node(prepared)[0])


def to_bytes(state):
    """Return what torch.save writes, as bytes."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@pytest.fixture(scope="session")
def bert_files():
    """A function that returns the files of a tiny random BERT as a dict from name to bytes.

    It is a pre-trained one with its pre-training heads, or, given `classifier` (the settings under
    that key in config.json), a fine-tuned one.
    """

    def make(cased=False, classifier=None, seed=0, num_labels=2, vocabulary=None, **config):
        vocabulary = vocabulary or make_vocabulary(cased)
        settings = {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 512,
            **config,
        }
        bert_config = BertConfig(len(vocabulary), **settings)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            if classifier is None:
                model = BertForPreTraining(bert_config)
            else:
                model = BertForSequenceClassification(bert_config, num_labels)
        described = bert_config.to_dict() | ({} if classifier is None else {"classifier": classifier})
        return {
            "config.json": json.dumps(described).encode(),
            "pytorch_model.bin": to_bytes(model.state_dict()),
            "vocab.txt": ("\n".join(vocabulary) + "\n").encode(),
        }

    return make


def copy_code(folder):
    """Copy the notebooks, the modules and the package to a folder."""
    for path in (*ROOT.glob("*.ipynb"), *ROOT.glob("*.py")):
        shutil.copy(path, folder)
    shutil.copytree(ROOT / "textbert", folder / "textbert", ignore=shutil.ignore_patterns("__pycache__"))


def make_project(folder, bert_files):
    """Fill a folder with copies of the project's files, a tiny data set and a tiny BERT; return the folder."""
    copy_code(folder)
    task = folder / "data" / "tiny"
    task.mkdir(parents=True)
    for seed, (name, rows) in enumerate((("train", 61), ("test", 23))):
        frame = make_reviews(rows, seed)
        if name == "train":
            frame.loc[len(frame)] = [1, "  "]
        frame.to_csv(task / f"{name}.csv", header=False, index=False, quoting=1)
    write_archive(bert_files(), get_archive_path("tiny-bert", folder / "cache"))
    return folder


FIVE_TEXTS = ["good food", "bad", "The soup", "", "a b c d e f g"]


@pytest.fixture
def data_dir(tmp_path):
    """A folder with a train.tsv of five rows."""
    rows = [f"{i}\t{i % 2}\ta\t{text}\n" for i, text in enumerate(FIVE_TEXTS)]
    (tmp_path / "train.tsv").write_text("".join(rows), encoding="utf-8")
    return tmp_path


@pytest.fixture
def make_file(tmp_path):
    """A function that writes bytes (or text as UTF-8) to a file called `name` and returns its path."""

    def write(content, name="train.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def pack(tmp_path):
    """A function that writes a dict from name to bytes as a `.tar.gz` and returns its path."""

    def write(files, name="tiny.tar.gz"):
        with tarfile.open(tmp_path / name, "w:gz", compresslevel=1) as archive:
            for member_name, content in files.items():
                member = tarfile.TarInfo(member_name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return tmp_path / name

    return write


@pytest.fixture
def load_state():
    """A function that reads the weights among the files of `bert_files` into a dict."""
    return lambda files: torch.load(io.BytesIO(files["pytorch_model.bin"]), weights_only=True)


@pytest.fixture
def with_state():
    """A function that returns the files of a BERT with other weights, given as what torch.save takes."""
    return lambda files, state: {**files, "pytorch_model.bin": to_bytes(state)}


def assert_equal_weights(found, expected):
    """Check that two dicts from name to tensor are equal."""
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def encoder_of(state):
    """Return the weights of a state dict that a classifier starts from."""
    return {name: tensor for name, tensor in state.items() if name.startswith("bert.")}


def assert_same_encoder(model, state):
    """Check that a model has the encoder weights of a state dict."""
    assert_equal_weights(encoder_of(model.state_dict()), encoder_of(state))


@pytest.fixture
def classifier(bert_files, pack):
    """A classifier whose weights are random and large enough to tell texts apart."""
    from tools import Classifier

    settings = {**SETTINGS, "truncation": "tail", "temperature": 2.0}
    loaded = Classifier.load(pack(bert_files(classifier=settings)), "cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return loaded


@pytest.fixture
def hub_files(bert_files, load_state):
    """The files of a tiny BERT as a model hub has them: safetensors, names without "bert.", position_ids."""
    files = bert_files()
    state = {name.removeprefix("bert."): tensor.clone() for name, tensor in encoder_of(load_state(files)).items()}
    state["embeddings.position_ids"] = torch.arange(512)
    config = json.loads(files["config.json"]) | {"model_type": "bert"}
    return {
        "config.json": json.dumps(config).encode(),
        "tokenizer_config.json": b'{"do_lower_case": true}',
        "vocab.txt": files["vocab.txt"],
        "model.safetensors": save(state),
    }


@pytest.fixture
def workers_in_time(monkeypatch):
    """Make a conversion wait until its workers have started; a short one would finish first."""
    worker_pool = conversion.worker_pool

    @contextmanager
    def wait_for_workers(*arguments):
        with worker_pool(*arguments) as pool:
            pool.result(timeout=300)
            yield pool

    monkeypatch.setattr(conversion, "worker_pool", wait_for_workers)


@pytest.fixture
def server():
    """A `Server` without files."""
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def quick(monkeypatch):
    """Make waiting take no time."""
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


@pytest.fixture(scope="session")
def test_data():
    """A function from a name to its path in the folder of larger real data; skips where it is absent."""
    folder = Path(os.environ.get("BERT_TEST_DATA", ROOT.parent / "shared" / "data"))

    def find(name):
        if not (folder / name).is_file():
            pytest.skip(f"{folder / name} is absent: set BERT_TEST_DATA to the folder that holds {name}")
        return folder / name

    return find


@pytest.fixture(scope="module")
def browser():
    """A headless chromium; skips where there is none, unless BERT_TEST_BROWSER names one."""
    from playwright.sync_api import sync_playwright  # few tests need it

    name = os.environ.get("BERT_TEST_BROWSER")
    path = shutil.which(name or "chromium")
    if not (name or path):
        pytest.skip(
            "chromium is not installed: install it, or set BERT_TEST_BROWSER to the path of a Chromium-based browser"
        )
    assert path, f"BERT_TEST_BROWSER is {name}, which is not installed"
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=path, args=["--disable-gpu", "--disable-quic"])
        yield instance
        instance.close()


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory):
    """The `ForkServer` of this process, for programs and kernels that start at once."""
    server = ForkServer(tmp_path_factory.mktemp("forked"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def forked_kernels(fork_server):
    """Let the notebooks of a test, and of later ones in its file, run in kernels that start at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(fork_server.jupyter_path))
        yield


@pytest.fixture(scope="module", autouse=True)
def accelerator_of_a_module():
    """Reset the state of accelerate after the tests of a file: its precision, which those of the next may change."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def fresh_accelerator():
    """Reset the state of accelerate, which otherwise lasts as long as the process, before and after a test."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def write_folder(folder, files, **jsons):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for name, content in jsons.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder
