"""Milliseconds of an environment step and of a reset in every mode, beside dm_control's own picture.

    python benchmarks/control.py [--steps 200] [--repeat 4] [--size 84] [--videos FOLDER]

A step holds the action for `repeat` simulator frames and ends with one observation. `dm_control` is the same step with
`physics.render` at the same size, which is what the benchmark's own code builds on.
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np
from timing import seconds

from pixelrl import envs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--resets", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--size", type=int, default=84)
    parser.add_argument("--videos", default="procedural")
    options = parser.parse_args()
    state = envs.make("pixelrl/Control-v0", repeat=options.repeat)
    state.reset(seed=0)
    action, render = np.zeros(1, np.float32), state.unwrapped.dm.physics.render

    def step(env: gym.Env) -> None:
        *_, truncated, _ = env.step(action)
        if truncated:
            env.reset()

    def theirs() -> None:
        step(state)
        render(options.size, options.size, camera_id=0)

    rows = {"state only": (lambda: step(state), state.reset)}
    for quality in ("full", "fast"):
        for mode in envs.MODES:
            kwargs = {"mode": mode, "quality": quality, "size": (options.size,) * 2, "repeat": options.repeat}
            env = envs.make("pixelrl/ControlPixels-v0", videos=options.videos, **kwargs)
            env.reset(seed=0)
            rows[f"{mode}, {quality}"] = (lambda env=env: step(env), lambda env=env: env.reset())
    base = 1e3 * seconds(theirs, options.steps)
    print(f"{'':22}{'step ms':>9}{'x dm_control':>14}{'steps/s':>9}{'reset ms':>10}")
    print(f"{'dm_control':22}{base:9.2f}{1:14.1f}{1e3 / base:9.0f}")
    for name, (advance, reset) in rows.items():
        value = 1e3 * seconds(advance, options.steps)
        print(
            f"{name:22}{value:9.2f}{base / value:14.1f}{1e3 / value:9.0f}{1e3 * seconds(reset, options.resets):10.1f}"
        )


if __name__ == "__main__":
    main()
