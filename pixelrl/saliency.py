"""Saliency: on which pixels an answer of an agent depends.

An answer is a function from observations (B, C, H, W) to one number each, (B,), such as `q_value(agent, action)`.
Each method gives every number of the observation its part in the answer. The samples of a batch do not mix, and
nothing is left behind: no gradient in a parameter, no hook in a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pixelrl.dqn import DQN
from pixelrl.nets import channels_first
from pixelrl.sac import SAC

Answer = Callable[[torch.Tensor], torch.Tensor]

OTHER_ACTIVATIONS = set(  # as the nodes of a graph are called
    "LeakyRelu PreluKernel RreluWithNoise Elu Celu Gelu Silu Mish Hardswish Threshold".split()
)


def q_value(agent: Any, action: torch.Tensor) -> Answer:
    """Q(o, a), for actions (B,) of a DQN or (B, A) of SAC; of two critics, the mean."""
    if isinstance(agent, DQN):
        return lambda obs: agent.q_net(obs).gather(1, action[:, None])[:, 0]
    check_sac(agent)
    return lambda obs: agent.critic(agent.encoder(obs), action).mean(dim=0)


def state_value(agent: Any) -> Answer:
    """V(o): the value of what the policy would do, max over a of Q(o, a) for a DQN and Q(o, pi(o)) for SAC."""
    if isinstance(agent, DQN):
        return lambda obs: agent.q_net(obs).amax(dim=1)
    check_sac(agent)

    def value(obs: torch.Tensor) -> torch.Tensor:
        features = agent.encoder(obs)
        return agent.critic(features, torch.tanh(agent.actor(features)[0])).mean(dim=0)

    return value


def chosen_action(agent: Any, dimension: int = 0) -> Answer:
    """What decides the action: one dimension of it for SAC; for a DQN, how far the best action is above the mean."""
    if isinstance(agent, DQN):

        def lead(obs: torch.Tensor) -> torch.Tensor:
            q = agent.q_net(obs)
            return q.amax(dim=1) - q.mean(dim=1)

        return lead
    check_sac(agent)
    if not 0 <= dimension < agent.n_actions:
        raise ValueError(f"there is no dimension {dimension}; the action has {agent.n_actions}, counted from 0.")
    return lambda obs: torch.tanh(agent.actor(agent.encoder(obs))[0][:, dimension])


def check_sac(agent: Any) -> None:
    """Refuse what is none of the book's agents."""
    if not isinstance(agent, SAC):
        raise TypeError(f"no answer is known of a {type(agent).__name__}; write your own function of observations.")


def gradient(answer: Answer, obs: torch.Tensor) -> torch.Tensor:
    """The derivative of an answer by its observation (Simonyan et al. 2014): (B, C, H, W) float32, signed."""
    obs = leaf(obs)
    (attribution,) = torch.autograd.grad(answers(answer, obs).sum(), obs)
    return attribution


def guided_backprop(answer: Answer, obs: torch.Tensor) -> torch.Tensor:
    """The same, but negative gradients stop at every ReLU (Springenberg et al. 2015): (B, C, H, W) float32, signed.

    Raises:
        ValueError: the answer passes no ReLU, or other activations, for which the rule says nothing.
    """
    obs = leaf(obs)
    return guided_gradient(answers(answer, obs), obs)


def guided_gradient(score: torch.Tensor, obs: torch.Tensor, keep_graph: bool = False) -> torch.Tensor:
    """Guided backprop through a graph that is there already; afterwards the graph is as it was.

    Args:
        score: (B,), computed from `obs`.
        obs: (B, C, H, W), of which gradients were asked.
        keep_graph: whether another backward pass will follow, such as that of a loss.
    """
    handles = [node.register_prehook(stop_negative) for node in relus(score)]
    try:
        (attribution,) = torch.autograd.grad(score.sum(), obs, retain_graph=keep_graph)
    finally:
        for handle in handles:
            handle.remove()
    return attribution


def stop_negative(grad_outputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """What reaches a ReLU from above, without what is below zero."""
    return (grad_outputs[0].clamp(min=0),)


def relus(score: torch.Tensor) -> list[Any]:
    """The ReLUs in the graph of a score, whether they are modules or functions, in place or not.

    Raises:
        ValueError: there are none, or there are other activations.
    """
    names = {node: node.name().split("Backward")[0] for node in graph(score)}
    if other := sorted(OTHER_ACTIVATIONS & set(names.values())):
        raise ValueError(f"guided backpropagation is a rule for ReLUs, and this network has {', '.join(other)}.")
    found = [node for node, name in names.items() if name == "Relu"]
    if not found:
        raise ValueError("guided backpropagation is a rule for ReLUs, and this network has none.")
    return found


def graph(score: torch.Tensor) -> Iterator[Any]:
    """Every node of the graph by which a tensor was computed, once."""
    found, ahead = set(), [score.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in found:
            found.add(node)
            ahead += [before for before, _ in node.next_functions]
            yield node


def grad_cam(answer: Answer, obs: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """Grad-CAM (Selvaraju et al. 2017): (B, H, W) float32, not negative, at the size of the observation.

    With feature maps A_k of a layer, ReLU of the sum over k of A_k times the mean gradient of the answer by A_k.

    Args:
        answer: that passes the layer once.
        obs: (B, C, H, W).
        layer: with an output (B, K, h, w): a convolution, or what follows one.

    Raises:
        ValueError: the answer does not pass the layer, or its output is no stack of maps.
    """
    seen: list[torch.Tensor] = []

    def keep(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
        seen.append(output)
        return output.clone()  # an in-place ReLU that follows changes the copy

    handle = layer.register_forward_hook(keep)
    try:
        score = answers(answer, leaf(obs))
    finally:
        handle.remove()
    if len(seen) != 1 or seen[0].ndim != 4:
        shapes = [tuple(output.shape) for output in seen]
        raise ValueError(f"the layer must give (B, K, h, w), once an answer; this one gave {shapes or 'nothing'}.")
    (slopes,) = torch.autograd.grad(score.sum(), seen[0])
    maps = (slopes.mean((2, 3), keepdim=True) * seen[0].detach()).sum(dim=1, keepdim=True).relu()
    return F.interpolate(maps.float(), obs.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def leaf(obs: torch.Tensor) -> torch.Tensor:
    """A batch of observations as float32, of which gradients can be asked."""
    if obs.ndim != 4:
        raise ValueError(f"expected a batch of observations (B, C, H, W); got {tuple(obs.shape)}.")
    return obs.detach().float().clone().requires_grad_()


def answers(answer: Answer, obs: torch.Tensor) -> torch.Tensor:
    """The answers (B,) for a batch; anything else is refused."""
    with torch.enable_grad():
        score = answer(obs)
    if score.shape != obs.shape[:1]:
        raise ValueError(f"an answer is one number a sample, ({len(obs)},); this one is {tuple(score.shape)}.")
    if score.grad_fn is None:
        raise ValueError("the answer does not depend on the observation, or was computed without gradients.")
    return score


def by_frame(attribution: torch.Tensor) -> torch.Tensor:
    """One number a pixel and frame, the largest size over its colours: (B, C, H, W) -> (B, C / 3, H, W) float32."""
    b, c, h, w = attribution.shape
    if c % 3:
        raise ValueError(f"expected a stack of RGB frames; {c} channels are no multiple of 3.")
    return channels_first(attribution.abs()).reshape(b, c // 3, 3, h, w).amax(dim=2).float()


def top_pixels(maps: torch.Tensor, rho: float) -> torch.Tensor:
    """The pixels above the quantile `rho` of each map, as a mask: (..., H, W) -> the same, bool.

    Exactly round((1 - rho) H W) pixels of every map are kept, and at least one. Comparing with the quantile would keep
    every pixel that ties with it: of a map that is zero almost everywhere, all of them.

    Raises:
        ValueError: rho is not strictly between 0 and 1.
    """
    if not 0.0 < rho < 1.0:
        raise ValueError(f"rho is {rho}; it must lie between 0 and 1, such as 0.95 to keep a twentieth of the pixels.")
    flat = maps.flatten(-2)
    kept = max(1, round((1 - rho) * flat.shape[-1]))
    mask = torch.zeros_like(flat, dtype=torch.bool)
    return mask.scatter_(-1, strongest(flat, kept), True).reshape(maps.shape)


def strongest(flat: torch.Tensor, n: int) -> torch.Tensor:
    """Where the n largest numbers of each row are, in any order: (..., W) -> (..., n) int64."""
    if flat.device.type == "cpu":  # several times as fast as torch's topk
        return torch.from_numpy(np.argpartition(flat.numpy(), -n, axis=-1)[..., -n:])
    return flat.topk(n, dim=-1).indices


def masked(obs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """o * M: the observation (B, C, H, W) with what is outside of the mask (B, frames, H, W) black."""
    return obs * mask.repeat_interleave(obs.shape[1] // mask.shape[1], dim=1)
