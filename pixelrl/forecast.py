"""How good is a predicted video? Scores that say something where two pixels in a hundred move, and what to beat.

All frames here are float32 from 0 to 1. A forecast is (B, h, 3, H, W): h frames after the last one that was seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from pixelrl.cdna import CDNA, as_numbers, predict
from pixelrl.footage import Film, Windows

BEST_PSNR = 60.0  # dB; what equals the truth would be infinitely good
MOVES = 0.1  # a pixel moves if one of its colours changes by more than that
READABLE = 0.1  # rad; a pole is in sight where its angle is read from the true frame to that


def copy_last(frames: torch.Tensor, horizon: int) -> torch.Tensor:
    """The forecast that nothing will change, from the context (B, K, 3, H, W)."""
    return frames[:, -1:].expand(-1, horizon, -1, -1, -1)


def extrapolated(frames: torch.Tensor, horizon: int) -> torch.Tensor:
    """The forecast that every pixel goes on as it changed last, from the context (B, K, 3, H, W), K at least 2."""
    if frames.shape[1] < 2:
        raise ValueError("to go on as before, at least two frames must have been seen.")
    steps = torch.arange(1, horizon + 1, device=frames.device)[None, :, None, None, None]
    return (frames[:, -1:] + steps * (frames[:, -1:] - frames[:, -2:-1])).clamp(0, 1)


def static_background(picture: torch.Tensor, batch_size: int, horizon: int) -> torch.Tensor:
    """The forecast that the scene is empty: one picture (3, H, W) for all."""
    return picture.expand(batch_size, horizon, *picture.shape)


def background(films: list[Film]) -> torch.Tensor:
    """The scene without what moves: the median of every pixel over a thousand frames, (3, H, W)."""
    frames = np.concatenate([film.frames for film in films])
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), 1_000)).astype(int)
    return as_numbers(torch.from_numpy(np.median(frames[chosen], axis=0)))


def psnr(forecast: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each frame in dB, (B, h), at most `BEST_PSNR`."""
    flat = peak_signal_noise_ratio(
        forecast.flatten(0, 1), truth.flatten(0, 1), data_range=1.0, dim=(1, 2, 3), reduction="none"
    )
    return flat.clamp(max=BEST_PSNR).unflatten(0, forecast.shape[:2])


def ssim(forecast: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Structural similarity (Wang et al. 2004) of each frame, (B, h)."""
    flat = structural_similarity_index_measure(
        forecast.flatten(0, 1), truth.flatten(0, 1), data_range=1.0, reduction="none"
    )
    return flat.unflatten(0, forecast.shape[:2])


def moving(last: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """The pixels (B, h, H, W) of which a colour will have changed since the last frame seen, (B, 3, H, W); bool."""
    return ((truth - last[:, None]).abs() > MOVES).any(dim=2)


def moving_psnr(forecast: torch.Tensor, truth: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """The same ratio over the pixels (B, h, H, W) of a mask, (B, h); nan where the mask is empty."""
    error = (forecast - truth).pow(2).mean(dim=2)
    mean = (error * where).sum((2, 3)) / where.sum((2, 3))
    return (-10 * mean.log10()).clamp(max=BEST_PSNR)


class Poses:
    """Reads the pose of the cartpole from a frame by comparing it with drawings of many: the cart first, then the pole.

    What counts is how much a frame differs from the empty scene, and then from the scene with the cart alone, as a
    drawing does (the cosine), and not how strongly: of a pole that is foreseen only faintly, the angle can be right.

    Args:
        env: `ControlPixels` of a cartpole task in the mode `train`.
        carts: cart positions (m) that are drawn.
        angles: the pole's angles (rad).
    """

    def __init__(self, env: Any, carts: np.ndarray, angles: np.ndarray) -> None:
        env.reset(seed=0)
        physics, lens = env.unwrapped.dm.physics, env.get_wrapper_attr("lens")
        drawn = []
        for pose in ((cart, angle) for cart in carts for angle in angles):
            physics.data.qpos[:] = pose
            physics.forward()
            drawn.append(lens.shrink(lens.shoot(env.unwrapped.data).rgb).transpose(2, 0, 1))
        pictures = as_numbers(torch.from_numpy(np.stack(drawn))).flatten(1)  # (carts angles, 3 H W)
        self.carts, self.angles = carts, angles
        self.scene = pictures.median(dim=0).values
        self.whole = F.normalize(pictures - self.scene, dim=1)
        pictures = pictures.unflatten(0, (len(carts), len(angles)))
        self.cart_alone = pictures.median(dim=1).values
        self.poles = F.normalize(pictures - self.cart_alone[:, None], dim=2)

    def read(self, frames: torch.Tensor) -> np.ndarray:
        """Cart (m) and angle (rad) of frames (..., 3, H, W): (..., 2); of an empty scene, any."""
        flat = frames.flatten(0, -4).flatten(1)
        cart = ((flat - self.scene) @ self.whole.T).argmax(dim=1) // len(self.angles)
        angle = torch.zeros_like(cart)
        for place in cart.unique():
            rows = cart == place
            angle[rows] = ((flat[rows] - self.cart_alone[place]) @ self.poles[place].T).argmax(dim=1)
        return np.stack([self.carts[cart.numpy()], self.angles[angle.numpy()]], axis=1).reshape(*frames.shape[:-3], 2)

    def in_sight(self, frames: torch.Tensor, poses: np.ndarray) -> np.ndarray:
        """In which frames (..., 3, H, W) of known poses (..., 2) the pole can be seen; bool (...)."""
        return angle_error(self.read(frames)[..., 1], poses[..., 1]) < READABLE


def angle_error(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """How far two angles (rad) are apart, the short way round: 0 to pi."""
    return np.abs((found - true + np.pi) % (2 * np.pi) - np.pi)


def baselines(seen: torch.Tensor, picture: torch.Tensor, horizon: int) -> dict[str, torch.Tensor]:
    """What to beat: forecasts (B, h, 3, H, W) from the context (B, K, 3, H, W) and the empty scene (3, H, W)."""
    return {
        "copy last": copy_last(seen, horizon),
        "extrapolate": extrapolated(seen, horizon),
        "background": static_background(picture, len(seen), horizon),
    }


def learned(model: CDNA, pieces: Windows, context: int) -> dict[str, torch.Tensor]:
    """The model's forecasts for the pieces: told what is done, told what is done in another piece, told nothing (0)."""
    ring = torch.randperm(len(pieces.frames), generator=torch.Generator().manual_seed(0))
    other = torch.empty_like(ring).scatter_(0, ring, ring.roll(1))  # each piece takes from its neighbour in a ring
    past, future = pieces.actions[:, : context - 1], pieces.actions[:, context - 1 :]
    told = {"CDNA": future, "CDNA, other actions": future[other], "CDNA, no action": torch.zeros_like(future)}
    seen = pieces.frames[:, :context]
    return {name: predict(model, seen, torch.cat([past, actions], dim=1)) for name, actions in told.items()}


def compare(
    forecasts: dict[str, torch.Tensor], pieces: Windows, context: int, poses: Poses | None = None
) -> pd.DataFrame:
    """One row a method and horizon, each a mean over the pieces.

    Columns: method, horizon (agent steps), psnr and moving_psnr (dB), ssim; and with `poses` the mean errors of the
    cart (m) and of the pole's angle (rad) as read from the forecast, over those pieces in which the pole is in sight
    in all frames of the context and in the frame that is foreseen.
    """
    frames = as_numbers(pieces.frames)
    last, truth = frames[:, context - 1], frames[:, context:]
    where = moving(last, truth)
    if poses is not None:
        in_sight, true = poses.in_sight(frames, pieces.poses), pieces.poses[:, context:]
        counts = in_sight[:, :context].all(axis=1, keepdims=True) & in_sight[:, context:]
    rows = []
    for method, forecast in forecasts.items():
        scores = {
            "psnr": psnr(forecast, truth),
            "moving_psnr": moving_psnr(forecast, truth, where),
            "ssim": ssim(forecast, truth),
        }
        if poses is not None:
            found = poses.read(forecast)
            errors = {
                "cart_error": np.abs(found[..., 0] - true[..., 0]),
                "angle_error": angle_error(found[..., 1], true[..., 1]),
            }
            scores |= {name: torch.from_numpy(np.where(counts, error, np.nan)) for name, error in errors.items()}
        means = {name: values.nanmean(dim=0).tolist() for name, values in scores.items()}
        for h in range(truth.shape[1]):
            rows.append({"method": method, "horizon": h + 1, **{name: mean[h] for name, mean in means.items()}})
    return pd.DataFrame(rows)
