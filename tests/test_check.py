"""The exercises' checks: right answers pass, empty ones are told so, known mistakes are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from scipy import ndimage, special, stats
from torch import nn
from torch.distributions import Normal, TanhTransform, TransformedDistribution
from torchmetrics.functional.image import peak_signal_noise_ratio

from pixelrl import check, saliency, sgqn
from pixelrl.actor_critic import generalised_advantage
from pixelrl.envs import modes
from pixelrl.i2a import distil_loss
from pixelrl.predictive import blended, consistency_weights
from pixelrl.sac import temperature_loss


def hard_update(target: nn.Module, online: nn.Module, updates: int, period: int) -> None:
    if updates % period == 0:
        target.load_state_dict(online.state_dict())


def hard_update_by_reference(target: nn.Module, online: nn.Module, updates: int, period: int) -> None:
    if updates % period == 0:
        target.weight, target.bias = online.weight, online.bias


def soft_update(target: nn.Module, online: nn.Module, updates: int, period: int) -> None:
    with torch.no_grad():
        for a, b in zip(target.parameters(), online.parameters(), strict=True):
            a.lerp_(b, 0.1)


def n_step(rewards: list[float], terminated: bool, value: float, gamma: float) -> float:
    total = 0.0 if terminated else value
    for reward in reversed(rewards):
        total = reward + gamma * total
    return total


def stack(frames: np.ndarray, k: int) -> np.ndarray:
    return frames[np.maximum(np.arange(len(frames) - k, len(frames)), 0)]


def double(r: np.ndarray, d: np.ndarray, online: np.ndarray, target: np.ndarray, gamma: float) -> np.ndarray:
    return r + gamma * (1 - d) * target[np.arange(len(r)), online.argmax(1)]


def weights(priority: np.ndarray, omega: float, beta: float) -> np.ndarray:
    share = priority**omega / (priority**omega).sum()
    w = (len(priority) * share) ** -beta
    return w / w.max()


def log_prob(action: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """By torch's own distributions."""
    mean, std, action = (torch.from_numpy(x) for x in (mean, std, action))
    squashed = TransformedDistribution(Normal(mean, std), TanhTransform())
    return squashed.log_prob(action).sum(dim=1).numpy()


def normal(x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return stats.norm(mean, std).logpdf(x)


def soft(
    r: np.ndarray, d: np.ndarray, q1: np.ndarray, q2: np.ndarray, lp: np.ndarray, a: float, g: float
) -> np.ndarray:
    return r + g * (1 - d) * (np.minimum(q1, q2) - a * lp)


def temperature(log_alpha: float, log_prob: np.ndarray, target: float, lr: float) -> float:
    """By autograd."""
    parameter = torch.tensor(log_alpha, requires_grad=True)
    temperature_loss(parameter, torch.from_numpy(log_prob), target).backward()
    return float(parameter.detach() - lr * parameter.grad)


def shift(picture: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """By padding and cropping."""
    h, w = picture.shape
    return np.pad(picture, 8, mode="edge")[8 - dy : 8 - dy + h, 8 - dx : 8 - dx + w]


def svea(q: np.ndarray, augmented: np.ndarray, target: np.ndarray) -> float:
    return float(((np.concatenate([q, augmented]) - np.tile(target, 2)) ** 2).mean())


def keep(attribution: np.ndarray, rho: float) -> np.ndarray:
    """The package's, on a batch of one."""
    return saliency.top_pixels(torch.from_numpy(attribution)[None, None], rho)[0, 0].numpy()


def paint(obs: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return np.where(mask, obs, np.tile(colour, len(obs) // 3)[:, None, None])


def consistent(q: np.ndarray, masked: np.ndarray, y: np.ndarray, weight: float) -> float:
    return float(np.mean((q - y) ** 2 + weight * (q - masked) ** 2))


def entropy(logits: np.ndarray, mask: np.ndarray) -> float:
    """The package's."""
    return float(sgqn.attribution_loss(torch.from_numpy(logits), torch.from_numpy(mask)))


def moved(frame: np.ndarray, kernel: np.ndarray, boundary: str = "nearest") -> np.ndarray:
    """By scipy."""
    return ndimage.correlate(frame, kernel, mode=boundary, cval=0.0)


def blend(logits: np.ndarray, layers: np.ndarray) -> np.ndarray:
    return np.einsum("mhw, mchw -> chw", special.softmax(logits, axis=0), layers)


def psnr_there(forecast: np.ndarray, truth: np.ndarray, last: np.ndarray, changed: np.ndarray | None = None) -> float:
    """By torchmetrics, on the pixels that change."""
    where = (np.abs((truth if changed is None else changed) - last) > 0.1).any(axis=0)
    pair = (torch.from_numpy(x[:, where]) for x in (forecast, truth))
    return float(peak_signal_noise_ratio(*pair, data_range=1.0))


def psnr_of(forecast: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
    return -10 * np.log10(((forecast - truth) ** 2)[:, where].mean())


def tile(boards: np.ndarray, n_actions: int) -> tuple[np.ndarray, np.ndarray]:
    return boards.repeat(n_actions, axis=0), np.arange(len(boards) * n_actions) % n_actions


def distilled(logits: np.ndarray, student: np.ndarray) -> float:
    return float(distil_loss(torch.from_numpy(logits), torch.from_numpy(student)))


def gae(reward: np.ndarray, ended: np.ndarray, value: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    columns = (torch.from_numpy(x)[:, None] for x in (reward, ended, value))
    return generalised_advantage(*columns, gamma, lam)[:, 0].numpy()


def by_equation_4(reward: float, gamma: float, ended: float, values: np.ndarray) -> float:
    return reward + gamma * (1 - ended) * float(blended(torch.from_numpy(values), 0.5))


RIGHT = {
    "1.1": (check.one_step_target, lambda r, d, q, g: r + g * (1 - d) * q.max(1)),
    "1.2": (check.n_step_target, n_step),
    "1.3": (check.hard_update, hard_update),
    "2.1": (check.stack_frames, stack),
    "2.2": (check.double_q_target, double),
    "2.3": (check.importance_weights, weights),
    "3.1": (check.squashed_log_prob, log_prob),
    "3.2": (check.soft_target_by_hand, soft),
    "3.3": (check.temperature_step, temperature),
    "4.1": (check.shift_picture, shift),
    "4.2": (check.svea_loss, svea),
    "4.3": (check.composite, lambda rgb, labels, b, replaced: modes.composite(rgb, labels, b, replaced)),
    "5.1": (check.guided_relu, lambda x, above: np.maximum(above, 0) * (x > 0)),
    "5.2": (check.grad_cam_by_hand, lambda a, g: np.maximum(np.einsum("kij, k -> ij", a, g.mean((1, 2))), 0)),
    "5.3": (check.strongest, keep),
    "6.1": (check.paint_over, paint),
    "6.2": (check.sgqn_loss, consistent),
    "6.3": (check.attribution_loss_by_hand, entropy),
    "7.1": (check.move_picture, moved),
    "7.2": (check.believe, blend),
    "7.3": (check.psnr_where_it_moves, psnr_there),
    "8.1": (check.every_action_of_every_board, tile),
    "8.2": (check.distil, distilled),
    "8.3": (check.advantages, gae),
    "9.1": (check.predictive_target_by_hand, by_equation_4),
    "9.2": (check.weights_of_equation_5, lambda n: consistency_weights(n, 0.5)),
    "9.3": (check.matched_discount, lambda g, n: g ** (1 / (0.5 + 0.5 * np.arange(2, n + 1).mean()))),
    "10.1": (check.probability_of_improvement, lambda a, b: np.mean((np.sign(np.subtract.outer(a, b)) + 1) / 2)),
}


@pytest.mark.parametrize("number", RIGHT)
def test_a_right_answer_passes(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    verdict, answer = RIGHT[number]
    verdict(answer)
    assert capsys.readouterr().out == f"✓ Exercise {number}: right.\n"
    assert check.results[number]


@pytest.mark.parametrize("number", RIGHT)
def test_an_empty_answer_is_no_error(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    def stub(*args: Any) -> None:
        raise NotImplementedError

    RIGHT[number][0](stub)
    assert "not written yet" in capsys.readouterr().out
    assert not check.results[number]


@pytest.mark.parametrize("number", [number for number in RIGHT if number != "1.3"])
def test_an_answer_without_return_is_told_so(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    RIGHT[number][0](lambda *args: None)
    out = capsys.readouterr().out
    assert out.startswith("✗")
    assert "return" in out or "shape" in out


MISTAKES = [
    (check.one_step_target, lambda r, d, q, g: r + g * q.max(1), "although the episode terminated"),
    (check.one_step_target, lambda r, d, q, g: r + (1 - d) * q.max(1), "discount is missing"),
    (check.one_step_target, lambda r, d, q, g: r + g * (1 - d) * q.mean(1), "mean over actions"),
    (check.one_step_target, lambda r, d, q, g: r + g * d * q.max(1), "1 - terminated"),
    (check.one_step_target, lambda r, d, q, g: r, "you get [ 1.,  1., -2.]"),
    (check.one_step_target, lambda r, d, q, g: (r + g * (1 - d) * q.max(1))[:2], "has shape (2,)"),
    (check.one_step_target, lambda r, d, q, g: r @ q @ q, "raised ValueError"),
    (check.n_step_target, lambda r, d, v, g: n_step(r, False, v, g), "although the episode terminated"),
    (check.n_step_target, lambda r, d, v, g: n_step(r, True, v, g) + v * (not d), "value is not discounted"),
    (check.n_step_target, lambda r, d, v, g: n_step(r, True, v, g) + g * v * (not d), "discounted once"),
    (check.n_step_target, lambda r, d, v, g: n_step(r, True, v, g) + g ** (len(r) - 1) * v * (not d), "n - 1 times"),
    (check.n_step_target, lambda r, d, v, g: sum(r) + g ** len(r) * v * (not d), "rewards are not discounted"),
    (check.hard_update, soft_update, "should stand still"),
    (check.hard_update, lambda *args: None, "differs from the online network"),
    (check.hard_update, hard_update_by_reference, "share their parameters"),
    (check.hard_update, lambda a, b, n, k: hard_update(a, b, n // k * k, k) if n >= k else None, "no multiple"),
    (check.stack_frames, lambda f, k: stack(f, k)[::-1], "newest frame comes first"),
    (check.stack_frames, lambda f, k: f[-k:], "has shape (2, 2, 3)"),
    (check.double_q_target, lambda r, d, o, t, g: double(r, d, t, t, g), "target of plain DQN"),
    (check.double_q_target, lambda r, d, o, t, g: double(r, d, o, o, g), "was not asked"),
    (check.double_q_target, lambda r, d, o, t, g: double(r, 0 * d, o, t, g), "although the episode terminated"),
    (check.importance_weights, lambda p, o, b: 2 * weights(p, o, b), "you get"),
    (check.importance_weights, lambda p, o, b: (len(p) * p**o / (p**o).sum()) ** -b, "not divided by the largest"),
    (check.importance_weights, lambda p, o, b: weights(p, 1.0, b), "omega is missing"),
    (check.importance_weights, lambda p, o, b: weights(p, o, -b), "sign of the exponent"),
    (check.squashed_log_prob, lambda a, m, s: normal(np.arctanh(a), m, s).sum(1), "slope of tanh is missing"),
    (check.squashed_log_prob, lambda a, m, s: (normal(np.arctanh(a), m, s) + np.log(1 - a**2)).sum(1), "wrong sign"),
    (check.squashed_log_prob, lambda a, m, s: (normal(a, m, s) - np.log(1 - a**2)).sum(1), "undo the tanh first"),
    (
        check.squashed_log_prob,
        lambda a, m, s: (normal(np.arctanh(a), m, s) - np.log(1 - np.tanh(a) ** 2)).sum(1),
        "not at u",
    ),
    (check.soft_target_by_hand, lambda r, d, p, q, lp, a, g: soft(r, d, p, q, -lp, a, g), "wrong sign"),
    (check.soft_target_by_hand, lambda r, d, p, q, lp, a, g: soft(r, d, p, q, lp, 0, g), "entropy is missing"),
    (check.soft_target_by_hand, lambda r, d, p, q, lp, a, g: soft(r, 0 * d, p, q, lp, a, g), "although the episode"),
    (check.soft_target_by_hand, lambda r, d, p, q, lp, a, g: soft(r, d, p + 99, np.maximum(p, q), lp, a, g), "larger"),
    (
        check.soft_target_by_hand,
        lambda r, d, p, q, lp, a, g: soft(r, d, p, q, lp, 0, g) - a * lp * (1 - d),
        "is not discounted",
    ),
    (check.temperature_step, lambda la, lp, h, lr: la - lr * np.exp(la) * (lp + h).mean(), "sign"),
    (check.temperature_step, lambda la, lp, h, lr: la + lr * (lp + h).mean(), "chain rule"),
    (check.temperature_step, lambda la, lp, h, lr: np.exp(temperature(la, lp, h, lr)), "its logarithm"),
    (check.temperature_step, lambda la, lp, h, lr: la + lr * np.exp(la) * (lp - h).mean(), "minus the entropy"),
    (check.shift_picture, lambda p, dy, dx: shift(p, -dy, -dx), "wrong way"),
    (check.shift_picture, lambda p, dy, dx: np.roll(p, (dy, dx), (0, 1)), "edge should be repeated"),
    (check.svea_loss, lambda q, a, y: 2 * svea(q, a, y), "weight one half"),
    (check.svea_loss, lambda q, a, y: svea(a, a, y), "only the augmented"),
    (check.svea_loss, lambda q, a, y: svea(q, q, y), "only the plain"),
    (check.svea_loss, lambda q, a, y: svea((q + a) / 2, (q + a) / 2, y), "averaged before the loss"),
    (check.composite, lambda rgb, labels, b, r: modes.composite(b, labels, rgb, r), "kept the background"),
    (check.guided_relu, lambda x, above: above * (x > 0), "negative gradients stop too"),
    (check.guided_relu, lambda x, above: np.maximum(above, 0), "where the input was negative"),
    (check.guided_relu, lambda x, above: np.maximum(x, 0), "the ReLU's output"),
    (check.grad_cam_by_hand, lambda a, g: (a * g.mean((1, 2), keepdims=True)).sum(0), "last step is a ReLU"),
    (check.grad_cam_by_hand, lambda a, g: np.maximum((a * g).sum(0), 0), "pixel by pixel"),
    (check.grad_cam_by_hand, lambda a, g: np.maximum((a * g.mean((1, 2), keepdims=True)).mean(0), 0), "not averaged"),
    (check.strongest, lambda a, rho: a >= np.quantile(a, rho), "tie with the quantile"),
    (check.strongest, lambda a, rho: keep(-a, rho), "a stronger pixel was left out"),
    (check.strongest, lambda a, rho: keep(a, 1 - rho), "pixels are asked"),
    (check.strongest, lambda a, rho: keep(a, rho).astype(float), "shape (5, 8) and type bool"),
    (check.paint_over, lambda obs, mask, c: np.where(mask, obs, np.repeat(c, 2)[:, None, None]), "channels 0 to 2"),
    (check.paint_over, lambda obs, mask, c: paint(obs, ~mask, c), "inside of the mask"),
    (check.paint_over, lambda obs, mask, c: obs * mask, "not black"),
    (check.sgqn_loss, lambda q, m, y, w: consistent(q, m, y, 1.0), "not weighted"),
    (check.sgqn_loss, lambda q, m, y, w: np.mean((q - y) ** 2 + w * (m - y) ** 2), "not with the target"),
    (check.sgqn_loss, lambda q, m, y, w: consistent(q, m, q, w), "only the consistency loss"),
    (check.attribution_loss_by_hand, lambda x, m: x.size * entropy(x, m), "that is the sum"),
    (check.attribution_loss_by_hand, lambda x, m: entropy(x, ~m), "exchanged"),
    (check.attribution_loss_by_hand, lambda x, m: (m * np.log1p(np.exp(-x))).mean(), "inside of the mask count"),
    (check.move_picture, lambda f, k: moved(f, k, "constant"), "darkens the border"),
    (check.move_picture, lambda f, k: moved(f, k[::-1, ::-1]), "turned round"),
    (check.move_picture, lambda f, k: moved(f, k[:3, :3]), "a kernel of 5 × 5"),
    (check.believe, lambda x, y: (special.softmax(x, axis=(1, 2))[:, None] * y).sum(0), "over the layers"),
    (check.believe, lambda x, y: blend(x, y) / 3, "not averaged"),
    (check.believe, lambda x, y: np.einsum("mhw, mchw -> chw", x, y), "softmax"),
    (check.psnr_where_it_moves, lambda f, y, x: -10 * np.log10(np.mean((f - y) ** 2)), "whole frame"),
    (check.psnr_where_it_moves, lambda f, y, x: psnr_there(f, y, x, changed=f), "what really changes"),
    (check.psnr_where_it_moves, lambda f, y, x: np.log(10) * psnr_there(f, y, x), "base of ten"),
    (check.psnr_where_it_moves, lambda f, y, x: psnr_of(f, y, (y - x > 0.1).any(0)), "gets darker"),
    (
        check.psnr_where_it_moves,
        lambda f, y, x: psnr_of(f, y, (abs(y - x) > 0.1).all(0)),
        "colour that changes is enough.",
    ),
    (check.psnr_where_it_moves, lambda f, y, x: psnr_of(f, y, abs(y - x).mean(0) > 0.1), "you took their mean"),
    (
        check.psnr_where_it_moves,
        lambda f, y, x: -10 * np.log10(((f - y) ** 2)[abs(y - x) > 0.1].mean()),
        "three colours",
    ),
    (check.every_action_of_every_board, lambda b, n: b, "two arrays"),
    (check.every_action_of_every_board, lambda b, n: (np.tile(b, (n, 1, 1)), tile(b, n)[1]), "b0 b1 b0 b1"),
    (check.every_action_of_every_board, lambda b, n: (tile(b, n)[0], np.arange(n).repeat(len(b))), "more than once"),
    (check.distil, lambda x, y: -distilled(x, y), "opposite"),
    (check.distil, lambda x, y: distilled(y, x), "exchanged"),
    (check.distil, lambda x, y: -(x * special.log_softmax(y, axis=1)).sum(1).mean(), "no probabilities"),
    (check.distil, lambda x, y: distilled(x, y) / 3, "sum over the actions"),
    (check.advantages, lambda r, e, v, g, lam: gae(r, 0 * e, v, g, lam), "ended on the way"),
    (check.advantages, lambda r, e, v, g, lam: gae(r, e, v, g, lam / g), "lambda alone"),
    (check.advantages, lambda r, e, v, g, lam: gae(r, e, v, g, 0.0), "missing"),
    (check.predictive_target_by_hand, lambda r, g, d, v: r + g * (1 - d) * v.mean(), "half of the say"),
    (check.predictive_target_by_hand, lambda r, g, d, v: r + g * (1 - d) * (v[0] + v[1:].sum()) / 2, "share a half"),
    (check.predictive_target_by_hand, lambda r, g, d, v: r + g * (1 - d) * v[0], "SAC's target"),
    (
        check.predictive_target_by_hand,
        lambda r, g, d, v: r + g * (v[0] / 2 + g * v[1] / 4 + g * g * v[2] / 4),
        "one disc",
    ),
    (check.predictive_target_by_hand, lambda r, g, d, v: by_equation_4(r, g, 0, v), "nothing comes"),
    (
        check.predictive_target_by_hand,
        lambda r, g, d, v: r + g * (1 - d) * np.dot(consistency_weights(len(v) - 1, 0.5), v),
        "equal weights",
    ),
    (check.weights_of_equation_5, lambda n: [0.5 ** (i + 1) for i in range(n + 1)], "as large as the one before"),
    (check.weights_of_equation_5, lambda n: consistency_weights(n, 0.5)[:-1], "shape (3,); it should have (4,)"),
    (check.matched_discount, lambda g, n: g ** (0.5 + (n + 2) / 4), "smaller than gamma"),
    (check.matched_discount, lambda g, n: g ** (2 / (n + 1)), "the others share"),
    (check.probability_of_improvement, lambda a, b: np.mean(a[:, None] > b), "not nothing"),
    (check.probability_of_improvement, lambda a, b: np.mean(a[:, None] >= b), "not whole"),
    (check.probability_of_improvement, lambda a, b: 1 - stats.mannwhitneyu(a, b).statistic / 8, "theirs is higher"),
    (check.probability_of_improvement, lambda a, b: stats.mannwhitneyu(a, b).statistic, "m n"),
]


@pytest.mark.parametrize(("verdict", "answer", "message"), MISTAKES)
def test_a_mistake_is_named(
    verdict: Callable[[Any], None], answer: Callable[..., Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict(answer)
    out = capsys.readouterr().out
    assert out.startswith("✗")
    assert message in out


def test_an_atari_answer_is_judged_by_its_observations(capsys: pytest.CaptureFixture[str]) -> None:
    check.atari_env(lambda: gym.make("CartPole-v1"))
    assert "should be (4, 84, 84) uint8" in capsys.readouterr().out


def test_two_arrays_may_come_as_a_list() -> None:
    check.every_action_of_every_board(lambda boards, n: list(tile(boards, n)))
    assert check.results["8.1"]
