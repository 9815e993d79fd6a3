"""SAC from state on cartpole swing-up: `pixelrl` beside stable-baselines3, return at equal steps.

    python benchmarks/sac.py [--seeds 0 1 2 3 4] [--steps 6000]

Both have the same environment, network widths, batch, learning rate, target share, first temperature and random first
steps, take one update a step on one thread, and are judged by the same 30 greedy episodes. Initial weights, exploration
and the temperature's optimiser are each library's own. Seconds are processor time, evaluations excluded.
"""

from __future__ import annotations

import argparse
import time

import gymnasium as gym
import numpy as np
import stable_baselines3 as sb3
import torch

from pixelrl import envs, presets, stats
from pixelrl.configs import SACConfig
from pixelrl.evaluate import FINAL_SEED, evaluate
from pixelrl.train import Training, interact


def make_env(config: SACConfig) -> gym.Env:
    """A fresh environment of the training."""
    return envs.make(config.env, **config.env_kwargs)


class Judged:
    """stable-baselines3's agent in the form in which the book's evaluation asks."""

    def __init__(self, agent: sb3.SAC) -> None:
        self.agent = agent

    def act(self, obs: np.ndarray, explore: bool) -> np.ndarray:
        return self.agent.predict(obs, deterministic=not explore)[0]


def ours(config: SACConfig) -> tuple[object, float]:
    """The book's agent after all steps, and the processor seconds that it took."""
    training = Training(config)
    loop = interact(training.env, training.agent, training.replay, config, 0, 0)
    start = time.process_time()
    for _ in range(config.steps):
        next(loop)
    return training.agent, time.process_time() - start


def theirs(config: SACConfig) -> tuple[object, float]:
    """stable-baselines3's agent after as many steps, and its seconds."""
    agent = sb3.SAC(
        "MlpPolicy",
        make_env(config),
        learning_rate=config.lr,
        batch_size=config.batch_size,
        learning_starts=config.learning_starts,
        tau=config.target_tau,
        gamma=config.gamma,
        ent_coef=f"auto_{config.alpha}",
        policy_kwargs={"net_arch": list(config.hidden)},
        seed=config.seed,
        device="cpu",
    )
    start = time.process_time()
    agent.learn(config.steps)
    return Judged(agent), time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=6_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, list[tuple[float, float]]] = {"pixelrl": [], "stable-baselines3": []}
    for seed in options.seeds:
        config = presets.get("sac-state", "cpu", seed=seed, steps=options.steps)
        for name, make in (("pixelrl", ours), ("stable-baselines3", theirs)):
            agent, seconds = make(config)
            returns = evaluate(agent, lambda config=config: make_env(config), 30, FINAL_SEED)
            results[name].append((returns.mean(), seconds))
            print(f"seed {seed}, {name}: return {returns.mean():.0f}, {seconds:.0f} s", flush=True)
    for name, pairs in results.items():
        values, seconds = np.array(pairs).T
        print(f"{name}: return {stats.estimate(values)} after {options.steps:,} steps, {np.median(seconds):.0f} s")


if __name__ == "__main__":
    main()
