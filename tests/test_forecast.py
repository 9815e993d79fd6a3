"""Scores of predicted videos beside torchmetrics and by hand, the films they are made of, and a training of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from pixelrl import checkpoint, envs, footage, forecast, predictor, presets, runs
from pixelrl.footage import Film
from pixelrl.replay import Replay, UniformSampler
from pixelrl.train import train

QUICK = presets.get("cdna", "quick")


@pytest.fixture(scope="module")
def films() -> list[Film]:
    return footage.collect(QUICK.env_kwargs, 8, 6, seed=0)


def test_films_repeat_and_differ_and_their_policies_act_as_they_should(films: list[Film]) -> None:
    again = footage.collect(QUICK.env_kwargs, 2, 6, seed=0)
    for one, other in zip(films, again, strict=False):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert films[0].frames.shape == (7, 3, 32, 32)
    assert films[0].actions.shape == (6, 1)
    assert films[0].poses.shape == (7, 2)
    assert len({film.actions.tobytes() for film in films}) == 8
    hanging, upright = films[4].poses[0, 1], films[5].poses[0, 1]
    assert np.cos(hanging) < -0.9  # swing-up begins below, balance above
    assert np.cos(upright) > 0.9


def test_the_frame_shows_the_pose(films: list[Film]) -> None:
    """Frame t is drawn at pose t: an error of one would make actions look as if they had no effect."""
    env = envs.make(QUICK.env, **{**QUICK.env_kwargs, "stack": 1})
    moved = max(films, key=lambda film: np.ptp(film.poses[:, 0]))
    poses = forecast.Poses(env, np.linspace(-1.9, 1.9, 39), np.arange(-np.pi, np.pi, np.pi / 18))
    found = poses.read(torch.from_numpy(moved.frames).float() / 255)
    assert np.abs(found[:, 0] - moved.poses[:, 0]).max() < 0.11
    assert forecast.angle_error(found[:, 1], moved.poses[:, 1]).max() < 0.3
    faint = 0.8 * poses.scene.reshape(moved.frames[0].shape) + 0.2 * torch.from_numpy(moved.frames).float() / 255
    np.testing.assert_array_equal(poses.read(faint), found)


class Written:
    """Stands for a reader of poses: of pixel 0 the cart, of pixel 1 the angle; what is dark is out of sight."""

    def read(self, frames: torch.Tensor) -> np.ndarray:
        return frames[..., 0, 0, :2].numpy()

    def in_sight(self, frames: torch.Tensor, poses: np.ndarray) -> np.ndarray:
        return frames[..., 0, 0, 0].numpy() > 0


def test_errors_of_the_pose_count_where_the_pole_is_in_sight() -> None:
    """Two pieces of a context of two and a horizon of two; the second is dark in its last frame."""
    frames = torch.full((2, 4, 3, 16, 16), 102, dtype=torch.uint8)
    frames[1, 3] = 0
    pieces = footage.Windows(frames, torch.zeros(2, 3, 1), np.full((2, 4, 2), 0.4))
    guess = torch.full((2, 2, 3, 16, 16), 0.5)
    guess[1] = 0.7
    table = forecast.compare({"guess": guess}, pieces, 2, Written())
    np.testing.assert_allclose(table.angle_error, [0.2, 0.1], atol=1e-6)
    np.testing.assert_allclose(table.cart_error, [0.2, 0.1], atol=1e-6)
    frames[0, 0] = 0  # and now a piece of which the past is not all in sight
    table = forecast.compare({"guess": guess}, pieces, 2, Written())
    assert table.angle_error[0] == pytest.approx(0.3, abs=1e-6)
    assert np.isnan(table.angle_error[1])


def test_scores_are_of_what_moved_since_the_last_frame_seen() -> None:
    """One pixel of 256 turns white after the context; what was white at first, and is dark since, does not count."""
    frames = torch.zeros(1, 4, 3, 16, 16, dtype=torch.uint8)
    frames[0, 0] = 255
    frames[0, 2:, :, 0, 0] = 255
    guess = torch.zeros(1, 2, 3, 16, 16)
    guess[:, :, :, 0, 0] = 0.9
    table = forecast.compare({"guess": guess}, footage.Windows(frames, torch.zeros(1, 3, 1), np.zeros((1, 4, 2))), 2)
    np.testing.assert_allclose(table.moving_psnr, [20, 20], atol=1e-3)
    np.testing.assert_allclose(table.psnr, 2 * [20 + 10 * np.log10(256)], atol=1e-2)


def test_films_are_played_by_all_in_turn_with_their_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    played = []

    def agent_policy(agent: Any, rng: np.random.Generator, noise: float) -> Any:
        played.append((agent, noise))
        return lambda obs: np.zeros(1, np.float32)

    monkeypatch.setattr(footage, "agent_policy", agent_policy)
    monkeypatch.setattr(runs, "load", lambda name: [SimpleNamespace(agent=lambda: name)])
    footage.collect(QUICK.env_kwargs, 8, 1, seed=0)
    assert played == [(name, noise) for name, noise in footage.FILMED[1:] for _ in footage.TASKS]


def test_a_buffer_gives_back_pieces_of_films(films: list[Film]) -> None:
    replay = predictor.build_buffer(films, QUICK, 1, torch.device("cpu"))
    frames, actions = replay.sample_sequences(20, 4)
    assert frames.shape == (20, 4, 3, 32, 32)
    assert actions.shape == (20, 3, 1)
    pieces = {(film.frames[t : t + 4].tobytes(), film.actions[t : t + 3].tobytes()) for film in films for t in range(4)}
    drawn = {(f.numpy().tobytes(), a.numpy().tobytes()) for f, a in zip(frames, actions, strict=True)}
    assert drawn <= pieces
    assert len(replay.sequence_starts(7)) == 8
    with pytest.raises(RuntimeError, match="no episode of 8 frames"):
        replay.sample_sequences(1, 8)


def test_sequences_never_cross_the_seam_of_a_full_buffer() -> None:
    """A ring of 10 slots, into which 16 were written: no sequence holds a new frame before an old one."""
    box = gym.spaces.Box(0, 255, (3, 1, 1), np.uint8)
    replay = Replay(10, box, gym.spaces.Discrete(2), UniformSampler(10, np.random.default_rng(0)))
    for number in range(16):
        obs = np.full((3, 1, 1), number, np.uint8)
        if number in (0, 8):
            replay.start(obs)
        else:
            replay.add(0, 0.0, False, obs)
    frames, _ = replay.sample_sequences(200, 3)
    first = frames[:, 0, 0, 0, 0].int()
    assert (frames[:, :, 0, 0, 0].int() == first[:, None] + torch.arange(3)).all()
    assert set(first.tolist()) == {8, 9, 10, 11, 12, 13}


def test_scores_equal_torchmetrics_frame_by_frame() -> None:
    torch.manual_seed(0)
    truth = torch.rand(2, 3, 3, 16, 16)
    guess = (truth + 0.1 * torch.randn_like(truth)).clamp(0, 1)
    guess[0, 0] = truth[0, 0]
    got, similar = forecast.psnr(guess, truth), forecast.ssim(guess, truth)
    ratio, index = PeakSignalNoiseRatio(data_range=1.0), StructuralSimilarityIndexMeasure(data_range=1.0)
    for b, t in np.ndindex(2, 3):
        expected = min(float(ratio(guess[b, t], truth[b, t])), forecast.BEST_PSNR)
        assert got[b, t].item() == pytest.approx(expected, abs=1e-3)
        assert similar[b, t].item() == pytest.approx(float(index(guess[b, t][None], truth[b, t][None])), abs=1e-5)


def test_moving_pixels_are_those_that_change_and_only_they_count() -> None:
    last, truth = torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 3, 4, 4)
    truth[0, 0, 1, 2, 3] = 0.5
    truth[0, 1, 0, 0, 0] = 0.05
    where = forecast.moving(last, truth)
    assert where[0, 0].nonzero().tolist() == [[2, 3]]
    guess = truth + 0.3
    guess[0, 0, :, 2, 3] = torch.tensor([0.0, 0.4, 0.0])
    score = forecast.moving_psnr(guess, truth, where)
    assert score[0, 0].item() == pytest.approx(-10 * np.log10(0.1**2 / 3), abs=1e-4)
    assert torch.isnan(score[0, 1])


def test_baselines_by_hand() -> None:
    seen = torch.zeros(1, 2, 3, 1, 2)
    seen[0, 1] = torch.tensor([0.2, 0.6])
    picture = torch.full((3, 1, 2), 0.9)
    made = forecast.baselines(seen, picture, 2)
    torch.testing.assert_close(made["copy last"][0, :, 0, 0], torch.tensor([[0.2, 0.6], [0.2, 0.6]]))
    torch.testing.assert_close(made["extrapolate"][0, :, 0, 0], torch.tensor([[0.4, 1.0], [0.6, 1.0]]))
    assert (made["background"] == 0.9).all()
    with pytest.raises(ValueError, match="two frames"):
        forecast.extrapolated(seen[:, :1], 2)


def test_the_background_is_the_scene_without_what_passes_through() -> None:
    frames = np.full((9, 3, 2, 9), 100, np.uint8)
    for t in range(9):
        frames[t, :, :, t] = 255
    film = Film(frames, np.zeros((8, 1), np.float32), np.zeros((9, 2)))
    torch.testing.assert_close(forecast.background([film]), torch.full((3, 2, 9), 100 / 255))


def test_angles_are_apart_the_short_way_round() -> None:
    got = forecast.angle_error(np.array([3.0, -3.0, 0.5]), np.array([-3.0, 3.0, 6.5]))
    np.testing.assert_allclose(got, [2 * np.pi - 6, 2 * np.pi - 6, 2 * np.pi - 6], atol=1e-9)


def test_windows_lie_end_to_end(films: list[Film]) -> None:
    pieces = footage.windows(films, 3)
    assert pieces.frames.shape == (16, 3, 3, 32, 32)
    assert pieces.actions.shape == (16, 2, 1)
    np.testing.assert_array_equal(pieces.frames[1].numpy(), films[0].frames[3:6])
    np.testing.assert_array_equal(pieces.poses[1], films[0].poses[3:6])
    with pytest.raises(ValueError, match="no film has 8 frames; the longest has 7"):
        footage.windows(films, 8)


def test_a_model_is_told_the_actions_and_others_and_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = footage.Windows(torch.zeros(5, 6, 3, 8, 8), torch.arange(1.0, 26).reshape(5, 5, 1), np.zeros((5, 6, 2)))
    monkeypatch.setattr(forecast, "predict", lambda model, seen, actions: actions)
    told = forecast.learned(None, pieces, context=3)
    assert torch.equal(told["CDNA"], pieces.actions)
    for name in ("CDNA, other actions", "CDNA, no action"):
        assert torch.equal(told[name][:, :2], pieces.actions[:, :2])  # what was done in the context stays
    assert told["CDNA, no action"][:, 2:].abs().max() == 0
    others = told["CDNA, other actions"][:, 2:]
    assert (others != pieces.actions[:, 2:]).flatten(1).any(dim=1).all()  # of no piece its own
    assert {tuple(row.flatten().tolist()) for row in others} == {
        tuple(x.flatten().tolist()) for x in pieces.actions[:, 2:]
    }


@pytest.mark.parametrize("method", ["cdna", "cdna-48"])
def test_by_their_stored_scores_predictors_beat_what_is_simple_and_listen_to_actions(method: str) -> None:
    for run in runs.load(method):
        table = pd.DataFrame(run.meta["forecast"]).set_index("method")
        ours = table.loc["CDNA"]
        for other in ("copy last", "extrapolate", "background"):
            assert (ours["psnr"].to_numpy() > table.loc[other, "psnr"].to_numpy()).all(), other
            assert (ours["moving_psnr"].to_numpy() > table.loc[other, "moving_psnr"].to_numpy()).all(), other
        for deaf in ("CDNA, other actions", "CDNA, no action"):
            assert ours["moving_psnr"].iloc[-1] > table.loc[deaf, "moving_psnr"].iloc[-1] + 0.3, deaf


@pytest.mark.parametrize("method", ["cdna", "cdna-48"])
def test_a_stored_network_foresees_a_film_of_today_and_listens(method: str) -> None:
    stored = runs.load(method)
    networks = [predictor.load_model(run) for run in stored]
    shot = footage.windows(footage.collect(stored[0].config.env_kwargs, 4, 8, seed=91), 6)
    forecasts = forecast.learned(networks[0], shot, 3)
    forecasts["copy last"] = forecast.copy_last(shot.frames[:, :3].float() / 255, 3)
    scores = forecast.compare(forecasts, shot, 3).groupby("method")["moving_psnr"].mean()
    assert scores["CDNA"] > scores["copy last"] + 2
    assert not torch.equal(forecasts["CDNA"], forecasts["CDNA, no action"])


def test_frames_are_true_ones_as_often_as_the_schedule_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "CARTS", np.linspace(-1.9, 1.9, 5))
    shares, sequence_loss = [], predictor.sequence_loss

    def spied(model: Any, frames: torch.Tensor, actions: torch.Tensor, context: int, share: float) -> torch.Tensor:
        shares.append(share)
        return sequence_loss(model, frames, actions, context, share)

    monkeypatch.setattr(predictor, "sequence_loss", spied)
    training = predictor.PredictorTraining(replace(QUICK, pace=2.0))
    torch.testing.assert_close(training.model.scenery.detach().sigmoid(), training.background.clamp(0.01, 0.99))
    for _ in range(3):
        training.advance()
    np.testing.assert_allclose(shares, [2 / (2 + np.exp(update / 2)) for update in range(3)])


def test_a_resumed_training_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "CARTS", np.linspace(-1.9, 1.9, 5))  # reading poses is not what is tested
    unbroken = train(QUICK, tmp_path / "unbroken")
    broken = predictor.PredictorTraining(QUICK)
    for _ in range(3):
        broken.advance()
        if broken.step == 2:
            broken.add_row()
    checkpoint.save(tmp_path / "broken", broken.step, broken.state_dict())
    torch.manual_seed(99)
    resumed = train(QUICK, tmp_path / "broken")
    for name, tensor in unbroken.policy.items():
        assert torch.equal(tensor, resumed.policy[name]), name
    scores = [name for name in unbroken.curve.columns if name != "seconds"]
    assert unbroken.curve[scores].equals(resumed.curve[scores])
    assert unbroken.meta["forecast"] == resumed.meta["forecast"]

    model = predictor.load_model(runs.read(tmp_path / "unbroken"))
    pieces = footage.windows(footage.collect(QUICK.env_kwargs, 1, 6, seed=1), 6)
    table = forecast.compare(forecast.learned(model, pieces, 3), pieces, 3)
    assert table.horizon.tolist() == 3 * [1, 2, 3]
    assert "psnr_1" in unbroken.summary()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 3}, "longer than its context"),
        ({"kernel_size": 4}, "odd"),
        ({"film_steps": 3}, "do not fit"),
        ({"width": 0}, "at least 1"),
        ({"context": 1}, "cannot be seen in a single frame"),
        ({"lr": 0.0}, "positive"),
        ({"gamma": 0.9}, "no field gamma"),
    ],
)
def test_numbers_out_of_range_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        presets.get("cdna", "quick", **changes)
