"""Training a video predictor on films, in steps that can be interrupted like those of an agent."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import torch

from pixelrl import envs, forecast, runs
from pixelrl.cdna import CDNA, as_numbers, predict, sequence_loss, true_share
from pixelrl.checkpoint import restore
from pixelrl.cuda import chosen_device, fused, random_states, set_random_states
from pixelrl.footage import Film, collect, fill, windows
from pixelrl.presets import CDNAConfig
from pixelrl.replay import Replay, UniformSampler

FILM_SEED = 40_000  # all predictors see the same films
CARTS = np.linspace(-1.9, 1.9, 39)  # m, between which a cart's place is read from a frame
ANGLES = np.arange(-np.pi, np.pi, np.pi / 45)  # rad, the same for the pole


def build_model(config: CDNAConfig, n_actions: int) -> CDNA:
    """A fresh network, its parameters drawn from the config's seed, on the config's device."""
    torch.manual_seed(config.seed)
    size = config.env_kwargs["size"]
    shape = (config.width, config.n_kernels, config.kernel_size, config.dilation, config.lstm_kernel)
    return CDNA(size, n_actions, *shape).to(chosen_device(config.device))


def load_model(run: runs.Run) -> CDNA:
    """The network of a stored run, ready to predict; its parameters want no gradient."""
    n_actions = run.policy["acted.0.weight"].shape[1] - 2 * run.config.width
    model = build_model(run.config, n_actions)
    model.load_state_dict(run.policy)
    return model.requires_grad_(False)


class PredictorTraining:
    """A training in progress: films, network, optimiser, and how far they have come.

    Args:
        config: from `presets.get`.
    """

    def __init__(self, config: CDNAConfig) -> None:
        torch.set_num_threads(config.threads)
        self.config = config
        films = collect(config.env_kwargs, config.films + config.held_out, config.film_steps, FILM_SEED)
        films, held_out = films[: config.films], films[config.films :]
        n_actions = films[0].actions.shape[1]
        self.model = build_model(config, n_actions)
        device = self.model.scenery.device
        self.replay = build_buffer(films, config, n_actions, device)
        self.pieces = windows(held_out, config.context + config.horizon)
        self.background = forecast.background(films)
        self.model.scenery.data = torch.logit(self.background.clamp(0.01, 0.99)).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.lr, **fused(device))
        self.step = 0
        self.rows: list[dict[str, float]] = []
        self.losses: list[torch.Tensor] = []  # since the last row
        self.table: pd.DataFrame | None = None
        self.watch = runs.Stopwatch()
        self.surroundings = runs.surroundings()

    ready = True  # for a checkpoint: after any update

    @property
    def finished(self) -> bool:
        """Whether all updates are made."""
        return self.step >= self.config.steps

    def advance(self) -> None:
        """One update."""
        config = self.config
        frames, actions = self.replay.sample_sequences(config.batch_size, config.length)
        share = true_share(self.step, config.pace)
        loss = sequence_loss(self.model, frames, actions.to(frames.device), config.context, share)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.detach())
        self.step += 1

    def add_row(self) -> None:
        """Predict the held-out films, and add a row to the curve."""
        seen = self.pieces.frames[:, : self.config.context]
        table = self.compare({"CDNA": predict(self.model, seen, self.pieces.actions)}).set_index("horizon")
        row = {
            "step": self.step,
            "seconds": round(self.watch.seconds, 2),
            "loss": float(torch.stack(self.losses).mean()),
        }
        for h in table.index:
            row |= {f"psnr_{h}": table.psnr[h], f"moving_psnr_{h}": table.moving_psnr[h]}
        self.rows.append(row)
        self.losses = []

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
        self.table = self.compare({**learned, **others}, poses)

    def state_dict(self) -> dict[str, Any]:
        """The state between two updates; the films are made again from their seed."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.replay.sampler.state_dict(),
            **random_states(),
            "seconds": self.watch.seconds,
            "step": self.step,
            "rows": self.rows,
            "losses": self.losses,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for name in ("model", "optimizer"):
            restore(getattr(self, name), state[name])
        self.replay.sampler.load_state_dict(state["sampler"])
        set_random_states(state)
        self.watch = runs.Stopwatch(state["seconds"])
        self.step, self.rows, self.losses = state["step"], state["rows"], state["losses"]

    def result(self) -> runs.Run:
        """The finished run; its table of scores by method and horizon is in `meta["forecast"]`."""
        return runs.Run(
            config=self.config,
            curve=pd.DataFrame(self.rows),
            meta={
                "forecast": self.table.to_dict("list"),
                "seconds": round(self.watch.seconds, 1),
                **self.surroundings,
            },
            policy={name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()},
        )


def build_buffer(films: list[Film], config: CDNAConfig, n_actions: int, device: torch.device) -> Replay:
    """A buffer that holds just these films."""
    spaces = gym.spaces.Box(0, 255, films[0].frames.shape[1:], np.uint8), gym.spaces.Box(-1, 1, (n_actions,))
    frames = sum(len(film.frames) for film in films)
    replay = Replay(frames, *spaces, UniformSampler(frames, np.random.default_rng([config.seed, 2])), device=device)
    fill(replay, films)
    return replay
