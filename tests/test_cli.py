"""The command line, run in this process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from pixelrl import presets, runs
from pixelrl.__main__ import changed, main


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIXELRL_TRAININGS", raising=False)
    monkeypatch.setenv("PIXELRL_RUNS", str(tmp_path / "library"))


def test_train_then_store(capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "dqn-cartpole", "--preset", "quick", "--seed", "4", "--hidden", "16", "16"])
    folder = Path("trainings/dqn-cartpole/quick/seed-4")
    assert f"{folder}: mean return" in capsys.readouterr().out
    main(["store", str(folder)])
    (run,) = runs.load("dqn-cartpole")
    assert (run.config.seed, run.config.hidden, run.config.preset) == (4, (16, 16), "quick")


def test_a_finished_training_is_read_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "dqn-cartpole", "--preset", "quick", "--folder", "here"]
    main(arguments)
    first = capsys.readouterr().out
    main(arguments)
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["store", "nowhere"], "nowhere has no SHA256SUMS"),
        (["train", "dqn-cartpole", "--preset", "quick", "--env", "Nope-v0"], "there is no environment 'Nope-v0'"),
        (["train", "dqn-pixels", "--preset", "quick", "--env-kwargs.sise", "8"], "unexpected keyword argument 'sise'"),
        (["train", "dqn-pixels", "--preset", "quick", "--env-kwargs.game"], "--env-kwargs.game needs a value"),
    ],
)
def test_a_wrong_call_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert str(stop.value.code).startswith("error: ")
    assert message in str(stop.value.code)


@pytest.mark.parametrize("words", ["train nope", "train dqn-cartpole --preset nope", "prepare x"])
def test_unknown_words_are_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_a_value_out_of_range_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "dqn-cartpole", "--preset", "quick", "--gamma", "1.5"])
    assert stop.value.code == 2
    assert "gamma is 1.5" in capsys.readouterr().err


def test_the_fields_of_a_config_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "dqn-cartpole", "--fields"])
    assert "--target-tau" in capsys.readouterr().out


def test_a_trained_agent_is_played_in_modes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "svea", "--preset", "quick", "--folder", "here"])
    main(["modes", "here", "--episodes", "2", "--modes", "train", "video_hard"])
    assert re.search(r"here: train \d+, video_hard \d+", capsys.readouterr().out)
    assert len(runs.read(Path("here")).modes) == 4
    with pytest.raises(SystemExit) as stop:
        main(["modes", "here", "--videos", "nowhere"])
    assert "no folder nowhere/video_easy" in str(stop.value.code)


@pytest.mark.parametrize(
    ("method", "words", "kwargs"),
    [
        ("sac", "--seed 3 --env-kwargs.size 20 40 --lr 0.5", {"size": (20, 40)}),
        ("sac", "--env_kwargs.repeat=4 --env-kwargs.task walker-walk", {"repeat": 4, "task": "walker-walk"}),
        ("sac", "--env-kwargs.labels True --seed 3 --env-kwargs.videos=None", {"labels": True, "videos": None}),
        ("a2c", "--env-kwargs.max-steps 20", {"max_steps": 20}),
        ("dqn-cartpole", "--env-kwargs.max-episode-steps 20", {"max_episode_steps": 20}),
    ],
)
def test_arguments_of_the_environment_are_any(method: str, words: str, kwargs: dict) -> None:
    base = presets.get(method, "quick")
    config = changed(base, words.split())
    assert config.env_kwargs == {**base.env_kwargs, **kwargs}
    if "--lr" in words:
        assert (config.seed, config.lr) == (3, 0.5)


def test_another_environment_takes_what_is_said_and_nothing_else() -> None:
    words = "--env pixelrl/Atari-v0 --env-kwargs.game Pong --env-kwargs.size 84 84"
    config = changed(presets.get("dqn-pixels", "full"), words.split())
    assert config.env_kwargs == {"game": "Pong", "size": (84, 84)}


def test_a_wrong_call_leaves_nothing_in_the_way_of_the_right_one() -> None:
    call = ["train", "dqn-cartpole", "--preset", "quick"]
    with pytest.raises(SystemExit, match="NoSuchThing"):
        main([*call, "--env", "NoSuchThing-v0"])
    main(call)


@pytest.mark.parametrize(("command", "told"), [("train dqn-cartpole", "goes on from"), ("prepare", "interrupted")])
def test_only_what_can_go_on_says_so(command: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pixelrl.train.train", interrupt)
    monkeypatch.setattr("pixelrl.prepare.main", interrupt)
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    assert told in str(stop.value.code)
    assert ("goes on" in str(stop.value.code)) == command.startswith("train")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_missed_at_once() -> None:
    with pytest.raises(SystemExit, match="error: device is cuda, and torch finds no GPU here"):
        main("train dqn-cartpole --preset quick --device cuda".split())
