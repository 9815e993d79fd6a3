"""The command line: `python -m pixelrl train dqn-cartpole --preset cpu --seed 0`."""

from __future__ import annotations

import argparse
import ast
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro

from pixelrl import presets  # and no more before it is needed: `prepare` runs where OpenCV cannot be imported yet
from pixelrl.configs import MODES, RunConfig, usual_videos


def main(arguments: list[str] | None = None) -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m pixelrl", description="Train the agents of Seeing Ahead.")
    commands = parser.add_subparsers(required=True)
    add_train(commands)
    add_store(commands)
    add_modes(commands)
    add_experiment(commands)
    add_prepare(commands)
    options, rest = parser.parse_known_args(arguments)
    if rest and options.run is not run_train:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        options.run(options, rest)
    except (ValueError, TypeError, ImportError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        goes_on = options.run in (run_train, run_experiment)
        sys.exit("interrupted" + (": the same command goes on from the last checkpoint" if goes_on else ""))


def add_train(commands: argparse._SubParsersAction) -> None:
    """`train`: an agent, or go on with an interrupted training."""
    parser = commands.add_parser(
        "train",
        help="train an agent, or go on where a training was interrupted",
        epilog="Every field of the config is an option too: --seed 3 --steps 20000; --fields lists them. And so is "
        "every argument of the environment: --env-kwargs.size 32 32",
    )
    parser.add_argument("method", choices=presets.METHODS)
    parser.add_argument("--preset", choices=presets.PRESETS, default="default")
    parser.add_argument("--folder", type=Path, help="default: trainings/METHOD/PRESET/seed-SEED")
    parser.add_argument("--tensorboard", action="store_true", help="also write the curve for TensorBoard")
    parser.add_argument("--fields", action="store_true", help="list the fields of the config and stop")
    parser.set_defaults(run=run_train)


def run_train(options: argparse.Namespace, rest: list[str]) -> None:
    """Train with the preset's config, changed by the rest of the command line."""
    from pixelrl import runs
    from pixelrl.train import train

    config = changed(presets.get(options.method, options.preset), ["--help"] if options.fields else rest)
    folder = options.folder or runs.folder_for(config)
    run = train(config, folder, options.tensorboard)
    print(f"{folder}: {run.summary()}, {run.meta['seconds']} s")


def changed(config: RunConfig, words: list[str]) -> RunConfig:
    """A config with what a command line says of its fields, and of the arguments of its environment.

    Another environment takes none of those that this one has.
    """
    others, rest = environment_options(words, config.env_kwargs)
    new = tyro.cli(type(config), default=config, args=rest, prog="fields of the config")
    kwargs = {**new.env_kwargs, **others}
    if new.env != config.env:
        given = {environment_option(word) for word in words}
        kwargs = {name: value for name, value in kwargs.items() if name in given}
    return replace(new, env_kwargs=kwargs)


def environment_option(word: str) -> str | None:
    """The argument of the environment that a word such as `--env-kwargs.max-steps` names; None if it names none."""
    option, _, name = word.partition("=")[0].replace("-", "_").partition(".")
    return name if option == "__env_kwargs" else None


def environment_options(words: list[str], known: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Of a command line, the arguments of the environment besides the known ones, which are fields; and the rest.

    Raises:
        ValueError: one has no value.
    """
    found: dict[str, list[str]] = {}
    rest: list[str] = []
    here = rest
    for word in words:
        name = environment_option(word)
        if name is not None and name not in known:
            here = found.setdefault(name, [])
            here += filter(None, [word.partition("=")[2]])
        else:
            here = rest if word.startswith("--") else here
            here.append(word)
    if empty := [name for name, values in found.items() if not values]:
        raise ValueError(f"--env-kwargs.{empty[0]} needs a value.")
    kwargs = {name: tuple(map(literal, values)) for name, values in found.items()}
    return {name: values if len(values) > 1 else values[0] for name, values in kwargs.items()}, rest


def literal(word: str) -> Any:
    """A number, None, True, ..., or else the word itself."""
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


def add_store(commands: argparse._SubParsersAction) -> None:
    """`store`: put finished trainings among the runs that the book shows."""
    parser = commands.add_parser("store", help="copy finished trainings into runs/")
    parser.add_argument("folders", type=Path, nargs="+")
    parser.set_defaults(run=run_store)


def run_store(options: argparse.Namespace, rest: list[str]) -> None:
    """Copy each folder."""
    from pixelrl import runs

    for folder in options.folders:
        print(runs.store(folder))


def add_modes(commands: argparse._SubParsersAction) -> None:
    """`modes`: play finished trainings in the generalisation modes."""
    parser = commands.add_parser("modes", help="play finished trainings in every generalisation mode")
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--episodes", type=int, default=20, help="a mode")
    parser.add_argument(
        "--videos", default=usual_videos(), help="'procedural', or a folder with video_easy/ and video_hard/"
    )
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.set_defaults(run=run_modes)


def run_modes(options: argparse.Namespace, rest: list[str]) -> None:
    """Play, print the means, and write the returns beside the run."""
    from pixelrl import experiments

    modes = experiments.Modes(tuple(options.modes), options.episodes, options.videos)
    for folder in options.folders:
        table = experiments.play_modes(folder, modes)
        means = table.groupby("mode", sort=False)["return"].mean()
        print(f"{folder}:", ", ".join(f"{mode} {value:.0f}" for mode, value in means.items()))


def add_experiment(commands: argparse._SubParsersAction) -> None:
    """`experiment`: a grid of trainings."""
    parser = commands.add_parser(
        "experiment",
        help="train a grid of methods, seeds and tasks, or go on with one",
        epilog="The same command goes on with whatever is not finished. With RAY_ADDRESS, on that cluster.",
    )
    parser.add_argument("--methods", nargs="+", choices=presets.METHODS, required=True, metavar="METHOD")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=[], help="such as walker-walk; default: the methods' own")
    parser.add_argument("--preset", choices=presets.PRESETS, default="cpu")
    parser.add_argument(
        "--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="trainings at a time, without a GPU"
    )
    parser.add_argument("--per-gpu", type=int, default=1, help="trainings that share a GPU")
    parser.add_argument("--modes", nargs="*", choices=MODES, default=["train", "video_easy", "video_hard"])
    parser.add_argument("--episodes", type=int, default=20, help="a mode")
    parser.add_argument("--videos", default=usual_videos(), help="as of `modes`")
    parser.set_defaults(run=run_experiment)


def run_experiment(options: argparse.Namespace, rest: list[str]) -> None:
    """Train them all, and print a table; the exit status tells whether all are done."""
    from pixelrl import experiments

    configs = experiments.grid(options.methods, options.seeds, options.tasks, options.preset)
    modes = experiments.Modes(tuple(options.modes), options.episodes, options.videos)
    all_done = experiments.run_all(configs, modes, options.workers, options.per_gpu)
    print(experiments.finished(configs, modes))
    if not all_done:
        sys.exit("error: not all trainings are done; the same command goes on with them")


def add_prepare(commands: argparse._SubParsersAction) -> None:
    """`prepare`: install what pip alone cannot."""
    parser = commands.add_parser("prepare", help="install the GL library and what else pip alone cannot")
    parser.set_defaults(run=run_prepare)


def run_prepare(options: argparse.Namespace, rest: list[str]) -> None:
    """Make sure that pictures can be drawn here."""
    from pixelrl import prepare

    prepare.main()


if __name__ == "__main__":
    main()
