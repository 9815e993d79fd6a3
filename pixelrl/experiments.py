"""A grid of trainings, methods × seeds × tasks: on one machine, or through Ray on many.

Every training is a process of its own with a folder of its own, which it locks. So the same command, given again after
whatever happened, skips what is finished, goes on with what was begun, and leaves alone what somebody else trains.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from itertools import product
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from pixelrl import presets, runs, stats
from pixelrl.checkpoint import DamagedError
from pixelrl.configs import (
    BESIDE_THE_POINT,
    LEARNED,
    AgentConfig,
    AheadConfig,
    CDNAConfig,
    RunConfig,
    TrainConfig,
    check_count,
    differences,
    has_modes,
)
from pixelrl.envs.control import parts_of_task
from pixelrl.envs.modes import check_modes
from pixelrl.evaluate import episodes_played, evaluate_modes, videos_shown
from pixelrl.foresight import check_films
from pixelrl.runs import Run
from pixelrl.train import alone_in, train

ATTEMPTS = 3  # at a training whose process is killed


class Modes(NamedTuple):
    """In which generalisation modes finished agents are played."""

    names: tuple[str, ...]
    episodes: int
    videos: str
    """`procedural`, or a folder."""

    def check(self) -> None:
        """Complain of what is not there, now and not when the first agent is trained."""
        check_count("episodes", self.episodes)
        check_modes(self.names, self.videos)

    def columns(self) -> dict[str, tuple[str, str]]:
        """For a `table`: of each mode its name, and its videos as they are kept."""
        return {name: (name, videos_shown(name, self.videos)) for name in self.names}

    def left(self, config: RunConfig, run: Run) -> tuple[str, ...]:
        """Those in which a run was not played as often; none for what does not act in a scene that can be changed."""
        if not changes_scene(config):
            return ()
        return tuple(name for name in self.names if episodes_played(run, name, self.videos) < self.episodes)


def changes_scene(config: RunConfig) -> bool:
    """Whether its agent acts in a scene that the generalisation modes change."""
    return isinstance(config, TrainConfig) and has_modes(config.env)


def grid(methods: Iterable[str], seeds: Iterable[int], tasks: Iterable[str], preset: str) -> list[RunConfig]:
    """The config of every training, all methods of a seed before the next seed.

    Args:
        methods: of `presets.METHODS`.
        seeds: one or more.
        tasks: of the suite, such as `walker-walk`; none for the task that each method has by itself.
        preset: one of `presets.PRESETS`.

    Raises:
        ValueError: there is no such task in the suite, or tasks are named, and a method is none of a task.
    """
    tasks = list(tasks)
    for task in tasks:
        parts_of_task(task)
    configs = []
    for seed, task, method in product(*map(dict.fromkeys, (seeds, tasks or [None], methods))):
        config = presets.get(method, preset, seed=seed)
        if task is not None:
            if "task" not in config.env_kwargs:
                raise ValueError(f"{method} has no task that could be {task}.")
            config = replace(config, env_kwargs={**config.env_kwargs, "task": task})
        configs.append(config)
    return configs


def work(config: RunConfig, modes: Modes) -> None:
    """One training, from wherever it stands to its end, and episodes in those modes that it was not yet played in."""
    folder = runs.folder_for(config)
    left = modes.left(config, train(config, folder))
    if left:
        play_modes(folder, modes._replace(names=left))


def play_modes(folder: Path, modes: Modes) -> pd.DataFrame:
    """Play a finished agent in all these modes and store the returns beside it. Returns one row an episode.

    Raises:
        DamagedError: no finished training is there, or a file of it was changed.
        ValueError: no mode changes the scene of this agent, there is no such mode, or no episode is to be played.
        RuntimeError: another process works in the folder.
    """
    run = runs.read(folder)
    if not changes_scene(run.config):
        raise ValueError(f"{folder}: the scene of {run.config.method} is one that no mode changes.")
    modes.check()
    with alone_in(folder):
        table = evaluate_modes(run.agent("auto"), run.config, modes.episodes, modes.videos, modes.names)
        runs.add_modes(folder, table)
    return table


def work_and_tell(config: RunConfig, modes: Modes, gpu: str, to: Connection) -> None:
    """The same in a process of its own, which sends what went wrong, or nothing.

    Args:
        config: what to train.
        modes: see `Modes`.
        gpu: number of the GPU that is seen, or nothing.
        to: where the message goes.
    """
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        work(config, modes)
    except KeyboardInterrupt:
        to.send("interrupted")
    except Exception as error:  # whatever it is, the others go on, and somebody is told
        to.send(f"{type(error).__name__}: {error}")
    else:
        to.send("")


class Crew:
    """Processes that train, so many at a time; one that is killed is replaced.

    Args:
        modes: see `Modes`.
        gpus: for each place in the crew the number of its GPU, or nothing.
    """

    def __init__(self, modes: Modes, gpus: list[str]) -> None:
        self.modes, self.stopping = modes, threading.Event()
        self.places: queue.SimpleQueue[str] = queue.SimpleQueue()
        for gpu in gpus:
            self.places.put(gpu)
        self.processes: set[BaseProcess] = set()
        self.starting = threading.Lock()  # so that none is started behind the back of `stop`

    def train(self, config: RunConfig) -> str:
        """One training, in a place that is free. Returns what went wrong, or nothing."""
        gpu = self.places.get()
        try:
            for _ in range(ATTEMPTS):
                problem = self.try_once(config, gpu)
                if problem is not None:
                    return problem
                if self.stopping.is_set():
                    return "stopped"
            return f"its process was killed {ATTEMPTS} times"
        finally:
            self.places.put(gpu)

    def try_once(self, config: RunConfig, gpu: str) -> str | None:
        """Train in a fresh process. Returns what it says in the end; None if it died without a word."""
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe(duplex=False)
        process = spawn.Process(target=work_and_tell, args=(config, self.modes, gpu, theirs))
        with self.starting:
            if self.stopping.is_set():
                return "stopped"
            process.start()
            self.processes.add(process)
        theirs.close()
        try:
            return ours.recv()
        except EOFError:
            return None
        finally:
            process.join()
            self.processes.discard(process)

    def stop(self) -> None:
        """End all that runs; checkpoints are whole, and nothing is tried again."""
        with self.starting:
            self.stopping.set()
            for process in list(self.processes):
                process.terminate()


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


def run_here(configs: list[RunConfig], modes: Modes, gpus: list[str], progress: Progress) -> None:
    """On this machine, with a place for each entry of `gpus`; see `Crew`."""
    crew = Crew(modes, gpus)
    with ThreadPoolExecutor(len(gpus)) as pool:
        running = {pool.submit(crew.train, config): config for config in configs}
        try:
            for done in as_completed(running):
                progress.report(running[done], done.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            crew.stop()
            raise


def run_on_cluster(configs: list[RunConfig], modes: Modes, per_gpu: int, progress: Progress) -> None:
    """On the machines of the Ray cluster that `RAY_ADDRESS` names, which share the folder of trainings.

    Args:
        configs: what to train.
        modes: see `Modes`.
        per_gpu: trainings that share a GPU; without GPUs, each takes a core.
        progress: is told when they end.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("RAY_ADDRESS is set, and Ray is not installed: pip install ray") from error
    passed = {name: value for name, value in os.environ.items() if name.startswith(("PIXELRL_", "MUJOCO_"))}
    passed["PIXELRL_TRAININGS"] = str(runs.trainings().absolute())  # the machines work in folders of their own
    passed["PIXELRL_RUNS"] = str(runs.library().absolute())
    modes = modes._replace(videos=modes.videos if modes.videos == "procedural" else str(Path(modes.videos).absolute()))
    ray.init(runtime_env={"env_vars": passed})
    try:
        gpu = 1 / per_gpu if ray.cluster_resources().get("GPU") else 0
        remote = ray.remote(num_cpus=1, num_gpus=gpu, max_retries=ATTEMPTS - 1, max_calls=1)(work)
        pending = {remote.remote(config, modes): config for config in configs}
        while pending:
            (done,), _ = ray.wait(list(pending))
            try:
                ray.get(done)
                problem = ""
            except ray.exceptions.RayError as error:
                problem = str(error).strip().splitlines()[-1]
            progress.report(pending.pop(done), problem)
    finally:
        ray.shutdown()


def run_all(configs: list[RunConfig], modes: Modes, workers: int = 1, per_gpu: int = 1) -> bool:
    """Train what is not finished, on the cluster if `RAY_ADDRESS` is set. Returns whether all went well.

    Predictors that agents ask for, and that are nowhere, are trained before.

    Args:
        configs: what to train.
        modes: see `Modes`.
        workers: trainings at a time on a machine without a GPU.
        per_gpu: trainings that share a GPU.

    Raises:
        ValueError: a number below 1, no mode of that name, or a predictor that was not trained on what an agent sees.
        FileNotFoundError: there are no videos where the modes are to find them.
    """
    check_count("workers", workers)
    check_count("per_gpu", per_gpu)
    left = [config for config in configs if not done_with(config, modes)]
    if left:
        modes.check()
    gpus = visible_gpus() * per_gpu or [""] * workers
    first = missing_predictors(left)
    cluster = bool(os.environ.get("RAY_ADDRESS"))
    time_left = "" if cluster else needed(left, len(gpus))
    print(f"{len(configs)} trainings, {len(configs) - len(left)} of them finished before{time_left}")
    then = [config for config in left if config not in first]
    progress = Progress(len(first) + len(then))
    for stage in filter(None, (first, then)):
        if cluster:
            run_on_cluster(stage, modes, per_gpu, progress)
        else:
            run_here(stage, modes, gpus, progress)
    return not progress.problems


def visible_gpus() -> list[str]:
    """By the names with which a process is shown one alone; `CUDA_VISIBLE_DEVICES` may allow some of them only."""
    count, allowed = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return allowed.split(",")[:count] if allowed else [str(gpu) for gpu in range(count)]


def missing_predictors(configs: list[RunConfig]) -> list[RunConfig]:
    """The video predictors that agents ask for, and that are neither stored nor trained; a damaged one is there.

    Raises:
        ValueError: one would be of no use to the agent that asks for it.
    """
    asked = [config for config in configs if isinstance(config, AheadConfig) and config.predictor in LEARNED]
    missing = []
    for name, preset in sorted({(config.model, config.preset) for config in asked}):
        try:
            films = runs.trained(name, preset, CDNAConfig).config
        except FileNotFoundError:
            films = presets.get(name, preset)
            missing.append(films)
        except DamagedError:
            continue  # its agents will say so, and the others are trained
        for config in asked:
            if (config.model, config.preset) == (name, preset):
                check_films(config, films)
    return missing


def done_with(config: RunConfig, modes: Modes) -> Run | None:
    """The run of a training, this one, that is finished and played in all modes; None if not, or if it is damaged."""
    folder = runs.folder_for(config)
    if not runs.is_finished(folder):
        return None
    try:
        run = runs.read(folder)
    except DamagedError:
        return None
    another = differences(run.config, config, BESIDE_THE_POINT)
    return None if another or modes.left(config, run) else run


def needed(configs: list[RunConfig], workers: int) -> str:
    """How long trainings will take, from those stored of the same method and size; nothing if none is known."""
    known = {key: seconds_before(*key) for key in {(config.method, config.preset) for config in configs}}
    seconds = [known[config.method, config.preset] for config in configs]
    told = [x for x in seconds if x is not None]
    if not told:
        return ""
    hours = sum(told) / len(told) * len(configs) / workers / 3600
    return f"; the others take about {hours:.1f} h, {workers} at a time, to judge by stored runs of {len(told)} of them"


def seconds_before(method: str, preset: str) -> float | None:
    """What a stored run of a method and preset took, on average; None where there is none."""
    try:
        stored = [run for run in runs.load(method) if run.config.preset == preset]
    except (FileNotFoundError, DamagedError):
        return None
    return sum(run.meta["seconds"] for run in stored) / len(stored) if stored else None


def finished(configs: list[RunConfig], modes: Modes) -> str:
    """What came of a grid so far, as a `table`: of the agents that are trained, and were played in all modes."""
    groups: dict[str, list[Run]] = {}
    for config in configs:
        if isinstance(config, AgentConfig) and (run := done_with(config, modes)):
            groups.setdefault(runs.name_of(config), []).append(run)
    return table(groups, modes.columns()).to_string(index=False) if groups else ""


def table(groups: dict[str, list[Run]], columns: dict[str, tuple[str, str]]) -> pd.DataFrame:
    """One row a method: seeds, hours a run, and in each mode the interquartile mean of the return with its interval.

    A single run has no interval, and what acts in a scene that no mode changes has no modes but `train`, the final
    episodes.

    Args:
        groups: runs by the name of their method.
        columns: mode and videos by name, see `stats.mode_means`.
    """
    rows = []
    for name, group in groups.items():
        hours = sum(run.meta["seconds"] for run in group) / len(group) / 3600
        row = {"method": name, "seeds": len(group), "hours": f"{hours:.1f}"}
        means = {"train": stats.final_means(group)}
        if changes_scene(group[0].config):
            means |= {column: stats.mode_means(group, *mode) for column, mode in columns.items()}
        for column, values in means.items():
            row[column] = str(stats.estimate(values, stats.iqm))
        rows.append(row)
    return pd.DataFrame(rows).fillna("")
