"""A model's configuration, vocabulary and tokenizer settings: what is not BERT's, or corrupt, is refused."""

import json

import conftest
import pytest
from conftest import assert_same_encoder, write_folder

import tools

# ---------- Configuration ---------------------------------------------------------------------------------------------


SETTINGS = {**conftest.SETTINGS, "max_seq_length": 16, "parameters": {"RANDOM_SEED": 7}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b'{"model_type": "roberta", "hidden_size": 32}', "'roberta'.* Expected a BERT model"),
        (b'{"n_embd": 32, "n_layer": 2, "vocab_size": 99}', "lacks .*hidden_size.* Expected a BERT model"),
        (b"{", "config.json"),
        (b"[]", "config.json"),
        (b"\xff\xfe", "config.json"),
        (b"[" * 100_000, "config.json"),
    ],
)
def test_other_architectures_and_corrupt_files_are_refused(bert_files, pack, config, message):
    path = pack({**bert_files(classifier=SETTINGS), "config.json": config})
    with pytest.raises(ValueError, match=rf"tiny\.tar\.gz.*{message}"):
        tools.load_model(path)
    with pytest.raises(ValueError, match=rf"tiny\.tar\.gz.*{message}"):
        tools.Classifier.load(path)


def test_a_decoder_is_refused(tmp_path, bert_files):
    files = bert_files()
    config = {**json.loads(files["config.json"]), "is_decoder": True}
    folder = write_folder(tmp_path, {**files, "config.json": json.dumps(config).encode()})
    with pytest.raises(ValueError, match="has is_decoder True. Expected a BERT model"):
        tools.load_model(folder)


@pytest.mark.parametrize("lacks", ["type_vocab_size", "hidden_act", "initializer_range"])
def test_omitted_settings_are_berts_defaults(tmp_path, hub_files, bert_files, load_state, lacks):
    config = json.loads(hub_files["config.json"])
    del config[lacks]
    folder = write_folder(tmp_path, {**hub_files, "config.json": json.dumps(config).encode()})
    assert_same_encoder(tools.load_model(folder), load_state(bert_files()))
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"lacks {lacks}"):
        tools.load_model(folder)


# ---------- Vocabulary ------------------------------------------------------------------------------------------------


def test_a_vocabulary_without_berts_special_tokens_is_refused(bert_files, pack):
    with pytest.raises(ValueError, match=r"tiny\.tar\.gz.*lacks \[CLS\], \[SEP\]"):
        tools.load_tokenizer(pack({**bert_files(), "vocab.txt": b"[PAD]\n[UNK]\ngood\n"}))


EDITED = {
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "windows": lambda text: text.replace("\n", "\r\n").encode(),
    "empty lines at the end": lambda text: f"{text}\n \n\n".encode(),
    "no final newline": lambda text: text.rstrip("\n").encode(),
    "utf-16": lambda text: text.encode("utf-16"),
}


@pytest.mark.parametrize("edit", EDITED)
@pytest.mark.parametrize("where", ["archive", "folder", "hub format", "argument"])
def test_a_vocabulary_saved_by_a_text_editor_keeps_its_ids(bert_files, pack, tmp_path, hub_files, edit, where):
    files = hub_files if where == "hub format" else bert_files(classifier=None if where != "argument" else {})
    expected = tools.load_tokenizer(pack(bert_files())).vocab
    edited = EDITED[edit](files["vocab.txt"].decode())
    if where == "argument":
        files = {name: content for name, content in files.items() if name != "vocab.txt"}
        config = {n: v for n, v in json.loads(files["config.json"]).items() if n != "classifier"}
        (tmp_path / "v.txt").write_bytes(edited)
        legacy = pack({**files, "config.json": json.dumps(config).encode()}, "old.tar.gz")
        options = {"max_seq_length": 9, "label_names": ["bad", "good"], "vocabulary": tmp_path / "v.txt"}
        assert tools.Classifier.load(legacy, "cpu", **options).tokenizer.vocab == expected
        return
    files = {**files, "vocab.txt": edited}
    (tmp_path / "b").mkdir()
    source = pack(files) if where == "archive" else write_folder(tmp_path / "b", files)
    assert tools.load_tokenizer(source).vocab == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\ny\n", "\n\ny\n", r"line \d+ of its vocab.txt is empty"),
        ("\n中\n文\n", "\n?\n?\n", "an editor has replaced letters"),
    ],
)
def test_a_vocabulary_with_changed_ids_or_letters_is_refused(bert_files, pack, old, new, message):
    files = bert_files()
    text = files["vocab.txt"].decode()
    assert old in text
    with pytest.raises(ValueError, match=message):
        tools.load_tokenizer(pack({**files, "vocab.txt": text.replace(old, new).encode()}))


# ---------- Tokenizer settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_class": "BertJapaneseTokenizer"},
        {"tokenizer_class": "RobertaTokenizer"},
        {"word_tokenizer_type": "mecab"},
        {"do_basic_tokenize": False},
        {"tokenize_chinese_chars": False},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
    ],
)
def test_other_tokenizers_are_refused(bert_files, pack, tmp_path, settings):
    name = list(settings)[-1]
    message = f"its tokenizer has {name} {settings[name]!r}: it is not a standard BERT tokenizer"
    files = bert_files()
    with pytest.raises(ValueError, match=message):
        tools.load_tokenizer(write_folder(tmp_path, files, tokenizer_config=settings))
    with pytest.raises(ValueError, match=message):
        tools.load_tokenizer(pack({**files, "tokenizer_config.json": json.dumps(settings).encode()}))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"model": {"type": "BPE"}}, "the model 'BPE'"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "the pre_tokenizer 'Whitespace'"),
        ({"normalizer": {"type": "NFC"}}, "the normalizer 'NFC'"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Replace"}]}}, "the normalizer 'Replace'"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{}, {"type": "Digits"}]}}, "pre_tokenizer 'Digits'"),
        ({"normalizer": {"type": "BertNormalizer", "handle_chinese_chars": False}}, "tokenize_chinese_chars False"),
        ({"normalizer": {"type": "BertNormalizer", "strip_accents": False, "lowercase": True}}, "strip_accents False"),
    ],
)
def test_other_tokenizers_in_tokenizer_json_are_refused(bert_files, tmp_path, part, message):
    with pytest.raises(ValueError, match=message):
        tools.load_tokenizer(write_folder(tmp_path, bert_files(), tokenizer=part))


def test_berts_own_tokenizer_is_accepted(bert_files, tmp_path, capsys):
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": None}
    settings |= {"added_tokens_decoder": {"0": {"content": "[PAD]"}}, "tokenize_chinese_chars": True}
    folder = write_folder(tmp_path, bert_files(), tokenizer_config=settings)
    assert tools.load_tokenizer(folder).tokenize("Good soup") == ["good", "soup"]
    assert "added" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "where",
    [
        {"added_tokens": {"<url>": 99}},
        {"tokenizer": {"added_tokens": [{"id": 99, "content": "<url>"}, {"id": 0, "content": "[PAD]"}]}},
        {"tokenizer_config": {"do_lower_case": True, "added_tokens_decoder": {"99": {"content": "<url>"}}}},
    ],
)
def test_a_warning_names_added_tokens(bert_files, tmp_path, capsys, where):
    tools.load_tokenizer(write_folder(tmp_path, bert_files(), **where))
    assert "1 added tokens are ignored and will be split into word pieces: <url>" in capsys.readouterr().out
