"""Training a video predictor on films, in steps that can be interrupted like those of an agent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import torch

from pixelrl import envs, forecast, runs
from pixelrl.cdna import CDNA, as_numbers, padded, padded_size, predict, sequence_loss, true_share
from pixelrl.configs import CDNAConfig
from pixelrl.cuda import chosen_device, randomness_kept
from pixelrl.fitting import Fitting
from pixelrl.footage import Film, collect, fill, windows
from pixelrl.replay import Replay, UniformSampler

FILM_SEED = 40_000  # all predictors see the same films
CARTS = np.linspace(-1.9, 1.9, 77)  # m, between which a cart's place is read from a frame
ANGLES = np.arange(-np.pi, np.pi, np.pi / 45)  # rad, the same for the pole


def build_model(config: CDNAConfig, n_actions: int) -> CDNA:
    """A fresh network for the padded frames, its parameters drawn from the config's seed, on the config's device."""
    torch.manual_seed(config.seed)
    size = padded_size(config.env_kwargs["size"])
    shape = (config.width, config.n_kernels, config.kernel_size, config.lstm_kernel)
    return CDNA(size, n_actions, *shape).to(chosen_device(config.device))


@randomness_kept()
def load_model(run: runs.Run) -> CDNA:
    """The network of a stored run, on the processor, ready to predict; its parameters want no gradient."""
    n_actions = run.policy["memories.0.gates.weight"].shape[1] - 2 * run.config.width
    model = build_model(replace(run.config, device="cpu"), n_actions)
    model.load_state_dict(run.policy)
    return model.requires_grad_(False)


class PredictorTraining(Fitting):
    """A training of a video predictor in progress; after it, `meta["forecast"]` has the scores by method and horizon.

    Args:
        config: from `presets.get`.
    """

    def __init__(self, config: CDNAConfig) -> None:
        torch.set_num_threads(config.threads)
        films = collect(config.env_kwargs, config.films + config.held_out, config.film_steps, FILM_SEED)
        films, held_out = films[: config.films], films[config.films :]
        n_actions = films[0].actions.shape[1]
        model = build_model(config, n_actions)
        self.background = forecast.background(films)
        model.scenery.data = torch.logit(padded(self.background).clamp(0.01, 0.99)).to(model.scenery.device)
        self.replay = build_buffer(films, config, n_actions, model.scenery.device)
        self.pieces = windows(held_out, config.context + config.horizon)
        super().__init__(config, model)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, config.steps)

    def advance(self) -> None:
        """One update, of a size that falls to nothing by the end."""
        super().advance()
        self.schedule.step()

    def loss(self) -> torch.Tensor:
        """Of sequences of the films, with scheduled sampling."""
        config = self.config
        frames, actions = self.replay.sample_sequences(config.batch_size, config.length)
        share = true_share(self.step, config.pace)
        return sequence_loss(self.model, frames, actions.to(frames.device), config.context, share)

    def scores(self) -> dict[str, float]:
        """Of forecasts of the held-out films, by horizon."""
        seen = self.pieces.frames[:, : self.config.context]
        table = self.compare({"CDNA": predict(self.model, seen, self.pieces.actions)}).set_index("horizon")
        return {f"{name}_{h}": table.loc[h, name] for h in table.index for name in ("psnr", "moving_psnr")}

    def compare(self, forecasts: dict[str, torch.Tensor], poses: forecast.Poses | None = None) -> pd.DataFrame:
        """Scores of forecasts of the held-out films."""
        return forecast.compare(forecasts, self.pieces, self.config.context, poses)

    def finish(self) -> None:
        """Compare the model with what there is to beat, by horizon."""
        seen = as_numbers(self.pieces.frames[:, : self.config.context])
        env = envs.make(self.config.env, **{**self.config.env_kwargs, "stack": 1})
        poses = forecast.Poses(env, CARTS, ANGLES)
        env.close()
        learned = forecast.learned(self.model, self.pieces, self.config.context)
        others = forecast.baselines(seen, self.background, self.config.horizon)
        self.findings = {"forecast": self.compare({**learned, **others}, poses).to_dict("list")}

    def state_dict(self) -> dict[str, Any]:
        """The state between two updates."""
        return {
            **super().state_dict(),
            "schedule": self.schedule.state_dict(),
            "sampler": self.replay.sampler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        super().load_state_dict(state)
        self.schedule.load_state_dict(state["schedule"])
        self.replay.sampler.load_state_dict(state["sampler"])


def build_buffer(films: list[Film], config: CDNAConfig, n_actions: int, device: torch.device) -> Replay:
    """A buffer that holds just these films, their frames padded."""
    films = [film._replace(frames=padded(torch.from_numpy(film.frames)).numpy()) for film in films]
    spaces = gym.spaces.Box(0, 255, films[0].frames.shape[1:], np.uint8), gym.spaces.Box(-1, 1, (n_actions,))
    frames = sum(len(film.frames) for film in films)
    replay = Replay(frames, *spaces, UniformSampler(frames, np.random.default_rng([config.seed, 2])), device=device)
    fill(replay, films)
    return replay
