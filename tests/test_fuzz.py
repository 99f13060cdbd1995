"""Broken and hostile input, made up by hypothesis, ends in success or in a documented error, and in nothing else.

`make test` tries 100 cases of each surface, `make fuzz` 20,000; tests/README.md has the results. `watched` stands
around each case: nothing is executed, nothing is written outside its folder, it ends, and it takes little memory.
"""

import bz2
import csv
import faulthandler
import gzip
import io
import json
import lzma
import math
import os
import pickle
import re
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from contextlib import contextmanager, suppress
from functools import cache, partial
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import papermill
import pytest
import torch
from conftest import ROOT, SETTINGS, copy_code, texts, to_bytes
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from papermill.exceptions import PapermillExecutionError
from pytorch_pretrained_bert.modeling import BertConfig
from pytorch_pretrained_bert.tokenization import BertTokenizer

import converter
import tools
from textbert.data import tables, tsv
from textbert.data.columns import infer_columns
from textbert.data.file_formats import to_string
from textbert.data.labels import encode_labels, infer_classes
from textbert.model import sources
from textbert.notebook.parameters import check_parameters, get_parameters

resource = pytest.importorskip("resource")
if not Path("/proc/self/clear_refs").is_file():
    pytest.skip("the watch over memory is Linux's", allow_module_level=True)

SECONDS = 10  # of computing, for a case that usually takes milliseconds: what takes longer hangs
MEGABYTES = 150  # that a case may take


# ---------- The watch over a case -------------------------------------------------------------------------------------

EXECUTES = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile", "pty.", "subprocess.")
CONNECTS = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "ctypes.", "webbrowser.")
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
FOREIGN = ("pickle.find_class", *EXECUTES, *CONNECTS)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """What the audit hook looks at: the folder of the case that is running, and what it found."""

    folder = None
    offences = []


def find_offence(event, arguments):
    """Return what an audit event does that no input may bring about, or None."""
    if event.startswith(FOREIGN):
        return f"{event} {arguments!r:.200}"
    paths = ()
    if event == "open" and arguments[2] & WRITES:
        paths = arguments[:1]
    elif event in CHANGES:
        paths = arguments
    for path in paths:
        if isinstance(path, str | bytes) and not f"{os.path.abspath(os.fsdecode(path))}/".startswith(Watch.folder):
            return f"{event} {path!r}"
    return None


def audit(event, arguments):
    """Refuse and note down an offence; an audit hook stays as long as the process, so it looks at nothing else."""
    if Watch.folder and (offence := find_offence(event, arguments)):
        Watch.offences.append(offence)
        raise PermissionError(offence)


sys.addaudithook(audit)


class Hang(BaseException):
    """Raised in a case that does not end; no `except Exception` of the product catches it."""


def stop(*_):
    raise Hang


def peak_memory():
    """Return the most memory that this process has had since the last `reset_peak`, in MB."""
    return int(re.search(rb"VmHWM:\s+(\d+)", Path("/proc/self/status").read_bytes())[1]) / 1e3


@contextmanager
def watched(folder):
    """Watch over a case: whatever it executes, writes outside of `folder`, or takes too much of, is a failure."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**31, hard))  # a failure should not fill the machine
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak_memory()
    old = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    # if it waits, or hangs where no signal reaches it
    faulthandler.dump_traceback_later(30 * SECONDS, exit=True, file=sys.__stderr__)
    Watch.folder, Watch.offences = f"{folder}/", []
    try:
        yield
    except Hang:
        pytest.fail(f"it did not end in {SECONDS} seconds")
    finally:
        Watch.folder = None
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)
        faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert not Watch.offences
    grown = peak_memory() - before
    assert grown < MEGABYTES, f"it took {grown:.0f} MB"


def outcome(folder, action, named="", errors=(ValueError,)):
    """Return what `action` returns, or the documented error it ends in, which must name the file or value."""
    with watched(folder):
        try:
            result = action()
            event("taken")  # pytest --hypothesis-show-statistics tells how many were
            return result
        except errors as error:
            event("refused")
            raised = error
    assert type(raised) in errors, f"{type(raised).__name__} is not documented: {raised}"
    assert named in str(raised), f"the message does not say what is wrong: {raised}"
    assert not isinstance(raised.__context__, MemoryError), "it tried to take the memory that is claimed"
    return raised


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of the cases, which is also where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def empty(folder):
    """Remove what an earlier case left in the folder on purpose."""
    for path in folder.iterdir():
        path.unlink()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


class Touch:
    """Pickles as a call that creates a file: the canary."""

    def __reduce__(self):
        return os.system, ("touch canary",)


OFFENCES = {
    "a command": lambda: os.system("true"),
    "a program": lambda: subprocess.run(["true"], check=False),
    "code in a pickle": lambda: pickle.loads(pickle.dumps(Touch())),
    "a connection": lambda: socket.create_connection(("127.0.0.1", 9)),
    "a file": lambda: Path("../x").write_text(""),
    "a file moved away": lambda: os.rename("inside", "../x"),
    "a folder": lambda: os.mkdir("../x"),
    "memory": lambda: b"x" * (MEGABYTES * 2**21),
    "no end": lambda: all(True for _ in count()),
}


@pytest.mark.parametrize("offence", OFFENCES)
def test_the_watch_sees(folder, monkeypatch, offence):
    monkeypatch.setitem(globals(), "SECONDS", 0.5)
    (folder / "inside").touch()
    with pytest.raises((AssertionError, pytest.fail.Exception)), watched(folder), suppress(OSError):
        OFFENCES[offence]()
    assert not (folder.parent / "x").exists()


# ---------- Ways to damage bytes --------------------------------------------------------------------------------------

ODD_BYTES = [b"\x00", b'"', b'""', b"\r\n", b"\t", b",", b"\xff", b"\xef\xbb\xbf", b"\x85", b"\xc3", b"\\n"]
pieces = st.sampled_from([*ODD_BYTES, b"\r", b"\n"]) | st.binary(max_size=6)
damages = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "replace", "end"]), st.floats(0, 1), st.integers(0, 9), pieces),
    max_size=3,
)


sometimes_damaged = st.sampled_from([st.just([]), damages]).flatmap(lambda one: one)


def damage(content, changes):
    """Return bytes after some changes: (kind, place from 0 to 1, size, bytes)."""
    content = bytearray(content)
    for kind, place, size, new in changes:
        at = int(place * len(content))
        if kind == "flip" and at < len(content):
            content[at] ^= 1 << size % 8
        elif kind == "cut":
            del content[at : at + size]
        elif kind == "insert":
            content[at:at] = new
        elif kind == "replace":
            content[at : at + len(new)] = new
        elif kind == "end":
            del content[at:]
    return bytes(content)


# ---------- Tables: the input of data_prep.ipynb ----------------------------------------------------------------------


def to_zip(content):
    """Return a zip file with one file in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train", content)
    return file.getvalue()


COMPRESS = {
    "": bytes,
    ".gz": lambda content: gzip.compress(content, 1),
    ".bz2": lambda content: bz2.compress(content, 1),
    ".xz": lambda content: lzma.compress(content, preset=0),
    ".zip": to_zip,
}


@cache
def bomb(compression):
    """Return 64 MB of zeros, compressed."""
    return COMPRESS[compression](bytes(2**26))


ENCODINGS = ["utf-8"] * 9 + ["utf-16", "cp1252", "latin-1", "utf-7", "shift_jis", "utf-32-be", "cp037"]

labels = st.sampled_from(["1", "2", "1", "2", "1", "2", "0", "", " 1", "nan", "good", "5"])
fields = texts | st.sampled_from(["good", 'say "hi", twice', "NA", "null", "1", "<br />", "=1+1", "x" * 900, "a\\nb"])


def write_table(kind, rows, end, quoting):
    """Return rows of (label, text) as the text of a table, correctly quoted or not quoted."""
    if kind == "jsonl":
        return end.join(json.dumps({"label": label, "text": text}) for label, text in rows)
    if kind == "tsv" or not quoting:
        return "".join(("\t" if kind == "tsv" else ",").join(row) + end for row in rows)
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL if quoting == "all" else csv.QUOTE_MINIMAL, lineterminator=end).writerows(
        rows
    )
    return file.getvalue()


@st.composite
def any_table(draw):
    """Return (extension without dot, that of compression, content, damages of the file or "bomb", encoding to read)."""
    kind = draw(st.sampled_from(["csv", "csv", "tsv", "jsonl"]))
    two_labels = draw(st.sampled_from([("1", "2"), ("0", "1"), ("good", "bad"), ("ham", "1.0")])).__getitem__
    label = draw(st.sampled_from([st.integers(0, 1).map(two_labels)] * 3 + [labels]))
    rows = draw(st.lists(st.tuples(label, fields), max_size=9))
    rows = draw(st.sampled_from([[], [], [("label", "text")], [("text", "text")]])) + rows
    written = write_table(
        kind, rows, draw(st.sampled_from(["\n", "\n", "\r\n", "\r"])), draw(st.sampled_from(["all", "few", ""]))
    )
    encoding = draw(st.sampled_from(ENCODINGS))
    content = draw(st.sampled_from([b"", b"", b"", b"\xef\xbb\xbf"])) + written.encode(encoding, "replace")
    content = damage(draw(st.sampled_from([content] * 9 + [b""])) or draw(st.binary()), draw(sometimes_damaged))
    compression = draw(st.sampled_from(["", "", *COMPRESS]))
    changes = draw(st.just([]) | damages | st.just("bomb")) if compression else []
    return kind, compression, content, changes, draw(st.sampled_from([encoding, encoding, encoding, *ENCODINGS]))


def prepare(folder, encoding):
    """Process a table as data_prep.ipynb does; return (the table as read, the frame that was written as TSV)."""
    path, _ = tables.find_data_files(folder)
    frame = tables.read_table(path, encoding)
    columns, names = infer_columns(frame, path.name)
    classes = infer_classes(columns["label"], path.name)
    binary = encode_labels(columns["label"], classes)
    texts = tools.clean_text(columns["text"], classes == [["1"], ["2"]] and names == {"label": 0, "text": 1})
    written = pd.DataFrame({"id": columns.index, "label": binary, "alpha": "a", "text": texts})
    tsv.write_tsv(written, folder / "train.tsv")
    return frame, written


def read_plainly(kind, content, encoding):
    """Return the cells of a table as Python's own csv and json read them."""
    text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    if kind == "jsonl":
        return [json.loads(line) for line in io.StringIO(text, newline=None) if line.strip()]
    options = {} if kind == "csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    return [row for row in csv.reader(io.StringIO(text, newline=""), **options) if row]


@given(table=any_table())
@example(table=("csv", "", "label,text\n5,good\n".encode("utf-16") + b"\n", [], "utf-16"))  # half a character
@example(table=("csv", ".gz", b"1,good\n2,bad\n", [("end", 0.9, 0, b"")], "utf-16"))
@example(table=("csv", ".bz2", b"", "bomb", "utf-8"))
def test_a_table_is_read_as_it_is_or_refused(folder, table):
    kind, compression, content, changes, encoding = table
    empty(folder)
    packed = bomb(compression) if changes == "bomb" else damage(COMPRESS[compression](content), changes)
    name = f"reviews.{kind}{compression}"  # train.tsv is written
    (folder / name).write_bytes(packed)
    result = outcome(folder, lambda: prepare(folder, encoding), name)
    if isinstance(result, ValueError):
        assert names_in(folder) == [name]
        return
    frame, written = result
    if not changes:
        rows = read_plainly(kind, content, encoding)
        if kind == "jsonl":
            rows = [[to_string(row.get(column)) for column in frame] for row in rows]
        assert frame.to_numpy().tolist() == rows
    lines = (folder / "train.tsv").read_bytes().decode().split("\n")
    assert lines.pop() == "" and names_in(folder) == sorted([name, "train.tsv"])
    assert [line.split("\t") for line in lines] == written.astype(str).to_numpy().tolist()


# ---------- The four columns: what train.ipynb is given ---------------------------------------------------------------

ids = st.integers(0, 99).map(str) | texts
tsv_labels = st.sampled_from(["0", "1", "0", "1", "0", "1", "2", "", " 1", "0.5", "nan", "1e999", "-3"])
tsv_rows = st.lists(st.tuples(ids, tsv_labels, st.sampled_from(["a", "a", "b", ""]), fields), max_size=5)


@st.composite
def four_columns(draw):
    """Return the bytes of a train.tsv, sound or damaged."""
    rows = draw(tsv_rows)
    if draw(st.integers(0, 3)):
        rows = [
            ("x", "0", "a", "good"),
            ("y", "1", "a", ""),
            *((i, draw(st.sampled_from("01")), a, t) for i, _, a, t in rows),
        ]
        rows = [[re.sub(r"[\t\n]", " ", field) for field in row] for row in rows]
    content = "".join("\t".join(row) + draw(st.sampled_from(["\n", "\n", "\r\n"])) for row in rows).encode()
    return damage(content, draw(sometimes_damaged))


def read_four_columns(content, output_mode):
    """Return the (label, text) of a train.tsv, or None if it is not sound."""
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError:
        return None
    rows = [line.rstrip("\r").split("\t") for line in (lines if lines[-1] else lines[:-1])]
    if not rows or any(len(row) != 4 for row in rows):
        return None
    labels = [row[1] for row in rows]
    if output_mode == "classification":
        return [(int(row[1]), row[3]) for row in rows] if set(labels) == {"0", "1"} else None
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return None
    return [(n, row[3]) for n, row in zip(numbers, rows)] if all(map(math.isfinite, numbers)) else None


def to_features(rows, tokenizer, size):
    """Return the state of the features of (label, text), by the library's own tokenizer and nothing else."""
    found = []
    for label, text in rows:
        pieces = ["[CLS]", *tokenizer.tokenize(text)[: size - 2], "[SEP]"]
        padding = [0] * (size - len(pieces))
        mask = [1] * len(pieces) + padding
        row_ids = [tokenizer.vocab[piece] for piece in pieces] + padding
        found.append({"input_ids": row_ids, "input_mask": mask, "segment_ids": [0] * size, "label_id": label})
    return found


@given(
    content=four_columns() | st.binary(),
    old=st.none() | st.binary(),
    mode=st.sampled_from(["classification"] * 3 + ["regression"]),
)
@example(content=b"", old=None, mode="regression")
@example(content=b"0\t0\ta\tgood\n1\t1\ta\tbad\n", old=b"", mode="classification")
def test_four_columns_become_features_or_are_refused(folder, tokenizers, content, old, mode):
    empty(folder)
    (folder / "train.tsv").write_bytes(content)
    if old is not None:
        (folder / "train_features.pkl").write_bytes(old)
    before = names_in(folder)
    options = {"max_seq_length": 6, "output_mode": mode, "processes": 1}

    def convert():
        return tools.load_or_convert_features(folder, "train", tokenizers["uncased"], **options)

    result, rows = outcome(folder, convert, "train.tsv"), read_four_columns(content, mode)
    assert isinstance(result, ValueError) == (rows is None)
    if rows is None:
        assert names_in(folder) == before
        assert old is None or (folder / "train_features.pkl").read_bytes() == old
        return
    assert [vars(row) for row in result] == to_features(rows, tokenizers["uncased"], 6)
    assert names_in(folder) == ["train.tsv", "train_features.pkl"]
    saved = outcome(folder, lambda: tools.load_features(folder / "train_features.pkl"))
    assert list(saved) == list(result) and saved.fingerprint == result.fingerprint


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["label_names", "x"]), inner, max_size=2)
    ),
    max_leaves=6,
)
two_names = st.lists(texts, min_size=2, max_size=2).map(lambda names: {"label_names": names})


@given(content=st.binary() | (json_values | two_names).map(lambda value: json.dumps(value).encode()))
def test_label_names_are_two_words_or_refused(folder, content):
    empty(folder)
    (folder / "labels.json").write_bytes(content)
    names = outcome(folder, lambda: tsv.read_label_names(folder), "labels.json")
    assert isinstance(names, ValueError) or names == json.loads(content)["label_names"]
    assert isinstance(names, ValueError) or (len(names) == 2 and all(isinstance(name, str) for name in names))


def test_an_error_quotes_no_more_than_the_beginning_of_a_text(folder):
    """When a wrong column is taken for the label, the label is a text."""
    text = "a secret " * 99
    (folder / "x.tsv").write_text(f"0\t{text}\ta\tgood\n")
    frame = pd.DataFrame({"label": [text, "x", "y"], "text": text})
    tries = [
        lambda: tools.BinaryClassificationProcessor().get_examples(folder / "x.tsv"),
        lambda: infer_classes(frame["label"], "x.csv"),
        lambda: infer_classes(frame["label"], "x.csv", [["z"], ["x"]]),
        lambda: infer_columns(frame[["text"]], "x.csv"),
        lambda: infer_columns(frame.set_axis(["p", "q"], axis=1).assign(r=text), "x.csv", None, "p"),
    ]
    for action in tries:
        with pytest.raises(ValueError, match="a secret") as raised:
            action()
        assert text[:60] not in str(raised.value)


# ---------- Pickles ---------------------------------------------------------------------------------------------------


def small_features():
    """Return features of two examples, 3 and 2 word pieces long, with a fingerprint."""
    arrays = np.array([5, 6, 7, 8, 9], "<u2"), np.array([3, 2], "<u2"), np.array([2, 2], "<u2"), np.array([0, 1], "<i4")
    return tools.Features(*arrays, 4, fingerprint="0123456789abcdef" * 4)


def nest(depth):
    """Return a list that is 10**depth elements when it is written out, and almost nothing in memory or in a pickle."""
    value = [1] * 10
    for _ in range(depth - 1):
        value = [value] * 10
    return value


def deep(depth):
    value = ()
    for _ in range(depth):
        value = (value,)
    return value


SOUND = {
    "ours": pickle.dumps(small_features(), 4),
    "a list of 2019": pickle.dumps(small_features()[:], 3),
    "another list": pickle.dumps([tools.InputFeatures([1, 2], [1, 1], [0, 0], 0.5)] * 3, 2),
}
ODD_VALUES = [None, True, -1, 2**31, 10**30, math.nan, "", "text", b"", b"\x05\x00" * 5, [], [1, 2], {}, nest(8)]
ODD_VALUES += [Touch(), np.float64]
GLOBALS = (
    *("textbert.features Features", "tools Features", "tools InputFeatures", "os system", "posix system"),
    *("builtins eval", "builtins exec", "builtins getattr", "copyreg _reconstructor", "numpy zeros"),
    *("numpy._core.multiarray _reconstruct", "subprocess Popen", "torch load", "pickle loads"),
)
CODE = b"__import__('os').system('touch canary')"
STRINGS = [
    CODE,
    *b"input_ids/ids/format/os/system/touch canary/builtins/eval/tools/textbert.features/Features".split(b"/"),
]
huge = struct.pack("<Q", 2**33)
OPCODES = [
    *(b"%c" % code for code in b"(.012N]ael}sud)\x85\x86\x87t\x8f\x90\x91\x94Rb\x81\x92oQ\x93\x88"),
    *(b"K\x01", b"K\x02", b"J\xff\xff\xff\x7f", b"M\xff\xff", b"G" + bytes(8), b"I00\n", b"L1L\n", b"F1\n", b"Px\n"),
    *(b"q\x00", b"q\x01", b"r\xff\xff\xff\xff", b"h\x00", b"h\x01", b"j\x00\x00\x00\x00", b"\x82\x01"),
    *(b"\x8e" + huge, b"\x8d" + huge, b"\x96" + huge, b"\x95" + huge, b"T\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f"),
    *(b"\x8b\xff\xff\xff\x7f", b"X\xff\xff\xff\xff", b"\x8a\xff"),
    *(b"\x8c%c%s" % (len(string), string) for string in STRINGS),
    *(code + name.replace(" ", "\n").encode() + b"\n" for name in GLOBALS for code in (b"c", b"i")),
]


def with_state(state, name="Features"):
    """Return a pickle of an object of ours with any state."""
    return b"\x80\x04ctools\n%s\n)\x81" % name.encode() + pickle.dumps(state, 3)[2:-1] + b"b."


good_state = small_features().__getstate__()
good_row = vars(small_features()[0])
states = st.builds(
    lambda change: with_state(good_state | change),
    st.dictionaries(st.sampled_from(sorted(good_state)), st.sampled_from(ODD_VALUES), max_size=2),
)
row_lists = st.builds(
    lambda change: pickle.dumps([tools.InputFeatures(**good_row | change)] * 2, 4),
    st.dictionaries(
        st.sampled_from(sorted(good_row)),
        st.sampled_from(ODD_VALUES) | st.lists(st.sampled_from(ODD_VALUES), min_size=4, max_size=4),
        max_size=2,
    ),
)
programs = st.lists(st.sampled_from(OPCODES), max_size=25).map(lambda codes: b"\x80\x04" + b"".join(codes) + b".")
damaged = st.builds(damage, st.sampled_from(list(SOUND.values())), damages)
spliced = st.builds(
    lambda one, other, place: one[: int(place * len(one))] + other[int(place * len(one)) :],
    damaged,
    damaged,
    st.floats(0, 1),
)


@given(content=damaged | spliced | states | row_lists | programs | st.binary())
@example(content=b"\x80\x04})" + b"\x85" * 1_000_000 + b"Ns.")  # Python itself crashes when it hashes such a tuple
@example(content=b"\x80\x04" + b"]" * 300_000 + b"a" * 299_999 + b".")
@example(content=with_state({"format": nest(9)}))
@example(content=with_state(good_state | {"max_seq_length": nest(9)}))
@example(content=pickle.dumps([tools.InputFeatures(nest(9), nest(9), nest(9), 0)]))
@example(content=pickle.dumps([tools.InputFeatures([1], [1], [0], nest(9))]))
@example(content=pickle.dumps(Touch()))
def test_features_are_loaded_as_saved_or_refused(folder, content):
    empty(folder)
    path = folder / "x.pkl"
    path.write_bytes(content)
    result = outcome(folder, lambda: tools.load_features(path), "x.pkl is not a valid features file")
    assert names_in(folder) == ["x.pkl"]
    if isinstance(result, ValueError):
        return
    if result.fingerprint == small_features().fingerprint:
        assert list(result) == list(small_features())
    tools.save_features(list(result), path)
    again = tools.load_features(path)
    assert repr(list(map(vars, again))) == repr(list(map(vars, result)))


# ---------- Archives --------------------------------------------------------------------------------------------------

VALIDATION = b"id,label,logit_0,logit_1\n7,1,0.5,1.5\n"
ODD_JSON = [None, True, 0, -1, 1, 2, 3, 2.5, math.inf, math.nan, 10**9, 2**62, 10**30, "", "x", [], [1], {}]
ODD_JSON += [{"a": nest(2)}, "9" * 5000]
odd_json = st.sampled_from(ODD_JSON) | st.integers() | st.floats() | texts


def tiny_files(bert_files):
    """Return the files of the smallest fine-tuned BERT."""
    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 4}
    files = bert_files(classifier=SETTINGS, max_position_embeddings=16, **sizes)
    return {**files, "validation.csv": VALIDATION, "tokenizer_config.json": b'{"do_lower_case": true}'}


def legacy(state):
    """Return weights as torch saved them in 2018."""
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def repack(content, changes, compression=zipfile.ZIP_STORED):
    """Return torch's zip file of weights with some of its members replaced."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, changes.get(name.split("/", 1)[1], old.read(name)))
    return file.getvalue()


class Canary(torch.nn.Parameter):
    """A weight that pickles as a call."""

    def __reduce_ex__(self, protocol):
        return os.system, ("touch canary",)


huge_number = b"J\xff\xff\xff\x7f"
deep_tuple = b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns."
STATES = {
    "sound": lambda state: to_bytes(state),
    "sound, of 2018": lambda state: legacy(state),
    "half": lambda state: to_bytes({name: tensor.half() for name, tensor in state.items()}),
    "code": lambda state: to_bytes(Touch()),
    "code, of 2018": lambda state: legacy({**state, "cls.x": Touch()}),
    "code, plain": lambda state: pickle.dumps(Touch()),
    "code among weights": lambda state: to_bytes({**state, "bert.pooler.dense.bias": Canary(torch.zeros(4))}),
    "integers": lambda state: to_bytes({name: tensor.long() for name, tensor in state.items()}),
    "complex": lambda state: to_bytes({name: tensor.cfloat() for name, tensor in state.items()}),
    "sparse": lambda state: to_bytes({n: tensor.to_sparse() for n, tensor in state.items()}),
    "meta": lambda state: to_bytes({n: tensor.to("meta") for n, tensor in state.items()}),
    "a number for a name": lambda state: to_bytes({**state, 5: torch.zeros(2)}),
    "a number for a weight": lambda state: to_bytes({**state, "bert.pooler.dense.bias": 5}),
    "a list": lambda state: to_bytes(list(state.values())),
    "repeated": lambda state: to_bytes({**state, "bert.pooler.dense.weight": torch.zeros(1).expand(10**5, 10**5)}),
    "another shape": lambda state: to_bytes({**state, "bert.pooler.dense.weight": torch.zeros(5, 4)}),
    "compressed": lambda state: repack(to_bytes(state), {"data/0": bytes(10**6)}, zipfile.ZIP_DEFLATED),
    "claims more": lambda state: to_bytes(state).replace(b"K\x10", b"M\xff\x7f"),
    "claims gigabytes, of 2018": lambda state: legacy(state).replace(b"K\x10", huge_number),
    "deep": lambda state: repack(to_bytes(state), {"data.pkl": deep_tuple}),
    "deep, of 2018": lambda state: legacy({})[: legacy({}).index(b"}q", 30)] + deep_tuple,
    "nothing": lambda state: b"",
}  # fmt: skip
MEMBERS = ["/tmp/config.json", "/etc/passwd", "../config.json", "a/../../x", "run.py", "config.json", ".", "x" * 300]
EXTENSIONS = [b"0", b"1", b"2", b"3", b"5", b"6", b"S", b"x", b"L", b"V"]  # files, links, devices, folders, headers
members = st.tuples(st.sampled_from(MEMBERS), st.sampled_from(EXTENSIONS), st.sampled_from([0, 5, 5, 2**33, 2**60]))


@st.composite
def changes_to_a_bert(draw):
    """Return how to change an archive: (what of it, how)."""
    kinds = ["config", "config", "classifier", "weights", "flipped", "files", "vocabulary", "members", "bytes", "bomb"]
    kind = draw(st.sampled_from([*kinds, "nothing"]))
    if kind == "config":
        others = ["classifier", "model_type", "x", "to_dict"]
        keys = st.sampled_from([*vars(BertConfig(1)), *others])
        return kind, draw(st.dictionaries(keys, odd_json, min_size=1, max_size=3))
    if kind == "classifier":
        return kind, draw(st.dictionaries(st.sampled_from(list(SETTINGS)), odd_json, min_size=1, max_size=2))
    if kind == "weights":
        return kind, draw(st.sampled_from(list(STATES)))
    if kind == "flipped":
        return kind, (draw(st.sampled_from(["sound", "sound, of 2018"])), draw(damages))
    if kind == "files":
        name = draw(
            st.sampled_from(["config.json", "bert_config.json", "tokenizer_config.json", "validation.csv", "vocab.txt"])
        )
        return kind, (
            name,
            draw(st.none() | st.binary() | odd_json.map(lambda value: json.dumps(value).encode()) | damages),
        )
    if kind == "vocabulary":
        return kind, draw(
            st.lists(st.sampled_from(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "", "##s"]) | texts, max_size=9)
        )
    if kind == "members":
        return kind, draw(st.lists(members, min_size=1, max_size=3))
    return kind, draw(damages)


def change_files(files, kind, change, states):
    """Return the files of a BERT after a change."""
    files = dict(files)
    if kind in ("config", "classifier"):
        config = json.loads(files["config.json"])
        (config if kind == "config" else config["classifier"]).update(change)
        files["config.json"] = json.dumps(config).encode()
    elif kind == "weights":
        files["pytorch_model.bin"] = states[change]
    elif kind == "flipped":
        files["pytorch_model.bin"] = damage(states[change[0]], change[1])
    elif kind == "files" and change[1] is None:
        files.pop(change[0], None)
    elif kind == "files":
        files[change[0]] = change[1] if isinstance(change[1], bytes) else damage(files.get(change[0], b""), change[1])
    elif kind == "vocabulary":
        pieces = files["vocab.txt"].split(b"\n")
        files["vocab.txt"] = b"\n".join([*pieces[: -1 - len(change)], *(piece.encode() for piece in change)])
    return files


def write_tar(files, extra, path):
    """Write files, and members of any kind with any claim of a size, as a `.tar.gz`."""
    with tarfile.open(path, "w:gz", compresslevel=1, format=tarfile.GNU_FORMAT) as archive:
        for name, kind, size in extra:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, size, "/etc/passwd"
            archive.fileobj.write(member.tobuf(tarfile.GNU_FORMAT) + bytes(512 if size == 5 else 0))
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


class Tiny:
    """The smallest BERT: its files, its weights as a dict, and these as bytes in all sorts of ways."""

    def __init__(self, files):
        self.files = files
        self.state = torch.load(io.BytesIO(files["pytorch_model.bin"]), weights_only=True)
        self.states = {name: write(self.state) for name, write in STATES.items()}


@pytest.fixture(scope="module")
def tiny(bert_files):
    """The smallest BERT."""
    return Tiny(tiny_files(bert_files))


@pytest.mark.slow
@given(change=changes_to_a_bert())
@example(change=("nothing", []))
@example(change=("config", {"hidden_size": 10**6}))
@example(change=("config", {"vocab_size": 10**7}))
@example(change=("config", {"num_hidden_layers": 10**9}))
@example(change=("config", {"num_hidden_layers": 150}))
@example(change=("config", {"classifier": [1]}))
@example(change=("config", {"classifier": ""}))
@example(change=("classifier", {"max_seq_length": 17}))
@example(change=("classifier", {"do_lower_case": "no"}))
@example(change=("files", ("vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n" + b"x\n" * 999)))
@example(change=("files", ("tokenizer_config.json", b"[]")))
@example(change=("files", ("validation.csv", b"id,label\n1,2\n")))
@example(change=("weights", "compressed"))
@example(change=("weights", "repeated"))
@example(change=("weights", "deep"))
@example(change=("weights", "deep, of 2018"))
@example(change=("weights", "a number for a name"))
@example(change=("weights", "complex"))
@example(change=("weights", "meta"))
def test_an_archive_is_loaded_as_it_is_or_refused(folder, tiny, change):
    empty(folder)
    path, (kind, detail) = folder / "x.tar.gz", change
    files = change_files(tiny.files, kind, detail, tiny.states)
    write_tar(files, detail if kind == "members" else [], path)
    if kind == "bytes":
        path.write_bytes(damage(path.read_bytes(), detail))
    elif kind == "bomb":
        path.write_bytes(damage(bomb(".gz"), detail))
    for load in (tools.load_tokenizer, tools.load_model, tools.Classifier.load):
        result = outcome(folder, partial(load, path), "x.tar.gz")
        assert names_in(folder) == ["x.tar.gz"]
        if isinstance(result, BertTokenizer):
            pieces = [line.strip() for line in io.StringIO(files["vocab.txt"].decode(), newline=None)]
            assert result.vocab == {piece: number for number, piece in enumerate(pieces)}
        elif isinstance(result, torch.nn.Module) and kind not in ("weights", "flipped"):
            assert all(torch.equal(tensor, tiny.state[name]) for name, tensor in result.state_dict().items())
        elif isinstance(result, tools.Classifier):
            answers = outcome(folder, partial(result.predict, ["good soup"] * 3))
            assert set(answers["label"]) <= set(result.settings["label_names"])
        assert kind != "nothing" or not isinstance(result, ValueError)


# ---------- Parameters ------------------------------------------------------------------------------------------------

json_like = st.recursive(
    odd_json | st.sampled_from(["utf-8", "hex", "tail", "a\x00b", "../x", "bert-base-cased", 0.5, 1, 16, 0.0, 1.0]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
NO_JSON = [np.int64(3), np.float64(0.1), np.arange(2), pd.Series([1, 2]), pd.DataFrame({"a": [1]}), torch.ones(2)]
NO_JSON += [{1, 2}, (1, 2), b"x", object(), Path("x"), int, print, 1j, range(3), 10**5000, [[np.arange(2)], ["1"]]]
no_json = st.sampled_from(NO_JSON)
SOUND_PARAMETERS = {
    notebook: {name: parameter.default for name, parameter in get_parameters(notebook).items()}
    for notebook in ("data_prep", "train", "evaluate")
}
known_names = sorted({name for parameters in SOUND_PARAMETERS.values() for name in parameters})
names = st.sampled_from(known_names * 3 + ["LEARNING_RATES", "XXX"]) | st.from_regex("[A-Z][A-Z0-9_]{2,9}") | texts


@given(
    notebook=st.sampled_from(list(SOUND_PARAMETERS)),
    changes=st.dictionaries(names, json_like | no_json, max_size=2),
    left_out=st.just("") | st.sampled_from(known_names),
)
@example(notebook="train", changes={"TRUNCATION": np.arange(2)}, left_out="")
@example(notebook="train", changes={"RANDOM_SEED": 10**5000}, left_out="")
@example(notebook="data_prep", changes={"CLASSES": [[np.arange(2)], ["1"]]}, left_out="")
def test_parameters_are_taken_as_they_are_or_refused_by_name(folder, notebook, changes, left_out):
    given_names = SOUND_PARAMETERS[notebook] | changes
    given_names.pop(left_out, None)
    result = outcome(folder, lambda: check_parameters(notebook, given_names))
    if isinstance(result, ValueError):
        assert any(name in str(result) for name in [*changes, left_out] if name)
        return
    assert result == {name: given_names[name] for name in SOUND_PARAMETERS[notebook]}
    assert json.loads(json.dumps(result, allow_nan=False)) == result  # they are kept in config.json
    task = Path("data", result["TASK_NAME"])
    assert task.resolve().parent == Path("data").resolve() and "\x00" not in str(task)


# ---------- The command line ------------------------------------------------------------------------------------------

WORDS = ["task", "none", "x.tar.gz", "train", "dev", "3", "16", "0", "-1", "513", "1e9", "tail", "regression"]
WORDS += ["nobody/none", "me@main", "all-MiniLM-L6-v2", "", ".", "..", "a\x00b", "x" * 300, "9" * 5000, "\ud800"]
OPTIONS = ["--data-dir", "--model", "--split", "--max-seq-length", "--truncation", "--output-mode", "--processes"]
OPTIONS += ["--cache-dir"]
words = st.sampled_from(WORDS) | texts.map(lambda text: text.replace("/", "-"))
arguments = st.lists(st.sampled_from([*OPTIONS, *OPTIONS, "--help", "--", "-x", "--max"]) | words, max_size=8)
sound_arguments = st.builds(
    lambda changes: [
        part for pair in ({"--data-dir": "task", "--model": "x.tar.gz"} | changes).items() for part in pair
    ],
    st.dictionaries(st.sampled_from(OPTIONS), words, max_size=2),
)


def unreachable(*_):
    raise OSError("no connection")


@pytest.fixture
def shell(folder, tiny, monkeypatch):
    """A folder with a task and a BERT, out of reach of any network."""
    (folder / "task").mkdir()
    for split in ("train", "dev"):
        (folder / "task" / f"{split}.tsv").write_text("0\t0\ta\tbad soup\n1\t1\ta\tgood soup\n")
    write_tar(tiny.files, [], folder / "x.tar.gz")
    monkeypatch.setattr(sources, "download_from_hub", unreachable)
    monkeypatch.setattr(sources, "download_default_wheel", unreachable)
    return folder


@given(command=arguments | sound_arguments)
@example(command=["--data-dir", "task", "--model", "x.tar.gz", "--max-seq-length", "16"])
@example(command=[])
@example(command=["--data-dir", "\udcff", "--model", "\udcff"])  # a byte that is not UTF-8
@example(command=["--data-dir", "task", "--model", "none", "--cache-dir", ".."])
def test_the_command_line_ends_in_0_or_in_2_with_one_line(shell, monkeypatch, capsys, command):
    for path in (shell / "task").glob("*.pkl"):
        path.unlink()
    monkeypatch.setattr(sys, "argv", ["converter.py", *command])
    capsys.readouterr()
    with watched(shell.parent):  # it may be told to write to ".."
        try:
            status = converter.main()
        except SystemExit as error:
            status = error.code
    printed, said = capsys.readouterr()
    assert (status, len(said.splitlines())) in ((0, 0), (2, 1)), said
    converted = "train_features.pkl" in names_in(shell / "task")
    assert status == 2 or converted or "--help" in command or "dev" in command
    assert {path.suffix for path in (shell / "task").iterdir()} <= {".tsv", ".pkl", ".lock"}
    assert not list(shell.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [[], ["--data-dir", b"\xff", "--model", "x"], ["--data-dir", "task", "--model", "x.tar.gz", "--processes", "0"]],
)
def test_a_real_command_line_ends_in_2_with_one_line(shell, command):
    command = [sys.executable, str(ROOT / "converter.py"), *command]
    done = subprocess.run(command, cwd=shell, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


# ---------- Whole notebooks -------------------------------------------------------------------------------------------


HOSTILE_TEXTS = ["<script>alert(1)</script>", "</table><img src=x onerror=alert(1)>", "\u202eright to left", "a\x00b"]
HOSTILE_TEXTS += ['"', "=cmd|'/c calc'!A1", "{{7*7}}", "$\\LaTeX$ _{", "\ufeff\u200b\u2028", "\U0001f600" * 300]
HOSTILE_TEXTS += ["x" * 100_000, "[SEP] [MASK]", "\x1b[31mred"]


def hostile_texts(folder, tiny):
    """Texts that break tables, terminals and web pages: all three notebooks take them as texts."""
    rows = [{"label": ("<b>no", "<b>yes")[i % 2], "text": f"{t} {i}"} for i, t in enumerate(HOSTILE_TEXTS * 6)]
    (folder / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def no_table(folder, tiny):
    (folder / "train.csv").write_bytes(bytes(range(256)) * 40)


def hostile_pickles(folder, tiny):
    """Code in the features and in the checkpoint of a task: it is not run."""
    rows = "".join(f"{i}\t{i % 2}\ta\t{('bad', 'good')[i % 2]} soup {i}\n" for i in range(40))
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text(rows)
        (folder / f"{split}_features.pkl").write_bytes(pickle.dumps(Touch()))
    (Path("outputs") / folder.name / "checkpoint").mkdir(parents=True)
    (Path("outputs") / folder.name / "checkpoint" / "checkpoint.pt").write_bytes(
        to_bytes({"identity": [], "x": Touch()})
    )


def hostile_archive(folder, tiny):
    """Code in the weights of the archive that evaluate.ipynb loads."""
    hostile_pickles(folder, tiny)
    write_tar({**tiny.files, "pytorch_model.bin": pickle.dumps(Touch())}, [], Path("cache", f"{folder.name}.tar.gz"))


def other_words(folder, tiny):
    """labels.json with what are no names."""
    hostile_pickles(folder, tiny)
    (folder / "labels.json").write_text('{"label_names": {"0": 1}}')


RUNS = {
    "no_table": (no_table, ["data_prep"], "data/no_table/train.csv"),
    "other_words": (other_words, ["train"], "data/other_words/labels.json"),
    "hostile_pickles": (hostile_pickles, ["train"], "outputs/hostile_pickles/checkpoint/checkpoint.pt is corrupt"),
    "hostile_archive": (hostile_archive, ["evaluate"], "archive.tar.gz: pytorch_model.bin does not contain weights"),
    "hostile_texts": (hostile_texts, ["data_prep", "train", "evaluate"], None),
}
ALWAYS = ("hostile_pickles", "hostile_archive")
TINY = {"BERT_MODEL": "tiny.tar.gz", "MAX_SEQ_LENGTH": 12}
PARAMETERS = {
    "data_prep": TINY,
    "train": {**TINY, "NUM_TRAIN_EPOCHS": 1, "VALIDATION_SHARE": 0.3, "FOLDS": 0},
    "evaluate": {"CHECK_LABELS": 0, "EXPORT": ["huggingface"]},
}


@pytest.mark.slow
@pytest.mark.usefixtures("forked_kernels")
@pytest.mark.parametrize("task", RUNS)
def test_a_notebook_with_a_hostile_task_ends_well_or_in_a_documented_error(folder, tiny, task):
    make, notebooks, message = RUNS[task]
    if task not in ALWAYS and settings().max_examples <= 100:
        pytest.skip("make fuzz runs it")
    copy_code(folder)
    for name in ("data", "cache", "outputs"):
        (folder / name).mkdir()
    (folder / "data" / task).mkdir()
    write_tar(tiny.files, [], folder / "tiny.tar.gz")
    make(Path("data", task), tiny)
    names = {name: PARAMETERS[name] | {"TASK_NAME": task} for name in notebooks}
    for name, parameters in names.items():
        try:
            papermill.execute_notebook(ROOT / f"{name}.ipynb", None, parameters, cwd=folder, progress_bar=False)
        except PapermillExecutionError as error:
            assert error.ename == "ValueError" and message and message in error.evalue
        else:
            assert message is None
    assert not list(folder.rglob("canary")) and not list(folder.rglob("*.tmp"))
    if message is None:
        page = (folder / "outputs" / task / "report" / "report.html").read_text(encoding="utf-8")
        assert "alert(1)" in page and "<script" not in page and "<img src=x" not in page and "<b>yes" not in page
