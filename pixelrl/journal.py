"""How long a training takes, where it is made, and what it builds on: what somebody who repeats it wants to compare."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGE = Path(__file__).parent


class Journal:
    """The same over all interruptions of a training.

    Args:
        built_on: digests of the networks that it takes from finished trainings, by name.
    """

    def __init__(self, built_on: dict[str, str] | None = None) -> None:
        self.built_on = built_on or {}
        self.before, self.started = 0.0, time.perf_counter()
        self.places = [surroundings()]  # taken now: the files may change while it runs

    def resume(self, before: dict[str, Any]) -> None:
        """Go on with what a checkpoint kept of the journal; what this process has done until now counts, too.

        Raises:
            ValueError: a network that is built on is another one than before.
        """
        known = before.get("built_on", {})
        for name in known:
            if self.built_on.get(name, known[name]) != known[name]:
                raise ValueError(
                    f"{name} is not what it was when this training began, which builds on it. Put that one back, or "
                    "begin anew in another folder."
                )
        self.built_on = {**self.built_on, **known}
        self.before += before["seconds"]
        moved = self.places != before["places"][-1:]
        self.places = [*before["places"], *(self.places if moved else [])]

    @property
    def seconds(self) -> float:
        """Wall time until now."""
        return self.before + time.perf_counter() - self.started

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"seconds": self.seconds, "places": self.places, "built_on": self.built_on}

    def meta(self) -> dict[str, Any]:
        """For a finished run: seconds; versions, hardware and commit at its end, and `earlier` ones; `built_on`."""
        *earlier, last = self.places
        told = {"earlier": earlier, "built_on": self.built_on}
        return {"seconds": round(self.seconds, 1), **last, **{name: value for name, value in told.items() if value}}


def surroundings() -> dict[str, Any]:
    """Versions, hardware and commit: what somebody who repeats a run wants to compare."""
    packages = ("pixelrl", "torch", "numpy", "gymnasium")
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "hardware": {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "commit": commit(),
    }


def processor_name() -> str:
    """The processor as the system names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """The commit of the checkout, with `+` where files differ from it; `unknown` outside a checkout."""
    git = ["git", "-C", str(PACKAGE)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], capture_output=True, check=True)
        name = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + ("+" if changed.stdout.strip() else "")
