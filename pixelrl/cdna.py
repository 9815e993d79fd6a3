"""CDNA (Finn, Goodfellow & Levine 2016): predict the next frame by moving the pixels of this one.

Convolutional LSTMs watch the frames and the actions. From what they remember come a few small *kernels*, each of which
moves the whole picture in its own way, and for every pixel a *mask*, which says which of the moved pictures to believe
there. A static part is copied, what comes into view is painted from scratch.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from pixelrl.nets import computing_in, fastest_dtype


class State(NamedTuple):
    """What the network remembers."""

    memories: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    """Of the seven convolutional LSTMs, the output and the cell, (B, C, h, w) each."""
    frame: torch.Tensor | None
    """(B, 3, H, W), the frame before; None at the beginning."""


class ConvLSTM(nn.Module):
    """A long short-term memory whose gates are convolutions (Shi et al. 2015); its forget gate begins open.

    Args:
        n_in: channels of what it is given.
        n_out: channels of what it remembers.
        kernel_size: of the gates, odd.
    """

    def __init__(self, n_in: int, n_out: int, kernel_size: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(n_in + n_out, 4 * n_out, kernel_size, padding=kernel_size // 2)

    def forward(
        self, x: torch.Tensor, memory: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """(B, n_in, h, w) and what was remembered -> (B, n_out, h, w) and what is remembered now."""
        out, cell = memory
        write, forget, show, new = self.gates(torch.cat([x, out], dim=1)).float().chunk(4, dim=1)
        cell = torch.sigmoid(forget + 1) * cell + torch.sigmoid(write) * torch.tanh(new)
        out = torch.sigmoid(show) * torch.tanh(cell)
        return out, (out, cell)


def normalised(raw: torch.Tensor) -> torch.Tensor:
    """Kernels (..., k, k) by a softmax: never negative, of sum 1, none dead.

    Where `raw` is 0, half of the weight is in the middle, which copies, and the other half everywhere.
    """
    k = raw.shape[-1]
    middle = torch.zeros(k * k, device=raw.device)
    middle[k * k // 2] = math.log(k * k)
    return (raw.flatten(-2) + middle).softmax(dim=-1).unflatten(-1, (k, k))


def moved(frame: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Every kernel of a sample applied to its frame, to all colours alike; the edge is repeated.

    A correlation is a product of Fourier transforms, one of them conjugate. That costs the same for kernels of any
    size; `benchmarks/cdna.py` has other ways beside it.

    Args:
        frame: (B, C, H, W).
        kernels: (B, M, k, k).

    Returns:
        (B, M, C, H, W).
    """
    height, width = frame.shape[2:]
    wide = F.pad(frame, (kernels.shape[-1] // 2,) * 4, mode="replicate")
    size = [-(-side // 16) * 16 for side in wide.shape[2:]]  # sides that transform fast
    product = torch.fft.rfft2(wide, s=size)[:, None] * torch.fft.rfft2(kernels, s=size).conj()[:, :, None]
    return torch.fft.irfft2(product, s=size)[..., :height, :width]


class Prediction(NamedTuple):
    """What the network says of the next frame."""

    frame: torch.Tensor
    """(B, 3, H, W), from 0 to 1."""
    masks: torch.Tensor
    """(B, 2 + M, H, W), of sum 1 in every pixel: for the last frame, what is painted, and each moved picture."""
    layers: tuple[torch.Tensor, ...]
    """2 + M pictures (B, 3, H, W), to which the masks belong."""
    kernels: torch.Tensor
    """(B, M, k, k)."""
    state: State
    """To be handed to the next step."""


class CDNA(nn.Module):
    """The network of the paper, at a width of one's choice, and with changes.

    It is shown how a frame differs from a learned picture of the scenery and from the frame before, not the frame.
    Every memory is told the action, not the smallest one alone. What a memory says is normalised channel by channel
    (Ulyanov et al. 2016): over all channels together, what is everywhere the same soon drowns the few pixels that move,
    and the smallest memory hears of nothing; only that one, which an action fills evenly, is normalised as a whole.
    Kernels come from two layers and a softmax, and copy at first. What is painted from scratch begins as the scenery.

    Args:
        size: (H, W) of a frame, multiples of 8.
        n_actions: A.
        width: filters of the first layers; the paper has 32.
        n_kernels: M.
        kernel_size: side of the kernels that move pixels; a pixel can move by kernel_size // 2.
        lstm_kernel: of the gates; the paper has 5.
        dtype: in which convolutions are computed; by default `pixelrl.nets.fastest_dtype`.

    Raises:
        ValueError: a frame cannot be halved three times, or a kernel has no middle.
    """

    def __init__(
        self,
        size: tuple[int, int],
        n_actions: int,
        width: int = 32,
        n_kernels: int = 10,
        kernel_size: int = 5,
        lstm_kernel: int = 5,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if size[0] % 8 or size[1] % 8:
            raise ValueError(f"frames of {size[0]} × {size[1]} cannot be halved three times; use multiples of 8.")
        if kernel_size % 2 == 0 or lstm_kernel % 2 == 0:
            raise ValueError(f"kernels have a middle, so their sides are odd; got {kernel_size} and {lstm_kernel}.")
        w = width
        self.size, self.n_actions, self.dtype = tuple(size), n_actions, dtype
        self.kernel_shape = (n_kernels, kernel_size, kernel_size)
        sizes = [(w, w), (w, w), (w, 2 * w), (2 * w, 2 * w), (2 * w, 4 * w), (4 * w, 2 * w), (3 * w, w)]
        self.memories = nn.ModuleList(ConvLSTM(n_in + n_actions, n_out, lstm_kernel) for n_in, n_out in sizes)
        self.scales = (2, 2, 4, 4, 8, 4, 2)  # of the memories' pictures: how many times smaller than the frame
        self.norms = nn.ModuleList(
            nn.GroupNorm(1 if scale == 8 else n_out, n_out)
            for scale, (_, n_out) in zip(self.scales, sizes, strict=True)
        )
        self.down = nn.ModuleList(
            (
                nn.Sequential(nn.Conv2d(6, w, 5, stride=2, padding=2), nn.GroupNorm(1, w), nn.ReLU()),
                nn.Sequential(nn.Conv2d(w, w, 3, stride=2, padding=1), nn.ReLU()),
                nn.Sequential(nn.Conv2d(2 * w, 2 * w, 3, stride=2, padding=1), nn.ReLU()),
            )
        )
        self.up = nn.ModuleList(
            (
                nn.Sequential(upwards(4 * w, 4 * w), nn.ReLU()),
                nn.Sequential(upwards(3 * w, 3 * w), nn.ReLU()),
                nn.Sequential(upwards(2 * w, 2 * w), nn.GroupNorm(1, 2 * w), nn.ReLU()),
            )
        )
        features = 4 * w * (size[0] // 8) * (size[1] // 8)
        self.kernels = nn.Sequential(
            nn.Linear(features, 16 * w), nn.ReLU(), nn.Linear(16 * w, n_kernels * kernel_size**2)
        )
        self.paint = nn.Conv2d(2 * w, 3, 1)
        self.scenery = nn.Parameter(torch.zeros(3, *size))  # before the sigmoid: painted where nothing else is known
        self.masks = nn.Conv2d(2 * w, 2 + n_kernels, 1)

    def start(self, batch_size: int) -> State:
        """Nothing remembered yet."""
        height, width = self.size
        device = self.scenery.device
        shapes = [
            (batch_size, memory.gates.out_channels // 4, height // scale, width // scale)
            for memory, scale in zip(self.memories, self.scales, strict=True)
        ]
        zeros = tuple((torch.zeros(shape, device=device), torch.zeros(shape, device=device)) for shape in shapes)
        return State(zeros, None)

    def watch(
        self, frame: torch.Tensor, action: torch.Tensor, state: State
    ) -> tuple[torch.Tensor, torch.Tensor, State]:
        """What a frame (B, 3, H, W) from 0 to 1 and the action (B, A) at it leave behind.

        Returns:
            Features (B, 4 width, H / 8, W / 8) and (B, 2 width, H / 2, W / 2), and the state after them.

        Raises:
            ValueError: the frame or the action has another shape.
        """
        self.check(frame, action)
        new: list[tuple[torch.Tensor, torch.Tensor]] = []

        def remember(x: torch.Tensor) -> torch.Tensor:
            number = len(new)
            planes = action[:, :, None, None].expand(-1, -1, *x.shape[2:])
            out, memory = self.memories[number](torch.cat([x, planes], dim=1), state.memories[number])
            new.append(memory)
            return self.norms[number](out)

        differs = frame - self.scenery.detach().sigmoid()
        changed = torch.zeros_like(frame) if state.frame is None else frame - state.frame
        with self.computing():
            half = self.down[0](torch.cat([differs, changed], dim=1))
            quarter = self.down[1](remember(remember(half)))
            deepest = remember(self.down[2](remember(remember(quarter))))
            x = torch.cat([remember(self.up[0](deepest)), quarter], dim=1)
            x = torch.cat([remember(self.up[1](x)), half], dim=1)
        return deepest, x, State(tuple(new), frame)

    def forward(self, frame: torch.Tensor, action: torch.Tensor, state: State) -> Prediction:
        """The next frame, after an action (B, A) at a frame (B, 3, H, W) from 0 to 1.

        Raises:
            ValueError: the frame or the action has another shape.
        """
        deepest, x, state = self.watch(frame, action, state)
        with self.computing():
            x = self.up[2](x)
            raw, paint, mask = self.kernels(deepest.flatten(1)), self.paint(x), self.masks(x)
        kernels = normalised(raw.float().unflatten(1, self.kernel_shape))
        painted = torch.sigmoid(paint.float() + self.scenery)
        masks = mask.float().softmax(dim=1)
        layers = (frame, painted, *moved(frame, kernels).unbind(1))
        mixed = sum(own * layer for own, layer in zip(masks.split(1, dim=1), layers, strict=True))
        return Prediction(mixed, masks, layers, kernels, state)

    def computing(self) -> AbstractContextManager[Any]:
        """In the type that was chosen for convolutions."""
        device = self.scenery.device.type
        return computing_in(self.dtype or fastest_dtype(device), device)

    def check(self, frame: torch.Tensor, action: torch.Tensor) -> None:
        """Refuse frames and actions of other shapes than the network was made for."""
        if frame.shape[1:] != (3, *self.size) or action.shape != (len(frame), self.n_actions):
            raise ValueError(
                f"expected frames (B, 3, {self.size[0]}, {self.size[1]}) and actions (B, {self.n_actions}); "
                f"got {tuple(frame.shape)} and {tuple(action.shape)}."
            )


def upwards(n_in: int, n_out: int) -> nn.ConvTranspose2d:
    """To twice the size."""
    return nn.ConvTranspose2d(n_in, n_out, 3, stride=2, padding=1, output_padding=1)


def as_numbers(frames: torch.Tensor) -> torch.Tensor:
    """Bytes -> float32 from 0 to 1."""
    return frames.float().div(255)


def as_bytes(frames: torch.Tensor) -> torch.Tensor:
    """Numbers from 0 to 1 -> bytes."""
    return frames.mul(255).round_().to(torch.uint8)


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """Of frames (..., H, W) that are padded."""
    return tuple(-(-side // 8) * 8 for side in size)


def padded(frames: torch.Tensor) -> torch.Tensor:
    """Frames (..., H, W) whose edges are repeated until both sides are multiples of 8, which the network needs."""
    size = frames.shape[-2:]
    rows, columns = (
        torch.arange(large, device=frames.device).sub((large - small) // 2).clamp(0, small - 1)
        for large, small in zip(padded_size(size), size, strict=True)
    )
    return frames[..., rows[:, None], columns]


def cropped(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The middle (..., h, w) of what `padded` gave."""
    top, left = ((large - small) // 2 for large, small in zip(frames.shape[-2:], size, strict=True))
    return frames[..., top : top + size[0], left : left + size[1]]


@torch.no_grad()
def remembered(model: CDNA, frames: torch.Tensor, actions: torch.Tensor) -> State:
    """What the network remembers before it is shown the last of frames (B, K, 3, H, W) uint8.

    Args:
        model: on the device of the frames.
        frames: what was seen.
        actions: (B, K - 1, A), those between the frames.
    """
    state = model.start(len(frames))
    for frame, action in zip(frames[:, :-1].unbind(1), actions.unbind(1), strict=True):
        state = model.watch(as_numbers(frame), action, state)[2]
    return state


@torch.no_grad()
def predict(model: CDNA, frames: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """See the first frames of an episode, then go on alone: every further frame is predicted from the last prediction.

    Args:
        frames: (B, K, 3, H, W) uint8, the context; where a side is no multiple of 8, as `padded`, and cropped again.
        actions: (B, K - 1 + h, A): those between the frames of the context, and what is done afterwards.

    Returns:
        (B, h, 3, H, W) float32 from 0 to 1, where the frames are (the model may be on another device).

    Raises:
        ValueError: there are no actions beyond those of the context.
    """
    k, home, device = frames.shape[1], frames.device, model.scenery.device
    if actions.shape[1] < k:
        raise ValueError(f"to predict, {k} frames need at least {k} actions; got {actions.shape[1]}.")
    size, frames, actions = frames.shape[-2:], padded(frames).to(device), actions.to(device)
    state, frame, predicted = remembered(model, frames, actions[:, : k - 1]), as_numbers(frames[:, -1]), []
    for action in actions[:, k - 1 :].unbind(1):
        prediction = model(frame, action, state)
        frame, state = prediction.frame, prediction.state
        predicted.append(cropped(frame, size))
    return torch.stack(predicted, dim=1).to(home)


def sequence_loss(model: CDNA, frames: torch.Tensor, actions: torch.Tensor, context: int, share: float) -> torch.Tensor:
    """Squared error of the frames after the context, in sum over the pixels and mean over batch and time.

    Scheduled sampling (Bengio et al. 2015): after the context, each sample goes on from its true frame with a
    probability, and otherwise from what was predicted.

    Args:
        frames: (B, T, 3, H, W) uint8.
        actions: (B, T - 1, A).
        context: frames that are always true, fewer than T.
        share: the probability of a true frame after them.

    Raises:
        ValueError: the sequence is not longer than its context.
    """
    b, length = frames.shape[:2]
    if length <= context:
        raise ValueError(f"sequences of {length} frames are too short for a context of {context}.")
    frames = as_numbers(frames)
    frame, state, errors = frames[:, 0], model.start(b), []
    for t in range(length - 1):
        if t + 1 < context:
            state = model.watch(frame, actions[:, t], state)[2]
            frame = frames[:, t + 1]
        else:
            prediction = model(frame, actions[:, t], state)
            state = prediction.state
            errors.append((prediction.frame - frames[:, t + 1]).pow(2).sum((1, 2, 3)))
            true = torch.rand(b, 1, 1, 1, device=frames.device) < share
            frame = torch.where(true, frames[:, t + 1], prediction.frame)
    return torch.stack(errors).mean()


def true_share(update: int, pace: float) -> float:
    """How often a true frame is given, as training goes on: from nearly always to never, k / (k + exp(update / k)).

    It is one half after pace × log(pace) updates.
    """
    return pace / (pace + math.exp(min(update / pace, 700.0)))
