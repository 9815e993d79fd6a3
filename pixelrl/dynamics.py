"""A model of a game on a board: what comes next, what is won, and whether it is over; and how it is trained.

It learns from the play of an agent that is partly trained: one that knows nothing never sees most of the game.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn
from torch.nn import functional as F

from pixelrl import envs, runs
from pixelrl.configs import ActorCriticConfig, DynamicsConfig
from pixelrl.cuda import chosen_device, randomness_kept
from pixelrl.fitting import Fitting
from pixelrl.nets import computing_in, fastest_dtype

PLAY_SEED = 50_000  # all models see the same play
ROOMS = 32  # environments side by side in which it is recorded


class Outcome(NamedTuple):
    """What a model says comes next, as logits."""

    board: torch.Tensor
    """(B, C, H, W), of each cell of each plane."""
    reward: torch.Tensor
    """(B,), of a reward of 1; there is no other but 0."""
    ended: torch.Tensor
    """(B,), of the end of the game."""


class EnvironmentModel(nn.Module):
    """A board and an action, drawn as planes -> `Outcome`.

    Args:
        board_shape: (C, H, W).
        n_actions: A.
        width: filters of a layer.
    """

    def __init__(self, board_shape: tuple[int, ...], n_actions: int, width: int) -> None:
        super().__init__()
        planes, height, w = board_shape
        self.n_actions = n_actions
        self.trunk = nn.Sequential(
            nn.Conv2d(planes + n_actions, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.board = nn.Conv2d(width, planes, 1)
        self.outcome = nn.Sequential(nn.Conv2d(width, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * height * w, 2))
        self.to(memory_format=torch.channels_last)

    def forward(self, board: torch.Tensor, action: torch.Tensor) -> Outcome:
        planes = F.one_hot(action, self.n_actions)[:, :, None, None].expand(-1, -1, *board.shape[2:])
        x = torch.cat([board, planes], dim=1).float().contiguous(memory_format=torch.channels_last)
        with computing_in(fastest_dtype(x.device.type), x.device.type):
            x = self.trunk(x)
            following, outcome = self.board(x), self.outcome(x).float()
        return Outcome(following.float(), *outcome.unbind(dim=1))

    @torch.no_grad()
    def step(self, board: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The likeliest next board (B, C, H, W) uint8, reward (B,) and end (B,), 0 or 1 each."""
        said = self(board, action)
        return (said.board > 0).to(board.dtype), (said.reward > 0).float(), (said.ended > 0).float()


class CopyModel(nn.Module):
    """The control: nothing ever happens. Whoever imagines with it has the same network, and no information."""

    def step(self, board: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same board, no reward, no end."""
        nothing = torch.zeros(len(board), device=board.device)
        return board, nothing, nothing


class Play(NamedTuple):
    """Steps of a game."""

    board: torch.Tensor
    """(n, C, H, W) uint8."""
    action: torch.Tensor
    """(n,) int64."""
    reward: torch.Tensor
    """(n,) float32."""
    next_board: torch.Tensor
    """(n, C, H, W) uint8; of a game that ended, its last."""
    ended: torch.Tensor
    """(n,) float32, 0 or 1."""

    def at(self, rows: torch.Tensor | slice, device: torch.device) -> Play:
        """Some of the steps, on a device."""
        return Play(*(part[rows].to(device) for part in self))


@randomness_kept()
def record(teacher: runs.Run, steps: int, seed: int) -> Play:
    """Steps of the game as a stored agent plays it, its actions drawn from its policy. Leaves torch's random state."""
    kwargs = teacher.config.env_kwargs
    rooms = SyncVectorEnv(
        [lambda: envs.make(teacher.config.env, **kwargs)] * ROOMS, autoreset_mode=AutoresetMode.SAME_STEP
    )
    agent, (obs, _), parts = teacher.agent(), rooms.reset(seed=seed), []
    torch.manual_seed(seed)  # not before: to build an agent is to begin with its own seed
    for _ in range(-(-steps // ROOMS)):
        action = agent.act(obs, explore=True)
        following, reward, terminated, truncated, info = rooms.step(action)
        last, over = following.copy(), terminated | truncated
        if over.any():
            last[over] = np.stack(info["final_obs"][over])
        parts.append((obs, action, reward.astype(np.float32), last, terminated.astype(np.float32)))
        obs = following
    return Play(*(torch.from_numpy(np.concatenate(each)[:steps]) for each in zip(*parts, strict=True)))


def model_loss(said: Outcome, play: Play) -> torch.Tensor:
    """Negative log-likelihood of what came, in nats: the sum over the cells, the reward and the end; mean over B."""
    board = F.binary_cross_entropy_with_logits(said.board, play.next_board.float(), reduction="none").sum((1, 2, 3))
    reward = F.binary_cross_entropy_with_logits(said.reward, play.reward, reduction="none")
    ended = F.binary_cross_entropy_with_logits(said.ended, play.ended, reduction="none")
    return (board + reward + ended).mean()


def build_model(config: DynamicsConfig) -> EnvironmentModel:
    """A fresh network, its parameters drawn from the config's seed, on the config's device."""
    env = envs.make(config.env, **config.env_kwargs)
    torch.manual_seed(config.seed)
    model = EnvironmentModel(env.observation_space.shape, int(env.action_space.n), config.width)
    env.close()
    return model.to(chosen_device(config.device))


@randomness_kept()
def load_model(name: str) -> EnvironmentModel | CopyModel:
    """The network of a stored run, on the processor, its parameters without gradient; or, for `copy`, the control."""
    if name == "copy":
        return CopyModel()
    run = runs.first(name, DynamicsConfig)
    model = build_model(replace(run.config, device="cpu"))
    model.load_state_dict(run.policy)
    return model.requires_grad_(False)


class ModelTraining(Fitting):
    """A training of a model of a game in progress.

    Args:
        config: from `presets.get`.
    """

    def __init__(self, config: DynamicsConfig) -> None:
        torch.set_num_threads(config.threads)
        teacher = runs.first(config.teacher, ActorCriticConfig)
        self.play = record(teacher, config.transitions, PLAY_SEED)
        held_out = record(teacher, config.held_out, PLAY_SEED + ROOMS)  # each environment takes a seed of its own
        super().__init__(config, build_model(config))
        self.held_out = held_out.at(slice(None), self.device)

    def loss(self) -> torch.Tensor:
        """Of steps of the recorded play."""
        play = self.play.at(torch.randint(len(self.play.action), (self.config.batch_size,)), self.device)
        return model_loss(self.model(play.board, play.action), play)

    def scores(self) -> dict[str, float]:
        """Of what the model says of play that it has not seen."""
        return accuracy(self.model, self.held_out)


@torch.no_grad()
def accuracy(model: EnvironmentModel | CopyModel, play: Play) -> dict[str, float]:
    """Shares: of boards foretold to the last cell, of rewards that were foretold, and of ends; nan where none came."""
    board, reward, ended = model.step(play.board, play.action)
    return {
        "boards_right": float((board == play.next_board).all(dim=(1, 2, 3)).float().mean()),
        "rewards_found": float(reward[play.reward == 1].mean()),
        "ends_found": float(ended[play.ended == 1].mean()),
    }
