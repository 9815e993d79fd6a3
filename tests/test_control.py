"""The control suite in Gymnasium, against dm_control itself, outside checkers and agents, and a hand-made scene."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from dm_control import suite
from gymnasium.utils.env_checker import check_env

from pixelrl import envs
from pixelrl.envs import camera as cameras
from pixelrl.envs.camera import FIXED, FLOOR, SKY, Camera

STATE, PIXELS = "pixelrl/Control-v0", "pixelrl/ControlPixels-v0"
ZERO = np.zeros(1, np.float32)

# Seen from far above, where there is hardly any perspective, ten pixels a unit: x and y from -2 to 2.
TABLE = """
<mujoco>
  <statistic extent="1000"/>
  <worldbody>
    <light pos="0 0 10"/>
    <camera name="above" pos="0 0 1000" fovy="0.2291829"/>
    <geom name="floor" type="plane" size="1.5 1.0 0.1" rgba="0.2 0.4 0.6 1"/>
    <geom name="rail" type="box" size="1.2 0.1 0.1" pos="0 0.5 0.1" rgba="0.9 0.1 0.1 1"/>
    <body name="cart" pos="0.4 0.5 0.4"><geom type="box" size="0.3 0.2 0.1" rgba="0.9 0.9 0.1 1"/></body>
    <body name="pole" pos="-0.7 -0.2 0.4"><geom type="box" size="0.1 0.6 0.1" rgba="0.1 0.9 0.1 1"/></body>
  </worldbody>
</mujoco>
"""


def block(labels: np.ndarray, x: tuple[float, float], y: tuple[float, float], label: int) -> None:
    """Paint a rectangle, given in units, into labels (40, 40)."""
    rows, columns = [round((2 - v) * 10) for v in y[::-1]], [round((2 + v) * 10) for v in x]
    labels[slice(*rows), slice(*columns)] = label


@pytest.mark.parametrize("quality", ["full", "fast"])
def test_labels_agree_with_a_hand_made_scene_pixel_by_pixel(quality: str) -> None:
    model = mujoco.MjModel.from_xml_string(TABLE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = Camera(model, (40, 40), "above", quality)
    expected = np.full((40, 40), SKY, np.uint8)
    block(expected, (-1.5, 1.5), (-1.0, 1.0), FLOOR)
    block(expected, (-1.2, 1.2), (0.4, 0.6), FIXED)
    block(expected, (0.1, 0.7), (0.3, 0.7), FIXED + 1)
    block(expected, (-0.8, -0.6), (-0.8, 0.4), FIXED + 2)
    labels = camera.shrink_labels(camera.shoot(data, labels=True).labels)
    assert camera.names == ["sky", "floor", "fixed", "cart", "pole"]
    np.testing.assert_array_equal(labels, expected)


def test_the_full_picture_is_dm_controls() -> None:
    env = gym.make(PIXELS, quality="full", stack=1, size=(84, 84))
    obs, _ = env.reset(seed=0)
    theirs = env.unwrapped.dm.physics.render(84, 84, camera_id=0)
    np.testing.assert_array_equal(obs.transpose(1, 2, 0), theirs)


def test_the_fast_picture_is_nearly_the_same_without_shadow_and_reflection() -> None:
    pictures = [gym.make(PIXELS, quality=quality, stack=1).reset(seed=0)[0] for quality in ("full", "fast")]
    assert 0 < np.abs(pictures[0].astype(int) - pictures[1]).mean() < 4


@pytest.mark.parametrize("task", ["cartpole-swingup", "cartpole-balance", "walker-walk", "ball_in_cup-catch"])
def test_state_rewards_and_end_are_dm_controls(task: str) -> None:
    env = gym.make(STATE, task=task, repeat=8)
    domain, _, name = task.partition("-")
    theirs = suite.load(domain, name, task_kwargs={"random": np.random.RandomState(7)})
    obs, _ = env.reset(seed=7)
    expected = theirs.reset()
    rng = np.random.default_rng(0)
    done = False
    while not done:
        np.testing.assert_allclose(obs, np.concatenate([np.ravel(v) for v in expected.observation.values()]), rtol=1e-6)
        action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        obs, reward, terminated, truncated, _ = env.step(action)
        rewards = []
        for _ in range(8):
            if not expected.last():
                expected = theirs.step(action)
                rewards.append(expected.reward)
        assert reward == pytest.approx(sum(rewards))
        done = terminated or truncated
    assert expected.last()
    assert truncated == (expected.discount == 1.0)


def test_any_task_of_the_suite_can_be_named() -> None:
    for domain, task in suite.BENCHMARKING[::4]:
        env = gym.make(STATE, task=f"{domain}-{task}")
        assert env.reset(seed=0)[0].shape == env.observation_space.shape
        env.close()


@pytest.mark.parametrize(("env_id", "kwargs"), [(STATE, {}), *((PIXELS, {"mode": mode}) for mode in envs.MODES)])
def test_gymnasiums_checker_is_content(env_id: str, kwargs: dict) -> None:
    env = gym.make(env_id, render_mode="rgb_array", **kwargs)
    with warnings.catch_warnings():
        warnings.filterwarnings("error")
        warnings.filterwarnings(
            "ignore", message=".*observation space m.*imum value is.*infinity"
        )  # a state is unbounded
        warnings.filterwarnings(
            "ignore", message=".*is not within the observation space|.*different from the unwrapped"
        )
        check_env(env.unwrapped if env_id == STATE else env, skip_render_check=False)


def test_an_outside_agent_can_be_trained_on_it() -> None:
    from stable_baselines3 import SAC

    env = gym.make(STATE, task="cartpole-balance", repeat=8)
    agent = SAC("MlpPolicy", env, learning_starts=100, batch_size=32, policy_kwargs={"net_arch": [32]}, device="cpu")
    before = [p.clone() for p in agent.actor.parameters()]
    agent.learn(200)
    assert any((a != b).any() for a, b in zip(before, agent.actor.parameters(), strict=True))


def test_a_seed_begins_the_same_episode_and_another_seed_another() -> None:
    env = gym.make(PIXELS, mode="video_hard", size=(32, 32))
    episodes = []
    for seed in (3, 3, 4):
        seen = [env.reset(seed=seed)[0]]
        seen += [env.step(ZERO)[0] for _ in range(5)]
        episodes.append(np.stack(seen))
    np.testing.assert_array_equal(episodes[0], episodes[1])
    assert (episodes[0] != episodes[2]).any()


def test_the_stack_holds_the_last_frames_the_newest_last() -> None:
    env = gym.make(PIXELS, size=(32, 32), stack=3)
    before, _ = env.reset(seed=0)
    after, *_ = env.step(np.ones(1, np.float32))
    assert after.shape == (9, 32, 32)
    np.testing.assert_array_equal(after[:6], before[3:])
    assert (after[6:] != before[6:]).any()


def test_environments_of_a_task_share_what_lies_on_the_graphics_side() -> None:
    cameras.SHARED.clear()
    made = [gym.make(PIXELS, mode=mode, size=(24, 24)) for mode in envs.MODES]
    assert len(cameras.SHARED) == 1
    pictures = [env.reset(seed=seed)[0] for seed, env in enumerate([made[0], *made])]
    np.testing.assert_array_equal(pictures[0], made[0].reset(seed=0)[0])  # whatever the others drew meanwhile


def test_another_camera_sees_something_else() -> None:
    pictures = [gym.make(PIXELS, camera=camera).reset(seed=0)[0] for camera in ("fixed", "lookatcart")]
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize("action", [[1.5], [np.nan], [0.0, 0.0], [-np.inf]])
def test_an_action_out_of_range_is_refused(action: list[float]) -> None:
    env = gym.make(PIXELS, size=(24, 24), disable_env_checker=True)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="the action must lie in"):
        env.step(np.array(action, np.float32))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"task": "cartpole-swing"}, "no task 'cartpole-swing'.*cartpole-swingup"),
        ({"mode": "video"}, "no mode 'video'.*video_hard"),
        ({"quality": "best"}, "no quality 'best'.*full, fast"),
        ({"camera": "left"}, "no camera 'left'.*lookatcart"),
        ({"camera": 7}, "no camera 7"),
        ({"repeat": 0}, "repeat is 0"),
        ({"size": (0, 84)}, "size is"),
        ({"stack": 0}, "stack"),
    ],
)
def test_a_wrong_argument_is_told(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gym.make(PIXELS, **kwargs)


@pytest.mark.parametrize(("variable", "library"), [("osmesa", "libOSMesa"), ("egl", "libEGL")])
def test_a_missing_library_is_named_with_what_installs_it(
    variable: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUJOCO_GL", variable)
    monkeypatch.setattr(cameras, "can_load", lambda name: False)
    with pytest.raises(ImportError, match=rf"{library}.*cannot be loaded.*\n?.*prepare.*apt-get install"):
        cameras.choose_gl()


def test_egl_comes_before_osmesa_and_without_either_states_still_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, chosen in (("libEGL libOSMesa", "egl"), ("libOSMesa", "osmesa"), ("", "disable")):
        monkeypatch.delenv("MUJOCO_GL", raising=False)
        monkeypatch.setattr(cameras, "can_load", lambda name, there=there: name.partition(".")[0] in there.split())
        cameras.choose_gl()
        assert cameras.os.environ["MUJOCO_GL"] == chosen
    monkeypatch.undo()
    code = (
        "import os; os.environ['MUJOCO_GL'] = 'disable'\n"
        "from pixelrl import envs\n"
        "print(envs.make('pixelrl/Control-v0').reset(seed=0)[0].shape)\n"
        "envs.make('pixelrl/ControlPixels-v0')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "(5,)"
    assert "pictures need EGL or OSMesa, and MUJOCO_GL is 'disable'" in done.stderr
    assert "python -m pixelrl prepare" in done.stderr
