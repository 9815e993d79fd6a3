"""From a config to its agent: the one place that knows them all."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch

from pixelrl.actor_critic import A2C
from pixelrl.configs import (
    ActorCriticConfig,
    AgentConfig,
    DQNConfig,
    DynaConfig,
    I2AConfig,
    PredictiveSACConfig,
    PredictiveSGQNConfig,
    SACConfig,
    SGQNConfig,
)
from pixelrl.cuda import chosen_device
from pixelrl.dqn import DQN
from pixelrl.dyna import Dyna
from pixelrl.i2a import I2A
from pixelrl.predictive import PredictiveSAC, PredictiveSGQN
from pixelrl.sac import SAC
from pixelrl.sgqn import SGQN

AGENTS: dict[type[AgentConfig], type] = {
    DQNConfig: DQN,
    DynaConfig: Dyna,
    SACConfig: SAC,
    SGQNConfig: SGQN,
    PredictiveSACConfig: PredictiveSAC,
    PredictiveSGQNConfig: PredictiveSGQN,
    ActorCriticConfig: A2C,
    I2AConfig: I2A,
}


def build_agent(config: AgentConfig, env: gym.Env) -> Any:
    """A fresh agent, its parameters drawn from the config's seed, for the spaces of an environment."""
    if type(config) not in AGENTS:
        known = ", ".join(sorted(kind.__name__ for kind in AGENTS))
        raise TypeError(f"no agent belongs to a {type(config).__name__}; there is one for each of {known}.")
    torch.manual_seed(config.seed)
    return AGENTS[type(config)](config, env.observation_space, env.action_space, chosen_device(config.device))
