"""Predictive SGQN: values that are learned from predicted states too, and saliency that is consistent on them.

After 西片 & 山内 (2023). A video predictor, trained before and frozen, rolls some of the batch's next states on under
the current policy. The target blends the values of the next state and of the predicted ones (eq. 4); the consistency
loss asks for the same values of all these states when only their salient pixels are left (eq. 5).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import gymnasium as gym
import torch

from pixelrl import runs
from pixelrl.augment import random_shift
from pixelrl.cdna import CDNA, as_bytes, as_numbers, remembered
from pixelrl.predictor import load_model
from pixelrl.presets import PredictiveSACConfig, PredictiveSGQNConfig
from pixelrl.replay import Batch
from pixelrl.sac import SAC, Learned, critic_loss, shifted, squashed_sample
from pixelrl.sgqn import SGQN, whole_and_masked


class Predictor(Protocol):
    """What foresees frames: it is shown the past, and then told one action after the other."""

    def begin(self, frames: torch.Tensor, actions: torch.Tensor) -> None:
        """The past: frames (m, K, 3, H, W) uint8, and the actions (m, K - 1, A) between them."""

    def step(self, action: torch.Tensor) -> torch.Tensor:
        """The frame (m, 3, H, W) uint8 after an action (m, A)."""


class CDNAPredictor:
    """A trained network, which sees the past and then goes on from its own frames.

    Args:
        model: its parameters get no gradient.
    """

    def __init__(self, model: CDNA) -> None:
        self.model = model.requires_grad_(False)

    def begin(self, frames: torch.Tensor, actions: torch.Tensor) -> None:
        self.state = remembered(self.model, frames, actions)
        self.frame = as_numbers(frames[:, -1])

    @torch.no_grad()
    def step(self, action: torch.Tensor) -> torch.Tensor:
        prediction = self.model(self.frame, action, self.state)
        self.frame, self.state = prediction.frame, prediction.state
        return as_bytes(self.frame)


class CopyPredictor:
    """Nothing will change."""

    def begin(self, frames: torch.Tensor, actions: torch.Tensor) -> None:
        self.frame = frames[:, -1]

    def step(self, action: torch.Tensor) -> torch.Tensor:
        return self.frame


class BackgroundPredictor:
    """The scene will be empty: the median of every pixel over all frames of the past that it is shown."""

    def begin(self, frames: torch.Tensor, actions: torch.Tensor) -> None:
        self.picture = frames.flatten(0, 1).median(dim=0).values

    def step(self, action: torch.Tensor) -> torch.Tensor:
        return self.picture.expand(len(action), *self.picture.shape)


class ShuffledPredictor:
    """What another predictor foresees for another sample of the batch: good pictures, of the wrong future."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def begin(self, frames: torch.Tensor, actions: torch.Tensor) -> None:
        self.predictor.begin(frames, actions)

    def step(self, action: torch.Tensor) -> torch.Tensor:
        return self.predictor.step(action).roll(1, dims=0)


class Ahead(NamedTuple):
    """The next state of m samples and those predicted after it: N in all, s_{t+1} to s_{t+N}."""

    obs: torch.Tensor
    """(N, m, C, H, W) uint8; the first are real."""
    action: torch.Tensor
    """(N, m, A), drawn from the policy at these states."""
    log_prob: torch.Tensor
    """(N, m), of these actions."""


@torch.no_grad()
def look_ahead(
    agent: SAC, predictor: Predictor, next_obs: torch.Tensor, frames: torch.Tensor, actions: torch.Tensor, horizon: int
) -> Ahead:
    """Roll states on under the agent's policy. No gradient flows.

    Args:
        agent: whose policy acts, on the features of its target encoder, as in the target of SAC.
        predictor: of frames.
        next_obs: (m, C, H, W) uint8, the real next states.
        frames: (m, K, 3, H, W) uint8, what led to them.
        actions: (m, K - 1, A), between these frames.
        horizon: N.
    """
    predictor.begin(frames, actions)
    obs, steps = next_obs, []
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
    """What the critics should say, (B,): by eq. 4 for the first m samples, which were rolled on, else as ever."""
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
    obs = torch.cat([batch.obs, ahead.obs.flatten(0, 1)])
    views = whole_and_masked(agent, obs, torch.cat([batch.action, ahead.action.flatten(0, 1)]))
    parts = [b, *[m] * c.horizon]  # s_t, s_{t+1}, ..., s_{t+N}
    pairs = zip(views.q_masked.split(parts, dim=1), views.q.detach().split(parts, dim=1), strict=True)
    weights = consistency_weights(c.horizon, c.in_consistency)
    consistency = sum(weight * critic_loss(*pair) for weight, pair in zip(weights, pairs, strict=True))
    loss = critic_loss(views.q[:, :b], target) + c.consistency * consistency
    return Learned(loss, views.q[:, :b], target, views.features[:b]), views.mask[:b]


class PredictiveSAC(SAC):
    """SAC whose target blends in the values of predicted states (eq. 4).

    Args: as `pixelrl.sac.SAC`.
    """

    def __init__(
        self,
        config: PredictiveSACConfig,
        obs_space: gym.spaces.Box,
        action_space: gym.spaces.Space,
        device: str = "cpu",
    ) -> None:
        super().__init__(config, obs_space, action_space, device)
        self.predictor = build_predictor(config, self.device)

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One gradient step of everything in SAC. Returns metrics, detached."""
        batch = batch.to(self.device)
        target = predictive_target(self, batch, ahead_of(self, batch), self.config.in_target)
        features = self.encoder(batch.obs)
        q = self.critic(features, batch.action)
        return self.learn(Learned(critic_loss(q, target), q, target, features))


class PredictiveSGQN(SGQN):
    """SGQN that learns from predicted states in its target and in its consistency loss (eq. 6).

    Args: as `pixelrl.sac.SAC`.
    """

    def __init__(
        self,
        config: PredictiveSGQNConfig,
        obs_space: gym.spaces.Box,
        action_space: gym.spaces.Space,
        device: str = "cpu",
    ) -> None:
        super().__init__(config, obs_space, action_space, device)
        self.predictor = build_predictor(config, self.device)

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One gradient step of everything in SAC, and one of the attribution loss. Returns metrics, detached."""
        if self.config.in_target == self.config.in_consistency == 0:
            return super().update(batch)
        batch = batch.to(self.device)
        ahead = ahead_of(self, batch)  # from pictures that are not shifted, as the predictor knows them
        ahead = ahead._replace(obs=random_shift(ahead.obs.flatten(0, 1)).unflatten(0, ahead.log_prob.shape))
        batch = shifted(batch)
        learned, mask = predictive_objective(self, batch, ahead)
        metrics = self.learn(learned)
        return {**metrics, "attribution_loss": self.update_decoder(batch, mask)}


def ahead_of(agent: PredictiveSAC | PredictiveSGQN, batch: Batch) -> Ahead:
    """Roll the first transitions of a batch on, as many as the config says."""
    first = batch.part(slice(max(1, round(agent.config.ahead_share * len(batch.action)))))
    past = first.past_frames, first.past_actions
    return look_ahead(agent, agent.predictor, first.next_obs, *past, agent.config.horizon)


def build_predictor(config: PredictiveSACConfig | PredictiveSGQNConfig, device: torch.device) -> Predictor:
    """The predictor that a config names.

    Raises:
        FileNotFoundError: its network is not stored.
        ValueError: its network was trained on frames of another size.
    """
    if config.predictor == "copy":
        return CopyPredictor()
    if config.predictor == "background":
        return BackgroundPredictor()
    run = runs.load(config.model)[0]
    if tuple(run.config.env_kwargs["size"]) != tuple(config.env_kwargs["size"]):
        sizes = run.config.env_kwargs["size"], config.env_kwargs["size"]
        raise ValueError(f"{config.model} predicts frames of {sizes[0]}; the agent sees frames of {sizes[1]}.")
    foresight = CDNAPredictor(load_model(run).to(device))
    return ShuffledPredictor(foresight) if config.predictor == "shuffled" else foresight
