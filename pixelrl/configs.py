"""Every number of a training, in one dataclass a kind of training: what it means, what it may be, and as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

MODES = ("train", "color_easy", "color_hard", "video_easy", "video_hard")  # generalisation modes; see `envs.modes`


@dataclass(frozen=True)
class RunConfig:
    """What every training has, whatever is trained."""

    method: str
    """Name of the training among those of `presets`."""
    env: str
    """Gymnasium id of the environment."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the environment."""
    preset: str = "cpu"
    """Size at which it runs."""
    seed: int = 0
    """The one seed from which every random source is derived."""
    steps: int = 50_000
    """Length of the training: agent steps (decisions) of an agent, updates of a predictor."""
    batch_size: int = 256
    """Samples in an update: transitions, or sequences."""
    eval_every: int = 1_000
    """Steps between two evaluations (rows of the curve), of which there is one at the end too."""
    checkpoint_seconds: float = 300.0
    """A checkpoint is written at the first occasion after so many seconds: between two episodes, of agents that act in
    environments side by side after a row of the curve, of predictors at once."""
    threads: int = 1
    """Threads of torch. Small networks run faster on one than on two."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`cpu`, `cuda`, or `auto`: `cuda` where there is one."""
    unit: ClassVar[str] = "agent steps"
    """What `steps` counts."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            if get_origin(kind) is Literal:
                check_choice(name, getattr(self, name), get_args(kind))
        for name in ("steps", "batch_size", "eval_every", "threads"):
            check_count(name, getattr(self, name))
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must not be negative.")


@dataclass(frozen=True)
class AgentConfig(RunConfig):
    """What every training of an agent has."""

    gamma: float = 0.99
    """Discount of an agent step."""
    eval_episodes: int = 20
    """Greedy episodes of an evaluation."""
    final_episodes: int = 100
    """Greedy episodes, from other seeds, by which the trained agent is judged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("eval_episodes", "final_episodes"):
            check_count(name, getattr(self, name))
        check_share("gamma", self.gamma)


@dataclass(frozen=True)
class TrainConfig(AgentConfig):
    """What the training loop needs to know of an agent that learns from a replay buffer."""

    learning_starts: int = 1_000
    """Agent steps before the first update."""
    update_every: int = 2
    """Agent steps between two updates."""
    replay_size: int = 100_000
    """Frames that the replay buffer holds."""
    replay: Literal["uniform", "prioritised"] = "uniform"
    """How transitions are drawn."""
    n_step: int = 1
    """Rewards that are summed before the value function is asked."""
    reward_scale: float = 1.0
    """What rewards are multiplied by before they are learned from."""
    solved_at: float | None = None
    """Mean return over `final_episodes` at which the training stops early, if it should."""
    eval_modes: tuple[str, ...] = ()
    """Generalisation modes in which each evaluation plays as many episodes more, in front of procedural videos."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("update_every", "replay_size", "n_step"):
            check_count(name, getattr(self, name))
        if self.eval_modes and not has_modes(self.env):
            raise ValueError(f"eval_modes is {self.eval_modes}; {self.env} has one scene, which no mode changes.")
        check_positive("reward_scale", self.reward_scale)


def check_count(name: str, value: int) -> None:
    """Refuse a number of things below 1."""
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1.")


def check_positive(name: str, value: float) -> None:
    """Refuse a size that is zero or below."""
    if value <= 0.0:
        raise ValueError(f"{name} is {value}; it must be positive.")


def check_share(name: str, value: float) -> None:
    """Refuse what is no part of a whole."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is {value}; it must lie between 0 and 1.")


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is none of the allowed ones."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}.")


@dataclass(frozen=True)
class DQNConfig(TrainConfig):
    """Deep Q-network (Mnih et al. 2015) and the parts that can be put into it."""

    hidden: tuple[int, ...] = (128, 128)
    """Widths of the fully connected layers before the head."""
    channels: tuple[int, ...] = ()
    """Widths of the convolutions, for pixels; empty for states."""
    head: Literal["linear", "dueling"] = "linear"
    """What turns features into action values."""
    target: Literal["max", "double"] = "max"
    """Which network picks the next action: the target network, or the online one (double DQN)."""
    lr: float = 2e-3
    """Learning rate of AdamW."""
    target_tau: float = 0.02
    """Share of the online network that moves into the target network at each update; 1 is no target network."""
    epsilon_start: float = 1.0
    """Probability of a random action at the first step."""
    epsilon_end: float = 0.02
    """Probability of a random action from step `epsilon_steps` on."""
    epsilon_steps: int = 2_500
    """Agent steps over which the probability falls, linearly."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hidden:
            raise ValueError("hidden is empty; the head needs at least one layer before it.")
        if len(self.channels) not in (0, 2):
            raise ValueError(f"channels is {self.channels}; there are two convolutions, or for states none.")
        for name in ("lr", "target_tau"):
            check_positive(name, getattr(self, name))
        for name in ("target_tau", "epsilon_start", "epsilon_end"):
            check_share(name, getattr(self, name))
        check_count("epsilon_steps", self.epsilon_steps)


@dataclass(frozen=True)
class DynaConfig(DQNConfig):
    """Dyna (Sutton 1990) with an ensemble and short rollouts (Janner et al. 2019), on DQN from states."""

    ensemble: int = 5
    """Networks that model the next state."""
    model_hidden: tuple[int, ...] = (128, 128)
    """Widths of their layers."""
    model_lr: float = 1e-3
    """Learning rate of Adam."""
    branches: int = 4
    """Rollouts that begin at each state of a batch."""
    rollout: int = 1
    """Imagined steps of each."""
    further: Literal["imagined", "replayed"] = "imagined"
    """What else is learned from beside a batch, as often: imagined steps, or, as a control, the batch again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ensemble", "branches", "rollout"):
            check_count(name, getattr(self, name))
        check_positive("model_lr", self.model_lr)
        if self.batch_size == 1:
            raise ValueError("batch_size is 1; the model measures how far the states of a batch are spread.")
        if not self.model_hidden:
            raise ValueError("model_hidden is empty; the model needs at least one layer before its outputs.")
        if self.n_step != 1:
            raise ValueError(f"n_step is {self.n_step}; the model learns single steps, so it must be 1.")
        check_choice("replay", self.replay, ("uniform",))


@dataclass(frozen=True)
class SACConfig(TrainConfig):
    """Soft actor-critic (Haarnoja et al. 2018), from state or from pixels."""

    update_every: int = 1
    """Agent steps between two updates."""
    objective: Literal["sac", "rad", "drq", "svea"] = "sac"
    """How pictures are augmented for the critic's loss; from states there is only `sac`."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the fully connected layers of actor and critic."""
    strides: tuple[int, ...] = ()
    """Strides of the encoder's convolutions, for pixels; empty for states."""
    first_kernel: int = 3
    """Side of the first convolution's filters; those of the others are 3 × 3."""
    width: int = 32
    """Filters of each convolution."""
    projection: int = 50
    """Numbers to which actor and critic each reduce what the encoder gives."""
    lr: float = 1e-3
    """Learning rate of Adam, for encoder, critic and actor."""
    alpha: float = 0.1
    """Temperature at the beginning."""
    alpha_lr: float = 1e-4
    """Learning rate of the temperature's logarithm; 0 keeps it as it is."""
    target_tau: float = 0.01
    """Share of the critics that moves into their targets at each update."""
    encoder_tau: float = 0.05
    """The same for the encoder, for pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("replay", self.replay, ("uniform",))
        if self.objective != "sac" and not self.strides:
            raise ValueError(f"{self.objective} augments pictures; from states, without strides, there is only sac.")
        if not self.hidden:
            raise ValueError("hidden is empty; actor and critic need at least one layer before their outputs.")
        for name in ("target_tau", "encoder_tau"):
            check_share(name, getattr(self, name))
        for name in ("target_tau", "encoder_tau", "lr", "alpha"):
            check_positive(name, getattr(self, name))
        if self.alpha_lr < 0.0:
            raise ValueError(f"alpha_lr is {self.alpha_lr}; it must be positive, or 0 for a fixed temperature.")


@dataclass(frozen=True)
class SGQNConfig(SACConfig):
    """Saliency-guided Q-networks (Bertoin et al. 2022): SAC that learns to look where its values say it should."""

    rho: float = 0.9
    """Quantile of the attribution above which a pixel counts as important. What moves covers a thirtieth of a stack of
    frames; the strongest tenth of the pixels has four fifths of it, the strongest twentieth a half."""
    masks: Literal["saliency", "random"] = "saliency"
    """What counts as important; random pixels, as many, are a control."""
    consistency: float = 0.5
    """Weight of the consistency loss, which asks for the same values when all other pixels are painted over."""
    decoder_lr: float = 3e-4
    """Learning rate of Adam for the attribution loss: the decoder, and the encoder before it."""
    decoder_share: float = 0.5
    """Share of the batch from which the attribution loss is computed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("objective", self.objective, ("sac",))
        if not self.strides:
            raise ValueError("SGQN looks at pictures; it needs the strides of an encoder.")
        if not 0.0 < self.rho < 1.0:
            raise ValueError(f"rho is {self.rho}; it must lie between 0 and 1.")
        check_share("decoder_share", self.decoder_share)
        if self.consistency < 0.0:
            raise ValueError(f"consistency is {self.consistency}; a weight is not negative.")
        for name in ("decoder_lr", "decoder_share"):
            check_positive(name, getattr(self, name))


LEARNED = ("cdna", "shuffled")  # the predictors that are a network


@dataclass(frozen=True)
class AheadConfig:
    """How far, for what, and by whom states are predicted while an agent learns; beside the config of that agent."""

    predictor: Literal["cdna", "copy", "background", "shuffled", "oracle"] = "cdna"
    """What foresees the frames: a network, or one of the controls."""
    model: str = "cdna-48"
    """Method of the network, of which a run is stored, or trained at the same preset."""
    horizon: int = 3
    """N: the states s_{t+1}, which is real, to s_{t+N} are looked at."""
    context: int = 3
    """Real frames that the predictor is shown first, the newest of s_{t+1} among them."""
    ahead_share: float = 0.125
    """Share of the batch that is rolled forward. An eighth makes an update about twice as long as SGQN's; the full
    preset has 1."""
    in_target: float = 0.5
    """Share of the predicted states' values in the target of these samples; 0 leaves them out."""

    def check_ahead(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            ValueError: one of them does.
        """
        check_count("context", self.context)
        if self.horizon < 2:
            raise ValueError(
                f"horizon is {self.horizon}; N must be at least 2: s_{{t+1}} is real, and the states from t + 2 on are "
                "predicted. Without any, this is the agent that is built upon."
            )
        check_positive("ahead_share", self.ahead_share)
        for name in ("ahead_share", "in_target"):
            check_share(name, getattr(self, name))
        if self.predictor == "shuffled" and self.rolled_forward(self.batch_size) == 1:
            raise ValueError(
                f"ahead_share is {self.ahead_share}; that is one sample of {self.batch_size}, and nothing to shuffle."
            )

    def rolled_forward(self, batch_size: int) -> int:
        """How many samples of a batch are rolled forward; at least one."""
        return max(1, round(self.ahead_share * batch_size))


@dataclass(frozen=True)
class PredictiveSACConfig(AheadConfig, SACConfig):
    """SAC with predicted states in its target."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_ahead()
        check_choice("objective", self.objective, ("sac",))


@dataclass(frozen=True)
class PredictiveSGQNConfig(AheadConfig, SGQNConfig):
    """SGQN with predicted states in its target and in its consistency loss."""

    in_consistency: float = 0.5
    """Share of s_{t+1} to s_{t+N} in the consistency loss; 0 leaves them out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_ahead()
        check_share("in_consistency", self.in_consistency)


@dataclass(frozen=True)
class CDNAConfig(RunConfig):
    """CDNA (Finn, Goodfellow & Levine 2016): a predictor of the next frame, and the films it learns from."""

    unit: ClassVar[str] = "updates"
    films: int = 240
    """Episodes to learn from; see `pixelrl.footage`."""
    held_out: int = 24
    """Episodes to be judged by, which are not learned from."""
    film_steps: int = 60
    """Agent steps of an episode."""
    length: int = 9
    """Frames of a training sequence."""
    context: int = 3
    """Frames that are always true; the first prediction that counts is of the one after."""
    horizon: int = 6
    """Frames that are predicted when it is judged."""
    width: int = 8
    """Filters of the first layers; the paper has 32."""
    n_kernels: int = 10
    """Kernels that move the picture, each in its way."""
    kernel_size: int = 17
    """Their side, odd: no pixel moves by more than half of it."""
    lstm_kernel: int = 3
    """Side of the gates' filters, odd; the paper has 5."""
    lr: float = 1e-3
    """Learning rate of Adam at the beginning; it falls to 0 by the end as a cosine does."""
    pace: float = 150.0
    """k of scheduled sampling: half of the frames fed are predicted ones after k log k updates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if chosen := sorted({"task", "stack"} & set(self.env_kwargs)):
            raise ValueError(f"env_kwargs names {', '.join(chosen)}; films show tasks of their own, frame by frame.")
        if not has_modes(self.env):
            raise ValueError(f"env is {self.env}; films are of pixelrl/ControlPixels-v0.")
        counts = ("films", "held_out", "film_steps", "context", "horizon", "width", "n_kernels")
        for name in counts:
            check_count(name, getattr(self, name))
        for name in ("kernel_size", "lstm_kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} is {getattr(self, name)}; a kernel has a middle, so its side is odd.")
        if self.context == 1:
            raise ValueError("context is 1; what moves cannot be seen in a single frame.")
        longest = max(self.length, self.context + self.horizon)
        if longest > self.film_steps + 1:
            raise ValueError(f"film_steps is {self.film_steps}; sequences of {longest} frames do not fit in.")
        if self.length <= self.context:
            raise ValueError(f"length is {self.length}; a sequence is longer than its context of {self.context}.")
        for name in ("lr", "pace"):
            check_positive(name, getattr(self, name))


@dataclass(frozen=True)
class ActorCriticConfig(AgentConfig):
    """Advantage actor-critic (Mnih et al. 2016), in environments side by side."""

    n_envs: int = 32
    """Environments."""
    length: int = 16
    """Steps in each of them between two updates."""
    gae_lambda: float = 0.95
    """Share of the next step's advantage in this one's (generalised advantage estimation)."""
    lr: float = 3e-3
    """Learning rate of RMSprop."""
    entropy: float = 0.01
    """Weight of the policy's entropy in the loss."""
    value_weight: float = 0.5
    """Weight of the critic's squared error in the loss."""
    max_norm: float = 0.5
    """Longest gradient; longer ones are shortened."""
    width: int = 16
    """Filters of the convolution."""
    hidden: int = 128
    """Width of the layer behind it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_envs", "length", "width", "hidden"):
            check_count(name, getattr(self, name))
        for name in ("lr", "max_norm"):
            check_positive(name, getattr(self, name))
        check_share("gae_lambda", self.gae_lambda)
        if self.eval_every % (self.n_envs * self.length) or self.steps % self.eval_every:
            raise ValueError(
                f"an update takes {self.n_envs} × {self.length} steps: eval_every, {self.eval_every}, must be a "
                f"multiple of that, and steps, {self.steps}, one of eval_every."
            )


@dataclass(frozen=True)
class I2AConfig(ActorCriticConfig):
    """Imagination-augmented agent (Racanière et al. 2017)."""

    model: str = "breakout-model"
    """Name of the stored run of the environment model, or `copy` for one that leaves the board as it is."""
    horizon: int = 3
    """Steps that are imagined after each possible action, that action included."""
    code: int = 64
    """Numbers into which a rollout is summed up."""
    distil_lr: float = 1e-3
    """Learning rate of the rollout policy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("horizon", "code"):
            check_count(name, getattr(self, name))
        check_positive("distil_lr", self.distil_lr)


@dataclass(frozen=True)
class DynamicsConfig(RunConfig):
    """A model of a game on a board, and the play it learns from."""

    unit: ClassVar[str] = "updates"
    teacher: str = "a2c-partly"
    """Name of the stored run of the agent that plays."""
    transitions: int = 100_000
    """Steps to learn from."""
    held_out: int = 10_000
    """Steps to be judged by, from other episodes."""
    width: int = 24
    """Filters of a layer."""
    lr: float = 1e-3
    """Learning rate of Adam."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("transitions", "held_out", "width"):
            check_count(name, getattr(self, name))
        check_positive("lr", self.lr)


def as_json(config: RunConfig) -> dict[str, Any]:
    """The fields of a config, and its kind, in the types that JSON has."""
    return json.loads(json.dumps({"kind": type(config).__name__, **asdict(config)}))


def save(path: Path, config: RunConfig) -> None:
    """Write a config as JSON, whole or not at all."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(as_json(config), indent=1) + "\n")
    partial.replace(path)


def load(path: Path) -> RunConfig:
    """Read a config that `save` wrote.

    Raises:
        ValueError: it is no config, or of a kind, or has a field or a value, that is not known here.
    """
    try:
        content = json.loads(path.read_text())
        kind = content.pop("kind")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is not the config of a training.") from error
    if kind not in KINDS:
        raise ValueError(f"{path} holds a {kind}, of which this version of the package knows nothing.")
    if unknown := unknown_fields(KINDS[kind], content):
        raise ValueError(f"{path}: {kind} has no field {unknown}.")
    try:
        return KINDS[kind](**{name: with_tuples(value) for name, value in content.items()})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def unknown_fields(kind: type[RunConfig], names: Iterable[str]) -> str:
    """Those names, in order and with commas between, that are no fields of a kind of config; empty if all are."""
    return ", ".join(sorted(set(names) - {entry.name for entry in fields(kind)}))


def with_tuples(value: Any) -> Any:
    """Turn lists into tuples, which JSON does not have, also within dictionaries."""
    if isinstance(value, list):
        return tuple(with_tuples(entry) for entry in value)
    if isinstance(value, dict):
        return {name: with_tuples(entry) for name, entry in value.items()}
    return value


BESIDE_THE_POINT = ("checkpoint_seconds", "threads", "device")
"""The fields in which a training may differ from what it was when it was begun."""
NOT_LEARNED_FROM = (*BESIDE_THE_POINT, "seed", "eval_modes")
"""The fields in which runs may differ that are stored under one name."""


def differences(a: RunConfig, b: RunConfig, besides: tuple[str, ...] = ()) -> str:
    """The fields, besides some, in which two configs differ, as `name: a -> b`; empty where they are equal."""
    old, new = as_json(a), as_json(b)
    changed = [name for name in {**old, **new} if name not in besides and old.get(name) != new.get(name)]
    return ", ".join(f"{name}: {old.get(name)} -> {new.get(name)}" for name in changed)


KINDS = {
    kind.__name__: kind
    for kind in (
        DQNConfig,
        DynaConfig,
        SACConfig,
        SGQNConfig,
        PredictiveSACConfig,
        PredictiveSGQNConfig,
        CDNAConfig,
        ActorCriticConfig,
        I2AConfig,
        DynamicsConfig,
    )
}


def scene(env: str) -> str:
    """The name of an environment without namespace and version."""
    return env.removeprefix("pixelrl/").partition("-")[0]


def has_modes(env: str) -> bool:
    """Whether an environment shows a scene that the generalisation modes change."""
    return scene(env) == "ControlPixels"


def usual_videos() -> str:
    """The folder that the variable `PIXELRL_VIDEOS` names, else `procedural`."""
    return os.environ.get("PIXELRL_VIDEOS") or "procedural"
