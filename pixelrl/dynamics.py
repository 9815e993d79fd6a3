"""A model of a game on a board: what comes next, what is won, and whether it is over; and how it is trained.

It learns from the play of an agent that is partly trained: one that knows nothing never sees most of the game.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn
from torch.nn import functional as F

from pixelrl import envs, runs
from pixelrl.checkpoint import restore
from pixelrl.cuda import chosen_device, fused, random_states, set_random_states
from pixelrl.nets import computing_in, fastest_dtype
from pixelrl.presets import DynamicsConfig

PLAY_SEED = 50_000  # all models see the same play
ROOMS = 32  # environments side by side in which it is recorded


class Outcome(NamedTuple):
    """What a model says comes next, as logits."""

    board: torch.Tensor
    """(B, C, H, W), of each cell of each plane."""
    reward: torch.Tensor
    """(B,), of a reward of 1; there is no other but 0."""
    ended: torch.Tensor
    """(B,), of the end of the game."""


class EnvironmentModel(nn.Module):
    """A board and an action, drawn as planes -> `Outcome`.

    Args:
        board_shape: (C, H, W).
        n_actions: A.
        width: filters of a layer.
    """

    def __init__(self, board_shape: tuple[int, ...], n_actions: int, width: int) -> None:
        super().__init__()
        planes, height, w = board_shape
        self.n_actions = n_actions
        self.trunk = nn.Sequential(
            nn.Conv2d(planes + n_actions, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.board = nn.Conv2d(width, planes, 1)
        self.outcome = nn.Sequential(nn.Conv2d(width, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * height * w, 2))
        self.to(memory_format=torch.channels_last)

    def forward(self, board: torch.Tensor, action: torch.Tensor) -> Outcome:
        planes = F.one_hot(action, self.n_actions)[:, :, None, None].expand(-1, -1, *board.shape[2:])
        x = torch.cat([board, planes], dim=1).float().contiguous(memory_format=torch.channels_last)
        with computing_in(fastest_dtype(x.device.type), x.device.type):
            x = self.trunk(x)
            following, outcome = self.board(x), self.outcome(x).float()
        return Outcome(following.float(), *outcome.unbind(dim=1))

    @torch.no_grad()
    def step(self, board: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The likeliest next board (B, C, H, W) uint8, reward (B,) and end (B,), 0 or 1 each."""
        said = self(board, action)
        return (said.board > 0).to(board.dtype), (said.reward > 0).float(), (said.ended > 0).float()


class CopyModel(nn.Module):
    """The control: nothing ever happens. Whoever imagines with it has the same network, and no information."""

    def step(self, board: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same board, no reward, no end."""
        nothing = torch.zeros(len(board), device=board.device)
        return board, nothing, nothing


class Play(NamedTuple):
    """Steps of a game."""

    board: torch.Tensor
    """(n, C, H, W) uint8."""
    action: torch.Tensor
    """(n,) int64."""
    reward: torch.Tensor
    """(n,) float32."""
    next_board: torch.Tensor
    """(n, C, H, W) uint8; of a game that ended, its last."""
    ended: torch.Tensor
    """(n,) float32, 0 or 1."""

    def at(self, rows: torch.Tensor, device: torch.device) -> Play:
        """Some of the steps, on a device."""
        return Play(*(part[rows].to(device) for part in self))


def record(teacher: runs.Run, steps: int, seed: int) -> Play:
    """Steps of the game as a stored agent plays it, its actions drawn from its policy. Leaves torch's random state."""
    state = random_states()
    torch.manual_seed(seed)
    kwargs = teacher.config.env_kwargs
    rooms = SyncVectorEnv(
        [lambda: envs.make(teacher.config.env, **kwargs)] * ROOMS, autoreset_mode=AutoresetMode.SAME_STEP
    )
    agent, (obs, _), parts = teacher.agent(), rooms.reset(seed=seed), []
    for _ in range(-(-steps // ROOMS)):
        action = agent.act(obs, explore=True)
        following, reward, terminated, truncated, info = rooms.step(action)
        last, over = following.copy(), terminated | truncated
        if over.any():
            last[over] = np.stack(info["final_obs"][over])
        parts.append((obs, action, reward.astype(np.float32), last, terminated.astype(np.float32)))
        obs = following
    set_random_states(state)
    return Play(*(torch.from_numpy(np.concatenate(each)[:steps]) for each in zip(*parts, strict=True)))


def model_loss(said: Outcome, play: Play) -> torch.Tensor:
    """Negative log-likelihood of what came, in nats: the sum over the cells, the reward and the end; mean over B."""
    board = F.binary_cross_entropy_with_logits(said.board, play.next_board.float(), reduction="none").sum((1, 2, 3))
    reward = F.binary_cross_entropy_with_logits(said.reward, play.reward, reduction="none")
    ended = F.binary_cross_entropy_with_logits(said.ended, play.ended, reduction="none")
    return (board + reward + ended).mean()


def build_model(config: DynamicsConfig) -> EnvironmentModel:
    """A fresh network, its parameters drawn from the config's seed, on the config's device."""
    env = envs.make(config.env, **config.env_kwargs)
    torch.manual_seed(config.seed)
    model = EnvironmentModel(env.observation_space.shape, int(env.action_space.n), config.width)
    env.close()
    return model.to(chosen_device(config.device))


def load_model(name: str) -> EnvironmentModel | CopyModel:
    """The network of a stored run, ready to imagine, its parameters without gradient; or, for `copy`, the control."""
    if name == "copy":
        return CopyModel()
    run = runs.load(name)[0]
    model = build_model(run.config)
    model.load_state_dict(run.policy)
    return model.requires_grad_(False)


class ModelTraining:
    """A training in progress: recorded play, network, optimiser, and how far they have come.

    Args:
        config: from `presets.get`.
    """

    def __init__(self, config: DynamicsConfig) -> None:
        torch.set_num_threads(config.threads)
        self.config = config
        teacher = runs.load(config.teacher)[0]
        self.play = record(teacher, config.transitions, PLAY_SEED)
        self.held_out = record(teacher, config.held_out, PLAY_SEED + 1)
        self.model = build_model(config)
        self.device = next(self.model.parameters()).device
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.lr, **fused(self.device))
        self.step = 0
        self.rows: list[dict[str, float]] = []
        self.losses: list[float] = []  # since the last row
        self.watch = runs.Stopwatch()
        self.surroundings = runs.surroundings()
        self.ready = True  # for a checkpoint: always

    @property
    def finished(self) -> bool:
        """Whether all updates are made."""
        return self.step >= self.config.steps

    def advance(self) -> None:
        """One update."""
        rows = torch.randint(len(self.play.action), (self.config.batch_size,))
        play = self.play.at(rows, self.device)
        loss = model_loss(self.model(play.board, play.action), play)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(float(loss.detach()))
        self.step += 1

    def add_row(self) -> None:
        """Measure the model on play that it has not seen, and add a row to the curve."""
        row = {"step": self.step, "seconds": round(self.watch.seconds, 2), "loss": float(np.mean(self.losses))}
        self.rows.append(
            row | accuracy(self.model, self.held_out.at(torch.arange(len(self.held_out.action)), self.device))
        )
        self.losses = []

    def finish(self) -> None:
        """Nothing is left to do."""

    def state_dict(self) -> dict[str, Any]:
        """The state between two updates; the play is recorded again from its seed."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
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
        set_random_states(state)
        self.watch = runs.Stopwatch(state["seconds"])
        self.step, self.rows, self.losses = state["step"], state["rows"], state["losses"]

    def result(self) -> runs.Run:
        """The finished run."""
        return runs.Run(
            config=self.config,
            curve=pd.DataFrame(self.rows),
            meta={"seconds": round(self.watch.seconds, 1), **self.surroundings},
            policy={name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()},
        )


@torch.no_grad()
def accuracy(model: EnvironmentModel | CopyModel, play: Play) -> dict[str, float]:
    """Shares: of boards foretold to the last cell, of rewards that were foretold, and of ends; nan where none came."""
    board, reward, ended = model.step(play.board, play.action)
    return {
        "boards_right": float((board == play.next_board).all(dim=(1, 2, 3)).float().mean()),
        "rewards_found": float(reward[play.reward == 1].mean()),
        "ends_found": float(ended[play.ended == 1].mean()),
    }
