"""CartPole as pictures, and CartPole with its time limit mistaken for a failure."""

from __future__ import annotations

from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from gymnasium.wrappers import FrameStackObservation

# Geometry and colours of Gymnasium's picture, 600 × 400, rows counted from the top.
WIDTH, TRACK_ROW, PIXELS_PER_UNIT = 600, 299, 125
CART = np.array([(-25, -15), (-25, 15), (25, 15), (25, -15)])
POLE = np.array([(-5, -5), (-5, 120), (5, 120), (5, -5)])  # upright, from the axle
AXLE_HEIGHT, AXLE_RADIUS = 7.5, 5
BLACK, WHITE = 0, 255
POLE_GREY = round(0.299 * 202 + 0.587 * 152 + 0.114 * 101)
AXLE_GREY = round(0.299 * 129 + 0.587 * 132 + 0.114 * 203)
TOP, BOTTOM = 164, 324  # rows of the picture where something moves; the rest is always white


def draw_cartpole(state: np.ndarray) -> np.ndarray:
    """The grey picture of a state (x, x', theta, theta'): rows `TOP` to `BOTTOM` of Gymnasium's, (160, 600) uint8.

    Drawn with OpenCV in a fraction of the time that `env.render()` takes.
    """
    x, _, theta, _ = state
    picture = np.full((BOTTOM - TOP, WIDTH), WHITE, np.uint8)
    centre = np.array([x * PIXELS_PER_UNIT + WIDTH / 2, TRACK_ROW - TOP])
    axle = centre - (0, AXLE_HEIGHT)
    turn = np.array([[np.cos(theta), np.sin(theta)], [-np.sin(theta), np.cos(theta)]])
    cv2.line(picture, (0, TRACK_ROW - TOP), (WIDTH, TRACK_ROW - TOP), BLACK)
    fill(picture, centre + CART, BLACK)
    fill(picture, axle + POLE @ turn.T * (1, -1), POLE_GREY)
    cv2.circle(picture, tuple(map(round, axle)), AXLE_RADIUS, AXLE_GREY, cv2.FILLED)
    return picture


def fill(picture: np.ndarray, corners: np.ndarray, grey: int) -> None:
    """Fill a convex polygon whose corners (n, 2) are given as (column, row)."""
    cv2.fillConvexPoly(picture, np.rint(corners).astype(np.int32), grey)


class CartPolePicture(gym.ObservationWrapper):
    """CartPole seen by a camera: one grey frame, (H, W) uint8, instead of the four numbers.

    The part of the picture that is always white is cut off, and the rest is shrunk by averaging, so that
    a shift by less than a pixel still shows in the greys.

    Args:
        env: Gymnasium's CartPole.
        size: height and width of the frame.
        renderer: `fast` draws the state with OpenCV, `gymnasium` takes `env.render()`.
    """

    def __init__(self, env: gym.Env, size: tuple[int, int] = (32, 80), renderer: str = "fast") -> None:
        super().__init__(env)
        if renderer not in ("fast", "gymnasium"):
            raise ValueError(f"renderer is {renderer!r}; it must be 'fast' or 'gymnasium'.")
        if renderer == "gymnasium" and env.render_mode != "rgb_array":
            raise ValueError("the renderer 'gymnasium' needs an environment made with render_mode='rgb_array'.")
        self.size, self.renderer = tuple(size), renderer
        self.observation_space = gym.spaces.Box(0, 255, self.size, np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """The frame (H, W) uint8 of the present state."""
        if self.renderer == "fast":
            picture = draw_cartpole(self.unwrapped.state)
        else:
            picture = cv2.cvtColor(self.env.render()[TOP:BOTTOM], cv2.COLOR_RGB2GRAY)
        return cv2.resize(picture, self.size[::-1], interpolation=cv2.INTER_AREA)


def cartpole_pixels(
    size: tuple[int, int] = (32, 80), stack: int = 4, renderer: str = "fast", render_mode: str | None = None
) -> gym.Env:
    """CartPole-v1 from a stack of grey frames, (stack, H, W) uint8, the newest last."""
    if renderer == "gymnasium":
        render_mode = "rgb_array"
    env = CartPolePicture(gym.make("CartPole-v1", render_mode=render_mode), size, renderer)
    return FrameStackObservation(env, stack)


class TruncationAsEnd(gym.Wrapper):
    """A common mistake, kept for study: the time limit is reported as if the pole had fallen."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        """One step; `terminated` is set where the episode was only cut off."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated or truncated, False, info


def cartpole_truncation_as_end(render_mode: str | None = None) -> gym.Env:
    """CartPole-v1, whose every episode, also one that reaches the time limit, seems to end in a failure."""
    return TruncationAsEnd(gym.make("CartPole-v1", render_mode=render_mode))
