"""What every chapter must keep to, whatever it says."""

from __future__ import annotations

import ast
import copy
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from pixelrl import viz

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SETUP = (ROOT / "tools" / "setup_cell.py").read_text().rstrip("\n")
MAX_LINES = 40
MIN_WORDS = 4  # of a text that stands for a picture

# What Jupyter Book understands and Colab and GitHub show as it is written.
MYST = {
    "a directive": re.compile(r"^\s*(`{3,}|~{3,}|:{3,})\s*\{", re.MULTILINE),
    "a colon fence": re.compile(r"^\s*:{3,}", re.MULTILINE),
    "a role": re.compile(r"(?<!`)\{[A-Za-z][\w:+-]*\}`[^`\s]"),
    "a target": re.compile(r"^\([\w -]+\)=\s*$", re.MULTILINE),
}
FIGURE_MAKERS = {"figure", "subplots", "subplot_mosaic"}
HARMLESS = {"close", "get_cmap", "rc", "setp"}
PARTS = inspect.getmembers(viz, inspect.isfunction)
SHOWS = {name for name, function in PARTS if "alt" in inspect.signature(function).parameters}


def problems(notebook: NotebookNode) -> list[str]:
    """Everything that is wrong with a notebook, a line each."""
    kinds = (format_problems, setup_problems, markdown_problems, code_problems)
    return [problem for kind in kinds for problem in kind(notebook)]


def format_problems(notebook: NotebookNode) -> Iterator[str]:
    ids = [cell.get("id") for cell in notebook.cells]
    if None in ids or len(set(ids)) < len(ids):
        yield "every cell needs an id of its own"
        return
    try:
        nbformat.validate(copy.deepcopy(notebook))
    except nbformat.ValidationError as error:
        yield f"not a valid notebook: {error.message}"
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel must be python3"
    if "widgets" in notebook.metadata:
        yield "the state of widgets is stored"
    for cell in notebook.cells:
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None):
            yield f"{cell.id}: outputs are stored"


def setup_problems(notebook: NotebookNode) -> Iterator[str]:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [index for index, cell in enumerate(code) if "setup" in cell.metadata.get("tags", [])] != [0]:
        yield "the first code cell, and no other, must be tagged `setup`"
    elif code[0].source != SETUP:
        yield "the set-up cell is not that of tools/setup_cell.py: run `make sync`"


def markdown_problems(notebook: NotebookNode) -> Iterator[str]:
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        for name, pattern in MYST.items():
            if pattern.search(cell.source):
                yield f"{cell.id}: {name} of MyST, which Colab does not know"
        if any(not text.strip() for text in re.findall(r"!\[([^\]]*)\]", cell.source)):
            yield f"{cell.id}: a picture without a text"
        if any(not re.search(r'alt="[^"]+"', tag) for tag in re.findall(r"<img\b[^>]*>", cell.source)):
            yield f"{cell.id}: a picture without a text"


def code_problems(notebook: NotebookNode) -> Iterator[str]:
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if (lines := len(cell.source.splitlines())) > MAX_LINES:
            yield f"{cell.id}: {lines} lines; {MAX_LINES} are the most"
        try:
            tree = ast.parse(cell.source)
        except SyntaxError as error:
            yield f"{cell.id}: not valid Python: {error}"
            continue
        yield from (f"{cell.id}: {problem}" for problem in picture_problems(tree))


def picture_problems(tree: ast.Module) -> Iterator[str]:
    """Pictures that are not shown by `viz`, or have no text."""
    made = shown = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("pixelrl.viz", "matplotlib.pyplot"):
            yield f"import {node.module} itself, so that its calls can be seen"
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        owner, _, name = function.rpartition(".")
        if function == "display":
            yield "`display`: pictures are shown by `viz`"
        elif owner == "plt" and name in FIGURE_MAKERS:
            made += 1
        elif owner == "plt" and name not in HARMLESS:
            yield f"`{function}`: draw on an axis, and show the figure by `viz.figure`"
        elif owner == "viz" and name in SHOWS:
            shown += name == "figure"
            if len(re.findall(r"\w+", alt_text(node))) < MIN_WORDS:
                yield f"`{function}` needs alt='...', a text of {MIN_WORDS} words or more that says what is to be seen"
    if made > shown:
        yield "a figure is made that no `viz.figure` of this cell shows"
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr) and isinstance(last.value, ast.Name) and last.value.id.startswith("fig"):
        yield "a figure is left as the last expression: show it by `viz.figure`"


def alt_text(call: ast.Call) -> str:
    """The text of a call's `alt`, as far as it stands there."""
    strings = (node for word in call.keywords if word.arg == "alt" for node in ast.walk(word.value))
    return " ".join(str(node.value) for node in strings if isinstance(node, ast.Constant))


def chapter(*cells: NotebookNode) -> NotebookNode:
    """A small chapter with nothing wrong, and some more cells."""
    setup = new_code_cell(SETUP, metadata={"tags": ["setup"]})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=[new_markdown_cell("# A chapter"), setup, *cells], metadata={"kernelspec": kernel})
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    return notebook


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_keeps_the_rules(path: Path) -> None:
    assert problems(nbformat.read(path, as_version=nbformat.NO_CONVERT)) == []


def test_there_are_chapters() -> None:
    assert [path.name[:2] for path in CHAPTERS] == [f"{number:02}" for number in range(1, len(CHAPTERS) + 1)]
    assert len(CHAPTERS) >= 2


GOOD = """\
fig, ax = plt.subplots()
ax.plot(returns)
viz.figure(fig, alt="The return climbs to 500 and stays there.")"""


@pytest.mark.parametrize(
    "cell",
    [
        new_code_cell(GOOD),
        new_code_cell("x = 1\n" * MAX_LINES),
        new_code_cell('viz.video(frames, alt=f"The agent holds the pole for {len(frames)} steps.")'),
        new_code_cell("ax.imshow(picture)\ntable"),
        new_markdown_cell("$a_{t}$, `{t}`, $\\mathbb{E}_{s'}$ and\n\n```python\nx = {1: 2}\n```"),
        new_markdown_cell("![a pole on a cart](cart.png)"),
    ],
    ids=lambda cell: cell.source.split("\n")[0],
)
def test_what_is_right_passes(cell: NotebookNode) -> None:
    assert problems(chapter(cell)) == []


@pytest.mark.parametrize(
    ("cell", "word"),
    [
        (new_code_cell("x = 1\n" * (MAX_LINES + 1)), "41 lines"),
        (new_code_cell("x = 1", execution_count=1), "outputs are stored"),
        (new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text="1")]), "outputs are stored"),
        (new_code_cell("y = # your code"), "not valid Python"),
        (new_code_cell(GOOD.replace(', alt="The return climbs to 500 and stays there."', "")), "needs alt"),
        (new_code_cell(GOOD.replace("The return climbs to 500 and stays there.", "A plot.")), "needs alt"),
        (new_code_cell("viz.video(frames, alt=text)"), "needs alt"),
        (new_code_cell("viz.images(pictures, titles, alt='')"), "needs alt"),
        (new_code_cell("viz.explorer(pictures, captions)"), "needs alt"),
        (new_code_cell("fig, ax = plt.subplots()\nax.plot(x)"), "no `viz.figure`"),
        (new_code_cell(GOOD + "\nother, ax = plt.subplots()"), "no `viz.figure`"),
        (new_code_cell(GOOD + "\nplt.show()"), "plt.show"),
        (new_code_cell("plt.plot([1, 2])"), "plt.plot"),
        (new_code_cell(GOOD + "\nfig"), "last expression"),
        (new_code_cell("display(fig)"), "display"),
        (new_code_cell("from pixelrl.viz import figure"), "import pixelrl.viz itself"),
        (new_code_cell(SETUP, metadata={"tags": ["setup"]}), "and no other"),
        (new_markdown_cell("```{note}\nx\n```"), "a directive"),
        (new_markdown_cell(":::{note}\nx\n:::"), "a directive"),
        (new_markdown_cell("text\n:::note\nx\n:::"), "a colon fence"),
        (new_markdown_cell("see {ref}`there`"), "a role"),
        (new_markdown_cell("as {cite:t}`mnih` has it"), "a role"),
        (new_markdown_cell("(there)=\n## There"), "a target"),
        (new_markdown_cell("![](cart.png)"), "without a text"),
        (new_markdown_cell('<img src="cart.png" width="3">'), "without a text"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_wrong_is_named(cell: NotebookNode, word: str) -> None:
    found = problems(chapter(cell))
    assert len(found) >= 1
    assert word in "\n".join(found)


def test_the_setup_cell_is_the_one_of_the_tools() -> None:
    changed, moved, missing, twins = (chapter() for _ in range(4))
    changed.cells[1].source += "\n"
    moved.cells.insert(1, new_code_cell("import torch"))
    missing.cells[1].metadata.tags = []
    twins.cells[0].id = twins.cells[1].id
    assert "make sync" in problems(changed)[0]
    assert "first code cell" in problems(moved)[0]
    assert "first code cell" in problems(missing)[0]
    assert "an id of its own" in "\n".join(problems(twins))
