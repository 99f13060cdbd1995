"""README, CONTRIBUTING and docs/ as text, and the code blocks in them."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted(ROOT.glob("docs/*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.M | re.S)


def read_page(path):
    """Return the Markdown of a page; of a notebook that of its text cells."""
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return content
    cells = json.loads(content)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def find_blocks():
    """Return all code blocks as a list of (language, code)."""
    return [block.groups() for page in PAGES for block in BLOCK.finditer(read_page(page))]


def take_block(words, language="python"):
    """Return the only block in this language that contains `words`."""
    (block,) = [code for written_in, code in find_blocks() if written_in == language and words in code]
    return block
