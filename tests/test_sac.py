"""Soft actor-critic: its equations by hand and by torch's own distributions, and where gradients go."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from pixelrl import presets, sac
from pixelrl.nets import Encoder, PairLinear, TwinCritic
from pixelrl.replay import Batch
from pixelrl.sac import OBJECTIVES, SAC

ACTION = gym.spaces.Box(-1, 1, (2,), np.float32)
PIXELS = gym.spaces.Box(0, 255, (9, 32, 32), np.uint8)
STATE = gym.spaces.Box(-np.inf, np.inf, (5,), np.float32)
SMALL = {"hidden": (32, 32), "projection": 16, "width": 8}


def pixel_agent(objective: str = "sac", **changes: object) -> SAC:
    torch.manual_seed(0)
    return SAC(presets.get(objective, "quick", **{**SMALL, **changes}), PIXELS, ACTION)


def told_apart(agent: SAC) -> SAC:
    """The agent, its target networks changed, so that they can be told from the online ones; in float32."""
    agent.encoder.dtype = agent.target_encoder.dtype = torch.float32
    for parameter in [*agent.target_encoder.parameters(), *agent.target_critic.parameters()]:
        parameter.add_(0.05 * torch.randn_like(parameter))
    return agent


def state_agent(**changes: object) -> SAC:
    torch.manual_seed(0)
    return SAC(presets.get("sac-state", "quick", hidden=(32, 32), **changes), STATE, ACTION)


def batch_for(space: gym.spaces.Box, b: int = 6) -> Batch:
    rng = np.random.default_rng(0)
    if space.dtype == np.uint8:
        obs, next_obs = (torch.from_numpy(rng.integers(0, 256, (b, *space.shape), dtype=np.uint8)) for _ in range(2))
    else:
        obs, next_obs = (torch.from_numpy(rng.normal(size=(b, *space.shape)).astype(np.float32)) for _ in range(2))
    return Batch(
        obs,
        torch.from_numpy(rng.uniform(-1, 1, (b, 2)).astype(np.float32)),
        torch.from_numpy(rng.normal(size=b).astype(np.float32)),
        next_obs,
        torch.tensor([0.0, 1.0] * (b // 2)),
        torch.full((b,), 0.9),
        torch.ones(b),
        np.arange(b),
    )


def parameters(*nets: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for net in nets for p in net.parameters()]


def test_the_log_probability_is_that_of_torchs_tanh_gaussian() -> None:
    torch.manual_seed(0)
    mean, log_std = torch.randn(500, 3, dtype=torch.float64), torch.randn(500, 3, dtype=torch.float64)
    action, log_prob = sac.squashed_sample(mean, log_std)
    theirs = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform())
    inside = (action.abs() < 1 - 1e-9).all(dim=1)  # nearer to the end their inverse of tanh is not exact
    torch.testing.assert_close(log_prob[inside], theirs.log_prob(action).sum(dim=1)[inside], rtol=1e-5, atol=1e-5)


def test_the_log_probability_stays_finite_where_tanh_is_one() -> None:
    action, log_prob = sac.squashed_sample(torch.tensor([[30.0, -30.0]]), torch.tensor([[-5.0, -5.0]]))
    assert action.abs().min() == 1
    assert torch.isfinite(log_prob).all()


def test_the_density_integrates_to_one() -> None:
    """Importance weights of uniform actions: the mean of p / (1/2) is 1."""
    mean, log_std = torch.tensor(0.4), torch.tensor(-0.3)
    grid = torch.linspace(-1 + 1e-6, 1 - 1e-6, 200_001, dtype=torch.float64)
    u = torch.atanh(grid)
    log_p = Normal(mean, log_std.exp()).log_prob(u) - torch.log1p(-grid.pow(2))
    assert torch.trapezoid(log_p.exp(), grid) == pytest.approx(1.0, abs=1e-4)
    torch.manual_seed(0)
    action, log_prob = sac.squashed_sample(mean.expand(100_000, 1), log_std.expand(100_000, 1))
    entropy = -torch.trapezoid(log_p.exp() * log_p, grid)
    assert -log_prob.mean() == pytest.approx(float(entropy), abs=0.01)
    assert action.mean() == pytest.approx(float(torch.trapezoid(log_p.exp() * grid, grid)), abs=0.01)


def test_the_target_by_hand() -> None:
    batch = batch_for(STATE, 2)._replace(
        reward=torch.tensor([1.0, 2.0]), terminated=torch.tensor([0.0, 1.0]), discount=torch.tensor([0.9, 0.9])
    )
    q = torch.tensor([[5.0, 7.0], [4.0, 9.0]])
    target = sac.soft_target(batch, q, torch.tensor([-2.0, 3.0]), torch.tensor(0.5))
    torch.testing.assert_close(target, torch.tensor([1 + 0.9 * (4 + 0.5 * 2), 2.0]))


def test_an_agents_target_asks_its_target_networks() -> None:
    agent, batch = told_apart(pixel_agent()), batch_for(PIXELS)
    torch.manual_seed(1)
    target = agent.target(batch, batch.next_obs)
    torch.manual_seed(1)
    with torch.no_grad():
        features = agent.target_encoder(batch.next_obs)
        action, log_prob = sac.squashed_sample(*agent.actor(features))
        by_target, by_online = (net(features, action).amin(dim=0) for net in (agent.target_critic, agent.critic))
    going = batch.discount * (1 - batch.terminated)
    torch.testing.assert_close(target, batch.reward + going * (by_target - 0.1 * log_prob))
    assert not torch.allclose(target, batch.reward + going * (by_online - 0.1 * log_prob), atol=1e-3)


def test_a_policy_is_asked_for_an_entropy_of_minus_one_a_dimension() -> None:
    assert pixel_agent().target_entropy == -2
    assert pixel_agent().alpha == pytest.approx(0.1)


def test_the_policys_width_is_bounded() -> None:
    actor = state_agent().actor
    with torch.no_grad():
        for bias, log_std in ((-100.0, -10.0), (100.0, 2.0)):
            actor.net[-1].weight.zero_()
            actor.net[-1].bias.fill_(bias)
            torch.testing.assert_close(actor(torch.randn(3, 5))[1], torch.full((3, 2), log_std))


def test_the_losses_by_hand() -> None:
    q, target = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1.0, 1.0])
    assert sac.critic_loss(q, target) == (0 + 1) / 2 + (4 + 9) / 2
    log_prob, alpha = torch.tensor([-1.0, 2.0]), torch.tensor(0.5)
    assert sac.actor_loss(q, log_prob, alpha) == ((-0.5 - 1) + (1.0 - 2)) / 2


def test_the_temperature_falls_where_there_is_more_entropy_than_asked() -> None:
    for entropy, sign in ((0.0, 1), (-5.0, -1)):
        log_alpha = torch.tensor(-1.0, requires_grad=True)
        sac.temperature_loss(log_alpha, torch.full((4,), -entropy), target_entropy=-2.0).backward()
        assert torch.sign(log_alpha.grad) == sign
        assert log_alpha.grad == pytest.approx(np.exp(-1.0) * (entropy + 2.0), rel=1e-5)


def test_twin_critics_are_two_of_torchs_own_networks() -> None:
    torch.manual_seed(0)
    critic = TwinCritic(nn.Identity(), 4, 2, (8, 8))
    features, action = torch.randn(5, 4), torch.randn(5, 2)
    for i in range(2):
        layers: list[nn.Module] = []
        for layer in critic.pair:
            if isinstance(layer, PairLinear):
                linear = nn.Linear(*layer.weight.shape[1:])
                linear.weight.data, linear.bias.data = layer.weight[i].T, layer.bias[i, 0]
                layers.append(linear)
            else:
                layers.append(layer)
        alone = nn.Sequential(*layers)(torch.cat([features, action], dim=1)).squeeze(1)
        torch.testing.assert_close(critic(features, action)[i], alone)
    assert (critic(features, action)[0] != critic(features, action)[1]).all()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_critics_loss_reaches_encoder_and_critics_and_nothing_else(objective: str) -> None:
    agent = pixel_agent(objective)
    agent.objective(agent, batch_for(PIXELS)).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in agent.encoder.parameters())
    assert all(p.grad is not None for p in agent.critic.parameters())
    untouched = (agent.actor, agent.target_critic, agent.target_encoder)
    assert all(p.grad is None for net in untouched for p in net.parameters())


def test_the_actors_loss_reaches_the_actor_and_nothing_else() -> None:
    agent = pixel_agent()
    features = agent.encoder(batch_for(PIXELS).obs)
    before = parameters(agent.encoder, agent.critic)
    agent.update_actor(features.detach())
    assert all(p.grad is not None for p in agent.actor.parameters())
    assert all(p.grad is None for net in (agent.encoder, agent.critic) for p in net.parameters())
    torch.testing.assert_close(parameters(agent.encoder, agent.critic), before)
    assert all(p.requires_grad for p in agent.critic.parameters())


def test_the_target_is_blind_to_the_overlay_and_the_online_critic_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = pixel_agent("svea")
    seen: dict[str, list[torch.Tensor]] = {"encoder": [], "target_encoder": []}
    for name, inputs in seen.items():
        getattr(agent, name).register_forward_pre_hook(lambda net, args, inputs=inputs: inputs.append(args[0]))
    monkeypatch.setattr(sac, "random_shift", lambda obs: obs)
    batch = batch_for(PIXELS)
    agent.objective(agent, batch)
    torch.testing.assert_close(seen["target_encoder"], [batch.next_obs])
    (online,) = seen["encoder"]
    torch.testing.assert_close(online[:6], batch.obs)
    left = online[6:] - batch.obs // 2  # half of a picture, the same in each frame of the stack
    torch.testing.assert_close(left[:, :3], left[:, 3:6])
    assert left.float().std() > 5


def test_plain_sac_augments_nothing_and_rad_shifts_both(monkeypatch: pytest.MonkeyPatch) -> None:
    shifted: list[torch.Tensor] = []
    monkeypatch.setattr(sac, "random_shift", lambda obs: shifted.append(obs) or obs)
    batch = batch_for(PIXELS)
    losses = {}
    for objective in ("sac", "rad", "drq"):
        agent = pixel_agent(objective)
        shifted.clear()
        torch.manual_seed(3)
        losses[objective] = agent.objective(agent, batch).loss
        expected = {"sac": [], "rad": [batch.obs, batch.next_obs], "drq": 2 * [batch.next_obs] + 2 * [batch.obs]}
        assert [x.data_ptr() for x in shifted] == [x.data_ptr() for x in expected[objective]]
    torch.testing.assert_close(losses["sac"], losses["rad"])  # a shift that does nothing


def test_drq_takes_the_mean_of_two_targets_and_of_two_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each shift moves by one pixel more than the one before, and the policy's chance is taken out."""
    agent, batch, count = pixel_agent("drq"), batch_for(PIXELS), itertools.count(1)
    agent.encoder.dtype = agent.target_encoder.dtype = torch.float32
    monkeypatch.setattr(sac, "random_shift", lambda obs: obs.roll(next(count), 3))
    monkeypatch.setattr(sac, "squashed_sample", lambda mean, log_std: (mean.tanh(), torch.zeros(len(mean))))
    loss = agent.objective(agent, batch).loss
    target = sum(agent.target(batch, batch.next_obs.roll(by, 3)) for by in (1, 2)) / 2
    views = [agent.critic(agent.encoder(batch.obs.roll(by, 3)), batch.action) for by in (3, 4)]
    torch.testing.assert_close(loss, sum(sac.critic_loss(q, target) for q in views) / 2, rtol=1e-4, atol=0)


@pytest.mark.parametrize("strides", [(2, 1, 1, 1), (2, *(1,) * 10)])
def test_bfloat16_and_float32_agree(strides: tuple[int, ...]) -> None:
    """The fast path beside the slow one: features within 2 % of their spread, losses within 1 %."""
    torch.manual_seed(0)
    obs = torch.randint(0, 256, (8, 9, 60, 60), dtype=torch.uint8)
    slow = Encoder(9, strides, dtype=torch.float32)
    fast = copy.deepcopy(slow)
    fast.dtype = torch.bfloat16
    a, b = slow(obs), fast(obs)
    assert a.dtype == b.dtype == torch.float32
    assert (a - b).std() < 0.02 * a.std()
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        agent = pixel_agent("svea", strides=strides[:5])
        agent.encoder.dtype = agent.target_encoder.dtype = dtype
        torch.manual_seed(1)
        losses.append(agent.objective(agent, batch_for(PIXELS, 32)).loss)
    torch.testing.assert_close(losses[0], losses[1], rtol=0.01, atol=0)


@pytest.mark.parametrize("first_kernel", [3, 5])
def test_the_encoder_is_a_plain_network_on_the_newest_frame_and_the_differences(first_kernel: int) -> None:
    torch.manual_seed(0)
    encoder = Encoder(9, (2, 1, 1), 8, first_kernel, torch.float32)
    obs = torch.randint(0, 256, (4, 9, 30, 34), dtype=torch.uint8)
    oldest, middle, newest = (obs.float() / 255 - 0.5).split(3, dim=1)
    x = torch.cat([middle - oldest, newest - middle, newest], dim=1)
    convs = [layer for layer in encoder.convs if isinstance(layer, nn.Conv2d)]
    assert [conv.kernel_size for conv in convs] == [(first_kernel,) * 2, (3, 3), (3, 3)]
    for conv, stride in zip(convs, (2, 1, 1), strict=True):
        x = nn.functional.conv2d(x, conv.weight, conv.bias, stride).relu()
    torch.testing.assert_close(encoder(obs), x.flatten(1), rtol=1e-4, atol=1e-5)


def test_the_benchmarks_encoder_has_its_features() -> None:
    encoder = Encoder(9, (2, *(1,) * 10))
    assert encoder(torch.zeros(1, 9, 84, 84, dtype=torch.uint8)).shape == (1, 32 * 21 * 21)


def test_targets_move_by_their_shares() -> None:
    agent = pixel_agent(target_tau=0.25, encoder_tau=0.5)
    before = parameters(agent.target_critic, agent.target_encoder)
    agent.update(batch_for(PIXELS))
    taus = [0.25] * len(list(agent.critic.parameters())) + [0.5] * len(list(agent.encoder.parameters()))
    after, online = parameters(agent.target_critic, agent.target_encoder), parameters(agent.critic, agent.encoder)
    for old, new, net, tau in zip(before, after, online, taus, strict=True):
        torch.testing.assert_close(new, (1 - tau) * old + tau * net)


def test_a_fixed_temperature_stays_and_a_learned_one_moves() -> None:
    fixed, learned = state_agent(alpha_lr=0.0), state_agent(alpha_lr=0.01)
    for agent in (fixed, learned):
        agent.update(batch_for(STATE))
    assert fixed.alpha == pytest.approx(0.1)
    assert learned.alpha != pytest.approx(0.1, rel=1e-4)


def test_the_policy_alone_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = pixel_agent("svea")
    for name in ("critic", "target_critic", "target_encoder"):
        monkeypatch.setattr(getattr(agent, name), "forward", None)
    obs = batch_for(PIXELS).obs.numpy()
    actions = agent.act(obs, explore=False)
    assert (actions.shape, actions.dtype) == ((6, 2), np.float32)
    np.testing.assert_array_equal(actions, agent.act(obs, explore=False))
    assert agent.steps == 0


def test_exploration_is_uniform_at_first_and_then_the_policys() -> None:
    agent = state_agent(learning_starts=200)
    obs = np.zeros((1, 5), np.float32)
    first = np.concatenate([agent.act(obs, explore=True) for _ in range(200)])
    assert np.abs(first).max() > 0.95
    assert first.std() == pytest.approx(1 / np.sqrt(3), rel=0.1)
    with torch.no_grad():
        agent.actor.net[-1].bias[:] = torch.tensor([0.0, 3.0, -9.0, -9.0])  # a policy that can be told from uniform
        agent.actor.net[-1].weight[:] = 0
    later = np.concatenate([agent.act(obs, explore=True) for _ in range(50)])
    np.testing.assert_allclose(later, np.tanh([[0.0, 3.0]] * 50), atol=0.01)


def test_stored_tensors_are_all_that_acting_needs() -> None:
    agent, other = pixel_agent(), pixel_agent()
    for p in [*other.encoder.parameters(), *other.actor.parameters(), *other.target_critic.parameters()]:
        p.data.add_(0.1)
    obs = batch_for(PIXELS).obs.numpy()
    assert (agent.act(obs, explore=False) != other.act(obs, explore=False)).any()
    other.load_policy(agent.policy())
    for net in ("encoder", "critic"):
        for one, target in zip(
            getattr(other, net).parameters(), getattr(other, f"target_{net}").parameters(), strict=True
        ):
            assert torch.equal(one, target)  # or the next targets would be those of a stranger
    np.testing.assert_array_equal(agent.act(obs, explore=False), other.act(obs, explore=False))


def test_one_update_after_another_fits_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one batch of endings, the critics learn the rewards and the actor the better of two actions."""
    agent = state_agent()
    batch = batch_for(STATE, 64)
    batch = batch._replace(terminated=torch.ones(64), reward=3 * batch.action[:, 0])
    losses = [float(agent.update(batch)["loss"]) for _ in range(400)]
    assert losses[-1] < 0.02 * losses[0]
    assert agent.act(batch.obs.numpy(), explore=False)[:, 0].mean() > 0.8


@pytest.mark.parametrize(
    ("space", "action", "error", "message"),
    [
        (STATE, gym.spaces.Discrete(3), TypeError, "Box from -1 to 1; this environment has Discrete"),
        (STATE, gym.spaces.Box(-2, 2, (1,), np.float32), TypeError, "RescaleAction"),
        (STATE, ACTION, ValueError, "states .* need none"),
    ],
)
def test_spaces_it_is_not_made_for_are_refused(
    space: gym.Space, action: gym.Space, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        SAC(presets.get("sac", "quick"), space, action)
    with pytest.raises(ValueError, match="pixels .* need the strides"):
        SAC(presets.get("sac-state", "quick"), PIXELS, ACTION)
    with pytest.raises(ValueError, match="4 channels.*three a frame"):
        SAC(presets.get("sac", "quick"), gym.spaces.Box(0, 255, (4, 48, 48), np.uint8), ACTION)


def test_a_single_observation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"passed as obs\[None\]"):
        pixel_agent().act(PIXELS.sample(), explore=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "cutout"}, "objective is 'cutout'"),
        ({"replay": "prioritised"}, "replay is 'prioritised'"),
        ({"hidden": ()}, "hidden is empty"),
        ({"target_tau": 0.0}, "target_tau is 0"),
        ({"encoder_tau": 2.0}, "encoder_tau is 2"),
        ({"alpha": 0.0}, "alpha is 0"),
        ({"alpha_lr": -1.0}, "alpha_lr is -1"),
        ({"lr": 0.0}, "lr is 0"),
        ({"strides": (), "objective": "svea"}, "svea augments pictures"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(presets.get("sac", "quick"), **changes)
