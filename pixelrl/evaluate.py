"""How good is a policy? Greedy episodes from a fixed list of seeds, played side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import gymnasium as gym
import numpy as np


class Episode(NamedTuple):
    """One episode, step by step, for looking at."""

    frames: list[np.ndarray]
    """Pictures (H, W, 3) uint8, one before each action."""
    obs: np.ndarray
    """(T, *shape), what the agent saw before each action."""
    actions: np.ndarray
    """(T,) or (T, A)."""
    rewards: np.ndarray
    """(T,)."""


def evaluate(agent: object, make_env: Callable[[], gym.Env], episodes: int, seed: int = 10_000) -> np.ndarray:
    """Returns (episodes,) of greedy episodes; episode i starts from seed + i, so that agents can be compared.

    All episodes advance in lockstep, so that the network is asked once a step for all that still run.
    """
    envs = [make_env() for _ in range(episodes)]
    obs = [env.reset(seed=seed + i)[0] for i, env in enumerate(envs)]
    returns = np.zeros(episodes)
    running = list(range(episodes))
    while running:
        actions = agent.act(np.stack([obs[i] for i in running]), explore=False)
        still = []
        for i, action in zip(running, actions, strict=True):
            obs[i], reward, terminated, truncated, _ = envs[i].step(action)
            returns[i] += reward
            if not (terminated or truncated):
                still.append(i)
        running = still
    for env in envs:
        env.close()
    return returns


def play(agent: object, env: gym.Env, seed: int = 10_000, max_steps: int = 1_000) -> Episode:
    """One greedy episode with everything that a video or a plot needs.

    Args:
        agent: whose `act` is asked.
        env: made with `render_mode="rgb_array"`.
        seed: of the episode.
        max_steps: where to stop at the latest.
    """
    if env.render_mode != "rgb_array":
        raise ValueError(f"the environment must be made with render_mode='rgb_array'; it has {env.render_mode!r}.")
    obs, _ = env.reset(seed=seed)
    steps = []
    done = False
    while not done and len(steps) < max_steps:
        frame = env.render()
        action = agent.act(obs[None], explore=False)[0]
        next_obs, reward, terminated, truncated, _ = env.step(action)
        steps.append((frame, obs, action, reward))
        obs, done = next_obs, terminated or truncated
    frames, observations, actions, rewards = zip(*steps, strict=True)
    return Episode(list(frames), np.stack(observations), np.stack(actions), np.array(rewards))
