"""One training loop for every agent of the book, which can be interrupted at any time.

The loop knows four things of an agent: `act`, `update`, `state_dict`, `load_state_dict`; around it, an agent tells its
`device`, and with `policy` what a finished run keeps. A training resumes bit for bit because every source of randomness
is either in the checkpoint or derived from the seed: episode k always starts from the k-th seed, and a checkpoint is
written between two episodes, so that the environment itself never has to be saved.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import gymnasium as gym
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from pixelrl import checkpoint, configs, envs, runs
from pixelrl.agents import build_agent
from pixelrl.configs import (
    LEARNED,
    ActorCriticConfig,
    AheadConfig,
    CDNAConfig,
    DynamicsConfig,
    I2AConfig,
    RunConfig,
    TrainConfig,
)
from pixelrl.cuda import RecordedUpdate, chosen_device, random_states, set_random_states
from pixelrl.dynamics import ModelTraining
from pixelrl.envs.modes import check_modes
from pixelrl.evaluate import CURVE_SEED, FINAL_SEED, evaluate, evaluate_modes
from pixelrl.footage import FILMED
from pixelrl.journal import Journal
from pixelrl.parallel import ParallelTraining
from pixelrl.predictor import PredictorTraining
from pixelrl.prioritised import PrioritisedSampler
from pixelrl.replay import Replay, UniformSampler

SAMPLERS = {"uniform": UniformSampler, "prioritised": PrioritisedSampler}
SHOWN = ("return", "train_return", "loss", "q", "psnr_1", "moving_psnr_1")  # beside the progress bar


class Step(NamedTuple):
    """What one agent step brought."""

    metrics: dict[str, torch.Tensor]
    """Of the update, empty where there was none."""
    episode_return: float | None
    """Return of the episode, where this step ended it."""


def interact(env: gym.Env, agent: Any, replay: Replay, config: TrainConfig, episode: int, step: int) -> Iterator[Step]:
    """Act, remember, learn: one agent step after another, for ever.

    Args:
        env: to act in.
        agent: that acts and learns.
        replay: that remembers.
        config: when to learn, and from how much.
        episode: number of the episode to begin with, from which its seed follows.
        step: agent steps taken before.
    """
    while True:
        obs, _ = env.reset(seed=episode_seed(config.seed, episode))
        replay.start(obs)
        total, done = 0.0, False
        while not done:
            action = agent.act(obs[None], explore=True)[0]
            obs, reward, terminated, truncated, _ = env.step(action)
            replay.add(action, reward, terminated, obs)
            step, total, done = step + 1, total + float(reward), terminated or truncated
            metrics = {}
            if step >= config.learning_starts and step % config.update_every == 0:
                batch = replay.sample(config.batch_size)
                metrics = agent.update(batch)
                replay.sampler.feedback(batch.slots, metrics["td_error"])
            yield Step(metrics, total if done else None)
        episode += 1


def episode_seed(seed: int, episode: int) -> int:
    """The seed of a training episode, the same whenever the training is run."""
    return int(np.random.SeedSequence([seed, episode]).generate_state(1)[0])


def asks_simulator(config: TrainConfig) -> bool:
    """Whether an update steps a simulator, which no recording holds, and needs to know its state."""
    return isinstance(config, AheadConfig) and config.predictor == "oracle"


def build_replay(config: TrainConfig, env: gym.Env, device: torch.device | str = "cpu") -> Replay:
    """The buffer that a config asks for, for the spaces of an environment, with its frames on a device."""
    sampler = SAMPLERS[config.replay](config.replay_size, np.random.default_rng([config.seed, 2]))
    stack = env.get_wrapper_attr("stack_size") if env.has_wrapper_attr("stack_size") else 1
    spaces = env.observation_space, env.action_space
    ahead: dict[str, Any] = {}
    if isinstance(config, AheadConfig):
        ahead["context"] = config.context
        ahead["peek"] = env.get_wrapper_attr("physics") if asks_simulator(config) else None
    sizes = stack, config.n_step, config.gamma
    return Replay(
        config.replay_size, *spaces, sampler, *sizes, device=device, reward_scale=config.reward_scale, **ahead
    )


class Training:
    """A training in progress: all that a checkpoint holds.

    Args:
        config: from `presets.get`.
    """

    def __init__(self, config: TrainConfig) -> None:
        torch.set_num_threads(config.threads)
        check_modes(config.eval_modes, "procedural")
        self.config = config
        self.env = self.make_env()
        self.agent = build_agent(config, self.env)
        if isinstance(config, AheadConfig):
            self.agent.predictor  # noqa: B018 - if it asks for a network that is nowhere, it says so now
        self.replay = build_replay(config, self.env, self.agent.device)
        if self.agent.device.type == "cuda" and not asks_simulator(config):
            self.agent.update = RecordedUpdate(self.agent.update, self.agent.device)
        self.step = self.episode = 0
        self.ready = True  # for a checkpoint: between two episodes
        self.rows: list[dict[str, float]] = []
        self.returns: list[float] = []  # of the training episodes since the last row
        self.sums: dict[str, torch.Tensor] = {}  # of the metrics of the updates since the last row
        self.updates = 0  # since the last row
        self.final_returns: np.ndarray | None = None
        self.loop: Iterator[Step] | None = None  # begun with the first step, after a checkpoint is loaded
        self.journal = Journal()

    @property
    def finished(self) -> bool:
        """Whether all steps are taken, or the task is solved and that was all that was asked."""
        solved_at = self.config.solved_at
        solved = solved_at is not None and self.final_returns is not None and self.final_returns.mean() >= solved_at
        return self.step >= self.config.steps or solved

    def make_env(self) -> gym.Env:
        """A fresh environment, for training or evaluation."""
        return envs.make(self.config.env, **self.config.env_kwargs)

    def advance(self) -> None:
        """One agent step, and what is learned from it."""
        if self.loop is None:
            self.loop = interact(self.env, self.agent, self.replay, self.config, self.episode, self.step)
        self.count(next(self.loop))

    def count(self, step: Step) -> None:
        """Take note of an agent step."""
        self.step += 1
        for name, values in step.metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + values.mean()
        self.updates += bool(step.metrics)
        self.ready = step.episode_return is not None
        if self.ready:
            self.episode += 1
            self.returns.append(step.episode_return)

    def add_row(self) -> None:
        """Evaluate, and add a row to the curve, with the means of everything since the last one."""
        returns = evaluate(self.agent, self.make_env, self.config.eval_episodes, CURVE_SEED)
        row = {"step": self.step, "episode": self.episode, "seconds": round(self.journal.seconds, 2)}
        row |= {"return": float(returns.mean()), "return_std": float(returns.std())}
        row |= self.returns_in_modes()
        row["train_return"] = float(np.mean(self.returns)) if self.returns else float("nan")
        row |= {name: float(total) / self.updates for name, total in self.sums.items()}
        self.rows.append(row)
        self.returns, self.sums, self.updates = [], {}, 0
        if self.config.solved_at is not None and row["return"] >= self.config.solved_at:
            self.judge()

    def returns_in_modes(self) -> dict[str, float]:
        """Mean return in each of `eval_modes`, such as `return_video_hard`."""
        c = self.config
        table = evaluate_modes(self.agent, c, c.eval_episodes, "procedural", c.eval_modes)
        return {f"return_{mode}": float(table.loc[table["mode"] == mode, "return"].mean()) for mode in c.eval_modes}

    def judge(self) -> None:
        """Measure the agent as it is now by `final_episodes` greedy episodes."""
        self.final_returns = evaluate(self.agent, self.make_env, self.config.final_episodes, FINAL_SEED)

    def state_dict(self) -> dict[str, Any]:
        """The state between two episodes."""
        return {
            "agent": self.agent.state_dict(),
            "replay": self.replay.state_dict(),
            **random_states(),
            "journal": self.journal.state_dict(),
            **{name: getattr(self, name) for name in self.COUNTS},
        }

    COUNTS = ("step", "episode", "rows", "returns", "sums", "updates")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.agent.load_state_dict(state["agent"])
        self.replay.load_state_dict(state["replay"])
        set_random_states(state)
        self.journal.resume(state["journal"])
        for name in self.COUNTS:
            setattr(self, name, state[name])

    def finish(self) -> None:
        """Judge the agent, unless that was just done and found the task solved."""
        if self.final_returns is None or self.step >= self.config.steps:
            self.judge()

    def result(self) -> runs.Run:
        """The finished run."""
        return runs.agent_run(self)


TRAININGS: dict[type[RunConfig], type] = {
    CDNAConfig: PredictorTraining,
    ActorCriticConfig: ParallelTraining,
    I2AConfig: ParallelTraining,
    DynamicsConfig: ModelTraining,
}
"""What makes a training of a config; of every other, `Training`."""


def built_on(config: RunConfig) -> dict[str, list[runs.Run]]:
    """The finished trainings of which a training takes a network, by name."""
    if isinstance(config, CDNAConfig):
        return {name: runs.load(name) for name, _ in FILMED if name}
    if isinstance(config, AheadConfig) and config.predictor in LEARNED:
        return {config.model: [runs.trained(config.model, config.preset, CDNAConfig)]}
    if isinstance(config, I2AConfig) and config.model != "copy":
        return {config.model: [runs.first(config.model, DynamicsConfig)]}
    if isinstance(config, DynamicsConfig):
        return {config.teacher: [runs.first(config.teacher, ActorCriticConfig)]}
    return {}


def begin(config: RunConfig) -> Any:
    """A training of the kind that its config asks for, not a step taken yet."""
    journal = Journal({name: runs.digest(group) for name, group in built_on(config).items()})
    training = TRAININGS.get(type(config), Training)(config)
    training.journal = journal  # whose time began before the filming
    return training


def train(config: RunConfig, folder: Path | str | None = None, tensorboard: bool = False) -> runs.Run:
    """Train an agent or a predictor; or go on where a training was interrupted; or read what has been trained already.

    Args:
        config: from `presets.get`.
        folder: for checkpoints, curve and result. Without one nothing is written, and nothing can be resumed.
        tensorboard: also write the curve for TensorBoard, into the folder.

    Returns:
        The finished run.

    Raises:
        ValueError: the folder holds a training with another config, TensorBoard has none to write to, or there is no
            such device.
        ImportError: TensorBoard is not installed.
        FileNotFoundError: a network that this training builds upon is nowhere.
        checkpoint.DamagedError: a file of the training, or of one that it builds upon, is not what was written.
        RuntimeError: another process trains in the folder.
    """
    if tensorboard and folder is None:
        raise ValueError("TensorBoard needs a folder to write to: train(config, folder, tensorboard=True).")
    if tensorboard and find_spec("tensorboard") is None:
        raise ImportError("TensorBoard is not installed: pip install tensorboard")
    folder = None if folder is None else Path(folder)
    if folder is not None and runs.is_finished(folder) and not checkpoint.found(folder):
        check_folder(folder, config)
        return runs.read(folder)
    chosen_device(config.device)  # if there is none, it says so before anything is made
    if folder is None:
        training = begin(config)
        learn(training)
        return training.result()
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        train_in(folder, config, tensorboard)
    return runs.read(folder)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a training's folder; the lock of a process that is killed is gone with it.

    Raises:
        RuntimeError: another process trains here.
    """
    with (folder / "lock").open("w") as file:
        try:
            lock(file)
        except BlockingIOError as error:
            raise RuntimeError(f"{folder} is being trained by another process; this one leaves it alone.") from error
        except OSError:
            warnings.warn(f"no file can be locked in {folder}; let one process alone train there.", stacklevel=4)
        yield


def lock(file: TextIO) -> None:
    """Lock a file until it is closed.

    Raises:
        BlockingIOError: another process has locked it.
        OSError: it cannot be locked.
    """
    try:
        import fcntl
    except ImportError as error:  # on Windows
        raise OSError("this system has no flock") from error
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def train_in(folder: Path, config: RunConfig, tensorboard: bool) -> None:
    """From the newest checkpoint to the finished run, unless that is there by now."""
    check_folder(folder, config)
    if not runs.is_finished(folder):
        training = begin(config)
        configs.save(folder / "config.json", config)  # not before it is known that it can be trained
        if (state := checkpoint.newest(folder)) is not None:
            training.load_state_dict(state)
        learn(training, folder, tensorboard)
        runs.save(folder, training.result())
    checkpoint.remove_all(folder)


def check_folder(folder: Path, config: RunConfig) -> None:
    """Make sure that what lies in a training's folder is whole, and belongs to this training."""
    path = folder / "config.json"
    if runs.is_finished(folder):
        checkpoint.check_sums(folder, runs.FILES)
    if path.is_file() and (changed := configs.differences(configs.load(path), config, configs.BESIDE_THE_POINT)):
        raise ValueError(f"{folder} holds another training ({changed}). Name another folder, or delete this one.")


def learn(training: Any, folder: Path | None = None, tensorboard: bool = False) -> None:
    """Run the loop to its end, with a progress bar, the curve on disk, and a checkpoint every now and then."""
    config = training.config
    board = open_board(folder, training.step) if tensorboard else None
    saved = time.perf_counter()
    with tqdm(total=config.steps, initial=training.step, desc=config.method, unit=f" {config.unit}") as bar:
        while not training.finished:
            training.advance()
            bar.update(training.step - bar.n)
            if training.step % config.eval_every == 0 or training.finished:
                training.add_row()
                report(training, bar, folder, board)
            due = time.perf_counter() - saved >= config.checkpoint_seconds and not training.finished
            if folder is not None and due and training.ready:
                checkpoint.save(folder, training.step, training.state_dict())
                saved = time.perf_counter()
    training.finish()
    if board is not None:
        board.close()


def open_board(folder: Path, step: int) -> Any:
    """A TensorBoard writer into a training's folder; what an interrupted training wrote after `step` is hidden."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


def report(training: Any, bar: tqdm, folder: Path | None, board: Any) -> None:
    """Show the newest row of the curve beside the progress bar, and write it to the disk."""
    row = training.rows[-1]
    bar.set_postfix({name: f"{row[name]:.3g}" for name in SHOWN if name in row})
    if folder is not None:
        pd.DataFrame(training.rows).to_csv(folder / "curve.csv", index=False)
    if board is not None:
        for name, value in row.items():
            board.add_scalar(name, value, training.step)
        board.flush()
