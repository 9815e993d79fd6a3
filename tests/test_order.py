"""The package reads from top to bottom: each module imports only from those before it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import pixelrl

PACKAGE = Path(pixelrl.__file__).parent
ORDER = re.findall(r"\w+", pixelrl.__doc__.partition("those before it:")[2])
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))
# Within a function: a stored run makes its agent, and some agents are made from stored runs.
LATE = {("runs", "agents")}


def module(path: Path) -> str:
    """Of a file, the module or the folder of modules that the list of the package names."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports from anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "pixelrl":
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pixelrl."):
            found.add(node.module.split(".")[1])
    return found


def test_every_module_is_in_the_list_and_on_its_page() -> None:
    assert set(ORDER) == {module(path) for path in FILES}
    page = (PACKAGE.parent / "book" / "api.md").read_text()
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == ORDER


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_those_before_it(path: Path) -> None:
    name = module(path)
    before = set(ORDER[: ORDER.index(name) + 1])
    assert {other for other in imported(path) - before if (name, other) not in LATE} == set()
