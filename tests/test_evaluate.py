"""Evaluation in lockstep against one episode at a time."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest

from pixelrl import presets
from pixelrl.envs import MODES
from pixelrl.evaluate import evaluate, evaluate_modes, play


class Linear:
    """A policy that needs no training, and tells how often it was asked."""

    def __init__(self, weights: list[float]) -> None:
        self.weights, self.asked = np.array(weights), 0

    def act(self, obs: np.ndarray, explore: bool) -> np.ndarray:
        assert not explore
        self.asked += 1
        return (obs @ self.weights > 0).astype(np.int64)


CLUMSY, SKILLED = [0.0, 0.0, 1.0, 0.0], [0.1, 0.3, 1.0, 0.5]


def make_env(limit: int = 120) -> gym.Env:
    return gym.make("CartPole-v1", max_episode_steps=limit)


def one_at_a_time(policy: Linear, seed: int) -> float:
    """The return of one episode, the plain way."""
    env = make_env()
    obs, _ = env.reset(seed=seed)
    total, done = 0.0, False
    while not done:
        obs, reward, terminated, truncated, _ = env.step(int(policy.act(obs[None], explore=False)[0]))
        total, done = total + reward, terminated or truncated
    return total


@pytest.mark.parametrize("weights", [CLUMSY, SKILLED])
def test_returns_equal_those_of_single_episodes(weights: list[float]) -> None:
    policy = Linear(weights)
    returns = evaluate(policy, make_env, episodes=7, seed=50)
    asked = policy.asked
    expected = [one_at_a_time(policy, 50 + i) for i in range(7)]
    assert returns.tolist() == expected
    assert asked == max(expected)  # once a step for all, as long as the longest lasts
    assert len(set(expected)) > 1 or weights is SKILLED
    assert evaluate(policy, make_env, episodes=7, seed=50).tolist() == expected


def test_the_seed_chooses_the_episodes() -> None:
    some, more = (evaluate(Linear(CLUMSY), make_env, episodes=5, seed=seed) for seed in (0, 3))
    assert some.tolist() != more.tolist()
    assert some[3:].tolist() == more[:2].tolist()


def test_play_keeps_what_was_seen_and_done() -> None:
    env = gym.make("CartPole-v1", render_mode="rgb_array", max_episode_steps=15)
    policy = Linear(SKILLED)
    episode = play(policy, env, seed=9)
    assert len(episode.frames) == len(episode.obs) == len(episode.actions) == len(episode.rewards) == 15
    assert episode.frames[0].shape == (400, 600, 3)
    assert episode.frames[0].dtype == np.uint8
    again = gym.make("CartPole-v1", render_mode="rgb_array")
    obs, _ = again.reset(seed=9)
    for t in range(15):
        np.testing.assert_array_equal(episode.obs[t], obs)
        np.testing.assert_array_equal(episode.frames[t], again.render())
        assert episode.actions[t] == policy.act(obs[None], explore=False)[0]
        obs, reward, *_ = again.step(episode.actions[t])
        assert episode.rewards[t] == reward


def test_play_stops_at_the_latest_when_told() -> None:
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    assert len(play(Linear(SKILLED), env, max_steps=4).frames) == 4


def test_play_without_pictures_sees_and_does_the_same() -> None:
    drawn = play(Linear(SKILLED), gym.make("CartPole-v1", render_mode="rgb_array"), seed=9, max_steps=6)
    plain = play(Linear(SKILLED), gym.make("CartPole-v1"), seed=9, max_steps=6)
    assert plain.frames == []
    np.testing.assert_array_equal(plain.obs, drawn.obs)
    np.testing.assert_array_equal(plain.actions, drawn.actions)


def test_play_needs_pictures_as_arrays() -> None:
    env = gym.make("CartPole-v1")
    env.unwrapped.render_mode = "human"
    with pytest.raises(ValueError, match="render_mode='rgb_array'; the environment has 'human'"):
        play(Linear(SKILLED), env)


class Centred:
    """A policy for pixels that looks at nothing, and notes what it was shown first."""

    def __init__(self) -> None:
        self.first: list[np.ndarray] = []

    def act(self, obs: np.ndarray, explore: bool) -> np.ndarray:
        self.first.append(obs)
        return np.zeros((len(obs), 1), np.float32)


def test_every_mode_is_played_on_the_same_seeds_and_on_its_own_videos() -> None:
    config = presets.get("sac", "quick", env_kwargs={"task": "cartpole-balance", "repeat": 250, "size": (24, 24)})
    agent = Centred()
    table = evaluate_modes(agent, config, episodes=3)
    assert list(table["mode"]) == [mode for mode in MODES for _ in range(3)]
    assert list(table["episode"]) == [0, 1, 2] * 5
    assert list(table["videos"].unique()) == ["", "procedural"]
    by_mode = table.pivot_table(index="mode", columns="episode", values="return")
    assert by_mode.nunique().eq(1).all()  # the policy is blind, and the episodes are the same but for their looks
    assert table["return"].nunique() > 1
    shown = np.stack(agent.first[::4])  # (modes, episodes, 9, 24, 24): each mode takes four steps
    assert all((shown[0] != other).any() for other in shown[1:])
    assert (shown[4, 0] != shown[4, 1]).mean() > 0.5  # episode 1 shows another video
    pd.testing.assert_frame_equal(table, evaluate_modes(Centred(), config, episodes=3))
