"""Augmentations, each against what it is said to do, worked out another way."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pixelrl import augment
from pixelrl.envs import videos
from pixelrl.nets import channels_last

AUGMENTATIONS = {
    "shift": augment.random_shift,
    "overlay": lambda obs: augment.random_overlay(obs, augment.overlay_pictures(16, obs.shape[1:], 0)),
    "convolution": augment.random_convolution,
    "jitter": augment.colour_jitter,
}


@pytest.fixture
def obs() -> torch.Tensor:
    """(6, 9, 20, 24) uint8."""
    return torch.randint(0, 256, (6, 9, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_type_shape_and_original_stay_and_each_observation_gets_its_own(name: str, obs: torch.Tensor) -> None:
    same = obs[:1].expand(64, -1, -1, -1)
    before = same.clone()
    out = AUGMENTATIONS[name](same)
    assert (out.shape, out.dtype) == (same.shape, torch.uint8)
    torch.testing.assert_close(same, before)
    assert len(torch.unique(out.reshape(64, -1), dim=0)) > 10


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_all_frames_of_a_stack_are_changed_alike(name: str, obs: torch.Tensor) -> None:
    still = obs[:, :3].repeat(1, 3, 1, 1)
    first, second, third = AUGMENTATIONS[name](still).split(3, dim=1)
    torch.testing.assert_close(first, second, atol=1, rtol=0)
    torch.testing.assert_close(first, third, atol=1, rtol=0)


def test_a_shift_is_a_crop_of_the_padded_picture(obs: torch.Tensor) -> None:
    shifted = augment.random_shift(obs, pad=4)
    padded = F.pad(obs.float(), (4, 4, 4, 4), mode="replicate").to(torch.uint8)
    windows = padded.unfold(2, 20, 1).unfold(3, 24, 1)  # (B, C, 9, 9, H, W)
    for one, candidates in zip(shifted, windows, strict=True):
        assert sum((one == candidates[:, dy, dx]).all() for dy in range(9) for dx in range(9)) == 1


def test_every_shift_comes_about_equally_often() -> None:
    ramp = (10 * torch.arange(20)[:, None] + torch.arange(20)).to(torch.uint8).expand(8_000, 3, 20, 20)
    corner = augment.random_shift(ramp, pad=1)[:, 0, 10, 10]
    values, counts = torch.unique(corner, return_counts=True)
    assert len(values) == 9
    assert counts.min() > 8_000 / 9 * 0.85


def test_the_processors_shift_and_the_cards_are_one(obs: torch.Tensor) -> None:
    pictures, shift = channels_last(obs).permute(0, 2, 3, 1), torch.randint(-4, 5, (2, 6))
    torch.testing.assert_close(augment.shift_each(pictures, shift), augment.shift_by_index(pictures, shift))


def test_the_memory_formats_hold_the_same_numbers(obs: torch.Tensor) -> None:
    last = channels_last(obs)
    torch.testing.assert_close(last, obs)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert augment.random_shift(obs).is_contiguous(memory_format=torch.channels_last)


def test_an_overlay_is_half_of_each(obs: torch.Tensor) -> None:
    pictures = torch.full((1, 9, 20, 24), 101, dtype=torch.uint8)
    expected = (obs.float() / 2).floor() + 50
    torch.testing.assert_close(augment.random_overlay(obs, pictures).float(), expected)


def test_an_overlay_is_the_same_for_every_frame_of_a_stack_and_another_for_every_observation() -> None:
    black = torch.zeros(8, 9, 20, 24, dtype=torch.uint8)
    out = augment.random_overlay(black, augment.overlay_pictures(1_000, (9, 20, 24), 0)).reshape(8, 3, 3, 20, 24)
    assert (out == out[:, :1]).all()
    assert len(torch.unique(out[:, 0].flatten(1), dim=0)) == 8


def test_no_overlaid_picture_is_a_background_of_the_video_modes() -> None:
    canvases = [videos.Procedural().open(k).canvas for k in range(videos.COUNT)]
    rng = np.random.default_rng([0, 12])
    ours = [videos.canvas(rng) for _ in range(32)]
    assert not any(np.array_equal(a, b) for a in ours for b in canvases)


def test_a_convolution_is_one_filter_an_observation(obs: torch.Tensor) -> None:
    flat = torch.full((4, 3, 8, 8), 128, dtype=torch.uint8)  # of one colour, and so it stays
    out = augment.random_convolution(flat)
    assert (out == out[:, :, :1, :1]).all()
    assert len(torch.unique(out[:, :, 0, 0], dim=0)) == 4


def test_jitter_of_no_strength_changes_nothing_and_grey_keeps_its_hue(obs: torch.Tensor) -> None:
    torch.testing.assert_close(augment.colour_jitter(obs, strength=0.0), obs, atol=1, rtol=0)
    grey = torch.arange(0, 240, 5, dtype=torch.uint8).repeat(3, 1).reshape(1, 3, 6, 8).repeat(50, 1, 1, 1)
    out = augment.colour_jitter(grey).float()
    assert (out.amax(dim=1) - out.amin(dim=1)).max() <= 3


def test_jitter_changes_brightness_contrast_and_saturation_by_up_to_its_strength() -> None:
    """A picture of two greys and of a red of their mean grey, which no change of contrast can move away from it."""
    red = np.array([140.0, 58.0, 80.0])
    red += 80 - red @ [0.299, 0.587, 0.114]
    picture = torch.tensor(np.stack([[60.0] * 3, [100.0] * 3, red, red]).T.reshape(1, 3, 2, 2)).round().to(torch.uint8)
    dark, light, coloured, _ = augment.colour_jitter(picture.repeat(2_000, 1, 1, 1)).float().flatten(2).unbind(2)
    brightness = (dark + light).mean(dim=1) / 160
    contrast = (light - dark).mean(dim=1) / 40 / brightness
    luma, *chroma = np.array([colorsys.rgb_to_yiq(*(colour / 255).tolist()) for colour in coloured]).T
    usual, *usual_chroma = colorsys.rgb_to_yiq(*(red / 255))
    saturation = np.hypot(*chroma) / luma / (np.hypot(*usual_chroma) / usual) / contrast.numpy()
    for name, change in {"brightness": brightness, "contrast": contrast, "saturation": saturation}.items():
        assert float(change.min()) == pytest.approx(0.6, abs=0.06), name
        assert float(change.max()) == pytest.approx(1.4, abs=0.08), name


def test_jitter_turns_the_hue() -> None:
    red = torch.tensor([180, 60, 60], dtype=torch.uint8).reshape(1, 3, 1, 1).repeat(500, 1, 2, 2)
    colours = augment.colour_jitter(red, strength=0.3)[:, :, 0, 0].float() / 255
    turned = np.array([np.arctan2(*colorsys.rgb_to_yiq(*colour.tolist())[:0:-1]) for colour in colours])
    turned -= np.arctan2(*colorsys.rgb_to_yiq(180, 60, 60)[:0:-1])
    assert np.abs(turned).max() == pytest.approx(0.3 * np.pi, abs=0.08)
    assert np.abs(turned.mean()) < 0.08
