"""Atari games through `ale-py`, which is not among the book's requirements."""

from __future__ import annotations

import importlib.util

import gymnasium as gym
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation


def atari(game: str = "Breakout", stack: int = 4, repeat: int = 4, render_mode: str | None = None) -> gym.Env:
    """An Atari game as DQN's paper saw it: grey, 84 × 84, every fourth frame, (stack, 84, 84) uint8.

    Args:
        game: `Breakout`, `Pong`, ... as the Arcade Learning Environment names it.
        stack: frames in an observation.
        repeat: simulator frames for which an action is held.
        render_mode: `rgb_array` for videos.

    Raises:
        ImportError: `ale-py` is missing.
    """
    if importlib.util.find_spec("ale_py") is None:
        raise ImportError("Atari games need the Arcade Learning Environment: pip install ale-py")
    import ale_py

    gym.register_envs(ale_py)
    env = gym.make(f"ALE/{game}-v5", frameskip=1, render_mode=render_mode)
    return FrameStackObservation(AtariPreprocessing(env, frame_skip=repeat), stack)
