"""Saliency-guided Q-networks (Bertoin et al. 2022): an agent that learns to look where its values say it should.

Guided backprop of Q says which pixels a value depends on; the strongest make a mask M. Two losses use it. The
*consistency loss* asks for the same value when everything else is painted over. The *attribution loss* asks that the
mask can be told from the features, also when the picture is overlaid with another one.
"""

from __future__ import annotations

from typing import NamedTuple

import gymnasium as gym
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Adam

from pixelrl.augment import random_overlay
from pixelrl.configs import SGQNConfig
from pixelrl.cuda import fused
from pixelrl.nets import computing_in, fastest_dtype
from pixelrl.replay import Batch
from pixelrl.sac import SAC, Learned, critic_loss, shifted, step
from pixelrl.saliency import by_frame, guided_gradient, top_pixels


class MaskDecoder(nn.Module):
    """Where would the mask be? Features (B, n) and actions (B, A) -> logits (B, 1, H, W).

    A coarse picture of a quarter of the size, a convolution, and each of its pixels spread over 4 × 4 (Shi et al.
    2016), which is a small part of the work of decoding at full size.

    Args:
        n_features: n.
        n_actions: A.
        size: (H, W), multiples of 4.
    """

    def __init__(self, n_features: int, n_actions: int, size: tuple[int, int]) -> None:
        super().__init__()
        height, width = size
        if height % 4 or width % 4:
            raise ValueError(f"pictures of {height} × {width} cannot be decoded; both sides must be multiples of 4.")
        self.coarse = nn.Linear(n_features + n_actions, 32 * (height // 4) * (width // 4))
        self.shape = (32, height // 4, width // 4)
        self.fine = nn.Conv2d(32, 16, kernel_size=3, padding=1)

    def forward(self, features: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        device = features.device.type
        with computing_in(fastest_dtype(device), device):
            coarse = self.coarse(torch.cat([features, action], dim=1)).relu()
            return F.pixel_shuffle(self.fine(coarse.unflatten(1, self.shape)), 4).float()


def attribution_loss(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of a predicted mask, logits (B, 1, H, W), against the true one, bool: the mean."""
    return F.binary_cross_entropy_with_logits(logits, mask.to(logits.dtype))


def stack_mask(attribution: torch.Tensor, rho: float) -> torch.Tensor:
    """The strongest pixels of a stack of frames, (B, C, H, W) -> (B, 1, H, W) bool: one mask for all its frames.

    Masks that differ between frames would look like motion where there is none.
    """
    return top_pixels(by_frame(attribution).amax(dim=1, keepdim=True), rho)


def painted_over(obs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The observations (B, C, H, W) uint8, with what is outside of the mask (B, 1, H, W) in one random colour each."""
    colour = torch.randint(256, (len(obs), 3, 1, 1), dtype=torch.uint8, device=obs.device)
    return torch.where(mask, obs, colour.repeat(1, obs.shape[1] // 3, 1, 1))


class Views(NamedTuple):
    """What the critics say of observations, whole and painted over."""

    features: torch.Tensor
    """(B, F), of the whole observations."""
    q: torch.Tensor
    """(2, B), of these."""
    q_masked: torch.Tensor
    """(2, B), of what the masks leave."""
    mask: torch.Tensor
    """(B, 1, H, W) bool."""


def whole_and_masked(agent: SGQN, obs: torch.Tensor, action: torch.Tensor) -> Views:
    """Values of observations (B, C, H, W) uint8 and actions (B, A), with and without what they do not depend on.

    One pass through the encoder gives the values and their attribution, a second the values of what is left.
    """
    numbers = agent.encoder.numbers(obs).requires_grad_()
    features = agent.encoder(numbers)
    q = agent.critic(features, action)
    mask = stack_mask(agent.attribution(q.mean(dim=0), numbers), agent.config.rho)
    q_masked = agent.critic(agent.encoder(painted_over(obs, mask)), action)
    return Views(features, q, q_masked, mask)


def sgqn_objective(agent: SGQN, batch: Batch) -> tuple[Learned, torch.Tensor]:
    """The critic's loss with consistency, and the mask (B, 1, H, W) that it was computed with."""
    target = agent.target(batch, batch.next_obs)
    features, q, q_masked, mask = whole_and_masked(agent, batch.obs, batch.action)
    loss = critic_loss(q, target) + agent.config.consistency * critic_loss(q_masked, q.detach())
    return Learned(loss, q, target, features), mask


class SGQN(SAC):
    """SAC whose critics are asked where they look, and a decoder that learns to tell.

    Args: as `pixelrl.sac.SAC`.
    """

    def __init__(
        self, config: SGQNConfig, obs_space: gym.spaces.Box, action_space: gym.spaces.Space, device: str = "cpu"
    ) -> None:
        super().__init__(config, obs_space, action_space, device)
        self.decoder = MaskDecoder(config.projection, self.n_actions, obs_space.shape[1:]).to(self.device)
        learned = [*self.encoder.parameters(), *self.critic.project.parameters(), *self.decoder.parameters()]
        self.decoder_optimizer = Adam(learned, lr=config.decoder_lr, **fused(self.device))

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One gradient step of everything in SAC, and one of the attribution loss. Returns metrics, detached."""
        batch = shifted(batch.to(self.device))
        learned, mask = sgqn_objective(self, batch)
        metrics = self.learn(learned)
        return {**metrics, "attribution_loss": self.update_decoder(batch, mask)}

    def attribution(self, q: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """How much values (B,) depend on each number (B, C, H, W) of what was seen; or, as a control, anything."""
        if self.config.masks == "random":
            return torch.rand_like(numbers, dtype=torch.float32)  # of bfloat16 there are but 256 between 0 and 1
        return guided_gradient(q, numbers, keep_graph=True)

    def update_decoder(self, batch: Batch, mask: torch.Tensor) -> torch.Tensor:
        """One gradient step towards features that tell the mask of an overlaid picture. Returns the loss, detached."""
        n = max(1, round(self.config.decoder_share * len(mask)))
        features = self.encoder(random_overlay(batch.obs[:n], self.pictures))
        logits = self.decoder(self.critic.project(features), batch.action[:n])
        loss = attribution_loss(logits, mask[:n])
        step(self.decoder_optimizer, loss)
        return loss.detach()

    PARTS = (*SAC.PARTS, "decoder", "decoder_optimizer")
