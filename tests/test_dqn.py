"""DQN against targets, losses and gradients worked by hand, and a decision problem whose answer is known."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from pixelrl import presets
from pixelrl.dqn import DQN, double_target, epsilon_at, epsilon_greedy, max_target, move_towards, td_loss
from pixelrl.replay import Batch

STATES = gym.spaces.Box(0, 1, (2,), np.float32)
ACTIONS = gym.spaces.Discrete(2)


def table(rows: list[list[float]]) -> nn.Embedding:
    """A Q-network that is a table: a row a state, a column an action."""
    return nn.Embedding.from_pretrained(torch.tensor(rows), freeze=False)


def batch(**columns: Any) -> Batch:
    """A batch of which only the named columns matter."""
    n = len(next(iter(columns.values())))
    values: dict[str, Any] = {name: torch.zeros(n, dtype=torch.int64) for name in ("obs", "action", "next_obs")}
    values |= {"reward": torch.zeros(n), "terminated": torch.zeros(n), "discount": torch.full((n,), 0.5)}
    values |= {"weight": torch.ones(n), "slots": np.zeros(n, np.int64)}
    return Batch(**{**values, **{name: torch.as_tensor(value) for name, value in columns.items()}})


# What the online network likes best in state 0 is action 1, in state 1 action 0; the target network would not.
ONLINE = [[1.0, 9.0], [8.0, 2.0]]
TARGET = [[6.0, 4.0], [3.0, 7.0]]
SEEN = {
    "reward": [1.0, -2.0, 3.0, 0.5],
    "next_obs": [0, 1, 0, 1],
    "terminated": [0.0, 0.0, 1.0, 0.0],
    "discount": [0.9, 0.9, 0.9, 0.9**3],  # the last one has summed three rewards
}


def test_max_target_by_hand() -> None:
    y = max_target(batch(**SEEN), table(ONLINE), table(TARGET))
    torch.testing.assert_close(y, torch.tensor([1 + 0.9 * 6, -2 + 0.9 * 7, 3.0, 0.5 + 0.729 * 7]))


def test_double_target_picks_online_and_judges_with_the_target_network() -> None:
    y = double_target(batch(**SEEN), table(ONLINE), table(TARGET))
    torch.testing.assert_close(y, torch.tensor([1 + 0.9 * 4, -2 + 0.9 * 3, 3.0, 0.5 + 0.729 * 3]))


@pytest.mark.parametrize("target", [max_target, double_target])
def test_no_gradient_flows_through_the_target(target: Any) -> None:
    online, judge = table(ONLINE), table(TARGET)
    seen = batch(**SEEN, obs=[0, 1, 1, 0])
    y = target(seen, online, judge)
    assert not y.requires_grad
    td_loss(online(seen.obs), seen, y)[0].backward()
    assert judge.weight.grad is None
    assert online.weight.grad.abs().sum() > 0


def test_td_loss_by_hand() -> None:
    q = torch.tensor([[1.0, 5.0], [2.0, 0.0], [3.0, 3.0]])
    seen = batch(action=[1, 0, 1], weight=[1.0, 0.5, 2.0])
    loss, td_error = td_loss(q, seen, torch.tensor([5.5, -1.0, 3.0]))
    assert td_error.tolist() == [0.5, -3.0, 0.0]
    # Huber: 0.5^2 / 2 where the error is small, |-3| - 1/2 where it is large.
    assert loss.item() == pytest.approx((1 * 0.125 + 0.5 * 2.5 + 0) / 3)


def test_the_gradient_of_the_loss_is_the_clipped_error() -> None:
    torch.manual_seed(0)
    q = (4 * torch.randn(64, 3)).requires_grad_()
    weight = torch.rand(64)
    seen = batch(action=torch.randint(3, (64,)), weight=weight)
    loss, td_error = td_loss(q, seen, 4 * torch.randn(64))
    loss.backward()
    assert not td_error.requires_grad
    assert (td_error.abs() > 1).any()
    assert (td_error.abs() < 1).any()
    expected = torch.zeros(64, 3)
    expected[torch.arange(64), seen.action] = -weight * td_error.clamp(-1, 1) / 64
    torch.testing.assert_close(q.grad, expected)


def test_move_towards_is_a_weighted_mean() -> None:
    judge = table(TARGET)
    move_towards(judge, table(ONLINE), 0.25)
    torch.testing.assert_close(judge.weight.detach(), torch.tensor([[4.75, 5.25], [4.25, 5.75]]))
    move_towards(judge, table(ONLINE), 1.0)
    assert judge.weight.tolist() == ONLINE


def test_epsilon_falls_linearly_and_stays() -> None:
    steps = [0, 25, 50, 100, 1_000]
    assert [epsilon_at(step, 1.0, 0.2, 100) for step in steps] == pytest.approx([1.0, 0.8, 0.6, 0.2, 0.2])


def test_epsilon_greedy_frequencies() -> None:
    q = np.tile([0.0, 3.0, 1.0, 2.0], (40_000, 1))
    actions = epsilon_greedy(q, 0.3, np.random.default_rng(0))
    expected = 40_000 * (np.full(4, 0.3 / 4) + [0, 0.7, 0, 0])
    assert scipy.stats.chisquare(np.bincount(actions), expected).pvalue > 0.001
    assert (epsilon_greedy(q[:100], 0.0, np.random.default_rng(0)) == 1).all()
    assert epsilon_greedy(q[:2], 0.0, np.random.default_rng(0)).dtype == np.int64


def agent(seed: int = 0, obs_space: gym.Space = STATES, action_space: gym.Space = ACTIONS, **changes: Any) -> DQN:
    """A small agent for a state of two numbers."""
    torch.manual_seed(seed)
    config = presets.get("dqn-cartpole", "quick", seed=seed, device="cpu", **{"hidden": (32,), **changes})
    return DQN(config, obs_space, action_space)


# Two states, two actions: (reward, next state, terminated).
MDP = {(0, 0): (0.0, 1, 0.0), (0, 1): (0.6, 0, 0.0), (1, 0): (2.0, 1, 1.0), (1, 1): (0.5, 0, 0.0)}


def known_values(gamma: float) -> np.ndarray:
    """Q* of the two-state problem by value iteration."""
    q = np.zeros((2, 2))
    for _ in range(500):
        q = np.array(
            [[r + gamma * (1 - end) * q[s].max() for r, s, end in (MDP[state, 0], MDP[state, 1])] for state in (0, 1)]
        )
    return q


@pytest.mark.parametrize(("target", "head"), [("max", "linear"), ("double", "dueling")])
def test_updates_converge_to_the_known_values(target: str, head: str) -> None:
    gamma = 0.8
    learner = agent(target=target, head=head, lr=1e-2, target_tau=0.1)
    pairs = np.array(list(MDP))
    outcome = np.array(list(MDP.values()), np.float32)
    one_hot = np.eye(2, dtype=np.float32)
    seen = batch(
        obs=one_hot[pairs[:, 0]],
        action=pairs[:, 1],
        reward=outcome[:, 0],
        next_obs=one_hot[outcome[:, 1].astype(int)],
        terminated=outcome[:, 2],
        discount=np.full(4, gamma, np.float32),
    )
    for _ in range(500):
        metrics = learner.update(seen)
    assert known_values(gamma)[0].argmax() == 1  # the small reward for ever is worth more than the large one once
    np.testing.assert_allclose(learner.q_values(one_hot), known_values(gamma), atol=0.05)
    assert metrics["td_error"].abs().max() < 0.05
    assert learner.act(one_hot, explore=False).tolist() == [1, 1]


@pytest.mark.parametrize("target", ["max", "double"])
def test_an_update_trains_one_network_and_drags_the_other(target: str) -> None:
    learner = agent(target=target, target_tau=0.25)
    for parameter in learner.q_net.parameters():
        nn.init.normal_(parameter)
    online, judge = copy.deepcopy(learner.q_net), copy.deepcopy(learner.target_net)
    seen = batch(obs=torch.rand(8, 2), next_obs=torch.rand(8, 2), reward=torch.rand(8), action=[0, 1] * 4)
    metrics = learner.update(seen)
    for new, old, now, before in zip(
        learner.q_net.parameters(),
        online.parameters(),
        learner.target_net.parameters(),
        judge.parameters(),
        strict=True,
    ):
        assert not torch.equal(new, old)
        torch.testing.assert_close(now, 0.75 * before + 0.25 * new)
    torch.testing.assert_close(metrics["q"], online(seen.obs).amax(dim=1))
    assert set(metrics) == {"loss", "q", "td_error"}
    assert not any(value.requires_grad for value in metrics.values())


def test_exploration_follows_the_schedule() -> None:
    learner = agent(epsilon_start=1.0, epsilon_end=0.0, epsilon_steps=1_000)
    obs = np.ones((1, 2), np.float32)
    best = learner.act(obs, explore=False)[0]
    actions = np.array([learner.act(obs, explore=True)[0] for _ in range(1_500)])
    assert (actions[1_000:] == best).all()
    # On average over the first 500 steps epsilon is 3/4, and every other random action is the best one.
    assert (actions[:500] != best).mean() == pytest.approx(0.375, abs=0.07)
    assert learner.act(obs, explore=False)[0] == best


def test_acting_refuses_what_it_was_not_made_for() -> None:
    learner = agent()
    with pytest.raises(ValueError, match=r"\(B, 2\) float32; got \(2,\) float32.*obs\[None\]"):
        learner.act(np.zeros(2, np.float32), explore=False)
    with pytest.raises(ValueError, match=r"float32; got \(1, 2\) float64"):
        learner.act(np.zeros((1, 2)), explore=False)
    with pytest.raises(ValueError, match=r"got \(1, 3\)"):
        learner.act(np.zeros((1, 3), np.float32), explore=False)


def test_other_spaces_are_refused() -> None:
    with pytest.raises(TypeError, match="Discrete action space.*Box"):
        agent(action_space=gym.spaces.Box(-1, 1, (2,), np.float32))
    pixels = gym.spaces.Box(0, 255, (4, 40, 40), np.uint8)
    with pytest.raises(ValueError, match=r"channels is \(\).*\(4, 40, 40\)"):
        agent(obs_space=pixels)
    with pytest.raises(ValueError, match=r"channels is \(4, 4\).*\(2,\)"):
        agent(channels=(4, 4))
    assert agent(obs_space=pixels, channels=(4, 4)).q_values(np.zeros((3, 4, 40, 40), np.uint8)).shape == (3, 2)


def random_batch(seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    numbers = rng.random((8, 5)).astype(np.float32)
    return batch(obs=numbers[:, :2], next_obs=numbers[:, 2:4], reward=numbers[:, 4], action=rng.integers(2, size=8))


def test_a_restored_agent_goes_on_as_the_first_one_would() -> None:
    first, second = (agent(seed=seed, epsilon_end=0.0, epsilon_steps=20) for seed in (0, 1))
    obs = np.ones((10, 2), np.float32)
    for seed in range(15):  # epsilon is small by now, and would not be if the steps were counted anew
        first.act(obs, explore=True)
        first.update(random_batch(seed))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for seed in range(15, 20):
        np.testing.assert_array_equal(first.act(obs, explore=True), second.act(obs, explore=True))
        one, other = first.update(random_batch(seed)), second.update(random_batch(seed))
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert_same_networks(first, second)


def assert_same_networks(first: DQN, second: DQN) -> None:
    for one, other in ((first.q_net, second.q_net), (first.target_net, second.target_net)):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)


def test_a_policy_is_enough_to_act() -> None:
    first, second = agent(seed=0), agent(seed=1)
    first.update(random_batch(0))
    obs = np.random.default_rng(0).random((20, 2)).astype(np.float32)
    assert not np.array_equal(first.q_values(obs), second.q_values(obs))
    second.load_policy(copy.deepcopy(first.policy()))
    np.testing.assert_array_equal(first.q_values(obs), second.q_values(obs))
    for a, b in zip(second.target_net.parameters(), second.q_net.parameters(), strict=True):
        assert torch.equal(a, b)
