"""Environments: Gymnasium's, and the book's own under the name `pixelrl/...`.

Importing this module registers them, so that `gymnasium.make` and any other library find them too.
"""

from __future__ import annotations

import os
from typing import Any

import gymnasium as gym
import numpy as np

from pixelrl.configs import MODES
from pixelrl.envs.atari import atari
from pixelrl.envs.cartpole import CartPolePicture, cartpole_pixels, cartpole_truncation_as_end

__all__ = ["MODES", "CartPolePicture", "atari", "cartpole_pixels", "cartpole_truncation_as_end", "make"]

gym.register("pixelrl/CartPolePixels-v0", entry_point=cartpole_pixels)
gym.register("pixelrl/CartPoleTruncationAsEnd-v0", entry_point=cartpole_truncation_as_end)
gym.register("pixelrl/Atari-v0", entry_point=atari)
gym.register("pixelrl/MinAtar-v0", entry_point="pixelrl.envs.minatar:minatar")
gym.register("pixelrl/Control-v0", entry_point="pixelrl.envs.control:control")
gym.register("pixelrl/ControlPixels-v0", entry_point="pixelrl.envs.control:control_pixels")


def make(env_id: str, **kwargs: Any) -> gym.Env:
    """An environment that the book's agents can act in.

    Args:
        env_id: Gymnasium id: `CartPole-v1`, `pixelrl/CartPolePixels-v0`, `pixelrl/Control-v0`,
            `pixelrl/ControlPixels-v0`, ...
        kwargs: the environment's arguments; `render_mode="rgb_array"` for videos.

    Raises:
        ValueError: no such environment, or spaces that no agent here understands.
    """
    if kwargs.get("render_mode") != "human":
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # a picture needs no window, nor a complaint about it
    try:
        env = gym.make(env_id, disable_env_checker=True, **kwargs)
    except gym.error.UnregisteredEnv as error:
        ours = sorted(name for name in gym.registry if name.startswith("pixelrl/"))
        raise ValueError(f"there is no environment {env_id!r}. The book's own are {', '.join(ours)}.") from error
    check_spaces(env)
    return env


def check_spaces(env: gym.Env) -> None:
    """Refuse what no agent of the book can be trained on, and say what it would have to be.

    Raises:
        ValueError: observations that are neither pixels, (C, H, W) uint8, nor a state, (n,) float32;
            actions that are neither `Discrete` nor a one-dimensional `Box`.
    """
    obs, action = env.observation_space, env.action_space
    pixels = isinstance(obs, gym.spaces.Box) and len(obs.shape) == 3 and obs.dtype == np.uint8
    state = isinstance(obs, gym.spaces.Box) and len(obs.shape) == 1 and obs.dtype == np.float32
    if not (pixels or state):
        raise ValueError(
            "observations must be pixels, a Box (C, H, W) of uint8, or a state, a Box (n,) of float32; "
            f"{env} has {obs}."
        )
    continuous = isinstance(action, gym.spaces.Box) and len(action.shape) == 1
    if not (isinstance(action, gym.spaces.Discrete) or continuous):
        raise ValueError(f"actions must be Discrete or a one-dimensional Box; {env} has {action}.")
