"""Training: the same seed gives the same curve, also when it was interrupted; and it learns."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch

from pixelrl import checkpoint, configs, envs, presets, runs
from pixelrl.evaluate import CURVE_SEED, FINAL_SEED, evaluate, evaluate_modes
from pixelrl.prioritised import PrioritisedSampler
from pixelrl.replay import Replay, UniformSampler
from pixelrl.train import Step, Training, build_replay, built_on, episode_seed, interact, train

SMALL = {"steps": 240, "learning_starts": 60, "update_every": 3, "batch_size": 16, "replay_size": 90, "eval_every": 60}
SMALL |= {"eval_episodes": 2, "final_episodes": 3, "hidden": (16,), "checkpoint_seconds": 0.0, "device": "cpu"}
PIXELS = {"env_kwargs": {"size": (20, 40)}, "channels": (4, 4), "n_step": 2}
CONFIGS = {
    "states": presets.get("dqn-cartpole", "quick", **SMALL),
    "pixels": presets.get("dqn-pixels-improved", "quick", **SMALL, **PIXELS),
}


@pytest.fixture(scope="module")
def unbroken() -> dict[str, runs.Run]:
    """The runs that nothing interrupted."""
    return {name: train(config) for name, config in CONFIGS.items()}


def assert_same(one: runs.Run, other: runs.Run) -> None:
    """Bit for bit the same run, but for the time it took."""
    pd.testing.assert_frame_equal(
        one.curve.drop(columns="seconds"), other.curve.drop(columns="seconds"), check_exact=True
    )
    assert one.meta["final_returns"] == other.meta["final_returns"]
    assert set(one.policy) == set(other.policy)
    assert all(torch.equal(one.policy[name], other.policy[name]) for name in one.policy)


def assert_resumes(config: configs.RunConfig, folder: Path, kind: type, method: str, torn_at: int) -> runs.Run:
    """A training that a method of its class tore at a step, and that was taken up again, is the unbroken run."""
    unbroken = train(config)
    whole = getattr(kind, method)

    def torn(self: Any) -> None:
        if self.step >= torn_at:
            raise InterruptedError
        whole(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, method, torn)
        with pytest.raises(InterruptedError):
            train(config, folder)
    torch.manual_seed(5)
    assert_same(unbroken, train(config, folder))
    return unbroken


def test_the_configs_differ_where_it_matters() -> None:
    states, pixels = CONFIGS["states"], CONFIGS["pixels"]
    assert (states.replay, states.head, states.target) == ("uniform", "linear", "max")
    assert (pixels.replay, pixels.head, pixels.target) == ("prioritised", "dueling", "double")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_seed_gives_the_same_run(unbroken: dict, name: str, tmp_path: Path) -> None:
    torch.manual_seed(99)
    np.random.seed(99)
    assert_same(unbroken[name], train(CONFIGS[name], tmp_path))


def test_another_seed_gives_another_run(unbroken: dict) -> None:
    other = train(replace(CONFIGS["states"], seed=1))
    assert other.curve["td_error"].tolist() != unbroken["states"].curve["td_error"].tolist()
    seeds = {episode_seed(seed, episode) for seed in range(20) for episode in range(20)}
    assert len(seeds) == 400


def test_the_curve_says_what_happened_since_the_row_before(monkeypatch: pytest.MonkeyPatch) -> None:
    config, steps = replace(CONFIGS["states"], eval_episodes=6, final_episodes=5), []
    count = Training.count
    monkeypatch.setattr(Training, "count", lambda self, step: steps.append(step) or count(self, step))
    run = train(config)
    assert run.curve["step"].tolist() == [60, 120, 180, 240]
    assert run.curve["seconds"].is_monotonic_increasing
    assert run.curve["episode"].is_monotonic_increasing
    assert (run.curve["return"] >= 1).all()
    assert np.isfinite(run.curve[["loss", "q", "td_error"]]).to_numpy()[1:].all()
    assert len(run.meta["final_returns"]) == 5
    for number, row in run.curve.iterrows():
        since = steps[60 * number : 60 * number + 60]
        losses = [float(step.metrics["loss"]) for step in since if step.metrics]
        returns = [step.episode_return for step in since if step.episode_return is not None]
        assert len(losses) == (20 if number else 1)  # one update in three steps, from step 60 on
        assert row["loss"] == pytest.approx(np.mean(losses))
        assert row["train_return"] == pytest.approx(np.mean(returns))
    agent = run.agent()
    for returns, episodes, seed in (
        ([run.curve["return"].iloc[-1]], config.eval_episodes, CURVE_SEED),
        (run.meta["final_returns"], config.final_episodes, FINAL_SEED),
    ):
        again = evaluate(agent, lambda: envs.make(config.env), episodes, seed)
        assert np.mean(returns) == pytest.approx(again.mean())


class Cut(gym.Env):
    """Episodes of three steps, which are cut off and really end in turn."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.ends = itertools.cycle([(False, True), (True, False)])

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        terminated, truncated = next(self.ends) if self.t == 3 else (False, False)
        return np.full(1, self.t / 3, np.float32), 1.0, terminated, truncated, {}


class Idle:
    """An agent that does nothing, and counts how often it was told to learn."""

    updates = 0

    def act(self, obs: np.ndarray, explore: bool) -> np.ndarray:
        return np.zeros(1, int)

    def update(self, batch: Any) -> dict[str, torch.Tensor]:
        self.updates += 1
        return {"td_error": torch.full((len(batch.reward),), 7.0)}


def test_the_loop_remembers_real_ends_alone_and_learns_when_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    env, agent, sampler = Cut(), Idle(), UniformSampler(50, np.random.default_rng(0))
    replay = Replay(50, env.observation_space, env.action_space, sampler)
    told = []
    monkeypatch.setattr(sampler, "feedback", lambda slots, td_error: told.append(td_error.tolist()), raising=False)
    config = presets.get("dqn-cartpole", "quick", learning_starts=6, update_every=4, batch_size=2)
    loop = interact(env, agent, replay, config, 0, 0)
    steps = [next(loop) for _ in range(24)]
    # Four slots an episode: three steps and the last observation. Of eight episodes every second one really ends.
    assert np.flatnonzero(replay.terminated).tolist() == [6, 14, 22, 30]
    assert [number for number, step in enumerate(steps, start=1) if step.metrics] == [8, 12, 16, 20, 24]
    assert agent.updates == 5
    assert told == 5 * [[7.0, 7.0]]
    assert [step.episode_return for step in steps[:4]] == [None, None, 3.0, None]
    assert isinstance(steps[0], Step)


def test_the_buffer_is_what_the_config_says() -> None:
    changes = {"n_step": 2, "gamma": 0.8, "reward_scale": 0.5, "replay_size": 70}
    for method, sampler in (("dqn-pixels-improved", PrioritisedSampler), ("dqn-pixels", UniformSampler)):
        config = presets.get(method, "quick", **changes)
        replay = build_replay(config, envs.make(config.env, **config.env_kwargs))
        assert (replay.n_step, replay.gamma, replay.reward_scale, replay.capacity) == (2, 0.8, 0.5, 70)
        assert replay.stack == 4
        assert isinstance(replay.sampler, sampler)


class Fragile(gym.Wrapper):
    """An environment that lives for a number of steps, counted over all that share its list."""

    def __init__(self, env: gym.Env, left: list[int], die: Callable[[], None]) -> None:
        super().__init__(env)
        self.left, self.die = left, die

    def step(self, action: Any) -> tuple:
        self.left[0] -= 1
        if self.left[0] == 0:
            self.die()
        return self.env.step(action)


def train_fragile(
    config: configs.TrainConfig, folder: Path, steps: int, die: Callable[[], None], tensorboard: bool = False
) -> None:
    """Train until that many steps, of training or evaluation, are taken; then die."""
    make_env, left = Training.make_env, [steps]
    Training.make_env = lambda self: Fragile(make_env(self), left, die)
    try:
        train(config, folder, tensorboard)
    finally:
        Training.make_env = make_env


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", CONFIGS)
def test_interrupted_and_resumed_is_the_unbroken_run(unbroken: dict, name: str, tmp_path: Path) -> None:
    saved = []
    for steps in (5, 110, 90):  # before the first checkpoint; later, twice
        with pytest.raises(KeyboardInterrupt):
            train_fragile(CONFIGS[name], tmp_path, steps, interrupt)
        saved.append(max((path.name for path in checkpoint.found(tmp_path)), default=""))
        assert not runs.is_finished(tmp_path)
    assert saved[0] == ""
    assert saved[0] < saved[1] < saved[2]
    assert_same(unbroken[name], train(CONFIGS[name], tmp_path))
    assert checkpoint.found(tmp_path) == []


def test_a_damaged_checkpoint_costs_time_and_nothing_else(unbroken: dict, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_fragile(CONFIGS["states"], tmp_path, 200, interrupt)
    newest = checkpoint.found(tmp_path)[0]
    (newest / "state.json").write_text("{}")
    with pytest.warns(UserWarning, match=f"{newest.name}.*checkpoint before it is used"):
        resumed = train(CONFIGS["states"], tmp_path)
    assert_same(unbroken["states"], resumed)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_each(folder: Path) -> None:
    """Train each config in a process of its own that is killed on the way."""
    for name, config in CONFIGS.items():
        child = os.fork()
        if child == 0:
            train_fragile(config, folder / name, 230, kill)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("method", ["svea", "sgqn"])
def test_an_agent_from_pixels_resumes_between_two_updates(method: str, tmp_path: Path) -> None:
    """Its encoder lies channels-last in memory, and so must what the optimiser remembers of it."""
    sizes = {"steps": 130, "learning_starts": 120, "eval_every": 65, "eval_episodes": 1, "final_episodes": 1}
    config = presets.get(method, "quick", **sizes, checkpoint_seconds=0.0, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train_fragile(config, tmp_path, 252, interrupt)  # 125 of them in the evaluation
    assert [path.name for path in checkpoint.found(tmp_path)] == ["checkpoint-0000000125"]
    torch.manual_seed(99)
    assert_same(train(config), train(config, tmp_path))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_and_resumed_is_the_unbroken_run(unbroken: dict, tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=die_in_each, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    for name, config in CONFIGS.items():
        assert not runs.is_finished(tmp_path / name)
        assert len(checkpoint.found(tmp_path / name)) == 2
        assert_same(unbroken[name], train(config, tmp_path / name))


def test_a_checkpoint_is_written_only_when_it_is_due(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_fragile(replace(CONFIGS["states"], checkpoint_seconds=3_600.0), tmp_path, 200, interrupt)
    assert checkpoint.found(tmp_path) == []
    assert (tmp_path / "curve.csv").is_file()  # the curve can be looked at all the same


def test_another_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_fragile(CONFIGS["states"], tmp_path, 100, interrupt)
    other = replace(CONFIGS["states"], gamma=0.5, hidden=(32,))
    with pytest.raises(ValueError, match=r"holds another training \(gamma: 0.99 -> 0.5, hidden: \[16\] -> \[32\]\)"):
        train(other, tmp_path)


def test_a_training_may_go_on_with_other_threads_and_checkpoints(tmp_path: Path) -> None:
    config = replace(CONFIGS["states"], steps=60)
    with pytest.raises(KeyboardInterrupt):
        train_fragile(config, tmp_path, 40, interrupt)
    first = train(replace(config, threads=2, checkpoint_seconds=7.0), tmp_path)
    assert_same(train(replace(config, checkpoint_seconds=9.0), tmp_path), first)


def test_what_cannot_be_trained_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device is cuda"):
        train(replace(CONFIGS["states"], device="cuda"), tmp_path / "new")
    monkeypatch.setattr("pixelrl.train.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        train(CONFIGS["states"], tmp_path / "new", tensorboard=True)
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_a_gpu_is_read_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = replace(CONFIGS["states"], steps=60)
    first = train(config, tmp_path)
    assert_same(train(replace(config, device="cuda"), tmp_path), first)


def test_a_finished_training_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIGS["states"], steps=60)
    first = train(config, tmp_path)
    content = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(Training, "make_env", lambda self: pytest.fail("it was trained again"))
    again = train(config, str(tmp_path))
    assert_same(first, again)
    assert first.curve["seconds"].tolist() == again.curve["seconds"].tolist()
    assert content == {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert {path.name for path in content} == {
        "config.json",
        "curve.csv",
        "meta.json",
        "policy.safetensors",
        "SHA256SUMS",
        "lock",
    }
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(checkpoint.DamagedError, match="config.json is damaged"):
        train(config, tmp_path)


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = replace(CONFIGS["states"], steps=60)
    run = train(config)
    assert list(tmp_path.iterdir()) == []
    assert run.config == config
    with pytest.raises(ValueError, match="TensorBoard needs a folder"):
        train(config, tensorboard=True)


def read_board(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    return board


def test_the_curve_is_also_measured_before_videos() -> None:
    config = presets.get("sac", "quick", learning_starts=200, final_episodes=1, env_kwargs={"repeat": 50})
    run = train(config)  # which learns nothing, so that every row is of the same agent
    table = evaluate_modes(run.agent(), config, config.eval_episodes, modes=("video_easy", "video_hard"))
    for mode, returns in table.groupby("mode")["return"]:
        assert run.curve[f"return_{mode}"].tolist() == [returns.mean()] * 2
    plain = train(replace(config, eval_modes=())).curve
    pd.testing.assert_frame_equal(run.curve[plain.columns].drop(columns="seconds"), plain.drop(columns="seconds"))


def test_a_mode_that_is_not_there_is_refused_before_anything_is_learned() -> None:
    with pytest.raises(ValueError, match="no mode 'video_medium'; there are train, "):
        Training(presets.get("sac", "quick", eval_modes=("video_medium",)))
    with pytest.raises(ValueError, match=r"eval_modes is \('video_hard',\); CartPole-v1 has one scene"):
        presets.get("dqn-cartpole", "quick", eval_modes=("video_hard",))


def test_tensorboard_shows_the_curve(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_fragile(CONFIGS["states"], tmp_path, 250, interrupt, tensorboard=True)
    run = train(CONFIGS["states"], tmp_path, tensorboard=True)
    curve = pd.read_csv(tmp_path / "curve.csv")
    pd.testing.assert_frame_equal(curve, run.curve)
    board = read_board(tmp_path)
    assert set(board.Tags()["scalars"]) == set(curve.columns)
    for name in curve.columns:
        events = board.Scalars(name)
        assert [event.step for event in events] == curve["step"].tolist()
        np.testing.assert_allclose([event.value for event in events], curve[name], rtol=1e-6)


def test_no_board_unless_asked(tmp_path: Path) -> None:
    train(replace(CONFIGS["states"], steps=60), tmp_path)
    assert not (tmp_path / "tensorboard").exists()


class Corridor(gym.Env):
    """Five rooms in a row, the start in the second. Beyond the last is the way out, worth 1; every step costs 0.1.

    The way out to the left is nearer and worth 0.2, so that only who looks ahead goes right, and returns 0.6.
    """

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(0, 1, (5,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.room = 1
        return self.look(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.room += 1 if action else -1
        reward = {-1: 0.2, 5: 1.0}.get(self.room, 0.0) - 0.1
        out = self.room in (-1, 5)
        self.room = int(np.clip(self.room, 0, 4))
        return self.look(), reward, out, False, {}

    def look(self) -> np.ndarray:
        return np.eye(5, dtype=np.float32)[self.room]


gym.register("pixelrl-tests/Corridor-v0", Corridor, max_episode_steps=20)


def test_it_learns_and_stops_when_it_has() -> None:
    numbers = {"steps": 5_000, "learning_starts": 100, "update_every": 1, "batch_size": 32, "eval_every": 250}
    numbers |= {"gamma": 0.95, "n_step": 1, "lr": 3e-3, "target_tau": 0.05, "hidden": (32,), "epsilon_steps": 1_000}
    config = presets.get(
        "dqn-cartpole", "quick", env="pixelrl-tests/Corridor-v0", device="cpu", solved_at=0.599, **numbers
    )
    run = train(config)
    assert run.meta["final_returns"] == pytest.approx([0.6] * config.final_episodes)
    assert run.curve["return"].iloc[-1] == pytest.approx(0.6)
    assert (run.curve["return"].iloc[:-1] < 0.599).all()
    assert run.curve["step"].iloc[-1] < config.steps
    q = run.agent().q_values(np.eye(5, dtype=np.float32))
    assert q[4, 1] == pytest.approx(0.9, abs=0.1)  # the last step out
    assert (q.argmax(axis=1) == 1).all()


def test_an_outside_agent_runs_on_our_environment() -> None:
    from stable_baselines3 import DQN

    numbers = {"learning_starts": 50, "buffer_size": 200, "batch_size": 8, "target_update_interval": 100}
    model = DQN("CnnPolicy", gym.make("pixelrl/CartPolePixels-v0", size=(40, 60)), **numbers, seed=0, device="cpu")
    model.learn(220)
    assert model.num_timesteps == 220
    assert model.replay_buffer.observations.shape[2:] == (4, 40, 60)


def test_the_last_row_is_of_the_end(tmp_path: Path) -> None:
    for steps, rows in ((90, [60, 90]), (40, [40])):
        config = replace(CONFIGS["states"], steps=steps)
        run = train(config, tmp_path / str(steps))
        assert run.curve["step"].tolist() == rows
        assert (
            run.curve.loc[rows.index(steps), "return"]
            == evaluate(run.agent(), lambda: envs.make("CartPole-v1"), 2, CURVE_SEED).mean()
        )


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("sac", []),
        ("cdna-48", ["sac-state-hot", "sac-state"]),
        ("predictive-sac", ["cdna-48"]),
        ("predictive-sgqn-shuffled", ["cdna-48"]),
        ("predictive-sgqn-copy", []),
        ("i2a", ["breakout-model"]),
        ("i2a-copy", []),
        ("breakout-model", ["a2c-partly"]),
    ],
)
def test_what_a_training_builds_on(method: str, names: list[str]) -> None:
    found = built_on(presets.get(method, "quick"))
    assert list(found) == names
    assert all(group for group in found.values())
