"""MinAtar (Young & Tian 2019): five Atari games on boards of 10 × 10, on which a step takes ten microseconds."""

from __future__ import annotations

import cv2
import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TimeLimit
from minatar import Environment

COLOURS = np.array(  # of the empty board, and of the planes in their order
    [(24, 28, 38), (86, 180, 233), (240, 240, 240), (120, 120, 130), (213, 94, 0), (0, 158, 115), (204, 121, 167)],
    np.uint8,
)
GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
CELL = 24  # pixels of a cell's side in a picture for people


class Game(gym.Env):
    """A game as planes of zeros and ones, (C, 10, 10) uint8; actions that do nothing are left out.

    A seed determines it; in MinAtar itself, the last action of one episode can be repeated in the next.

    Args:
        name: one of `GAMES`.
        render_mode: `rgb_array` for videos.
        sticky: probability that the last action is repeated instead of the one that was chosen.

    Raises:
        ValueError: there is no such game.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, name: str, render_mode: str | None = None, sticky: float = 0.1) -> None:
        if name not in GAMES:
            raise ValueError(f"there is no game {name!r}; MinAtar has {', '.join(GAMES)}.")
        self.game, self.render_mode = Environment(name, sticky_action_prob=sticky), render_mode
        self.actions = self.game.minimal_action_set()
        height, width, planes = self.game.state_shape()
        self.action_space = gym.spaces.Discrete(len(self.actions))
        self.observation_space = gym.spaces.Box(0, 1, (planes, height, width), np.uint8)

    def board(self) -> np.ndarray:
        """What can be seen."""
        return self.game.state().transpose(2, 0, 1).astype(np.uint8)

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begin a game. Returns the board, and an empty dictionary."""
        super().reset(seed=seed)
        self.game.seed(seed)
        self.game.last_action = 0
        self.game.reset()
        return self.board(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Board, reward, whether the game is over, False, and an empty dictionary, after an action."""
        reward, ended = self.game.act(self.actions[action])
        return self.board(), float(reward), bool(ended), False, {}

    def render(self) -> np.ndarray | None:
        """A picture of the board."""
        return picture(self.board()) if self.render_mode else None


def minatar(
    game: str = "breakout", max_steps: int = 1_000, render_mode: str | None = None, sticky: float = 0.1
) -> gym.Env:
    """A game that is cut off after `max_steps`; see `Game`.

    The planes of Breakout are the paddle, the ball, where the ball was a step before, and the bricks; its actions are
    to stay, left and right.
    """
    return TimeLimit(Game(game, render_mode, sticky), max_steps)


def picture(board: np.ndarray) -> np.ndarray:
    """A board (C, H, W) of numbers from 0 to 1 in colours, (H × 24, W × 24, 3) uint8; what is unsure is faint."""
    colours = COLOURS[1 : len(board) + 1].astype(float)
    seen = np.full((*board.shape[1:], 3), COLOURS[0], float)
    for plane, colour in zip(board[::-1], colours[::-1], strict=True):  # the first planes on top
        seen = seen + plane[..., None] * (colour - seen)
    return cv2.resize(seen.astype(np.uint8), None, fx=CELL, fy=CELL, interpolation=cv2.INTER_NEAREST)
