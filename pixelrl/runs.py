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
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file

from pixelrl import checkpoint, configs, envs, presets

FILES = ("config.json", "curve.csv", "meta.json", "policy.safetensors")
MODES_FILE = "modes.csv"
PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Run:
    """A finished training."""

    config: configs.RunConfig
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
    configs.save(folder / "config.json", run.config)
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
        config=configs.load(folder / "config.json"),
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


def folder_for(config: configs.RunConfig) -> Path:
    """Where a training keeps its checkpoints and its result: NAME/PRESET/seed-SEED, with `name_of`, in `trainings`."""
    return trainings() / name_of(config) / config.preset / f"seed-{config.seed}"


def name_of(config: configs.RunConfig) -> str:
    """Under what a run is stored: its method, and what it learned in where that is not the method's own."""
    usual = presets.METHODS[config.method]
    words = [config.method]
    if config.env != usual.env:
        words.append(configs.scene(config.env).replace("/", "-"))
    for name in ("task", "game"):
        if config.env_kwargs.get(name, usual.env_kwargs.get(name)) != usual.env_kwargs.get(name):
            words.append(config.env_kwargs[name])
    return "-".join(words)


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
    return [read(path) for path in stored_seeds(name, folder or library())]


def stored_seeds(name: str, folder: Path) -> list[Path]:
    """Where the stored runs of a method lie, in the order of their seeds.

    Raises:
        FileNotFoundError: nothing is stored under that name.
    """
    seeds = [path for path in (folder / name).glob("seed-*") if path.name.removeprefix("seed-").isdigit()]
    if not seeds:
        stored = ", ".join(sorted(path.name for path in folder.glob("*") if path.is_dir())) or "none"
        raise FileNotFoundError(f"no run {name!r} is stored in {folder}; there are: {stored}.")
    return sorted(seeds, key=lambda path: int(path.name.removeprefix("seed-")))


def first(name: str, kind: type[configs.RunConfig]) -> Run:
    """The stored run of a method by whose network others are built: of its lowest seed.

    Raises:
        FileNotFoundError: nothing is stored under that name.
        ValueError: what is stored there is a training of another kind.
        checkpoint.DamagedError: a checksum is wrong.
    """
    return of_kind(read(stored_seeds(name, library())[0]), kind)


def of_kind(run: Run, kind: type[configs.RunConfig]) -> Run:
    """The run, if it is a training of that kind.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(run.config, kind):
        raise ValueError(f"{run.config.method} is a {type(run.config).__name__}; a {kind.__name__} is needed here.")
    return run


def trained(name: str, preset: str, kind: type[configs.RunConfig]) -> Run:
    """A network that others build upon: the first stored run of a method, or else its training of that preset.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: it is a training of another kind.
        checkpoint.DamagedError: a checksum is wrong.
    """
    try:
        return first(name, kind)
    except FileNotFoundError as error:
        folder = folder_for(presets.get(name, preset))
        if not is_finished(folder):
            how = f"python -m pixelrl train {name} --preset {preset}"
            raise FileNotFoundError(f"{error} Nor is it trained in {folder}; this trains it: {how}") from error
        return of_kind(read(folder), kind)


def store(source: Path, folder: Path | None = None) -> Path:
    """Copy a finished training into the stored runs, under its method and seed. Returns where it lies now.

    If the same agent is stored there already, its returns in modes that the training has not are kept.

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
        inherit_modes(target, fresh)
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def inherit_modes(old: Path, new: Path) -> None:
    """Give a run the returns in modes that only the stored one has which it replaces, if that is the same agent."""
    try:
        before, run = read(old), read(new)
    except checkpoint.DamagedError:  # the stored one; a whole one takes its place
        return
    table = by_mode(before.modes) | by_mode(run.modes)
    if table and digest([before]) == digest([run]):
        write_modes(new, pd.concat(table.values(), ignore_index=True))


def check_alike(folder: Path, run: Run) -> None:
    """Refuse to put a run beside one that is stored in a folder, if they differ in more than they may.

    Raises:
        ValueError: that one was trained in another way, or builds on another network.
    """
    changed = configs.differences(configs.load(folder / "config.json"), run.config, configs.NOT_LEARNED_FROM)
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
    words = ["python", "-m", "pixelrl", "train", config.method, "--preset", config.preset, "--seed", str(config.seed)]
    for name, value in vars(config).items():
        usual, option = getattr(preset, name), f"--{name.replace('_', '-')}"
        if isinstance(value, dict):
            for key in value:
                if config.env != preset.env or value[key] != usual.get(key):
                    words += [f"{option}.{key}", *listed(value[key])]
        elif value != usual:
            words += [option, *listed(value)]
    return shlex.join(words)


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
