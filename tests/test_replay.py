"""The replay buffer against a reference that keeps whole episodes as lists."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np
import pytest
import scipy.stats
import torch

from pixelrl.prioritised import PrioritisedSampler
from pixelrl.replay import Replay, UniformSampler

GAMMA = 0.9
ACTIONS = gym.spaces.Discrete(5)


@dataclass
class Episode:
    """All that happened in one episode, as the environment gave it."""

    first_write: int
    obs: list[np.ndarray] = field(default_factory=list)
    action: list[int] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    terminated: list[bool] = field(default_factory=list)

    def transition(self, t: int, n_step: int) -> tuple:
        """obs, action, n-step reward, next_obs, terminated and discount of step t, from the definition."""
        total, last = 0.0, t
        for last in range(t, min(t + n_step, len(self.action))):
            total += GAMMA ** (last - t) * self.reward[last]
        return self.obs[t], self.action[t], total, self.obs[last + 1], self.terminated[last], GAMMA ** (last + 1 - t)


class Recorder:
    """Plays random episodes into a buffer, and keeps a copy of them that shares nothing with it."""

    def __init__(self, buffer: Replay, rng: np.random.Generator) -> None:
        self.buffer, self.rng = buffer, rng
        self.episodes: list[Episode] = []
        self.writes = 0
        self.left = 0

    def observe(self, first: bool) -> np.ndarray:
        """A new observation: the newest `stack` frames, the first of the episode standing in for those before it."""
        shape, stack = self.buffer.obs_space.shape, self.buffer.stack
        frame = self.rng.integers(0, 256, (shape[0] // stack, *shape[1:])).astype(self.buffer.obs_space.dtype)
        self.frames = [frame] * stack if first else [*self.frames[1:], frame]
        self.writes += 1
        return np.concatenate(self.frames)

    def step(self) -> None:
        """One step, or the start of an episode where none is going on."""
        if self.left == 0:
            self.left = int(self.rng.integers(1, 15))
            self.episodes.append(Episode(self.writes, [self.observe(first=True)]))
            self.buffer.start(self.episodes[-1].obs[0])
            return
        self.left -= 1
        episode = self.episodes[-1]
        episode.action.append(int(self.rng.integers(5)))
        episode.reward.append(float(self.rng.normal()))
        episode.terminated.append(self.left == 0 and bool(self.rng.integers(2)))  # every other one is only cut off
        episode.obs.append(self.observe(first=False))
        self.buffer.add(episode.action[-1], episode.reward[-1], episode.terminated[-1], episode.obs[-1])

    def held(self) -> dict[int, tuple]:
        """By slot, the transitions that a buffer of this size still holds, but for the stack - 1 oldest slots."""
        oldest = self.writes - self.buffer.capacity + self.buffer.stack - 1
        return {
            (episode.first_write + t) % self.buffer.capacity: episode.transition(t, self.buffer.n_step)
            for episode in self.episodes
            for t in range(len(episode.action))
            if episode.first_write + t >= oldest
        }


def buffer(
    capacity: int = 50,
    stack: int = 1,
    n_step: int = 1,
    shape: tuple[int, ...] = (1, 2, 3),
    dtype: type = np.uint8,
    actions: gym.Space = ACTIONS,
    sampler: type = UniformSampler,
) -> Replay:
    """A small buffer whose observations stack `stack` frames of a shape."""
    space = gym.spaces.Box(0, 255, (shape[0] * stack, *shape[1:]), dtype)
    return Replay(capacity, space, actions, sampler(capacity, np.random.default_rng(0)), stack, n_step, GAMMA)


@pytest.mark.parametrize("n_step", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stack", [1, 2, 3, 4])
def test_every_transition_equals_the_reference(stack: int, n_step: int) -> None:
    rng = np.random.default_rng([stack, n_step])
    shape = (3, 2, 2) if n_step == 2 else (1, 2, 3)
    replay = buffer(int(rng.integers(stack + n_step + 1, 45)), stack, n_step, shape)
    recorder = Recorder(replay, rng)
    for _ in range(12 * replay.capacity):
        recorder.step()
        expected = recorder.held()
        assert set(np.flatnonzero(replay.drawable)) == set(expected)
        if not expected or rng.random() < 0.8:
            continue
        slots = np.array(list(expected))
        obs, action, reward, next_obs, terminated, discount = zip(*expected.values(), strict=True)
        batch = replay.gather(slots, np.ones(len(slots), np.float32))
        np.testing.assert_array_equal(batch.obs, np.stack(obs))
        np.testing.assert_array_equal(batch.action, action)
        np.testing.assert_allclose(batch.reward, reward, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(batch.next_obs, np.stack(next_obs))
        np.testing.assert_array_equal(batch.terminated, terminated)
        np.testing.assert_allclose(batch.discount, discount, rtol=1e-6)
    assert replay.written > 10 * replay.capacity
    assert len(replay) == replay.capacity


@pytest.mark.parametrize(("stack", "context"), [(1, 3), (3, 3), (3, 6), (4, 2)])
def test_a_context_is_what_led_to_the_next_observation(stack: int, context: int) -> None:
    rng = np.random.default_rng([stack, context])
    space = gym.spaces.Box(0, 255, (stack, 2, 3), np.uint8)
    sampler = UniformSampler(40, np.random.default_rng(0))
    replay = Replay(40, space, ACTIONS, sampler, stack, context=context)
    recorder = Recorder(replay, rng)
    seen = 0
    for _ in range(400):
        recorder.step()
        slots = np.flatnonzero(replay.drawable)
        if not len(slots):
            continue
        batch = replay.gather(slots, np.ones(len(slots), np.float32))
        oldest = recorder.writes - replay.capacity + max(stack, context - 1) - 1
        for row, slot in enumerate(slots):
            episode, t = next(
                (episode, t)
                for episode in recorder.episodes
                for t in range(len(episode.action))
                if (episode.first_write + t) % replay.capacity == slot and episode.first_write + t >= oldest
            )
            times = np.arange(t + 2 - context, t + 2)
            frames = [episode.obs[max(0, i)][-1:] for i in times]
            np.testing.assert_array_equal(batch.past_frames[row], np.stack(frames))
            actions = [episode.action[i] if i >= 0 else 0 for i in times[:-1]]
            np.testing.assert_array_equal(batch.past_actions[row], actions)
            seen += t + 2 > context
        np.testing.assert_array_equal(batch.past_frames[:, -1], batch.next_obs[:, -1:])
    assert seen > 1_000
    assert batch.to(torch.device("cpu")).past_frames.shape == batch.past_frames.shape


def state(value: float) -> np.ndarray:
    return np.array([value], np.float32)


def test_returns_stop_where_an_episode_does() -> None:
    replay = buffer(20, n_step=3, shape=(1,), dtype=np.float32)
    replay.start(state(10))
    replay.add(1, 1.0, False, state(11))
    replay.add(2, 2.0, True, state(12))  # really over
    replay.start(state(20))
    replay.add(3, 4.0, False, state(21))
    replay.add(4, 8.0, False, state(22))  # cut off by the time limit
    replay.start(state(30))
    batch = replay.gather(np.array([0, 1, 3, 4]), np.ones(4, np.float32))
    assert batch.obs.flatten().tolist() == [10, 11, 20, 21]
    assert batch.action.tolist() == [1, 2, 3, 4]
    assert batch.reward.tolist() == pytest.approx([1 + GAMMA * 2, 2, 4 + GAMMA * 8, 8])
    assert batch.next_obs.flatten().tolist() == [12, 12, 22, 22]
    assert batch.terminated.tolist() == [1, 1, 0, 0]
    assert batch.discount.tolist() == pytest.approx([GAMMA**2, GAMMA, GAMMA**2, GAMMA])
    assert replay.drawable.sum() == 4


def test_the_first_frame_fills_the_stack() -> None:
    replay = buffer(20, stack=3, shape=(1, 1, 1))
    frames = np.array([7, 8, 9], np.uint8)
    replay.start(np.full((3, 1, 1), 7, np.uint8))
    replay.add(0, 0.0, False, frames[[0, 0, 1]].reshape(3, 1, 1))
    replay.add(0, 0.0, False, frames[[0, 1, 2]].reshape(3, 1, 1))
    batch = replay.gather(np.array([0, 1]), np.ones(2, np.float32))
    assert batch.obs.flatten(1).tolist() == [[7, 7, 7], [7, 7, 8]]
    assert batch.next_obs.flatten(1).tolist() == [[7, 7, 8], [7, 8, 9]]


def test_every_transition_is_drawn_equally_often() -> None:
    replay = buffer(60, stack=2, n_step=2)
    recorder = Recorder(replay, np.random.default_rng(1))
    for _ in range(200):
        recorder.step()
    drawn = np.concatenate([replay.sample(500).slots for _ in range(40)])
    slots, counts = np.unique(drawn, return_counts=True)
    assert set(slots) == set(recorder.held())
    assert scipy.stats.chisquare(counts).pvalue > 0.001


def test_a_sample_is_tensors_of_the_documented_types() -> None:
    replay = buffer(60, stack=4)
    recorder = Recorder(replay, np.random.default_rng(1))
    for _ in range(30):
        recorder.step()
    batch = replay.sample(7)
    assert batch.obs.shape == batch.next_obs.shape == (7, 4, 2, 3)
    assert batch.obs.dtype == batch.next_obs.dtype == torch.uint8
    assert batch.obs.is_contiguous()
    assert batch.next_obs.is_contiguous()
    assert batch.action.dtype == torch.int64
    for number in (batch.reward, batch.terminated, batch.discount, batch.weight):
        assert number.shape == (7,)
        assert number.dtype == torch.float32
    assert batch.weight.tolist() == [1.0] * 7


def test_continuous_actions_come_back() -> None:
    replay = buffer(10, shape=(1,), dtype=np.float32, actions=gym.spaces.Box(-1, 1, (2,), np.float32))
    replay.start(state(0))
    replay.add(np.array([0.25, -0.5], np.float32), 0.0, False, state(1))
    batch = replay.sample(3)
    assert batch.action.dtype == torch.float32
    assert batch.action.tolist() == [[0.25, -0.5]] * 3


def test_memory_is_one_frame_a_step() -> None:
    replay = buffer(1_000, stack=4, n_step=3, shape=(1, 84, 84))
    assert replay.nbytes <= 1.05 * 1_000 * 84 * 84


@pytest.mark.parametrize("sampler", [UniformSampler, PrioritisedSampler])
def test_a_restored_buffer_goes_on_as_the_first_one_would(sampler: type) -> None:
    for before in (20, 90):  # half full; wrapped
        first, second = buffer(40, 2, 3, sampler=sampler), buffer(40, 2, 3, sampler=sampler)
        recorder = Recorder(first, np.random.default_rng(2))
        for _ in range(before):
            recorder.step()
        first.sampler.feedback(first.sample(8).slots, torch.arange(8.0))
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        twin = copy.deepcopy(recorder)
        twin.buffer = second
        for _ in range(60):
            recorder.step()
            twin.step()
            one, other = first.sample(8), second.sample(8)
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(a, b)
            first.sampler.feedback(one.slots, one.reward)
            second.sampler.feedback(other.slots, other.reward)


def test_wrong_observations_are_refused() -> None:
    replay = buffer(20)
    with pytest.raises(ValueError, match=r"\(1, 2, 3\) and type uint8.*shape \(2, 3\)"):
        replay.start(np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match="type uint8.*type float64"):
        replay.start(np.zeros((1, 2, 3)))
    replay.start(np.zeros((1, 2, 3), np.uint8))
    with pytest.raises(ValueError, match=r"shape \(1, 3, 2\)"):
        replay.add(0, 0.0, False, np.zeros((1, 3, 2), np.uint8))


def test_wrong_use_is_refused() -> None:
    replay = buffer(20)
    with pytest.raises(RuntimeError, match="no transition"):
        replay.sample(1)
    with pytest.raises(RuntimeError, match=r"start\(obs\)"):
        replay.add(0, 0.0, False, np.zeros((1, 2, 3), np.uint8))
    replay.start(np.zeros((1, 2, 3), np.uint8))
    with pytest.raises(RuntimeError, match="no transition"):
        replay.sample(1)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="n_step is 2"):
        Replay(20, gym.spaces.Box(0, 255, (3, 4, 4), np.uint8), ACTIONS, UniformSampler(20, None), n_step=2, context=3)
    with pytest.raises(ValueError, match="capacity of 7 is too small for stacks of 4, 3-step returns"):
        buffer(7, stack=4, n_step=3)
    with pytest.raises(ValueError, match="capacity of 20 is too small .* a context of 20"):
        Replay(20, gym.spaces.Box(0, 255, (3, 4, 4), np.uint8), ACTIONS, UniformSampler(20, None), context=20)
    with pytest.raises(ValueError, match="3 channels.*stack of 2"):
        Replay(
            20, gym.spaces.Box(0, 255, (3, 4, 4), np.uint8), ACTIONS, UniformSampler(20, np.random.default_rng(0)), 2
        )


def test_rewards_are_learned_from_at_their_scale() -> None:
    space = gym.spaces.Box(-1, 1, (2,), np.float32)
    replay = Replay(20, space, ACTIONS, UniformSampler(20, np.random.default_rng(0)), reward_scale=0.5)
    replay.start(np.zeros(2, np.float32))
    replay.add(1, 3.0, False, np.ones(2, np.float32))
    assert replay.sample(4).reward.tolist() == [1.5] * 4
