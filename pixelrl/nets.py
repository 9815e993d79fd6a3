"""Networks: encoders that turn observations into features, and heads that turn features into values and actions."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
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
        return obs.float().div(255).sub_(0.5)


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


class Encoder(nn.Module):
    """Convolutions of SAC's agents from pixels: (B, C, H, W) uint8 -> (B, features) float32.

    A ReLU after each layer. With filters of 3 × 3, strides (2, 1, 1, 1) are the four layers of Yarats et al. (2021),
    and (2, 1, ..., 1), eleven of them, those of the DMControl Generalization Benchmark. The convolutions
    run channels-last, in bfloat16 where the machine has it; what comes out is float32 again.

    Args:
        in_channels: C.
        strides: one a layer.
        width: filters a layer.
        first_kernel: side of the first layer's filters; those of the others are 3 × 3.
        dtype: in which the convolutions are computed; by default `fastest_dtype`.
    """

    def __init__(
        self,
        in_channels: int,
        strides: tuple[int, ...],
        width: int = 32,
        first_kernel: int = 3,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dtype = dtype
        layers: list[nn.Module] = [MotionConv(in_channels, width, first_kernel, strides[0]), nn.ReLU(inplace=True)]
        for stride in strides[1:]:
            layers += [nn.Conv2d(width, width, kernel_size=3, stride=stride), nn.ReLU(inplace=True)]
        self.convs = nn.Sequential(*layers)
        self.convs.apply(orthogonal)
        self.to(memory_format=torch.channels_last)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.maps(obs).flatten(1).float()

    def maps(self, obs: torch.Tensor) -> torch.Tensor:
        """The output of the last convolution, (B, width, h, w), in the type in which it was computed."""
        numbers = self.numbers(obs)
        with computing_in(numbers.dtype, obs.device.type):
            return self.convs(numbers)

    def numbers(self, obs: torch.Tensor) -> torch.Tensor:
        """The same observations, channels-last and in the type in which the convolutions compute."""
        return channels_last(obs).to(self.dtype or fastest_dtype(obs.device.type))


class MotionConv(nn.Conv2d):
    """The first convolution: of the newest frame and of what changed between frames, given the stack as bytes.

    With frames f_1 to f_k between -0.5 and 0.5, the filters see f_k and the differences f_{i+1} - f_i. What moves is
    a hundredth of the picture; a difference shows nothing else, and speeds are learned in half of the updates. All
    of it is linear, and so it goes into the weights, which are few, and not into the pixels, which are many; and bytes
    are exact in bfloat16.

    Args:
        channels: C of the stack, three a frame.
        width: filters.
        kernel_size, stride: of the filters.
    """

    def __init__(self, channels: int, width: int, kernel_size: int, stride: int) -> None:
        super().__init__(channels, width, kernel_size, stride)
        seen = torch.eye(channels)  # what the filters see of the stack, as rows
        seen[:-3] = seen[3:] - seen[:-3]
        self.register_buffer("seen", seen, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch.einsum("fchw, cd -> fdhw", self.weight, self.seen)
        bias = self.bias - 0.5 * weight.sum((1, 2, 3))
        return nn.functional.conv2d(x, weight / 255, bias, self.stride)


def channels_last(obs: torch.Tensor) -> torch.Tensor:
    """The same observations (B, C, H, W), with the channels of a pixel side by side in memory."""
    if obs.device.type != "cpu" or obs.dtype != torch.uint8 or obs.is_contiguous(memory_format=torch.channels_last):
        return obs.contiguous(memory_format=torch.channels_last)
    b, c, h, w = obs.shape
    pixels = np.empty((b, h * w, c), np.uint8)
    for picture, out in zip(obs.reshape(b, c, h * w).numpy(), pixels, strict=True):
        cv2.transpose(picture, out)  # four times as fast as torch's own copy
    return torch.from_numpy(pixels).reshape(b, h, w, c).permute(0, 3, 1, 2)


def channels_first(x: torch.Tensor) -> torch.Tensor:
    """The same pictures (B, C, H, W), without gradient, with the pixels of a channel side by side in memory."""
    if x.device.type != "cpu":
        return x.detach().contiguous()
    bits = x.detach().view(torch.int16) if x.dtype == torch.bfloat16 else x.detach()  # numpy has no bfloat16
    return torch.from_numpy(np.ascontiguousarray(bits.numpy())).view(x.dtype)  # twice as fast as torch's own copy


@cache
def fastest_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware computes in it, else float32: where it does not, bfloat16 is many times slower."""
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float32
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)  # not every version of torch can tell
    return torch.bfloat16 if supported() else torch.float32


def computing_in(dtype: torch.dtype, device: str) -> torch.autocast:
    """Within it, convolutions and matrix products are computed in a type; in float32, all is as it was."""
    return torch.autocast(device, dtype, enabled=dtype != torch.float32)


def orthogonal(layer: nn.Module) -> None:
    """Draw a layer's weights orthogonal, for the variance that a ReLU leaves, and set its bias to 0."""
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.orthogonal_(layer.weight, nn.init.calculate_gain("relu") if isinstance(layer, nn.Conv2d) else 1.0)
        nn.init.zeros_(layer.bias)


def projection(n_features: int, size: int) -> nn.Sequential:
    """From an encoder's many features to a few between -1 and 1: (B, n_features) -> (B, size)."""
    return nn.Sequential(nn.Linear(n_features, size), nn.LayerNorm(size), nn.Tanh())


class PairLinear(nn.Module):
    """Two linear layers side by side, in one matrix product: (2, B, n_in) -> (2, B, n_out)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2, n_in, n_out))
        self.bias = nn.Parameter(torch.zeros(2, 1, n_out))
        for matrix in self.weight:
            nn.init.orthogonal_(matrix)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class TwinCritic(nn.Module):
    """Two action-value functions that share a projection: features (B, F) and actions (B, A) -> values (2, B)."""

    def __init__(self, project: nn.Module, size: int, n_actions: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.project = project
        sizes = [size + n_actions, *hidden]
        layers: list[nn.Module] = []
        for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [PairLinear(n_in, n_out), nn.ReLU()]
        self.pair = nn.Sequential(*layers, PairLinear(sizes[-1], 1))

    def forward(self, features: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.project(features), action], dim=1)
        return self.pair(x.expand(2, *x.shape)).squeeze(2)


class GaussianActor(nn.Module):
    """Mean and logarithm of the standard deviation, before the tanh: features (B, F) -> two of (B, A)."""

    LOG_STD = (-10.0, 2.0)  # the smallest and the largest

    def __init__(self, project: nn.Module, size: int, n_actions: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.net = nn.Sequential(project, mlp([size, *hidden]), nn.Linear(hidden[-1], 2 * n_actions))
        self.net[1:].apply(orthogonal)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_std = self.net(features).chunk(2, dim=1)
        low, high = self.LOG_STD
        return mean, low + (high - low) / 2 * (torch.tanh(log_std) + 1)


@torch.no_grad()
def move_towards(target_net: nn.Module, net: nn.Module, tau: float) -> None:
    """Target parameters <- (1 - tau) target + tau online. With tau = 1 there is no target network any more."""
    torch._foreach_lerp_(list(target_net.parameters()), list(net.parameters()), tau)


def joined(parts: dict[str, nn.Module]) -> dict[str, torch.Tensor]:
    """The tensors of several networks, each under `NAME.` and its own name."""
    return {f"{name}.{key}": x for name, part in parts.items() for key, x in part.state_dict().items()}


def load_joined(parts: dict[str, nn.Module], tensors: dict[str, torch.Tensor]) -> None:
    """Give networks back what `joined` took from them."""
    for name, part in parts.items():
        part.load_state_dict({k.removeprefix(f"{name}."): x for k, x in tensors.items() if k.startswith(f"{name}.")})
