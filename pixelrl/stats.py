"""What several seeds say together: means, interquartile means, and bootstrap intervals over seeds.

One run of a deep agent says little (Henderson et al. 2018); with few seeds, an interval says how little
(Agarwal et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.stats import trim_mean

from pixelrl.runs import Run

TAILS = (0.025, 0.975)  # between them lies an interval of 95 %
Statistic = Callable[..., np.ndarray]


class Estimate(NamedTuple):
    """A statistic over seeds with its interval, of not-a-number for a single seed; arrays where there are columns."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __format__(self, spec: str) -> str:
        value, low, high = (format(number, spec or ".0f") for number in self)
        return value if np.isnan(self.low) else f"{value} [{low}, {high}]"

    def __str__(self) -> str:
        return f"{self}"


def iqm(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Interquartile mean: of the middle half of the values (with fewer than four, of all of them)."""
    return trim_mean(values, 0.25, axis=axis)


def estimate(values: np.ndarray, statistic: Statistic = np.mean, resamples: int = 2_000) -> Estimate:
    """A statistic over seeds, with a 95 % percentile bootstrap interval that resamples the seeds; one seed has none.

    Args:
        values: (seeds,) or (seeds, columns).
        statistic: takes `axis`: `np.mean`, `iqm`, `np.median`.
        resamples: bootstrap samples.

    Raises:
        ValueError: no seed, or not a number among the values.
    """
    values = np.asarray(values, dtype=float)
    if len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"an estimate needs finite values of one seed or more; got {values}.")
    value = statistic(values, axis=0)
    if len(values) == 1:
        return Estimate(value, value * np.nan, value * np.nan)
    rng = np.random.default_rng(0)  # the same interval whenever the page is built
    chosen = rng.integers(len(values), size=(resamples, len(values)))
    samples = statistic(values[chosen], axis=1)
    low, high = np.quantile(samples, TAILS, axis=0)
    return Estimate(value, low, high)


def probability_of_improvement(ours: np.ndarray, theirs: np.ndarray, resamples: int = 2_000) -> Estimate:
    """How probable it is that a seed of ours ends above one of theirs, a tie counting half (Agarwal et al. 2021).

    With a 95 % bootstrap interval over the seeds of both, if both have two or more.

    Args:
        ours, theirs: (seeds,) of the two methods; each is resampled for the interval.
        resamples: bootstrap samples.

    Raises:
        ValueError: no seed, or not a number among the values.
    """
    ours, theirs = comparable(ours, theirs)
    better = (ours[:, None] > theirs) + 0.5 * (ours[:, None] == theirs)  # every pair of seeds
    if min(better.shape) == 1:
        return Estimate(better.mean(), np.nan, np.nan)
    rng = np.random.default_rng(0)
    rows = rng.integers(len(ours), size=(resamples, len(ours), 1))
    columns = rng.integers(len(theirs), size=(resamples, 1, len(theirs)))
    samples = better[rows, columns].mean(axis=(1, 2))
    low, high = np.quantile(samples, TAILS)
    return Estimate(better.mean(), low, high)


def comparable(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays of floats.

    Raises:
        ValueError: no seed, or not a number among the values.
    """
    ours, theirs = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    if min(len(ours), len(theirs)) == 0 or not np.isfinite(np.concatenate([ours, theirs])).all():
        raise ValueError(f"a comparison needs finite values of one seed or more on each side; got {ours} and {theirs}.")
    return ours, theirs


def curves(runs: list[Run], y: str = "return", x: str = "step") -> tuple[np.ndarray, np.ndarray]:
    """The curves of several seeds on one axis.

    A training that stopped early because it was done keeps its last value. Between the rows of a run the
    values are joined by straight lines. Rows without the value, such as a loss before the first update, are left out.

    Returns:
        x (T,) and y (seeds, T).
    """
    rows = [run.curve[[x, y]].astype(float).dropna() for run in runs]
    grid = np.unique(np.concatenate([one[x] for one in rows]))
    return grid, np.stack([np.interp(grid, one[x], one[y]) for one in rows])


def first_half(runs: list[Run], y: str = "return") -> np.ndarray:
    """Mean (seeds,) of each run's evaluations in the first half of its steps: who learns sooner has more."""
    rows = [run.curve.loc[run.curve["step"] <= run.config.steps / 2, y].dropna() for run in runs]
    return np.array([half.astype(float).mean() for half in rows])


def permutation_test(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, int]:
    """How often chance alone would make a difference of two means as large as this one.

    If both methods were the same, any of the runs could have been called ours. All ways to deal out the names are gone
    through: for a handful of seeds, of which there are few ways.

    Args:
        ours, theirs: (seeds,) of the two methods.

    Returns:
        The difference of the means, the share of all ways in which it is as large in either direction (the p-value),
        and the number of ways.

    Raises:
        ValueError: no seed, or not a number among the values.
    """
    ours, theirs = comparable(ours, theirs)
    both = np.concatenate([ours, theirs])
    ways = [list(chosen) for chosen in combinations(range(len(both)), len(ours))]
    differences = np.array([both[way].mean() - np.delete(both, way).mean() for way in ways])
    found = ours.mean() - theirs.mean()
    return float(found), float(np.mean(np.abs(differences) >= abs(found) - 1e-9)), len(ways)


def final_means(runs: list[Run]) -> np.ndarray:
    """Mean return (seeds,) of each run's trained agent over its final episodes."""
    return np.array([np.mean(run.meta["final_returns"]) for run in runs])


def first_reached(runs: list[Run], goal: float, x: str = "step") -> np.ndarray:
    """Where (seeds,) on the axis x each curve first reached a return; infinite where it never did."""
    reached = [run.curve.loc[run.curve["return"] >= goal, x] for run in runs]
    return np.array([values.iloc[0] if len(values) else np.inf for values in reached])


def mode_means(runs: list[Run], mode: str, videos: str = "") -> np.ndarray:
    """Mean return (seeds,) of each run's trained agent in a generalisation mode.

    Args:
        runs: with `modes`.
        mode: as in `envs.MODES`.
        videos: `procedural` or the name of a folder, for the video modes; empty for the others.

    Raises:
        ValueError: a run was not played in that mode.
    """
    means = []
    for run in runs:
        table = run.modes
        rows = [] if table is None else table.loc[(table["mode"] == mode) & (table["videos"] == videos), "return"]
        if len(rows) == 0:
            name = f"{run.config.method}, seed {run.config.seed},"
            raise ValueError(f"{name} was not played in {mode} {videos}: python -m pixelrl modes does that.")
        means.append(rows.mean())
    return np.array(means)
