"""The exercises' checks: each says what is wrong with an answer, and passes on a right one.

A check never stops the notebook. It prints one line and notes in `results` whether the answer is right, so
that the same checks serve a reader, who learns from the line, and a class, where the results are counted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn


class WrongAnswerError(Exception):
    """An answer is wrong; the message says how."""


results: dict[str, bool] = {}
"""Which exercises were answered right, by number, at their last check."""


def exercise(number: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Turn a function that raises `WrongAnswerError` into a check that prints one line and notes the verdict."""

    def decorate(check: Callable[[Any], None]) -> Callable[[Any], None]:
        @functools.wraps(check)
        def verdict(answer: Any) -> None:
            results[number] = False
            try:
                check(answer)
            except NotImplementedError:
                print(f"· Exercise {number}: not written yet.")
            except WrongAnswerError as wrong:
                print(f"✗ Exercise {number}: {wrong}")
            except Exception as error:  # whatever the answer raises is news for its author
                print(f"✗ Exercise {number}: your code raised {type(error).__name__}: {error}")
            else:
                results[number] = True
                print(f"✓ Exercise {number}: right.")

        return verdict

    return decorate


def expect(got: Any, wanted: Any, case: str, hints: dict[str, Any] | None = None) -> None:
    """Compare numbers; where they equal what a known mistake gives, say which mistake it is.

    Args:
        got: the answer's result.
        wanted: the right one.
        case: what was asked, for the message.
        hints: for each known mistake what it would give.
    """
    if got is None:
        raise WrongAnswerError(f"{case}, your function returned nothing. Is there a return?")
    got, wanted = np.asarray(got, dtype=float), np.asarray(wanted, dtype=float)
    if got.shape != wanted.shape:
        raise WrongAnswerError(f"{case}, the result has shape {got.shape}; it should have {wanted.shape}.")
    if np.allclose(got, wanted, rtol=1e-4, atol=1e-6):
        return
    for mistake, value in (hints or {}).items():
        if np.allclose(got, value, rtol=1e-4, atol=1e-6):
            raise WrongAnswerError(f"{case}, {mistake}")
    raise WrongAnswerError(f"{case}, you get {shown(got)}; it should be {shown(wanted)}.")


def shown(values: np.ndarray) -> str:
    """Numbers, short enough for a line."""
    return np.array2string(values, precision=3, threshold=8, separator=", ").replace("\n", "")


@exercise("1.1")
def one_step_target(answer: Callable[..., np.ndarray]) -> None:
    """y = r + gamma (1 - d) max_a' Q(s', a')."""
    reward, terminated = np.array([1.0, 1.0, -2.0]), np.array([0.0, 1.0, 0.0])
    next_q = np.array([[3.0, 5.0], [7.0, 1.0], [-4.0, -6.0]])
    expect(
        answer(reward, terminated, next_q, 0.9),
        [5.5, 1.0, -5.6],
        "for r = [1, 1, -2], terminated = [0, 1, 0], next_q = [[3, 5], [7, 1], [-4, -6]], gamma = 0.9",
        {
            "the value of the next state counts although the episode terminated (second entry).": [5.5, 7.3, -5.6],
            "the discount is missing.": [6.0, 1.0, -6.0],
            "you took the mean over actions, not the maximum.": [4.6, 1.0, -6.5],
            "the factor should be 1 - terminated, not terminated.": [1.0, 7.3, -2.0],
        },
    )


@exercise("1.2")
def n_step_target(answer: Callable[..., float]) -> None:
    """r_0 + gamma r_1 + ... + gamma^n (1 - d) v."""
    case = "for rewards = [1, 2, 4], value = 10, gamma = 0.5"
    hints = {
        "the value is discounted once, not once for every reward.": 8.0,
        "the value is discounted n - 1 times; it comes after n rewards, so n times.": 5.5,
        "the value is not discounted.": 13.0,
        "the rewards are not discounted.": 8.25,
    }
    expect(answer([1.0, 2.0, 4.0], False, 10.0, 0.5), 4.25, f"{case}, not terminated", hints)
    expect(
        answer([1.0, 2.0, 4.0], True, 10.0, 0.5),
        3.0,
        f"{case}, terminated",
        {"the value counts although the episode terminated.": 4.25},
    )
    expect(answer([2.0], False, 4.0, 0.5), 4.0, "for a single reward of 2, value = 4, gamma = 0.5, not terminated")


@exercise("1.3")
def hard_update(answer: Callable[..., None]) -> None:
    """theta_bar <- theta every `period` updates."""
    online, target = nn.Linear(2, 2), nn.Linear(2, 2)
    before = [parameter.detach().clone() for parameter in target.parameters()]
    answer(target, online, 3, 5)
    if not equal(target.parameters(), before):
        raise WrongAnswerError("after update 3 with a period of 5, the target network changed; it should stand still.")
    answer(target, online, 10, 5)
    if not equal(target.parameters(), online.parameters()):
        raise WrongAnswerError(
            "after update 10 with a period of 5, the target network differs from the online network."
        )
    with torch.no_grad():
        online.weight.add_(1.0)
    if equal(target.parameters(), online.parameters()):
        raise WrongAnswerError("the two networks now share their parameters: copy the numbers, not the tensors.")
    answer(target, online, 12, 5)
    if equal(target.parameters(), online.parameters()):
        raise WrongAnswerError("after update 12 with a period of 5, the target network changed; that is no multiple.")


def equal(a: Any, b: Any) -> bool:
    """Whether two lists of tensors hold the same numbers."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@exercise("2.1")
def stack_frames(answer: Callable[..., np.ndarray]) -> None:
    """The newest k frames, the first repeated where there are fewer."""
    frames = np.arange(1, 6)[:, None, None] * np.ones((5, 2, 3))
    for number, wanted in ((4, [2, 3, 4, 5]), (1, [1, 1, 1, 2]), (0, [1, 1, 1, 1])):
        got = np.asarray(answer(frames[: number + 1], 4))
        case = f"after {number} steps (frames 1 to {number + 1}), with k = 4"
        if got.shape != (4, 2, 3):
            raise WrongAnswerError(f"{case}, the stack has shape {got.shape}; it should have (4, 2, 3).")
        expect(
            got[:, 0, 0],
            wanted,
            case,
            {"the newest frame comes first; it should come last.": wanted[::-1]},
        )


@exercise("2.2")
def double_q_target(answer: Callable[..., np.ndarray]) -> None:
    """y = r + gamma (1 - d) Q_target(s', argmax_a' Q_online(s', a'))."""
    reward, terminated = np.array([1.0, 1.0]), np.array([0.0, 1.0])
    online, target = np.array([[1.0, 3.0], [0.0, 1.0]]), np.array([[6.0, 2.0], [5.0, 8.0]])
    expect(
        answer(reward, terminated, online, target, 0.5),
        [2.0, 1.0],
        "for online = [[1, 3], ...] and target = [[6, 2], ...] with r = 1 and gamma = 0.5",
        {
            "this is the target of plain DQN: the target network picked its own best action.": [4.0, 1.0],
            "this is the online network's own value: the target network was not asked.": [2.5, 1.0],
            "the value counts although the episode terminated (second entry).": [2.0, 5.0],
        },
    )


@exercise("2.3")
def importance_weights(answer: Callable[..., np.ndarray]) -> None:
    """w_i = (N P(i))^-beta / max_j w_j with P(i) = p_i^omega / sum_k p_k^omega."""
    priority = np.array([1.0, 4.0, 9.0, 16.0])
    right = (4 * np.sqrt(priority) / 10) ** -0.5
    expect(
        answer(priority, 0.5, 0.5),
        right / right.max(),
        "for priorities [1, 4, 9, 16], omega = 0.5, beta = 0.5",
        {
            "the weights are not divided by the largest one.": right,
            "omega is missing: the probabilities are those of the bare priorities.": (priority / 1.0) ** -0.5,
            "the sign of the exponent: what is drawn more often should weigh less.": 1 / right / (1 / right).max(),
        },
    )


@exercise("2.5")
def atari_env(answer: Callable[[], Any]) -> None:
    """An environment that the book's DQN can be trained on, made from an Atari game."""
    env = answer()
    obs, _ = env.reset(seed=0)
    if obs.shape != (4, 84, 84) or obs.dtype != np.uint8:
        raise WrongAnswerError(f"observations should be (4, 84, 84) uint8; they are {obs.shape} {obs.dtype}.")
    if not env.spec or "Atari" not in f"{env.spec.id}{env}":
        raise WrongAnswerError("this is no Atari game: use gymnasium.make('pixelrl/Atari-v0', game=...) or envs.make.")
    env.close()


@exercise("3.1")
def squashed_log_prob(answer: Callable[..., np.ndarray]) -> None:
    """sum_i log N(atanh(a_i); mu_i, sigma_i) - log(1 - a_i^2)."""
    action, mean, std = np.array([[0.5, -0.2], [0.9, 0.0]]), np.array([[0.1, 0.3], [1.0, 0.0]]), np.full((2, 2), 0.7)
    u = np.arctanh(action)
    normal = -0.5 * ((u - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    slope = np.log(1 - action**2)
    expect(
        answer(action, mean, std),
        (normal - slope).sum(axis=1),
        "for actions [[0.5, -0.2], [0.9, 0]] with standard deviations of 0.7",
        {
            "the slope of tanh is missing: this is the density before squashing.": normal.sum(axis=1),
            "the slope has the wrong sign: where tanh is flat, probability piles up.": (normal + slope).sum(axis=1),
            "the slope is that at a, not at u: 1 - tanh(u)^2 is 1 - a^2.": (
                normal - np.log(1 - np.tanh(action) ** 2)
            ).sum(axis=1),
            "log N is that of the action itself; undo the tanh first.": (
                -0.5 * ((action - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi) - slope
            ).sum(axis=1),
        },
    )


@exercise("3.2")
def soft_target_by_hand(answer: Callable[..., np.ndarray]) -> None:
    """y = r + gamma (1 - d) (min(Q_1, Q_2) - alpha log pi)."""
    reward, terminated = np.array([1.0, 2.0]), np.array([0.0, 1.0])
    q1, q2, log_prob = np.array([4.0, 6.0]), np.array([5.0, 3.0]), np.array([-2.0, 1.0])
    expect(
        answer(reward, terminated, q1, q2, log_prob, 0.5, 0.9),
        [1 + 0.9 * 5.0, 2.0],
        "for r = [1, 2], terminated = [0, 1], Q1 = [4, 6], Q2 = [5, 3], log pi = [-2, 1], alpha = 0.5, gamma = 0.9",
        {
            "the entropy has the wrong sign: -log pi is paid for, not log pi.": [1 + 0.9 * 3.0, 2.0],
            "the entropy is missing.": [1 + 0.9 * 4.0, 2.0],
            "you took the larger of the two critics.": [1 + 0.9 * 6.0, 2.0],
            "the value of the next state counts although the episode terminated.": [1 + 0.9 * 5.0, 2 + 0.9 * 2.5],
            "the entropy of the next state is not discounted.": [1 + 0.9 * 4.0 + 1.0, 2.0],
        },
    )


@exercise("3.3")
def temperature_step(answer: Callable[..., float]) -> None:
    """log alpha <- log alpha + lr alpha mean(log pi + H)."""
    log_prob = np.array([0.5, 1.5, 2.5])
    expect(
        answer(np.log(2.0), log_prob, -1.0, 0.1),
        np.log(2.0) + 0.1 * 2.0 * 0.5,
        "for alpha = 2, log pi = [0.5, 1.5, 2.5], a target entropy of -1 and lr = 0.1",
        {
            "the sign: the policy is narrower than asked, so the temperature should rise.": np.log(2.0) - 0.1,
            "the chain rule: the derivative of alpha = exp(log alpha) is alpha.": np.log(2.0) + 0.1 * 0.5,
            "you returned alpha; the function should return its logarithm.": np.exp(np.log(2.0) + 0.1),
            "log pi is minus the entropy; you compared it with the target as if it were the entropy.": np.log(2.0)
            + 0.1 * 2.0 * 2.5,
        },
    )


@exercise("4.1")
def shift_picture(answer: Callable[..., np.ndarray]) -> None:
    """out[y, x] = picture[clip(y - dy), clip(x - dx)]."""
    picture = np.arange(20.0).reshape(4, 5)
    for dy, dx in ((0, 0), (1, 0), (0, -2), (-1, 2), (3, 4)):
        rows, columns = np.clip(np.arange(4) - dy, 0, 3), np.clip(np.arange(5) - dx, 0, 4)
        opposite = np.ix_(np.clip(np.arange(4) + dy, 0, 3), np.clip(np.arange(5) + dx, 0, 4))
        expect(
            answer(picture.copy(), dy, dx),
            picture[np.ix_(rows, columns)],
            f"for a picture of 4 × 5 shifted by dy = {dy}, dx = {dx}",
            {
                "the shift goes the wrong way: a positive dy moves the picture down.": picture[opposite],
                "what leaves the picture comes in at the other side; the edge should be repeated.": np.roll(
                    picture, (dy, dx), (0, 1)
                ),
            },
        )


@exercise("4.2")
def svea_loss(answer: Callable[..., float]) -> None:
    """(mean((q - y)^2) + mean((q_aug - y)^2)) / 2."""
    q, q_augmented, target = np.array([1.0, 2.0]), np.array([4.0, 2.0]), np.array([2.0, 4.0])
    plain, augmented = ((q - target) ** 2).mean(), ((q_augmented - target) ** 2).mean()
    expect(
        answer(q, q_augmented, target),
        (plain + augmented) / 2,
        "for q = [1, 2], q_augmented = [4, 2], target = [2, 4]",
        {
            "each of the two losses has the weight one half.": plain + augmented,
            "only the augmented pictures learn: the plain ones must too.": augmented,
            "only the plain pictures learn.": plain,
            "the values are averaged before the loss; each view should learn by itself.": (
                ((q + q_augmented) / 2 - target) ** 2
            ).mean(),
        },
    )


@exercise("4.3")
def composite(answer: Callable[..., np.ndarray]) -> None:
    """The background where the label is among the replaced ones."""
    rgb = np.full((3, 4, 3), 200, np.uint8)
    background = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    labels = np.array([[0, 0, 2, 0], [1, 3, 3, 1], [1, 1, 4, 1]], np.uint8)
    for replaced in ((0,), (0, 1)):
        mask = np.isin(labels, replaced)
        out = rgb.copy()
        out[mask] = background[mask]
        inverse = background.copy()
        inverse[mask] = rgb[mask]
        expect(
            answer(rgb.copy(), labels, background, replaced),
            out,
            f"for labels 0 to 4 of which {replaced} are replaced",
            {"you replaced the bodies and kept the background.": inverse},
        )


@exercise("5.1")
def guided_relu(answer: Callable[..., np.ndarray]) -> None:
    """Where the input was positive and the gradient from above is: the gradient; else 0."""
    x = np.array([2.0, 2.0, -1.0, -1.0, 0.5])
    above = np.array([3.0, -4.0, 5.0, -6.0, 7.0])
    expect(
        answer(x.copy(), above.copy()),
        np.where((x > 0) & (above > 0), above, 0.0),
        "for inputs x = [2, 2, -1, -1, 0.5] and gradients from above [3, -4, 5, -6, 7]",
        {
            "that is the plain gradient of a ReLU: negative gradients stop too.": np.where(x > 0, above, 0.0),
            "negative gradients stop, but so does everything where the input was negative.": np.maximum(above, 0.0),
            "you gave the ReLU's output, not the gradient.": np.maximum(x, 0.0),
        },
    )


@exercise("5.2")
def grad_cam_by_hand(answer: Callable[..., np.ndarray]) -> None:
    """ReLU of the sum over k of mean(slopes_k) maps_k."""
    maps = np.array([[[1.0, 2.0], [0.0, 4.0]], [[3.0, 0.0], [1.0, 1.0]]])
    slopes = np.array([[[1.0, -1.0], [2.0, 2.0]], [[-1.0, -3.0], [0.0, 0.0]]])
    weights = slopes.mean((1, 2), keepdims=True)
    expect(
        answer(maps.copy(), slopes.copy()),
        np.maximum((weights * maps).sum(0), 0.0),
        "for two maps of 2 × 2",
        {
            "what speaks against the answer is still there: the last step is a ReLU.": (weights * maps).sum(0),
            "each map has one weight, the mean of its slopes; you multiplied pixel by pixel.": np.maximum(
                (slopes * maps).sum(0), 0.0
            ),
            "the maps are added up, not averaged.": np.maximum((weights * maps).mean(0), 0.0),
        },
    )


@exercise("5.3")
def strongest(answer: Callable[..., np.ndarray]) -> None:
    """Exactly round((1 - rho) H W) pixels, none weaker than one that was left."""
    rng = np.random.default_rng(0)
    random, sparse = rng.permutation(40).reshape(5, 8).astype(float), np.zeros((5, 8))
    sparse[1, 3], sparse[4, 0] = 2.0, 1.0
    for name, attribution in (("a map of 40 different numbers", random), ("a map with two numbers above 0", sparse)):
        for rho in (0.9, 0.75):
            mask, kept, case = answer(attribution.copy(), rho), round((1 - rho) * 40), f"for {name} and rho = {rho}"
            if np.shape(mask) != (5, 8) or np.asarray(mask).dtype != bool:
                raise WrongAnswerError(f"{case}, your function should return a mask of shape (5, 8) and type bool.")
            if np.sum(mask) != kept:
                ties = " Are there pixels that tie with the quantile?" if name.endswith("above 0") else ""
                raise WrongAnswerError(f"{case}, {kept} pixels are asked, not {np.sum(mask)}.{ties}")
            if attribution[mask].min() < attribution[~mask].max():
                raise WrongAnswerError(f"{case}, a stronger pixel was left out.")


@exercise("6.1")
def paint_over(answer: Callable[..., np.ndarray]) -> None:
    """All frames as they are inside of the mask, and of one colour outside."""
    obs, colour = np.arange(1, 25, dtype=np.uint8).reshape(6, 2, 2), np.array([100, 150, 200], np.uint8)
    mask = np.array([[True, False], [False, True]])
    right = np.where(mask, obs, np.tile(colour, 2)[:, None, None])
    expect(
        answer(obs.copy(), mask.copy(), colour.copy()),
        right,
        "for two frames of 2 × 2",
        {
            "channels 0 to 2 are the first frame, 3 to 5 the second, and each has red, green and blue.": np.where(
                mask, obs, np.repeat(colour, 2)[:, None, None]
            ),
            "you painted over what is inside of the mask.": np.where(mask, np.tile(colour, 2)[:, None, None], obs),
            "what is outside of the mask is not black, it has the colour.": obs * mask,
        },
    )


@exercise("6.2")
def sgqn_loss(answer: Callable[..., float]) -> None:
    """mean((q - y)^2) + weight mean((q - q_masked)^2)."""
    q, q_masked, target = np.array([1.0, 2.0]), np.array([3.0, 2.0]), np.array([2.0, 5.0])
    bellman, consistency = ((q - target) ** 2).mean(), ((q - q_masked) ** 2).mean()
    expect(
        answer(q, q_masked, target, 0.5),
        bellman + 0.5 * consistency,
        "for q = [1, 2], q_masked = [3, 2], target = [2, 5], weight 0.5",
        {
            "the consistency loss is not weighted.": bellman + consistency,
            "the masked value should agree with the value, not with the target.": (
                bellman + 0.5 * ((q_masked - target) ** 2).mean()
            ),
            "only the consistency loss is there.": 0.5 * consistency,
        },
    )


@exercise("6.3")
def attribution_loss_by_hand(answer: Callable[..., float]) -> None:
    """-mean(m log p + (1 - m) log(1 - p)) with p = 1 / (1 + exp(-logit))."""
    logits, mask = np.array([[2.0, -1.0], [1.0, 3.0]]), np.array([[True, False], [True, False]])
    p = 1 / (1 + np.exp(-logits))
    loss = -np.where(mask, np.log(p), np.log(1 - p))
    expect(
        answer(logits.copy(), mask.copy()),
        loss.mean(),
        "for logits [[2, -1], [1, 3]] and the mask [[1, 0], [1, 0]]",
        {
            "that is the sum; the loss is the mean over pixels.": loss.sum(),
            "inside and outside of the mask are exchanged.": -np.where(mask, np.log(1 - p), np.log(p)).mean(),
            "only the pixels inside of the mask count.": -(mask * np.log(p)).mean(),
        },
    )


@exercise("7.1")
def move_picture(answer: Callable[..., np.ndarray]) -> None:
    """out[i, j] = sum over a, b of kernel[a, b] frame[i + a - r, j + b - r], the edge repeated."""
    rng = np.random.default_rng(0)
    frame = rng.random((4, 5))

    def applied(kernel: np.ndarray, mode: str) -> np.ndarray:
        k = len(kernel)
        padded = np.pad(frame, k // 2, mode=mode)
        return sum(kernel[a, b] * padded[a : a + 4, b : b + 5] for a in range(k) for b in range(k))

    for k in (3, 5):
        kernel = rng.random((k, k))
        expect(
            answer(frame.copy(), kernel.copy()),
            applied(kernel, "edge"),
            f"for a frame of 4 × 5 and a kernel of {k} × {k}",
            {
                "beyond the edge the frame is repeated; you took zeros, which darkens the border.": applied(
                    kernel, "constant"
                ),
                "the kernel is turned round: its entry on the right looks to the right.": applied(
                    kernel[::-1, ::-1], "edge"
                ),
            },
        )


@exercise("7.2")
def believe(answer: Callable[..., np.ndarray]) -> None:
    """sum over layers of softmax(logits) layers, in every pixel."""
    rng = np.random.default_rng(1)
    logits, layers = rng.normal(size=(3, 2, 2)), rng.random((3, 3, 2, 2))
    masks = np.exp(logits) / np.exp(logits).sum(axis=0)
    over_pixels = np.exp(logits) / np.exp(logits).sum((1, 2), keepdims=True)
    expect(
        answer(logits.copy(), layers.copy()),
        (masks[:, None] * layers).sum(axis=0),
        "for three layers of 2 × 2",
        {
            "the masks sum to 1 over the layers, in each pixel; yours do over the pixels.": (
                over_pixels[:, None] * layers
            ).sum(axis=0),
            "the layers are added up, not averaged.": (masks[:, None] * layers).mean(axis=0),
            "the logits are no masks yet: they go through a softmax.": (logits[:, None] * layers).sum(axis=0),
        },
    )


@exercise("7.3")
def psnr_where_it_moves(answer: Callable[..., float]) -> None:
    """10 log10(1 / MSE) over the pixels of which a colour changes by more than 0.1."""
    rng = np.random.default_rng(2)
    last, change = rng.uniform(0.4, 0.8, (3, 4, 4)), np.full((3, 4, 4), 0.02)
    change[:, 0], change[:, 3, 0] = 0.2, -0.2  # all colours of these pixels
    change[1, 1, 1:3], change[2, 2], change[0, 3, 3] = -0.35, -0.12, 0.15  # one colour of each of these
    truth = last + change
    forecast = np.clip(truth + 0.1 * rng.normal(size=truth.shape), 0, 1)
    where = (np.abs(change) > 0.1).any(axis=0)
    error = (forecast - truth) ** 2

    def score(mse: float) -> float:
        return 10 * np.log10(1 / mse)

    expect(
        answer(forecast.copy(), truth.copy(), last.copy()),
        score(error[:, where].mean()),
        "for a frame of 4 × 4",
        {
            "that is the whole frame; only the pixels count that change.": score(error.mean()),
            "those are the pixels that the forecast changes; what counts is what really changes.": score(
                error[:, (np.abs(forecast - last) > 0.1).any(axis=0)].mean()
            ),
            "ten times the logarithm to the base of ten, not the natural one.": 10 * np.log(1 / error[:, where].mean()),
            "a pixel that gets darker changes, too.": score(error[:, (change > 0.1).any(axis=0)].mean()),
            "one colour that changes is enough.": score(error[:, (np.abs(change) > 0.1).all(axis=0)].mean()),
            "one colour that changes is enough; you took their mean.": score(
                error[:, np.abs(change).mean(axis=0) > 0.1].mean()
            ),
            "all three colours of such a pixel count, not only the one that changes.": score(
                error[np.abs(change) > 0.1].mean()
            ),
        },
    )


@exercise("8.1")
def every_action_of_every_board(answer: Callable[..., tuple[np.ndarray, np.ndarray]]) -> None:
    """Boards repeated one by one, actions all together: b0 b0 b0 b1 b1 b1 with 0 1 2 0 1 2."""
    boards = np.arange(8).reshape(2, 2, 2)
    got = answer(boards.copy(), 3)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise WrongAnswerError("your function should return two arrays, boards (B A, H, W) and actions (B A,).")
    tiled, grouped = np.tile(boards, (3, 1, 1)), np.repeat(np.arange(3), 2)
    expect(
        got[0],
        np.repeat(boards, 3, axis=0),
        "for the boards of a batch of 2 and 3 actions",
        {"your order is b0 b1 b0 b1 ...; all actions of the first board come first, then those of the second.": tiled},
    )
    expect(
        got[1],
        np.tile(np.arange(3), 2),
        "for the actions of a batch of 2 and 3 actions",
        {"with your order a board meets the same action more than once; each is to meet every action.": grouped},
    )


@exercise("8.2")
def distil(answer: Callable[..., float]) -> None:
    """-mean over B of sum over a of softmax(logits) log softmax(student)."""
    logits, student = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]]), np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 3.0]])

    def softmax(x: np.ndarray) -> np.ndarray:
        return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)

    p, q = softmax(logits), softmax(student)
    right = -(p * np.log(q)).sum(axis=1).mean()
    expect(
        answer(logits.copy(), student.copy()),
        right,
        "for two states and three actions",
        {
            "the sign is turned round: the student would learn to do the opposite.": -right,
            "teacher and student are exchanged.": -(q * np.log(p)).sum(axis=1).mean(),
            "the teacher's logits are no probabilities yet.": -(logits * np.log(q)).sum(axis=1).mean(),
            "sum over the actions, and mean over the states only.": -(p * np.log(q)).mean(),
        },
    )


@exercise("8.3")
def advantages(answer: Callable[..., np.ndarray]) -> None:
    """A_t = delta_t + gamma lambda (1 - ended_t) A_{t+1}, delta_t = r_t + gamma (1 - ended_t) V_{t+1} - V_t."""
    reward, ended = np.array([0.0, 1.0, 0.0, 2.0]), np.array([0.0, 1.0, 0.0, 0.0])
    value = np.array([1.0, 0.5, 2.0, 1.0, 3.0])

    def backwards(ended: np.ndarray, trace: float) -> np.ndarray:
        later, out = 0.0, np.zeros(4)
        for t in reversed(range(4)):
            later = reward[t] - value[t] + (1 - ended[t]) * (0.9 * value[t + 1] + trace * later)
            out[t] = later
        return out

    expect(
        answer(reward.copy(), ended.copy(), value.copy(), 0.9, 0.8),
        backwards(ended, 0.9 * 0.8),
        "for four steps, gamma = 0.9 and lambda = 0.8",
        {
            "an episode ended on the way; what comes after it does not count.": backwards(0 * ended, 0.9 * 0.8),
            "later advantages count gamma times lambda, not lambda alone.": backwards(ended, 0.8),
            "later advantages are missing: that is lambda = 0.": backwards(ended, 0.0),
        },
    )


@exercise("9.1")
def predictive_target_by_hand(answer: Callable[..., float]) -> None:
    """r + gamma (1 - d) (V_1 / 2 + sum of V_2 to V_N over 2 (N - 1))."""
    values = np.array([2.0, 5.0, 8.0])

    def target(value: float) -> float:
        return 1.0 + 0.9 * value

    expect(
        answer(1.0, 0.9, 0.0, values.copy()),
        target(0.5 * 2.0 + 0.5 * 6.5),
        "for N = 3",
        {
            "the real next state has half of the say; your values all have the same.": target(5.0),
            "the predicted states share a half among them: each has 1 / (2 (N - 1)).": target(0.5 * 2.0 + 0.5 * 13.0),
            "that is SAC's target; what was predicted has no say in it.": target(2.0),
            "there is one discount, of one step, in front of all values.": 1.0
            + 0.9 * 0.5 * 2.0
            + (0.9**2 * 5.0 + 0.9**3 * 8.0) / 4,
        },
    )
    expect(
        answer(1.0, 0.9, 0.0, np.array([2.0, 5.0, 8.0, 4.0, 3.0])),
        target(0.5 * 2.0 + 0.5 * 5.0),
        "for N = 5",
        {
            "the predicted states have equal weights; yours halve from one to the next.": target(
                1.0 + 1.25 + 1.0 + 0.4375
            )
        },
    )
    expect(
        answer(1.0, 0.9, 1.0, values.copy()),
        1.0,
        "for a step that ended an episode",
        {"nothing comes after the end.": target(0.5 * 2.0 + 0.5 * 6.5)},
    )


@exercise("9.2")
def weights_of_equation_5(answer: Callable[..., list[float]]) -> None:
    """1/2, 1/4, ..., 1/2^N, and 1/2^N again."""
    for horizon in (3, 5):
        right = [0.5 ** (n + 1) for n in range(horizon)] + [0.5**horizon]
        expect(
            answer(horizon),
            right,
            f"for N = {horizon}",
            {
                "the last weight is as large as the one before; only then is the sum 1.": [
                    0.5 ** (n + 1) for n in range(horizon + 1)
                ],
            },
        )


@exercise("9.3")
def matched_discount(answer: Callable[..., float]) -> None:
    """gamma to the power of 1 / E[J], E[J] = 1/2 + (N + 2) / 4."""
    for horizon, jump in ((2, 1.5), (3, 1.75), (5, 2.25)):
        expect(
            answer(0.9, horizon),
            0.9 ** (1 / jump),
            f"for gamma = 0.9 and N = {horizon}",
            {
                "that is smaller than gamma; to see further is to discount less.": 0.9**jump,
                "the real next state has half of the weight, the others share the rest.": 0.9 ** (2 / (horizon + 1)),
            },
        )


@exercise("10.1")
def probability_of_improvement(answer: Callable[..., float]) -> None:
    """The share of pairs in which ours is higher, a tie counting half."""
    ours, theirs = np.array([3.0, 7.0]), np.array([3.0, 1.0, 9.0, 8.0])
    expect(
        answer(ours.copy(), theirs.copy()),
        3.5 / 8,
        "for [3, 7] against [3, 1, 9, 8]",
        {
            "a tie counts half, not nothing.": 3 / 8,
            "a tie counts half, not whole.": 4 / 8,
            "that is how often theirs is higher.": 4.5 / 8,
            "divide by the number of pairs, which is m n.": 3.5,
        },
    )
