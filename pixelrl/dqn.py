"""Deep Q-network (Mnih et al. 2015), with double DQN (van Hasselt et al. 2016) as a second target function.

The dueling head is in `pixelrl.nets` and prioritised replay in `pixelrl.prioritised`: parts that are put in,
not branches through the agent.
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pixelrl.checkpoint import restore
from pixelrl.configs import DQNConfig
from pixelrl.cuda import fused
from pixelrl.nets import DuelingHead, move_towards, q_network
from pixelrl.replay import Batch, check_batch


def epsilon_at(step: int, start: float, end: float, steps: int) -> float:
    """Probability of a random action: falls linearly from `start` to `end` over `steps` agent steps."""
    return start + (end - start) * min(1.0, step / steps)


def epsilon_greedy(q: np.ndarray, epsilon: float, rng: np.random.Generator) -> np.ndarray:
    """Actions (B,) int64 for values (B, A): a random one with probability epsilon, else the best."""
    random = rng.integers(q.shape[1], size=len(q))
    return np.where(rng.random(len(q)) < epsilon, random, q.argmax(axis=1))


@torch.no_grad()
def max_target(batch: Batch, q_net: nn.Module, target_net: nn.Module) -> torch.Tensor:
    """r + gamma max_a' Q_target(s', a'), and r alone where the episode terminated: (B,)."""
    next_q = target_net(batch.next_obs).amax(dim=1)
    return batch.reward + batch.discount * (1 - batch.terminated) * next_q


@torch.no_grad()
def double_target(batch: Batch, q_net: nn.Module, target_net: nn.Module) -> torch.Tensor:
    """r + gamma Q_target(s', argmax_a' Q(s', a')): the online network picks, the target network judges. (B,)."""
    best = q_net(batch.next_obs).argmax(dim=1, keepdim=True)
    next_q = target_net(batch.next_obs).gather(1, best).squeeze(1)
    return batch.reward + batch.discount * (1 - batch.terminated) * next_q


def td_loss(q: torch.Tensor, batch: Batch, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted Huber loss of the values of the actions that were taken.

    Args:
        q: (B, A), values of all actions.
        batch: of which `action` and `weight` are used.
        target: (B,), no gradient flows into it.

    Returns:
        The loss, a scalar, and the temporal-difference errors `target - Q(s, a)`, (B,), detached.
    """
    q_taken = q.gather(1, batch.action.unsqueeze(1)).squeeze(1)
    loss = F.smooth_l1_loss(q_taken, target, reduction="none")
    return (batch.weight * loss).mean(), (target - q_taken).detach()


TARGETS = {"max": max_target, "double": double_target}
HEADS = {"linear": nn.Linear, "dueling": DuelingHead}


class DQN:
    """The agent: two copies of one network, an optimiser, and a source of chance for exploration.

    Args:
        config: all numbers.
        obs_space: (C, H, W) uint8 or (n,) float32.
        action_space: `Discrete`; anything else is refused.
        device: where the networks live.
    """

    def __init__(
        self, config: DQNConfig, obs_space: gym.spaces.Box, action_space: gym.spaces.Space, device: str = "cpu"
    ) -> None:
        if not isinstance(action_space, gym.spaces.Discrete):
            raise TypeError(f"DQN needs a Discrete action space; this environment has {action_space}.")
        if bool(config.channels) != (len(obs_space.shape) == 3):
            raise ValueError(
                f"channels is {config.channels} and observations have shape {obs_space.shape}; "
                "pixels (C, H, W) need the widths of two convolutions, states (n,) need none."
            )
        self.config, self.obs_space, self.device = config, obs_space, torch.device(device)
        self.q_net = q_network(
            obs_space.shape, int(action_space.n), config.hidden, config.channels, HEADS[config.head]
        ).to(self.device)
        self.target_net = copy.deepcopy(self.q_net).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.q_net.parameters(), lr=config.lr, **fused(self.device))
        self.target = TARGETS[config.target]
        self.rng = np.random.default_rng([config.seed, 1])
        self.steps = 0

    @torch.no_grad()
    def q_values(self, obs: np.ndarray) -> np.ndarray:
        """Action values (B, A) of observations (B, *shape)."""
        check_batch(obs, self.obs_space)
        return self.q_net(torch.from_numpy(obs).to(self.device)).cpu().numpy()

    def act(self, obs: np.ndarray, explore: bool) -> np.ndarray:
        """Actions (B,) for observations (B, *shape); `explore` is for training and moves epsilon on."""
        q = self.q_values(obs)
        if not explore:
            return q.argmax(axis=1)
        c = self.config
        epsilon = epsilon_at(self.steps, c.epsilon_start, c.epsilon_end, c.epsilon_steps)
        self.steps += 1
        return epsilon_greedy(q, epsilon, self.rng)

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One gradient step. Returns the loss, the values and the temporal-difference errors, detached."""
        batch = batch.to(self.device)
        target = self.target(batch, self.q_net, self.target_net)
        q = self.q_net(batch.obs)
        loss, td_error = td_loss(q, batch, target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        move_towards(self.target_net, self.q_net, self.config.target_tau)
        return {"loss": loss.detach(), "q": q.detach().amax(dim=1), "td_error": td_error}

    def state_dict(self) -> dict[str, Any]:
        """Everything that training on needs."""
        return {
            "q_net": self.q_net.state_dict(),
            "target_net": self.target_net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for name in ("q_net", "target_net", "optimizer"):
            restore(getattr(self, name), state[name])
        self.rng.bit_generator.state = state["rng"]
        self.steps = state["steps"]

    def policy(self) -> dict[str, torch.Tensor]:
        """The tensors that acting needs, for a stored run."""
        return self.q_net.state_dict()

    def load_policy(self, tensors: dict[str, torch.Tensor]) -> None:
        """Act as a stored run did; training on from here starts with a fresh optimiser."""
        self.q_net.load_state_dict(tensors)
        self.target_net.load_state_dict(tensors)
