"""Finished trainings as small folders: what was asked, what came out, and where it was made.

    config.json           every number of the training
    curve.csv             one row an evaluation
    meta.json             returns at the end, seconds, versions, hardware, commit, checksums of networks built on
    policy.safetensors    what acting needs
    modes.csv             one row an episode in a generalisation mode, where these were played
    SHA256SUMS            checksums of these; `sha256sum -c SHA256SUMS` checks them by hand

In a training's own folder, `lock` keeps other processes out while one is at work; it stays behind, and means nothing.

The runs that the book shows lie in the repository's `runs/`, one folder a seed: `runs/dqn-cartpole/seed-0`.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file

from pixelrl import checkpoint, envs, presets

FILES = ("config.json", "curve.csv", "meta.json", "policy.safetensors")
MODES_FILE = "modes.csv"
PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Run:
    """A finished training."""

    config: presets.RunConfig
    curve: pd.DataFrame
    """One row an evaluation: step, seconds, return, ..."""
    meta: dict[str, Any]
    """What `Journal.meta` says; `final_returns` of an agent, `forecast` of a predictor."""
    policy: dict[str, torch.Tensor]
    """The parameters that acting, or predicting, needs."""
    modes: pd.DataFrame | None = None
    """Returns in the generalisation modes, from `evaluate.evaluate_modes`."""

    def summary(self) -> str:
        """What came out, in a line."""
        if "final_returns" not in self.meta:
            last = self.curve.iloc[-1]
            scores = [f"{name} {last[name]:.2f}" for name in self.curve.columns if name not in ("step", "seconds")]
            return ", ".join(scores)
        returns = self.meta["final_returns"]
        return f"mean return {sum(returns) / len(returns):.1f} over {len(returns)} episodes"

    def agent(self, device: str = "cpu") -> Any:
        """The trained agent, ready to act and to be looked at; `device` is as in a config."""
        from pixelrl.agents import build_agent  # not above: some agents are made from stored runs

        env = envs.make(self.config.env, **self.config.env_kwargs)
        agent = build_agent(replace(self.config, device=device), env)
        agent.load_policy(self.policy)
        env.close()
        return agent


def agent_run(training: Any) -> Run:
    """What came of the training of an agent: its config, rows, final returns, seconds, and the agent's policy."""
    return Run(
        config=training.config,
        curve=pd.DataFrame(training.rows),
        meta={"final_returns": training.final_returns.tolist(), **training.journal.meta()},
        policy=kept(training.agent.policy()),
    )


def kept(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies for a run, of which nothing that is trained on changes anything."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def save(folder: Path, run: Run) -> None:
    """Write a finished run; its checksums come last, so that a folder that has them is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODES_FILE).unlink(missing_ok=True)
    presets.save(folder / "config.json", run.config)
    run.curve.to_csv(folder / "curve.csv", index=False)
    (folder / "meta.json").write_text(json.dumps(run.meta, indent=1) + "\n")
    checkpoint.save_tensors(run.policy, folder / "policy.safetensors")
    checkpoint.write_sums(folder, FILES)
    if run.modes is not None:
        write_modes(folder, run.modes)


def read(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        checkpoint.DamagedError: a file is missing or is not what was written.
    """
    checkpoint.check_sums(folder, files(folder))
    return Run(
        config=presets.load(folder / "config.json"),
        curve=read_table(folder / "curve.csv"),
        meta=json.loads((folder / "meta.json").read_text()),
        policy=load_file(folder / "policy.safetensors"),
        modes=read_table(folder / MODES_FILE, keep_default_na=False) if (folder / MODES_FILE).is_file() else None,
    )


def files(folder: Path) -> tuple[str, ...]:
    """The files of a finished run."""
    return (*FILES, MODES_FILE) if (folder / MODES_FILE).is_file() else FILES


def add_modes(folder: Path, table: pd.DataFrame) -> None:
    """Add returns in generalisation modes to a finished run.

    What it holds of the same mode and videos is replaced, unless that is of more episodes.
    """
    run = read(folder)
    old, new = by_mode(run.modes), by_mode(table)
    more = {name: rows for name, rows in new.items() if name not in old or len(rows) >= len(old[name])}
    write_modes(folder, pd.concat([*{**old, **more}.values()], ignore_index=True))


def by_mode(table: pd.DataFrame | None) -> dict[tuple[str, str], pd.DataFrame]:
    """The rows of each mode and its videos."""
    return {} if table is None else dict(iter(table.groupby(["mode", "videos"], sort=False)))


def write_modes(folder: Path, table: pd.DataFrame) -> None:
    """Put a table in the place of what a run has; it is a whole run before, afterwards, and at any moment between."""
    partial = folder / f".{MODES_FILE}"
    table.to_csv(partial, index=False)
    checkpoint.write_sums(folder, files(folder), {MODES_FILE: partial})
    partial.replace(folder / MODES_FILE)
    checkpoint.write_sums(folder, files(folder))


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """Read a table as it was written, to the last digit, which pandas does not do unless it is asked."""
    return pd.read_csv(path, float_precision="round_trip", **options)


def is_finished(folder: Path) -> bool:
    """Whether a training's folder holds a finished run."""
    return (folder / checkpoint.SUMS).is_file()


def trainings() -> Path:
    """Where trainings lie: `PIXELRL_TRAININGS`, or `seeing-ahead` on a mounted Google Drive, or `trainings` here.

    On Colab a training that lies on the Drive outlives the session.
    """
    drive = Path("/content/drive/MyDrive")
    root = drive / "seeing-ahead" if drive.is_dir() else Path("trainings")
    return Path(os.environ.get("PIXELRL_TRAININGS", root))


def folder_for(config: presets.RunConfig) -> Path:
    """Where a training keeps its checkpoints and its result: NAME/PRESET/seed-SEED, with `name_of`, in `trainings`."""
    return trainings() / name_of(config) / config.preset / f"seed-{config.seed}"


def name_of(config: presets.RunConfig) -> str:
    """Under what a run is stored: its method, and its task where that is not the method's own."""
    task = config.env_kwargs.get("task")
    usual = presets.METHODS[config.method].env_kwargs.get("task")
    return config.method if task == usual else f"{config.method}-{task}"


def library() -> Path:
    """Where the stored runs are: `PIXELRL_RUNS`, the checkout's `runs/`, or the copy in the installed package."""
    if "PIXELRL_RUNS" in os.environ:
        return Path(os.environ["PIXELRL_RUNS"])
    checkout = PACKAGE.parent / "runs"
    return checkout if checkout.is_dir() else PACKAGE / "stored_runs"


def load(name: str, folder: Path | None = None) -> list[Run]:
    """The stored runs of a method, one a seed.

    Args:
        name: as under `runs/`: `dqn-cartpole`.
        folder: another place than `library()`.

    Raises:
        FileNotFoundError: nothing is stored under that name.
        checkpoint.DamagedError: a checksum is wrong.
    """
    folder = folder or library()
    seeds = sorted((folder / name).glob("seed-*"), key=lambda path: int(path.name.removeprefix("seed-")))
    if not seeds:
        stored = ", ".join(sorted(path.name for path in folder.glob("*") if path.is_dir())) or "none"
        raise FileNotFoundError(f"no run {name!r} is stored in {folder}; there are: {stored}.")
    return [read(path) for path in seeds]


def trained(name: str, preset: str) -> Run:
    """A network that others build upon: the first stored run of a method, or else its training of that preset.

    Raises:
        FileNotFoundError: there is neither.
    """
    try:
        return load(name)[0]
    except FileNotFoundError as error:
        folder = folder_for(presets.get(name, preset))
        if not is_finished(folder):
            how = f"python -m pixelrl train {name} --preset {preset}"
            raise FileNotFoundError(f"{error} Nor is it trained in {folder}; this trains it: {how}") from error
        return read(folder)


def store(source: Path, folder: Path | None = None) -> Path:
    """Copy a finished training into the stored runs, under its method and seed. Returns where it lies now.

    Raises:
        ValueError: what is stored under that method was trained in another way.
        checkpoint.DamagedError: the training is not whole, or its copy is not.
    """
    run = read(source)
    method = (folder or library()) / name_of(run.config)
    target = method / f"seed-{run.config.seed}"
    fresh, old = target.with_name(f".{target.name}"), target.with_name(f".{target.name}.old")
    if old.is_dir() and not target.is_dir():  # left by a process that was killed, as the others may be
        old.rename(target)
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    for other in sorted(method.glob("seed-*")):
        check_alike(other, run)
    fresh.mkdir(parents=True)
    for name in (*files(source), checkpoint.SUMS):
        shutil.copy2(source / name, fresh / name)
    checkpoint.check_sums(fresh, files(source))
    if target.is_dir():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def check_alike(folder: Path, run: Run) -> None:
    """Refuse to put a run beside one that is stored in a folder, if they differ in more than they may.

    Raises:
        ValueError: that one was trained in another way, or builds on another network.
    """
    changed = presets.differences(presets.load(folder / "config.json"), run.config, presets.NOT_LEARNED_FROM)
    theirs, ours = json.loads((folder / "meta.json").read_text()).get("built_on", {}), run.meta.get("built_on", {})
    others = [f"another {name}" for name in ours if theirs.get(name, ours[name]) != ours[name]]
    if changed or others:
        raise ValueError(
            f"{folder} was trained in another way ({', '.join(filter(None, [changed, *others]))}), and one name is for "
            "one way. Remove what is stored there, or let PIXELRL_RUNS name another place."
        )


def provenance(stored: list[Run]) -> str:
    """One line on where the numbers come from."""
    first = stored[0]
    seeds = ", ".join(str(run.config.seed) for run in stored)
    count = f"{len(stored)} runs, seeds {seeds}" if len(stored) > 1 else f"1 run, seed {seeds}"
    minutes = [max(1, round(run.meta["seconds"] / 60)) for run in stored]
    shortest, longest = min(minutes), max(minutes)
    took = f"{shortest} to {longest} min" if shortest < longest else f"{longest} min"
    places = [place for run in stored for place in (run.meta, *run.meta.get("earlier", []))]
    return (
        f"{count}; {first.config.steps:,} {first.config.unit}; "
        f"{took} a run on {each(machine(place['hardware']) for place in places)}, "
        f"torch {each(place['versions']['torch'] for place in places)}, "
        f"commit {each(short(place['commit']) for place in places)}; made by: {command(first)}"
    )


def each(words: Iterable[str]) -> str:
    """All different ones, in a row."""
    return " and ".join(sorted(set(words)))


def machine(hardware: dict[str, Any]) -> str:
    """The processor, and the GPU beside it."""
    return hardware["processor"] + (f" with {hardware['gpu']}" if hardware.get("gpu") else "")


def short(commit: str) -> str:
    """Seven digits, and `+` where files differed from that commit."""
    return commit[:7] + "+" * commit.endswith("+")


def command(run: Run) -> str:
    """What to type to make the run again, with the fields that differ from its preset."""
    config = run.config
    preset = presets.get(config.method, config.preset, seed=config.seed)
    words = ["python -m pixelrl train", config.method, "--preset", config.preset, "--seed", str(config.seed)]
    for name, value in vars(config).items():
        usual, option = getattr(preset, name), f"--{name.replace('_', '-')}"
        if isinstance(value, dict):
            for key in value:
                if config.env != preset.env or value[key] != usual.get(key):
                    words += [f"{option}.{key}", *listed(value[key])]
        elif value != usual:
            words += [option, *listed(value)]
    return " ".join(words)


def listed(value: Any) -> list[str]:
    """A value as a command line has it: a tuple word by word."""
    return [str(part) for part in (value if isinstance(value, tuple) else (value,))]


def digest(group: list[Run]) -> str:
    """SHA-256 of the parameters of some runs, as hexadecimal digits."""
    total = hashlib.sha256()
    for run in group:
        for name, tensor in sorted(run.policy.items()):
            total.update(name.encode())
            total.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()


class Journal:
    """How long a training takes, where it is made, and what it builds on, over all its interruptions.

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
