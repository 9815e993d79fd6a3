"""A grid of trainings, methods × seeds × tasks: on one machine, or through Ray on many.

Every training is a process of its own with a folder of its own, which it locks. So the same command, given again after
whatever happened, skips what is finished, goes on with what was begun, and leaves alone what somebody else trains.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import pandas as pd

from pixelrl import presets, runs, stats
from pixelrl.evaluate import evaluate_modes, was_played
from pixelrl.presets import RunConfig
from pixelrl.runs import Run
from pixelrl.train import train

ATTEMPTS = 3  # at a training whose process is killed


class Modes(NamedTuple):
    """In which generalisation modes finished agents are played."""

    names: tuple[str, ...]
    episodes: int
    videos: str
    """`procedural`, or a folder."""


def grid(methods: Iterable[str], seeds: Iterable[int], tasks: Iterable[str], preset: str) -> list[RunConfig]:
    """The config of every training, all methods of a seed before the next seed.

    Args:
        methods: of `presets.METHODS`.
        seeds: one or more.
        tasks: of the suite, such as `walker-walk`; none for the task that each method has by itself.
        preset: one of `presets.PRESETS`.
    """
    configs = []
    for seed, task, method in product(seeds, list(tasks) or [None], methods):
        config = presets.get(method, preset, seed=seed)
        kwargs = config.env_kwargs if task is None else {**config.env_kwargs, "task": task}
        configs.append(replace(config, env_kwargs=kwargs))
    return configs


def work(config: RunConfig, modes: Modes) -> None:
    """One training, from wherever it stands to its end, and episodes in those modes that it was not yet played in."""
    folder = runs.folder_for(config)
    run = train(config, folder)
    left = [name for name in modes.names if not was_played(run, name, modes.videos)]
    if left:
        runs.add_modes(folder, evaluate_modes(run.agent(), config, modes.episodes, modes.videos, tuple(left)))


def work_or_exit(config: RunConfig, modes: Modes) -> None:
    """The same in a process of its own: what is wrong is said in a line."""
    try:
        work(config, modes)
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        sys.exit(f"{runs.folder_for(config)}: {error}")


def in_a_process(config: RunConfig, modes: Modes) -> str:
    """Train in a fresh process, and again if that is killed. Returns what went wrong, or nothing."""
    for _ in range(ATTEMPTS):
        process = multiprocessing.get_context("spawn").Process(target=work_or_exit, args=(config, modes))
        process.start()
        process.join()
        if process.exitcode >= 0:
            break
    return f"exit status {process.exitcode}" if process.exitcode else ""


class Progress:
    """Says how far a grid is, whenever a training ends.

    Args:
        total: trainings that are left.
    """

    def __init__(self, total: int) -> None:
        self.total, self.ended, self.started = total, 0, time.perf_counter()
        self.problems: list[str] = []

    def report(self, config: RunConfig, problem: str) -> None:
        """A training has ended, well if there is no problem."""
        self.ended += 1
        self.problems += [problem] if problem else []
        hours = (time.perf_counter() - self.started) / 3600
        more = hours / self.ended * (self.total - self.ended)
        state = f"{problem or 'done'}; {hours:.1f} h so far, about {more:.1f} h left"
        print(f"{runs.folder_for(config)}: {state}", flush=True)


def run_here(configs: list[RunConfig], modes: Modes, workers: int, progress: Progress) -> None:
    """So many trainings side by side, on this machine."""
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(in_a_process, config, modes): config for config in configs}
        try:
            for done in as_completed(running):
                progress.report(running[done], done.result())
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_on_cluster(configs: list[RunConfig], modes: Modes, per_gpu: int, progress: Progress) -> None:
    """On the machines of the Ray cluster that `RAY_ADDRESS` names, which share the folder of trainings.

    Args:
        configs: what to train.
        modes: see `Modes`.
        per_gpu: trainings that share a GPU; without GPUs, each takes a core.
        progress: is told when they end.
    """
    import ray

    own = {name: value for name, value in os.environ.items() if name.startswith("PIXELRL_")}
    ray.init(runtime_env={"env_vars": own})
    gpu = 1 / per_gpu if ray.cluster_resources().get("GPU") else 0
    remote = ray.remote(num_cpus=1, num_gpus=gpu, max_retries=ATTEMPTS - 1)(work)
    pending = {remote.remote(config, modes): config for config in configs}
    while pending:
        (done,), _ = ray.wait(list(pending))
        try:
            ray.get(done)
            problem = ""
        except ray.exceptions.RayError as error:
            problem = str(error).strip().splitlines()[-1]
        progress.report(pending.pop(done), problem)
    ray.shutdown()


def run_all(configs: list[RunConfig], modes: Modes, workers: int, per_gpu: int) -> bool:
    """Train what is not finished, on the cluster if `RAY_ADDRESS` is set. Returns whether all went well."""
    left = [config for config in configs if not done_with(config, modes)]
    print(f"{len(configs)} trainings, {len(configs) - len(left)} of them finished before; {forecast(left, workers)}")
    progress = Progress(len(left))
    if os.environ.get("RAY_ADDRESS"):
        run_on_cluster(left, modes, per_gpu, progress)
    else:
        run_here(left, modes, workers, progress)
    return not progress.problems


def done_with(config: RunConfig, modes: Modes) -> bool:
    """Whether a training is finished and played in all modes."""
    folder = runs.folder_for(config)
    if not runs.is_finished(folder):
        return False
    run = runs.read(folder)
    return all(was_played(run, name, modes.videos) for name in modes.names)


def forecast(configs: list[RunConfig], workers: int) -> str:
    """How long trainings will take, from those stored of the same method and size."""
    known = [seconds for config in configs if (seconds := seconds_before(config)) is not None]
    if not known:
        return "nothing is known of how long they take."
    hours = sum(known) / len(known) * len(configs) / workers / 3600
    return f"the others take about {hours:.1f} h on {workers} workers, by {len(known)} of which such runs are stored."


def seconds_before(config: RunConfig) -> float | None:
    """What a stored run of the same method and preset took, on average; None where there is none."""
    try:
        stored = [run for run in runs.load(config.method) if run.config.preset == config.preset]
    except FileNotFoundError:
        return None
    return sum(run.meta["seconds"] for run in stored) / len(stored) if stored else None


def table(groups: dict[str, list[Run]], columns: dict[str, tuple[str, str]]) -> pd.DataFrame:
    """One row a method: seeds, hours a run, and in each mode the interquartile mean of the return with its interval.

    Args:
        groups: runs by the name of their method.
        columns: mode and videos by name, see `stats.mode_means`.
    """
    rows = []
    for name, group in groups.items():
        hours = sum(run.meta["seconds"] for run in group) / len(group) / 3600
        row = {"method": name, "seeds": len(group), "hours": f"{hours:.1f}"}
        row["train"] = str(stats.estimate(stats.final_means(group), stats.iqm))
        for column, (mode, videos) in columns.items():
            row[column] = str(stats.estimate(stats.mode_means(group, mode, videos), stats.iqm))
        rows.append(row)
    return pd.DataFrame(rows)
