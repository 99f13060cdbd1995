"""A legacy archive (2019), made by the guide's own loop on `tools.py`, is loaded with the settings that it lacks."""

import shutil
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import ROOT, make_reviews
from pytorch_pretrained_bert import BertForSequenceClassification, BertTokenizer
from pytorch_pretrained_bert.optimization import BertAdam
from session import Session
from torch.nn import CrossEntropyLoss
from torch.utils.data import DataLoader, TensorDataset

import tools
from textbert.data.labelled_texts import LabelledTexts
from textbert.evaluation.calibration import fit_calibration
from textbert.model.archive import write_archive

SETTINGS = {"max_seq_length": 24, "label_names": ["bad", "good"]}
REVIEWS = ["good", "bad", "the soup was good", "a bad place", "not good", "very good food, bad soup"]


@pytest.fixture(scope="module")
def guide(bert_files, tmp_path_factory):
    """The guide's folder after training: archive, vocabulary, and its model's logits of `REVIEWS`."""
    folder = tmp_path_factory.mktemp("guide")
    write_archive(bert_files(), folder / "bert.tar.gz")
    tokenizer = tools.load_tokenizer(folder / "bert.tar.gz")
    frame = make_reviews(32, seed=1)
    examples = [tools.InputExample(i, text, None, str(label - 1)) for i, (label, text) in enumerate(frame.to_numpy())]
    features = [
        tools.convert_example_to_feature((example, {"0": 0, "1": 1}, 24, tokenizer, "classification"))
        for example in examples
    ]
    columns = ("input_ids", "input_mask", "segment_ids", "label_id")
    data = TensorDataset(*(torch.tensor([getattr(row, name) for row in features]) for name in columns))
    torch.manual_seed(0)
    model = BertForSequenceClassification.from_pretrained(str(folder / "bert.tar.gz"), num_labels=2)
    optimizer = BertAdam(model.parameters(), lr=1e-3, warmup=0.1, t_total=40)
    model.train()
    for _ in range(10):
        for ids, mask, segments, labels in DataLoader(data, batch_size=8):
            logits = model(ids, segments, mask, labels=None)
            CrossEntropyLoss()(logits.view(-1, 2), labels.view(-1)).backward()
            optimizer.step()
            optimizer.zero_grad()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    model.config.to_json_file(str(folder / "config.json"))
    tokenizer.save_vocabulary(str(folder))
    with tarfile.open(folder / "yelp.tar.gz", "w:gz") as archive:
        for name in ("config.json", "pytorch_model.bin"):
            archive.add(folder / name, name)
    model.eval()
    guide_tokenizer, logits = BertTokenizer(str(folder / "vocab.txt"), do_lower_case=True), []
    for text in REVIEWS:
        ids = torch.tensor([guide_tokenizer.convert_tokens_to_ids(["[CLS]", *guide_tokenizer.tokenize(text), "[SEP]"])])
        logits.append(model(ids).detach()[0])
    return SimpleNamespace(folder=folder, archive=folder / "yelp.tar.gz", logits=torch.stack(logits))


def test_predictions_are_the_guides(guide, capsys):
    vocabulary = guide.folder / "vocab.txt"
    classifier = tools.Classifier.load(guide.archive, "cpu", vocabulary=vocabulary, **SETTINGS)
    printed = capsys.readouterr().out
    assert "is a 2019 archive without classifier settings. Assuming:" in printed
    assert "temperature 1.0, threshold 0.5" in printed and "max_seq_length 24, truncation 'head'" in printed
    assert "has no capital letters: assuming uncased" in printed
    predicted = classifier.predict(REVIEWS)
    expected = guide.logits.softmax(1)[:, 1].numpy()
    np.testing.assert_allclose(predicted["probability"], expected, atol=1e-5)
    assert predicted["label"].tolist() == [["bad", "good"][int(p >= 0.5)] for p in expected]
    assert len(set(predicted["label"])) == 2
    assert classifier.describe()[0] == "Nothing is known of its training."


def test_a_folder_has_its_own_vocabulary(guide, tmp_path):
    for name in ("config.json", "pytorch_model.bin", "vocab.txt"):
        (tmp_path / name).write_bytes((guide.folder / name).read_bytes())
    classifier = tools.Classifier.load(tmp_path, "cpu", temperature=2, threshold=0.25, **SETTINGS)
    assert classifier.settings["temperature"] == 2 and classifier.settings["threshold"] == 0.25
    expected = (guide.logits / 2).softmax(1)[:, 1].numpy()
    np.testing.assert_allclose(classifier.predict(REVIEWS)["probability"], expected, atol=1e-5)
    with pytest.raises(ValueError, match="already has a vocab.txt; remove the argument vocabulary"):
        tools.Classifier.load(tmp_path, "cpu", vocabulary=guide.folder / "vocab.txt", **SETTINGS)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"max_seq_length": None}, ValueError, "Pass max_seq_length, as in"),
        ({"max_seq_length": None, "label_names": None}, ValueError, "Pass max_seq_length and label_names, as in"),
        ({"max_seq_length": 513}, ValueError, "max_seq_length is 513, but must be an integer from 3 to 512"),
        ({"label_names": ["bad"]}, ValueError, r"label_names is \['bad'\], but must be a list of two different"),
        ({"threshold": 1.5}, ValueError, "threshold is 1.5"),
        ({"vocabulary": None}, ValueError, r"yelp.tar.gz has no vocab.txt"),
        ({"vocabulary": "elsewhere/vocab.txt"}, FileNotFoundError, "elsewhere/vocab.txt is missing"),
    ],
)
def test_missing_and_invalid_settings_are_refused(guide, changed, error, message):
    with pytest.raises(error, match=message):
        tools.Classifier.load(guide.archive, "cpu", **{"vocabulary": guide.folder / "vocab.txt", **SETTINGS, **changed})


def test_another_vocabulary_is_refused(guide, tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n" + "a\n" * 1000)
    with pytest.raises(ValueError, match="vocab.txt has 1004 lines, but vocab_size in its config.json is"):
        tools.Classifier.load(guide.archive, "cpu", vocabulary=tmp_path / "vocab.txt", **SETTINGS)


def test_a_newer_archive_stores_these_settings(classifier):
    with pytest.raises(ValueError, match="already stores max_seq_length; remove that argument"):
        tools.Classifier.load(classifier.path, "cpu", **SETTINGS)


@pytest.mark.parametrize("refit", [False, True])
def test_the_validation_set_is_that_of_train_ipynb(guide, refit):
    classifier = tools.Classifier.load(guide.archive, "cpu", vocabulary=guide.folder / "vocab.txt", **SETTINGS)
    texts = [f"{text} {number}" for number in range(20) for text in REVIEWS]
    labels = np.array([int(text.split()[-2] != "bad") for text in texts])
    train = LabelledTexts(Path("train.tsv"), [f"r{i}" for i in range(len(texts))], texts, labels)
    said = classifier.recompute_validation(train, 0.25, 7, refit)
    rows = tools.split_train_validation(texts, labels, 0.25, 7)[1]
    assert said.startswith(f"{len(rows)} texts of train.tsv serve as the validation set")
    assert classifier.validation["label"].tolist() == labels[rows].tolist()
    assert classifier.validation["id"].tolist() == [f"r{row}" for row in rows]
    logits = classifier.validation[["logit_0", "logit_1"]].to_numpy()
    assert (
        np.array_equal(logits.argmax(1), classifier.predict([texts[row] for row in rows])["label"] == "good") != refit
    )
    fitted = fit_calibration(logits, labels[rows])
    found = classifier.settings["temperature"], classifier.settings["intercept"]
    assert found == (fitted if refit else (1.0, 0.0)) and abs(fitted[0] - 1) > 0.01


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.usefixtures("fresh_accelerator")
def test_evaluate_ipynb_evaluates_it(guide, tmp_path, monkeypatch, capsys, refit):
    data_dir = tmp_path / "data" / "guide"
    data_dir.mkdir(parents=True)
    shutil.copy(ROOT / "tools.py", tmp_path)
    (tmp_path / "textbert").symlink_to(ROOT / "textbert")
    monkeypatch.setattr(sys, "path", sys.path.copy())
    for seed, (name, count) in enumerate((("train", 60), ("dev", 40))):
        rows = make_reviews(count, seed).itertuples(index=False)
        lines = [f"{i}\t{label - 1}\ta\t{' '.join(text.split())} {name}\n" for i, (label, text) in enumerate(rows)]
        (data_dir / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "cache").mkdir()
    shutil.copy(guide.archive, tmp_path / "cache" / "guide.tar.gz")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    given = {**SETTINGS, "vocabulary": str(guide.folder / "vocab.txt")}
    session = Session("evaluate")
    session.run(TASK_NAME="guide", OLD_ARCHIVE=given, REFIT=refit, EXPORT=["huggingface"])
    said = capsys.readouterr().out
    assert "texts of train.tsv serve as the validation set" in said
    assert "cannot check for training-set overlap" in said  # whether it has seen them
    assert ("were fitted on it" in said) == refit == (session.names["settings"]["temperature"] != 1.0)
    report = (tmp_path / "outputs/guide/report/report.html").read_text(encoding="utf-8")
    card = (tmp_path / "outputs/guide/huggingface/README.md").read_text(encoding="utf-8")
    assert "A BERT that classifies texts as 'bad' or 'good'. Nothing is known of its training." in card
    assert "Nothing is known of its training." in report and "max_seq_length" in report
    expected = session.names["classifier"].predict(session.names["dev"].texts, progress=False)
    assert session.names["scored"]["predicted"].tolist() == expected["label"].tolist()
