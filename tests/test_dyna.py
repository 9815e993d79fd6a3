"""Dyna: the model's loss by hand, what is imagined from what, and a training that resumes."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from test_train import assert_resumes

from pixelrl import envs, presets
from pixelrl.agents import build_agent
from pixelrl.dqn import DQN
from pixelrl.dyna import Dyna, StateModel
from pixelrl.replay import Batch
from pixelrl.train import Training

SMALL = {"steps": 240, "learning_starts": 60, "update_every": 3, "batch_size": 16, "replay_size": 90, "eval_every": 60}
SMALL |= {"eval_episodes": 2, "final_episodes": 3, "hidden": (16,), "model_hidden": (16,), "ensemble": 2}
CONFIG = presets.get("dyna-cartpole", "quick", **SMALL, rollout=2, branches=2, checkpoint_seconds=0.0, device="cpu")


def cartpole_batch(n: int = 64) -> Batch:
    """Transitions of a random player."""
    env, rng, rows = gym.make("CartPole-v1"), np.random.default_rng(0), []
    obs, _ = env.reset(seed=0)
    for _ in range(n):
        action = int(rng.integers(2))
        following, reward, terminated, _, _ = env.step(action)
        rows.append((obs, action, reward, following, float(terminated)))
        obs = env.reset()[0] if terminated else following
    obs, action, reward, following, terminated = (torch.from_numpy(np.array(each)) for each in zip(*rows, strict=True))
    ones = torch.ones(n)
    return Batch(obs, action, reward.float(), following, terminated.float(), 0.99 * ones, ones, np.arange(n))


def test_the_loss_by_hand() -> None:
    torch.manual_seed(0)
    model, batch = StateModel(4, 2, (8,), 3), cartpole_batch(5)
    model.change_spread.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    with torch.no_grad():
        said = model(batch.obs, batch.action)
    total = 0.0
    for e in range(3):
        for i in range(5):
            total += float(((said.obs[e, i] - batch.next_obs[i]) / model.change_spread).pow(2).sum())
            total += float((said.reward[e, i] - batch.reward[i]) ** 2)
            p = said.ended[e, i].sigmoid()
            total -= float(p.log() if batch.terminated[i] else (1 - p).log())
    assert model.loss(batch).item() == pytest.approx(total / 15, rel=1e-4)


def test_the_model_learns_cartpole_and_a_step_is_of_one_of_its_networks() -> None:
    torch.manual_seed(0)
    model, batch = StateModel(4, 2, (64,), 3), cartpole_batch(400)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        model.measure(batch, share=0.1)
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step()
    following, reward, ended = model.step(batch.obs, batch.action)
    change = (batch.next_obs - batch.obs).std(dim=0)
    assert ((following - batch.next_obs).abs().mean(dim=0) < 0.3 * change).all()
    assert (reward - 1).abs().mean() < 0.1
    assert ended[batch.terminated == 1].mean() > ended[batch.terminated == 0].mean() + 0.3
    said = model(batch.obs, batch.action).obs
    assert (following == said).all(dim=2).any(dim=0).all()
    assert all((following == member).all(dim=1).any() for member in said)


def test_imagined_steps_begin_at_real_states_and_count_as_far_as_the_episode_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = envs.make(CONFIG.env)
    agent = build_agent(CONFIG, env)
    learned: list[Batch] = []
    monkeypatch.setattr(DQN, "update", lambda self, batch: learned.append(batch) or {})
    batch = cartpole_batch(16)
    agent.update(batch)
    assert len(learned) == 1 + 2 * 2
    real, first, second = learned[:3]
    assert torch.equal(real.next_obs, batch.next_obs)
    assert torch.equal(first.obs, batch.obs)
    assert (first.weight == 1).all()
    assert torch.equal(second.obs, first.next_obs)
    torch.testing.assert_close(second.weight, 1 - first.terminated)
    assert torch.equal(second.action, agent.q_net(second.obs).argmax(dim=1))
    assert len({tuple(each.action.tolist()) for each in (first, learned[3])}) == 2
    env.close()


def test_the_control_learns_as_often_from_what_happened() -> None:
    control = presets.get("dyna-cartpole-replayed", "quick", **SMALL, branches=2, device="cpu")
    env = envs.make("CartPole-v1")
    agent = build_agent(control, env)
    plain = {name: value for name, value in SMALL.items() if name not in ("model_hidden", "ensemble")}
    other = build_agent(presets.get("dqn-cartpole-one-step", "quick", **plain, device="cpu"), env)
    for _ in range(2):
        agent.update(cartpole_batch(16))
        for _ in range(3):
            other.update(cartpole_batch(16))
    for one, two in zip(agent.q_net.parameters(), other.q_net.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_resumed_training_equals_an_unbroken_one(tmp_path: Path) -> None:
    assert_resumes(CONFIG, tmp_path, Training, "add_row", 180)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"n_step": 3}, "n_step"),
        ({"branches": 0}, "branches"),
        ({"ensemble": 0}, "ensemble"),
        ({"rollout": 0}, "rollout"),
        ({"batch_size": 1}, "batch_size"),
    ],
)
def test_bad_fields_are_refused(changes: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        presets.get("dyna-cartpole", "quick", **changes)


def test_pixels_are_refused() -> None:
    config = presets.get("dyna-cartpole", "quick", channels=(4, 4))
    with pytest.raises(ValueError, match="states"):
        Dyna(config, gym.spaces.Box(0, 255, (2, 32, 80), np.uint8), gym.spaces.Discrete(2))
