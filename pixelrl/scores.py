"""How good is a saliency map? Scores against the true pixels, against the network itself, and against chance.

A map has one number a pixel, not negative, (B, H, W); a mask is a map of truth values; the true pixels are those of
the bodies that move, which the simulator knows. Every score is one number a sample, (B,).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from pixelrl.envs.camera import FIXED
from pixelrl.saliency import Answer, by_frame

AREAS = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)  # shares of a frame that are removed or kept


def moving_bodies(labels: np.ndarray) -> torch.Tensor:
    """The pixels of cart and pole, or of whatever moves: labels (T, H, W) uint8 -> bool."""
    return torch.from_numpy(labels > FIXED)


def share_on(maps: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Share of a map, or of a mask, that lies on the true pixels; 0 where the map is empty."""
    check_pair(maps, truth)
    total = maps.sum((1, 2)).clamp(min=torch.finfo(torch.float32).tiny)
    return (maps * truth).sum((1, 2)) / total


def iou(mask: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Intersection over union of a mask and the true pixels; 1 where both are empty."""
    check_pair(mask, truth)
    both, either = (mask & truth).sum((1, 2)), (mask | truth).sum((1, 2))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def pointing(maps: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """The pointing game (Zhang et al. 2016): 1 where the map's largest number is on a true pixel, else 0."""
    check_pair(maps, truth)
    return truth.flatten(1).gather(1, maps.flatten(1).argmax(1, keepdim=True))[:, 0].float()


def check_pair(maps: torch.Tensor, truth: torch.Tensor) -> None:
    """Refuse a map and true pixels that do not belong together."""
    if maps.shape != truth.shape or maps.ndim != 3 or truth.dtype != torch.bool:
        raise ValueError(
            f"expected maps (B, H, W) and true pixels of the same shape, bool; "
            f"got {tuple(maps.shape)} and {tuple(truth.shape)} {truth.dtype}."
        )


@torch.no_grad()
def deletion(answer: Answer, obs: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """How far an answer moves when the map's strongest pixels are painted over: larger is better.

    The mean of |Q(o) - Q(o without them)| over the shares removed, from nothing to the last of `AREAS`. A pixel's
    strength is the largest of its frames', and it is removed from all of them: frames that are changed in different
    places look like motion. It is given the mean colour of the observation, which says little and surprises little.

    Args:
        answer: such as `saliency.q_value(agent, action)`.
        obs: (B, C, H, W), RGB frames.
        maps: (B, frames, H, W), one a frame of the stack.
    """
    return mean_change(answer, obs, (~mask for mask in largest(maps)))


@torch.no_grad()
def insertion(answer: Answer, obs: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """How far an answer moves when only the map's strongest pixels are kept: smaller is better. As in `deletion`."""
    return mean_change(answer, obs, largest(maps))


def largest(maps: torch.Tensor) -> Iterator[torch.Tensor]:
    """Masks (B, 1, H, W) of the pixels that are strongest in any frame, one for each of `AREAS`."""
    flat = maps.amax(dim=1).flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(flat.shape[1]).expand_as(order))
    for area in AREAS:
        yield (rank < round(area * flat.shape[1])).reshape(len(maps), 1, *maps.shape[2:])


def mean_change(answer: Answer, obs: torch.Tensor, masks: Iterator[torch.Tensor]) -> torch.Tensor:
    """The area under |Q(o) - Q(o where M, else its mean colour)| over `AREAS`, divided by their range: (B,)."""
    obs = obs.float()
    whole, colour = answer(obs), mean_colour(obs)
    change = torch.stack([(answer(torch.where(mask, obs, colour)) - whole).abs() for mask in masks])
    return torch.trapezoid(change, torch.tensor(AREAS), dim=0) / AREAS[-1]


def mean_colour(obs: torch.Tensor) -> torch.Tensor:
    """The mean colour of each stack of RGB frames, the same for all of its frames: (B, C, H, W) -> (B, C, 1, 1)."""
    frames = obs.unflatten(1, (-1, 3))
    return frames.mean((1, 3, 4)).repeat(1, frames.shape[1])[..., None, None]


def random_maps(obs: torch.Tensor, seed: int) -> torch.Tensor:
    """What knows nothing: noise (B, frames, H, W), whose masks have any area that one asks for."""
    b, c, h, w = obs.shape
    return torch.rand((b, c // 3, h, w), generator=torch.Generator().manual_seed(seed))


def frame_differences(obs: torch.Tensor) -> torch.Tensor:
    """What knows no network: how much each pixel changed from the frame before, (B, frames, H, W).

    The oldest frame has none before it and is given the change to the next.
    """
    b, c, h, w = obs.shape
    frames = obs.float().reshape(b, c // 3, 3, h, w)
    if c // 3 < 2:
        raise ValueError("differences need a stack of two frames or more.")
    change = by_frame((frames[:, 1:] - frames[:, :-1]).reshape(b, c - 3, h, w))
    return torch.cat([change[:, :1], change], dim=1)


def rank_correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Spearman's correlation of two maps (B, ...), sample by sample: 1 where they order all pixels alike."""
    pairs = zip(a.flatten(1).numpy(), b.flatten(1).numpy(), strict=True)
    return torch.tensor([float(spearmanr(x, y).statistic) for x, y in pairs])


def randomised(agent: Any, networks: list[nn.Module], seed: int) -> Iterator[tuple[str, Any]]:
    """An agent with ever more layers' weights shuffled, from the output down to the input (Adebayo et al. 2018).

    Args:
        agent: which stays as it is.
        networks: parts of it, in the order in which an observation passes them.
        seed: of the new orders.

    Yields:
        What was shuffled last, and a copy of the agent, to be used before the next one is asked for: it is changed on.
    """
    agent, networks = copy.deepcopy((agent, networks))
    yield "none", agent
    generator = torch.Generator().manual_seed(seed)
    layers = [layer for net in networks for layer in net.modules() if list(layer.parameters(recurse=False))]
    for number, layer in reversed(list(enumerate(layers, start=1))):
        shuffle(layer, generator)
        yield f"{number} {type(layer).__name__}", agent


@torch.no_grad()
def shuffle(layer: nn.Module, generator: torch.Generator) -> None:
    """Put the weights of a layer into another order: their distribution stays, what they had learned goes."""
    for parameter in layer.parameters(recurse=False):
        order = torch.randperm(parameter.numel(), generator=generator)
        parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))
