"""What only a GPU can do. Everything here is skipped without one."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelrl import envs, presets
from pixelrl.agents import build_agent
from pixelrl.cuda import WARM_UP, RecordedUpdate
from pixelrl.replay import Replay, UniformSampler
from pixelrl.train import Training, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CUDA = torch.device("cuda")


def agent_and_replay(method: str) -> tuple[object, Replay]:
    """An agent on the GPU, and a buffer beside it with some steps of random actions."""
    config = presets.get(method, "quick", device="cuda")
    training = Training(config)
    env, replay = training.env, training.replay
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    replay.start(obs)
    for _ in range(60):
        action = env.action_space.sample()
        obs, reward, terminated, truncated, _ = env.step(action)
        replay.add(action, reward, terminated, obs)
        if terminated or truncated:
            obs, _ = env.reset()
            replay.start(obs)
    return build_agent(config, env), replay


def test_a_recorded_update_equals_the_written_one() -> None:
    agent, replay = agent_and_replay("dqn-pixels")
    other = copy.deepcopy(agent)
    recorded = RecordedUpdate(other.update, CUDA)
    for _ in range(WARM_UP + 5):
        batch = replay.sample(16)
        expected, seen = agent.update(batch), recorded(batch)
        for name in expected:
            torch.testing.assert_close(seen[name], expected[name], rtol=1e-3, atol=1e-4)
    for a, b in zip(agent.q_net.parameters(), other.q_net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["sac-state", "sac", "rad", "drq", "svea", "sgqn", "predictive-sgqn-copy"])
def test_a_recorded_update_draws_new_noise_each_time_and_learns(method: str) -> None:
    agent, replay = agent_and_replay(method)
    recorded = RecordedUpdate(agent.update, CUDA)
    batch = replay.sample(16)
    for _ in range(WARM_UP):
        recorded(batch)
    before = [x.clone() for x in agent.critic.parameters()]
    first, second = recorded(batch), recorded(batch)
    assert not torch.equal(first["entropy"], second["entropy"])
    assert all(not torch.equal(a, b) for a, b in zip(before, agent.critic.parameters(), strict=True))
    losses = [recorded(batch)["loss"].item() for _ in range(100)]
    assert np.mean(losses[-10:]) < first["loss"].item()


def test_frames_on_the_gpu_are_those_on_the_processor() -> None:
    env = envs.make("pixelrl/CartPolePixels-v0")
    spaces = env.observation_space, env.action_space
    pair = [Replay(30, *spaces, UniformSampler(30, np.random.default_rng(0)), 4, device=d) for d in ("cpu", "cuda")]
    rng = np.random.default_rng(0)
    for t in range(40):
        obs = rng.integers(0, 256, env.observation_space.shape).astype(np.uint8)
        for replay in pair:
            replay.start(obs) if t == 0 else replay.add(t % 2, 1.0, False, obs)
    ours, theirs = (replay.sample(64) for replay in pair)
    assert theirs.obs.is_cuda
    torch.testing.assert_close(ours.obs, theirs.obs.cpu())
    torch.testing.assert_close(ours.next_obs, theirs.next_obs.cpu())


@pytest.mark.parametrize("method", ["dqn-pixels", "sac", "svea"])
def test_a_training_on_the_gpu_runs_and_its_policy_acts_on_a_processor(method: str, tmp_path: Path) -> None:
    run = train(presets.get(method, "quick", device="cuda"), tmp_path / "run")
    env = envs.make(run.config.env, **run.config.env_kwargs)
    agent = build_agent(presets.get(method, "quick", device="cpu"), env)
    agent.load_policy(run.policy)
    obs, _ = env.reset(seed=0)
    env.step(agent.act(obs[None], explore=False)[0])
