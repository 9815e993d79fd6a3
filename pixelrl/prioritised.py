"""Prioritised replay (Schaul et al. 2016): draw the transitions that surprised the network, and weigh them fairly.

Transition i is drawn with probability P(i) = p_i^alpha / sum_k p_k^alpha, where p_i = |temporal-difference
error| + eps, and its loss is multiplied by the importance weight (N P(i))^-beta, divided by the largest one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class SumTree:
    """A binary tree whose leaves are numbers and whose every other node is the sum of its two children.

    The root is the total, so that a number below it can be walked down to the leaf in whose share it lies,
    in log2(capacity) steps instead of capacity.
    """

    def __init__(self, capacity: int) -> None:
        self.depth = max(1, int(np.ceil(np.log2(capacity))))
        self.first_leaf = 2**self.depth
        self.node = np.zeros(2 * self.first_leaf)  # node k has children 2k and 2k + 1; node 0 is not used

    @property
    def total(self) -> float:
        """Sum of all leaves."""
        return float(self.node[1])

    def get(self, leaves: np.ndarray) -> np.ndarray:
        """Values (B,) of these leaves (B,)."""
        return self.node[self.first_leaf + leaves]

    def set(self, leaves: np.ndarray, values: np.ndarray | float) -> None:
        """Write values into leaves (B,) and mend the sums above them."""
        node = self.first_leaf + leaves
        self.node[node] = values
        for _ in range(self.depth):
            node = node // 2
            self.node[node] = self.node[2 * node] + self.node[2 * node + 1]

    def find(self, mass: np.ndarray) -> np.ndarray:
        """The leaf (B,) in whose share of the total each number (B,) from [0, total) lies."""
        node = np.ones(len(mass), np.int64)
        for _ in range(self.depth):
            left = self.node[2 * node]
            right = mass >= left
            mass = np.where(right, mass - left, mass)
            node = 2 * node + right
        return node - self.first_leaf


class PrioritisedSampler:
    """Draws in proportion to the last known error, one transition from each of B equal shares of the total.

    Args:
        capacity: slots of the buffer.
        rng: source of randomness.
        alpha: 0 draws uniformly, 1 in full proportion to the errors.
        beta: strength of the correction at first; it grows to 1 over `beta_draws` batches.
        eps: added to every error, so that none is never drawn again.
    """

    def __init__(
        self,
        capacity: int,
        rng: np.random.Generator,
        alpha: float = 0.6,
        beta: float = 0.4,
        beta_draws: int = 50_000,
        eps: float = 1e-3,
    ) -> None:
        self.rng, self.alpha, self.beta, self.beta_draws, self.eps = rng, alpha, beta, beta_draws, eps
        self.tree = SumTree(capacity)
        self.largest = 1.0  # what a transition gets until its error is known
        self.draws = 0

    def mark(self, slots: np.ndarray, drawable: bool) -> None:
        self.tree.set(slots, self.largest if drawable else 0.0)

    def draw(self, drawable: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        share = self.tree.total / batch_size
        slots = self.tree.find(share * (np.arange(batch_size) + self.rng.random(batch_size)))
        # A rounding error can walk past the last leaf that has a share.
        while (bad := (slots >= len(drawable)) | ~drawable[np.minimum(slots, len(drawable) - 1)]).any():
            slots[bad] = self.tree.find(self.tree.total * self.rng.random(bad.sum()))
        probability = self.tree.get(slots) / self.tree.total
        beta = min(1.0, self.beta + (1.0 - self.beta) * self.draws / self.beta_draws)
        weight = (drawable.sum() * probability) ** -beta
        self.draws += 1
        return slots, (weight / weight.max()).astype(np.float32)

    def feedback(self, slots: np.ndarray, td_error: torch.Tensor) -> None:
        priority = (td_error.abs().cpu().numpy() + self.eps) ** self.alpha
        if not np.isfinite(priority).all():
            raise ValueError("temporal-difference errors are not finite; the training has diverged (lower lr).")
        self.largest = max(self.largest, float(priority.max()))
        self.tree.set(slots, priority)

    def state_dict(self) -> dict[str, Any]:
        return {
            "node": torch.from_numpy(self.tree.node),
            "largest": self.largest,
            "draws": self.draws,
            "rng": self.rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tree.node[:] = state["node"].numpy()
        self.largest, self.draws = state["largest"], state["draws"]
        self.rng.bit_generator.state = state["rng"]
