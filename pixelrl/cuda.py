"""Where torch computes, and where its random numbers stand; and CUDA graphs: an update that is launched as a whole.

An update is some hundreds of small kernels, and a GPU has done with one before Python has named the next. A CUDA
graph is the list of them all, which the GPU works through by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pixelrl.replay import Batch

WARM_UP = 3  # updates before the recording, in which libraries choose their algorithms and optimisers make their states


def chosen_device(name: str) -> str:
    """`cpu` or `cuda`; of `auto`, `cuda` where there is one.

    Raises:
        ValueError: `cuda` is asked for, and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, and torch finds no GPU here; with auto it takes the processor.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def fused(device: torch.device) -> dict[str, bool]:
    """For an optimiser: all parameters in one step, which on a GPU can be recorded."""
    return {"fused": True, "capturable": device.type == "cuda"}


def random_states() -> dict[str, Any]:
    """Where torch's random numbers stand, on the processor and on the GPU that is in use; for a checkpoint."""
    on_gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    return {"torch_rng": torch.get_rng_state(), "cuda_rng": on_gpu}


def set_random_states(state: dict[str, Any]) -> None:
    """Go on from where `random_states` found them; what else a checkpoint holds is left alone."""
    torch.set_rng_state(state["torch_rng"])
    if torch.cuda.is_available() and state["cuda_rng"]:  # none where a processor has begun
        torch.cuda.set_rng_state(state["cuda_rng"][0])


@contextmanager
def randomness_kept() -> Iterator[None]:
    """Whatever is drawn within, torch's random numbers go on afterwards as if nothing had been."""
    state = random_states()
    try:
        yield
    finally:
        set_random_states(state)


class RecordedUpdate:
    """An agent's `update`, which is recorded at its fourth call.

    A recording holds addresses, not tensors: a batch is copied to where the recorded one lay, and what the agent owns
    must stay where it is. So a checkpoint is loaded before the first call, and batches keep their size.

    Args:
        update: of an agent on a GPU. It takes its randomness from torch alone, and does not wait for results.
        device: that GPU.
    """

    def __init__(self, update: Callable[[Batch], dict[str, torch.Tensor]], device: torch.device) -> None:
        self.update, self.device = update, device
        self.calls = 0
        self.graph = torch.cuda.CUDAGraph()
        self.batch: Batch | None = None  # where the recorded update finds its batch
        self.metrics: dict[str, torch.Tensor] = {}  # and where it leaves what it found out

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One gradient step, as the update takes it."""
        batch = batch.to(self.device)
        self.calls += 1
        if self.calls <= WARM_UP:
            return self.warm_up(batch)
        if self.batch is None:
            self.record(batch)
        for place, values in zip(self.batch, batch, strict=True):
            if isinstance(values, torch.Tensor):
                place.copy_(values)
        self.graph.replay()
        return {name: values.clone() for name, values in self.metrics.items()}

    def warm_up(self, batch: Batch) -> dict[str, torch.Tensor]:
        """An update as it is written, on a stream of its own, as a recording will be."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            metrics = self.update(batch)
        torch.cuda.current_stream().wait_stream(stream)
        return metrics

    def record(self, batch: Batch) -> None:
        """Write down what an update does; nothing is computed yet."""
        self.batch = Batch(*(x.clone() if isinstance(x, torch.Tensor) else x for x in batch))
        with torch.cuda.graph(self.graph):
            self.metrics = self.update(self.batch)
