"""Seconds until DQN solves CartPole-v1: `pixelrl` beside stable-baselines3, same machine, same run, same judge.

    python benchmarks/cartpole.py [--seeds 0 1 2]

Solved is a mean return of 475 over 100 greedy episodes. Both are evaluated in the same way at the same agent
steps, the time of the evaluations counts, and both use one thread, which is the faster for networks so small.
stable-baselines3 has the settings of its zoo for CartPole-v1 and its full 50,000 steps. The ratio is one of
processor time (in brackets), so that other programs on the machine matter little; on an idle one it is that of
the seconds too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback

from pixelrl import presets
from pixelrl.configs import DQNConfig
from pixelrl.evaluate import CURVE_SEED, FINAL_SEED, evaluate
from pixelrl.train import train

ZOO = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    "gamma": 0.99,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}
ZOO_STEPS = 50_000


class Theirs:
    """A stable-baselines3 model as `evaluate` asks it."""

    def __init__(self, model: DQN) -> None:
        self.model = model

    def act(self, obs: np.ndarray, explore: bool) -> np.ndarray:
        return self.model.predict(obs, deterministic=not explore)[0]


class StopWhenSolved(BaseCallback):
    """Evaluates just as the training loop of `pixelrl` does."""

    def __init__(self, config: DQNConfig) -> None:
        super().__init__()
        self.config = config
        self.result = float("nan")

    def _on_step(self) -> bool:
        if self.num_timesteps % self.config.eval_every:
            return True
        if self.measure(self.config.eval_episodes, CURVE_SEED) >= self.config.solved_at:
            self.result = self.measure(self.config.final_episodes, FINAL_SEED)
        return not self.result >= self.config.solved_at

    def measure(self, episodes: int, seed: int) -> float:
        """Mean return of greedy episodes."""
        return float(evaluate(Theirs(self.model), lambda: gym.make("CartPole-v1"), episodes, seed).mean())


class Result(NamedTuple):
    """How one training ended."""

    seconds: float
    processor_seconds: float
    steps: int
    score: float
    """Mean return over the final episodes."""

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s ({self.processor_seconds:.1f}), {self.steps:,} steps, {self.score:.1f}"


def timed(learn: Callable[[DQNConfig], tuple[int, float]], config: DQNConfig) -> Result:
    """Train and look at both clocks."""
    wall, processor = time.perf_counter(), time.process_time()
    steps, score = learn(config)
    return Result(time.perf_counter() - wall, time.process_time() - processor, steps, score)


def ours(config: DQNConfig) -> tuple[int, float]:
    """Agent steps and score of `pixelrl`."""
    run = train(config)
    return int(run.curve["step"].iloc[-1]), float(np.mean(run.meta["final_returns"]))


def theirs(config: DQNConfig) -> tuple[int, float]:
    """Agent steps and score of stable-baselines3."""
    model = DQN("MlpPolicy", gym.make("CartPole-v1"), seed=config.seed, device="cpu", **ZOO)
    callback = StopWhenSolved(config)
    model.learn(ZOO_STEPS, callback)
    if not callback.result >= config.solved_at:
        callback.result = callback.measure(config.final_episodes, FINAL_SEED)
    return model.num_timesteps, callback.result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    results: dict[str, list[Result]] = {"pixelrl": [], "stable-baselines3": []}
    print(f"{'seed':>4} {'pixelrl':>40} {'stable-baselines3':>40} {'ratio':>7}")
    for seed in seeds:
        config = presets.get("dqn-cartpole", "default", seed=seed, device="cpu")
        for name, learn in zip(results, (ours, theirs), strict=True):
            results[name].append(timed(learn, config))
        one, other = (column[-1] for column in results.values())
        ratio = other.processor_seconds / one.processor_seconds
        print(f"{seed:4} {one!s:>40} {other!s:>40} {ratio:7.2f}", flush=True)
    for name, column in results.items():
        solved = [result.seconds for result in column if result.score >= config.solved_at]
        median = f", in {np.median(solved):.1f} s at the median and {max(solved):.1f} s at most" if solved else ""
        print(f"{name}: {len(solved)} of {len(column)} seeds solved{median}")


if __name__ == "__main__":
    main()
