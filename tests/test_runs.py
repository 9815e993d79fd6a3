"""Stored runs: what goes in comes out, what was damaged is refused, and where the numbers come from is said."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import replace
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pixelrl import checkpoint, configs, envs, presets, runs, stats
from pixelrl import train as training
from pixelrl.__main__ import main
from pixelrl.agents import build_agent
from pixelrl.journal import Journal, commit, surroundings

FILES = ["SHA256SUMS", "config.json", "curve.csv", "meta.json", "policy.safetensors"]


def finished(seed: int = 0, **meta: Any) -> tuple[runs.Run, Any]:
    """A run that could have been trained, and the agent it came from."""
    config = presets.get(
        "dqn-cartpole", "quick", seed=seed, device="cpu", hidden=(8,), env_kwargs={"sutton_barto_reward": True}
    )
    agent = build_agent(config, envs.make(config.env))
    torch.manual_seed(50 + seed)
    for parameter in agent.q_net.parameters():
        torch.nn.init.normal_(parameter)
    curve = pd.DataFrame({"step": [1, 2], "return": [1 / 3, 2.5e-17], "train_return": [float("nan"), 9.0]})
    meta = {"final_returns": [1.0, 2.0], "seconds": 90.0, **surroundings(), **meta}
    return runs.Run(config, curve, meta, agent.policy()), agent


def test_a_run_comes_back(tmp_path: Path) -> None:
    run, _ = finished()
    assert not runs.is_finished(tmp_path / "a")
    runs.save(tmp_path / "a", run)
    assert runs.is_finished(tmp_path / "a")
    back = runs.read(tmp_path / "a")
    assert back.config == run.config
    assert back.meta == run.meta
    pd.testing.assert_frame_equal(back.curve, run.curve, check_exact=True)
    assert set(back.policy) == set(run.policy)
    assert all(torch.equal(back.policy[name], run.policy[name]) for name in run.policy)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == FILES


def test_its_agent_acts_as_the_trained_one(tmp_path: Path) -> None:
    run, trained = finished()
    runs.save(tmp_path, run)
    obs = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    stored = runs.read(tmp_path).agent()
    np.testing.assert_array_equal(stored.q_values(obs), trained.q_values(obs))
    np.testing.assert_array_equal(stored.act(obs, explore=False), trained.act(obs, explore=False))
    fresh = build_agent(run.config, envs.make(run.config.env))
    assert not np.array_equal(stored.q_values(obs), fresh.q_values(obs))


@pytest.mark.parametrize("where", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found(tmp_path: Path, name: str, where: float) -> None:
    runs.save(tmp_path, finished()[0])
    content = bytearray((tmp_path / name).read_bytes())
    content[int(where * len(content))] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(checkpoint.DamagedError, match=name):
        runs.read(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    runs.save(tmp_path, finished()[0])
    (tmp_path / name).unlink()
    with pytest.raises(checkpoint.DamagedError, match=name):
        runs.read(tmp_path)


def test_other_files_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("before")
    runs.save(tmp_path / "a", finished()[0])
    (tmp_path / "a" / "notes.txt").write_text("after")
    assert runs.read(runs.store(tmp_path / "a", tmp_path / "b")).meta == runs.read(tmp_path / "a").meta


def test_stored_runs_lie_in_the_checkout_or_in_the_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIXELRL_RUNS", raising=False)
    monkeypatch.setattr(runs, "PACKAGE", tmp_path / "pixelrl")
    assert runs.library() == tmp_path / "pixelrl" / "stored_runs"
    (tmp_path / "runs").mkdir()
    assert runs.library() == tmp_path / "runs"
    monkeypatch.setenv("PIXELRL_RUNS", "elsewhere")
    assert runs.library() == Path("elsewhere")


def test_stored_runs_are_loaded_by_method_in_the_order_of_their_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    for seed in (10, 2, 0):
        runs.save(tmp_path / "somewhere", finished(seed)[0])
        assert runs.store(tmp_path / "somewhere", library) == library / "dqn-cartpole" / f"seed-{seed}"
    (library / "dqn-pixels").mkdir()
    (library / "README.md").write_text("not a run")
    assert [run.config.seed for run in runs.load("dqn-cartpole", library)] == [0, 2, 10]
    with pytest.raises(FileNotFoundError, match=r"no run 'dqn-cartpol' .*there are: dqn-cartpole, dqn-pixels\."):
        runs.load("dqn-cartpol", library)
    with pytest.raises(FileNotFoundError, match=r"there are: none\."):
        runs.load("dqn-cartpole", tmp_path / "nowhere")
    (library / "dqn-cartpole" / "seed-2-backup").mkdir()  # somebody's own
    monkeypatch.setenv("PIXELRL_RUNS", str(library))
    assert len(runs.load("dqn-cartpole")) == 3


def test_a_damaged_run_is_neither_loaded_nor_stored(tmp_path: Path) -> None:
    runs.save(tmp_path / "a", finished()[0])
    stored = runs.store(tmp_path / "a", tmp_path / "library")
    for folder in (tmp_path / "a", stored):
        os.truncate(folder / "curve.csv", 5)
    with pytest.raises(checkpoint.DamagedError, match="curve.csv is damaged"):
        runs.load("dqn-cartpole", tmp_path / "library")
    with pytest.raises(checkpoint.DamagedError, match="curve.csv is damaged"):
        runs.store(tmp_path / "a", tmp_path / "library")


def test_provenance_says_where_the_numbers_come_from() -> None:
    hardware = {"processor": "Abacus 3000", "cores": 1, "gpu": None}
    stored = [
        finished(seed, seconds=seconds, hardware=hardware, versions={"torch": "9.8.7"}, commit="0123456789abcdef+")[0]
        for seed, seconds in ((0, 300.0), (4, 120.0))
    ]
    stored = [replace(run, config=replace(run.config, steps=12_345)) for run in stored]
    line = runs.provenance(stored)
    assert "\n" not in line
    for part in ("2 runs", "seeds 0, 4", "12,345 agent steps", "2 to 5 min a run", "Abacus 3000", "torch 9.8.7"):
        assert part in line
    assert "commit 0123456+" in line  # the plus sign says that files differed from the commit
    assert "python -m pixelrl train dqn-cartpole --preset quick --seed 0" in line
    films = replace(stored[0], config=presets.get("cdna", "cpu", steps=12_345))
    earlier = [{"hardware": {"processor": "Loom"}, "versions": {"torch": "1.2.3"}, "commit": "fedcba9876"}]
    moved = runs.provenance([replace(stored[0], meta={**stored[0].meta, "earlier": earlier})])
    assert "a run on Abacus 3000 and Loom, torch 1.2.3 and 9.8.7, commit 0123456+ and fedcba9;" in moved
    elsewhere = replace(stored[1], meta={**stored[1].meta, "hardware": {**hardware, "processor": "Quipu"}})
    assert "a run on Abacus 3000 and Quipu, torch 9.8.7, commit 0123456+;" in runs.provenance([elsewhere, stored[0]])
    on_gpu = replace(stored[0], meta={**stored[0].meta, "hardware": {**hardware, "gpu": "Loom 9"}})
    assert "a run on Abacus 3000 with Loom 9, torch" in runs.provenance([on_gpu])
    alone = runs.provenance([films])
    assert alone.startswith("1 run, seed 0; 12,345 updates; 5 min a run on")


def test_surroundings_are_those_of_this_machine() -> None:
    found = json.loads(json.dumps(surroundings()))
    for package in ("pixelrl", "torch", "numpy", "gymnasium"):
        assert found["versions"][package] == version(package)
    assert found["versions"]["python"] == platform.python_version()
    assert found["hardware"]["cores"] == os.cpu_count()
    assert found["hardware"]["processor"]
    assert (found["hardware"]["gpu"] is not None) == torch.cuda.is_available()


def test_the_commit_is_gits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr("pixelrl.journal.PACKAGE", tmp_path)
    assert commit() == "unknown"

    def git(*words: str) -> str:
        who = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    git("init")
    (tmp_path / "file").write_text("1")
    (tmp_path / "__init__.py").touch()
    git("add", "file")
    git("commit", "--message", "first")
    assert commit() == "unknown"  # a checkout, but not of the package: it only lies in there
    git("add", "__init__.py")
    git("commit", "--message", "second")
    name = git("log", "-1", "--format=%H").strip()
    assert commit() == name
    (tmp_path / "file").write_text("2")
    assert commit() == name + "+"
    monkeypatch.setenv("PATH", "")
    assert commit() == "unknown"


def test_the_command_names_what_differs_from_the_preset() -> None:
    config = presets.get("dqn-cartpole", "quick", seed=3, steps=200, hidden=(16, 8))
    words = runs.command(runs.Run(config, pd.DataFrame(), {}, {}))
    assert words == "python -m pixelrl train dqn-cartpole --preset quick --seed 3 --steps 200 --hidden 16 8"


def test_the_command_can_be_pasted() -> None:
    config = presets.get("sac", "quick", env_kwargs={"videos": "/my videos"})
    assert "--env-kwargs.videos '/my videos'" in runs.command(runs.Run(config, pd.DataFrame(), {}, {}))


@pytest.mark.parametrize(
    ("method", "changes", "name"),
    [
        ("sac", {}, "sac"),
        ("sac", {"env_kwargs": {"mode": "color_easy"}}, "sac"),
        ("sac", {"env_kwargs": {"task": "walker-walk"}}, "sac-walker-walk"),
        ("sac-state", {"env": "Pendulum-v1"}, "sac-state-Pendulum"),
        ("dqn-pixels", {"env": "pixelrl/Atari-v0", "env_kwargs": {"game": "Pong"}}, "dqn-pixels-Atari-Pong"),
        ("a2c", {"env_kwargs": {"game": "asterix"}}, "a2c-asterix"),
    ],
)
def test_one_name_is_for_one_thing_that_was_learned(method: str, changes: dict[str, Any], name: str) -> None:
    assert runs.name_of(presets.get(method, "quick", **changes)) == name


def test_others_are_built_on_a_run_of_their_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (10, 2):
        runs.save(tmp_path / "dqn-cartpole" / f"seed-{seed}", finished(seed)[0])
    os.truncate(tmp_path / "dqn-cartpole" / "seed-10" / "curve.csv", 5)  # nobody asked for that one
    monkeypatch.setenv("PIXELRL_RUNS", str(tmp_path))
    assert runs.first("dqn-cartpole", configs.DQNConfig).config.seed == 2
    with pytest.raises(ValueError, match="dqn-cartpole is a DQNConfig; a CDNAConfig is needed"):
        runs.trained("dqn-cartpole", "quick", configs.CDNAConfig)


def test_the_command_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scene = {"task": "walker-walk", "size": (40, 56), "stack": 1, "camera": "side"}
    config = presets.get("sgqn", "cpu", seed=3, eval_modes=(), consistency=0.25, env_kwargs=scene)
    understood = []
    monkeypatch.setattr(training, "train", lambda config, *rest: understood.append(config) or finished()[0])
    monkeypatch.chdir(tmp_path)
    game = presets.get("dqn-pixels", "cpu", env="pixelrl/Atari-v0", env_kwargs={"game": "Pong", "stack": 4})
    for each in (config, game):
        main(runs.command(runs.Run(each, pd.DataFrame(), {}, {})).split()[3:])
        assert understood.pop() == each


def test_a_training_that_moved_says_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"commit": "a"}
    monkeypatch.setattr("pixelrl.journal.surroundings", lambda: dict(here))
    journal = Journal()
    journal.resume(Journal().state_dict())
    assert journal.meta() == {"seconds": pytest.approx(0, abs=1), "commit": "a"}  # interrupted, but in one place
    here["commit"] = "b"
    places, journal = journal.places, Journal()
    journal.resume({"seconds": 100.0, "places": places})
    assert journal.meta() == {"seconds": pytest.approx(100, abs=1), "commit": "b", "earlier": [{"commit": "a"}]}


def modes_table(mode: str, videos: str, *returns: float) -> pd.DataFrame:
    rows = [(mode, videos, i, value) for i, value in enumerate(returns)]
    return pd.DataFrame(rows, columns=["mode", "videos", "episode", "return"])


def test_returns_in_modes_are_added_replaced_checked_and_stored(tmp_path: Path) -> None:
    folder = tmp_path / "trained"
    runs.save(folder, finished()[0])
    assert runs.read(folder).modes is None
    runs.add_modes(folder, pd.concat([modes_table("train", "", 1.0, 3.0), modes_table("video_hard", "a", 5.0)]))
    runs.add_modes(folder, pd.concat([modes_table("train", "", 7.0, 9.0), modes_table("video_hard", "b", 9.0)]))
    runs.add_modes(folder, modes_table("train", "", 100.0))  # of fewer episodes, which take the place of none
    stored = [runs.read(runs.store(folder, tmp_path / "library"))]
    means = [stats.mode_means(stored, *mode)[0] for mode in (("train", ""), ("video_hard", "a"), ("video_hard", "b"))]
    assert means == [8.0, 5.0, 9.0]
    with pytest.raises(ValueError, match="dqn-cartpole, seed 0, was not played in video_easy a.*pixelrl modes"):
        stats.mode_means(stored, "video_easy", "a")
    with (folder / "modes.csv").open("a") as file:
        file.write("train,,9,1000.0\n")
    with pytest.raises(checkpoint.DamagedError, match=r"modes\.csv is damaged"):
        runs.read(folder)


class Death(BaseException):
    """Stands for the process being killed."""


def kill_at(moment: int, operation: str, patch: pytest.MonkeyPatch) -> None:
    """Let the process die at that call, counted from 0, of an operation of `Path` that takes a target."""
    whole, calls = getattr(Path, operation), count()

    def dying(path: Path, target: Path) -> Path:
        if next(calls) == moment:
            raise Death
        return whole(path, target)

    patch.setattr(Path, operation, dying)


def test_a_death_while_modes_are_added_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for moment in range(4):
        folder = tmp_path / str(moment)
        runs.save(folder, replace(finished()[0], modes=modes_table("train", "", 1.0)))
        with monkeypatch.context() as patch:
            kill_at(moment, "replace", patch)
            if moment < 3:  # the sums of both, the table, the sums
                with pytest.raises(Death):
                    runs.add_modes(folder, modes_table("train", "", 5.0))
            else:
                runs.add_modes(folder, modes_table("train", "", 5.0))
        assert runs.read(folder).modes["return"].tolist() == [1.0 if moment < 2 else 5.0]
        runs.add_modes(folder, modes_table("train", "", 9.0))  # and life goes on
        assert runs.read(folder).modes["return"].tolist() == [9.0]
        assert len((folder / "SHA256SUMS").read_text().splitlines()) == 5


def test_storing_again_leaves_nothing_of_the_old_run(tmp_path: Path) -> None:
    run = finished()[0]
    runs.save(tmp_path / "a", replace(run, modes=modes_table("train", "", 1.0)))
    stored = runs.store(tmp_path / "a", tmp_path / "library")
    assert runs.read(stored).modes["return"].tolist() == [1.0]
    other = {name: tensor + 1 for name, tensor in run.policy.items()}
    runs.save(tmp_path / "a", replace(run, policy=other))
    assert runs.read(runs.store(tmp_path / "a", tmp_path / "library")).modes is None
    assert [path.name for path in stored.parent.iterdir()] == ["seed-0"]


def test_storing_the_same_agent_again_keeps_what_only_the_stored_one_was_played_in(tmp_path: Path) -> None:
    run, library = finished()[0], tmp_path / "library"
    runs.save(tmp_path / "a", run)
    stored = runs.store(tmp_path / "a", library)
    runs.add_modes(stored, pd.concat([modes_table("train", "", 1.0), modes_table("video_hard", "x", 2.0)]))
    assert runs.read(runs.store(tmp_path / "a", library)).modes["return"].tolist() == [1.0, 2.0]
    runs.add_modes(tmp_path / "a", modes_table("video_hard", "x", 3.0))
    assert runs.read(runs.store(tmp_path / "a", library)).modes["return"].tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "cpu"}, "preset: quick -> cpu"),
        ({"lr": 0.5}, "lr: .* -> 0.5"),
        ({"lr": 0.5, "seed": 7}, "lr: .* -> 0.5"),
        ({"env_kwargs": {"sutton_barto_reward": False}}, "env_kwargs: .*True.* -> .*False"),
    ],
)
def test_under_one_name_runs_differ_in_their_seeds_alone(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    run = finished()[0]
    runs.save(tmp_path / "a", run)
    stored = runs.store(tmp_path / "a", tmp_path / "library")
    runs.save(tmp_path / "b", replace(run, config=replace(run.config, **changes)))
    with pytest.raises(ValueError, match=f"seed-0 was trained in another way .{message}"):
        runs.store(tmp_path / "b", tmp_path / "library")
    runs.save(tmp_path / "c", replace(run, config=replace(run.config, seed=7, device="auto", threads=2)))
    runs.store(tmp_path / "c", tmp_path / "library")
    assert sorted(path.name for path in stored.parent.iterdir()) == ["seed-0", "seed-7"]
    assert runs.read(stored).config == run.config


def test_runs_that_build_on_different_networks_are_not_of_one_kind(tmp_path: Path) -> None:
    run = finished()[0]
    for seed, built_on in enumerate(({"cdna": "12ab"}, {}, {"cdna": "12ab"}, {"cdna": "34cd"})):
        each = replace(run, config=replace(run.config, seed=seed), meta={**run.meta, "built_on": built_on})
        runs.save(tmp_path / str(seed), each)
    for seed in range(3):
        runs.store(tmp_path / str(seed), tmp_path / "library")
    with pytest.raises(ValueError, match=r"seed-0 was trained in another way \(another cdna\)"):
        runs.store(tmp_path / "3", tmp_path / "library")


def test_a_death_while_a_run_is_stored_again_loses_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished()[0]
    for moment in range(2):
        source, library = tmp_path / str(moment), tmp_path / f"library {moment}"
        runs.save(source, run)
        stored = runs.store(source, library)
        with monkeypatch.context() as patch:
            kill_at(moment, "rename", patch)
            with pytest.raises(Death):
                runs.store(source, library)
        kept = stored if moment == 0 else stored.with_name(".seed-0.old")
        assert runs.read(kept).meta == run.meta
        other = replace(run, config=replace(run.config, lr=0.5))
        runs.save(tmp_path / "other", other)
        with pytest.raises(ValueError, match="lr"):  # the one that is stored is still in the way
            runs.store(tmp_path / "other", library)
        assert runs.read(stored).meta == run.meta
        assert runs.store(source, library) == stored
        assert [path.name for path in stored.parent.iterdir()] == ["seed-0"]


def test_the_digest_is_of_all_parameters_of_all_runs_in_order() -> None:
    one = finished()[0]
    name = next(iter(one.policy))
    other = replace(one, policy={**one.policy, name: one.policy[name] + 1e-3})
    digests = [runs.digest(group) for group in ([one], [other], [one, other], [other, one], [one, one])]
    assert len(set(digests)) == 5
    assert runs.digest([replace(one, policy=dict(reversed(one.policy.items())))]) == digests[0]


def test_a_training_goes_on_with_what_it_began_with() -> None:
    before = Journal({"cdna": "12ab"}).state_dict()
    assert "built_on" not in Journal().meta()
    for same in (Journal({"cdna": "12ab"}), Journal()):
        same.resume(before)
        assert same.meta()["built_on"] == {"cdna": "12ab"}
    with pytest.raises(ValueError, match="cdna is not what it was when this training began"):
        Journal({"cdna": "34cd"}).resume(before)
