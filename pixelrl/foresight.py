"""What foresees frames for an agent that learns: a trained network, the simulator itself, and controls that know less.

All have one interface. They are shown some transitions, and are then told one action after another.
"""

from __future__ import annotations

from inspect import signature
from typing import Any, Protocol

import numpy as np
import torch

from pixelrl import envs, runs
from pixelrl.cdna import CDNA, as_bytes, as_numbers, cropped, padded, remembered
from pixelrl.configs import CDNAConfig, PredictiveSACConfig, PredictiveSGQNConfig
from pixelrl.envs.control import control_pixels
from pixelrl.footage import TASKS
from pixelrl.predictor import load_model
from pixelrl.replay import Batch

USUAL = {name: argument.default for name, argument in signature(control_pixels).parameters.items()}


class Predictor(Protocol):
    """What foresees frames: it is shown the past, and then told one action after the other."""

    def begin(self, batch: Batch) -> None:
        """From the next states of m transitions, with what led to them; see `Batch.past_frames`."""

    def step(self, action: torch.Tensor) -> torch.Tensor:
        """The frame (m, 3, H, W) uint8 after an action (m, A)."""


class CDNAPredictor:
    """A trained network, which sees the past and then goes on from its own frames.

    Args:
        model: its parameters get no gradient.
    """

    def __init__(self, model: CDNA) -> None:
        self.model = model.requires_grad_(False)

    def begin(self, batch: Batch) -> None:
        frames, self.size = padded(batch.past_frames), batch.past_frames.shape[-2:]
        self.state = remembered(self.model, frames, batch.past_actions)
        self.frame = as_numbers(frames[:, -1])

    @torch.no_grad()
    def step(self, action: torch.Tensor) -> torch.Tensor:
        prediction = self.model(self.frame, action, self.state)
        self.frame, self.state = prediction.frame, prediction.state
        return cropped(as_bytes(self.frame), self.size)


class CopyPredictor:
    """Nothing will change."""

    def begin(self, batch: Batch) -> None:
        self.frame = batch.past_frames[:, -1]

    def step(self, action: torch.Tensor) -> torch.Tensor:
        return self.frame


class BackgroundPredictor:
    """The scene will be empty: the median of every pixel over all frames of the past that it is shown."""

    def begin(self, batch: Batch) -> None:
        self.picture = batch.past_frames.flatten(0, 1).median(dim=0).values

    def step(self, action: torch.Tensor) -> torch.Tensor:
        return self.picture.expand(len(action), *self.picture.shape)


class ShuffledPredictor:
    """What another predictor foresees for another sample of the batch: good pictures, of the wrong future."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def begin(self, batch: Batch) -> None:
        self.predictor.begin(batch)

    def step(self, action: torch.Tensor) -> torch.Tensor:
        return self.predictor.step(action).roll(1, dims=0)


class OraclePredictor:
    """The future as it will be: a copy of the simulator, stepped and drawn, in the scene that is trained in.

    Args:
        env: the agent's, a `ControlPixels` environment; its physics are overwritten with every step.

    Raises:
        ValueError: its scene is another one in each episode, as where a target is put somewhere else.
    """

    def __init__(self, env: Any) -> None:
        scenes = []
        for seed in range(2):
            env.reset(seed=seed)  # begins the scenery, too
            scenes.append(env.get_wrapper_attr("scene")())
        if scenes[0] != scenes[1]:
            raise ValueError(f"{env.unwrapped.task} has another scene in each episode, which the oracle does not know.")
        self.env = env

    def begin(self, batch: Batch) -> None:
        self.physics = batch.next_physics.cpu().numpy().copy()

    def step(self, action: torch.Tensor) -> torch.Tensor:
        foresee = self.env.get_wrapper_attr("foresee")
        pairs = zip(self.physics, action.cpu().numpy(), strict=True)
        frames, physics = zip(*(foresee(*pair) for pair in pairs), strict=True)
        self.physics = np.stack(physics)
        return torch.from_numpy(np.stack(frames)).to(action.device)


def check_films(config: PredictiveSACConfig | PredictiveSGQNConfig, films: CDNAConfig) -> None:
    """Refuse a network that was not trained on what an agent sees.

    Args:
        config: of the agent.
        films: with which the network was trained, or would be.

    Raises:
        ValueError: it was trained on frames of another size, with another action repeat, on other tasks, ...
    """
    seen, filmed = ({**USUAL, **kwargs} for kwargs in (config.env_kwargs, films.env_kwargs))
    if seen["task"] not in TASKS:
        told = ", ".join(TASKS)
        raise ValueError(f"{config.model} was trained on films of {told}; the agent's task is {seen['task']}.")
    for name in ("size", "repeat", "mode", "camera", "quality"):
        if filmed[name] != seen[name]:
            raise ValueError(
                f"{config.model} was trained with a {name} of {filmed[name]}; the agent's is {seen[name]}."
            )


def build_predictor(config: PredictiveSACConfig | PredictiveSGQNConfig, device: torch.device) -> Predictor:
    """The predictor that a config names.

    Raises:
        FileNotFoundError: its network is neither stored nor trained.
        ValueError: its network was not trained on what the agent sees, or the oracle cannot know the agent's scene.
    """
    if config.predictor == "copy":
        return CopyPredictor()
    if config.predictor == "background":
        return BackgroundPredictor()
    if config.predictor == "oracle":
        if (mode := config.env_kwargs.get("mode", "train")) != "train":
            raise ValueError(f"the agent's mode is {mode}; the oracle knows the simulator, not what is around it.")
        return OraclePredictor(envs.make(config.env, **config.env_kwargs))
    run = runs.trained(config.model, config.preset, CDNAConfig)
    check_films(config, run.config)
    foresight = CDNAPredictor(load_model(run).to(device))
    return ShuffledPredictor(foresight) if config.predictor == "shuffled" else foresight
