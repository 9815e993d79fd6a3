"""The set-up cell, run as a notebook would run it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import torch

import pixelrl

ROOT = Path(__file__).resolve().parent.parent
SOURCE = (ROOT / "tools" / "setup_cell.py").read_text()
CELL = compile(SOURCE, "set-up cell", "exec")


class Commands(list):
    """Takes the place of `subprocess.run`, and notes what it is asked; `fails` names a word of a command that fails."""

    fails = ""

    def __call__(self, command: list[str], **options: object) -> subprocess.CompletedProcess:
        assert not options.get("shell")
        self.append(command)
        failed = bool(self.fails) and self.fails in command
        return subprocess.CompletedProcess(command, int(failed), "", "what pip said" if failed else "")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.delenv("PIXELRL_SOURCE", raising=False)
    monkeypatch.setitem(sys.modules, "pixelrl", pixelrl)  # put back afterwards: the cell removes an old version
    commands = Commands()
    monkeypatch.setattr(subprocess, "run", commands)
    return commands


@pytest.fixture
def old_version(commands: Commands) -> Commands:
    """A notebook that has imported the version before."""
    sys.modules["pixelrl"] = ModuleType("pixelrl")
    sys.modules["pixelrl"].__version__ = "0.0.1"
    return commands


def test_it_is_short_enough_to_be_read() -> None:
    assert len(SOURCE.splitlines()) <= 30


def test_it_does_nothing_where_the_package_is_here(
    commands: Commands, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIXELRL_PRESET", "quick")
    exec(CELL, {})
    assert commands == []
    said = capsys.readouterr().out
    assert f"pixelrl {pixelrl.__version__}, torch {torch.__version__} on " in said
    assert "preset quick" in said


def test_it_installs_its_own_version_and_keeps_what_is_here(old_version: Commands) -> None:
    notebook: dict = {}
    exec(CELL, notebook)
    install, prepare = old_version
    assert install[:4] == [sys.executable, "-m", "pip", "install"]
    assert f"git+{notebook['REPOSITORY']}@v{pixelrl.__version__}" in install
    assert {f"torch=={version('torch')}", f"numpy=={version('numpy')}"} < set(install)
    assert prepare == [sys.executable, "-m", "pixelrl", "prepare"]
    assert notebook["pixelrl"].__version__ == pixelrl.__version__  # the new one, not the one that was loaded


def test_it_installs_where_there_is_no_package_at_all(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixelrl", None)  # so that importing it fails
    exec(CELL, {})
    assert [command[2] for command in commands] == ["pip", "pixelrl"]


def test_the_source_can_be_named(old_version: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELRL_SOURCE", "/a folder/with spaces")
    exec(CELL, {})
    assert "/a folder/with spaces" in old_version[0]


@pytest.mark.parametrize("fails", ["pip", "prepare"])
def test_a_failure_is_shown(old_version: Commands, fails: str) -> None:
    old_version.fails = fails
    with pytest.raises(RuntimeError, match=f"(?s){fails}.* failed:\n.*what pip said"):
        exec(CELL, {})


def test_pip_would_replace_nothing_that_is_here(old_version: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    exec(CELL, {})
    monkeypatch.undo()
    kept = [word for word in old_version[0] if "==" in word]
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", *kept]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Would install" not in done.stdout
