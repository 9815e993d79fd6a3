"""Training an agent on what it does at this moment, in environments side by side, in steps that can be interrupted."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from pixelrl import envs, runs
from pixelrl.actor_critic import Rollout
from pixelrl.agents import build_agent
from pixelrl.configs import ActorCriticConfig
from pixelrl.cuda import random_states, randomness_kept, set_random_states
from pixelrl.evaluate import CURVE_SEED, FINAL_SEED, evaluate
from pixelrl.journal import Journal


class ParallelTraining:
    """A training in progress: all that a checkpoint holds.

    After each row of the curve all environments begin anew, from seeds that follow from the step, so that they never
    have to be saved.

    Args:
        config: from `presets.get`.
    """

    def __init__(self, config: ActorCriticConfig) -> None:
        torch.set_num_threads(config.threads)
        self.config = config
        self.rooms = SyncVectorEnv([self.make_env] * config.n_envs, autoreset_mode=AutoresetMode.SAME_STEP)
        self.agent = build_agent(config, self.rooms.envs[0])
        self.step = 0
        self.rows: list[dict[str, float]] = []
        self.begin_row()
        self.final_returns: np.ndarray | None = None
        self.journal = Journal()

    def make_env(self) -> gym.Env:
        """A fresh environment, for training or evaluation."""
        return envs.make(self.config.env, **self.config.env_kwargs)

    @property
    def finished(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.config.steps

    @property
    def ready(self) -> bool:
        """For a checkpoint: when all environments are about to begin anew."""
        return self.step % self.config.eval_every == 0

    def begin_row(self) -> None:
        """Nothing gathered yet since the last row of the curve."""
        self.returns: list[float] = []  # of the episodes that ended
        self.metrics: list[dict[str, float]] = []  # of the updates

    def restart(self) -> None:
        """Begin an episode in every environment."""
        seeds = np.random.SeedSequence([self.config.seed, self.step]).generate_state(self.config.n_envs)
        self.obs, _ = self.rooms.reset(seed=[int(seed) for seed in seeds])
        self.totals = np.zeros(self.config.n_envs)

    def advance(self) -> None:
        """Some steps in every environment, and what is learned from them."""
        if self.ready:
            self.restart()
        metrics = self.agent.update(self.collect())
        self.metrics.append({name: float(values.mean()) for name, values in metrics.items()})
        self.step += self.config.n_envs * self.config.length

    def collect(self) -> Rollout:
        """Act, and take note."""
        steps = []
        for _ in range(self.config.length):
            seen = self.agent.look(self.obs)
            choice = self.agent.choose(seen)
            self.obs, reward, terminated, truncated, info = self.rooms.step(choice.action.cpu().numpy())
            self.note(reward, terminated | truncated)
            reward = reward + self.beyond(info, truncated & ~terminated)
            told = (torch.from_numpy(each).float().to(self.agent.device) for each in (reward, terminated | truncated))
            steps.append((*choice, *told, *seen))
        action, value, logits, reward, ended, *seen = (torch.stack(each) for each in zip(*steps, strict=True))
        value = torch.cat([value, self.expected(self.obs)[None]])
        return Rollout(tuple(seen), action, reward, ended, value, logits)

    def note(self, reward: np.ndarray, ended: np.ndarray) -> None:
        """Add up the rewards, and keep the returns of the episodes that have ended."""
        self.totals += reward
        self.returns += self.totals[ended].tolist()
        self.totals[ended] = 0.0

    def beyond(self, info: dict[str, Any], cut: np.ndarray) -> np.ndarray:
        """Discounted values (N,) of what would have come, where an episode was only cut off; 0 elsewhere."""
        values = np.zeros(len(cut))
        if cut.any():
            values[cut] = self.config.gamma * self.expected(np.stack(info["final_obs"][cut])).cpu().numpy()
        return values

    def expected(self, obs: np.ndarray) -> torch.Tensor:
        """Values (B,) of observations (B, C, H, W)."""
        return self.agent.choose(self.agent.look(obs)).value

    def add_row(self) -> None:
        """Evaluate, and add a row to the curve, with the means of everything since the last one."""
        returns = self.played(self.config.eval_episodes, CURVE_SEED)
        row = {"step": self.step, "seconds": round(self.journal.seconds, 2)}
        row |= {"return": float(returns.mean()), "return_std": float(returns.std())}
        row["train_return"] = float(np.mean(self.returns)) if self.returns else float("nan")
        row |= {name: float(np.mean([each[name] for each in self.metrics])) for name in self.metrics[0]}
        self.rows.append(row)
        self.begin_row()

    def played(self, episodes: int, seed: int) -> np.ndarray:
        """Returns (episodes,) of greedy episodes. What the agent imagines in them follows from the seed too."""
        with randomness_kept():
            torch.manual_seed(seed)
            return evaluate(self.agent, self.make_env, episodes, seed)

    def state_dict(self) -> dict[str, Any]:
        """The state when all environments are about to begin anew."""
        return {
            "agent": self.agent.state_dict(),
            **random_states(),
            "journal": self.journal.state_dict(),
            "step": self.step,
            "rows": self.rows,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.agent.load_state_dict(state["agent"])
        set_random_states(state)
        self.journal.resume(state["journal"])
        self.step, self.rows = state["step"], state["rows"]

    def finish(self) -> None:
        """Judge the agent."""
        self.final_returns = self.played(self.config.final_episodes, FINAL_SEED)

    def result(self) -> runs.Run:
        """The finished run."""
        return runs.agent_run(self)
