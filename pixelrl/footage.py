"""Footage: episodes to learn a video predictor from, of policies that matter.

A predictor is asked about what an agent will do, and so it must have seen that: the pole hanging and the pole held,
the cart in the middle and at the end of its rail. Four policies are filmed in turn, on two tasks that look the same: a
random one, one that swings the pole about without holding it, one that holds it, and the last one with noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch

from pixelrl import envs, runs
from pixelrl.envs.control import flat
from pixelrl.replay import Replay

TASKS = ("cartpole-swingup", "cartpole-balance")
FILMED = ((None, 0.0), ("sac-state-hot", 0.3), ("sac-state", 0.0), ("sac-state", 0.5))  # stored agents, and their noise
PATIENCE = 4.0
Policy = Callable[[np.ndarray], np.ndarray]  # from the state (n,) that the suite measures to an action (A,)


class Film(NamedTuple):
    """One episode, or the beginning of one."""

    frames: np.ndarray
    """(T + 1, 3, H, W) uint8."""
    actions: np.ndarray
    """(T, A) float32, those between the frames."""
    poses: np.ndarray
    """(T + 1, n) float64: where the joints are; of the cartpole, the cart (m) and the pole's angle (rad)."""


def random_policy(rng: np.random.Generator, n_actions: int) -> Policy:
    """Uniform actions, each held for `PATIENCE` agent steps on average, so that the cart gets somewhere."""
    held = rng.uniform(-1, 1, n_actions).astype(np.float32)

    def act(state: np.ndarray) -> np.ndarray:
        nonlocal held
        if rng.random() < 1 / PATIENCE:
            held = rng.uniform(-1, 1, n_actions).astype(np.float32)
        return held

    return act


def agent_policy(agent: Any, rng: np.random.Generator, noise: float) -> Policy:
    """What an agent from state does, with normal noise of that spread."""

    def act(state: np.ndarray) -> np.ndarray:
        action = agent.act(state[None], explore=False)[0]
        return (action + noise * rng.normal(size=action.shape)).clip(-1, 1).astype(np.float32)

    return act


def film(env: gym.Env, policy: Policy, steps: int, seed: int) -> Film:
    """Play and record, from pixels of one frame.

    Args:
        env: a `ControlPixels` environment with a stack of 1.
        policy: asked with the state.
        steps: T at most.
        seed: of the episode.
    """
    obs, _ = env.reset(seed=seed)
    dm = env.unwrapped.dm
    frames, actions, poses, done = [obs], [], [env.unwrapped.data.qpos.copy()], False
    while len(actions) < steps and not done:
        action = policy(flat(dm.task.get_observation(dm.physics)))
        obs, _, terminated, truncated, _ = env.step(action)
        frames.append(obs)
        actions.append(action)
        poses.append(env.unwrapped.data.qpos.copy())
        done = terminated or truncated
    return Film(np.stack(frames), np.stack(actions), np.stack(poses))


def collect(env_kwargs: dict[str, Any], episodes: int, steps: int, seed: int) -> list[Film]:
    """Films of all four policies on both tasks in turn; the same seed makes the same ones.

    Args:
        env_kwargs: of `ControlPixels`; task and stack are chosen here.
        episodes: how many films.
        steps: length of each, in agent steps.
        seed: other seeds make other films.
    """
    scenes = [envs.make("pixelrl/ControlPixels-v0", **{**env_kwargs, "task": task, "stack": 1}) for task in TASKS]
    agents = {name: [run.agent() for run in runs.load(name)] for name, _ in FILMED if name}
    films = []
    for number in range(episodes):
        rng = np.random.default_rng([seed, number])
        env = scenes[number % len(TASKS)]
        name, noise = FILMED[number // len(TASKS) % len(FILMED)]
        if name is None:
            policy = random_policy(rng, env.action_space.shape[0])
        else:
            policy = agent_policy(agents[name][number % len(agents[name])], rng, noise)
        films.append(film(env, policy, steps, seed=int(rng.integers(2**31))))
    for env in scenes:
        env.close()
    return films


def fill(replay: Replay, films: list[Film]) -> None:
    """Put films into a buffer of single frames, as episodes that brought no reward."""
    for frames, actions, _ in films:
        replay.start(frames[0])
        for action, frame in zip(actions, frames[1:], strict=True):
            replay.add(action, 0.0, False, frame)


class Windows(NamedTuple):
    """Pieces of films, all of the same length L."""

    frames: torch.Tensor
    """(N, L, 3, H, W) uint8."""
    actions: torch.Tensor
    """(N, L - 1, A) float32."""
    poses: np.ndarray
    """(N, L, n)."""


def windows(films: list[Film], length: int) -> Windows:
    """All pieces of `length` frames that lie end to end in the films.

    Raises:
        ValueError: no film is that long.
    """
    pieces = [
        (
            film.frames[start : start + length],
            film.actions[start : start + length - 1],
            film.poses[start : start + length],
        )
        for film in films
        for start in range(0, len(film.frames) - length + 1, length)
    ]
    if not pieces:
        raise ValueError(f"no film has {length} frames; the longest has {max(len(film.frames) for film in films)}.")
    frames, actions, poses = (np.stack(part) for part in zip(*pieces, strict=True))
    return Windows(torch.from_numpy(frames), torch.from_numpy(actions), poses)
