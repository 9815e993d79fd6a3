"""What CDNA costs: an update a sequence, a predicted frame, and its kernels, applied in several ways.

    python benchmarks/cdna.py

The package multiplies Fourier transforms; every other way of applying the kernels gives the same pictures.
"""

from __future__ import annotations

import argparse

import torch
from timing import seconds
from torch.nn import functional as F

from pixelrl import presets
from pixelrl.cdna import CDNA, moved, predict, sequence_loss
from pixelrl.predictor import build_model


def by_loop(frame: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """A convolution a sample."""
    padded = F.pad(frame, (kernels.shape[-1] // 2,) * 4, mode="replicate")
    pairs = zip(padded, kernels, strict=True)
    return torch.stack([F.conv2d(one[:, None], own[:, None]) for one, own in pairs]).transpose(1, 2)


def by_unfolding(frame: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """All patches of a frame, and a matrix product."""
    k = kernels.shape[-1]
    patches = F.unfold(F.pad(frame, (k // 2,) * 4, mode="replicate"), k).unflatten(1, (frame.shape[1], k * k))
    return (kernels.flatten(2)[:, None] @ patches).transpose(1, 2).unflatten(3, frame.shape[2:])


def by_groups(frame: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """One convolution, of which each sample is a group."""
    b, m, k, _ = kernels.shape
    padded = F.pad(frame, (k // 2,) * 4, mode="replicate").transpose(0, 1)
    return F.conv2d(padded, kernels.reshape(b * m, 1, k, k), groups=b).unflatten(1, (b, m)).permute(1, 2, 0, 3, 4)


def kernel_times(batch: int, size: int, k: int, repeats: int) -> None:
    """Print forward and backward times of all ways, and multiples of the package's."""
    frame = torch.rand(batch, 3, size, size, requires_grad=True)
    kernels = torch.rand(batch, 10, k, k)
    kernels = (kernels / kernels.sum((-2, -1), keepdim=True)).requires_grad_()
    right, base = moved(frame, kernels), None
    slope = torch.randn_like(right)
    for way in (moved, by_groups, by_loop, by_unfolding):
        torch.testing.assert_close(way(frame, kernels), right, rtol=0, atol=1e-5)

        def both(way=way) -> None:
            torch.autograd.grad(way(frame, kernels), (frame, kernels), slope)

        spent = seconds(both, repeats)
        base = base or spent
        print(f"  {way.__name__:14}{1e3 * spent:8.1f} ms{spent / base:8.2f}")


def update_seconds(model: CDNA, frames: torch.Tensor, actions: torch.Tensor, context: int, repeats: int) -> float:
    """Of one update."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def update() -> None:
        optimizer.zero_grad()
        sequence_loss(model, frames, actions, context, share=0.5).backward()
        optimizer.step()

    return seconds(update, repeats)


def measure(preset: str, batch: int, repeats: int) -> None:
    """Print what a preset's network costs, and its kernels."""
    config = presets.get("cdna", preset, batch_size=batch)
    (height, width), length = config.env_kwargs["size"], config.length
    model = build_model(config, n_actions=1)
    device = model.scenery.device
    frames = torch.randint(0, 256, (batch, length, 3, height, width), dtype=torch.uint8, device=device)
    actions = torch.zeros(batch, length - 1, 1, device=device)
    spent = update_seconds(model, frames, actions, config.context, repeats)
    rolled = seconds(lambda: predict(model, frames[:, : config.context], actions), repeats) / (batch * (length - 1))
    print(f"{preset}: {height} x {width}, width {config.width}, kernels {config.kernel_size}, batch {batch}, {device}")
    print(f"  update {spent:.2f} s, that is {spent / batch:.3f} s a sequence of {length} frames")
    print(f"  {1e3 * rolled:.2f} ms a frame rolled out")
    kernel_times(batch, height, config.kernel_size, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["cpu"], choices=presets.PRESETS)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for preset in options.presets:
        measure(preset, options.batch, options.repeats)


if __name__ == "__main__":
    main()
