"""What one update costs one core at preset "full", for each arm of the paper's comparison and for the predictor.

    python benchmarks/full.py

Pictures are noise, and the predictor has learned nothing, which makes no difference. Seconds are those that the
processor worked, so that other work on the machine matters little. The table of chapter 9 comes from here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from predictive import with_past
from updates import random_batch, spaces

from pixelrl import presets
from pixelrl.agents import AGENTS
from pixelrl.cdna import padded, sequence_loss
from pixelrl.foresight import CDNAPredictor
from pixelrl.predictor import build_model

SIZE = 84
ARMS = ("sac", "predictive-sac", "sgqn", "predictive-sgqn")


def processor_seconds(work: Callable[[], object]) -> float:
    """Of the second call."""
    work()
    start = time.process_time()
    work()
    return time.process_time() - start


def row(name: str, spent: float, updates: int) -> str:
    """A line of the table."""
    return f"{name:18}{spent:8.1f} s an update, {updates:8,} updates, {spent * updates / 3600:8,.0f} core-hours"


def main() -> None:
    torch.set_num_threads(1)
    films = presets.get("cdna-84", "full", device="cpu")
    model, part = build_model(films, 1), 4  # a part of a batch, for memory's sake
    frames = padded(torch.randint(0, 256, (part, films.length, 3, SIZE, SIZE), dtype=torch.uint8))
    actions = 2 * torch.rand(part, films.length - 1, 1) - 1
    spent = processor_seconds(lambda: sequence_loss(model, frames, actions, films.context, share=0.5).backward())
    print(row("cdna-84", spent * films.batch_size / part, films.steps))
    for name in ARMS:
        looks_ahead = name.startswith("predictive")
        config = presets.get(name, "full", device="cpu", **({"predictor": "copy"} if looks_ahead else {}))
        agent, batch = AGENTS[type(config)](config, *spaces(SIZE)), random_batch(config.batch_size, SIZE)
        if looks_ahead:
            agent.predictor, batch = CDNAPredictor(model), with_past(batch, config.context)
        spent = processor_seconds(lambda agent=agent, batch=batch: agent.update(batch))
        print(row(name, spent, config.steps - config.learning_starts))


if __name__ == "__main__":
    main()
