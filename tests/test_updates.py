"""The benchmark's plain update beside the package's fast one: the same losses, so that the seconds can be compared."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import numpy as np
import pytest
import torch

from pixelrl import presets, sac
from pixelrl.sac import SAC


@pytest.fixture(scope="module")
def updates() -> ModuleType:
    """benchmarks/updates.py."""
    path = Path(__file__).parent.parent / "benchmarks" / "updates.py"
    spec = importlib.util.spec_from_file_location("updates", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)  # where Python looks when the script is run
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("objective", ["sac", "svea"])
@pytest.mark.parametrize("layers", [4, 11])
def test_fast_and_plain_have_the_same_losses(
    updates: ModuleType,
    layers: int,
    objective: str,
    dtype: torch.dtype,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within 0.01 % in float32, 2 % in bfloat16; the dice are made to fall alike, and the shift to do nothing."""
    monkeypatch.setattr(sac, "random_shift", lambda obs: obs)
    monkeypatch.setattr(updates, "random_overlay", lambda obs, pictures: obs.flip(3))
    monkeypatch.setattr(sac, "random_overlay", lambda obs, pictures: obs.flip(3))
    torch.manual_seed(0)
    config = presets.get(objective, "full", strides=updates.LAYERS[layers], hidden=(64, 64), width=16)
    obs, action = gym.spaces.Box(0, 255, (9, 48, 48), np.uint8), gym.spaces.Box(-1, 1, (1,), np.float32)
    fast = SAC(config, obs, action)
    plain = updates.PlainSAC(fast)
    fast.encoder.dtype = fast.target_encoder.dtype = dtype
    batch = updates.random_batch(16, 48)
    torch.manual_seed(1)
    critic, actor = plain.losses(batch, objective)
    torch.manual_seed(1)
    learned = fast.objective(fast, batch)
    a, log_prob = sac.squashed_sample(*fast.actor(learned.features.detach()))
    torch.testing.assert_close(learned.loss, critic, rtol=tolerance, atol=0)
    fast_actor = sac.actor_loss(fast.critic(learned.features.detach(), a), log_prob, fast.alpha)
    torch.testing.assert_close(fast_actor, actor, rtol=tolerance, atol=tolerance)
