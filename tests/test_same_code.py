"""What you read is what runs: the functions that a chapter shows are those of the package."""

from __future__ import annotations

import ast
import difflib
import importlib.util
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MIN_SHOWN = 3
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
SAME = "def twice(x: int) -> int:\n    return x + x\n"


def definitions(body: list[ast.stmt]) -> dict[str, Definition]:
    """The functions and classes among some statements, by name."""
    return {node.name: node for node in body if isinstance(node, Definition)}


def package_code(source: str) -> tuple[list[ast.stmt], bool]:
    """The statements of a module, `pixelrl.dqn`, or of a class in one, `pixelrl.dqn.DQN`; and whether it is a class."""
    module, _, name = source.rpartition(".")
    if not name[:1].isupper():
        module, name = source, ""
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"there is no module {module}"
    assert spec.origin is not None, f"{module} has no source"
    body = ast.parse(Path(spec.origin).read_text()).body
    if not name:
        return body, False
    assert name in definitions(body), f"{module} has no class {name}"
    return definitions(body)[name].body, True


def bare(definition: Definition, method: bool) -> Definition:
    """A definition without its docstrings; outside of its class, a method's `self` may say what it is."""
    definition = ast.parse(ast.unparse(definition)).body[0]
    for node in ast.walk(definition):
        if isinstance(node, Definition):
            text = [isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) for line in node.body]
            node.body = [line for line, drop in zip(node.body, text, strict=True) if not drop] or [ast.Pass()]
    if method and definition.args.args:
        definition.args.args[0].annotation = None
    return definition


def shown(cell: NotebookNode) -> list[str]:
    """The names of the functions and classes that a cell shows as the package's."""
    return list(definitions(ast.parse(cell.source).body)) if "same-code" in cell.metadata.get("tags", []) else []


def difference(cell: NotebookNode) -> str:
    """Where a cell tagged `same-code` differs from the package, line by line; empty where nothing does."""
    source = cell.metadata.get("pixelrl_source")
    if source is None:
        return f"{cell.id}: the cell's metadata must name the module: pixelrl_source"
    body, method = package_code(source)
    names = shown(cell)
    if not names:
        return f"{cell.id}: no function or class in a cell that is tagged same-code"
    lines = []
    for name in names:
        if name not in definitions(body):
            lines.append(f"{cell.id}: {source} has no {name}")
            continue
        here = bare(definitions(ast.parse(cell.source).body)[name], method)
        there = bare(definitions(body)[name], method)
        if ast.dump(here) != ast.dump(there):
            texts = [ast.unparse(there).splitlines(), ast.unparse(here).splitlines()]
            lines += difflib.unified_diff(*texts, f"{source}.{name}", f"{cell.id}", lineterm="")
    return "\n".join(lines)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_chapter_shows_the_code_of_the_package(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    cells = [cell for cell in cells if "same-code" in cell.metadata.get("tags", [])]
    differences = [text for cell in cells if (text := difference(cell))]
    assert not differences, "\n" + "\n".join(differences)
    names = [name for cell in cells for name in shown(cell)]
    assert len(set(names)) >= MIN_SHOWN, f"only {names} are shown as they are in the package; {MIN_SHOWN} are the least"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with a function and a class."""
    (tmp_path / "a_package.py").write_text(
        'def twice(x: int) -> int:\n    """Two times x."""\n    return x + x\n\n\n'
        'class Counter:\n    """Counts."""\n\n    step: int = 0\n    """How far."""\n\n'
        '    def next(self, by: int = 1) -> None:\n        """On."""\n        self.step += by\n\n'
        "    def restart(self) -> None:\n        self.step = 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "a_package"


def cell(source: str, **metadata: str) -> NotebookNode:
    return new_code_cell(source, id="shown", metadata={"tags": ["same-code"], **metadata})


def test_docstrings_comments_and_layout_do_not_count(package: str) -> None:
    text = 'def twice(\n    x: int,\n) -> int:  # doubles\n    """Another text."""\n    return (x + x)\n'
    assert difference(cell(text, pixelrl_source=package)) == ""
    counter = (
        "class Counter:\n    step: int = 0\n\n    def next(self, by: int = 1) -> None:\n        self.step += by\n\n"
        "    def restart(self) -> None:\n        self.step = 0\n"
    )
    assert difference(cell(SAME + counter, pixelrl_source=package)) == ""


def test_a_method_may_be_shown_by_itself(package: str) -> None:
    text = "def next(self: Counter, by: int = 1) -> None:\n    self.step += by\n"
    assert difference(cell(text, pixelrl_source=f"{package}.Counter")) == ""
    assert "-    self.step += by" in difference(cell(text.replace("+=", "-="), pixelrl_source=f"{package}.Counter"))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (SAME.replace("x + x", "2 * x"), ["-    return x + x", "+    return 2 * x"]),
        (SAME.replace("x: int", "x: float"), ["-def twice(x: int) -> int:", "+def twice(x: float) -> int:"]),
        (f"@cache\n{SAME}", ["+@cache"]),
        (SAME.replace("twice", "thrice"), ["shown: a_package has no thrice"]),
        ("x = 1\n", ["shown: no function or class in a cell that is tagged same-code"]),
    ],
)
def test_a_doctored_cell_is_found_out(package: str, text: str, lines: list[str]) -> None:
    found = difference(cell(text, pixelrl_source=package)).splitlines()
    assert set(lines) <= set(found)


def test_a_cell_must_say_where_its_code_comes_from() -> None:
    assert "pixelrl_source" in difference(cell(SAME))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_one_changed_character_in_a_chapter_is_found(path: Path) -> None:
    for entry in nbformat.read(path, as_version=4).cells:
        if entry.cell_type == "code" and "return" in entry.source and shown(entry):
            entry.source = entry.source.replace("return", "return 0 +", 1)
            assert "0 + " in difference(entry)
            return
    pytest.fail("no cell of the chapter shows code of the package that returns something")
