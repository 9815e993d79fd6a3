"""Keep what stands in several places in step.

    python tools/sync.py            write the set-up cell, the repository's address and the version everywhere
    python tools/sync.py ADDRESS    the same, after the repository has moved: https://github.com/OWNER/NAME
    python tools/sync.py --check    change nothing; fail if anything is out of step

By hand they stand in one place each: the set-up cell in tools/setup_cell.py, the address in pyproject.toml, the
version in pixelrl/__init__.py.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = (
    "*.md *.yml pyproject.toml tools/setup_cell.py .github/workflows/*.yml book/**/*.md notebooks/*.ipynb "
    "assignments/**/*.ipynb"
).split()
ADDRESS = re.compile(r"https://github\.com/(?P<owner>[\w-]+)/(?P<name>[\w.-]+)")
# Where the address can only be that of this repository: what stands before it, and what may follow.
CONTEXTS = (
    r"(?m)(^Repository = \")[^\"]+",
    r"(VERSION, REPOSITORY = \"[^\"]+\", \")[^\"]+",
    r"(git clone )https://[^\s\\\"]+",
    r"(git\+)https://[^\s@'\"`)\\]+",
    r"(?m)(^repository:\n  url: )\S+",
    r"(colab\.research\.google\.com/github/)[\w-]+/[\w.-]+",
)


class SyncError(RuntimeError):
    """A place that should hold something does not."""


def only(pattern: str, path: Path) -> str:
    """The one thing that a pattern finds in a file."""
    found = re.findall(pattern, path.read_text())
    if len(found) != 1:
        raise SyncError(f"{path}: expected one match of {pattern}, found {len(found)}.")
    return found[0]


def moved(text: str, old: str, new: str) -> str:
    """A text in which the repository lies at another address, its site included."""
    places = [ADDRESS.fullmatch(address) for address in (old, new)]
    if not all(places):
        raise SyncError(f"the address must look like https://github.com/OWNER/NAME; it is {new}.")
    slugs = ["/".join(place.groups()) for place in places]
    sites = [f"{place['owner'].lower()}.github.io/{place['name']}" for place in places]
    for before, after in zip([slugs[0], sites[0]], [slugs[1], sites[1]], strict=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(before)}(?![\w-])", after, text)
    for context in CONTEXTS:
        after = slugs[1] if "colab" in context else new
        text = re.sub(context, lambda match, after=after: match[1] + after, text)
    return re.sub(r"(git clone \S+\n\s*cd )\S+", lambda match: match[1] + places[1]["name"], text)


def with_setup_cell(notebook: str, cell: str, name: str) -> str:
    """A notebook, as JSON, with the set-up cell of now.

    Raises:
        SyncError: its first code cell, and no other, must be tagged `setup`.
    """
    content = json.loads(notebook)
    code = [entry for entry in content["cells"] if entry["cell_type"] == "code"]
    if [number for number, entry in enumerate(code) if "setup" in entry["metadata"].get("tags", [])] != [0]:
        raise SyncError(f"{name}: its first code cell, and no other, must have the tag `setup`.")
    code[0]["source"] = cell.rstrip("\n").splitlines(keepends=True)
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def changes(root: Path, address: str | None = None) -> dict[Path, str]:
    """The new text of every file that is out of step.

    Args:
        root: of the repository.
        address: where it lies from now on; by default where pyproject.toml says.
    """
    old = only(r'(?m)^Repository = "([^"]+)"', root / "pyproject.toml")
    new = (address or old).rstrip("/").removesuffix(".git")
    version = only(r'(?m)^__version__ = "([^"]+)"', root / "pixelrl/__init__.py")
    cell = moved((root / "tools/setup_cell.py").read_text(), old, new)
    cell = re.sub(r"VERSION, REPOSITORY = \"[^\"]+\"", f'VERSION, REPOSITORY = "{version}"', cell)
    changed = {}
    for path in sorted(path for pattern in FILES for path in root.glob(pattern)):
        text = path.read_text()
        after = moved(text, old, new)
        if path.name == "setup_cell.py":
            after = cell
        elif path.suffix == ".ipynb":
            after = with_setup_cell(after, cell, str(path.relative_to(root)))
        if after != text:
            changed[path] = after
    return changed


def main() -> None:
    """Write what has to change, or only say so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", nargs="?", help="https://github.com/OWNER/NAME")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if anything is out of step")
    options = parser.parse_args()
    try:
        changed = changes(ROOT, options.address)
    except SyncError as error:
        sys.exit(f"error: {error}")
    for path, text in changed.items():
        print(path.relative_to(ROOT), "is out of step" if options.check else "written")
        if not options.check:
            path.write_text(text)
    if changed and options.check:
        sys.exit("error: run `make sync`")


if __name__ == "__main__":
    main()
