"""A grid of trainings: nothing is trained twice, nothing that dies is lost, and nobody writes where another does."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_train import assert_same

from pixelrl import checkpoint, experiments, presets, runs, stats
from pixelrl.__main__ import main
from pixelrl.train import alone_in, train

NO_MODES = experiments.Modes((), 1, "procedural")
SMALL = {"steps": 400, "learning_starts": 60, "batch_size": 16, "eval_every": 100, "device": "cpu"}
SMALL |= {"checkpoint_seconds": 0.0}


@pytest.fixture(autouse=True)
def trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where they lie, in the processes of workers as well."""
    monkeypatch.setenv("PIXELRL_TRAININGS", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


def test_a_grid_has_every_method_of_a_seed_before_the_next_seed() -> None:
    configs = experiments.grid(["sac", "svea"], [0, 3], ["cartpole-swingup", "walker-walk"], "quick")
    names = [f"{runs.folder_for(config).parent.parent.name} {config.seed}" for config in configs]
    first = ["sac 0", "svea 0", "sac-walker-walk 0", "svea-walker-walk 0"]
    assert names == first + [name.replace("0", "3") for name in first]
    assert experiments.grid(["sac", "sac"], [1, 1], [], "quick") == [presets.get("sac", "quick", seed=1)]


def test_a_grid_is_trained_once(trainings: Path, capfd: pytest.CaptureFixture) -> None:
    command = "experiment --methods dqn-cartpole dqn-cartpole-no-target --seeds 0 1 --preset quick --workers 2 --modes"
    main(command.split())
    finished = sorted(trainings.glob("*/quick/*/SHA256SUMS"))
    assert len(finished) == 4
    assert "4 trainings, 0 of them finished before" in capfd.readouterr().out
    times = [path.stat().st_mtime_ns for path in finished]
    main(command.split())
    assert "4 trainings, 4 of them finished before" in capfd.readouterr().out
    assert [path.stat().st_mtime_ns for path in finished] == times


def test_a_grid_ends_with_a_table_of_what_came_of_it(capfd: pytest.CaptureFixture) -> None:
    command = "experiment --methods svea --seeds 0 1 --preset quick --workers 2 --episodes 1"
    main([*command.split(), "--modes", "train", "video_hard", "--videos", "procedural"])
    lines = capfd.readouterr().out.splitlines()[-2:]
    assert lines[0].split() == ["method", "seeds", "hours", "train", "video_hard"]
    assert lines[1].split()[:2] == ["svea", "2"]
    played = [runs.read(runs.folder_for(presets.get("svea", "quick", seed=seed))) for seed in (0, 1)]
    assert lines[1].endswith(str(stats.estimate(stats.mode_means(played, "video_hard", "procedural"), stats.iqm)))
    assert lines[1].split()[3] == str(stats.estimate(stats.mode_means(played, "train"), stats.iqm)).split()[0]
    command = "experiment --methods dqn-cartpole cdna svea --seeds 0 --preset quick --workers 1 --episodes 1"
    main([*command.split(), "--modes", "video_hard", "--videos", "procedural"])
    lines = capfd.readouterr().out.splitlines()[-3:]
    assert [line.split()[0] for line in lines] == ["method", "dqn-cartpole", "svea"]
    assert [len(line.split()) for line in lines] == [5, 4, 5]  # in no mode but its own


def test_what_has_no_modes_and_what_has_no_task(trainings: Path) -> None:
    """With the modes that the command line has by itself."""
    main("experiment --methods dqn-cartpole cdna --seeds 0 --preset quick --workers 1".split())
    assert len(list(trainings.glob("*/quick/*/SHA256SUMS"))) == 2
    with pytest.raises(ValueError, match="dqn-cartpole has no task"):
        experiments.grid(["dqn-cartpole"], [0], ["walker-walk"], "quick")
    with pytest.raises(ValueError, match="no task 'walker-wlak' in the suite"):
        experiments.grid(["sac"], [0], ["walker-wlak"], "quick")
    with pytest.raises(ValueError, match="workers is 0"):
        experiments.run_all([], NO_MODES, workers=0)


def test_a_damaged_run_is_one_problem_of_many(capfd: pytest.CaptureFixture) -> None:
    good, bad = (presets.get("dqn-cartpole", "quick", device="cpu", seed=seed) for seed in (0, 1))
    experiments.work(bad, NO_MODES)
    (runs.folder_for(bad) / "curve.csv").write_text("step\n")
    assert not experiments.run_all([bad, good], NO_MODES)
    assert "curve.csv is damaged" in capfd.readouterr().out
    assert runs.is_finished(runs.folder_for(good))


def test_a_run_with_other_numbers_is_not_the_one_that_is_asked_for(capfd: pytest.CaptureFixture) -> None:
    config = presets.get("dqn-cartpole", "quick", device="cpu")
    train(replace(config, steps=150), runs.folder_for(config))
    assert not experiments.run_all([config], NO_MODES)
    assert "holds another training (steps: 150 -> 300)" in capfd.readouterr().out


def test_only_gpus_that_are_allowed_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments.torch.cuda, "device_count", lambda: 2)
    for allowed, names in (("2,5", ["2", "5"]), ("MIG-1a,MIG-2b", ["MIG-1a", "MIG-2b"]), ("", ["0", "1"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
        assert experiments.visible_gpus() == names


def test_a_process_sees_its_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    seen = []
    monkeypatch.setattr(experiments, "work", lambda config, modes: seen.append(os.environ["CUDA_VISIBLE_DEVICES"]))
    for gpu in ("5", ""):
        experiments.work_and_tell(None, None, gpu, SimpleNamespace(send=seen.append))
    assert seen == ["5", "", "5", ""]  # what it saw, and that nothing went wrong; without a GPU, it stays as it was


def test_a_process_that_is_always_killed_is_given_up_and_its_place_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    crew, tries = experiments.Crew(experiments.Modes((), 1, "procedural"), ["3"]), []
    monkeypatch.setattr(crew, "try_once", lambda config, gpu: tries.append(gpu))
    assert crew.train(None) == "its process was killed 3 times"
    assert tries == ["3", "3", "3"]
    assert crew.places.get_nowait() == "3"


def test_modes_that_change_nothing_are_refused() -> None:
    config = presets.get("dqn-cartpole", "quick", device="cpu")
    experiments.work(config, NO_MODES)
    with pytest.raises(ValueError, match="the scene of dqn-cartpole is one that no mode changes"):
        experiments.play_modes(runs.folder_for(config), experiments.Modes(("train",), 1, "procedural"))
    with pytest.raises(ValueError, match="episodes is 0"):
        experiments.Modes(("train",), 0, "procedural").check()


def test_agents_are_played_in_the_modes_that_are_missing() -> None:
    config = presets.get("sac", "quick", device="cpu")
    experiments.work(config, experiments.Modes(("train",), 1, "procedural"))
    folder = runs.folder_for(config)
    first = runs.read(folder).modes
    experiments.work(config, experiments.Modes(("train", "color_easy"), 1, "procedural"))
    both = runs.read(folder).modes
    assert both["mode"].tolist() == ["train", "color_easy"]
    pd.testing.assert_frame_equal(both.iloc[:1], first)
    assert experiments.done_with(config, experiments.Modes(("color_easy",), 1, "procedural"))
    assert not experiments.done_with(config, experiments.Modes(("video_easy",), 1, "procedural"))


def wait_for(what: Callable[[], object], seconds: float = 120) -> None:
    """Until it is so; a test that waits in vain fails."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_killed_worker_is_replaced_and_the_run_is_the_unbroken_one() -> None:
    config = presets.get("dqn-cartpole", "quick", **SMALL)
    folder = runs.folder_for(config)
    crew, outcome = experiments.Crew(NO_MODES, [""]), []
    thread = threading.Thread(target=lambda: outcome.append(crew.train(config)))
    thread.start()
    wait_for(lambda: checkpoint.found(folder))
    (worker,) = crew.processes
    os.kill(worker.pid, signal.SIGKILL)
    thread.join()
    assert worker.exitcode == -signal.SIGKILL
    assert outcome == [""]
    assert_same(train(config), runs.read(folder))


def test_whoever_stops_a_grid_stops_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first training is interrupted by the one who waits, and no other begins."""
    configs = [presets.get("dqn-cartpole", "quick", **{**SMALL, "steps": 100_000}, seed=seed) for seed in range(3)]
    folders = [runs.folder_for(config) for config in configs]

    def interrupted(running: dict) -> None:
        wait_for(lambda: checkpoint.found(folders[0]))
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        experiments.run_here(configs, NO_MODES, [""], experiments.Progress(3))
    assert not multiprocessing.active_children()
    assert checkpoint.newest(folders[0])["step"] < 100_000
    assert not folders[1].exists()


def test_what_is_wrong_is_said_once_and_the_others_are_trained(capfd: pytest.CaptureFixture) -> None:
    good = presets.get("dqn-cartpole", "quick", device="cpu")
    bad = replace(good, seed=1, batch_size=10_000, env="pixelrl/NoSuchThing-v0")
    assert not experiments.run_all([bad, good], NO_MODES, workers=1, per_gpu=1)
    assert capfd.readouterr().out.count("no environment 'pixelrl/NoSuchThing-v0'") == 1
    assert runs.is_finished(runs.folder_for(good))


def test_a_predictor_that_is_nowhere_is_trained_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    for path in runs.library().iterdir():
        if path.name != "cdna-48":
            (library / path.name).symlink_to(path)
    monkeypatch.setenv("PIXELRL_RUNS", str(library))
    films = presets.get("cdna-48", "quick")
    agents = [presets.get(name, "quick") for name in ("predictive-sac", "predictive-sgqn-copy")]
    assert experiments.missing_predictors(agents[1:]) == []
    assert experiments.missing_predictors(agents) == [films]
    assert experiments.run_all([*agents, films], NO_MODES)
    assert experiments.missing_predictors(agents) == []
    assert capfd.readouterr().out.count(str(runs.folder_for(films))) == 1
    assert runs.is_finished(runs.folder_for(agents[0]))


def test_a_predictor_of_no_use_is_missed_before_it_is_trained(
    monkeypatch: pytest.MonkeyPatch, trainings: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIXELRL_RUNS", str(tmp_path / "library"))
    configs = experiments.grid(["sgqn", "predictive-sgqn"], [0], ["walker-walk"], "quick")
    with pytest.raises(ValueError, match="cdna-48 was trained on films of .*; the agent's task is walker-walk"):
        experiments.run_all(configs, NO_MODES)
    assert not list(trainings.glob("*/quick"))


def test_videos_that_are_not_there_are_missed_before_anything_is_trained(trainings: Path, tmp_path: Path) -> None:
    modes = experiments.Modes(("train", "video_hard"), 1, str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        experiments.run_all([presets.get("sac", "quick")], modes)
    assert not (trainings / "sac").exists()


def hold(folder: Path, ready: object, done: object) -> None:
    with alone_in(folder):
        ready.set()
        done.wait(60)


def test_two_workers_never_write_one_run(trainings: Path) -> None:
    config = presets.get("dqn-cartpole", "quick", device="cpu")
    folder = runs.folder_for(config)
    folder.mkdir(parents=True)
    spawn = multiprocessing.get_context("spawn")
    ready, done = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(folder, ready, done))
    other.start()
    assert ready.wait(60)
    with pytest.raises(RuntimeError, match="trained by another process"):
        train(config, folder)
    assert not (folder / "curve.csv").exists()
    other.kill()  # and with it goes its lock
    other.join()
    train(config, folder)
    assert runs.is_finished(folder)


def test_a_full_disk_is_one_clear_error_and_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = presets.get("dqn-cartpole", "quick", **SMALL)
    folder, written = runs.folder_for(config), []
    save = checkpoint.save_file

    def full(tensors: dict, path: Path) -> None:
        written.append(path)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        if len(written) == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))  # of this one, no more can be written
        try:
            save(tensors, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match=r"tensors\.safetensors could not be written"):
        experiments.work(config, NO_MODES)
    assert len(checkpoint.found(folder)) == 2
    assert all(checkpoint.read(path) for path in checkpoint.found(folder))
    experiments.work(config, NO_MODES)
    assert_same(train(config), runs.read(folder))


def test_the_table_has_a_row_for_each_method() -> None:
    config = presets.get("sac", "quick")
    played = pd.DataFrame({"mode": ["video_easy"] * 2, "videos": ["x"] * 2, "episode": [0, 1], "return": [10.0, 30.0]})
    group = [
        runs.Run(config, pd.DataFrame(), {"seconds": 3600.0, "final_returns": [value] * 3}, {}, played)
        for value in (100.0, 200.0)
    ]
    table = experiments.table({"SAC": group}, {"easy": ("video_easy", "x")})
    assert table.loc[0].tolist() == ["SAC", 2, "1.0", "150 [100, 200]", "20 [20, 20]"]
    alone = experiments.table({"SAC": group[:1]}, {"easy": ("video_easy", "x")})
    assert alone.loc[0].tolist() == ["SAC", 1, "1.0", "100", "20"]


def test_what_a_grid_takes_is_told_from_stored_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIXELRL_RUNS", str(tmp_path / "library"))
    config = presets.get("dqn-cartpole", "quick", device="cpu")
    assert experiments.needed([config], 1) == ""
    run = train(config)
    run.meta["seconds"] = 7200.0
    runs.save(tmp_path / "library" / "dqn-cartpole" / "seed-0", run)
    assert "about 3.0 h, 2 at a time" in experiments.needed([replace(config, seed=i) for i in range(3)], 2)
    (tmp_path / "library" / "dqn-cartpole" / "seed-0" / "curve.csv").write_text("step\n")
    assert experiments.needed([config], 1) == ""


def test_ray_trains_the_same_grid(monkeypatch: pytest.MonkeyPatch, trainings: Path) -> None:
    utils = pytest.importorskip("ray.cluster_utils")
    cluster = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    configs = [presets.get("dqn-cartpole", "quick", seed=seed, device="cpu") for seed in (0, 1)]
    broken = replace(configs[0], seed=2, env="pixelrl/NoSuchThing-v0")
    try:
        assert not experiments.run_all([*configs, broken], NO_MODES, workers=2, per_gpu=1)
    finally:
        cluster.shutdown()
    assert all(runs.is_finished(runs.folder_for(config)) for config in configs)
    assert np.isfinite(runs.read(runs.folder_for(configs[1])).meta["final_returns"]).all()
