"""Configs: where their numbers come from, what they refuse, and that JSON keeps them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import pandas as pd
import pytest
import torch

from pixelrl import configs, dynamics, envs, presets, runs
from pixelrl.agents import build_agent
from pixelrl.cdna import padded
from pixelrl.predictor import build_model
from pixelrl.train import build_replay

REPLAYING = [name for name, config in presets.METHODS.items() if isinstance(config, configs.TrainConfig)]
PREDICTORS = [name for name, config in presets.METHODS.items() if isinstance(config, configs.CDNAConfig)]
BOARDS = sorted({*presets.METHODS} - {*REPLAYING, *PREDICTORS})
EVERY = [(method, preset) for method in REPLAYING for preset in presets.PRESETS]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stored predictors of the two sizes, which have learned nothing."""
    folder = tmp_path_factory.mktemp("library")
    for name in ("cdna-48", "cdna-84"):
        config = presets.get(name, "cpu", width=4)
        run = runs.Run(config, pd.DataFrame({"step": [1]}), {}, build_model(config, 1).state_dict())
        runs.save(folder / name / "seed-0", run)
    return folder


@pytest.mark.parametrize(("method", "preset"), EVERY)
def test_every_config_can_be_built(method: str, preset: str, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELRL_RUNS", str(library))
    config = presets.get(method, preset, seed=4, device="cpu", replay_size=300)
    assert (config.method, config.preset, config.seed) == (method, preset, 4)
    assert config.env in gym.registry
    assert config.learning_starts < config.steps
    assert config.steps % config.eval_every == 0  # the curve ends where the training does
    env = envs.make(config.env, **config.env_kwargs)
    build_agent(config, env)
    build_replay(config, env)


@pytest.mark.parametrize("preset", presets.PRESETS)
@pytest.mark.parametrize("method", PREDICTORS)
def test_every_predictor_can_be_built(method: str, preset: str) -> None:
    config = presets.get(method, preset, seed=4, device="cpu")
    assert (config.method, config.preset, config.seed) == (method, preset, 4)
    assert config.steps % config.eval_every == 0
    model = build_model(config, n_actions=1)
    frame = padded(torch.zeros(1, 3, *config.env_kwargs["size"]))
    assert model(frame, torch.zeros(1, 1), model.start(1)).frame.shape == frame.shape


@pytest.mark.parametrize("preset", presets.PRESETS)
@pytest.mark.parametrize("method", BOARDS)
def test_every_config_of_a_board_game_can_be_used(method: str, preset: str) -> None:
    config = presets.get(method, preset, seed=4, device="cpu")
    assert (config.method, config.preset, config.seed) == (method, preset, 4)
    assert config.steps % config.eval_every == 0
    board, _ = envs.make(config.env, **config.env_kwargs).reset(seed=0)
    if isinstance(config, configs.DynamicsConfig):
        said = dynamics.build_model(config)(torch.from_numpy(board)[None], torch.zeros(1, dtype=torch.int64))
        assert said.board.shape[1:] == board.shape
        assert presets.METHODS[config.teacher].env == config.env
    else:
        agent = build_agent(
            replace(config, model="copy") if method.startswith("i2a") else config, envs.make(config.env)
        )
        assert agent.act(board[None], explore=True).shape == (1,)
        assert getattr(config, "model", "copy") in (*presets.METHODS, "copy")


def test_the_variable_chooses_the_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIXELRL_PRESET", raising=False)
    assert presets.get("dqn-cartpole") == presets.get("dqn-cartpole", "default")
    monkeypatch.setenv("PIXELRL_PRESET", "quick")
    assert presets.get("dqn-cartpole") == presets.get("dqn-cartpole", "quick")
    assert presets.get("dqn-cartpole", "full").preset == "full"  # what is asked for by name wins
    monkeypatch.setenv("PIXELRL_PRESET", "quik")
    with pytest.raises(ValueError, match="no preset 'quik'; there are quick, default, cpu, full"):
        presets.get("dqn-cartpole")


def test_quick_is_quick() -> None:
    for method in presets.METHODS:
        quick = presets.get(method, "quick")
        assert quick.steps <= 1_000
        assert all(quick.steps < presets.get(method, preset).steps for preset in ("default", "cpu", "full"))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no method 'dqn-cartpol'; there are dqn-cartpole, "):
        presets.get("dqn-cartpol")
    with pytest.raises(ValueError, match="no preset 'tiny'"):
        presets.get("dqn-cartpole", "tiny")
    with pytest.raises(ValueError, match="DQNConfig has no field learning_rate"):
        presets.get("dqn-cartpole", "quick", learning_rate=1.0, steps=10)


OUT_OF_RANGE = [
    *[(name, 0) for name in ("steps", "update_every", "batch_size", "replay_size", "n_step", "threads")],
    *[(name, 0) for name in ("eval_every", "eval_episodes", "final_episodes", "epsilon_steps")],
    ("gamma", 1.5),
    ("gamma", -0.1),
    ("target_tau", 0.0),
    ("target_tau", 1.1),
    ("lr", 0.0),
    ("epsilon_start", 1.2),
    ("epsilon_end", -0.1),
    ("hidden", ()),
    ("channels", (16,)),
    ("replay", "lifo"),
    ("head", "duelling"),
    ("target", "triple"),
    ("device", "tpu"),
    ("seed", -1),
]


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_values_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is ") as error:
        presets.get("dqn-cartpole", "quick", **{name: value})
    assert repr(value) in str(error.value) or "empty" in str(error.value)


@pytest.mark.parametrize(
    "changes", [{"env_kwargs": {"task": "walker-walk"}}, {"env_kwargs": {"stack": 3}}, {"env": "CartPole-v1"}]
)
def test_films_are_of_their_own_tasks(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"; films (show|are) "):
        presets.get("cdna-48", "quick", **changes)


def test_another_environment_is_not_given_what_this_one_takes() -> None:
    assert presets.get("dqn-pixels", "full").env_kwargs == {"size": (84, 84)}
    assert presets.get("dqn-pixels", "full", env_kwargs={"stack": 1}).env_kwargs == {"size": (84, 84), "stack": 1}
    game = {"game": "Pong"}  # which has a size of its own
    assert presets.get("dqn-pixels", "full", env="pixelrl/Atari-v0", env_kwargs=game).env_kwargs == game


def test_json_keeps_everything(tmp_path: Path) -> None:
    for method, preset in EVERY:
        config = presets.get(method, preset, seed=7)
        configs.save(tmp_path / "config.json", config)
        assert configs.load(tmp_path / "config.json") == config
    odd = presets.get("dqn-pixels", "quick", env_kwargs={"size": (84, 84), "deep": {"er": ((1, 2), 3)}}, solved_at=1.5)
    configs.save(tmp_path / "config.json", odd)
    assert configs.load(tmp_path / "config.json") == odd
    assert json.loads((tmp_path / "config.json").read_text())["env_kwargs"]["size"] == [84, 84]
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ({"kind": "TRPOConfig"}, "holds a TRPOConfig"),
        ({"tau": 1, "rho": 2}, "rho, tau"),
        ({"device": "cuda:1"}, "device is 'cuda:1'"),
    ],
)
def test_configs_of_another_version_are_refused(old: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    configs.save(path, presets.get("dqn-cartpole"))
    path.write_text(json.dumps(json.loads(path.read_text()) | old))
    with pytest.raises(ValueError, match=f"config.json.*{message}"):
        configs.load(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", "3", '{"method": "sac"}'])
def test_what_is_no_config_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="config.json is not the config of a training"):
        configs.load(tmp_path / "config.json")


def test_differences_are_named() -> None:
    config = presets.get("dqn-pixels", "quick", env_kwargs={"size": (84, 84)}, steps=400)
    assert configs.differences(config, replace(config)) == ""
    changed = replace(config, steps=500, env_kwargs={"size": (42, 42)})
    assert (
        configs.differences(config, changed)
        == "env_kwargs: {'size': [84, 84]} -> {'size': [42, 42]}, steps: 400 -> 500"
    )
