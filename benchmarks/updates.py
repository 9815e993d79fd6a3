"""Seconds a critic-actor update from pixels: plain eager code beside the package's, float32 beside bfloat16.

    python benchmarks/updates.py [--layers 4 11] [--objectives sac svea] [--batch 128] [--size 84] [--threads 2]

Plain is what one would write first: float32, channels first, frames divided and subtracted as floats, the observation
encoded by critic and actor each, the next observation by actor and target critic each, two critics one after the
other, Adam as it comes. It computes the same losses (a test compares them). FLOP are counted by torch, and the share is
that of what a large matrix product reaches on this machine in the same type.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from timing import seconds
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pixelrl import presets
from pixelrl.augment import random_overlay
from pixelrl.nets import PairLinear, fastest_dtype
from pixelrl.replay import Batch
from pixelrl.sac import SAC, actor_loss, critic_loss, soft_target, squashed_sample, temperature_loss

LAYERS = {4: (2, 1, 1, 1), 11: (2, *(1,) * 10)}


class PlainEncoder(nn.Module):
    """The encoder's network on floats, channels first."""

    def __init__(self, fast: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for layer in fast.convs:
            if isinstance(layer, nn.Conv2d):
                conv = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride)
                conv.load_state_dict({name: x.contiguous() for name, x in layer.state_dict().items()})
                self.layers.append(conv)
            else:
                self.layers.append(nn.ReLU())

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        frames = (obs.float() / 255 - 0.5).split(3, dim=1)
        changes = [new - old for old, new in zip(frames[:-1], frames[1:], strict=True)]
        return self.layers(torch.cat([*changes, frames[-1]], dim=1)).flatten(1)


class PlainCritic(nn.Module):
    """An encoder, a projection, and two critics one after the other."""

    def __init__(self, encoder: nn.Module, fast: nn.Module) -> None:
        super().__init__()
        self.encoder, self.project = PlainEncoder(encoder), copy.deepcopy(fast.project)
        self.critics = nn.ModuleList(nn.Sequential(*(alone(layer, i) for layer in fast.pair)) for i in range(2))

    def forward(self, obs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.project(self.encoder(obs)), action], dim=1)
        return torch.stack([critic(x).squeeze(1) for critic in self.critics])


def alone(layer: nn.Module, i: int) -> nn.Module:
    """The i-th of two linear layers side by side."""
    if not isinstance(layer, PairLinear):
        return nn.ReLU()
    linear = nn.Linear(*layer.weight.shape[1:])
    linear.load_state_dict({"weight": layer.weight[i].detach().T, "bias": layer.bias[i, 0].detach()})
    return linear


class PlainSAC:
    """An agent with the weights of another, and an update as one would write it first."""

    def __init__(self, fast: SAC) -> None:
        self.fast, self.n_actions = fast, fast.n_actions
        self.critic = PlainCritic(fast.encoder, fast.critic)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.actor = copy.deepcopy(fast.actor)
        self.log_alpha = fast.log_alpha.detach().clone().requires_grad_(True)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=1e-3)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=1e-3)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=1e-4)

    def losses(self, batch: Batch, objective: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The critics' loss and the actor's, of `sac`, or of `svea` without the shift."""
        alpha = self.log_alpha.detach().exp()
        with torch.no_grad():
            action, log_prob = squashed_sample(*self.actor(self.target_critic.encoder(batch.next_obs)))
            target = soft_target(batch, self.target_critic(batch.next_obs, action), log_prob, alpha)
        loss = critic_loss(self.critic(batch.obs, batch.action), target)
        if objective == "svea":
            overlaid = random_overlay(batch.obs, self.fast.pictures)
            loss = (loss + critic_loss(self.critic(overlaid, batch.action), target)) / 2
        action, self.log_prob = squashed_sample(*self.actor(self.critic.encoder(batch.obs).detach()))
        return loss, actor_loss(self.critic(batch.obs, action), self.log_prob, alpha)

    def update(self, batch: Batch, objective: str) -> None:
        """One gradient step of everything."""
        critic, actor = self.losses(batch, objective)
        self.critic_optimizer.zero_grad()
        critic.backward()
        self.actor_optimizer.zero_grad()
        actor.backward(inputs=list(self.actor.parameters()))
        self.critic_optimizer.step()
        self.actor_optimizer.step()
        self.alpha_optimizer.zero_grad()
        temperature_loss(self.log_alpha, self.log_prob, -float(self.n_actions)).backward()
        self.alpha_optimizer.step()
        for slow, net in zip(self.target_critic.parameters(), self.critic.parameters(), strict=True):
            slow.data.copy_(0.99 * slow.data + 0.01 * net.data)


def random_batch(b: int, size: int) -> Batch:
    """Noise of the right shapes."""
    obs = torch.randint(0, 256, (2, b, 9, size, size), dtype=torch.uint8)
    action, ones = 2 * torch.rand(b, 1) - 1, torch.ones(b)
    return Batch(obs[0], action, torch.rand(b), obs[1], 0 * ones, 0.99 * ones, ones, np.arange(b))


def gigaflop(work: Callable[[], object]) -> float:
    """Multiplications and additions of convolutions and matrix products, in thousands of millions."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def peak(dtype: torch.dtype) -> float:
    """GFLOP a second of a large matrix product."""
    a = torch.randn(2048, 2048).to(dtype)
    return 2 * 2048**3 / 1e9 / seconds(lambda: a @ a, 10)


def spaces(size: int) -> tuple[gym.spaces.Box, gym.spaces.Box]:
    """Of observations and actions."""
    return gym.spaces.Box(0, 255, (9, size, size), np.uint8), gym.spaces.Box(-1, 1, (1,), np.float32)


def common_options(description: str | None) -> argparse.ArgumentParser:
    """A parser of what every benchmark of updates can be told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 11], choices=LAYERS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=84)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    return parser


def main() -> None:
    parser = common_options(__doc__)
    parser.add_argument("--objectives", nargs="+", default=["sac", "svea"], choices=["sac", "svea"])
    parser.add_argument("--hidden", type=int, default=1024)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    peaks = {dtype: peak(dtype) for dtype in {torch.float32, fastest_dtype("cpu")}}
    print({str(dtype): f"{value:.0f} GFLOP/s" for dtype, value in peaks.items()}, f"{options.threads} threads")
    print(f"{'':34}{'ms':>8}{'x plain':>9}{'GFLOP':>8}{'of peak':>9}")
    batch = random_batch(options.batch, options.size)
    for layers in options.layers:
        for objective in options.objectives:
            config = presets.get(objective, "full", strides=LAYERS[layers], hidden=(options.hidden,) * 2)
            agent = SAC(config, *spaces(options.size))
            plain = PlainSAC(agent)
            work = {(torch.float32, "plain"): lambda plain=plain, o=objective: plain.update(batch, o)}
            for dtype in peaks:
                fast = SAC(config, *spaces(options.size))
                fast.encoder.dtype = fast.target_encoder.dtype = dtype
                work[dtype, f"pixelrl {str(dtype)[6:]}"] = lambda fast=fast: fast.update(batch)
            base = None
            for (dtype, name), update in work.items():
                time_, flop = seconds(update, options.repeats), gigaflop(update)
                base = base or time_
                label = f"{objective}, {layers} layers, {name}"
                print(f"{label:34}{1e3 * time_:8.0f}{base / time_:9.1f}{flop:8.0f}{flop / time_ / peaks[dtype]:9.0%}")


if __name__ == "__main__":
    main()
