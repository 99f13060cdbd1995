"""The three notebooks in JupyterLab, driven by a browser: what a reader sees, watches move, types and stops.

The screenshots are kept in outputs/browser/. The browser is Debian's chromium; BERT_TEST_BROWSER names another, and
where it is set, a browser that is missing is an error.
"""

import base64
import contextlib
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import nbformat
import numpy as np
import psutil
import pytest
from conftest import ROOT, make_project
from playwright.sync_api import TimeoutError as TooLate
from playwright.sync_api import sync_playwright

import tools
from textbert.training import checkpoints

LIMIT = 900  # seconds for whatever is waited for: against hanging, not to measure, on a machine ever so busy
SHOTS = ROOT / "outputs" / "browser"
TINY = {"TASK_NAME": "tiny", "BERT_MODEL": "tiny-bert", "MAX_SEQ_LENGTH": 64}
# 2,000 steps: far more than the 5 seconds of work after which the plot is drawn anew, or it would be done when stopped
TRAINING = {**TINY, "TRAIN_ROWS": 400, "TRAIN_BATCH_SIZE": 9, "NUM_TRAIN_EPOCHS": 50, "LEARNING_RATE": 1e-3}

# what moves is noted every tenth of a second: the width of each bar by its name, and each plot by the cell's number
WATCH = """() => {
    window.seen = {bars: {}, plots: {}};
    const note = (where, name, what) => { if (!(where[name] ??= []).includes(what)) where[name].push(what) };
    setInterval(() => {
        for (const bar of document.querySelectorAll('.jp-OutputArea .progress-bar')) {
            note(seen.bars, bar.closest('.widget-hbox').textContent.split(':')[0], bar.style.width);
        }
        document.querySelectorAll('.jp-CodeCell').forEach((cell, i) => {
            for (const image of cell.querySelectorAll('.jp-OutputArea img')) note(seen.plots, i, image.src);
        });
    }, 100);
}"""
# off the screen JupyterLab leaves cells undrawn: nothing of them could be read, and how high they are is a guess
DRAW_ALL = ".jp-Cell { content-visibility: visible !important; contain: none !important }"
HEIGHT = """() => {
    const cells = [...document.querySelectorAll('.jp-Cell')].map(cell => cell.getBoundingClientRect());
    return Math.ceil(cells.at(-1).bottom - cells[0].top);
}"""
# the prompt of a cell that waits for its turn is a star, and before that what RENEW has made it
PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')]"
RENEW = f"() => {PROMPTS}.forEach(prompt => {{ prompt.textContent = '[new]:' }})"
IDLE = f"""() => document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status == 'idle'
    && !{PROMPTS}.some(prompt => ['[*]:', '[new]:'].includes(prompt.textContent))"""
OUTPUTS = "() => [...document.querySelectorAll('.jp-OutputArea-output')].map(output => output.innerText)"
TOO_WIDE = """() => [...document.querySelectorAll('.jp-OutputArea table')]
    .filter(table => table.scrollWidth > table.closest('.jp-OutputArea-output').clientWidth)
    .map(table => table.querySelector('tbody th, td')?.innerText)"""
# outputs are in a font that matplotlib brings along, or their width would be a matter of what this machine has
FONT = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
SET_FONT = """@font-face { font-family: Ours; src: url(data:font/ttf;base64,%s) }
.jp-OutputArea * { font-family: Ours !important }"""
FONT_IS_THERE = "() => document.fonts.load('12px Ours').then(found => found.length)"
RED = '[data-mime-type="application/vnd.jupyter.stderr"]'  # errors as well as what is written to stderr


@pytest.fixture(scope="module")
def browser():
    """A browser without a window."""
    name = os.environ.get("BERT_TEST_BROWSER")
    path = shutil.which(name or "chromium")
    if not (name or path):
        pytest.skip("no chromium is found: install it, or set BERT_TEST_BROWSER to the path of a browser of its kind")
    assert path, f"BERT_TEST_BROWSER is {name}, which is not found: install it"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--disable-gpu", "--disable-quic"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory, bert_files):
    """A JupyterLab with settings of its own on a copy of the project: its folder, address and process."""
    folder, home = make_project(tmp_path_factory.mktemp("project"), bert_files), tmp_path_factory.mktemp("jupyter")
    own = {f"JUPYTER_{name}_DIR": str(home / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment = {**os.environ, **own, "IPYTHONDIR": str(home / "ipython"), "OMP_NUM_THREADS": "1"}
    environment.pop("TQDM_DISABLE", None)
    no_news = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (home / "CONFIG" / "labconfig").mkdir(parents=True)
    (home / "CONFIG" / "labconfig" / "page_config.json").write_text(json.dumps(no_news))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", "--IdentityProvider.token=secret"]
    with open(home / "log", "w") as log:
        process = psutil.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + LIMIT
        while not (found := list((home / "RUNTIME").glob("jpserver-*.json"))):
            assert process.poll() is None and time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.1)
        address = json.loads(found[0].read_text())["url"]
        yield SimpleNamespace(folder=folder, address=address, process=process)
    finally:
        family = [*process.children(recursive=True), process]
        process.terminate()
        for left in psutil.wait_procs(family, timeout=20)[1]:
            left.kill()


def workers(lab):
    """Return the worker processes of conversions that run in the kernels."""
    found = []
    for process in lab.process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            found += [process] if "popen_loky" in " ".join(process.cmdline()) else []
    return found


class Reader:
    """Somebody who reads one notebook in a tab of the browser."""

    def __init__(self, lab, browser, name, **parameters):
        self.name, self.path = name, lab.folder / f"{name}.ipynb"
        set_parameters(self.path, parameters)
        self.page = browser.new_page(viewport={"width": 1280, "height": 900})
        self.page.goto(f"{lab.address}lab/tree/{name}.ipynb?token=secret&reset", timeout=LIMIT * 1000)
        self.wait("() => document.body.innerText.includes('Python 3 (ipykernel) | Idle')", "the kernel to start")
        self.page.add_style_tag(content=DRAW_ALL)
        self.page.add_style_tag(content=SET_FONT % base64.b64encode(FONT.read_bytes()).decode())
        assert self.page.evaluate(FONT_IS_THERE) == 1
        self.page.evaluate(WATCH)

    def wait(self, what, why):
        """Wait until a function in JavaScript is true; fail with a picture and the outputs."""
        try:
            self.page.wait_for_function(what, timeout=LIMIT * 1000)
        except TooLate:
            self.shoot(f"{self.name}-failed")
            pytest.fail(f"{self.name} waited in vain for {why}; its outputs: {self.page.evaluate(OUTPUTS)}")

    def run_all(self):
        """Run all cells, by the menu."""
        self.page.evaluate(RENEW)
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    def finish(self):
        """Wait for the last cell; return the notebook as it was saved."""
        self.wait(IDLE, "the last cell")
        return self.save()

    def stop(self):
        """Press the stop button and return what is then shown in red."""
        self.page.locator("[data-command='notebook:interrupt-kernel']").click()
        self.wait(IDLE, "the kernel to stop")
        self.shoot(f"{self.name}-stopped")
        return "".join(self.page.locator(RED).all_inner_texts())

    def save(self):
        """Save the notebook with Ctrl+S and return it."""
        self.page.keyboard.press("Control+s")
        self.wait("() => !document.querySelector('.jp-mod-dirty')", "the notebook to be saved")
        return nbformat.read(self.path, as_version=4)

    def shoot(self, name):
        """Keep a picture of the whole notebook, from its first cell to its last."""
        self.page.set_viewport_size({"width": 1280, "height": self.page.evaluate(HEIGHT) + 160})
        self.page.evaluate("() => document.querySelector('.jp-WindowedPanel-outer').scrollTo(0, 0)")
        self.page.wait_for_timeout(500)
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png", timeout=LIMIT * 1000)
        self.page.set_viewport_size({"width": 1280, "height": 900})


def set_parameters(path, parameters):
    """Write values into the parameter cell of a notebook, and take away all outputs."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            for name, value in parameters.items():
                cell.source, found = re.subn(rf"(?m)^({name}: \w+) = .*?  #", rf"\1 = {value!r}  #", cell.source)
                assert found == 1, name
    nbformat.write(notebook, path)


def write_long_table(path, tokenizer):
    """Write so many rows that converting them keeps one process busy for 25 seconds: more than 10, so workers start."""
    rng = np.random.default_rng(0)

    def make_text(label):
        letters = "".join(rng.choice(list("abcdefghijklm"), 240))
        return " ".join([("bad", "good")[label], *(letters[i : i + 12] for i in range(0, 240, 12))])

    texts = [make_text(row % 2) for row in range(300)]
    start = time.process_time()  # other processes must not make it look slower than it is
    tools.count_tokens(texts, tokenizer)
    rows = max(12_000, int(25 / (time.process_time() - start) * len(texts)))  # workers start after the first MiB
    path.write_text("".join(f"{row}\t{row % 2}\ta\t{make_text(row % 2)}\n" for row in range(rows)))


@pytest.fixture(scope="module")
def data_prep(lab, browser):
    """data_prep.ipynb, run from top to bottom."""
    reader = Reader(lab, browser, "data_prep", **TINY)
    reader.run_all()
    reader.notebook = reader.finish()
    return reader


@pytest.fixture(scope="module")
def train(lab, browser, data_prep, tokenizers):
    """train.ipynb, stopped while it converts, stopped while it trains, and then run to its end."""
    data, checkpoint = lab.folder / "data" / "tiny", checkpoints.get_checkpoint_path(lab.folder / "outputs" / "tiny")
    write_long_table(data / "train.tsv", tokenizers["uncased"])
    reader = Reader(lab, browser, "train", **TRAINING)
    reader.run_all()
    deadline = time.monotonic() + LIMIT
    while not workers(lab):
        assert time.monotonic() < deadline, "no worker has started"
        reader.page.wait_for_timeout(100)
    reader.stopped_conversion = reader.stop()
    reader.left_by_conversion = [workers(lab), sorted(path.name for path in data.glob("[!.]*"))]
    reader.run_all()
    reader.wait("() => Object.values(seen.plots).some(plots => plots.length > 1)", "a plot that changes")
    reader.stopped_training = reader.stop()
    reader.checkpoint_stood = checkpoint.is_file()
    reader.run_all()
    reader.notebook = reader.finish()
    reader.seen = reader.page.evaluate("() => seen")
    return reader


@pytest.fixture(scope="module")
def evaluate(lab, browser, train):
    """evaluate.ipynb, run from top to bottom."""
    reader = Reader(lab, browser, "evaluate", TASK_NAME="tiny", CHECK_LABELS=60)
    reader.run_all()
    reader.notebook = reader.finish()
    return reader


@pytest.mark.parametrize(("name", "plots", "widgets"), [("data_prep", 2, 0), ("train", 3, 0), ("evaluate", 3, 1)])
def test_all_cells_run_and_nothing_disturbs_the_reader(request, name, plots, widgets):
    reader = request.getfixturevalue(name)
    reader.shoot(name)
    cells = [cell for cell in reader.notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 10 and None not in [cell.execution_count for cell in cells]
    outputs = [output for cell in cells for output in cell.outputs]
    assert [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"] == []
    page = reader.page
    assert page.locator(RED).count() == 0 and page.locator(".jp-Dialog").count() == 0
    images = page.locator(".jp-OutputArea img")
    assert images.count() == plots
    assert all(image.evaluate("image => image.complete && image.naturalWidth > 0") for image in images.all())
    # bars have left nothing, neither on the screen nor in the file, where widgets are dead
    assert page.locator(".progress-bar").count() == 0
    assert sum("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in outputs) == widgets
    # no table is cut off, but perhaps that of word pieces, for the tiny vocabulary spells all words
    assert set(page.evaluate(TOO_WIDE)) <= ({"piece"} if name == "train" else set())
    wide = page.add_style_tag(content=".jp-OutputArea table { min-width: 3000px }")
    assert len(page.evaluate(TOO_WIDE)) > 0  # and one that is cut off is found
    wide.evaluate("style => style.remove()")


def test_bars_and_the_plot_of_the_training_move(train):
    assert len(train.seen["bars"]["Converting"]) > 3 and len(train.seen["bars"]["Training"]) > 10
    assert max(map(len, train.seen["plots"].values())) > 2


def test_a_stopped_conversion_leaves_nothing_behind_and_can_be_run_again(train):
    assert "KeyboardInterrupt: interrupted during conversion; nothing was saved" in train.stopped_conversion
    assert train.stopped_conversion.count("\nFile ") <= 2  # the reader has not to wade through what it called
    running, files = train.left_by_conversion
    assert running == [] and files == ["dev.tsv", "labels.json", "test.csv", "train.csv", "train.tsv"]
    assert "examples converted" in printed(train) or "features loaded" in printed(train)


def test_a_stopped_training_goes_on_where_it_was(train):
    step = int(re.search(r"KeyboardInterrupt: stopped after step (\d+): run it again", train.stopped_training)[1])
    assert train.checkpoint_stood
    assert f"Going on after step {step} of" in printed(train) and "epoch 50: training loss" in printed(train)


def printed(reader):
    """Return all that a notebook prints, as it was saved."""
    return "".join(o.get("text", "") for cell in reader.notebook.cells for o in cell.get("outputs", []))


def test_the_box_answers_what_is_typed(evaluate):
    page = evaluate.page
    box, output = page.locator(".jp-OutputArea textarea"), page.locator(".jp-OutputArea .widget-vbox .widget-html")
    first = output.inner_text()
    box.fill("What a marvellous soup")
    page.get_by_role("button", name="Classify").click()
    evaluate.wait("() => document.querySelector('.widget-vbox .widget-html').innerText.includes('marvellous')", "it")
    assert re.fullmatch(r"[12] · probability of 2: [01]\.\d\d\s+What a marvellous soup", output.inner_text())
    assert first != output.inner_text()
    evaluate.shoot("evaluate-answered")
