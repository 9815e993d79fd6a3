"""Attribution maps beside captum's, masks beside counting, and nothing left behind."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import captum.attr
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pixelrl import envs, presets, saliency
from pixelrl.agents import build_agent

OBS = torch.randint(0, 256, (3, 9, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Shared(nn.Module):
    """One ReLU module, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = nn.Conv2d(9, 6, 3, 2), nn.Conv2d(6, 4, 3), nn.ReLU()
        self.head = nn.Linear(4 * 7 * 9, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.second(self.relu(self.first(x))))
        return self.head(x.flatten(1))[:, 0]


class Functions(Shared):
    """The same with functions instead of modules."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu_(self.second(F.relu(self.first(x))))
        return self.head(x.flatten(1))[:, 0]


class Residual(nn.Module):
    """A block whose ReLU comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.relus = nn.Conv2d(9, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.ModuleList()
        self.relus.extend([nn.ReLU(), nn.ReLU()])
        self.head = nn.Linear(4 * 18 * 22, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = x + self.block(self.relus[0](x))
        return self.head(self.relus[1](x).flatten(1))[:, 0]


def sequential(inplace: bool) -> nn.Sequential:
    """Convolutions, ReLUs, and one number."""
    return nn.Sequential(
        nn.Conv2d(9, 6, 3, 2),
        nn.ReLU(inplace=inplace),
        nn.Conv2d(6, 4, 3),
        nn.ReLU(inplace=inplace),
        nn.Flatten(),
        nn.Linear(4 * 7 * 9, 8),
        nn.ReLU(inplace=inplace),
        nn.Linear(8, 1),
        nn.Flatten(0),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: sequential(False),
    "in place": lambda: sequential(True),
    "shared": Shared,
}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name]()


def captums(kind: type, net: nn.Module, *arguments: object) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = OBS.float().requires_grad_()
        return kind(net, *arguments).attribute(x).detach()


@pytest.mark.parametrize("name", NETWORKS)
def test_guided_backprop_equals_captums(name: str) -> None:
    net = network(name)
    ours = saliency.guided_backprop(net, OBS)
    torch.testing.assert_close(ours, captums(captum.attr.GuidedBackprop, net), rtol=0, atol=1e-6)
    assert (ours - saliency.gradient(net, OBS)).abs().max() > 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_equals_captums(name: str) -> None:
    net = network(name)
    theirs = captums(captum.attr.Saliency, net)  # of which captum gives the size
    torch.testing.assert_close(saliency.gradient(net, OBS).abs(), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("layer", [0, 2])
def test_grad_cam_equals_captums(name: str, layer: int) -> None:
    net = network(name)
    conv = [module for module in net.modules() if isinstance(module, nn.Conv2d)][layer // 2]
    ours = saliency.grad_cam(net, OBS, conv)
    reference = network("plain") if name == "in place" else net  # captum sees what in-place layers made of the maps
    conv = [module for module in reference.modules() if isinstance(module, nn.Conv2d)][layer // 2]
    small = captums(captum.attr.LayerGradCam, reference, conv).relu()
    theirs = F.interpolate(small, OBS.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_functions_are_seen_as_modules_are() -> None:
    torch.manual_seed(0)
    modules = Shared()
    functions = Functions()
    functions.load_state_dict(modules.state_dict())
    expected = saliency.guided_backprop(modules, OBS)
    torch.testing.assert_close(saliency.guided_backprop(functions, OBS), expected, rtol=0, atol=1e-6)


def test_a_residual_block_stops_what_reaches_each_relu_and_lets_the_other_branch_pass() -> None:
    """Captum clamps at the input of the ReLU, where the gradients of both branches are one sum already."""
    torch.manual_seed(0)
    net = Residual()
    x = net.first(OBS.float()).detach()
    with torch.no_grad():
        y = x + net.block(x.relu())
        after_last = net.head.weight.reshape(1, 4, 18, 22).clamp(min=0) * (y > 0)
    through_block = torch.nn.grad.conv2d_input(x.shape, net.block.weight, after_last, padding=1).clamp(min=0) * (x > 0)
    expected = torch.nn.grad.conv2d_input(OBS.shape, net.first.weight, after_last + through_block)
    ours = saliency.guided_backprop(net, OBS)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    assert (ours - captums(captum.attr.GuidedBackprop, net)).abs().max() > 1e-4


def agents() -> dict[str, tuple[object, torch.Tensor]]:
    """An agent of each kind with pictures for it, computed in float32."""
    found = {}
    for method in ("dqn-pixels", "sac"):
        config = presets.get(method, "quick")
        env = envs.make(config.env, **config.env_kwargs)
        env.observation_space.seed(0)
        agent = build_agent(config, env)
        if method == "sac":
            agent.encoder.dtype = torch.float32
        found[method] = agent, torch.stack([torch.from_numpy(env.observation_space.sample()) for _ in range(4)])
    return found


AGENTS = agents()
ANSWERS = {
    "q": lambda agent: saliency.q_value(agent, torch.zeros(4, dtype=torch.int64)),
    "value": saliency.state_value,
    "action": saliency.chosen_action,
}
SAC_ANSWERS = {**ANSWERS, "q": lambda agent: saliency.q_value(agent, torch.full((4, 1), 0.3))}


@pytest.mark.parametrize("method", AGENTS)
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("how", [saliency.gradient, saliency.guided_backprop])
def test_a_batch_equals_its_samples_and_leaves_nothing_behind(method: str, answer: str, how: Callable) -> None:
    agent, obs = AGENTS[method]
    ask = (SAC_ANSWERS if method == "sac" else ANSWERS)[answer]
    networks = [x for x in vars(agent).values() if isinstance(x, nn.Module)]
    whole = how(ask(agent), obs)
    assert whole.shape == obs.shape
    assert whole.abs().amax((1, 2, 3)).min() > 0
    for i in range(4):
        alone = torch.cat([obs[i : i + 1]] * 4)
        torch.testing.assert_close(how(ask(agent), alone)[i], whole[i], rtol=1e-4, atol=1e-7)
    for net in networks:
        assert all(parameter.grad is None for parameter in net.parameters())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_gradients_that_were_there_stay_as_they_were() -> None:
    net = network("plain")
    net(OBS.float()).sum().backward()
    before = [parameter.grad.clone() for parameter in net.parameters()]
    for how in (saliency.gradient, saliency.guided_backprop, lambda a, o: saliency.grad_cam(a, o, net[2])):
        how(net, OBS)
    for old, parameter in zip(before, net.parameters(), strict=True):
        torch.testing.assert_close(old, parameter.grad, rtol=0, atol=0)


def test_a_guided_pass_leaves_the_graph_as_it_was() -> None:
    net = network("in place")
    x = OBS.float().requires_grad_()
    score = net(x)
    guided = saliency.guided_gradient(score, x, keep_graph=True)
    (plain,) = torch.autograd.grad(score.sum(), x)
    torch.testing.assert_close(guided, saliency.guided_backprop(net, OBS))
    torch.testing.assert_close(plain, saliency.gradient(net, OBS))


def test_the_answers_are_what_the_agents_say() -> None:
    agent, obs = AGENTS["dqn-pixels"]
    q = agent.q_values(obs.numpy())
    for answer, expected in (
        (saliency.q_value(agent, torch.tensor([0, 1, 1, 0])), q[np.arange(4), [0, 1, 1, 0]]),
        (saliency.state_value(agent), q.max(axis=1)),
        (saliency.chosen_action(agent), q.max(axis=1) - q.mean(axis=1)),
    ):
        np.testing.assert_allclose(answer(obs.float()).detach(), expected, rtol=1e-4, atol=1e-6)
    agent, obs = AGENTS["sac"]
    action = torch.from_numpy(agent.act(obs.numpy(), explore=False))
    torch.testing.assert_close(saliency.chosen_action(agent)(obs.float()), action[:, 0])
    both = agent.critic(agent.encoder(obs), action)
    for answer in (saliency.q_value(agent, action), saliency.state_value(agent)):
        torch.testing.assert_close(answer(obs.float()), (both[0] + both[1]) / 2)


def test_nothing_is_seen_of_a_network_with_other_activations() -> None:
    with pytest.raises(ValueError, match="Gelu"):
        saliency.guided_backprop(nn.Sequential(*sequential(False)[:3], nn.GELU(), *sequential(False)[4:]), OBS)
    others = [nn.LeakyReLU(), nn.PReLU(), nn.RReLU(), nn.ELU(), nn.SELU(), nn.CELU(), nn.SiLU(), nn.Mish()]
    for other in (*others, nn.Hardswish(), nn.Threshold(0.1, 0.0)):
        with pytest.raises(ValueError, match="is a rule for ReLUs, and this network has"):
            saliency.guided_backprop(nn.Sequential(*sequential(False)[:3], other, *sequential(False)[4:]), OBS)
    with pytest.raises(ValueError, match="has none"):
        saliency.guided_backprop(nn.Sequential(nn.Flatten(), nn.Linear(9 * 20 * 24, 1), nn.Flatten(0)), OBS)


def test_other_answers_and_layers_are_refused() -> None:
    net = network("plain")
    with pytest.raises(ValueError, match="one number a sample"):
        saliency.gradient(lambda obs: net(obs).sum(), OBS)
    with pytest.raises(ValueError, match="batch of observations"):
        saliency.gradient(net, OBS[0])
    with pytest.raises(ValueError, match="does not depend"):
        saliency.gradient(lambda obs: torch.zeros(len(obs)), OBS)
    with pytest.raises(ValueError, match="nothing"):
        saliency.grad_cam(net, OBS, nn.Conv2d(9, 3, 3))
    with pytest.raises(ValueError, match="must give"):
        saliency.grad_cam(net, OBS, net[5])
    with pytest.raises(TypeError, match="Linear"):
        saliency.state_value(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="no dimension 1"):
        saliency.chosen_action(AGENTS["sac"][0], dimension=1)


MAPS = {
    "constant": torch.ones(2, 3, 12, 17),
    "random": torch.rand(2, 3, 12, 17, generator=torch.Generator().manual_seed(0)),
    "mostly zero": torch.nn.functional.one_hot(torch.tensor([[3, 5, 9], [0, 11, 203]]), 204).reshape(2, 3, 12, 17),
}


@pytest.mark.parametrize("rho", [0.02, 0.5, 0.9, 0.95, 0.98, 0.9999])
@pytest.mark.parametrize("kind", MAPS)
def test_a_mask_has_the_asked_area(kind: str, rho: float) -> None:
    maps = MAPS[kind].float()
    mask = saliency.top_pixels(maps, rho)
    assert (mask.sum((2, 3)) == max(1, round((1 - rho) * 12 * 17))).all()
    kept = torch.where(mask, maps, torch.inf).amin((2, 3))
    left = torch.where(mask, -torch.inf, maps).amax((2, 3))
    assert (kept >= left).all()


@pytest.mark.parametrize("rho", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_rho_that_is_no_quantile_is_refused(rho: float) -> None:
    with pytest.raises(ValueError, match="rho is"):
        saliency.top_pixels(MAPS["random"], rho)


def test_a_pixel_counts_with_its_strongest_colour_and_a_mask_blackens_all_three() -> None:
    attribution = torch.zeros(1, 6, 2, 2)
    attribution[0, 4, 1, 0] = -3.0
    attribution[0, 5, 1, 0] = 2.0
    maps = saliency.by_frame(attribution)
    expected = torch.zeros(1, 2, 2, 2)
    expected[0, 1, 1, 0] = 3.0
    torch.testing.assert_close(maps, expected)
    obs = torch.randint(1, 256, (1, 6, 2, 2), dtype=torch.uint8)
    seen = saliency.masked(obs, maps > 0)
    assert seen.dtype == torch.uint8
    assert (seen[0, 3:, 1, 0] == obs[0, 3:, 1, 0]).all()
    assert seen.sum() == seen[0, 3:, 1, 0].sum()
    with pytest.raises(ValueError, match="multiple of 3"):
        saliency.by_frame(torch.zeros(1, 4, 2, 2))
