"""The commands that keep the repository in step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import execute
import nbformat
import pin
import pytest
import sync
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
OLD, NEW = "https://github.com/an-owner/a-name", "https://github.com/Someone/other.name"
CELL = f'VERSION, REPOSITORY = "0.1.0", "{OLD}"\nprint(VERSION)\n'


def write_notebook(path: Path, setup: str, tags: list[str]) -> None:
    """A chapter with a link, a set-up cell and another code cell."""
    link = new_markdown_cell(
        "[open](https://colab.research.google.com/github/an-owner/a-name/blob/main/notebooks/01.ipynb)"
    )
    notebook = new_notebook(
        cells=[link, new_code_cell(setup, metadata={"tags": tags}), new_code_cell("x = 1\ny = 'ä'")]
    )
    nbformat.write(notebook, path)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small repository that is in step."""
    for folder in ("pixelrl", "tools", "notebooks", "book", ".github/workflows"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(f'[project.urls]\nRepository = "{OLD}"\n')
    (tmp_path / "pixelrl/__init__.py").write_text('__version__ = "0.1.0"\n')
    (tmp_path / "tools/setup_cell.py").write_text(CELL)
    (tmp_path / "_config.yml").write_text(f"title: A\nrepository:\n  url: {OLD}\n  branch: main\n")
    (tmp_path / "book/setup.md").write_text(
        f"```bash\ngit clone {OLD}\ncd a-name\n```\n`pip install git+{OLD}`, {OLD}/issues\n"
    )
    (tmp_path / "README.md").write_text(
        "[site](https://an-owner.github.io/a-name/), https://github.com/an-owner/a-name-of-another, "
        "https://github.com/Farama-Foundation/Gymnasium\n"
    )
    write_notebook(tmp_path / "notebooks/01.ipynb", CELL.rstrip("\n"), ["setup"])
    return tmp_path


def write(changed: dict[Path, str]) -> None:
    for path, text in changed.items():
        path.write_text(text)


def test_this_repository_is_in_step() -> None:
    assert [str(path.relative_to(ROOT)) for path in sync.changes(ROOT)] == []


def test_what_is_in_step_stays(repository: Path) -> None:
    assert sync.changes(repository) == {}


def test_the_repository_moves(repository: Path) -> None:
    write(sync.changes(repository, NEW + "/"))
    assert sync.changes(repository) == {}
    assert f'Repository = "{NEW}"' in (repository / "pyproject.toml").read_text()
    assert f"  url: {NEW}\n" in (repository / "_config.yml").read_text()
    assert (repository / "tools/setup_cell.py").read_text() == CELL.replace(OLD, NEW)
    setup = (repository / "book/setup.md").read_text()
    assert setup == f"```bash\ngit clone {NEW}\ncd other.name\n```\n`pip install git+{NEW}`, {NEW}/issues\n"
    readme = (repository / "README.md").read_text()
    assert "(https://someone.github.io/other.name/)" in readme
    assert "https://github.com/an-owner/a-name-of-another" in readme
    assert "https://github.com/Farama-Foundation/Gymnasium" in readme
    notebook = nbformat.read(repository / "notebooks/01.ipynb", as_version=4)
    assert (
        "colab.research.google.com/github/Someone/other.name/blob/main/notebooks/01.ipynb" in notebook.cells[0].source
    )
    assert notebook.cells[1].source == CELL.replace(OLD, NEW).rstrip("\n")
    write(sync.changes(repository, OLD))
    assert sync.changes(repository, OLD) == {}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("pixelrl/__init__.py", "0.1.0", "0.2.0"),
        ("_config.yml", "an-owner", "another"),
        ("book/setup.md", "git clone https://github.com/an-owner", "git clone https://github.com/another"),
        ("book/setup.md", "cd a-name", "cd another-name"),
        ("tools/setup_cell.py", "print(VERSION)", "print(REPOSITORY)"),
        ("notebooks/01.ipynb", "print(VERSION)", "print(REPOSITORY)"),
        ("notebooks/01.ipynb", "colab.research.google.com/github/an-owner", "colab.research.google.com/github/another"),
    ],
)
def test_whatever_gets_out_of_step_is_put_right(repository: Path, file: str, old: str, new: str) -> None:
    path = repository / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert sync.changes(repository) != {}
    write(sync.changes(repository))
    assert sync.changes(repository) == {}
    cell = nbformat.read(repository / "notebooks/01.ipynb", as_version=4).cells[1].source
    assert cell == (repository / "tools/setup_cell.py").read_text().rstrip("\n")


def test_only_the_setup_cell_of_a_notebook_changes(repository: Path) -> None:
    path = repository / "notebooks/01.ipynb"
    write_notebook(path, "pass", ["setup"])
    before = json.loads(path.read_text())
    write(sync.changes(repository))
    after = json.loads(path.read_text())
    before["cells"][1]["source"] = CELL.rstrip("\n").splitlines(keepends=True)
    assert after == before
    nbformat.write(nbformat.read(path, as_version=4), repository / "again.ipynb")
    assert path.read_text() == (repository / "again.ipynb").read_text()


def test_a_notebook_without_setup_cell_is_refused(repository: Path) -> None:
    write_notebook(repository / "notebooks/02.ipynb", "pass", [])
    with pytest.raises(sync.SyncError, match=r"notebooks/02.ipynb: its first code cell"):
        sync.changes(repository)


@pytest.mark.parametrize("address", ["https://example.org/a/b", "https://github.com/a", "git@github.com:a/b", "a/b"])
def test_an_address_that_is_none_is_refused(repository: Path, address: str) -> None:
    with pytest.raises(sync.SyncError, match="must look like"):
        sync.changes(repository, address)


def test_the_command_only_checks_if_asked_to() -> None:
    before = (ROOT / "pyproject.toml").read_text()
    command = [sys.executable, str(ROOT / "tools/sync.py"), "--check"]
    assert subprocess.run(command, capture_output=True).returncode == 0
    moved = subprocess.run([*command, OLD], capture_output=True, text=True)
    assert moved.returncode == 1
    assert "pyproject.toml is out of step" in moved.stdout
    assert (ROOT / "pyproject.toml").read_text() == before


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A repository with a package, a stored run and what a build left."""
    (tmp_path / "pixelrl/envs").mkdir(parents=True)
    (tmp_path / "pixelrl/envs/cartpole.py").write_text("x = 1\n")
    (tmp_path / "runs/dqn/seed-0").mkdir(parents=True)
    (tmp_path / "runs/dqn/seed-0/SHA256SUMS").write_text("0  curve.csv\n")
    (tmp_path / "constraints.txt").write_text("numpy==2.2.6\n")
    execute.forget_if_changed(tmp_path, tmp_path / "_build")
    for name in (execute.CACHE, execute.PAGES, execute.TRAININGS):
        (tmp_path / "_build" / name).mkdir(exist_ok=True)
        (tmp_path / "_build" / name / "output").write_text("1")
    return tmp_path


def left(book: Path) -> int:
    """How many of the three outputs of the build before are still there."""
    execute.forget_if_changed(book, book / "_build")
    return len(list((book / "_build").glob("*/output")))


def test_outputs_are_kept_while_nothing_changes(book: Path) -> None:
    assert left(book) == 3


@pytest.mark.parametrize("file", ["pixelrl/envs/cartpole.py", "runs/dqn/seed-0/SHA256SUMS", "constraints.txt"])
def test_a_change_throws_the_outputs_away(book: Path, file: str) -> None:
    (book / file).write_text("something else\n")
    assert left(book) == 0


def test_a_new_file_or_another_preset_throws_the_outputs_away(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (book / "pixelrl/new.py").write_text("")
    assert left(book) == 0
    (book / "_build" / execute.CACHE / "output").write_text("1")
    assert left(book) == 1
    monkeypatch.setenv("PIXELRL_PRESET", "full")
    assert left(book) == 0


def chapter(path: Path, source: str) -> Path:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=[new_code_cell(source)], metadata={"kernelspec": kernel}), path)
    return path


def test_a_chapter_runs_once_and_a_failing_one_is_named(tmp_path: Path) -> None:
    count = "from pathlib import Path\nPath('ran').write_text(Path('ran').read_text() + 'x')"
    (tmp_path / "ran").write_text("")
    chapters = [chapter(tmp_path / "good.ipynb", count), chapter(tmp_path / "bad.ipynb", "1 / 0")]
    assert execute.execute(chapters, tmp_path / "cache") == ["bad.ipynb"]
    chapter(tmp_path / "bad.ipynb", "1 / 1")
    assert execute.execute(chapters, tmp_path / "cache") == []
    assert (tmp_path / "ran").read_text() == "x"


def test_pins_keep_a_marker_only_where_versions_differ() -> None:
    resolved = """\
appnope==1.0.0 ; sys_platform == 'darwin'
cuda-toolkit==13.0.3
numpy==2.2.6 ; python_full_version < '3.14'
numpy==2.5.5 ; python_full_version >= '3.14'
nvidia-cublas==13.1.1.3 ; sys_platform == 'linux'
tomli==2.5.0 ; python_full_version <= '3.11'
torch==2.13.0
triton==3.7.1 ; python_full_version < '3.15' and sys_platform == 'linux'
"""
    assert pin.pins(resolved) == [
        "numpy==2.2.6 ; python_full_version < '3.14'",
        "numpy==2.5.5 ; python_full_version >= '3.14'",
        "tomli==2.5.0",
        "torch==2.13.0",
    ]
