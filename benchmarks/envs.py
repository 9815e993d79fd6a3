"""CartPole's picture, drawn by `pixelrl` and by Gymnasium: milliseconds a frame, and how far they differ.

python benchmarks/envs.py [--frames 300]
"""

from __future__ import annotations

import argparse
import time

import cv2
import gymnasium as gym
import numpy as np

from pixelrl import envs  # registers the environments
from pixelrl.envs.cartpole import BOTTOM, TOP, draw_cartpole


def seconds_a_step(env: gym.Env, frames: int) -> float:
    """Processor time of one step, its observation included."""
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    done = False
    start = time.process_time()
    for _ in range(frames):
        if done:
            env.reset()
        _, _, terminated, truncated, _ = env.step(int(rng.integers(2)))
        done = terminated or truncated
    return (time.process_time() - start) / frames


def difference(frames: int) -> tuple[float, float]:
    """Share of the pixels that differ, and mean absolute difference in grey levels of 255, before shrinking."""
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    different, distance = [], []
    for _ in range(frames):
        env.unwrapped.state = rng.uniform(-1, 1, 4) * [2.4, 3.0, 0.2, 3.0]
        theirs = cv2.cvtColor(env.render(), cv2.COLOR_RGB2GRAY)[TOP:BOTTOM].astype(int)
        ours = draw_cartpole(env.unwrapped.state).astype(int)
        different.append((ours != theirs).mean())
        distance.append(np.abs(ours - theirs).mean())
    return float(np.mean(different)), float(np.mean(distance))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300)
    frames = parser.parse_args().frames
    made = {name: envs.make("pixelrl/CartPolePixels-v0", renderer=name) for name in ("gymnasium", "fast")}
    made["state only"] = envs.make("CartPole-v1")
    rounds = [{name: seconds_a_step(env, frames) for name, env in made.items()} for _ in range(7)]
    seconds = {name: float(np.median([one[name] for one in rounds])) for name in made}
    print(f"{'':14}{'ms a step':>10}{'x gymnasium':>13}")
    for name, value in seconds.items():
        print(f"{name:14}{1e3 * value:10.3f}{seconds['gymnasium'] / value:13.1f}")
    different, distance = difference(frames)
    print(f"{different:.2%} of the pixels differ; mean absolute difference {distance:.2f} of 255")


if __name__ == "__main__":
    main()
