"""Moving backgrounds: the book's own, made from a seed, and video files from a folder.

Files are decoded frame by frame as they are asked for; nothing is ever held whole in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

SIDE = 128  # of a procedural picture, in pixels
CANVAS = 256  # of what the procedural camera moves over
COUNT = 100  # procedural videos; number k is k modulo this one


class Clip(Protocol):
    """A video that never ends."""

    def read(self) -> np.ndarray:
        """The next frame, (H, W, 3) uint8 RGB."""


class Videos(Protocol):
    """Some videos to choose from."""

    def open(self, number: int) -> Clip:
        """The video of that number, modulo how many there are, from its beginning."""


class Folder:
    """The video files of a folder, `*.mp4` in the order of their names, numbers counted as numbers.

    Raises:
        FileNotFoundError: there is no such folder, or no video in it.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(
                f"there is no folder {folder}. PIXELRL_VIDEOS, or `videos`, must name one that holds "
                "video_easy/*.mp4 and video_hard/*.mp4, or be 'procedural'."
            )
        self.files = sorted(folder.glob("*.mp4"), key=lambda path: (len(path.name), path.name))
        if not self.files:
            raise FileNotFoundError(f"there is no *.mp4 in {folder}.")

    def open(self, number: int) -> FileClip:
        return FileClip(self.files[number % len(self.files)])


class FileClip:
    """A video file, decoded as it is read; after its last frame it begins anew.

    Raises:
        ValueError: the file is no video that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.capture = cv2.VideoCapture(str(path))
        self.frames = 0  # read since the beginning

    def read(self) -> np.ndarray:
        found, frame = self.capture.read()
        if not found and self.frames:
            self.capture, self.frames = cv2.VideoCapture(str(self.path)), 0
            found, frame = self.capture.read()
        if not found:
            raise ValueError(f"{self.path} holds no video that can be decoded; an MP4 file with H.264 will do.")
        self.frames += 1
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


class Procedural:
    """A hundred videos that the package makes itself, each from its number: free to use, the same everywhere.

    A canvas of one of several kinds (fallen leaves, clouds, stripes, tiles) lies under a camera that pans, turns
    and zooms, and a few shapes drift across it.
    """

    def open(self, number: int) -> ProceduralClip:
        return ProceduralClip(number % COUNT)


class ProceduralClip:
    """One procedural video.

    Args:
        number: from which everything about it follows.
    """

    def __init__(self, number: int) -> None:
        rng = np.random.default_rng([number, 11])
        self.canvas = canvas(rng)
        self.speed = rng.normal(0, 1.5, 2)  # pixels of the canvas a frame
        self.turn = rng.normal(0, 0.006)  # radians a frame
        self.zoom, self.zoom_period = rng.uniform(0.05, 0.3), rng.uniform(60, 200)
        n = int(rng.integers(3, 8))
        self.at, self.drift = rng.uniform(0, SIDE, (n, 2)), rng.normal(0, 2.0, (n, 2))
        self.radius, self.colour = rng.integers(5, 16, n), rng.integers(0, 256, (n, 3))
        self.t = 0

    def read(self) -> np.ndarray:
        scale = 1 + self.zoom * np.sin(2 * np.pi * self.t / self.zoom_period)
        angle, centre = self.turn * self.t, CANVAS / 2 + self.speed * self.t
        across = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        view = np.hstack([across, (centre - across @ np.full(2, SIDE / 2))[:, None]])  # from picture to canvas
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        picture = cv2.warpAffine(self.canvas, view, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_WRAP)
        for at, radius, colour in zip(self.at + self.drift * self.t, self.radius, self.colour, strict=True):
            margin = SIDE + 2 * radius
            x, y = np.rint(at % margin - radius).astype(int).tolist()
            cv2.circle(picture, (x, y), int(radius), colour.tolist(), cv2.FILLED, cv2.LINE_AA)
        self.t += 1
        return picture


def canvas(rng: np.random.Generator) -> np.ndarray:
    """A picture (256, 256, 3) uint8 of a kind that the dice choose, whose opposite edges meet."""
    kinds = (leaves, leaves, clouds, stripes, tiles)  # leaves twice: their statistics are nearest to photographs
    return kinds[rng.integers(len(kinds))](rng)


def leaves(rng: np.random.Generator) -> np.ndarray:
    """Dead leaves (Lee, Mumford & Huang 2001): shapes that hide one another, few large and many small ones."""
    base = rng.uniform(40, 215, 3)
    picture = np.full((CANVAS, CANVAS, 3), base, np.uint8)
    n = 500
    sizes = np.sort(3 / np.sqrt(rng.uniform(0.003, 1, n)))[::-1]  # density falls with the third power of the size
    for size in sizes:
        colour = np.clip(base + rng.normal(0, 70, 3), 0, 255).tolist()
        x, y = rng.integers(0, CANVAS, 2).tolist()
        axes, angle = (max(1, int(size)), max(1, int(size * rng.uniform(0.3, 1)))), rng.uniform(0, 180)
        for dx in (-CANVAS, 0, CANVAS):
            for dy in (-CANVAS, 0, CANVAS):
                near = abs(x + dx - CANVAS / 2) < CANVAS / 2 + size and abs(y + dy - CANVAS / 2) < CANVAS / 2 + size
                if near:
                    cv2.ellipse(picture, (x + dx, y + dy), axes, angle, 0, 360, colour, cv2.FILLED, cv2.LINE_AA)
    return picture


def clouds(rng: np.random.Generator) -> np.ndarray:
    """Noise whose amplitude falls with the frequency, between two colours."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(CANVAS), np.fft.fftfreq(CANVAS)))
    frequency[0, 0] = np.inf
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(CANVAS, CANVAS))) / frequency ** rng.uniform(1.0, 1.6)).real
    share = (1 / (1 + np.exp(-1.5 * noise / noise.std())))[..., None]
    return (share * rng.uniform(0, 255, 3) + (1 - share) * rng.uniform(0, 255, 3)).astype(np.uint8)


def stripes(rng: np.random.Generator) -> np.ndarray:
    """Two gratings over each other, in colours."""
    y, x = np.mgrid[:CANVAS, :CANVAS] / CANVAS
    picture = np.zeros((CANVAS, CANVAS, 3))
    for _ in range(2):
        kx, ky = rng.integers(-12, 13, 2)
        wave = np.sin(2 * np.pi * (kx * x + ky * y) + rng.uniform(0, 6.28))[..., None]
        picture += wave * rng.normal(0, 60, 3)
    return np.clip(picture + rng.uniform(60, 190, 3), 0, 255).astype(np.uint8)


def tiles(rng: np.random.Generator) -> np.ndarray:
    """Squares in a few colours."""
    side = int(rng.choice([8, 16, 32]))
    colours = rng.integers(0, 256, (int(rng.integers(2, 6)), 3)).astype(np.uint8)
    grid = colours[rng.integers(len(colours), size=(CANVAS // side, CANVAS // side))]
    return np.kron(grid, np.ones((side, side, 1), np.uint8))


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (H, W, 3) uint8 at another height and width."""
    smaller = size[0] < picture.shape[0]
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
