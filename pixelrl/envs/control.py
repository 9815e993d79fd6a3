"""The DeepMind Control Suite (Tassa et al. 2018) as Gymnasium environments, from state and from pixels."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import FrameStackObservation, ReshapeObservation

from pixelrl.envs.camera import Camera, choose_gl
from pixelrl.envs.modes import Scenery, make_scenery

SHOWN_SIZE = (240, 240)  # of pictures for people


def load_task(name: str) -> Any:
    """A task of the suite, as dm_control's own environment.

    Args:
        name: domain and task: `cartpole-swingup`, `walker-walk`, `ball_in_cup-catch`.

    Raises:
        ValueError: there is no such task.
    """
    domain, task = parts_of_task(name)
    from dm_control import suite

    return suite.load(domain, task, task_kwargs={"random": np.random.RandomState(0)})


def parts_of_task(name: str) -> tuple[str, str]:
    """Domain and task of a name such as `cartpole-swingup`.

    Raises:
        ValueError: there is no such task.
    """
    choose_gl()
    from dm_control import suite

    domain, _, task = name.partition("-")
    if (domain, task) not in suite.ALL_TASKS:
        tasks = ", ".join(sorted("-".join(pair) for pair in suite.ALL_TASKS))
        raise ValueError(f"there is no task {name!r} in the suite; there are {tasks}.")
    return domain, task


class Control(gym.Env):
    """A task of the suite from state.

    An action is held for `repeat` simulator frames, and the rewards of these are summed. The suite's episodes end
    when their time is up, which is a truncation; few tasks terminate.

    Args:
        task: `cartpole-swingup`, `walker-walk`, ...
        repeat: simulator frames an agent step.
        render_mode: `rgb_array` for pictures.
        camera: number or name of the camera for pictures.

    Observations are (n,) float32, all that the task measures one after the other; actions (A,) float32.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 - Gymnasium's own form

    def __init__(self, task: str, repeat: int = 1, render_mode: str | None = None, camera: int | str = 0) -> None:
        if repeat < 1:
            raise ValueError(f"repeat is {repeat}; an action is held for at least 1 frame.")
        self.task, self.repeat, self.render_mode, self.camera = task, repeat, render_mode, camera
        self.dm = load_task(task)
        self.metadata = {**self.metadata, "render_fps": max(1, round(1 / (self.dm.control_timestep() * repeat)))}
        action = self.dm.action_spec()
        self.action_space = gym.spaces.Box(
            action.minimum.astype(np.float32), action.maximum.astype(np.float32), dtype=np.float32
        )
        n = sum(int(np.prod(spec.shape)) for spec in self.dm.observation_spec().values())
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (n,), np.float32)
        self._shown: Camera | None = None

    @property
    def model(self) -> Any:
        """The scene, `mujoco.MjModel`."""
        return self.dm.physics.model.ptr

    @property
    def data(self) -> Any:
        """The state of the scene, `mujoco.MjData`."""
        return self.dm.physics.data.ptr

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode; the same seed begins the same one."""
        super().reset(seed=seed)
        if seed is not None:
            self.dm.task._random = np.random.RandomState(seed % 2**32)  # the suite takes a seed only when it loads
        return flat(self.dm.reset().observation), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Hold an action for `repeat` frames.

        Raises:
            ValueError: the action is of the wrong shape, not a number, or out of range.
        """
        action = np.asarray(action, np.float32)
        if not self.action_space.contains(action):
            raise ValueError(f"the action must lie in {self.action_space}; got {action}.")
        reward = 0.0
        for _ in range(self.repeat):
            step = self.dm.step(action)
            reward += step.reward
            if step.last():
                break
        terminated = bool(step.last() and step.discount == 0.0)
        return flat(step.observation), reward, terminated, bool(step.last() and not terminated), {}

    def physics(self) -> np.ndarray:
        """The state of the simulator, (n,) float64, as `dm_control` has it."""
        return self.dm.physics.get_state()

    def scene(self) -> bytes:
        """Of what is drawn and moved, all that `physics` does not tell, as MuJoCo saves it."""
        import mujoco

        buffer = np.empty(mujoco.mj_sizeModel(self.model), np.uint8)
        mujoco.mj_saveModel(self.model, None, buffer)
        return buffer.tobytes()

    def jump(self, physics: np.ndarray, action: np.ndarray) -> np.ndarray:
        """From one state of the simulator, (n,) as `dm_control` has it, to that after an agent step; no episode.

        What was going on is lost: this is for a copy of the environment that is only asked what would be.
        """
        own = self.dm.physics
        with own.reset_context():
            own.set_state(physics)
        for _ in range(self.repeat):
            self.dm.task.before_step(action, own)
            own.step(self.dm._n_sub_steps)
        return own.get_state()

    def render(self) -> np.ndarray | None:
        """A picture (240, 240, 3) uint8 of what dm_control draws."""
        if self.render_mode is None:
            return None
        self._shown = self._shown or self.make_camera(SHOWN_SIZE, self.camera, "full")
        return self._shown.shrink(self._shown.shoot(self.data).rgb)

    def make_camera(self, size: tuple[int, int], camera: int | str, quality: str) -> Camera:
        """A camera in this scene, which shares its textures with all others of the same task."""
        return Camera(self.model, size, camera, quality, key=(self.task,))

    def close(self) -> None:
        """Free the simulator."""
        self.dm.close()


def flat(observation: dict[str, Any]) -> np.ndarray:
    """All measurements one after the other, (n,) float32."""
    return np.concatenate([np.ravel(value) for value in observation.values()]).astype(np.float32)


class CameraView(gym.Wrapper):
    """The task seen by a camera, with a scenery behind it: one frame (3, H, W) uint8.

    Args:
        env: the task from state.
        scenery: what is seen behind and around the bodies.
        size: height and width of a frame.
        camera: number or name of the camera.
        quality: `full` (what dm_control draws) or `fast`.
        labels: whether `info["labels"]` tells what each pixel of the newest frame shows, (H, W) uint8, as a
            place in `info["label_names"]`: the sky, the floor, what is fixed (a rail), and each moving body.

    `reset(options={"scenery": k})` asks for the k-th video or the k-th set of colours; without, the seed picks it.
    """

    def __init__(
        self, env: Control, scenery: Scenery, size: tuple[int, int], camera: int | str, quality: str, labels: bool
    ) -> None:
        super().__init__(env)
        self.scenery, self.labels = scenery, labels
        self.lens = env.unwrapped.make_camera(size, camera, quality)
        self.observation_space = gym.spaces.Box(0, 255, (3, *size), np.uint8)
        self.shown_lens: Camera | None = None

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        _, info = self.env.reset(seed=seed, options=options)
        number = (options or {}).get("scenery")
        self.scenery.start(int(self.np_random.integers(2**31)) if number is None else number)
        return self._see(info)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        _, reward, terminated, truncated, info = self.env.step(action)
        self.scenery.advance()
        obs, info = self._see(info)
        return obs, reward, terminated, truncated, info

    def foresee(self, physics: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The frame (3, H, W) uint8 and the state after an agent step from a state of the simulator; see `jump`."""
        after = self.unwrapped.jump(physics, action)
        return self._see({})[0], after

    def _see(self, info: dict) -> tuple[np.ndarray, dict]:
        shot = self.scenery.shoot(self.lens, self.unwrapped.data, self.labels)
        if self.labels:
            info = {**info, "labels": self.lens.shrink_labels(shot.labels), "label_names": self.lens.names}
        return self.lens.shrink(shot.rgb).transpose(2, 0, 1).copy(), info

    def render(self) -> np.ndarray | None:
        """A picture (240, 240, 3) uint8 of the task in its scenery."""
        if self.render_mode is None:
            return None
        env = self.unwrapped
        self.shown_lens = self.shown_lens or env.make_camera(SHOWN_SIZE, self.lens.camera.fixedcamid, "full")
        return self.shown_lens.shrink(self.scenery.shoot(self.shown_lens, env.data).rgb)


def control(task: str = "cartpole-swingup", repeat: int = 8, render_mode: str | None = None) -> gym.Env:
    """A task of the suite from state, (n,) float32."""
    return Control(task, repeat, render_mode)


def control_pixels(
    task: str = "cartpole-swingup",
    mode: str = "train",
    size: tuple[int, int] = (84, 84),
    stack: int = 3,
    repeat: int = 8,
    camera: int | str = 0,
    quality: str = "fast",
    videos: str | None = None,
    labels: bool = False,
    render_mode: str | None = None,
) -> gym.Env:
    """A task of the suite from a stack of RGB frames, (3 · stack, H, W) uint8, the newest last.

    Args:
        task: `cartpole-swingup`, `walker-walk`, ...
        mode: one of the benchmark's: `train`, `color_easy`, `color_hard`, `video_easy`, `video_hard`.
        size: height and width of a frame.
        stack: frames in an observation.
        repeat: simulator frames an agent step.
        camera: number or name of the camera.
        quality: `full` (what dm_control draws) or `fast` (no shadow, no reflection).
        videos: `procedural`, or a folder with `video_easy/` and `video_hard/` in it; by default what the variable
            `PIXELRL_VIDEOS` names, else `procedural`.
        labels: whether `info` tells what each pixel shows; see `CameraView`.
        render_mode: `rgb_array` for pictures.
    """
    scenery = make_scenery(mode, videos)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size is {size}; it must be the height and the width of a frame in pixels.")
    if stack < 1:
        raise ValueError(f"stack is {stack}; an observation holds at least 1 frame.")
    env = CameraView(Control(task, repeat, render_mode, camera), scenery, tuple(size), camera, quality, labels)
    return ReshapeObservation(FrameStackObservation(env, stack), (3 * stack, *size))
