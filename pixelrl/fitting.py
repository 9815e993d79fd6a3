"""Training a network on data that are at hand from the beginning, in steps that can be interrupted."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import nn

from pixelrl import runs
from pixelrl.checkpoint import restore
from pixelrl.configs import CDNAConfig, DynamicsConfig
from pixelrl.cuda import fused, random_states, set_random_states
from pixelrl.journal import Journal


class Fitting:
    """A training in progress: network, optimiser, and how far they have come. The data are made again from their seed.

    What is trained says in a class of its own what its `loss` and its `scores` are.

    Args:
        config: from `presets.get`.
        model: to be trained, on its device.
    """

    def __init__(self, config: CDNAConfig | DynamicsConfig, model: nn.Module) -> None:
        self.config, self.model = config, model
        self.device = next(model.parameters()).device
        self.optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, **fused(self.device))
        self.step = 0
        self.rows: list[dict[str, float]] = []
        self.losses: list[torch.Tensor] = []  # since the last row
        self.findings: dict[str, Any] = {}  # for the run, beside the curve
        self.journal = Journal()

    ready = True  # for a checkpoint: after any update

    @property
    def finished(self) -> bool:
        """Whether all updates are made."""
        return self.step >= self.config.steps

    def loss(self) -> torch.Tensor:
        """Of a batch that is drawn now, a scalar."""
        raise NotImplementedError

    def scores(self) -> dict[str, float]:
        """Of the network as it is, on data that it does not learn from."""
        raise NotImplementedError

    def advance(self) -> None:
        """One update."""
        loss = self.loss()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.detach())
        self.step += 1

    def add_row(self) -> None:
        """Add a row to the curve: the mean loss since the last one, and the scores."""
        row = {
            "step": self.step,
            "seconds": round(self.journal.seconds, 2),
            "loss": float(torch.stack(self.losses).mean()),
        }
        self.rows.append(row | self.scores())
        self.losses = []

    def finish(self) -> None:
        """Nothing is left to do."""

    def state_dict(self) -> dict[str, Any]:
        """The state between two updates."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **random_states(),
            "journal": self.journal.state_dict(),
            "step": self.step,
            "rows": self.rows,
            "losses": self.losses,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for name in ("model", "optimizer"):
            restore(getattr(self, name), state[name])
        set_random_states(state)
        self.journal.resume(state["journal"])
        self.step, self.rows = state["step"], state["rows"]
        self.losses = [loss.to(self.device) for loss in state["losses"]]

    def result(self) -> runs.Run:
        """The finished run."""
        return runs.Run(
            config=self.config,
            curve=pd.DataFrame(self.rows),
            meta={**self.findings, **self.journal.meta()},
            policy=runs.kept(self.model.state_dict()),
        )
