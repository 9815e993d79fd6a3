"""A camera for MuJoCo scenes: pictures, and which body each pixel belongs to.

`dm_control` draws a frame with shadows and reflections in tens of milliseconds without a GPU. The `fast` quality
leaves both out and draws four pixels for one, which are averaged: smooth edges, a tenth of the time.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import cv2
import numpy as np

from pixelrl.prepare import MUJOCO, can_load

INSTALL = "python -m pixelrl prepare (or, on Debian, Ubuntu and Colab: apt-get install libegl1 libosmesa6)"
SKY, FLOOR, FIXED = 0, 1, 2  # labels; the moving bodies follow in the order of the model


class Quality(NamedTuple):
    """How a picture is drawn."""

    effects: bool
    """Shadows and reflections."""
    samples: int
    """Samples a pixel that the graphics library takes, where it can."""
    scale: int
    """Drawn so many times as high and wide as asked, then averaged."""


QUALITIES = {"full": Quality(effects=True, samples=4, scale=1), "fast": Quality(effects=False, samples=0, scale=2)}


class Shot(NamedTuple):
    """One picture, at the size at which it was drawn."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    labels: np.ndarray
    """(H, W) uint8: what each pixel shows, as a place in `Camera.names`."""


def choose_gl() -> str:
    """Which library draws: the one that `MUJOCO_GL` names, else EGL, else OSMesa, else `disable`; the variable says so.

    MuJoCo and dm_control read the variable when they are imported.

    Raises:
        ImportError: the variable names a library that is not there.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if not chosen:
        there = [name for name, files in MUJOCO.items() if any(map(can_load, files))]
        chosen = os.environ["MUJOCO_GL"] = there[0] if there else "disable"
    elif chosen in MUJOCO and not any(map(can_load, MUJOCO[chosen])):
        raise ImportError(f"MUJOCO_GL is {chosen!r}, but {MUJOCO[chosen][0]} cannot be loaded. Install it: {INSTALL}")
    return chosen


@cache
def gl_context() -> Any:
    """The one graphics context of this process, which all cameras share.

    Raises:
        ImportError: there is no graphics library.
    """
    chosen = choose_gl()
    if chosen not in MUJOCO:
        raise ImportError(f"pictures need EGL or OSMesa, and MUJOCO_GL is {chosen!r}. Install one: {INSTALL}")
    backend = import_module(f"mujoco.{chosen}")  # not `mujoco.GLContext`, which was chosen when mujoco was imported
    context = backend.GLContext(1, 1)
    context.make_current()
    atexit.register(context.free)
    return context


SHARED: dict[tuple[Any, ...], Any] = {}


def shared_resources(key: tuple[Any, ...], model: Any, size: tuple[int, int], quality: Quality) -> Any:
    """What `make_resources` makes, made once for each key, size and quality.

    It takes up to a third of a second; a hundred environments of one task share it.
    """
    key = (*key, size, quality)
    if key not in SHARED:
        SHARED[key] = make_resources(model, size, quality)
    return SHARED[key]


def make_resources(model: Any, size: tuple[int, int], quality: Quality) -> Any:
    """Textures, meshes and a frame buffer of this height and width on the graphics side, `mujoco.MjrContext`."""
    import mujoco

    gl_context().make_current()
    wanted = {"offsamples": quality.samples, "shadowsize": model.vis.quality.shadowsize if quality.effects else 0}
    buffer = {"offheight": size[0], "offwidth": size[1]}
    with changed(model.vis.quality, wanted), changed(model.vis.global_, buffer):
        context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
    atexit.register(context.free)
    return context


@contextmanager
def changed(target: Any, values: dict[str, Any]) -> Iterator[None]:
    """Set attributes of an object for the length of a `with` block."""
    before = {name: getattr(target, name) for name in values}
    try:
        for name, value in values.items():
            setattr(target, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(target, name, value)


class Camera:
    """Draws a scene from one of the cameras of its model.

    Args:
        model: `mujoco.MjModel`.
        size: height and width of the finished picture; what is drawn is `scale` times that.
        camera: number or name of the camera.
        quality: `full` (what dm_control draws) or `fast`.
        key: under which other cameras share the textures; by default they share with nobody.

    Raises:
        ValueError: no such camera or quality.
        ImportError: no graphics library.
    """

    def __init__(
        self,
        model: Any,
        size: tuple[int, int],
        camera: int | str = 0,
        quality: str = "fast",
        key: tuple[Any, ...] | None = None,
    ) -> None:
        import mujoco

        if quality not in QUALITIES:
            raise ValueError(f"there is no quality {quality!r}; there are {', '.join(QUALITIES)}.")
        self.model, self.size, self.quality = model, tuple(size), QUALITIES[quality]
        self.drawn_size = tuple(length * self.quality.scale for length in self.size)
        sources = (model, self.drawn_size, self.quality)
        self.resources = shared_resources(key, *sources) if key else make_resources(*sources)
        self.scene = mujoco.MjvScene(model, maxgeom=1_000)
        self.option = mujoco.MjvOption()
        self.camera = mujoco.MjvCamera()
        self.camera.type, self.camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, camera_number(model, camera)
        self.names = ["sky", "floor", "fixed", *(model.body(i).name for i in range(1, model.nbody))]
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self.scene.flags[flag] = self.quality.effects

    def shoot(self, data: Any, sky: bool = True, labels: bool = False) -> Shot:
        """Draw the scene as it is now.

        Args:
            data: `mujoco.MjData`.
            sky: whether to draw the sky; without it, its pixels are black, and it takes half of the time.
            labels: whether to draw the labels; without, all are 0.
        """
        import mujoco

        flags = mujoco.mjtRndFlag
        gl_context().make_current()
        mujoco.mjv_updateScene(self.model, data, self.option, None, self.camera, mujoco.mjtCatBit.mjCAT_ALL, self.scene)
        self.scene.flags[flags.mjRND_SKYBOX] = sky
        rgb = self._read()
        if not labels:
            return Shot(rgb, np.zeros(self.drawn_size, np.uint8))
        self.scene.flags[flags.mjRND_SEGMENT] = self.scene.flags[flags.mjRND_IDCOLOR] = True
        numbers = self._read().astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], np.int32)  # 0 is nothing at all
        self.scene.flags[flags.mjRND_SEGMENT] = self.scene.flags[flags.mjRND_IDCOLOR] = False
        return Shot(rgb, self._labels_of_numbers()[numbers])

    def _read(self) -> np.ndarray:
        import mujoco

        height, width = self.drawn_size
        area, rgb = mujoco.MjrRect(0, 0, width, height), np.empty((height, width, 3), np.uint8)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self.resources)  # another camera may have drawn
        mujoco.mjr_render(area, self.scene, self.resources)
        mujoco.mjr_readPixels(rgb, None, area, self.resources)
        return rgb[::-1]

    def _labels_of_numbers(self) -> np.ndarray:
        """For each number that the simulator paints something with, its label; a string, which is no geom, is fixed."""
        import mujoco

        table = np.full(self.scene.ngeom + 1, FIXED, np.uint8)
        for drawn in self.scene.geoms[: self.scene.ngeom]:
            if drawn.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                body = self.model.geom_bodyid[drawn.objid]
                plane = self.model.geom_type[drawn.objid] == mujoco.mjtGeom.mjGEOM_PLANE
                table[drawn.segid + 1] = FIXED + body if body else (FLOOR if plane else FIXED)
        table[0] = SKY
        return table

    def shrink(self, picture: np.ndarray) -> np.ndarray:
        """Average a picture (H, W, ...) from the size at which it was drawn to the size that was asked for."""
        if self.quality.scale == 1:
            return np.ascontiguousarray(picture)
        return cv2.resize(picture, self.size[::-1], interpolation=cv2.INTER_AREA)

    def shrink_labels(self, labels: np.ndarray) -> np.ndarray:
        """Labels (H, W) at the size that was asked for: where drawn pixels differ, the most frequent one."""
        labels_from_last = range(len(self.names) - 1, -1, -1)  # of two that are equally frequent, the body wins
        coverage = [self.shrink((labels == label).astype(np.float32)) for label in labels_from_last]
        return (len(self.names) - 1 - np.argmax(coverage, axis=0)).astype(np.uint8)


def camera_number(model: Any, camera: int | str) -> int:
    """The number of a camera of a model, by name or number.

    Raises:
        ValueError: there is no such camera.
    """
    names = [model.camera(i).name for i in range(model.ncam)]
    number = names.index(camera) if camera in names else camera
    if not isinstance(number, int) or not 0 <= number < model.ncam:
        raise ValueError(f"there is no camera {camera!r}; there are {', '.join(names)}, numbered from 0.")
    return number
