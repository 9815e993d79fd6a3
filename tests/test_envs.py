"""Environments against Gymnasium's own picture, outside checkers, and the physics behind them."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from pixelrl import check, envs, presets
from pixelrl.envs.cartpole import BOTTOM, PIXELS_PER_UNIT, TOP, WIDTH, CartPolePicture, draw_cartpole

PIXELS = "pixelrl/CartPolePixels-v0"


def random_states(n: int) -> np.ndarray:
    """States of CartPole all over the range in which an episode goes on."""
    limits = np.array([2.4, 3.0, 0.2095, 3.0])
    return np.random.default_rng(0).uniform(-limits, limits, (n, 4))


@pytest.fixture(scope="module")
def rendered() -> list[tuple[np.ndarray, np.ndarray]]:
    """States, and Gymnasium's own grey picture of each, (400, 600) uint8."""
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=0)
    pictures = []
    for state in random_states(25):
        env.unwrapped.state = state
        pictures.append((state, cv2.cvtColor(env.render(), cv2.COLOR_RGB2GRAY)))
    env.close()
    return pictures


def test_the_fast_picture_is_gymnasiums(rendered: list) -> None:
    for state, picture in rendered:
        theirs, ours = picture[TOP:BOTTOM].astype(int), draw_cartpole(state).astype(int)
        assert (np.abs(theirs - ours) > 30).mean() < 0.02
        assert np.abs(theirs - ours).mean() < 2
        assert (ours == theirs).mean() > 0.97


def test_nothing_is_cut_off_but_white(rendered: list) -> None:
    for _, picture in rendered:
        assert (picture[:TOP] == 255).all()
        assert (picture[BOTTOM:] == 255).all()


def test_the_cart_is_drawn_where_it_is() -> None:
    for state in random_states(20) * [0.8, 1, 1, 1]:  # where none of it leaves the picture
        cart = (draw_cartpole(state) == 0).sum(axis=0) > 5  # columns with more black than the track
        middle = np.flatnonzero(cart).mean() + 0.5
        assert (middle - WIDTH / 2) / PIXELS_PER_UNIT == pytest.approx(state[0], abs=1.5 / PIXELS_PER_UNIT)


def test_the_pole_leans_where_it_leans() -> None:
    for angle in (-0.2, -0.1, 0.1, 0.2):
        rows, columns = np.nonzero(draw_cartpole(np.array([0.0, 0.0, angle, 0.0]))[:100] < 255)
        slope = np.polyfit(-rows, columns, 1)[0]  # columns to the right for each row upwards
        assert np.arctan(slope) == pytest.approx(angle, abs=0.02)


def test_both_renderers_give_nearly_the_same_observation() -> None:
    fast, slow = (gym.make(PIXELS, renderer=renderer) for renderer in ("fast", "gymnasium"))
    first, _ = fast.reset(seed=3)
    second, _ = slow.reset(seed=3)
    for action in (0, 1, 1, 1, 0):
        assert np.abs(first.astype(int) - second.astype(int)).mean() < 2
        first, second = fast.step(action)[0], slow.step(action)[0]
    fast.close()
    slow.close()


def test_observations_are_what_their_space_says() -> None:
    env = envs.make(PIXELS, size=(30, 60), stack=3)
    assert env.observation_space == spaces.Box(0, 255, (3, 30, 60), np.uint8)
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space
    assert (obs == obs[:1]).all()  # the first frame fills the stack
    assert obs.min() < 128 < obs.max()


def test_the_newest_frame_is_last() -> None:
    stacked = envs.make(PIXELS, stack=3)
    single = CartPolePicture(gym.make("CartPole-v1"))
    obs, _ = stacked.reset(seed=5)
    frames = [single.reset(seed=5)[0]] * 3
    for _ in range(8):
        np.testing.assert_array_equal(obs, np.stack(frames[-3:]))
        obs = stacked.step(1)[0]
        frames.append(single.step(1)[0])
    assert not np.array_equal(obs[0], obs[1])
    assert not np.array_equal(obs[1], obs[2])


def balance(state: np.ndarray) -> int:
    """A simple controller that keeps the pole up for as long as one likes."""
    return int(state @ [0.1, 0.3, 1.0, 0.5] > 0)


@pytest.mark.parametrize(("env_id", "as_end"), [(PIXELS, False), ("pixelrl/CartPoleTruncationAsEnd-v0", True)])
def test_the_time_limit(env_id: str, as_end: bool) -> None:
    env = envs.make(env_id)
    env.reset(seed=0)
    for step in range(1, 501):
        _, reward, terminated, truncated, _ = env.step(balance(np.array(env.unwrapped.state)))
        assert reward == 1.0
        assert (terminated, truncated) == ((False, False) if step < 500 else (as_end, not as_end))


def test_a_fallen_pole_is_an_end_in_both() -> None:
    for env_id in ("CartPole-v1", "pixelrl/CartPoleTruncationAsEnd-v0"):
        env = envs.make(env_id)
        env.reset(seed=0)
        outcomes = [(False, False)]
        while outcomes[-1] == (False, False):
            outcomes.append(env.step(1)[2:4])
        assert outcomes[-1] == (True, False)
        assert len(outcomes) < 15


def test_gymnasiums_checker_is_content() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        check_env(gym.make(PIXELS))


def test_stable_baselines3s_checker_is_content() -> None:
    from stable_baselines3.common.env_checker import check_env as check

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(gym.make(PIXELS, size=(40, 60)))  # it warns below 36 x 36, which its own network needs


@pytest.mark.parametrize("env_id", ["NoSuchThing-v0", "CartPole-v99", "nowhere/CartPole-v1"])
def test_an_unknown_environment_is_refused(env_id: str) -> None:
    with pytest.raises(ValueError, match=f"no environment '{env_id}'.*pixelrl/CartPolePixels-v0"):
        envs.make(env_id)


class Odd(gym.Env):
    """An environment that has nothing but spaces."""

    def __init__(self, obs: spaces.Space, action: spaces.Space) -> None:
        self.observation_space, self.action_space = obs, action


gym.register("pixelrl-tests/Odd-v0", Odd)
STATE = spaces.Box(-1, 1, (3,), np.float32)
BAD_OBSERVATIONS = [
    spaces.Dict({"a": STATE}),
    spaces.MultiBinary(4),
    spaces.Discrete(5),
    spaces.Box(-1, 1, (3,), np.float64),
    spaces.Box(0, 255, (84, 84), np.uint8),
    spaces.Box(0, 1, (3, 84, 84), np.float32),
    spaces.Box(0, 255, (3,), np.uint8),
]
BAD_ACTIONS = [spaces.MultiDiscrete([2, 2]), spaces.Box(-1, 1, (2, 2), np.float32), spaces.Dict({"a": STATE})]


@pytest.mark.parametrize("obs", BAD_OBSERVATIONS, ids=str)
def test_observations_no_agent_understands_are_refused(obs: spaces.Space) -> None:
    with pytest.raises(ValueError, match=r"\(C, H, W\) of uint8, or a state, a Box \(n,\) of float32; .*Odd") as error:
        envs.make("pixelrl-tests/Odd-v0", obs=obs, action=spaces.Discrete(2))
    assert str(obs) in str(error.value)


@pytest.mark.parametrize("action", BAD_ACTIONS, ids=str)
def test_actions_no_agent_understands_are_refused(action: spaces.Space) -> None:
    with pytest.raises(ValueError, match="Discrete or a one-dimensional Box") as error:
        envs.make("pixelrl-tests/Odd-v0", obs=STATE, action=action)
    assert str(action) in str(error.value)


@pytest.mark.parametrize("obs", [STATE, spaces.Box(0, 255, (3, 84, 84), np.uint8)], ids=str)
@pytest.mark.parametrize("action", [spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32)], ids=str)
def test_states_and_pixels_are_taken(obs: spaces.Space, action: spaces.Space) -> None:
    assert envs.make("pixelrl-tests/Odd-v0", obs=obs, action=action).observation_space == obs


def test_wrong_renderers_are_refused() -> None:
    with pytest.raises(ValueError, match="renderer is 'opengl'"):
        envs.make(PIXELS, renderer="opengl")
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        CartPolePicture(gym.make("CartPole-v1"), renderer="gymnasium")


def test_an_atari_game_is_seen_as_the_paper_saw_it(capsys: pytest.CaptureFixture[str]) -> None:
    """With the very config of exercise 2.5."""
    config = presets.get("dqn-pixels-improved", "full", env="pixelrl/Atari-v0", env_kwargs={"game": "Pong"})
    env = envs.make(config.env, **config.env_kwargs)
    first, _ = env.reset(seed=0)
    assert (first.shape, first.dtype) == ((4, 84, 84), np.uint8)
    frame = env.unwrapped.ale.getEpisodeFrameNumber()
    second, *_ = env.step(2)
    np.testing.assert_array_equal(second[:-1], first[1:])
    assert env.unwrapped.ale.getEpisodeFrameNumber() == frame + 4
    check.atari_env(lambda: env)
    assert "✓ Exercise 2.5" in capsys.readouterr().out


def test_atari_without_its_emulator_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without_ale(name: str, *rest: Any) -> Any:
        return None if name == "ale_py" else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without_ale)
    with pytest.raises(ImportError, match="pip install ale-py"):
        envs.make("pixelrl/Atari-v0", game="Pong")


def play_minatar(env: gym.Env, seed: int, steps: int = 200) -> list[np.ndarray]:
    """Boards of a game with actions from a list of their own."""
    actions = np.random.default_rng(0).integers(0, 3, steps)
    boards = [env.reset(seed=seed)[0]]
    for action in actions:
        board, _, terminated, truncated, _ = env.step(action)
        boards.append(board)
        if terminated or truncated:
            boards.append(env.reset()[0])
    return boards


def test_minatar_is_a_gymnasium_environment_that_its_seed_determines() -> None:
    """Also after other games: MinAtar itself would repeat the last action of the game before."""
    env = envs.make("pixelrl/MinAtar-v0", game="breakout", sticky=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(env, skip_render_check=True)
    fresh = play_minatar(env, 3)
    env.step(2)
    again = play_minatar(env, 3)
    assert all(np.array_equal(one, other) for one, other in zip(fresh, again, strict=True))
    assert env.observation_space.contains(fresh[0])
    assert fresh[0].shape == (4, 10, 10)
    other = play_minatar(env, 4)
    assert not all(np.array_equal(one, two) for one, two in zip(fresh, other, strict=False))
    env.close()


def test_minatar_is_cut_off_and_drawn() -> None:
    env = envs.make("pixelrl/MinAtar-v0", max_steps=4, sticky=0.0, render_mode="rgb_array")
    board, _ = env.reset(seed=0)
    assert [env.step(0)[2:4] for _ in range(4)][-1] == (False, True)
    picture = env.render()
    assert picture.shape == (240, 240, 3)
    board = env.unwrapped.game.state().transpose(2, 0, 1)
    cells = picture[12::24, 12::24]
    colours = {plane: tuple(cells[tuple(np.argwhere(board[plane])[0])]) for plane in (0, 1, 3)}
    empty = tuple(cells[tuple(np.argwhere(~board.any(axis=0))[0])])
    assert len({empty, *colours.values()}) == 4
    env.close()


def test_a_game_that_minatar_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="tetris"):
        envs.make("pixelrl/MinAtar-v0", game="tetris")
