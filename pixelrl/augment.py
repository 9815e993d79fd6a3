"""Augmentations: other pictures that mean the same. Each takes and gives observations (B, C, H, W) uint8.

C is a stack of RGB frames; what the dice say holds for all frames of a stack, so that motion stays motion.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from pixelrl.envs import videos
from pixelrl.nets import channels_last


def random_shift(obs: torch.Tensor, pad: int = 4) -> torch.Tensor:
    """Shift each observation by up to `pad` pixels each way; the edge is repeated (Yarats et al. 2021, DrQ).

    The memory format of the result is channels-last, which the convolutions want anyway.
    """
    shift = torch.randint(-pad, pad + 1, (2, len(obs)), device=obs.device)  # down and to the right
    pictures = channels_last(obs).permute(0, 2, 3, 1)  # (B, H, W, C), contiguous
    shifted = (shift_each if obs.device.type == "cpu" else shift_by_index)(pictures, shift)
    return shifted.permute(0, 3, 1, 2)


def shift_each(pictures: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Pictures (B, H, W, C) shifted by (2, B), one after the other: on a processor, many times faster than an index."""
    _, h, w, _ = pictures.shape
    out = np.empty(pictures.shape, np.uint8)
    for picture, place, (dy, dx) in zip(pictures.numpy(), out, shift.T.tolist(), strict=True):
        kept = picture[max(0, -dy) : h - max(0, dy), max(0, -dx) : w - max(0, dx)]
        place[:] = cv2.copyMakeBorder(kept, max(0, dy), max(0, -dy), max(0, dx), max(0, -dx), cv2.BORDER_REPLICATE)
    return torch.from_numpy(out)


def shift_by_index(pictures: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """The same for a GPU: every pixel looks up where it comes from."""
    b, h, w, _ = pictures.shape
    rows = (torch.arange(h, device=shift.device) - shift[0, :, None]).clamp(0, h - 1)  # (B, H)
    columns = (torch.arange(w, device=shift.device) - shift[1, :, None]).clamp(0, w - 1)  # (B, W)
    each = torch.arange(b, device=shift.device)
    return pictures[each[:, None, None], rows[:, :, None], columns[:, None, :]]


def overlay_pictures(n: int, obs_shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Pictures to lay over observations of shape (C, H, W), (n, C, H, W) uint8: pieces of procedural canvases.

    Each of them stands still, the same for every frame of a stack. No canvas is one of the backgrounds of the video
    modes, though all are of the same kinds.
    """
    n_frames, size = obs_shape[0] // 3, obs_shape[1:]
    rng = np.random.default_rng([seed, 12])
    pictures = []
    while len(pictures) < n:
        canvas = videos.canvas(rng)
        for _ in range(16):
            side = int(rng.integers(videos.CANVAS // 4, videos.CANVAS))
            y, x = rng.integers(0, videos.CANVAS - side, 2)
            pictures.append(np.tile(videos.resized(canvas[y : y + side, x : x + side], size), n_frames))
    return torch.from_numpy(np.stack(pictures[:n])).permute(0, 3, 1, 2)


def random_overlay(obs: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """Half of the observation and half of a random picture (Hansen & Wang 2021).

    Args:
        obs: (B, C, H, W) uint8.
        pictures: (n, C, H, W) uint8, on the device of the observations.
    """
    chosen = torch.randint(len(pictures), (len(obs),), device=obs.device)
    laid = pictures.permute(0, 2, 3, 1).index_select(0, chosen).permute(0, 3, 1, 2)  # as channels-last as it was
    return (channels_last(obs) >> 1).add_(laid >> 1)


def random_convolution(obs: torch.Tensor) -> torch.Tensor:
    """Send each observation's frames through a random 3 × 3 filter of its own (Lee et al. 2020)."""
    b, c, h, w = obs.shape
    frames = obs.float().div_(255).reshape(1, b * c, h, w)  # B c / 3 pictures of 3 channels, side by side
    filters = torch.randn(b, 1, 3, 3, 3, 3, device=obs.device).mul_((2 / 27) ** 0.5)
    filters = filters.expand(b, c // 3, 3, 3, 3, 3).reshape(b * c, 3, 3, 3)
    padded = F.pad(frames, (1, 1, 1, 1), mode="replicate")
    out = torch.sigmoid(F.conv2d(padded, filters, groups=b * c // 3))
    return out.mul_(255).to(torch.uint8).reshape(b, c, h, w)


def colour_jitter(obs: torch.Tensor, strength: float = 0.4) -> torch.Tensor:
    """Change brightness, contrast, saturation and hue of each observation (Laskin et al. 2020).

    All four together are one linear map of the three channels and one offset. `strength` is the largest relative
    change of the first three; hue turns by up to `strength` half turns.
    """
    b, c, h, w = obs.shape
    dice = 2 * torch.rand(4, b, 1, 1, device=obs.device) - 1  # (4, B, 1, 1), from -1 to 1
    brightness, contrast, saturation = 1 + strength * dice[:3]
    grey = torch.tensor([0.299, 0.587, 0.114], device=obs.device)
    luma = grey.expand(3, 3)  # each row makes grey of a colour
    turned = luma + hue_rotation(torch.pi * strength * dice[3]) * saturation
    matrix = brightness * contrast * turned  # (B, 3, 3)
    pictures = obs.reshape(b, c // 3, 3, h * w).float()
    mean = brightness[..., None] * (grey @ pictures).mean((1, 2)).reshape(b, 1, 1, 1)
    out = matrix[:, None] @ pictures + (1 - contrast[..., None]) * mean
    return out.clamp_(0, 255).to(torch.uint8).reshape(b, c, h, w)


def hue_rotation(angle: torch.Tensor) -> torch.Tensor:
    """Matrices (B, 3, 3) that turn colours about the grey axis by an angle (B, 1, 1), and take grey to 0."""
    to_chroma = torch.tensor([[0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], device=angle.device)  # RGB -> I, Q
    to_rgb = torch.tensor([[0.956, 0.621], [-0.272, -0.647], [-1.106, 1.703]], device=angle.device)
    cos, sin = torch.cos(angle), torch.sin(angle)
    turn = torch.cat([torch.cat([cos, -sin], 2), torch.cat([sin, cos], 2)], 1)  # (B, 2, 2)
    return to_rgb @ turn @ to_chroma
