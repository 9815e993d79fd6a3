"""Scores of saliency maps, worked by hand, and against an answer of which all is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pixelrl import envs, presets, saliency, scores
from pixelrl.agents import build_agent
from pixelrl.evaluate import play

TRUTH = torch.zeros(1, 3, 4, dtype=torch.bool)
TRUTH[0, 1, 1:3] = True  # two of twelve pixels


def test_shares_worked_by_hand() -> None:
    maps = torch.zeros(1, 3, 4)
    maps[0, 1, 1], maps[0, 0, 0], maps[0, 2, 3] = 3.0, 1.0, 2.0
    assert scores.share_on(maps, TRUTH).tolist() == [0.5]
    assert scores.share_on(maps > 0, TRUTH).item() == pytest.approx(1 / 3)
    assert scores.iou(maps > 0, TRUTH).item() == pytest.approx(1 / 4)
    assert scores.pointing(maps, TRUTH).tolist() == [1.0]
    maps[0, 2, 3] = 4.0
    assert scores.pointing(maps, TRUTH).tolist() == [0.0]


def test_empty_maps_score_nothing() -> None:
    empty = torch.zeros(1, 3, 4)
    assert scores.share_on(empty, TRUTH).tolist() == [0.0]
    assert scores.iou(empty > 0, TRUTH).tolist() == [0.0]
    assert scores.iou(empty > 0, empty > 0).tolist() == [1.0]


def test_random_masks_hit_by_their_area() -> None:
    obs = torch.zeros(40, 9, 30, 30)
    truth = torch.zeros(40, 30, 30, dtype=torch.bool)
    truth[:, :6] = True
    mask = saliency.top_pixels(scores.random_maps(obs, 0), 0.9)[:, -1]
    assert scores.share_on(mask, truth).mean().item() == pytest.approx(0.2, abs=0.02)


def linear(weight: torch.Tensor) -> saliency.Answer:
    """An answer of which each pixel's part is known: the sum of weight times pixel."""
    return lambda obs: (obs * weight).sum((1, 2, 3))


def test_deletion_and_insertion_of_a_linear_answer() -> None:
    """Of k pixels of weight 1, each 1 above the mean colour, the answer falls by 1 for each that is removed."""
    weight = torch.zeros(1, 6, 20, 20)
    weight[0, 0, :4, :4] = 1.0  # 16 of 400 pixels, in the red of the first of two frames
    obs = weight.clone()
    obs[0, 3] = -16 / 400  # the red of the other frame makes the mean 0
    maps = torch.stack([weight[0, 0], torch.zeros(20, 20)])[None]
    areas = np.array(scores.AREAS)
    removed = np.minimum(np.round(areas * 400), 16)
    expected = np.trapezoid(removed, areas) / areas[-1]
    assert scores.deletion(linear(weight), obs, maps).item() == pytest.approx(expected, rel=1e-5)
    expected = np.trapezoid(16 - removed, areas) / areas[-1]
    assert scores.insertion(linear(weight), obs, maps).item() == pytest.approx(expected, rel=1e-5)


def test_the_true_map_beats_chance_and_its_opposite() -> None:
    torch.manual_seed(0)
    weight = torch.rand(1, 9, 16, 16) ** 8
    obs = torch.rand(5, 9, 16, 16) / 2 + (weight > 0.1) / 2  # what has weight is bright
    true = saliency.by_frame(weight * obs)
    for better, worse in ((true, scores.random_maps(obs, 1)), (scores.random_maps(obs, 1), -true)):
        assert (scores.deletion(linear(weight), obs, better) > scores.deletion(linear(weight), obs, worse)).all()
        assert (scores.insertion(linear(weight), obs, better) < scores.insertion(linear(weight), obs, worse)).all()


def test_the_mean_colour_is_one_for_all_frames_of_a_stack() -> None:
    obs = torch.rand(2, 6, 4, 5)
    expected = torch.stack([(obs[:, i] + obs[:, 3 + i]).mean((1, 2)) / 2 for i in range(3)], dim=1)
    torch.testing.assert_close(scores.mean_colour(obs), expected.repeat(1, 2)[..., None, None])


def test_frame_differences_show_what_moved() -> None:
    obs = torch.zeros(1, 9, 5, 5, dtype=torch.uint8)
    obs[0, 3:6, 2, 2] = 7  # in the second frame only
    obs[0, 4, 2, 2] = 11
    expected = torch.zeros(1, 3, 5, 5)
    expected[0, :, 2, 2] = 11
    torch.testing.assert_close(scores.frame_differences(obs), expected)
    with pytest.raises(ValueError, match="two frames"):
        scores.frame_differences(obs[:, :3])


def test_layers_are_shuffled_from_the_output_down_and_the_agent_stays() -> None:
    config = presets.get("sac", "quick")
    agent = build_agent(config, envs.make(config.env, **config.env_kwargs))
    before = [x.clone() for x in agent.encoder.parameters()]
    n_layers = len([x for x in nn.ModuleList([agent.encoder, agent.critic]).modules() if list(x.parameters(False))])
    changed = []
    names = []
    for name, other in scores.randomised(agent, [agent.encoder, agent.critic], seed=0):
        names.append(name)
        first = next(iter(other.encoder.parameters()))
        last = list(other.critic.parameters())[-2]
        changed.append((not torch.equal(last, list(agent.critic.parameters())[-2]), not torch.equal(first, before[0])))
    assert len(changed) == n_layers + 1
    assert changed[0] == (False, False)
    assert changed[1] == (True, False)
    assert changed[-2][1] is False
    assert changed[-1] == (True, True)
    assert names[0] == "none"
    assert names[-1] == "1 MotionConv"
    for old, new in zip(before, agent.encoder.parameters(), strict=True):
        torch.testing.assert_close(old, new, rtol=0, atol=0)


def test_rank_correlation_is_blind_to_scale_and_sees_order() -> None:
    maps = torch.rand(2, 3, 8, 8)
    assert scores.rank_correlation(maps, 5 * maps**3).tolist() == pytest.approx([1.0, 1.0])
    assert scores.rank_correlation(maps, -maps).tolist() == pytest.approx([-1.0, -1.0])


def test_maps_and_pixels_that_do_not_belong_together_are_refused() -> None:
    for maps, truth in ((torch.zeros(1, 3, 4), TRUTH.float()), (torch.zeros(1, 4, 4), TRUTH)):
        with pytest.raises(ValueError, match="expected maps"):
            scores.share_on(maps, truth)


def test_an_episode_tells_the_true_pixels() -> None:
    config = presets.get("sac", "quick")
    agent = build_agent(config, envs.make(config.env, **config.env_kwargs))
    env = envs.make(config.env, **config.env_kwargs, labels=True, render_mode="rgb_array")
    episode = play(agent, env, seed=3, max_steps=6)
    truth = scores.moving_bodies(episode.labels)
    assert truth.shape == (6, *config.env_kwargs["size"])
    orange = episode.obs[:, -3].astype(int) - episode.obs[:, -1] > 60  # of the newest frame: much red, little blue
    assert (truth.numpy() & orange).sum() / orange.sum() > 0.95
    assert play(agent, envs.make(config.env, **config.env_kwargs, render_mode="rgb_array"), 3, 2).labels is None
