"""Checkpoints: what goes in comes out, and nothing that happens while one is written harms those before it."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pixelrl import checkpoint

STATE = {
    "agent": {
        "weights": torch.randn(3, 4),
        "turned": torch.arange(6).reshape(2, 3).T,  # not contiguous
        "halves": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "flags": torch.tensor([True, False]),
        "number": torch.tensor(3.25, dtype=torch.float64),
        "bytes": torch.arange(256, dtype=torch.uint8),
        "none at all": torch.zeros(0, 5),
        "optimizer": {"state": {0: {"step": torch.tensor(7.0)}, 12: {}}, "groups": [{"betas": (0.9, 0.999)}]},
    },
    "rng": np.random.default_rng(3).bit_generator.state,
    "torch_rng": torch.get_rng_state(),
    "rows": [{"return": 1.25, "train_return": float("nan")}, {"return": float("inf")}],
    "nothing": None,
    "words": 'größer, 日本語, "quoted"\n',
    "yes": True,
    "small": 5e-324,
    "empty": [[], {}],
}


def assert_same(one: Any, other: Any) -> None:
    """Equality that looks into tensors and containers; a tuple may have become a list."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, float) and math.isnan(one):
        assert math.isnan(other)
    else:
        assert type(one) is type(other)
        assert one == other


def test_a_nested_state_comes_back(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 3, STATE)
    back = checkpoint.newest(tmp_path)
    assert_same(STATE, back)
    generator = np.random.default_rng(0)
    generator.bit_generator.state = back["rng"]
    assert generator.integers(2**60) == np.random.default_rng(3).integers(2**60)


def test_a_state_without_tensors_comes_back(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "checkpoint-1", {"a": [1, 2]})
    assert checkpoint.read(tmp_path / "checkpoint-1") == {"a": [1, 2]}


def test_memory_of_numpy_is_written_as_it_was_then(tmp_path: Path) -> None:
    array = np.zeros(5)
    checkpoint.save(tmp_path, 1, {"buffer": torch.from_numpy(array)})
    array[:] = 1
    assert_same(checkpoint.newest(tmp_path), {"buffer": torch.zeros(5, dtype=torch.float64)})


def test_nothing_is_a_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a pickle was used")

    for module, names in (
        (pickle, ("dump", "dumps", "load", "loads", "Pickler", "Unpickler")),
        (torch, ("save", "load")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, refuse)
    checkpoint.save(tmp_path, 1, STATE)
    assert_same(STATE, checkpoint.newest(tmp_path))
    (folder,) = tmp_path.iterdir()
    assert {file.name for file in folder.iterdir()} == {"tensors.safetensors", "state.json", "SHA256SUMS"}
    json.loads((folder / "state.json").read_text())
    raw = (folder / "tensors.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])  # the format: a length, a JSON header, bytes
    assert [2, 3] not in [entry["shape"] for entry in header.values()]
    assert [3, 2] in [entry["shape"] for entry in header.values()]


def test_sums_are_those_of_sha256sum(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, STATE)
    folder = checkpoint.found(tmp_path)[0]
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digits, name = line.split("  ")
        assert digits == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, in order."""
    return sorted(int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*"))


def test_the_two_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 90, 1_000, 20_000):
        checkpoint.save(tmp_path, step, {"step": step})
        assert checkpoint.newest(tmp_path) == {"step": step}
    assert steps(tmp_path) == [1_000, 20_000]
    checkpoint.remove_all(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_there_may_be_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) is None


def flip(path: Path, position: float = 0.5) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a flipped bit in the tensors": lambda folder: flip(folder / "tensors.safetensors"),
    "a flipped bit in the rest": lambda folder: flip(folder / "state.json"),
    "a flipped bit in the sums": lambda folder: flip(folder / "SHA256SUMS", 0.0),
    "a file cut short": lambda folder: os.truncate(folder / "state.json", 10),
    "an empty file": lambda folder: os.truncate(folder / "tensors.safetensors", 0),
    "an empty list of sums": lambda folder: os.truncate(folder / "SHA256SUMS", 0),
    "a short list of sums": lambda folder: os.truncate(folder / "SHA256SUMS", 80),
    "no tensors": lambda folder: (folder / "tensors.safetensors").unlink(),
    "no rest": lambda folder: (folder / "state.json").unlink(),
    "no sums": lambda folder: (folder / "SHA256SUMS").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path: Path, damage: str) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"step": step, "tensor": torch.full((100,), step)})
    DAMAGE[damage](tmp_path / "checkpoint-0000000002")
    with pytest.raises(checkpoint.DamagedError, match="checkpoint-0000000002"):
        checkpoint.read(tmp_path / "checkpoint-0000000002")
    with pytest.warns(UserWarning, match="checkpoint-0000000002.*checkpoint before it is used"):
        state = checkpoint.newest(tmp_path)
    assert state["step"] == 1
    assert state["tensor"].tolist() == [1] * 100


def go_back(folder: Path) -> None:
    """Damage the newest checkpoint, and read the one of step 100 in its stead."""
    flip(checkpoint.found(folder)[0] / "state.json")
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoint.newest(folder) == {"step": 100}


def test_a_training_that_went_back_can_save_again(tmp_path: Path) -> None:
    for step in (100, 200):
        checkpoint.save(tmp_path, step, {"step": step})
    go_back(tmp_path)
    checkpoint.save(tmp_path, 150, {"step": 150})  # which is what is to be kept, not the damaged one ahead
    assert checkpoint.newest(tmp_path) == {"step": 150}
    assert steps(tmp_path) == [100, 150]


def test_after_a_damaged_checkpoint_the_two_newest_whole_ones_are_kept(tmp_path: Path) -> None:
    for step in (100, 200):
        checkpoint.save(tmp_path, step, {"step": step})
    go_back(tmp_path)
    checkpoint.save(tmp_path, 300, {"step": 300})
    go_back(tmp_path)


def test_where_all_are_damaged_nothing_begins_anew_by_itself(tmp_path: Path) -> None:
    """A folder that is not wholly there yet, as on a network drive, may be whole again tomorrow."""
    for step in (100, 200):
        checkpoint.save(tmp_path, step, {"step": step})
        (tmp_path / f"checkpoint-{step:010d}" / "SHA256SUMS").rename(tmp_path / f"sums-{step}")
    with (
        pytest.warns(UserWarning, match="0200 has no SHA256SUMS"),
        pytest.raises(checkpoint.DamagedError, match="0100 has no SHA256SUMS.*No other checkpoint is whole"),
    ):
        checkpoint.newest(tmp_path)
    for step in (100, 200):
        (tmp_path / f"sums-{step}").rename(tmp_path / f"checkpoint-{step:010d}" / "SHA256SUMS")
    assert checkpoint.newest(tmp_path) == {"step": 200}


def test_the_same_step_can_be_saved_again(tmp_path: Path) -> None:
    for step in (100, 200):
        checkpoint.save(tmp_path, step, {"step": step})
    flip(tmp_path / "checkpoint-0000000200" / "state.json")
    checkpoint.save(tmp_path, 200, {"step": 200})
    assert checkpoint.newest(tmp_path) == {"step": 200}
    assert steps(tmp_path) == [100, 200]


class Death(BaseException):
    """Stands for the process being killed."""


class Reaper:
    """An audit hook (they cannot be taken out again) that kills at the n-th operation on files from now on."""

    FATAL = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir")

    def __init__(self) -> None:
        self.left: int | None = None
        sys.addaudithook(self.hook)

    def hook(self, event: str, args: tuple) -> None:
        if self.left is not None and event in self.FATAL:
            self.left -= 1
            if self.left <= 0:
                raise Death


def assert_all_whole(folder: Path) -> None:
    """Every folder that is named as a checkpoint is one."""
    for path in folder.glob("checkpoint-*"):
        assert path.name == f"checkpoint-{checkpoint.read(path)['step']:010d}"


def test_a_death_at_any_operation_harms_nothing(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path / "before", step, {"step": step, "tensor": torch.ones(step)})
    reaper = Reaper()
    deaths = 0
    for moment in range(1, 1_000):
        folder = shutil.copytree(tmp_path / "before", tmp_path / str(moment))
        reaper.left = moment
        try:
            checkpoint.save(folder, 3, {"step": 3, "tensor": torch.ones(3)})
            break
        except Death:
            deaths += 1
        finally:
            reaper.left = None
        assert_all_whole(folder)
        assert checkpoint.newest(folder)["step"] in (2, 3)
        checkpoint.save(folder, 4, {"step": 4})  # and life goes on
        assert checkpoint.newest(folder) == {"step": 4}
        assert len(steps(folder)) == 2
        checkpoint.remove_all(folder)
        assert list(folder.iterdir()) == []
    assert deaths > 10


def save_for_ever(folder: Path, step: int) -> None:
    """Write one large checkpoint after another."""
    while True:
        step += 1
        checkpoint.save(folder, step, {"step": step, "tensor": torch.full((1_000_000,), step)})


def die_often(folder: Path, times: int) -> None:
    """Fork a process that saves, kill it at a random moment, and look at what it left; again and again."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)  # a forked process has none of the threads that its parent may have started
    chance = random.Random(0)
    step = caught = 0
    for _ in range(times):
        child = os.fork()
        if child == 0:
            save_for_ever(folder, step)
        while not any(saved > step for saved in steps(folder)):
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "the process ended by itself"
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.1))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        caught += (folder / checkpoint.SCRAP).exists()
        assert_all_whole(folder)
        state = checkpoint.newest(folder)
        assert state["step"] > step
        assert (state["tensor"] == state["step"]).all()
        step = state["step"]
    assert caught > 0, "no death came in the middle of a write"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_process_leaves_whole_checkpoints(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=die_often, args=(tmp_path, 6))
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_a_restored_optimiser_steps_as_the_first_one_would(kind: type, fused: bool, tmp_path: Path) -> None:
    """Also for a parameter that lies channels-last, which files do not know."""
    weights = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))

    def step(parameter: nn.Parameter, optimizer: torch.optim.Optimizer, seed: int) -> None:
        slope = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
        parameter.grad = slope.contiguous(memory_format=torch.channels_last)
        optimizer.step()

    first = nn.Parameter(weights.clone().contiguous(memory_format=torch.channels_last))
    optimizer = kind([first], lr=0.1, fused=fused)
    step(first, optimizer, 1)
    checkpoint.save(tmp_path, 1, {"optimizer": optimizer.state_dict()})
    second = nn.Parameter(first.detach().clone(memory_format=torch.preserve_format))
    other = kind([second], lr=0.1, fused=fused)
    checkpoint.restore(other, checkpoint.newest(tmp_path)["optimizer"])
    for seed in (2, 3):
        step(first, optimizer, seed)
        step(second, other, seed)
    assert torch.equal(first, second)
