"""Dyna (Sutton 1990): learn from what happened, and between two steps from what a model says would have happened.

The model is an ensemble, and is followed for a few steps only, each from a state that was really seen (Janner et al.
2019): what one network has misunderstood the others have not, and a mistake has no time to grow.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import torch
from torch import nn
from torch.nn import functional as F

from pixelrl.checkpoint import restore
from pixelrl.configs import DynaConfig
from pixelrl.cuda import fused
from pixelrl.dqn import DQN
from pixelrl.nets import mlp
from pixelrl.replay import Batch


class Foretold(NamedTuple):
    """What each of E networks says comes next."""

    obs: torch.Tensor
    """(E, B, n)."""
    reward: torch.Tensor
    """(E, B)."""
    ended: torch.Tensor
    """(E, B), logits of the end of the episode."""


class StateModel(nn.Module):
    """An ensemble that says how a state (B, n) changes with an action (B,).

    Each network is given the state in units of its spread, and says the change in units of the spread of changes, as
    both were found so far: the slowest of the quantities counts as much as the fastest.

    Args:
        n_state: n.
        n_actions: A.
        hidden: widths of the layers.
        members: E.
    """

    def __init__(self, n_state: int, n_actions: int, hidden: tuple[int, ...], members: int) -> None:
        super().__init__()
        self.n_actions = n_actions
        self.members = nn.ModuleList(
            nn.Sequential(mlp([n_state + n_actions, *hidden]), nn.Linear(hidden[-1], n_state + 2))
            for _ in range(members)
        )
        self.register_buffer("spread", torch.ones(n_state))
        self.register_buffer("change_spread", torch.ones(n_state))

    def outputs(self, obs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """(E, B, n + 2): the change in units of its spread, the reward, and the logit of the end."""
        x = torch.cat([obs / self.spread, F.one_hot(action, self.n_actions)], dim=1)
        return torch.stack([member(x) for member in self.members])

    def forward(self, obs: torch.Tensor, action: torch.Tensor) -> Foretold:
        out = self.outputs(obs, action)
        return Foretold(obs + out[..., :-2] * self.change_spread, out[..., -2], out[..., -1])

    def loss(self, batch: Batch) -> torch.Tensor:
        """Squared errors of change and reward, and cross-entropy of the end: sum over these, mean over E and B."""
        out = self.outputs(batch.obs, batch.action)
        change = (batch.next_obs - batch.obs) / self.change_spread
        e = len(self.members)
        error = (out[..., :-2] - change).pow(2).sum(2) + (out[..., -2] - batch.reward).pow(2)
        end = F.binary_cross_entropy_with_logits(out[..., -1], batch.terminated.expand(e, -1), reduction="none")
        return (error + end).mean()

    @torch.no_grad()
    def measure(self, batch: Batch, share: float = 0.01) -> None:
        """Move the spreads a little towards those of a batch."""
        self.spread.lerp_(batch.obs.std(dim=0) + 1e-6, share)
        self.change_spread.lerp_((batch.next_obs - batch.obs).std(dim=0) + 1e-6, share)

    @torch.no_grad()
    def step(self, obs: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Next state (B, n), reward (B,) and probability of the end (B,), each sample by a network drawn for it."""
        said = self(obs, action)
        who = torch.randint(len(self.members), (len(obs),), device=obs.device)
        rows = torch.arange(len(obs), device=obs.device)
        return said.obs[who, rows], said.reward[who, rows], said.ended[who, rows].sigmoid()


class Dyna(DQN):
    """DQN that also learns from imagined steps.

    Args: as `pixelrl.dqn.DQN`, from states.

    Raises:
        ValueError: observations are pixels.
    """

    def __init__(
        self, config: DynaConfig, obs_space: gym.spaces.Box, action_space: gym.spaces.Space, device: str = "cpu"
    ) -> None:
        super().__init__(config, obs_space, action_space, device)
        if len(obs_space.shape) != 1:
            raise ValueError(f"this model is one of states (n,); observations have shape {obs_space.shape}.")
        sizes = obs_space.shape[0], int(action_space.n), config.model_hidden, config.ensemble
        self.model = StateModel(*sizes).to(self.device)
        self.model_optimizer = torch.optim.Adam(self.model.parameters(), lr=config.model_lr, **fused(self.device))

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One gradient step of the model, one of the values from what happened, and some from what is imagined."""
        batch = batch.to(self.device)
        self.model.measure(batch)
        loss = self.model.loss(batch)
        self.model_optimizer.zero_grad()
        loss.backward()
        self.model_optimizer.step()
        metrics = super().update(batch)
        for _ in range(self.config.branches):
            if self.config.further == "imagined":
                self.learn_imagined(batch)
                continue
            for _ in range(self.config.rollout):
                super().update(batch)
        return {**metrics, "model_loss": loss.detach()}

    def learn_imagined(self, batch: Batch) -> None:
        """Follow the model from the states of a batch, a random action first, then the best, and learn from each step.

        An episode that ends with some probability counts for so much less from then on.
        """
        obs, alive = batch.obs, torch.ones_like(batch.reward)
        for t in range(self.config.rollout):
            with torch.no_grad():
                best = self.q_net(obs).argmax(dim=1)
            action = torch.randint_like(best, self.model.n_actions) if t == 0 else best
            following, reward, ended = self.model.step(obs, action)
            imagined = batch._replace(
                obs=obs, action=action, reward=reward, next_obs=following, terminated=ended, weight=alive
            )
            DQN.update(self, imagined)
            obs, alive = following, alive * (1 - ended)

    def state_dict(self) -> dict[str, Any]:
        """Everything that training on needs."""
        mine = {name: getattr(self, name).state_dict() for name in ("model", "model_optimizer")}
        return {**super().state_dict(), **mine}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        super().load_state_dict(state)
        for name in ("model", "model_optimizer"):
            restore(getattr(self, name), state[name])
