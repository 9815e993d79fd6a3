"""Predictive SGQN: values that are learned from predicted states too, and that survive their masks there.

Nishikata and Yamauchi (DIA 2023) put predicted states into the value function; the paper that this book ends with adds
SGQN's masks to them. A video predictor, trained before and frozen, rolls some of the next states forward under the
current policy. The target blends the values of the next state and of the predicted ones (eq. 4); the consistency loss
asks for the same values of all these states when only their salient pixels are left (eq. 5).
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch

from pixelrl.augment import random_shift
from pixelrl.foresight import Predictor, build_predictor
from pixelrl.replay import Batch
from pixelrl.sac import SAC, Learned, critic_loss, shifted, squashed_sample
from pixelrl.sgqn import SGQN, whole_and_masked


class Ahead(NamedTuple):
    """The next state of m samples and those predicted after it: N in all, s_{t+1} to s_{t+N}."""

    obs: torch.Tensor
    """(N, m, C, H, W) uint8; the first are real."""
    action: torch.Tensor
    """(N, m, A), drawn from the policy at these states."""
    log_prob: torch.Tensor
    """(N, m), of these actions."""


@torch.no_grad()
def look_ahead(agent: SAC, predictor: Predictor, batch: Batch, horizon: int) -> Ahead:
    """Roll the next states of m transitions forward under the agent's policy. No gradient flows.

    Args:
        agent: whose policy acts, on the features of its target encoder, as in the target of SAC.
        predictor: of frames.
        batch: m transitions, with what led to their next states.
        horizon: N.
    """
    predictor.begin(batch)
    obs, steps = batch.next_obs, []
    for n in range(1, horizon + 1):
        action, log_prob = squashed_sample(*agent.actor(agent.target_encoder(obs)))
        steps.append((obs, action, log_prob))
        if n < horizon:
            obs = torch.cat([obs[:, 3:], predictor.step(action)], dim=1)
    return Ahead(*(torch.stack(each) for each in zip(*steps, strict=True)))


@torch.no_grad()
def soft_values(agent: SAC, ahead: Ahead) -> torch.Tensor:
    """min_i Q_i(s, a) - alpha log pi(a|s) of all states, by the target critics: (N, m)."""
    q = agent.target_critic(agent.target_encoder(ahead.obs.flatten(0, 1)), ahead.action.flatten(0, 1)).amin(dim=0)
    return q.unflatten(0, ahead.log_prob.shape) - agent.alpha * ahead.log_prob


def blended(value: torch.Tensor, share: float) -> torch.Tensor:
    """Of values (N, m), the first and the mean of the others, in these shares (eq. 4 has one half): (m,)."""
    return (1 - share) * value[0] + share * value[1:].mean(dim=0)


@torch.no_grad()
def predictive_target(agent: SAC, batch: Batch, ahead: Ahead, share: float) -> torch.Tensor:
    """What the critics should say, (B,): by eq. 4 for the first m samples, which were rolled forward, else as ever."""
    m = ahead.action.shape[1]
    first = batch.part(slice(m))
    rolled = first.reward + first.discount * (1 - first.terminated) * blended(soft_values(agent, ahead), share)
    if m == len(batch.reward):
        return rolled
    others = batch.part(slice(m, None))
    return torch.cat([rolled, agent.target(others, others.next_obs)])


def consistency_weights(horizon: int, share: float) -> list[float]:
    """Of the states s_t to s_{t+N} in the consistency loss, of sum 1: 1 - share, and a geometric series for the others.

    With a share of one half, eq. 5: 1/2, 1/4, 1/8, ..., 1/2^N, and again 1/2^N.

    Raises:
        ValueError: a horizon of 1, for which the series is not defined: s_{t+1} would be its term before the last and
            its last one.
    """
    if horizon < 2:
        raise ValueError(f"the horizon is {horizon}; N must be at least 2, for the states from t + 2 on are predicted.")
    series = [2.0**-n for n in range(1, horizon)] + [2.0 ** (1 - horizon)]
    return [1 - share, *(share * weight for weight in series)]


def predictive_objective(agent: SGQN, batch: Batch, ahead: Ahead) -> tuple[Learned, torch.Tensor]:
    """The critic's loss with predicted states (eq. 6), and the mask (B, 1, H, W) of the observations."""
    c, b, m = agent.config, len(batch.action), ahead.action.shape[1]
    target = predictive_target(agent, batch, ahead, c.in_target)
    n = c.horizon if c.in_consistency > 0 else 0
    obs = torch.cat([batch.obs, ahead.obs[:n].flatten(0, 1)])
    views = whole_and_masked(agent, obs, torch.cat([batch.action, ahead.action[:n].flatten(0, 1)]))
    weights, parts = consistency_weights(c.horizon, c.in_consistency)[: n + 1], [b, *[m] * n]
    pairs = zip(views.q_masked.split(parts, dim=1), views.q.detach().split(parts, dim=1), strict=True)
    consistency = sum(weight * critic_loss(*pair) for weight, pair in zip(weights, pairs, strict=True))
    loss = critic_loss(views.q[:, :b], target) + c.consistency * consistency
    return Learned(loss, views.q[:, :b], target, views.features[:b]), views.mask[:b]


class LooksAhead:
    """Beside an agent's class: what it foresees with."""

    @cached_property
    def predictor(self) -> Predictor:
        """Made when it is first asked for, not to act."""
        return build_predictor(self.config, self.device)


class PredictiveSAC(LooksAhead, SAC):
    """SAC whose target blends in the values of predicted states (eq. 4).

    Args: as `pixelrl.sac.SAC`.
    """

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One gradient step of everything in SAC. Returns metrics, detached."""
        batch = batch.to(self.device)
        target = predictive_target(self, batch, ahead_of(self, batch), self.config.in_target)
        features = self.encoder(batch.obs)
        q = self.critic(features, batch.action)
        return self.learn(Learned(critic_loss(q, target), q, target, features))


class PredictiveSGQN(LooksAhead, SGQN):
    """SGQN that learns from predicted states in its target and in its consistency loss (eq. 6).

    Args: as `pixelrl.sac.SAC`.
    """

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One gradient step of everything in SAC, and one of the attribution loss. Returns metrics, detached."""
        if self.config.in_target == self.config.in_consistency == 0:
            return SGQN.update(self, batch)
        batch = batch.to(self.device)
        ahead = ahead_of(self, batch)  # from pictures that are not shifted, as the predictor knows them
        ahead = ahead._replace(obs=random_shift(ahead.obs.flatten(0, 1)).unflatten(0, ahead.log_prob.shape))
        batch = shifted(batch)
        learned, mask = predictive_objective(self, batch, ahead)
        metrics = self.learn(learned)
        return {**metrics, "attribution_loss": self.update_decoder(batch, mask)}


def ahead_of(agent: PredictiveSAC | PredictiveSGQN, batch: Batch) -> Ahead:
    """Roll the first transitions of a batch forward, as many as the config says."""
    first = batch.part(slice(agent.config.rolled_forward(len(batch.action))))
    return look_ahead(agent, agent.predictor, first, agent.config.horizon)
