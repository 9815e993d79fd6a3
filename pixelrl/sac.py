"""Soft actor-critic (Haarnoja et al. 2018) from state and from pixels, and three ways to augment it: RAD, DrQ, SVEA.

From pixels there is one encoder. The critic's loss trains it; the actor reads its features and sends no
gradient back (Yarats et al. 2021). The observation is encoded once an update, for critic and actor alike.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.optim import Adam

from pixelrl.augment import overlay_pictures, random_overlay, random_shift
from pixelrl.checkpoint import restore
from pixelrl.configs import SACConfig
from pixelrl.cuda import fused
from pixelrl.nets import Encoder, GaussianActor, TwinCritic, joined, load_joined, move_towards, projection
from pixelrl.replay import Batch, check_batch


def squashed_sample(mean: torch.Tensor, log_std: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """An action a = tanh(u), u ~ N(mean, std), that gradients flow through, and its log-probability.

    log p(a) = sum_i log N(u_i) - log(1 - tanh(u_i)^2), the latter written as 2 (log 2 - u - softplus(-2u)),
    which stays finite where tanh is 1 to the last digit.

    Args:
        mean, log_std: (B, A).

    Returns:
        Actions (B, A) in (-1, 1), and log-probabilities (B,).
    """
    noise = torch.randn_like(mean)
    u = mean + log_std.exp() * noise
    log_normal = -0.5 * noise.pow(2) - log_std - 0.5 * math.log(2 * math.pi)
    log_slope = 2 * (math.log(2) - u - nn.functional.softplus(-2 * u))
    return torch.tanh(u), (log_normal - log_slope).sum(dim=1)


def soft_target(batch: Batch, next_q: torch.Tensor, next_log_prob: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """r + gamma (min_i Q_i(s', a') - alpha log pi(a'|s')), and r alone where the episode terminated: (B,).

    Args:
        batch: of which reward, discount and terminated are used.
        next_q: (2, B), both target critics at the next observation and an action drawn there.
        next_log_prob: (B,), of that action.
        alpha: temperature, a scalar.
    """
    value = next_q.amin(dim=0) - alpha * next_log_prob
    return batch.reward + batch.discount * (1 - batch.terminated) * value


def critic_loss(q: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared error of both critics (2, B) against the target, (B,) or (2, B): mean over the batch, sum over both."""
    return (q - target).pow(2).mean(dim=1).sum()


def actor_loss(q: torch.Tensor, log_prob: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """mean of alpha log pi(a|s) - min_i Q_i(s, a), for values (2, B) and log-probabilities (B,)."""
    return (alpha * log_prob - q.amin(dim=0)).mean()


def temperature_loss(log_alpha: torch.Tensor, log_prob: torch.Tensor, target_entropy: float) -> torch.Tensor:
    """alpha times how far the entropy -log pi is above its target: alpha falls where it is above, rises below."""
    return -(log_alpha.exp() * (log_prob.detach() + target_entropy)).mean()


class Learned(NamedTuple):
    """What the critic's step of an update found out."""

    loss: torch.Tensor
    """A scalar, to be minimised by the encoder and both critics."""
    q: torch.Tensor
    """(2, B), what the critics said of the actions that were taken."""
    target: torch.Tensor
    """(B,), what they should have said."""
    features: torch.Tensor
    """(B, F), of the observations, for the actor."""


def sac_objective(agent: SAC, batch: Batch) -> Learned:
    """The critic's loss of plain SAC: no augmentation."""
    target = agent.target(batch, batch.next_obs)
    features = agent.encoder(batch.obs)
    q = agent.critic(features, batch.action)
    return Learned(critic_loss(q, target), q, target, features)


def rad_objective(agent: SAC, batch: Batch) -> Learned:
    """RAD (Laskin et al. 2020): plain SAC on shifted pictures."""
    return sac_objective(agent, shifted(batch))


def shifted(batch: Batch) -> Batch:
    """A batch whose pictures, and those of what was seen next, are shifted."""
    return batch._replace(obs=random_shift(batch.obs), next_obs=random_shift(batch.next_obs))


def drq_objective(agent: SAC, batch: Batch) -> Learned:
    """DrQ (Yarats et al. 2021): the target is the mean over two shifts, and two shifts of the observation learn it."""
    target = (agent.target(batch, random_shift(batch.next_obs)) + agent.target(batch, random_shift(batch.next_obs))) / 2
    return two_views(agent, batch.action, target, random_shift(batch.obs), random_shift(batch.obs))


def svea_objective(agent: SAC, batch: Batch) -> Learned:
    """SVEA (Hansen, Su & Wang 2021): half of the loss on plain pictures, half on overlaid ones; the target sees none.

    As in the authors' code, all pictures, those of the target too, are shifted first.
    """
    target = agent.target(batch, random_shift(batch.next_obs))
    obs = random_shift(batch.obs)
    return two_views(agent, batch.action, target, obs, random_overlay(obs, agent.pictures))


def two_views(
    agent: SAC, action: torch.Tensor, target: torch.Tensor, obs: torch.Tensor, other: torch.Tensor
) -> Learned:
    """The mean of the losses of two views (B, C, H, W) of the same observations; the actor sees the first."""
    features = agent.encoder(torch.cat([obs, other]))
    q = agent.critic(features, action.repeat(2, 1))
    b = len(action)
    return Learned(critic_loss(q, target.repeat(2)), q[:, :b], target, features[:b])


OBJECTIVES: dict[str, Callable[[SAC, Batch], Learned]] = {
    "sac": sac_objective,
    "rad": rad_objective,
    "drq": drq_objective,
    "svea": svea_objective,
}


class SAC:
    """The agent: an encoder, two critics and their targets, an actor, a temperature.

    Args:
        config: all numbers.
        obs_space: (C, H, W) uint8, C a stack of RGB frames; or (n,) float32.
        action_space: one-dimensional `Box` from -1 to 1; anything else is refused.
        device: where the networks live.
    """

    def __init__(
        self, config: SACConfig, obs_space: gym.spaces.Box, action_space: gym.spaces.Space, device: str = "cpu"
    ) -> None:
        check_spaces(config, obs_space, action_space)
        self.config, self.obs_space, self.device = config, obs_space, torch.device(device)
        self.n_actions = action_space.shape[0]
        self.encoder, self.critic, self.actor = build_networks(config, obs_space, self.n_actions)
        for net in (self.encoder, self.critic, self.actor):
            net.to(self.device)
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = torch.tensor(math.log(config.alpha), device=self.device, requires_grad=True)
        self.target_entropy = -float(self.n_actions)
        learned_by_critic = [*self.encoder.parameters(), *self.critic.parameters()]
        fast = fused(self.device)
        self.critic_optimizer = Adam(learned_by_critic, lr=config.lr, **fast)
        self.actor_optimizer = Adam(self.actor.parameters(), lr=config.lr, **fast)
        self.alpha_optimizer = Adam([self.log_alpha], lr=config.alpha_lr, betas=(0.5, 0.999), **fast)
        self.objective = OBJECTIVES[config.objective]
        self.rng = np.random.default_rng([config.seed, 1])
        self.steps = 0

    @property
    def alpha(self) -> torch.Tensor:
        """The temperature, a scalar without gradient."""
        return self.log_alpha.detach().exp()

    @cached_property
    def pictures(self) -> torch.Tensor:
        """What SVEA lays over observations, (n, C, H, W) uint8; made when it is first asked for, not to act."""
        return overlay_pictures(N_PICTURES, self.obs_space.shape, self.config.seed).to(self.device)

    @torch.no_grad()
    def act(self, obs: np.ndarray, explore: bool) -> np.ndarray:
        """Actions (B, A) float32 in [-1, 1] for observations (B, *shape).

        With `explore`, for training: uniform ones until the first update, then samples of the policy.
        """
        check_batch(obs, self.obs_space)
        self.steps += explore
        if explore and self.steps <= self.config.learning_starts:
            return self.rng.uniform(-1, 1, (len(obs), self.n_actions)).astype(np.float32)
        mean, log_std = self.actor(self.encoder(torch.from_numpy(obs).to(self.device)))
        action = squashed_sample(mean, log_std)[0] if explore else torch.tanh(mean)
        return action.cpu().numpy()

    @torch.no_grad()
    def target(self, batch: Batch, next_obs: torch.Tensor) -> torch.Tensor:
        """What the critics should say of a batch's actions, (B,), given a view of what was seen next.

        The view is encoded once, by the target encoder, for the target critics and for the actor alike.
        """
        features = self.target_encoder(next_obs)
        action, log_prob = squashed_sample(*self.actor(features))
        return soft_target(batch, self.target_critic(features, action), log_prob, self.alpha)

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One gradient step of critics and encoder, actor, and temperature. Returns metrics, detached."""
        return self.learn(self.objective(self, batch.to(self.device)))

    def learn(self, learned: Learned) -> dict[str, torch.Tensor]:
        """The gradient steps of an update, when the critics' loss is known."""
        step(self.critic_optimizer, learned.loss)
        log_prob = self.update_actor(learned.features.detach())
        if self.config.alpha_lr > 0:
            step(self.alpha_optimizer, temperature_loss(self.log_alpha, log_prob, self.target_entropy))
        move_towards(self.target_critic, self.critic, self.config.target_tau)
        if self.config.strides:
            move_towards(self.target_encoder, self.encoder, self.config.encoder_tau)
        q = learned.q.detach()
        return {
            "loss": learned.loss.detach(),
            "q": q.amin(dim=0),
            "td_error": learned.target - q.mean(dim=0),
            "entropy": -log_prob,
            "alpha": self.alpha,
        }

    def update_actor(self, features: torch.Tensor) -> torch.Tensor:
        """One gradient step of the actor; no gradient reaches encoder or critics. Returns log-probabilities (B,)."""
        action, log_prob = squashed_sample(*self.actor(features))
        step(self.actor_optimizer, actor_loss(self.critic(features, action), log_prob, self.alpha))
        return log_prob.detach()

    def state_dict(self) -> dict[str, Any]:
        """Everything that training on needs."""
        return {
            **{name: getattr(self, name).state_dict() for name in self.PARTS},
            "log_alpha": self.log_alpha.detach(),
            "rng": self.rng.bit_generator.state,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for name in self.PARTS:
            restore(getattr(self, name), state[name])
        self.log_alpha.data.copy_(state["log_alpha"])
        self.rng.bit_generator.state = state["rng"]
        self.steps = state["steps"]

    def policy(self) -> dict[str, torch.Tensor]:
        """The tensors of a stored run: encoder and actor, which act, and the critics, which can be asked why."""
        return joined({name: getattr(self, name) for name in self.STORED})

    def load_policy(self, tensors: dict[str, torch.Tensor]) -> None:
        """Act as a stored run did; training on from here starts with fresh optimisers."""
        load_joined({name: getattr(self, name) for name in self.STORED}, tensors)
        self.target_encoder.load_state_dict(self.encoder.state_dict())
        self.target_critic.load_state_dict(self.critic.state_dict())

    STORED = ("encoder", "critic", "actor")
    PARTS = (*STORED, "target_encoder", "target_critic", "critic_optimizer", "actor_optimizer", "alpha_optimizer")


N_PICTURES = 1_024  # to lay over observations


def step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """One gradient step; gradients are computed for the optimiser's own parameters, and for nothing else."""
    optimizer.zero_grad()
    loss.backward(inputs=[parameter for group in optimizer.param_groups for parameter in group["params"]])
    optimizer.step()


def build_networks(
    config: SACConfig, obs_space: gym.spaces.Box, n_actions: int
) -> tuple[nn.Module, TwinCritic, GaussianActor]:
    """Encoder, critics and actor. From state the encoder passes on what it is given, and nothing is projected."""
    if config.strides:
        encoder = Encoder(obs_space.shape[0], config.strides, config.width, config.first_kernel)
        with torch.no_grad():
            n_features = encoder(torch.zeros(1, *obs_space.shape, dtype=torch.uint8)).shape[1]
        size, make_projection = config.projection, partial(projection, n_features, config.projection)
    else:
        encoder, size, make_projection = nn.Identity(), obs_space.shape[0], nn.Identity
    critic = TwinCritic(make_projection(), size, n_actions, config.hidden)
    return encoder, critic, GaussianActor(make_projection(), size, n_actions, config.hidden)


def check_spaces(config: SACConfig, obs_space: gym.spaces.Box, action_space: gym.spaces.Space) -> None:
    """Refuse spaces that SAC, or this config, is not made for.

    Raises:
        TypeError: actions are not a one-dimensional `Box` from -1 to 1.
        ValueError: pixels without an encoder, or an encoder without pixels; or frames that have not three colours.
    """
    box = isinstance(action_space, gym.spaces.Box) and len(action_space.shape) == 1
    if not box or not ((action_space.low == -1).all() and (action_space.high == 1).all()):
        raise TypeError(
            f"SAC needs actions in a one-dimensional Box from -1 to 1; this environment has {action_space}. "
            "gymnasium.wrappers.RescaleAction makes one of any bounded Box."
        )
    if bool(config.strides) != (len(obs_space.shape) == 3):
        raise ValueError(
            f"strides is {config.strides} and observations have shape {obs_space.shape}; "
            "pixels (C, H, W) need the strides of some convolutions, states (n,) need none."
        )
    if config.strides and obs_space.shape[0] % 3:
        raise ValueError(
            f"observations have {obs_space.shape[0]} channels; a stack of colour frames has three a frame."
        )
