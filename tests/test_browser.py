"""The notebooks in JupyterLab, driven by a browser: outputs, progress bars, the live plot, the text box and interrupts.

Screenshots are saved in outputs/browser/. The browser is Debian's chromium, or the one that BERT_TEST_BROWSER names; if
that variable is set, a missing browser is an error.
"""

import base64
import contextlib
import json
import os
import re
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
from playwright.sync_api import TimeoutError as BrowserTimeout

import tools
from textbert.training import checkpoints

pytestmark = pytest.mark.slow

TIMEOUT = 900  # seconds for each wait; only to end a test that hangs, even on a very busy machine
SCREENSHOTS = ROOT / "outputs" / "browser"
TINY = {"TASK_NAME": "tiny", "BERT_MODEL": "tiny-bert", "MAX_SEQ_LENGTH": 64}
# 2,000 steps take far longer than the 5 seconds after which the plot is redrawn, so that training is still running
TRAINING = {**TINY, "TRAIN_ROWS": 400, "TRAIN_BATCH_SIZE": 9, "NUM_TRAIN_EPOCHS": 50, "LEARNING_RATE": 1e-3, "FOLDS": 0}

# recorded every tenth of a second: the widths of each bar by its name, and the images of each plot by its cell
WATCH = """() => {
    window.records = {bars: {}, plots: {}};
    const add = (record, key, value) => { if (!(record[key] ??= []).includes(value)) record[key].push(value) };
    setInterval(() => {
        for (const bar of document.querySelectorAll('.jp-OutputArea .progress-bar')) {
            add(records.bars, bar.closest('.widget-hbox').textContent.split(':')[0], bar.style.width);
        }
        document.querySelectorAll('.jp-CodeCell').forEach((cell, i) => {
            for (const image of cell.querySelectorAll('.jp-OutputArea img')) add(records.plots, i, image.src);
        });
    }, 100);
}"""
# JupyterLab does not render cells outside the viewport: their text is missing and their height estimated
RENDER_ALL = ".jp-Cell { content-visibility: visible !important; contain: none !important }"
HEIGHT = """() => {
    const cells = [...document.querySelectorAll('.jp-Cell')].map(cell => cell.getBoundingClientRect());
    return Math.ceil(cells.at(-1).bottom - cells[0].top);
}"""
# the prompt of a queued cell is a star, and before it is queued what RESET_PROMPTS has set
PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')]"
RESET_PROMPTS = f"() => {PROMPTS}.forEach(prompt => {{ prompt.textContent = '[new]:' }})"
IDLE = f"""() => document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status == 'idle'
    && !{PROMPTS}.some(prompt => ['[*]:', '[new]:'].includes(prompt.textContent))"""
OUTPUTS = "() => [...document.querySelectorAll('.jp-OutputArea-output')].map(output => output.innerText)"
TOO_WIDE = """() => [...document.querySelectorAll('.jp-OutputArea table')]
    .filter(table => table.scrollWidth > table.closest('.jp-OutputArea-output').clientWidth)
    .map(table => table.querySelector('tbody th, td')?.innerText)"""
# outputs are shown in a font of matplotlib, as their width would otherwise depend on the fonts of this machine
FONT = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
SET_FONT = """@font-face { font-family: Ours; src: url(data:font/ttf;base64,%s) }
.jp-OutputArea * { font-family: Ours !important }"""
COUNT_FONTS = "() => document.fonts.load('12px Ours').then(fonts => fonts.length)"
RED = '[data-mime-type="application/vnd.jupyter.stderr"]'  # errors and stderr


@pytest.fixture(scope="module")
def lab(tmp_path_factory, bert_files):
    """A JupyterLab with fresh settings in a copy of the project: its folder, address and process."""
    folder, home = make_project(tmp_path_factory.mktemp("project"), bert_files), tmp_path_factory.mktemp("jupyter")
    settings = {f"JUPYTER_{name}_DIR": str(home / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment = {**os.environ, **settings, "IPYTHONDIR": str(home / "ipython"), "OMP_NUM_THREADS": "1"}
    environment.pop("TQDM_DISABLE", None)
    no_announcements = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (home / "CONFIG" / "labconfig").mkdir(parents=True)
    (home / "CONFIG" / "labconfig" / "page_config.json").write_text(json.dumps(no_announcements))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", "--IdentityProvider.token=secret"]
    with open(home / "log", "w") as log:
        process = psutil.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + TIMEOUT
        while not (files := list((home / "RUNTIME").glob("jpserver-*.json"))):
            assert process.poll() is None and time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.1)
        address = json.loads(files[0].read_text())["url"]
        yield SimpleNamespace(folder=folder, address=address, process=process)
    finally:
        family = [*process.children(recursive=True), process]
        process.terminate()
        for survivor in psutil.wait_procs(family, timeout=20)[1]:
            survivor.kill()


def find_workers(lab):
    """Return the worker processes of conversions in the kernels."""
    processes = []
    for process in lab.process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            processes += [process] if "popen_loky" in " ".join(process.cmdline()) else []
    return processes


class Reader:
    """A notebook in a tab of the browser, and its user."""

    def __init__(self, lab, browser, name, **parameters):
        self.name, self.path = name, lab.folder / f"{name}.ipynb"
        set_parameters(self.path, parameters)
        self.page = browser.new_page(viewport={"width": 1280, "height": 900})
        self.page.goto(f"{lab.address}lab/tree/{name}.ipynb?token=secret&reset", timeout=TIMEOUT * 1000)
        self.wait("() => document.body.innerText.includes('Python 3 (ipykernel) | Idle')", "the kernel to start")
        self.page.add_style_tag(content=RENDER_ALL)
        self.page.add_style_tag(content=SET_FONT % base64.b64encode(FONT.read_bytes()).decode())
        assert self.page.evaluate(COUNT_FONTS) == 1
        self.page.evaluate(WATCH)

    def wait(self, condition, description):
        """Wait until a JavaScript function returns true; on timeout fail with a screenshot and the outputs."""
        try:
            self.page.wait_for_function(condition, timeout=TIMEOUT * 1000)
        except BrowserTimeout:
            self.save_screenshot(f"{self.name}-failed")
            pytest.fail(f"{self.name} timed out waiting for {description}; its outputs: {self.page.evaluate(OUTPUTS)}")

    def run_all(self):
        """Run all cells from the menu."""
        self.page.evaluate(RESET_PROMPTS)
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    def finish(self):
        """Wait for the last cell; save the notebook and return it."""
        self.wait(IDLE, "the last cell")
        return self.save()

    def stop(self):
        """Press the stop button and return the text of all errors."""
        self.page.locator("[data-command='notebook:interrupt-kernel']").click()
        self.wait(IDLE, "the kernel to stop")
        self.save_screenshot(f"{self.name}-stopped")
        return "".join(self.page.locator(RED).all_inner_texts())

    def save(self):
        """Save the notebook with Ctrl+S and return it."""
        self.page.keyboard.press("Control+s")
        self.wait("() => !document.querySelector('.jp-mod-dirty')", "the notebook to be saved")
        return nbformat.read(self.path, as_version=4)

    def save_screenshot(self, name):
        """Save a screenshot of the whole notebook."""
        self.page.set_viewport_size({"width": 1280, "height": self.page.evaluate(HEIGHT) + 160})
        self.page.evaluate("() => document.querySelector('.jp-WindowedPanel-outer').scrollTo(0, 0)")
        self.page.wait_for_timeout(500)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", timeout=TIMEOUT * 1000)
        self.page.set_viewport_size({"width": 1280, "height": 900})


def set_parameters(path, parameters):
    """Write values into the two parameter cells of a notebook, and remove all outputs."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        cell.outputs, cell.execution_count = [], None
    for name, value in parameters.items():
        pattern, total = rf"(?m)^({name}) = .*?(  #.*)?$", 0
        for cell in cells:
            cell.source, count = re.subn(pattern, rf"\1 = {value!r}\2", cell.source)
            total += count
        assert total == 1, name
    nbformat.write(notebook, path)


def write_long_table(path, tokenizer):
    """Write a table that takes one process 16 seconds to convert: worker processes start from 10."""
    rng = np.random.default_rng(0)

    def make_text(label):
        letters = "".join(rng.choice(list("abcdefghijklm"), 240))
        return " ".join([("bad", "good")[label], *(letters[i : i + 12] for i in range(0, 240, 12))])

    texts = [make_text(row % 2) for row in range(300)]
    start = time.process_time()  # independent of the load of the machine
    tools.count_tokens(texts, tokenizer)
    rows = max(12_000, int(16 / (time.process_time() - start) * len(texts)))  # workers start after the first MiB
    path.write_text("".join(f"{row}\t{row % 2}\ta\t{make_text(row % 2)}\n" for row in range(rows)))


@pytest.fixture(scope="module")
def data_prep(lab, browser):
    """data_prep.ipynb, run completely."""
    reader = Reader(lab, browser, "data_prep", **TINY)
    reader.run_all()
    reader.notebook = reader.finish()
    return reader


@pytest.fixture(scope="module")
def train(lab, browser, data_prep, tokenizers):
    """train.ipynb, interrupted during conversion, interrupted during training, and then run completely."""
    data, checkpoint = lab.folder / "data" / "tiny", checkpoints.get_checkpoint_path(lab.folder / "outputs" / "tiny")
    write_long_table(data / "train.tsv", tokenizers["uncased"])
    reader = Reader(lab, browser, "train", **TRAINING)
    reader.run_all()
    deadline = time.monotonic() + TIMEOUT
    while not find_workers(lab):
        assert time.monotonic() < deadline, "no worker process started"
        reader.page.wait_for_timeout(100)
    reader.stopped_conversion = reader.stop()
    reader.state_after_conversion = [find_workers(lab), sorted(path.name for path in data.glob("[!.]*"))]
    reader.run_all()
    reader.wait("() => Object.values(records.plots).some(plots => plots.length > 1)", "a plot that changes")
    reader.stopped_training = reader.stop()
    reader.had_checkpoint = checkpoint.is_file()
    reader.run_all()
    reader.notebook = reader.finish()
    reader.records = reader.page.evaluate("() => records")
    return reader


@pytest.fixture(scope="module")
def evaluate(lab, browser, train):
    """evaluate.ipynb, run completely."""
    reader = Reader(lab, browser, "evaluate", TASK_NAME="tiny", CHECK_LABELS=60)
    reader.run_all()
    reader.notebook = reader.finish()
    return reader


@pytest.mark.parametrize(("name", "plots", "widgets"), [("data_prep", 2, 0), ("train", 5, 0), ("evaluate", 4, 1)])
def test_all_cells_run_with_clean_outputs(request, name, plots, widgets):
    reader = request.getfixturevalue(name)
    reader.save_screenshot(name)
    cells = [cell for cell in reader.notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 10 and None not in [cell.execution_count for cell in cells]
    outputs = [output for cell in cells for output in cell.outputs]
    assert [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"] == []
    page = reader.page
    assert page.locator(RED).count() == 0 and page.locator(".jp-Dialog").count() == 0
    images = page.locator(".jp-OutputArea img")
    assert images.count() == plots
    assert all(image.evaluate("image => image.complete && image.naturalWidth > 0") for image in images.all())
    assert all(len(image.get_attribute("alt") or "") > 20 for image in images.all())
    # progress bars are gone, on the screen and in the file, where widgets do not work
    assert page.locator(".progress-bar").count() == 0
    assert sum("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in outputs) == widgets
    # no table is cut off, except perhaps that of the tokens: the tiny vocabulary splits words into letters
    assert set(page.evaluate(TOO_WIDE)) <= ({"token"} if name == "train" else set())
    wide = page.add_style_tag(content=".jp-OutputArea table { min-width: 3000px }")
    assert len(page.evaluate(TOO_WIDE)) > 0  # a table that is cut off is found
    wide.evaluate("style => style.remove()")


def test_progress_bars_and_the_live_plot_move(train):
    assert len(train.records["bars"]["Converting"]) > 3 and len(train.records["bars"]["Training"]) > 10
    assert max(map(len, train.records["plots"].values())) > 2


def test_interrupted_conversion_leaves_no_files_and_can_be_rerun(train):
    assert "KeyboardInterrupt: interrupted during conversion; nothing was saved" in train.stopped_conversion
    assert train.stopped_conversion.count("\nFile ") <= 2  # a short traceback
    processes, files = train.state_after_conversion
    assert processes == [] and files == ["dev.tsv", "labels.json", "test.csv", "train.csv", "train.tsv"]
    assert "examples converted" in get_stdout(train) or "features loaded" in get_stdout(train)


def test_interrupted_training_resumes(train):
    step = int(re.search(r"KeyboardInterrupt: stopped after step (\d+): run it again", train.stopped_training)[1])
    assert train.had_checkpoint
    assert f"Resuming from step {step} of" in get_stdout(train) and "epoch 50: training loss" in get_stdout(train)


def get_stdout(reader):
    """Return everything that the saved notebook has printed."""
    return "".join(o.get("text", "") for cell in reader.notebook.cells for o in cell.get("outputs", []))


def test_text_box_classifies_what_is_typed(evaluate):
    page = evaluate.page
    box, output = page.locator(".jp-OutputArea textarea"), page.locator(".jp-OutputArea .widget-vbox .widget-html")
    first = output.inner_text()
    box.fill("What a marvellous soup")
    page.get_by_role("button", name="Classify").click()
    evaluate.wait(
        "() => document.querySelector('.widget-vbox .widget-html').innerText.includes('marvellous')", "the prediction"
    )
    scores = " · ".join([r"(What|a|marvellous|soup) [+-]\d+\.\d\d"] * 3)
    pattern = rf"[12] · probability of 2: [01]\.\d\d\s+What a marvellous soup\s+largest scores: {scores}"
    assert re.fullmatch(pattern, output.inner_text())
    assert first != output.inner_text()
    evaluate.save_screenshot("evaluate-answered")
