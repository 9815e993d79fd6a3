"""What pip alone cannot install: `python -m pixelrl prepare`. Where nothing is missing it does nothing.

dm_control needs labmaze, of which Python 3.13 and later have no wheel; there it is installed without its
dependencies, the rest of which pixelrl names itself. And OpenCV and MuJoCo draw with libraries of the system.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys

DM_CONTROL = "dm_control==1.0.50"  # the last one that works with mujoco 3
OPENCV = ("libGL.so.1", "libgthread-2.0.so.0")
MUJOCO = {"egl": ("libEGL.so.1",), "osmesa": ("libOSMesa.so.8", "libOSMesa.so")}  # by `MUJOCO_GL`; one file will do
APT = ("apt-get", "install", "-y", "--no-install-recommends", "libegl1", "libosmesa6", "libgl1", "libglib2.0-0")


class PrepareError(RuntimeError):
    """Something is missing that could not be installed from here; the message says what to type."""


def main() -> None:
    """Install what is missing.

    Raises:
        PrepareError: that is not possible from here.
    """
    prepare_dm_control()
    prepare_libraries()


def run(*command: str) -> None:
    """Run a command to its end; its output is kept for the error.

    Raises:
        PrepareError: it failed.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise PrepareError(f"`{' '.join(command)}` failed:\n{(done.stdout + done.stderr)[-2000:]}")


def prepare_dm_control() -> None:
    """Install dm_control where pip could not, on Python 3.13 and later."""
    if sys.version_info >= (3, 13) and importlib.util.find_spec("dm_control") is None:
        print(f"installing {DM_CONTROL} without its dependencies")
        run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", DM_CONTROL)


def prepare_libraries() -> None:
    """Install the system's drawing libraries, on Linux.

    Raises:
        PrepareError: they are missing, and nobody here may install them; or they are still missing afterwards.
    """
    if not sys.platform.startswith("linux") or not (absent := missing_libraries()):
        return
    command = by_root(APT)
    advice = f"{', '.join(absent)} cannot be loaded. On Debian, Ubuntu and Colab, type:\n    sudo {' '.join(APT)}"
    if command is None:
        raise PrepareError(advice)
    print(f"{', '.join(absent)} cannot be loaded; running {' '.join(command)}")
    try:
        try:
            run(*command)
        except PrepareError:  # often only the list of packages is old, or there is none yet
            run(*command[: command.index("install")], "update")
            run(*command)
    except PrepareError as error:
        raise PrepareError(f"{error}\n{advice}") from error
    if still := missing_libraries():
        raise PrepareError(f"{', '.join(still)} cannot be loaded even now. Restart Python and try once more.")


def missing_libraries() -> list[str]:
    """The libraries that cannot be loaded; for EGL and OSMesa, of which one is enough, one entry."""
    absent = [name for name in OPENCV if not can_load(name)]
    draws = any(can_load(name) for names in MUJOCO.values() for name in names)
    return absent if draws else [*absent, "libEGL or libOSMesa"]


def can_load(name: str) -> bool:
    """Whether the system finds a library and all that it needs itself."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def by_root(command: tuple[str, ...]) -> tuple[str, ...] | None:
    """The command as root would give it: as it is, or through a sudo that asks for no password. None if neither."""
    if shutil.which(command[0]) is None:
        return None
    if os.geteuid() == 0:
        return command
    if shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        return ("sudo", "-n", *command)
    return None
