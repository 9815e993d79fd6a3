"""The trainings of the book by name, and the sizes at which it runs them.

`quick` is for tests (seconds), `default` for the live cells (two cores, a minute or so), `cpu` and `full`
for the long runs that the book shows. A cell asks by method and takes the size from `PIXELRL_PRESET`:

>>> get("dqn-cartpole").env
'CartPole-v1'
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from pixelrl.configs import (
    ActorCriticConfig,
    AheadConfig,
    CDNAConfig,
    DQNConfig,
    DynaConfig,
    DynamicsConfig,
    I2AConfig,
    PredictiveSACConfig,
    PredictiveSGQNConfig,
    RunConfig,
    SACConfig,
    SGQNConfig,
    scene,
    unknown_fields,
)

PRESETS = ("quick", "default", "cpu", "full")

CARTPOLE = DQNConfig(method="dqn-cartpole", env="CartPole-v1", n_step=3)
ONE_STEP = replace(CARTPOLE, n_step=1, lr=5e-4)
PIXELS = replace(
    CARTPOLE,
    method="dqn-pixels",
    env="pixelrl/CartPolePixels-v0",
    channels=(16, 32),
    hidden=(256,),
    batch_size=64,
    lr=1e-3,
    epsilon_steps=5_000,
)
STATE = SACConfig(
    method="sac-state",
    env="pixelrl/Control-v0",
    env_kwargs={"task": "cartpole-swingup", "repeat": 8},
    batch_size=128,
    alpha_lr=1e-3,
)
CONTROL_PIXELS = SACConfig(
    method="sac",
    env="pixelrl/ControlPixels-v0",
    env_kwargs={"task": "cartpole-swingup", "repeat": 8, "size": (48, 48)},
    strides=(3, 2, 1),
    first_kernel=5,
    batch_size=128,
    alpha_lr=1e-3,
)
SALIENCY = SGQNConfig(**{**vars(CONTROL_PIXELS), "method": "sgqn"})
AHEAD = PredictiveSGQNConfig(**vars(SALIENCY))


def matched_discount() -> dict[str, float]:
    """For an agent that does not look ahead: the discount that eq. 4 has in effect, and values of the same size.

    By eq. 4, a value comes from the state one step on or, in a share of the target, from one of those 2 to N steps on,
    each as likely: on average from E[J] steps on. A discount of gamma for E[J] steps is one of gamma^(1 / E[J]) for
    each. Values are in proportion to 1 / (1 - gamma) where rewards are even; the temperature, which is learned, follows
    their size. Where only a part of the batch is rolled forward, the effect on the discount is smaller, in proportion.
    """
    jump = 1 + AHEAD.in_target * ((AHEAD.horizon + 2) / 2 - 1)
    gamma = AHEAD.gamma ** (1 / jump)
    return {"gamma": gamma, "reward_scale": (1 - gamma) / (1 - AHEAD.gamma)}


FILMS = CDNAConfig(
    method="cdna",
    env="pixelrl/ControlPixels-v0",
    env_kwargs={"repeat": 4, "size": (64, 64)},  # the pole's tip stays within the kernels' reach
    film_steps=120,
    width=16,
    batch_size=8,
)
SMALL_FILMS = replace(  # as the agents of the preset "cpu" see the world
    FILMS, method="cdna-48", env_kwargs={"repeat": 8, "size": (48, 48)}, film_steps=60, width=8, kernel_size=13
)
BREAKOUT = ActorCriticConfig(
    method="a2c", env="pixelrl/MinAtar-v0", env_kwargs={"game": "breakout"}, steps=512_000, eval_every=25_600
)
IMAGINING = I2AConfig(**{**vars(BREAKOUT), "method": "i2a"})
METHODS: dict[str, RunConfig] = {
    "dqn-cartpole": CARTPOLE,
    "dqn-cartpole-no-target": replace(CARTPOLE, target_tau=1.0),
    "dqn-cartpole-no-replay": replace(CARTPOLE, replay_size=8, batch_size=8),
    "dqn-cartpole-short-replay": replace(CARTPOLE, replay_size=260),
    "dqn-cartpole-truncation-as-end": replace(CARTPOLE, env="pixelrl/CartPoleTruncationAsEnd-v0"),
    "dqn-cartpole-one-step": ONE_STEP,
    "dyna-cartpole": DynaConfig(**vars(ONE_STEP)),
    "dyna-cartpole-replayed": DynaConfig(**vars(ONE_STEP), further="replayed"),
    "dqn-pixels": PIXELS,
    "dqn-pixels-improved": replace(PIXELS, target="double", head="dueling", replay="prioritised"),
    "sac-state": STATE,
    "sac-state-fixed-temperature": replace(STATE, alpha_lr=0.0),
    "sac-state-hot": replace(STATE, alpha=10.0, alpha_lr=0.0),
    "sac": CONTROL_PIXELS,
    "rad": replace(CONTROL_PIXELS, objective="rad"),
    "drq": replace(CONTROL_PIXELS, objective="drq"),
    "svea": replace(CONTROL_PIXELS, objective="svea"),
    "sgqn": SALIENCY,
    "sac-matched-discount": replace(CONTROL_PIXELS, **matched_discount()),
    "sgqn-matched-discount": replace(SALIENCY, **matched_discount()),
    "sgqn-random-masks": replace(SALIENCY, masks="random"),
    "sgqn-lambda-0.25": replace(SALIENCY, consistency=0.25),  # as much as AHEAD has at the present state
    "predictive-sac": PredictiveSACConfig(**vars(CONTROL_PIXELS)),
    "predictive-sgqn": AHEAD,
    "predictive-sgqn-oracle": replace(AHEAD, predictor="oracle"),
    "predictive-sgqn-copy": replace(AHEAD, predictor="copy"),
    "predictive-sgqn-shuffled": replace(AHEAD, predictor="shuffled"),
    "predictive-sgqn-background": replace(AHEAD, predictor="background"),
    "predictive-sgqn-target-only": replace(AHEAD, in_consistency=0.0),
    "predictive-sgqn-consistency-only": replace(AHEAD, in_target=0.0),
    "predictive-sgqn-random-masks": replace(AHEAD, masks="random"),
    "predictive-sgqn-2": replace(AHEAD, horizon=2),
    "predictive-sgqn-5": replace(AHEAD, horizon=5),
    "predictive-sgqn-lambda-0.1": replace(AHEAD, consistency=0.1),
    "predictive-sgqn-lambda-1": replace(AHEAD, consistency=1.0),
    "cdna": FILMS,
    "cdna-48": SMALL_FILMS,
    "cdna-84": replace(FILMS, method="cdna-84", env_kwargs={**FILMS.env_kwargs, "size": (84, 84)}),
    "a2c": BREAKOUT,
    "a2c-partly": BREAKOUT,
    "breakout-model": DynamicsConfig(method="breakout-model", env=BREAKOUT.env, env_kwargs=BREAKOUT.env_kwargs),
    "i2a": IMAGINING,
    "i2a-1": replace(IMAGINING, horizon=1),
    "i2a-5": replace(IMAGINING, horizon=5),
    "i2a-copy": replace(IMAGINING, model="copy"),
}
QUICK = {
    "steps": 300,
    "learning_starts": 100,
    "batch_size": 32,
    "eval_every": 150,
    "eval_episodes": 2,
    "final_episodes": 2,
}
CARTPOLE_SIZES: dict[str, dict[str, Any]] = {
    "quick": QUICK,
    "default": {"steps": 50_000, "solved_at": 475.0},
    "cpu": {"steps": 30_000},
    "full": {"steps": 200_000},
}
SHORT_SIZES = {**CARTPOLE_SIZES, "default": {"steps": 2_000}, "cpu": {"steps": 10_000, "eval_every": 500}}
FILM_SIZES: dict[str, dict[str, Any]] = {
    "quick": {
        "films": 8,
        "held_out": 4,
        "film_steps": 8,
        "steps": 4,
        "eval_every": 2,
        "batch_size": 2,
        "length": 5,
        "horizon": 2,
        "width": 4,
        "kernel_size": 5,
        "env_kwargs": {"size": (32, 32)},
    },
    "default": {
        "films": 24,
        "held_out": 8,
        "film_steps": 60,
        "steps": 100,
        "eval_every": 50,
        "width": 8,
        "env_kwargs": {"size": (48, 48)},
    },
    "cpu": {"steps": 4_000, "eval_every": 500},
    "full": {
        "films": 1_000,
        "steps": 50_000,
        "eval_every": 2_500,
        "batch_size": 32,
        "width": 32,
        "lstm_kernel": 5,
        "pace": 900.0,
    },
}
BOARD_SIZES: dict[str, dict[str, Any]] = {
    "quick": {
        "n_envs": 4,
        "length": 5,
        "steps": 80,
        "eval_every": 40,
        "eval_episodes": 2,
        "final_episodes": 2,
        "env_kwargs": {"max_steps": 30},
    },
    "default": {"steps": 25_600, "eval_every": 5_120, "final_episodes": 20},
    "cpu": {"steps": 512_000, "eval_every": 25_600},
    "full": {"steps": 5_120_000, "eval_every": 256_000},
}
BEFORE_VIDEOS = ("video_easy", "video_hard")
PIXEL_SIZES: dict[str, dict[str, Any]] = {
    "quick": {
        **QUICK,
        "steps": 140,
        "learning_starts": 120,
        "eval_every": 70,
        "eval_episodes": 1,
        "eval_modes": BEFORE_VIDEOS,
        "batch_size": 8,
        "env_kwargs": {"size": (32, 32)},
    },
    "default": {"steps": 500, "learning_starts": 250, "eval_every": 250, "eval_episodes": 2, "final_episodes": 2},
    "cpu": {
        "steps": 25_000,
        "eval_every": 1_250,
        "eval_episodes": 5,
        "eval_modes": BEFORE_VIDEOS,
        "final_episodes": 30,
    },
    "full": {
        "steps": 200_000,
        "checkpoint_seconds": 1_800.0,  # with the buffer, 4 GB
        "replay_size": 200_000,
        "eval_every": 10_000,
        "eval_episodes": 10,
        "eval_modes": BEFORE_VIDEOS,
        "batch_size": 128,
        "env_kwargs": {"size": (84, 84), "repeat": 4},
        "strides": (2, *(1,) * 10),
        "first_kernel": 3,
        "hidden": (1024, 1024),
    },
}
AHEAD_SIZES = {
    **PIXEL_SIZES,
    "quick": {**PIXEL_SIZES["quick"], "env_kwargs": {}},  # frames as the stored predictor knows them
    "default": {**PIXEL_SIZES["default"], "batch_size": 64},
    "full": {**PIXEL_SIZES["full"], "model": "cdna-84", "ahead_share": 1.0},
}
SIZES: dict[str, dict[str, dict[str, Any]]] = {  # of an environment's trainings, or of those of one method
    "CartPole": CARTPOLE_SIZES,
    "CartPoleTruncationAsEnd": CARTPOLE_SIZES,
    "CartPolePixels": {
        "quick": QUICK,
        "default": {"steps": 3_000, "eval_every": 1_000, "eval_episodes": 5, "final_episodes": 10},
        "cpu": {"steps": 60_000, "eval_every": 3_000, "eval_episodes": 10},
        "full": {"steps": 500_000, "eval_every": 10_000, "env_kwargs": {"size": (84, 84)}, "channels": (32, 64)},
    },
    "dqn-cartpole-one-step": SHORT_SIZES,
    "dyna-cartpole": SHORT_SIZES,
    "dyna-cartpole-replayed": SHORT_SIZES,
    "cdna": FILM_SIZES,
    "cdna-48": {**FILM_SIZES, "quick": {**FILM_SIZES["quick"], "env_kwargs": {}}},  # as agents see the world
    "cdna-84": {**FILM_SIZES, "default": {**FILM_SIZES["default"], "env_kwargs": {}}},
    "MinAtar": BOARD_SIZES,
    "a2c-partly": {**BOARD_SIZES, "cpu": {"steps": 256_000, "eval_every": 51_200}},
    "breakout-model": {
        "quick": {
            "transitions": 200,
            "held_out": 50,
            "steps": 4,
            "eval_every": 2,
            "batch_size": 8,
            "env_kwargs": {"max_steps": 30},
        },
        "default": {"transitions": 20_000, "held_out": 2_000, "steps": 400, "eval_every": 100},
        "cpu": {"steps": 3_000, "eval_every": 250},
        "full": {"transitions": 1_000_000, "steps": 50_000, "eval_every": 5_000},
    },
    "Control": {
        "quick": QUICK,
        "default": {"steps": 12_500, "eval_every": 500, "eval_episodes": 3, "final_episodes": 10, "solved_at": 800.0},
        "cpu": {"steps": 6_000, "eval_every": 500, "eval_episodes": 10, "final_episodes": 30},
        "full": {"steps": 100_000, "eval_every": 5_000, "eval_episodes": 10},
    },
    "ControlPixels": PIXEL_SIZES,
    **{method: AHEAD_SIZES for method, config in METHODS.items() if isinstance(config, AheadConfig)},
    "predictive-sgqn-shuffled": {**AHEAD_SIZES, "quick": {**AHEAD_SIZES["quick"], "ahead_share": 0.25}},
}


def get(method: str, preset: str | None = None, **changes: Any) -> Any:
    """The config of a training.

    Args:
        method: one of `METHODS`.
        preset: one of `PRESETS`; by default what the variable `PIXELRL_PRESET` names, else `default`.
        changes: fields that differ from the preset, `seed` among them; of `env_kwargs`, those entries that differ, or
            all of them if `env` is another one.

    Raises:
        ValueError: no such method, preset or field.
    """
    preset = preset or os.environ.get("PIXELRL_PRESET", "default")
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}; there are {', '.join(METHODS)}.")
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}; there are {', '.join(PRESETS)}.")
    config = METHODS[method]
    if unknown := unknown_fields(type(config), changes):
        raise ValueError(f"{type(config).__name__} has no field {unknown}.")
    size = SIZES.get(method, SIZES.get(scene(config.env)))[preset]
    usual = {**config.env_kwargs, **size.get("env_kwargs", {})} if changes.get("env", config.env) == config.env else {}
    env_kwargs = {**usual, **changes.pop("env_kwargs", {})}
    return replace(config, **{"method": method, "preset": preset, **size, "env_kwargs": env_kwargs, **changes})
