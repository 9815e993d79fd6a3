"""SGQN: its losses beside a literal, slow version of the equations, and where its gradients go."""

from __future__ import annotations

import copy
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from captum.attr import GuidedBackprop
from torch import nn
from torch.nn import functional as F

from pixelrl import configs, presets, sgqn
from pixelrl.configs import SGQNConfig
from pixelrl.replay import Batch
from pixelrl.sgqn import SGQN, MaskDecoder

ACTION = gym.spaces.Box(-1, 1, (2,), np.float32)
PIXELS = gym.spaces.Box(0, 255, (9, 32, 28), np.uint8)


def small_agent(**changes: object) -> SGQN:
    torch.manual_seed(0)
    sizes = {"hidden": (32, 32), "projection": 16, "width": 8}
    agent = SGQN(presets.get("sgqn", "quick", **{**sizes, **changes}), PIXELS, ACTION)
    agent.encoder.dtype = agent.target_encoder.dtype = torch.float32
    return agent


def small_batch(b: int = 6) -> Batch:
    rng = np.random.default_rng(0)
    obs, next_obs = (torch.from_numpy(rng.integers(0, 256, (b, *PIXELS.shape), dtype=np.uint8)) for _ in range(2))
    action = torch.from_numpy(rng.uniform(-1, 1, (b, 2)).astype(np.float32))
    reward, ones = torch.from_numpy(rng.normal(size=b).astype(np.float32)), torch.ones(b)
    return Batch(obs, action, reward, next_obs, 0 * ones, 0.9 * ones, ones, np.arange(b))


class MeanCritic(nn.Module):
    """From pixels to the mean of both critics, as one network."""

    def __init__(self, agent: SGQN, action: torch.Tensor) -> None:
        super().__init__()
        self.encoder, self.critic, self.action = agent.encoder, agent.critic, action

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.critic(self.encoder(obs), self.action).mean(dim=0)


def literal_mask(agent: SGQN, obs: torch.Tensor, action: torch.Tensor, rho: float) -> torch.Tensor:
    """Pixel by pixel: captum's guided backprop of the critics' mean, the largest of the stack, and the strongest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attribution = GuidedBackprop(MeanCritic(agent, action)).attribute(obs.float().requires_grad_()).detach().abs()
    mask = torch.zeros(len(obs), 1, 32, 28, dtype=torch.bool)
    for b in range(len(obs)):
        strength = attribution[b].max(dim=0).values.flatten()
        for place in strength.argsort(descending=True)[: round((1 - rho) * 32 * 28)]:
            mask[b, 0, place // 28, place % 28] = True
    return mask


def test_the_critics_loss_equals_the_literal_equations() -> None:
    agent, batch = small_agent(rho=0.9, consistency=0.7), small_batch()
    other = copy.deepcopy(agent)
    torch.manual_seed(1)
    learned, mask = sgqn.sgqn_objective(agent, batch)
    expected_mask = literal_mask(other, batch.obs, batch.action, 0.9)
    assert (mask == expected_mask).all()

    torch.manual_seed(1)
    target = other.target(batch, batch.next_obs)
    colours = torch.randint(256, (len(mask), 3, 1, 1), dtype=torch.uint8)
    expected = torch.tensor(0.0)
    for b in range(len(mask)):
        seen = batch.obs[b : b + 1].float()
        kept = seen.clone()
        for f in range(3):
            kept[0, 3 * f : 3 * f + 3][:, ~expected_mask[b, 0]] = colours[b, :, 0].float()
        q, q_kept = (other.critic(other.encoder(x), batch.action[b : b + 1])[:, 0] for x in (seen, kept))
        for i in range(2):
            expected = expected + ((q[i] - target[b]) ** 2 + 0.7 * (q[i].item() - q_kept[i]) ** 2) / len(mask)
    torch.testing.assert_close(learned.loss, expected, rtol=1e-5, atol=1e-5)

    parts = [*agent.encoder.parameters(), *agent.critic.parameters()]
    literal = [*other.encoder.parameters(), *other.critic.parameters()]
    ours = torch.autograd.grad(learned.loss, parts)
    for a, b in zip(ours, torch.autograd.grad(expected, literal), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_without_consistency_the_loss_is_sacs() -> None:
    agent, batch = small_agent(consistency=0.0), small_batch()
    torch.manual_seed(1)
    learned, _ = sgqn.sgqn_objective(agent, batch)
    torch.manual_seed(1)
    expected = agent.objective(agent, batch)
    torch.testing.assert_close(learned.loss, expected.loss)
    torch.testing.assert_close(learned.features, expected.features)


def test_the_attribution_loss_is_the_cross_entropy_by_hand() -> None:
    logits, mask = torch.randn(3, 2, 4, 5), torch.rand(3, 2, 4, 5) > 0.8
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    expected = -np.where(mask.numpy(), np.log(p), np.log(1 - p)).mean()
    assert sgqn.attribution_loss(logits, mask).item() == pytest.approx(expected, rel=1e-5)


def moved(agent: SGQN, before: SGQN) -> set[str]:
    """The networks of which a parameter changed."""
    names = ("encoder", "critic", "actor", "decoder", "target_encoder", "target_critic")
    return {
        name
        for name in names
        for a, b in zip(getattr(agent, name).parameters(), getattr(before, name).parameters(), strict=True)
        if not torch.equal(a, b)
    }


def test_the_decoders_step_moves_encoder_projection_and_decoder_alone() -> None:
    agent, batch = small_agent(), small_batch()
    before = copy.deepcopy(agent)
    agent.update_decoder(batch, torch.rand(6, 1, 32, 28) > 0.9)
    assert moved(agent, before) == {"encoder", "critic", "decoder"}
    for a, b in zip(agent.critic.pair.parameters(), before.critic.pair.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_update_moves_everything_and_leaves_no_gradient_in_the_pictures() -> None:
    agent, batch = small_agent(), small_batch()
    before = copy.deepcopy(agent)
    metrics = agent.update(batch)
    assert moved(agent, before) == {"encoder", "critic", "actor", "decoder", "target_encoder", "target_critic"}
    assert set(metrics) == {"loss", "q", "td_error", "entropy", "alpha", "attribution_loss"}
    assert all(torch.isfinite(values).all() for values in metrics.values())
    assert batch.obs.grad is None


def test_the_decoder_tells_the_masks_of_the_overlaid_half_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, batch = small_agent(decoder_share=0.5), small_batch()
    mask = torch.rand(6, 1, 32, 28) > torch.tensor(3 * [0.5] + 3 * [0.9])[:, None, None, None]
    agent.decoder.fine.bias.data.fill_(2.0)  # so that it matters to the loss how much is in a mask
    monkeypatch.setattr(sgqn, "random_overlay", lambda obs, pictures: obs.flip(3))
    features = agent.critic.project(agent.encoder(batch.obs[:3].flip(3)))
    logits = agent.decoder(features, batch.action[:3])
    expected = F.binary_cross_entropy_with_logits(logits, mask[:3].float()).detach()
    torch.testing.assert_close(agent.update_decoder(batch, mask), expected)
    assert not torch.allclose(logits, agent.decoder(features, -batch.action[:3]))


def test_an_update_shifts_both_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, batch, shifted = small_agent(), small_batch(), []
    monkeypatch.setattr("pixelrl.sac.random_shift", lambda obs: shifted.append(obs) or obs)
    agent.update(batch)
    assert [obs.data_ptr() for obs in shifted] == [batch.obs.data_ptr(), batch.next_obs.data_ptr()]


def test_the_decoder_learns_where_a_bright_square_is() -> None:
    """Of pictures with one square each, after some updates the predicted mask is the square."""
    agent = small_agent(projection=32, strides=(2, 2))
    corner = torch.randint(0, 20, (64, 2))
    obs, mask = torch.zeros(64, 9, 32, 28, dtype=torch.uint8), torch.zeros(64, 1, 32, 28, dtype=torch.bool)
    for i, (y, x) in enumerate(corner.tolist()):
        obs[i, :, y : y + 8, x : x + 8], mask[i, :, y : y + 8, x : x + 8] = 255, True
    batch = small_batch(64)._replace(obs=obs)
    parts = [*agent.encoder.parameters(), *agent.critic.project.parameters(), *agent.decoder.parameters()]
    optimizer = torch.optim.Adam(parts, lr=3e-3)
    for _ in range(300):
        logits = agent.decoder(agent.critic.project(agent.encoder(obs)), batch.action)
        optimizer.zero_grad()
        sgqn.attribution_loss(logits, mask).backward()
        optimizer.step()
    told = logits > 0
    assert ((told & mask).sum() / (told | mask).sum()).item() > 0.7


def test_the_decoder_has_a_number_for_every_pixel() -> None:
    decoder = MaskDecoder(5, 2, (48, 60))
    assert decoder(torch.zeros(3, 5), torch.zeros(3, 2)).shape == (3, 1, 48, 60)
    with pytest.raises(ValueError, match="multiples of 4"):
        MaskDecoder(5, 2, (50, 48))


def test_what_is_painted_over_has_one_colour_in_all_frames_and_the_rest_is_as_it_was() -> None:
    obs = small_batch().obs
    mask = torch.rand(6, 1, 32, 28) > 0.9
    painted = sgqn.painted_over(obs, mask)
    assert painted.dtype == torch.uint8
    for seen, kept, where in zip(obs, painted, mask[:, 0], strict=True):
        assert torch.equal(kept[:, where], seen[:, where])
        colour = kept[:, ~where][:, :1]
        assert (kept[:, ~where] == colour).all()
        assert torch.equal(colour[:3], colour[3:6])
        assert torch.equal(colour[:3], colour[6:])
    assert len(painted[:, 0, 0, 0].unique()) > 1


def test_the_consistency_loss_teaches_the_painted_view_and_not_the_whole_one() -> None:
    """With a mask that keeps nothing of use, the value of the whole observation is learned as if it were not there."""
    agent, batch = small_agent(consistency=0.7), small_batch()
    torch.manual_seed(1)
    learned, _ = sgqn.sgqn_objective(agent, batch)
    (slope,) = torch.autograd.grad(learned.loss, learned.q)
    torch.testing.assert_close(slope, 2 * (learned.q - learned.target).detach() / len(batch.obs))


def test_a_resumed_agent_goes_on_as_if_it_had_not_stopped() -> None:
    agent, batch = small_agent(), small_batch()
    agent.update(batch)
    other = small_agent()
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    for each in (agent, other):
        torch.manual_seed(3)
        each.update(batch)
    for a, b in zip(agent.decoder.parameters(), other.decoder.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(agent.encoder.parameters(), other.encoder.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rho": 0.0}, "rho is"),
        ({"rho": 1.0}, "rho is"),
        ({"consistency": -0.1}, "not negative"),
        ({"decoder_share": 0.0}, "decoder_share"),
        ({"decoder_lr": 0.0}, "decoder_lr"),
        ({"strides": ()}, "needs the strides"),
        ({"objective": "svea"}, "objective"),
    ],
)
def test_numbers_out_of_range_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        presets.get("sgqn", "quick", **changes)


def test_the_config_survives_the_disk(tmp_path: object) -> None:
    config = presets.get("sgqn", "cpu", rho=0.9)
    configs.save(tmp_path / "config.json", config)
    loaded = configs.load(tmp_path / "config.json")
    assert isinstance(loaded, SGQNConfig)
    assert loaded == config


def test_targets_do_not_see_the_mask() -> None:
    """The same target whatever rho is: what is predicted for the next observation is not masked."""
    batch, targets = small_batch(), []
    for rho in (0.5, 0.99):
        agent = small_agent(rho=rho)
        torch.manual_seed(2)
        targets.append(sgqn.sgqn_objective(agent, batch)[0].target)
    torch.testing.assert_close(*targets)
    assert F.mse_loss(targets[0], torch.zeros(6)) > 0
