"""Advantage actor-critic (A2C; Mnih et al. 2016): learn from what was just done, in many environments side by side.

The critic learns what a state is worth; the actor makes those actions more frequent that brought more than that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical
from torch.nn import functional as F

from pixelrl.checkpoint import restore
from pixelrl.configs import ActorCriticConfig
from pixelrl.replay import check_batch


class Choice(NamedTuple):
    """What an agent does, and what it thought."""

    action: torch.Tensor
    """(B,) int64, drawn from the policy."""
    value: torch.Tensor
    """(B,), what the critic expects."""
    logits: torch.Tensor
    """(B, A), the policy."""


class Rollout(NamedTuple):
    """What T steps in N environments side by side brought."""

    seen: tuple[torch.Tensor, ...]
    """What the network was given before each action, (T, N, ...) each: the observation, and what was imagined of it."""
    action: torch.Tensor
    """(T, N) int64."""
    reward: torch.Tensor
    """(T, N); where an episode was cut off, with the discounted value of what would have come."""
    ended: torch.Tensor
    """(T, N) 0 or 1: whether an episode ended with this step."""
    value: torch.Tensor
    """(T + 1, N): what the critic expected, before each action and after the last."""
    logits: torch.Tensor
    """(T, N, A): the policy that acted."""


def generalised_advantage(
    reward: torch.Tensor, ended: torch.Tensor, value: torch.Tensor, gamma: float, gae_lambda: float
) -> torch.Tensor:
    """How much better each action was than expected (Schulman et al. 2016, eq. 16): (T, N), from `Rollout`."""
    going = gamma * (1 - ended)
    error = reward + going * value[1:] - value[:-1]
    advantage = torch.empty_like(reward)
    later = torch.zeros_like(reward[0])
    for t in reversed(range(len(reward))):
        later = error[t] + gae_lambda * going[t] * later
        advantage[t] = later
    return advantage


def actor_critic_loss(
    logits: torch.Tensor, value: torch.Tensor, action: torch.Tensor, advantage: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The actor's loss, the critic's, and the policy's entropy in nats, a mean over B each.

    Args:
        logits: (B, A), of the actions.
        value: (B,), what the critic says now.
        action: (B,), what was done.
        advantage: (B,), without gradient.
        target: (B,), what the critic should have said.
    """
    policy = Categorical(logits=logits)
    actor = -(policy.log_prob(action) * advantage).mean()
    return actor, F.mse_loss(value, target), policy.entropy().mean()


def board_features(n_planes: int, board: tuple[int, int], width: int, size: int) -> nn.Sequential:
    """A convolution and a layer, (B, n_planes, H, W) numbers -> (B, size): enough for boards of 10 × 10."""
    return nn.Sequential(
        nn.Conv2d(n_planes, width, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(width * board[0] * board[1], size),
        nn.ReLU(),
    )


class PolicyAndValue(nn.Module):
    """Boards (B, C, H, W) -> logits (B, A) and values (B,)."""

    def __init__(self, obs_shape: tuple[int, ...], n_actions: int, width: int, hidden: int) -> None:
        super().__init__()
        self.features = board_features(obs_shape[0], obs_shape[1:], width, hidden)
        self.heads = nn.Linear(hidden, n_actions + 1)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.heads(self.features(obs.float()))
        return out[:, :-1], out[:, -1]


class A2C:
    """The agent.

    Args:
        config: from `presets.get`.
        obs_space: boards (C, H, W).
        action_space: `Discrete`.
        device: for the networks.

    Raises:
        ValueError: another action space.
    """

    def __init__(
        self, config: ActorCriticConfig, obs_space: gym.spaces.Box, action_space: gym.spaces.Space, device: str = "cpu"
    ) -> None:
        if not isinstance(action_space, gym.spaces.Discrete):
            raise ValueError(f"this actor-critic chooses among discrete actions; the environment has {action_space}.")
        self.config, self.obs_space, self.n_actions = config, obs_space, int(action_space.n)
        self.device = torch.device(device)
        self.net = self.build_net().to(self.device)
        self.optimizer = torch.optim.RMSprop(self.net.parameters(), lr=config.lr, alpha=0.99, eps=1e-5)

    def build_net(self) -> nn.Module:
        """What `look` gives -> logits (B, A) and values (B,)."""
        return PolicyAndValue(self.obs_space.shape, self.n_actions, self.config.width, self.config.hidden)

    def look(self, obs: np.ndarray) -> tuple[torch.Tensor, ...]:
        """What the network is given of observations (B, C, H, W)."""
        check_batch(obs, self.obs_space)
        return (torch.from_numpy(obs).to(self.device),)

    @torch.no_grad()
    def choose(self, seen: tuple[torch.Tensor, ...]) -> Choice:
        """What to do, given what `look` gave."""
        logits, value = self.net(*seen)
        return Choice(Categorical(logits=logits).sample(), value, logits)

    @torch.no_grad()
    def act(self, obs: np.ndarray, explore: bool) -> np.ndarray:
        """Actions (B,) for observations (B, C, H, W): drawn from the policy, or its most probable."""
        choice = self.choose(self.look(obs))
        action = choice.action if explore else choice.logits.argmax(dim=1)
        return action.cpu().numpy()

    def update(self, rollout: Rollout) -> dict[str, torch.Tensor]:
        """One gradient step. Returns metrics, detached."""
        c = self.config
        advantage = generalised_advantage(rollout.reward, rollout.ended, rollout.value, c.gamma, c.gae_lambda)
        target = (advantage + rollout.value[:-1]).flatten()
        logits, value = self.net(*(part.flatten(0, 1) for part in rollout.seen))
        actor, critic, entropy = actor_critic_loss(logits, value, rollout.action.flatten(), advantage.flatten(), target)
        self.optimizer.zero_grad()
        (actor + c.value_weight * critic - c.entropy * entropy).backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), c.max_norm)
        self.optimizer.step()
        return {
            "actor_loss": actor.detach(),
            "critic_loss": critic.detach(),
            "entropy": entropy.detach(),
            "value": value.detach(),
        }

    PARTS = ("net", "optimizer")

    def state_dict(self) -> dict[str, Any]:
        """Everything that training on needs."""
        return {name: getattr(self, name).state_dict() for name in self.PARTS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for name in self.PARTS:
            restore(getattr(self, name), state[name])

    def policy(self) -> dict[str, torch.Tensor]:
        """The tensors that acting needs, for a stored run."""
        return self.net.state_dict()

    def load_policy(self, tensors: dict[str, torch.Tensor]) -> None:
        """Act as a stored run did; training on from here starts with a fresh optimiser."""
        self.net.load_state_dict(tensors)
