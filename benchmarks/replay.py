"""The replay buffer beside stable-baselines3's: bytes held, and batches a second, on the same frames.

    python benchmarks/replay.py [--steps 100000] [--batch 128] [--stack 4] [--channels 1]

Four grey frames are chapter 2's, three of three channels those from chapter 4 on. Needs 0.1 to 0.2 GB of memory for
each 1,000 steps. The clock is the processor time of this process, and the buffers are
asked in turn, so that other programs on the machine matter little; trust the ratios more than the rates.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer

from pixelrl.prioritised import PrioritisedSampler
from pixelrl.replay import Replay, UniformSampler

SIZE, EPISODE = 84, 200
ACTION = gym.spaces.Discrete(2)


def fill(steps: int, stack: int, channels: int, ours: list[Replay], theirs: list[ReplayBuffer]) -> None:
    """Write the same episodes into all buffers."""
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 256, (512, channels, SIZE, SIZE), dtype=np.uint8)
    for step in range(steps):
        if step % EPISODE == 0:
            obs = np.tile(pool[rng.integers(512)], (stack, 1, 1))
            for buffer in ours:
                buffer.start(obs)
        next_obs = np.concatenate([obs[channels:], pool[rng.integers(512)]])
        action, done = int(rng.integers(2)), (step + 1) % EPISODE == 0
        for buffer in ours:
            buffer.add(action, 1.0, done, next_obs)
        for buffer in theirs:
            buffer.add(obs, next_obs, np.array([action]), np.array([1.0]), np.array([done]), [{}])
        obs = next_obs


def rates(draws: dict[str, Callable[[], object]], rounds: int = 15, calls: int = 20) -> dict[str, float]:
    """Calls a second, from the median processor time over rounds in which each is called in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in draws}
    for _ in range(rounds):
        for name, draw in draws.items():
            start = time.process_time()
            for _ in range(calls):
                draw()
            seconds[name].append((time.process_time() - start) / calls)
    return {name: 1 / float(np.median(values)) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--stack", type=int, default=4)
    parser.add_argument("--channels", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)

    space = gym.spaces.Box(0, 255, (options.stack * options.channels, SIZE, SIZE), np.uint8)
    slots = options.steps + options.steps // EPISODE + 1  # an episode of T steps has T + 1 observations
    samplers = {"uniform": UniformSampler, "prioritised": PrioritisedSampler}
    ours = {
        f"pixelrl, {name}": Replay(slots, space, ACTION, kind(slots, np.random.default_rng(0)), options.stack)
        for name, kind in samplers.items()
    }
    theirs = {
        "stable-baselines3": ReplayBuffer(options.steps, space, ACTION, "cpu"),
        "stable-baselines3, optimize_memory_usage": ReplayBuffer(
            options.steps, space, ACTION, "cpu", optimize_memory_usage=True, handle_timeout_termination=False
        ),
    }
    fill(options.steps, options.stack, options.channels, list(ours.values()), list(theirs.values()))

    frames = options.steps * options.channels * SIZE * SIZE
    held = {name: buffer.nbytes for name, buffer in ours.items()}
    for name, buffer in theirs.items():
        held[name] = sum(value.nbytes for value in vars(buffer).values() if isinstance(value, np.ndarray))
    rate = rates({name: lambda b=buffer: b.sample(options.batch) for name, buffer in {**ours, **theirs}.items()})

    shape = f"{SIZE} x {SIZE} x {options.channels}"
    print(f"{options.steps:,} steps of {shape}, stack {options.stack}; batches of {options.batch}")
    print(f"{'':42}{'GB':>7}{'x one frame a step':>20}{'batches / s':>13}{'x sb3':>7}")
    for name, rate_of in rate.items():
        relative = rate_of / rate["stable-baselines3"]
        print(f"{name:42}{held[name] / 1e9:7.2f}{held[name] / frames:20.3f}{rate_of:13.0f}{relative:7.2f}")


if __name__ == "__main__":
    main()
