"""CDNA: what its kernels and masks do, worked by hand, and the slips of well-known versions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pixelrl import cdna
from pixelrl.cdna import CDNA

SIZE = (16, 24)


def small_model(**changes: int) -> CDNA:
    torch.manual_seed(0)
    return CDNA(SIZE, 2, **{"width": 4, "n_kernels": 3, "lstm_kernel": 3, "dtype": torch.float32, **changes})


def small_batch(b: int = 2, length: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (b, length, 3, *SIZE), dtype=np.uint8)
    return torch.from_numpy(frames), torch.from_numpy(rng.uniform(-1, 1, (b, length - 1, 2)).astype(np.float32))


@pytest.mark.parametrize("k", [3, 5])
def test_kernels_equal_a_loop_over_samples_kernels_and_pixels(k: int) -> None:
    frame, kernels = torch.rand(2, 3, 6, 7), cdna.normalised(torch.randn(2, 4, k, k))
    padded = F.pad(frame, (k // 2,) * 4, mode="replicate")
    expected = torch.zeros(2, 4, 3, 6, 7)
    for b, m, c, y, x in np.ndindex(2, 4, 3, 6, 7):
        expected[b, m, c, y, x] = (padded[b, c, y : y + k, x : x + k] * kernels[b, m]).sum()
    torch.testing.assert_close(cdna.moved(frame, kernels), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("k", [5, 17])
def test_kernels_equal_grouped_convolution_and_so_do_their_gradients(k: int) -> None:
    """In float64: the frame's side is no multiple of 16, and a kernel is larger than half of it."""
    frame = torch.rand(3, 3, 14, 11, dtype=torch.float64, requires_grad=True)
    kernels = torch.rand(3, 4, k, k, dtype=torch.float64, requires_grad=True)

    def grouped(frame: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        padded = F.pad(frame, (k // 2,) * 4, mode="replicate").transpose(0, 1)
        return F.conv2d(padded, kernels.reshape(12, 1, k, k), groups=3).unflatten(1, (3, 4)).permute(1, 2, 0, 3, 4)

    slope = torch.randn(3, 4, 3, 14, 11, dtype=torch.float64)
    got, expected = cdna.moved(frame, kernels), grouped(frame, kernels)
    torch.testing.assert_close(got, expected)
    for a, b in zip(*(torch.autograd.grad(out, (frame, kernels), slope) for out in (got, expected)), strict=True):
        torch.testing.assert_close(a, b)


def test_a_shifted_delta_shifts_all_colours_alike_and_kernels_keep_their_order() -> None:
    """Kernel i shifts by its own amount; some versions mix the order of colours and kernels."""
    frame, shifts = torch.rand(2, 3, 9, 9), [(0, 0), (1, 0), (0, -2), (2, 2)]
    kernels = torch.zeros(2, len(shifts), 5, 5)
    for i, (dy, dx) in enumerate(shifts):
        kernels[:, i, 2 - dy, 2 - dx] = 1
    out = cdna.moved(frame, kernels)
    for i, (dy, dx) in enumerate(shifts):
        shifted = frame.roll((dy, dx), (2, 3))
        torch.testing.assert_close(out[:, i, :, 2:7, 2:7], shifted[:, :, 2:7, 2:7])


def test_a_kernel_of_nothing_copies_half_and_none_is_dead() -> None:
    raw = torch.zeros(1, 1, 5, 5)
    torch.testing.assert_close(cdna.normalised(raw)[0, 0, 2, 2].item(), 25 / 49)
    torch.testing.assert_close(cdna.normalised(raw)[0, 0, 0, 3].item(), 1 / 49)
    raw = torch.randn(4, 3, 5, 5, requires_grad=True)
    kernels = cdna.normalised(raw)
    assert (kernels > 0).all()
    torch.testing.assert_close(kernels.sum((-2, -1)), torch.ones(4, 3))
    (slope,) = torch.autograd.grad(kernels[..., 0].sum(), raw)
    assert (slope != 0).flatten(2).any(dim=2).all()


def test_a_flat_picture_stays_flat_up_to_its_edge() -> None:
    """Zeros around the picture would darken the edge."""
    kernels = cdna.normalised(torch.randn(2, 3, 9, 9))
    torch.testing.assert_close(cdna.moved(torch.full((2, 3, 8, 8), 0.7), kernels), torch.full((2, 3, 3, 8, 8), 0.7))


def test_a_memory_of_one_pixel_is_torchs_lstm() -> None:
    """Whose gates are the input, forget, candidate and output ones, in this order."""
    torch.manual_seed(0)
    memory, cell = cdna.ConvLSTM(3, 5, kernel_size=1), torch.nn.LSTMCell(3, 5)
    write, forget, show, new = memory.gates.weight[:, :, 0, 0].detach().chunk(4)
    biases = memory.gates.bias.detach().chunk(4)
    weight = torch.cat([write, forget, new, show])
    cell.weight_ih.data, cell.weight_hh.data = weight[:, :3], weight[:, 3:]
    cell.bias_ih.data, cell.bias_hh.data = torch.cat([biases[0], biases[1] + 1, biases[3], biases[2]]), torch.zeros(20)
    hidden = inside = torch.zeros(2, 5)
    state = torch.zeros(2, 5, 1, 1), torch.zeros(2, 5, 1, 1)
    for _ in range(4):
        x = torch.randn(2, 3)
        hidden, inside = cell(x, (hidden, inside))
        out, state = memory(x[..., None, None], state)
        torch.testing.assert_close(out[..., 0, 0], hidden)
        torch.testing.assert_close(state[1][..., 0, 0], inside)


def test_it_is_shown_how_a_frame_differs_from_the_scene_and_from_the_frame_before() -> None:
    model = small_model()
    model.scenery.data = torch.randn_like(model.scenery)
    frames, actions = small_batch()
    first, second = cdna.as_numbers(frames[:, 0]), cdna.as_numbers(frames[:, 1])
    shown = []
    model.down[0].register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    with torch.no_grad():
        state = model.watch(first, actions[:, 0], model.start(2))[2]
        model.watch(second, actions[:, 1], state)
    scene = model.scenery.detach().sigmoid()
    torch.testing.assert_close(shown[0], torch.cat([first - scene, 0 * first], dim=1))
    torch.testing.assert_close(shown[1], torch.cat([second - scene, second - first], dim=1))


def test_what_is_painted_begins_as_the_scene() -> None:
    model = small_model()
    model.scenery.data = torch.randn_like(model.scenery)
    frames, actions = small_batch()
    with torch.no_grad():
        model.paint.weight.zero_()
        model.paint.bias.zero_()
        painted = model(cdna.as_numbers(frames[:, 0]), actions[:, 0], model.start(2)).layers[1]
    torch.testing.assert_close(painted, model.scenery.detach().sigmoid().expand_as(painted))


def test_masks_sum_to_one_and_all_layers_are_used_and_learn() -> None:
    """M kernels, the last frame and what is painted: M + 2 layers. Some versions drop the last of them silently."""
    model = small_model()
    frames, actions = small_batch()
    frame = cdna.as_numbers(frames[:, 0])
    prediction = model(frame, actions[:, 0], model.start(2))
    assert prediction.masks.shape == (2, 5, *SIZE)
    assert [layer.shape for layer in prediction.layers] == [(2, 3, *SIZE)] * 5
    torch.testing.assert_close(prediction.masks.sum(dim=1), torch.ones(2, *SIZE))
    literal = sum(prediction.masks[:, i : i + 1] * prediction.layers[i] for i in range(5))
    torch.testing.assert_close(prediction.frame, literal)
    torch.testing.assert_close(prediction.layers[0], frame)
    slopes = torch.autograd.grad(prediction.frame.pow(2).sum(), [model.masks.weight, model.kernels[-1].weight])
    assert (slopes[0].flatten(1).abs().sum(dim=1) > 0).all()
    assert (slopes[1].unflatten(0, model.kernel_shape).abs().flatten(1).sum(dim=1) > 0).all()


def test_the_painted_layer_can_be_dark() -> None:
    """A ReLU before the sigmoid would leave it half bright at least."""
    model = small_model()
    frames, actions = small_batch()
    with torch.no_grad():
        model.paint.bias.fill_(-20)
        prediction = model(cdna.as_numbers(frames[:, 0]), actions[:, 0], model.start(2))
    assert prediction.layers[1].max() < 1e-3


def test_another_action_and_another_past_make_another_prediction() -> None:
    model = small_model()
    frames, actions = small_batch()
    first, second = cdna.as_numbers(frames[:, 0]), cdna.as_numbers(frames[:, 1])
    with torch.no_grad():
        state = model(first, actions[:, 0], model.start(2)).state
        usual = model(second, actions[:, 1], state).frame
        assert not torch.allclose(usual, model(second, -actions[:, 1], state).frame)
        assert not torch.allclose(usual, model(second, actions[:, 1], model.start(2)).frame)


def test_samples_of_a_batch_do_not_mix() -> None:
    model = small_model()
    frames, actions = small_batch(3)
    together = cdna.predict(model, frames[:, :2], actions)
    for b in range(3):
        alone = cdna.predict(model, frames[b : b + 1, :2], actions[b : b + 1])
        torch.testing.assert_close(together[b : b + 1], alone, rtol=0, atol=1e-5)


def test_a_forecast_is_the_model_fed_its_own_frames() -> None:
    model = small_model()
    frames, actions = small_batch()
    got = cdna.predict(model, frames[:, :2], actions)
    assert got.shape == (2, 3, 3, *SIZE)
    with torch.no_grad():
        one = model(cdna.as_numbers(frames[:, 0]), actions[:, 0], model.start(2))
        two = model(cdna.as_numbers(frames[:, 1]), actions[:, 1], one.state)
        three = model(two.frame, actions[:, 2], two.state)
        four = model(three.frame, actions[:, 3], three.state)
    torch.testing.assert_close(got, torch.stack([two.frame, three.frame, four.frame], dim=1))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_loss_is_the_squared_error_after_the_context(share: float) -> None:
    """With no true frames the model goes on from its own, with all of them it never does."""
    model = small_model()
    frames, actions = small_batch()
    loss = cdna.sequence_loss(model, frames, actions, 2, share)
    truth, state, errors = cdna.as_numbers(frames), model.start(2), []
    fed = truth[:, 0]
    with torch.no_grad():
        for t in range(4):
            prediction = model(fed, actions[:, t], state)
            state = prediction.state
            if t >= 1:
                errors.append(((prediction.frame - truth[:, t + 1]) ** 2).sum() / 2)
            fed = truth[:, t + 1] if t == 0 or share == 1 else prediction.frame
    assert loss.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)


def test_true_frames_become_rarer() -> None:
    assert cdna.true_share(0, 100) == pytest.approx(100 / 101)
    assert cdna.true_share(round(100 * np.log(100)), 100) == pytest.approx(0.5, abs=0.01)
    assert cdna.true_share(10**9, 100) < 1e-6
    shares = [cdna.true_share(n, 100) for n in range(0, 2000, 100)]
    assert shares == sorted(shares, reverse=True)


def test_it_learns_that_a_square_moves_with_the_action() -> None:
    """A square goes to the right for an action of 1 and stays for one of -1; after some updates the model knows."""
    torch.manual_seed(0)
    model = CDNA((16, 16), 1, width=4, n_kernels=4, lstm_kernel=3, dtype=torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    rng = np.random.default_rng(0)

    def films(b: int) -> tuple[torch.Tensor, torch.Tensor]:
        frames, actions = np.zeros((b, 4, 3, 16, 16), np.uint8), rng.choice([-1, 1], (b, 3, 1)).astype(np.float32)
        for film, acts in zip(frames, actions, strict=True):
            y, x = rng.integers(0, 8, 2)
            for t in range(4):
                film[t, :, y : y + 4, x : x + 4] = 255
                x += 2 * (t < 3 and acts[t, 0] > 0)
        return torch.from_numpy(frames), torch.from_numpy(actions)

    for _ in range(150):
        loss = cdna.sequence_loss(model, *films(16), context=1, share=1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    frames, actions = films(32)
    truth = cdna.as_numbers(frames)
    error = (cdna.predict(model, frames[:, :1], actions[:, :1])[:, 0] - truth[:, 1]).pow(2).mean()
    copied = (truth[:, 0] - truth[:, 1]).pow(2).mean()
    assert error < copied / 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CDNA((84, 84), 1), "multiples of 8"),
        (lambda: CDNA((64, 64), 1, kernel_size=4), "odd"),
        (lambda: small_model()(torch.rand(2, 3, 16, 16), torch.rand(2, 2), small_model().start(2)), "expected frames"),
        (lambda: small_model()(torch.rand(2, 3, *SIZE), torch.rand(2, 1), small_model().start(2)), "expected frames"),
        (lambda: cdna.sequence_loss(small_model(), *small_batch(2, 3), 3, 1.0), "too short for a context of 3"),
        (lambda: cdna.predict(small_model(), small_batch()[0], small_batch()[1][:, :4]), "at least 5 actions"),
    ],
)
def test_bad_input_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_frames_of_other_sizes_are_padded_and_cropped_again() -> None:
    frames = torch.arange(2 * 13 * 20).reshape(2, 1, 13, 20)
    large = cdna.padded(frames)
    assert large.shape == (2, 1, 16, 24)
    assert torch.equal(cdna.cropped(large, (13, 20)), frames)
    expected = F.pad(frames.double(), (2, 2, 1, 2), mode="replicate").long()
    assert torch.equal(large, expected)
    assert torch.equal(cdna.padded(large), large)
    model = small_model()
    frames, actions = small_batch()
    part = frames[:, :2, :, 1:-1, 2:]
    predicted = cdna.predict(model, cdna.padded(part), actions)
    assert torch.equal(cdna.predict(model, part, actions), predicted[..., 1:-1, 1:-1])
