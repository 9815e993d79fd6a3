"""What pip alone cannot install."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pixelrl import prepare
from pixelrl.prepare import APT, PrepareError

UPDATE = ("apt-get", "update")


class Machine:
    """A machine on which some libraries are missing until apt-get has installed them.

    Args:
        missing: these.
        has_list: whether apt-get knows any package before `apt-get update`.
        works: whether anything can be installed.
    """

    def __init__(self, missing: list[str], has_list: bool = True, works: bool = True) -> None:
        self.absent, self.has_list, self.works = missing, has_list, works
        self.commands: list[tuple[str, ...]] = []

    def run(self, *command: str) -> None:
        self.commands.append(command)
        self.has_list |= command[-1] == "update"
        if not self.works or not self.has_list:
            raise PrepareError("Unable to locate package libegl1")
        if "install" in command:
            self.absent = []

    def missing(self) -> list[str]:
        return self.absent


@pytest.fixture
def machine_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    """Makes a machine, see `Machine`, on which everything then happens."""

    def make(*args: Any, **kwargs: Any) -> Machine:
        machine = Machine(*args, **kwargs)
        monkeypatch.setattr(prepare, "run", machine.run)
        monkeypatch.setattr(prepare, "missing_libraries", machine.missing)
        return machine

    return make


@pytest.fixture(autouse=True)
def linux_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(prepare, "by_root", lambda command: command)


def test_where_nothing_is_missing_nothing_happens(machine_with: Callable[..., Machine]) -> None:
    machine = machine_with([])
    prepare.prepare_libraries()
    assert machine.commands == []


def test_missing_libraries_are_installed(machine_with: Callable[..., Machine]) -> None:
    machine = machine_with(["libGL.so.1"])
    prepare.prepare_libraries()
    assert machine.commands == [APT]
    assert {"libegl1", "libosmesa6", "libgl1"} < set(APT)


def test_the_list_of_packages_is_fetched_where_there_is_none(machine_with: Callable[..., Machine]) -> None:
    machine = machine_with(["libGL.so.1"], has_list=False)
    prepare.prepare_libraries()
    assert machine.commands == [APT, UPDATE, APT]


def test_through_sudo_the_list_is_fetched_through_sudo_too(
    machine_with: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "by_root", lambda command: ("sudo", "-n", *command))
    machine = machine_with(["libGL.so.1"], has_list=False)
    prepare.prepare_libraries()
    assert machine.commands[1] == ("sudo", "-n", *UPDATE)


def test_a_failure_names_the_command_to_type(machine_with: Callable[..., Machine]) -> None:
    machine_with(["libGL.so.1"], works=False)
    with pytest.raises(PrepareError, match="sudo apt-get install -y .*libgl1"):
        prepare.prepare_libraries()


def test_who_may_not_install_is_told_the_command(
    machine_with: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "by_root", lambda command: None)
    machine = machine_with(["libGL.so.1"])
    with pytest.raises(PrepareError, match=r"(?s)libGL.so.1 cannot be loaded.*sudo apt-get install"):
        prepare.prepare_libraries()
    assert machine.commands == []


def test_an_installation_that_does_not_help_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "run", lambda *command: None)
    monkeypatch.setattr(prepare, "missing_libraries", lambda: ["libGL.so.1"])
    with pytest.raises(PrepareError, match=r"libGL.so.1 .* even now"):
        prepare.prepare_libraries()


def test_other_systems_are_left_alone(machine_with: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    machine = machine_with(["libGL.so.1"])
    prepare.prepare_libraries()
    assert machine.commands == []


@pytest.mark.parametrize(
    ("present", "absent"),
    [
        ({"libGL.so.1", "libgthread-2.0.so.0", "libEGL.so.1"}, []),
        ({"libGL.so.1", "libgthread-2.0.so.0", "libOSMesa.so.8"}, []),
        ({"libGL.so.1", "libgthread-2.0.so.0"}, ["libEGL or libOSMesa"]),
        ({"libEGL.so.1"}, ["libGL.so.1", "libgthread-2.0.so.0"]),
    ],
)
def test_which_libraries_are_missing(present: set[str], absent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "can_load", present.__contains__)
    assert prepare.missing_libraries() == absent


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of libraries are the system's")
def test_can_load() -> None:
    assert prepare.can_load("libc.so.6")
    assert not prepare.can_load("libnothing-of-that-name.so.1")


@pytest.mark.parametrize(
    ("version", "found", "installs"), [((3, 13), False, True), ((3, 13), True, False), ((3, 12), False, False)]
)
def test_dm_control_is_installed_where_pip_could_not(
    machine_with: Callable[..., Machine],
    monkeypatch: pytest.MonkeyPatch,
    version: tuple[int, int],
    found: bool,
    installs: bool,
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if found else None)
    machine = machine_with([])
    prepare.prepare_dm_control()
    expected = [(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "dm_control==1.0.50")]
    assert machine.commands == (expected if installs else [])


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(PrepareError, match=r"(?s)raise SystemExit.*` failed:\nno such package"):
        prepare.run(sys.executable, "-c", "raise SystemExit('no such package')")
    prepare.run(sys.executable, "-c", "")


@pytest.mark.parametrize(
    ("user", "programs", "sudo_works", "expected"),
    [
        (0, {"apt-get"}, False, ("apt-get", "update")),
        (1000, {"apt-get", "sudo"}, True, ("sudo", "-n", "apt-get", "update")),
        (1000, {"apt-get", "sudo"}, False, None),
        (1000, {"apt-get"}, False, None),
        (0, set(), False, None),
    ],
)
def test_by_root(
    monkeypatch: pytest.MonkeyPatch,
    user: int,
    programs: set[str],
    sudo_works: bool,
    expected: tuple[str, ...] | None,
) -> None:
    monkeypatch.undo()  # the fixture's replacement of the function that is tested here
    monkeypatch.setattr("os.geteuid", lambda: user)
    monkeypatch.setattr("shutil.which", lambda name: name if name in programs else None)
    asked: Callable = lambda command, **_: subprocess.CompletedProcess(command, 0 if sudo_works else 1)  # noqa: E731
    monkeypatch.setattr(subprocess, "run", asked)
    assert prepare.by_root(UPDATE) == expected


def test_the_command_runs_where_nothing_can_be_drawn_yet() -> None:
    """It is what installs the library without which OpenCV cannot be imported."""
    broken = "import sys; sys.modules.update(cv2=None, mujoco=None, dm_control=None)"
    code = f"{broken}; from pixelrl import prepare, __main__; prepare.main = lambda: print('asked'); __main__.main()"
    done = subprocess.run([sys.executable, "-c", code, "prepare"], capture_output=True, text=True)
    assert done.stdout == "asked\n", done.stderr
