"""What is seen around the bodies: the five modes of the DMControl Generalization Benchmark (Hansen & Wang 2021).

`train` is the task as it is. `color_easy` and `color_hard` change the colours of sky, floor and bodies at each
reset; `video_easy` shows a video in place of the sky, `video_hard` in place of sky and floor. What is replaced
is told by the simulator's own segmentation, so that no pixel of a body is lost and none of the sky is left.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from pixelrl.configs import MODES, usual_videos
from pixelrl.envs.camera import FLOOR, SKY, Camera, Shot
from pixelrl.envs.videos import Clip, Folder, Procedural, Videos

SPREAD = {"color_easy": 0.1, "color_hard": 0.2}  # standard deviation of a colour channel of 0 to 1
REPLACED = {"video_easy": (SKY,), "video_hard": (SKY, FLOOR)}
# The suite's colours: the sky at its top, the mean of the floor's two squares, the bodies.
SKY_RGB, FLOOR_RGB, BODY_RGB = (0.4, 0.6, 0.8), (0.15, 0.25, 0.35), (0.7, 0.5, 0.3)


class Scenery(Protocol):
    """What a mode puts around the bodies."""

    def start(self, number: int) -> None:
        """Begin an episode: the number picks the look."""

    def advance(self) -> None:
        """One agent step has passed."""

    def shoot(self, lens: Camera, data: Any, labels: bool = False) -> Shot:
        """A picture of the scene in its surroundings, at the size at which the camera draws."""


class Plain:
    """The task as it is."""

    def start(self, number: int) -> None:
        pass

    def advance(self) -> None:
        pass

    def shoot(self, lens: Camera, data: Any, labels: bool = False) -> Shot:
        return lens.shoot(data, labels=labels)


class Colours:
    """Sky, floor and bodies in other colours, drawn anew for each episode around the suite's own.

    A surface that is lit reflects in proportion to its colour, so a picture in another colour is the picture
    times the ratio of the two. (The floor's two squares keep their ratio; the benchmark adds 0.1 instead.)

    Args:
        spread: standard deviation of each channel, of 0 to 1.
    """

    def __init__(self, spread: float) -> None:
        self.spread = spread
        self.tint = np.ones((3, 3), np.float32)  # sky, floor, bodies by red, green, blue

    def start(self, number: int) -> None:
        rng = np.random.default_rng(number)
        usual = np.array([SKY_RGB, FLOOR_RGB, BODY_RGB])
        self.tint = (np.clip(rng.normal(usual, self.spread), 0, 1) / usual).astype(np.float32)

    def advance(self) -> None:
        pass

    def shoot(self, lens: Camera, data: Any, labels: bool = False) -> Shot:
        rgb, seen = lens.shoot(data, labels=True)
        tint = self.tint[np.minimum(seen, 2)]  # (H, W, 3)
        return Shot(np.minimum(rgb * tint, 255).astype(np.uint8), seen)


class Background:
    """A video in place of some surfaces: one a reset, one frame an agent step.

    Args:
        videos: to choose from.
        replaced: labels of the surfaces.
    """

    def __init__(self, videos: Videos, replaced: tuple[int, ...]) -> None:
        self.videos, self.replaced = videos, replaced
        self.clip: Clip | None = None
        self.frame = np.zeros((1, 1, 3), np.uint8)

    def start(self, number: int) -> None:
        self.clip = self.videos.open(number)
        self.advance()

    def advance(self) -> None:
        self.frame = self.clip.read()

    def shoot(self, lens: Camera, data: Any, labels: bool = False) -> Shot:
        # Where several samples make a pixel, the edges of bodies are mixed with the sky, which then must be there.
        rgb, seen = lens.shoot(data, sky=lens.quality.samples > 0, labels=True)
        return Shot(composite(rgb, seen, self.frame, self.replaced), seen)


def composite(rgb: np.ndarray, labels: np.ndarray, background: np.ndarray, replaced: tuple[int, ...]) -> np.ndarray:
    """The background where `labels` are among the replaced ones, the picture elsewhere.

    Args:
        rgb: (H, W, 3) uint8.
        labels: (H, W) uint8.
        background: (h, w, 3) uint8 of any size; it is resized.
        replaced: labels of the pixels that the background takes.

    Returns:
        (H, W, 3) uint8.
    """
    background = cv2.resize(background, labels.shape[::-1], interpolation=cv2.INTER_LINEAR)
    taken = np.isin(np.arange(256), replaced)[labels]
    return np.where(taken[..., None], background, rgb)


def open_videos(source: str, mode: str) -> Videos:
    """The videos of a mode: `procedural`, or those in the folder of the mode's name below a folder.

    Raises:
        ValueError: a folder has the name of the videos that are made here, which is kept beside every return.
        FileNotFoundError: no videos are there.
    """
    if source != "procedural" and Path(source).resolve().name == "procedural":
        raise ValueError(f"{source}: a folder of videos must not be called 'procedural'; returns are kept by its name.")
    return Procedural() if source == "procedural" else Folder(Path(source) / mode)


def check_modes(modes: Iterable[str], videos: str) -> None:
    """Complain of modes and videos that are not there now, and not when they are needed."""
    for mode in modes:
        make_scenery(mode, videos)


def make_scenery(mode: str, videos: str | None = None) -> Scenery:
    """The scenery of a mode.

    Args:
        mode: one of `configs.MODES`.
        videos: `procedural`, or a folder in the benchmark's layout; by default `usual_videos`. Of the video modes.
    """
    if mode not in MODES:
        raise ValueError(f"there is no mode {mode!r}; there are {', '.join(MODES)}.")
    if mode == "train":
        return Plain()
    if mode in SPREAD:
        return Colours(SPREAD[mode])
    return Background(open_videos(videos or usual_videos(), mode), REPLACED[mode])
