"""How good is a policy? Greedy episodes from a fixed list of seeds, played side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pandas as pd

from pixelrl import envs
from pixelrl.configs import MODES, TrainConfig, usual_videos
from pixelrl.runs import Run

# First seeds of the episodes by which a curve, a result and the modes are measured; films begin at 40,000.
CURVE_SEED, FINAL_SEED, MODES_SEED = 10_000, 20_000, 30_000


class Episode(NamedTuple):
    """One episode, step by step, for looking at."""

    frames: list[np.ndarray]
    """Pictures (H, W, 3) uint8, one before each action; none from an environment without a render mode."""
    obs: np.ndarray
    """(T, *shape), what the agent saw before each action."""
    actions: np.ndarray
    """(T,) or (T, A)."""
    rewards: np.ndarray
    """(T,)."""
    labels: np.ndarray | None = None
    """(T, H, W) uint8, what each pixel of the newest frame shows, from environments that tell."""


def evaluate(
    agent: object,
    make_env: Callable[[], gym.Env],
    episodes: int,
    seed: int = CURVE_SEED,
    options: Callable[[int], dict | None] = lambda i: None,
) -> np.ndarray:
    """Returns (episodes,) of greedy episodes; episode i starts from seed + i, so that agents can be compared.

    All episodes advance in lockstep, so that the network is asked once a step for all that still run.

    Args:
        agent: whose `act` is asked, and nothing else.
        make_env: makes an environment; it is called once an episode.
        episodes: how many.
        seed: of the first one.
        options: what episode i is reset with beside its seed.
    """
    rooms = [make_env() for _ in range(episodes)]
    obs = [room.reset(seed=seed + i, options=options(i))[0] for i, room in enumerate(rooms)]
    returns = np.zeros(episodes)
    running = list(range(episodes))
    while running:
        actions = agent.act(np.stack([obs[i] for i in running]), explore=False)
        still = []
        for i, action in zip(running, actions, strict=True):
            obs[i], reward, terminated, truncated, _ = rooms[i].step(action)
            returns[i] += reward
            if not (terminated or truncated):
                still.append(i)
        running = still
    for room in rooms:
        room.close()
    return returns


def evaluate_modes(
    agent: object, config: TrainConfig, episodes: int = 20, videos: str | None = None, modes: tuple[str, ...] = MODES
) -> pd.DataFrame:
    """Greedy episodes in every mode, on the same seeds; the i-th episode of a mode shows its i-th video or colours.

    Args:
        agent: trained with `config`.
        config: whose environment is changed to each mode.
        episodes: a mode.
        videos: `procedural`, or a folder with `video_easy/` and `video_hard/`; by default `configs.usual_videos`.
        modes: which; all five by default.

    Returns:
        One row an episode: mode, videos (`procedural` or the folder's name; empty without any), episode, return.
    """
    videos, rows = videos or usual_videos(), []
    for mode in modes:
        kwargs = {**config.env_kwargs, "mode": mode, "videos": videos}
        returns = evaluate(
            agent, lambda kwargs=kwargs: envs.make(config.env, **kwargs), episodes, MODES_SEED, lambda i: {"scenery": i}
        )
        rows += [(mode, videos_shown(mode, videos), i, value) for i, value in enumerate(returns)]
    return pd.DataFrame(rows, columns=["mode", "videos", "episode", "return"])


def videos_shown(mode: str, videos: str) -> str:
    """Of a folder or `procedural`, the name in a table of returns; empty for a mode without videos."""
    return Path(videos).resolve().name if mode.startswith("video") else ""


def episodes_played(run: Run, mode: str, videos: str) -> int:
    """How many returns a run has in a mode, in front of these videos."""
    if run.modes is None:
        return 0
    return int(((run.modes["mode"] == mode) & (run.modes["videos"] == videos_shown(mode, videos))).sum())


def play(agent: object, env: gym.Env, seed: int = CURVE_SEED, max_steps: int = 1_000) -> Episode:
    """One greedy episode with everything that a video or a plot needs.

    Args:
        agent: whose `act` is asked.
        env: made with `render_mode="rgb_array"` if pictures for people are wanted, which take most of the time.
        seed: of the episode.
        max_steps: where to stop at the latest.
    """
    if env.render_mode not in (None, "rgb_array"):
        raise ValueError(f"pictures are made with render_mode='rgb_array'; the environment has {env.render_mode!r}.")
    obs, info = env.reset(seed=seed)
    steps = []
    done = False
    while not done and len(steps) < max_steps:
        frame = env.render() if env.render_mode else None
        action = agent.act(obs[None], explore=False)[0]
        next_obs, reward, terminated, truncated, next_info = env.step(action)
        steps.append((frame, obs, action, reward, info.get("labels")))
        obs, info, done = next_obs, next_info, terminated or truncated
    frames, observations, actions, rewards, labels = zip(*steps, strict=True)
    told = np.stack(labels) if labels[0] is not None else None
    pictures = list(frames) if env.render_mode else []
    return Episode(pictures, np.stack(observations), np.stack(actions), np.array(rewards), told)
