"""Networks against their definitions."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pixelrl.nets import DuelingHead, Pixels, conv_encoder, mlp, q_network


def test_pixels_are_centred() -> None:
    numbers = Pixels()(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert numbers.dtype == torch.float32
    torch.testing.assert_close(numbers, torch.tensor([-0.5, -0.3, 0.5]))


def test_mlp_is_linear_maps_with_relu_between_and_after() -> None:
    net = mlp([3, 5, 2])
    x = torch.randn(4, 3)
    (w1, b1, w2, b2) = net.parameters()
    expected = ((x @ w1.T + b1).clamp(min=0) @ w2.T + b2).clamp(min=0)
    torch.testing.assert_close(net(x), expected)


def test_dueling_by_hand() -> None:
    head = DuelingHead(2, 3)
    with torch.no_grad():
        head.value.weight.copy_(torch.tensor([[1.0, 2.0]]))
        head.value.bias.fill_(0.5)
        head.advantage.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        head.advantage.bias.copy_(torch.tensor([0.0, 3.0, 0.0]))
    # Features (2, 1): V = 2 + 2 + 0.5 = 4.5, A = (2, 4, 3), its mean 3.
    # Features (0, -1): V = -2 + 0.5 = -1.5, A = (0, 2, -1), its mean 1/3.
    q = head(torch.tensor([[2.0, 1.0], [0.0, -1.0]]))
    torch.testing.assert_close(q, torch.tensor([[3.5, 5.5, 4.5], [-11 / 6, 1 / 6, -17 / 6]]))


def test_dueling_values_average_to_the_state_value() -> None:
    head = DuelingHead(7, 4)
    features = torch.randn(50, 7)
    torch.testing.assert_close(head(features).mean(dim=1), head.value(features).squeeze(1))


@pytest.mark.parametrize(("height", "width"), [(40, 100), (84, 84), (37, 53)])
def test_the_convolutions_are_those_of_the_first_dqn(height: int, width: int) -> None:
    encoder = conv_encoder(4, (16, 32))
    weights = list(encoder.parameters())
    assert [tuple(w.shape) for w in weights] == [(16, 4, 8, 8), (16,), (32, 16, 4, 4), (32,)]
    obs = torch.randint(0, 256, (2, 4, height, width), dtype=torch.uint8)
    hidden = F.conv2d(F.pad(obs / 255 - 0.5, (2, 2, 2, 2)), weights[0], weights[1], stride=4).relu()
    hidden = F.conv2d(F.pad(hidden, (1, 1, 1, 1)), weights[2], weights[3], stride=2).relu()
    torch.testing.assert_close(encoder(obs), hidden.flatten(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", [nn.Linear, DuelingHead])
def test_q_network_for_states_and_pixels(head: type[nn.Module]) -> None:
    states = q_network((4,), 2, hidden=(8, 8), head=head)
    assert states(torch.randn(5, 4)).shape == (5, 2)
    pixels = q_network((4, 84, 84), 6, hidden=(8,), channels=(2, 3), head=head)
    q = pixels(torch.randint(0, 256, (5, 4, 84, 84), dtype=torch.uint8))
    assert q.shape == (5, 6)
    assert q.dtype == torch.float32
    assert isinstance(pixels[-1], head)
