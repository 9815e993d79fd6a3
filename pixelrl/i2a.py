"""Imagination-augmented agent (I2A; Racanière et al. 2017): try every action in the head, and then act.

An environment model plays each action out for a few steps; a recurrent network reads each of these rollouts, from its
end to its beginning, into a *code*; and policy and value see the codes beside the board. Nothing makes the agent
believe what it imagines: it learns what to make of it.
"""

from __future__ import annotations

from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical
from torch.nn import functional as F

from pixelrl.actor_critic import A2C, Rollout, board_features
from pixelrl.configs import I2AConfig
from pixelrl.dynamics import CopyModel, EnvironmentModel, load_model
from pixelrl.nets import computing_in, fastest_dtype, joined, load_joined


class Imagined(NamedTuple):
    """A rollout for each action, of T steps."""

    board: torch.Tensor
    """(B, A, T, C, H, W) uint8, after each step; from the end of the game on, the last."""
    reward: torch.Tensor
    """(B, A, T)."""
    alive: torch.Tensor
    """(B, A, T), 0 or 1: whether the game goes on after the step."""


@torch.no_grad()
def imagine(
    model: EnvironmentModel | CopyModel, policy: nn.Module, board: torch.Tensor, n_actions: int, horizon: int
) -> Imagined:
    """Every action once, and then what the rollout policy draws.

    Args:
        model: whose `step` says what comes.
        policy: boards (n, C, H, W) -> logits (n, A).
        board: (B, C, H, W) uint8.
        n_actions: A.
        horizon: T, the first action included.
    """
    b = len(board)
    board = board.repeat_interleave(n_actions, dim=0)  # all actions of the first board, then of the second
    action = torch.arange(n_actions, device=board.device).repeat(b)
    alive = torch.ones(b * n_actions, device=board.device)
    steps = []
    for t in range(horizon):
        if t > 0:
            action = Categorical(logits=policy(board)).sample()
        following, reward, ended = model.step(board, action)
        board = torch.where(alive[:, None, None, None] > 0, following, board)
        reward, alive = alive * reward, alive * (1 - ended)
        steps.append((board, reward, alive))
    return Imagined(*(torch.stack(each, dim=1).unflatten(0, (b, n_actions)) for each in zip(*steps, strict=True)))


class RolloutPolicy(nn.Module):
    """A small policy that acts in rollouts as the agent would, without imagining anything: boards -> logits (B, A)."""

    def __init__(self, obs_shape: tuple[int, ...], n_actions: int, width: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            board_features(obs_shape[0], obs_shape[1:], width, hidden), nn.Linear(hidden, n_actions)
        )

    def forward(self, board: torch.Tensor) -> torch.Tensor:
        with computing_in(fastest_dtype(board.device.type), board.device.type):
            return self.net(board.float()).float()


class RolloutEncoder(nn.Module):
    """Imagined rollouts -> a code for each, (B, A, code): read backwards, as a return is summed up."""

    def __init__(self, board_shape: tuple[int, ...], width: int, hidden: int, code: int) -> None:
        super().__init__()
        self.features = board_features(board_shape[0] + 2, board_shape[1:], width, hidden)
        self.memory = nn.LSTM(hidden, code, batch_first=True)

    def forward(self, imagined: Imagined) -> torch.Tensor:
        told = torch.stack([imagined.reward, imagined.alive], dim=3)[..., None, None]
        planes = told.expand(-1, -1, -1, -1, *imagined.board.shape[-2:])
        steps = torch.cat([imagined.board, planes], dim=3)
        with computing_in(fastest_dtype(steps.device.type), steps.device.type):
            features = self.features(steps.flatten(0, 2)).float()
        _, (code, _) = self.memory(features.unflatten(0, (-1, steps.shape[2])).flip(1))  # (B A, T, hidden)
        return code[0].unflatten(0, steps.shape[:2])


class I2ANet(nn.Module):
    """A board and its rollouts -> logits (B, A) and values (B,)."""

    def __init__(self, obs_shape: tuple[int, ...], n_actions: int, config: I2AConfig) -> None:
        super().__init__()
        self.features = board_features(obs_shape[0], obs_shape[1:], config.width, config.hidden)
        self.encoder = RolloutEncoder(obs_shape, config.width, config.hidden, config.code)
        self.heads = nn.Linear(config.hidden + n_actions * config.code, n_actions + 1)

    def forward(
        self, obs: torch.Tensor, board: torch.Tensor, reward: torch.Tensor, alive: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        codes = self.encoder(Imagined(board, reward, alive)).flatten(1)
        out = self.heads(torch.cat([self.features(obs.float()), codes], dim=1))
        return out[:, :-1], out[:, -1]


def distil_loss(logits: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of a policy and the one that is to become like it, from logits (B, A), in nats: a mean over B.

    It falls as they become alike, and gives no gradient to the first.
    """
    return F.cross_entropy(student, logits.detach().softmax(dim=1))


class I2A(A2C):
    """The agent: an actor-critic that sees what it imagines, and a rollout policy that follows it.

    Args: as `pixelrl.actor_critic.A2C`.

    Raises:
        FileNotFoundError: the environment model is not stored.
    """

    def __init__(
        self, config: I2AConfig, obs_space: gym.spaces.Box, action_space: gym.spaces.Space, device: str = "cpu"
    ) -> None:
        super().__init__(config, obs_space, action_space, device)
        self.rollout_policy = RolloutPolicy(obs_space.shape, self.n_actions, config.width, config.hidden).to(
            self.device
        )
        self.distil_optimizer = torch.optim.Adam(self.rollout_policy.parameters(), lr=config.distil_lr)
        self.model = load_model(config.model).to(self.device)

    def build_net(self) -> nn.Module:
        """A board and its rollouts -> logits (B, A) and values (B,)."""
        return I2ANet(self.obs_space.shape, self.n_actions, self.config)

    def look(self, obs: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Observations (B, C, H, W), and what is imagined of each."""
        (board,) = super().look(obs)
        return (board, *imagine(self.model, self.rollout_policy, board, self.n_actions, self.config.horizon))

    def update(self, rollout: Rollout) -> dict[str, torch.Tensor]:
        """One gradient step of the agent, and one of its rollout policy. Returns metrics, detached."""
        loss = distil_loss(rollout.logits.flatten(0, 1), self.rollout_policy(rollout.seen[0].flatten(0, 1)))
        self.distil_optimizer.zero_grad()
        loss.backward()
        self.distil_optimizer.step()
        return {**super().update(rollout), "distil_loss": loss.detach()}

    STORED = ("net", "rollout_policy")
    PARTS = (*A2C.PARTS, "rollout_policy", "distil_optimizer")

    def policy(self) -> dict[str, torch.Tensor]:
        """The tensors that acting needs, for a stored run; the environment model is a run of its own."""
        return joined({name: getattr(self, name) for name in self.STORED})

    def load_policy(self, tensors: dict[str, torch.Tensor]) -> None:
        """Act as a stored run did; training on from here starts with fresh optimisers."""
        load_joined({name: getattr(self, name) for name in self.STORED}, tensors)
