"""Actor-critic: advantages as stable-baselines3 has them, losses by hand, and training in environments side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from test_train import assert_resumes

from pixelrl import envs, presets
from pixelrl.actor_critic import A2C, Choice, Rollout, actor_critic_loss, generalised_advantage
from pixelrl.agents import build_agent
from pixelrl.parallel import ParallelTraining
from pixelrl.train import train

QUICK = presets.get("a2c", "quick", device="cpu")


def random_rollout(steps: int = 12, rooms: int = 5) -> Rollout:
    rng = np.random.default_rng(0)
    board = torch.from_numpy(rng.integers(0, 2, (steps, rooms, 4, 10, 10), dtype=np.uint8))
    reward, ended = rng.normal(size=(steps, rooms)), rng.random((steps, rooms)) < 0.2
    return Rollout(
        (board,),
        torch.from_numpy(rng.integers(0, 3, (steps, rooms))),
        torch.from_numpy(reward).float(),
        torch.from_numpy(ended).float(),
        torch.from_numpy(rng.normal(size=(steps + 1, rooms))).float(),
        torch.from_numpy(rng.normal(size=(steps, rooms, 3))).float(),
    )


def test_advantages_equal_those_of_stable_baselines3() -> None:
    rollout = random_rollout()
    steps, rooms = rollout.reward.shape
    spaces = gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(3)
    buffer = RolloutBuffer(steps, *spaces, "cpu", gae_lambda=0.9, gamma=0.8, n_envs=rooms)
    starts = np.concatenate([np.zeros((1, rooms)), rollout.ended.numpy()])
    nothing = np.zeros((rooms, 1))
    for t in range(steps):
        buffer.add(nothing, nothing, rollout.reward[t].numpy(), starts[t], rollout.value[t], torch.zeros(rooms))
    buffer.compute_returns_and_advantage(rollout.value[-1], starts[-1])
    ours = generalised_advantage(rollout.reward, rollout.ended, rollout.value, 0.8, 0.9)
    np.testing.assert_allclose(ours.numpy(), buffer.advantages, rtol=0, atol=1e-5)


def test_losses_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    actor, critic, entropy = actor_critic_loss(
        logits, torch.tensor([1.0, 2.0]), torch.tensor([1, 1]), torch.tensor([2.0, -1.0]), torch.tensor([0.0, 5.0])
    )
    assert actor.item() == pytest.approx(-(2 * np.log(0.25) - np.log(0.8)) / 2, rel=1e-5)
    assert critic.item() == pytest.approx((1 + 9) / 2)
    probabilities = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    assert entropy.item() == pytest.approx(-(probabilities * np.log(probabilities)).sum() / 2, rel=1e-5)


def test_a_policy_that_nothing_is_asked_of_becomes_less_decided() -> None:
    agent = build_agent(replace(QUICK, entropy=0.1, lr=1e-3), envs.make(QUICK.env, **QUICK.env_kwargs))
    with torch.no_grad():
        agent.net.heads.bias[0] = 2.0
    rollout = random_rollout()
    nothing = torch.zeros_like(rollout.reward)
    rollout = rollout._replace(reward=nothing, ended=nothing + 1, value=torch.zeros_like(rollout.value))
    entropies = [float(agent.update(rollout)["entropy"]) for _ in range(30)]
    assert entropies[-1] > entropies[0] + 0.1


def test_a_gradient_is_no_longer_than_it_may_be() -> None:
    agent = build_agent(replace(QUICK, max_norm=0.01), envs.make(QUICK.env, **QUICK.env_kwargs))
    agent.update(random_rollout())
    norms = [parameter.grad.norm() for parameter in agent.net.parameters()]
    assert torch.stack(norms).norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("brought", ["one for the last action", "one for all"])
def test_what_brought_more_becomes_more_frequent_and_values_are_learned(brought: str) -> None:
    env = envs.make(QUICK.env, **QUICK.env_kwargs)
    agent = build_agent(replace(QUICK, entropy=0.0, lr=1e-3), env)
    rollout = random_rollout()
    reward = (rollout.action == 2).float() if brought == "one for the last action" else torch.ones_like(rollout.reward)
    rollout = rollout._replace(reward=reward, ended=torch.ones_like(reward), value=torch.full((13, 5), reward.mean()))
    seen = rollout.seen[0].flatten(0, 1)
    before = agent.choose((seen,)).logits.softmax(dim=1)[:, 2].mean()
    losses = [float(agent.update(rollout)["critic_loss"]) for _ in range(40)]
    choice = agent.choose((seen,))
    after = choice.logits.softmax(dim=1)[:, 2].mean()
    if brought == "one for the last action":
        assert after > before + 0.3
    else:
        assert abs(after - before) < 0.1
        assert (choice.value - 1).abs().mean() < 0.3
        assert losses[-1] < losses[0] / 10
    env.close()


def test_discrete_actions_are_needed() -> None:
    boards = gym.spaces.Box(0, 1, (4, 10, 10), np.uint8)
    with pytest.raises(ValueError, match="discrete actions"):
        A2C(QUICK, boards, gym.spaces.Box(-1, 1, (2,)))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"eval_every": 30}, "multiple"),
        ({"steps": 90}, "multiple"),
        ({"n_envs": 0}, "n_envs"),
        ({"gae_lambda": 1.2}, "gae_lambda"),
        ({"lr": 0.0}, "lr"),
        ({"gamma": 1.5}, "gamma"),
    ],
)
def test_bad_fields_are_refused(changes: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        presets.get("a2c", "quick", **changes)


class Oracle(A2C):
    """Expects seven of everything, and always chooses the first action."""

    def choose(self, seen: tuple[torch.Tensor, ...]) -> Choice:
        n = len(seen[0])
        return Choice(torch.zeros(n, dtype=torch.int64), torch.full((n,), 7.0), torch.zeros(n, 3))


def test_only_what_was_cut_off_has_a_future() -> None:
    """Who never moves soon loses the ball; but with a limit of four steps, all episodes are cut off before."""
    for limit, future, least in ((4, QUICK.gamma * 7, 12), (500, 0.0, 2)):
        config = replace(QUICK, env_kwargs={"max_steps": limit, "sticky": 0.0}, length=12, eval_every=48, steps=96)
        training = ParallelTraining(config)
        training.agent.__class__ = Oracle
        training.restart()
        rollout = training.collect()
        assert rollout.ended.sum() >= least
        bricks = rollout.reward[rollout.ended == 1] - future
        torch.testing.assert_close(bricks, bricks.round(), rtol=0, atol=1e-5)
        assert (rollout.value == 7).all()
        assert rollout.value.shape == (13, 4)


def test_returns_are_the_sums_of_rewards() -> None:
    training = ParallelTraining(replace(QUICK, length=60, eval_every=240, steps=480, env_kwargs={"max_steps": 10_000}))
    training.restart()
    rollout = training.collect()
    expected = []
    for reward, ended in zip(rollout.reward.T.numpy(), rollout.ended.T.numpy(), strict=True):
        ends = np.flatnonzero(ended) + 1
        expected += [part.sum() for part in np.split(reward, ends)[:-1]]
    assert sorted(training.returns) == sorted(expected)
    assert len(expected) > 4


@pytest.mark.parametrize("torn_at", [40, 60])
def test_a_resumed_training_equals_an_unbroken_one(torn_at: int, tmp_path: Path) -> None:
    config = replace(QUICK, steps=120, checkpoint_seconds=0.0)
    unbroken = assert_resumes(config, tmp_path, ParallelTraining, "advance", torn_at)
    assert unbroken.curve["step"].tolist() == [40, 80, 120]


def test_another_seed_gives_another_run() -> None:
    one, other = (train(replace(QUICK, seed=seed)) for seed in (0, 1))
    assert one.curve["critic_loss"].tolist() != other.curve["critic_loss"].tolist()
