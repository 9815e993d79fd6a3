"""Prioritised replay against cumulative sums, counted draws, and the formulas of Schaul et al. (2016) by hand."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import scipy.stats
import torch

from pixelrl.prioritised import PrioritisedSampler, SumTree
from pixelrl.replay import Replay


@pytest.mark.parametrize("capacity", [1, 2, 5, 8, 100, 1_000])
def test_find_agrees_with_cumulative_sums(capacity: int) -> None:
    rng = np.random.default_rng(capacity)
    tree = SumTree(capacity)
    leaves = np.zeros(capacity)
    for _ in range(20):
        changed = rng.integers(capacity, size=rng.integers(1, capacity + 1))
        leaves[changed] = rng.integers(0, 9, len(changed))  # whole numbers: the sums are exact; some leaves are empty
        tree.set(changed, leaves[changed])
        leaves[0] += 1
        tree.set(np.array([0]), leaves[0])
        np.testing.assert_array_equal(tree.get(np.arange(capacity)), leaves)
        assert tree.total == leaves.sum()
        borders = np.cumsum(leaves)
        mass = np.concatenate([rng.random(200) * tree.total, [0.0], borders[borders < tree.total]])
        np.testing.assert_array_equal(tree.find(mass), np.searchsorted(borders, mass, side="right"))


def sampler(capacity: int, errors: np.ndarray, **options: float) -> PrioritisedSampler:
    """A sampler in which the first slots can be drawn, and these errors have been reported for them."""
    drawn = PrioritisedSampler(capacity, np.random.default_rng(0), **options)
    slots = np.arange(len(errors))
    drawn.mark(slots, drawable=True)
    drawn.feedback(slots, torch.as_tensor(errors))
    return drawn


@pytest.mark.parametrize("batch_size", [1, 32])
def test_frequencies_follow_the_priorities(batch_size: int) -> None:
    errors = np.array([0.5, -1.0, 2.0, 0.0, -4.0, 8.0, 0.1])  # the size counts, not the sign
    alpha, eps = 0.6, 0.05
    priority = (np.abs(errors) + eps) ** alpha
    drawn = sampler(16, errors, alpha=alpha, eps=eps)
    slots = np.concatenate([drawn.draw(np.ones(7, bool), batch_size)[0] for _ in range(6_400 // batch_size)])
    expected = len(slots) * priority / priority.sum()
    assert scipy.stats.chisquare(np.bincount(slots, minlength=7), expected).pvalue > 0.001


def test_alpha_zero_is_uniform() -> None:
    drawn = sampler(16, np.array([0.1, 1.0, 10.0, 100.0]), alpha=0.0)
    slots = np.concatenate([drawn.draw(np.ones(4, bool), 1)[0] for _ in range(2_000)])
    assert scipy.stats.chisquare(np.bincount(slots)).pvalue > 0.001


def test_one_draw_falls_into_each_equal_share() -> None:
    drawn = sampler(8, np.array([3.0, 1.0]), alpha=1.0, eps=0.0)
    for _ in range(100):
        assert drawn.draw(np.ones(2, bool), 4)[0].tolist() == [0, 0, 0, 1]


def test_importance_weights_by_hand() -> None:
    # |error|^(1/2) = 1, 2, 3, 4, so P = 0.1, 0.2, 0.3, 0.4, and (4 P)^(-1/2) divided by the largest is (0.1 / P)^(1/2).
    drawn = sampler(4, np.array([1.0, 4.0, 9.0, 16.0]), alpha=0.5, beta=0.5, eps=0.0)
    slots, weight = drawn.draw(np.ones(4, bool), 40)
    assert set(slots) == {0, 1, 2, 3}
    by_hand = np.array([1.0, 0.5**0.5, (1 / 3) ** 0.5, 0.5])
    np.testing.assert_allclose(weight, by_hand[slots], rtol=1e-6)
    assert weight.dtype == np.float32


def test_beta_grows_to_one_and_stays() -> None:
    drawn = sampler(4, np.array([1.0, 2.0, 3.0, 4.0]), alpha=1.0, beta=0.4, beta_draws=10, eps=0.0)
    for draw in range(25):
        beta = 0.4 + 0.06 * draw if draw < 10 else 1.0
        slots, weight = drawn.draw(np.ones(4, bool), 40)
        np.testing.assert_allclose(weight, (1.0 / (slots + 1.0)) ** beta, rtol=1e-6)


@pytest.mark.parametrize("error", [float("nan"), float("inf")])
def test_errors_that_are_not_finite_are_refused(error: float) -> None:
    drawn = PrioritisedSampler(8, np.random.default_rng(0))
    drawn.mark(np.array([0, 1]), drawable=True)
    with pytest.raises(ValueError, match="not finite.*diverged"):
        drawn.feedback(np.array([0]), torch.tensor([error]))
    assert (drawn.draw(np.array([True] * 2 + [False] * 6), 4)[0] <= 1).all()  # as if nothing had been said


def test_new_transitions_have_the_largest_priority() -> None:
    drawn = PrioritisedSampler(8, np.random.default_rng(0), alpha=0.5, eps=0.0)
    drawn.mark(np.array([0]), drawable=True)
    assert drawn.tree.get(np.array([0])) == 1.0
    drawn.feedback(np.array([0]), torch.tensor([-9.0]))
    drawn.mark(np.array([1]), drawable=True)
    drawn.feedback(np.array([0]), torch.tensor([0.25]))  # smaller again: the largest so far still counts
    drawn.mark(np.array([2]), drawable=True)
    assert drawn.tree.get(np.arange(4)).tolist() == [0.5, 3.0, 3.0, 0.0]


def test_only_whole_transitions_are_drawn_also_after_wrapping() -> None:
    rng = np.random.default_rng(0)
    capacity, stack = 37, 4
    space = gym.spaces.Box(0, 255, (stack, 1, 1), np.uint8)
    drawn = PrioritisedSampler(capacity, rng)
    replay = Replay(capacity, space, gym.spaces.Discrete(2), drawn, stack, n_step=3)
    obs = np.zeros((stack, 1, 1), np.uint8)
    seen: set[int] = set()
    left = 0
    for step in range(400):
        if left == 0:
            left = int(rng.integers(1, 30))
            replay.start(obs)
        left -= 1
        replay.add(0, 0.0, left == 0, obs)
        batch = replay.sample(16)
        assert replay.drawable[batch.slots].all()
        drawn.feedback(batch.slots, torch.from_numpy(rng.exponential(10.0 ** (step % 5), 16)))
        leaves = drawn.tree.get(np.arange(capacity))
        assert ((leaves > 0) == replay.drawable).all()
        assert drawn.tree.total == pytest.approx(leaves.sum())
        seen |= set(batch.slots.tolist())
    assert seen == set(range(capacity))


class AlmostOne:
    """Random numbers as close to 1 as a float comes, once; then ordinary ones."""

    def __init__(self) -> None:
        self.rng = None

    def random(self, size: int) -> np.ndarray:
        if self.rng is None:
            self.rng = np.random.default_rng(0)
            return np.full(size, 1 - 2.0**-53)
        return self.rng.random(size)


def test_rounding_never_leads_past_the_last_transition() -> None:
    drawn = sampler(5, np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    drawn.rng = AlmostOne()
    slots, weight = drawn.draw(np.ones(5, bool), 1_000)  # 999 + (1 - 2^-53) is 1000: the whole total
    assert slots.max() < 5
    assert np.isfinite(weight).all()
