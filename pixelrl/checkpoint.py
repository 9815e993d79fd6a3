"""A training's whole state on disk: written whole or not at all, checked when read, never a pickle.

A checkpoint is a folder with the tensors (safetensors), everything else (JSON), and the SHA-256 sums of both.
It is written under another name, flushed to the disk, and only then renamed, so that a folder with the
right name is a whole checkpoint. The two newest are kept; where the newest is damaged, the one before serves.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

SUMS = "SHA256SUMS"
TENSORS, REST = "tensors.safetensors", "state.json"
SCRAP = ".scrap"  # what is being written or removed; what a killed process leaves under this name, the next one clears


class DamagedError(RuntimeError):
    """Files are not what they were when they were written."""


def split(state: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Replace the tensors of a nested state by names, and collect them in `tensors`; the rest can be JSON."""
    if isinstance(state, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = state.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(state, dict):
        return {"dict": [[key, split(value, tensors)] for key, value in state.items()]}
    if isinstance(state, (list, tuple)):
        return {"list": [split(value, tensors) for value in state]}
    return {"value": state}


def join(tree: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    """The reverse of `split`; tuples come back as lists."""
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: join(value, tensors) for key, value in content}
    if kind == "list":
        return [join(value, tensors) for value in content]
    return content


def restore(part: nn.Module | Optimizer, state: dict[str, Any]) -> None:
    """Give a network or an optimiser its state back.

    What an optimiser remembers of a parameter then lies in memory as the parameter does: a fused step goes through both
    from the first number to the last, in whatever order they lie.
    """
    part.load_state_dict(state)
    if isinstance(part, Optimizer):
        for parameter, memory in part.state.items():
            for name, values in memory.items():
                if values.dim() > 1:
                    memory[name] = torch.empty_like(parameter).copy_(values)


def file_sum(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_sums(folder: Path, names: Iterable[str], coming: Mapping[str, Path] | None = None) -> None:
    """List the sums of these files of a folder, in the format of `sha256sum`, when they are on the disk itself.

    Args:
        folder: where the list goes.
        names: of files in it.
        coming: by name, files that are about to take the place of others, so that until then the sums of both will do.
    """
    listed = [*((name, folder / name) for name in names), *(coming or {}).items()]
    for _, file in listed:
        flush(file)
    partial = folder / f".{SUMS}"
    partial.write_text("".join(f"{file_sum(file)}  {name}\n" for name, file in listed))
    flush(partial)
    partial.replace(folder / SUMS)
    flush(folder)


def check_sums(folder: Path, names: Iterable[str]) -> None:
    """Compare these files of a folder with their sums.

    Raises:
        DamagedError: a file is missing or was changed, or its sum is not in the list.
    """
    if not (folder / SUMS).is_file():
        raise DamagedError(f"{folder} has no {SUMS}: it is no finished run or checkpoint, or was damaged.")
    lines = (folder / SUMS).read_text(errors="replace").splitlines()
    expected = {(name, digits) for digits, _, name in (line.partition("  ") for line in lines)}
    for name in names:
        if not (folder / name).is_file():
            raise DamagedError(f"{folder}: {name} is missing. Copy the folder again from where it was whole.")
        if (name, file_sum(folder / name)) not in expected:
            raise DamagedError(f"{folder / name} is damaged: its checksum is not the one in {SUMS}.")


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint folder; `path` appears whole or not at all, also when the power fails."""
    partial = path.with_name(SCRAP)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors: dict[str, torch.Tensor] = {}
    tree = split(state, tensors)
    save_tensors(tensors, partial / TENSORS)
    (partial / REST).write_text(json.dumps(tree))
    write_sums(partial, (TENSORS, REST))
    partial.rename(path)
    flush(path.parent)


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write tensors by name, as safetensors.

    Raises:
        OSError: the disk is full, or cannot be written to.
    """
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from error


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint folder.

    Raises:
        DamagedError: its files are not as they were written.
    """
    check_sums(path, (TENSORS, REST))
    return join(json.loads((path / REST).read_text()), load_file(path / TENSORS))


def remove(path: Path) -> None:
    """Remove a checkpoint folder; it goes under another name first, so that no half of one keeps its name."""
    scrap = path.with_name(SCRAP)
    shutil.rmtree(scrap, ignore_errors=True)
    path.rename(scrap)
    shutil.rmtree(scrap)


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write the checkpoint of an agent step into a training's folder, and remove all but it and the one before."""
    path = folder / f"checkpoint-{step:010d}"
    if path in found(folder):  # the same step once more
        remove(path)
    write(path, state)
    before = [old for old in found(folder) if old.name < path.name]
    for other in found(folder):
        if other not in (path, *before[:1]):
            remove(other)


def remove_all(folder: Path) -> None:
    """Remove a training's checkpoints, once it is finished."""
    for path in found(folder):
        remove(path)
    shutil.rmtree(folder / SCRAP, ignore_errors=True)


def found(folder: Path) -> list[Path]:
    """The checkpoints of a training's folder, the newest first."""
    return sorted(folder.glob("checkpoint-*"), reverse=True)


def newest(folder: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint of a training's folder, None where none was written.

    Where the newest is damaged, a warning says so, it is removed, and the one before it is read.

    Raises:
        DamagedError: all of them are damaged; they are left as they are.
    """
    paths = found(folder)
    for number, path in enumerate(paths):
        try:
            state = read(path)
        except DamagedError as error:
            if path == paths[-1]:
                raise DamagedError(f"{error} No other checkpoint is whole; delete {folder} to begin anew.") from error
            warnings.warn(f"{error} The checkpoint before it is used.", stacklevel=2)
        else:
            for damaged in paths[:number]:
                remove(damaged)
            return state
    return None
