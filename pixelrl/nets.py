"""Networks: an encoder that turns observations into features, and a head that turns features into action values."""

from __future__ import annotations

import torch
from torch import nn


def mlp(sizes: list[int]) -> nn.Sequential:
    """Fully connected layers with a ReLU after each: (B, sizes[0]) -> (B, sizes[-1])."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers)


class Pixels(nn.Module):
    """From bytes to numbers around zero: (B, C, H, W) uint8 -> float32 in [-0.5, 0.5]."""

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return obs.float().div_(255).sub_(0.5)


def conv_encoder(in_channels: int, channels: tuple[int, int]) -> nn.Sequential:
    """The two convolutions of the first DQN (Mnih et al. 2013): (B, C, H, W) uint8 -> (B, features) float32."""
    first, second = channels
    return nn.Sequential(
        Pixels(),
        nn.Conv2d(in_channels, first, kernel_size=8, stride=4, padding=2),
        nn.ReLU(),
        nn.Conv2d(first, second, kernel_size=4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
    )


class DuelingHead(nn.Module):
    """Dueling network (Wang et al. 2016, eq. 9): Q(s, a) = V(s) + A(s, a) - mean over a' of A(s, a')."""

    def __init__(self, n_features: int, n_actions: int) -> None:
        super().__init__()
        self.value = nn.Linear(n_features, 1)
        self.advantage = nn.Linear(n_features, n_actions)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Action values (B, n_actions) of features (B, n_features)."""
        advantage = self.advantage(features)
        return self.value(features) + advantage - advantage.mean(dim=1, keepdim=True)


def q_network(
    obs_shape: tuple[int, ...],
    n_actions: int,
    hidden: tuple[int, ...],
    channels: tuple[int, ...] = (),
    head: type[nn.Module] = nn.Linear,
) -> nn.Sequential:
    """Action values of a batch: observations (B, *obs_shape) -> (B, n_actions) float32.

    Args:
        obs_shape: (C, H, W) for pixels, (n,) for states.
        n_actions: number of discrete actions.
        hidden: widths of the fully connected layers before the head.
        channels: widths of the convolutions; empty for states.
        head: `nn.Linear` or `DuelingHead`.
    """
    encoder = conv_encoder(obs_shape[0], channels) if channels else nn.Flatten()
    with torch.no_grad():
        n_features = encoder(torch.zeros(1, *obs_shape)).shape[1]
    return nn.Sequential(encoder, mlp([n_features, *hidden]), head(hidden[-1], n_actions))
