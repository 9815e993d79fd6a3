"""Predictive SGQN: eqs. 4 to 6 written out slowly, what is rolled forward, and what remains when nothing is."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch
from test_sac import told_apart
from test_train import assert_resumes
from torch.distributions import Normal, TanhTransform, TransformedDistribution
from torch.utils.flop_counter import FlopCounterMode

from pixelrl import cdna, configs, envs, predictive, presets, runs
from pixelrl.agents import build_agent
from pixelrl.cdna import CDNA
from pixelrl.configs import PredictiveSACConfig, PredictiveSGQNConfig
from pixelrl.foresight import (
    BackgroundPredictor,
    CDNAPredictor,
    CopyPredictor,
    OraclePredictor,
    ShuffledPredictor,
    build_predictor,
)
from pixelrl.predictive import (
    PredictiveSAC,
    PredictiveSGQN,
    ahead_of,
    blended,
    consistency_weights,
    look_ahead,
    predictive_objective,
    predictive_target,
)
from pixelrl.predictor import build_model
from pixelrl.replay import Batch
from pixelrl.sac import SAC
from pixelrl.saliency import guided_backprop
from pixelrl.sgqn import SGQN, sgqn_objective, stack_mask
from pixelrl.train import Training, build_replay, train

SIZE = (24, 24)
SPACES = gym.spaces.Box(0, 255, (9, *SIZE), np.uint8), gym.spaces.Box(-1, 1, (2,), np.float32)
SMALL = {"env_kwargs": {"size": SIZE}, "hidden": (16,), "width": 4, "projection": 8, "batch_size": 6, "device": "cpu"}
PLAIN = presets.get("sgqn", "quick", **SMALL)
CONFIG = PredictiveSGQNConfig(**vars(PLAIN), predictor="copy", ahead_share=0.5)


def small_agent(**changes: object) -> PredictiveSGQN:
    return prepared(PredictiveSGQN, replace(CONFIG, **changes))


def prepared(kind: type, config: configs.SACConfig) -> SAC:
    """An agent of a kind, for the small pictures of these tests."""
    torch.manual_seed(0)
    return told_apart(kind(config, *SPACES))


def small_batch(b: int = 6, context: int = 3) -> Batch:
    rng = np.random.default_rng(0)
    film = torch.from_numpy(rng.integers(0, 256, (b, 6, 3, *SIZE), dtype=np.uint8))
    numbers = torch.from_numpy(rng.normal(size=(b, 2)).astype(np.float32))
    ended = torch.zeros(b)
    ended[1] = 1
    actions = torch.from_numpy(rng.uniform(-1, 1, (b, 5, 2)).astype(np.float32))
    return Batch(
        film[:, 2:5].flatten(1, 2),
        actions[:, 4],
        numbers[:, 0],
        film[:, 3:6].flatten(1, 2),
        ended,
        torch.full((b,), 0.9),
        torch.ones(b),
        np.arange(b),
        film[:, 6 - context :],
        actions[:, 6 - context :],
    )


@pytest.mark.parametrize("horizon", [2, 3, 4, 5, 6])
def test_weights_are_those_of_equation_5(horizon: int) -> None:
    weights = consistency_weights(horizon, 0.5)
    assert weights == [0.5 ** (n + 1) for n in range(horizon)] + [0.5**horizon]
    for share in (0.0, 0.2, 0.5, 1.0):
        assert sum(consistency_weights(horizon, share)) == pytest.approx(1.0)
    assert consistency_weights(horizon, 0.0) == [1.0] + [0.0] * horizon


def test_a_horizon_of_one_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        consistency_weights(1, 0.5)
    with pytest.raises(ValueError, match="s_{t\\+1} is real"):
        replace(CONFIG, horizon=1)


@pytest.mark.parametrize("horizon", [2, 3, 5])
def test_values_are_blended_as_in_equation_4(horizon: int) -> None:
    value = torch.rand(horizon, 7)
    expected = 0.5 * value[0] + sum(value[n] for n in range(1, horizon)) / (2 * (horizon - 1))
    torch.testing.assert_close(blended(value, 0.5), expected)
    torch.testing.assert_close(blended(value, 0.0), value[0])
    torch.testing.assert_close(blended(value, 0.2), 0.8 * value[0] + 0.2 * (expected - 0.5 * value[0]) * 2)


class Counting:
    """A predictor whose frames count the steps, and which keeps what it is told."""

    def begin(self, batch: Batch) -> None:
        self.past, self.told = batch, []

    def step(self, action: torch.Tensor) -> torch.Tensor:
        self.told.append(action)
        return torch.full((len(action), 3, *SIZE), len(self.told), dtype=torch.uint8)


def test_states_are_rolled_on_from_the_real_next_one_with_the_policys_actions() -> None:
    agent, batch, predictor = small_agent(), small_batch(), Counting()
    ahead = look_ahead(agent, predictor, batch, 5)
    assert predictor.past is batch
    assert ahead.obs.shape == (5, 6, 9, *SIZE)
    assert torch.equal(ahead.obs[0], batch.next_obs)
    assert torch.equal(ahead.obs[1][:, :6], batch.next_obs[:, 3:])
    assert (ahead.obs[1][:, 6:] == 1).all()
    assert (ahead.obs[3][:, :3] == 1).all()
    assert (ahead.obs[4] == torch.arange(2, 5).repeat_interleave(3)[:, None, None]).all()
    assert len(predictor.told) == 4  # after the last state, nothing is predicted
    assert torch.equal(torch.stack(predictor.told), ahead.action[:4])
    assert not any(part.requires_grad for part in ahead)


def test_what_is_done_in_a_state_is_what_the_policy_would_do_there() -> None:
    """At the features of the target encoder; the log-probabilities are those of torch's own distribution."""
    agent = small_agent()
    torch.manual_seed(1)
    ahead = look_ahead(agent, Counting(), small_batch(), 5)
    torch.manual_seed(1)
    for n in range(5):
        mean, log_std = (part.detach() for part in agent.actor(agent.target_encoder(ahead.obs[n])))
        action = torch.tanh(mean + log_std.exp() * torch.randn_like(mean))
        torch.testing.assert_close(ahead.action[n], action)
        policy = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform())
        torch.testing.assert_close(ahead.log_prob[n], policy.log_prob(action).sum(dim=1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("horizon", [2, 3, 5])
def test_the_target_is_equation_4_sample_by_sample(horizon: int) -> None:
    agent, batch = small_agent(horizon=horizon), small_batch()
    ahead = look_ahead(agent, Counting(), batch.part(slice(4)), horizon)
    torch.manual_seed(1)
    target = predictive_target(agent, batch, ahead, 0.5)
    for i in range(4):
        values = []
        for n in range(horizon):
            features = agent.target_encoder(ahead.obs[n, i][None])
            q = agent.target_critic(features, ahead.action[n, i][None]).min()
            values.append(q - agent.alpha * ahead.log_prob[n, i])
        value = 0.5 * values[0] + sum(values[1:]) / (2 * (horizon - 1))
        expected = batch.reward[i] + 0.9 * (0 if batch.terminated[i] else value)
        torch.testing.assert_close(target[i], torch.as_tensor(expected), rtol=0, atol=1e-5)
    torch.manual_seed(1)
    rest = batch.part(slice(4, None))
    torch.testing.assert_close(target[4:], agent.target(rest, rest.next_obs))


@pytest.mark.parametrize(
    ("horizon", "in_target", "in_consistency"),
    [(2, 0.5, 0.5), (3, 0.5, 0.5), (5, 0.5, 0.5), (3, 0.3, 0.8), (3, 0.0, 0.5), (3, 0.5, 0.0)],
)
def test_the_objective_is_equation_6(
    horizon: int, in_target: float, in_consistency: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks and values of each state on its own, and the two sums written out; painted black, not in random colours."""
    monkeypatch.setattr("pixelrl.sgqn.painted_over", lambda obs, mask: torch.where(mask, obs, 0))
    changes = {"horizon": horizon, "in_target": in_target, "in_consistency": in_consistency}
    agent, batch = small_agent(consistency=0.7, **changes), small_batch()
    batch = batch.part(slice(4))
    ahead = look_ahead(agent, Counting(), batch, horizon)
    learned, mask = predictive_objective(agent, batch, ahead)

    def both(obs: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        attribution = guided_backprop(lambda x: agent.critic(agent.encoder(x), action).mean(dim=0), obs)
        kept = stack_mask(attribution, agent.config.rho)
        q = agent.critic(agent.encoder(obs), action)
        return q, agent.critic(agent.encoder(torch.where(kept, obs, 0)), action), kept

    target = predictive_target(agent, batch, ahead, in_target)
    q, q_masked, kept = both(batch.obs, batch.action)
    assert torch.equal(kept, mask)
    first = sum((q[i] - target).pow(2).mean() for i in range(2))
    later = [0.5**n for n in range(1, horizon)] + [0.5 ** (horizon - 1)]
    weights = [1 - in_consistency, *(in_consistency * weight for weight in later)]
    second = weights[0] * sum((q[i].detach() - q_masked[i]).pow(2).mean() for i in range(2))
    for n in range(horizon):
        q_n, q_n_masked, _ = both(ahead.obs[n], ahead.action[n])
        second = second + weights[n + 1] * sum((q_n[i].detach() - q_n_masked[i]).pow(2).mean() for i in range(2))
    expected = first + 0.7 * second
    torch.testing.assert_close(learned.loss, expected, rtol=1e-5, atol=1e-5)
    parameters = [*agent.encoder.parameters(), *agent.critic.parameters()]
    ours, theirs = (torch.autograd.grad(loss, parameters) for loss in (learned.loss, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_with_nothing_of_the_predictions_the_equations_are_sgqns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelrl.sgqn.painted_over", lambda obs, mask: torch.where(mask, obs, 0))
    agent, batch = small_agent(in_target=0.0, in_consistency=0.0), small_batch()
    torch.manual_seed(1)
    ours, mask = predictive_objective(agent, batch, look_ahead(agent, Counting(), batch, 3))
    torch.manual_seed(1)
    theirs, their_mask = sgqn_objective(agent, batch)
    torch.testing.assert_close(ours.loss, theirs.loss)
    assert torch.equal(mask, their_mask)


def test_without_predictions_an_update_is_sgqns_exactly() -> None:
    ours, plain = small_agent(in_target=0.0, in_consistency=0.0), small_agent()
    plain.__class__ = SGQN
    for agent in (ours, plain):
        torch.manual_seed(2)
        for _ in range(3):
            agent.update(small_batch())
    for name in ("encoder", "critic", "actor", "decoder"):
        for one, other in zip(getattr(ours, name).parameters(), getattr(plain, name).parameters(), strict=True):
            assert torch.equal(one, other)


def small_model(size: tuple[int, int] = SIZE) -> CDNA:
    torch.manual_seed(0)
    return CDNA(size, 2, width=4, n_kernels=3, lstm_kernel=3, dtype=torch.float32)


@pytest.mark.parametrize(("size", "of_the_network"), [(SIZE, SIZE), ((20, 28), (24, 32))])
def test_cdna_foresees_what_it_predicts(size: tuple[int, int], of_the_network: tuple[int, int]) -> None:
    """Also where a side of the frames is no multiple of 8, and the network is made for the next one."""
    batch, model = small_batch(), small_model(of_the_network)
    batch = batch._replace(past_frames=torch.randint(0, 256, (6, 3, 3, *size), dtype=torch.uint8))
    actions = torch.rand(6, 3, 2)
    expected = cdna.predict(model, batch.past_frames, torch.cat([batch.past_actions, actions], dim=1))
    predictor = CDNAPredictor(model)
    predictor.begin(batch)
    for t in range(3):
        assert torch.equal(predictor.step(actions[:, t]), cdna.as_bytes(expected[:, t]))
    assert not any(p.requires_grad for p in model.parameters())


def test_controls_do_what_they_say() -> None:
    batch, action = small_batch(), torch.zeros(6, 2)
    predictor = CopyPredictor()
    predictor.begin(batch)
    assert torch.equal(predictor.step(action), batch.past_frames[:, -1])
    predictor = BackgroundPredictor()
    frames = batch.past_frames.clone()
    frames[1:, 1:] = 7
    predictor.begin(batch._replace(past_frames=frames))
    assert (predictor.step(action) == 7).all()
    one, other = CDNAPredictor(small_model()), ShuffledPredictor(CDNAPredictor(small_model()))
    for each in (one, other):
        each.begin(batch)
    assert torch.equal(other.step(action)[1:], one.step(action)[:-1])


def test_the_oracle_foresees_what_will_be_seen() -> None:
    """Play of a real environment, remembered; from its third step on, the oracle is told the actions that followed."""
    plain = presets.get("sgqn", "quick", env_kwargs={"size": SIZE, "task": "cartpole-swingup"}, device="cpu")
    config = PredictiveSGQNConfig(**vars(plain), predictor="oracle")
    env = envs.make(config.env, **config.env_kwargs)
    replay = build_replay(config, env)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (7, 1)).astype(np.float32)
    obs, _ = env.reset(seed=3)
    replay.start(obs)
    seen = []
    for action in actions:
        obs, reward, _, _, _ = env.step(action)
        replay.add(action, reward, False, obs)
        seen.append(torch.from_numpy(obs[6:].copy()))
    oracle = OraclePredictor(envs.make(config.env, **config.env_kwargs))
    oracle.begin(replay.gather(np.array([2, 3]), np.ones(2, np.float32)))  # from what was seen after actions 2 and 3
    for t in range(3):
        foreseen = oracle.step(torch.from_numpy(actions[[3 + t, 4 + t]]))
        assert torch.equal(foreseen[0], seen[3 + t])
        assert torch.equal(foreseen[1], seen[4 + t])


def test_the_matched_discount_values_what_is_far_as_the_blended_target_does() -> None:
    """A reward of 1 a step that begins after sixty; by eq. 4, state by state."""
    ahead, matched = presets.get("predictive-sgqn", "cpu"), presets.get("sgqn-matched-discount", "cpu")
    value = torch.full((70,), 100.0)
    for state in reversed(range(60)):
        value[state] = 0.99 * blended(value[state + 1 : state + 1 + ahead.horizon], ahead.in_target)
    plain = matched.reward_scale / (1 - matched.gamma) * matched.gamma**60
    assert value[0].item() == pytest.approx(plain, rel=4e-3)
    assert plain > 1.25 * 100 * 0.99**60
    assert presets.get("sac-matched-discount", "cpu").gamma == matched.gamma


def test_random_masks_keep_as_many_pixels_of_nothing_in_particular() -> None:
    batch, agent = small_batch(), small_agent(masks="random")
    _, first = predictive_objective(agent, batch, ahead_of(agent, batch))
    _, second = predictive_objective(agent, batch, ahead_of(agent, batch))
    kept = small_agent()
    _, guided = predictive_objective(kept, batch, ahead_of(kept, batch))
    assert torch.equal(first.sum((1, 2, 3)), second.sum((1, 2, 3)))
    assert first.sum() == guided.sum()
    assert not torch.equal(first, second)


def test_without_predictions_in_the_consistency_no_predicted_picture_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, batch, shown = small_agent(in_consistency=0.0), small_batch(), []
    views = predictive.whole_and_masked
    monkeypatch.setattr(
        predictive, "whole_and_masked", lambda agent, obs, action: shown.append(len(obs)) or views(agent, obs, action)
    )
    agent.update(batch)
    assert shown == [6]


class Replaying:
    """A predictor that shows frames it was given."""

    def __init__(self, frames: list[torch.Tensor]) -> None:
        self.frames = frames

    def begin(self, batch: Batch) -> None:
        self.left = iter(self.frames)

    def step(self, action: torch.Tensor) -> torch.Tensor:
        return next(self.left)


def test_the_same_frames_give_the_same_update_whoever_foresaw_them() -> None:
    one = small_agent()
    one.predictor = CDNAPredictor(small_model())
    other = copy.deepcopy(one)
    torch.manual_seed(3)
    frames = [obs[:, 6:] for obs in ahead_of(one, small_batch()).obs[1:]]
    other.predictor = Replaying(frames)
    for agent in (one, other):
        torch.manual_seed(3)
        agent.update(small_batch())
    for a, b in zip(one.critic.parameters(), other.critic.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_predictor_is_never_asked_to_act_and_stays_as_it_is() -> None:
    agent = small_agent()
    agent.predictor = CDNAPredictor(small_model())
    agent.update(small_batch())
    assert all(p.grad is None for p in agent.predictor.model.parameters())
    for one, other in zip(agent.predictor.model.parameters(), small_model().parameters(), strict=True):
        assert torch.equal(one, other)
    agent.predictor = None
    assert agent.act(small_batch().obs.numpy(), explore=False).shape == (6, 2)


def test_what_is_foreseen_is_not_shifted_before_and_all_is_shifted_after(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, batch, shifted = small_agent(ahead_share=1.0), small_batch(), []
    agent.predictor = Counting()
    for module in ("sac", "predictive"):
        monkeypatch.setattr(f"pixelrl.{module}.random_shift", lambda obs: shifted.append(obs) or obs)
    agent.update(batch)
    assert torch.equal(agent.predictor.past.next_obs, batch.next_obs)
    foreseen, *real = shifted
    assert foreseen.shape == (3 * 6, 9, *SIZE)
    assert [obs.data_ptr() for obs in real] == [batch.obs.data_ptr(), batch.next_obs.data_ptr()]


def test_acting_costs_what_it_costs_sac() -> None:
    """Not one operation more: by torch's own count."""
    counts = []
    for kind, config in ((SAC, presets.get("sac", "quick", **SMALL)), (PredictiveSGQN, CONFIG)):
        agent = kind(config, *SPACES)
        agent.predictor = None
        with FlopCounterMode(display=False) as counter:
            agent.act(small_batch().obs.numpy(), explore=False)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_the_share_of_the_batch_is_rolled_on() -> None:
    agent, batch = small_agent(), small_batch()
    assert ahead_of(agent, batch).action.shape == (3, 3, 2)
    whole = small_agent(ahead_share=1.0)
    assert ahead_of(whole, batch).action.shape == (3, 6, 2)
    assert torch.isfinite(whole.update(batch)["loss"])


def test_sac_with_equation_4_learns_its_target() -> None:
    values = vars(presets.get("sac", "quick", **SMALL))
    agent = prepared(PredictiveSAC, PredictiveSACConfig(**values, predictor="copy", ahead_share=1.0))
    batch = small_batch().part(slice(4))
    torch.manual_seed(1)
    target = predictive_target(agent, batch, ahead_of(agent, batch), 0.5)
    assert target[1] == batch.reward[1]  # it terminated there
    said = agent.critic(agent.encoder(batch.obs), batch.action).mean(dim=0).detach()
    torch.manual_seed(1)
    losses = [agent.update(batch)]
    torch.testing.assert_close(losses[0]["td_error"], target - said)
    losses += [agent.update(batch) for _ in range(60)]
    assert losses[-1]["loss"] < losses[0]["loss"] / 2


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"predictor": "crystal ball"}, "predictor"),
        ({"ahead_share": 0.0}, "ahead_share"),
        ({"in_target": 1.5}, "in_target"),
        ({"in_consistency": -0.1}, "in_consistency"),
        ({"context": 0}, "context"),
        ({"predictor": "shuffled", "ahead_share": 0.01}, "nothing to shuffle"),
        ({"rho": 1.0}, "rho"),
    ],
)
def test_bad_fields_are_refused(changes: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace(CONFIG, **changes)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A predictor that has learned nothing, for frames of 32 × 32, under the name of the one that agents take."""
    monkeypatch.setenv("PIXELRL_RUNS", str(tmp_path / "library"))
    film = presets.get("cdna-48", "quick", env_kwargs={"size": (32, 32)})
    run = runs.Run(film, pd.DataFrame({"step": [1]}), {}, build_model(film, 1).state_dict())
    runs.save(tmp_path / "library" / "cdna-48" / "seed-0", run)


@pytest.mark.usefixtures("stored")
def test_a_name_gives_its_predictor() -> None:
    plain = presets.get("sgqn", "quick", device="cpu")
    for name, kind in {
        "cdna": CDNAPredictor,
        "copy": CopyPredictor,
        "background": BackgroundPredictor,
        "shuffled": ShuffledPredictor,
        "oracle": OraclePredictor,
    }.items():
        config = PredictiveSGQNConfig(**vars(plain), predictor=name, ahead_share=0.25)
        assert type(build_predictor(config, torch.device("cpu"))) is kind


KINDS = {"sac": PredictiveSACConfig, "sgqn": PredictiveSGQNConfig}


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("kind", "predictor"), [("sac", "background"), ("sgqn", "background"), ("sgqn", "oracle"), ("sgqn", "cdna")]
)
def test_a_resumed_training_equals_an_unbroken_one(kind: str, predictor: str, tmp_path: Path) -> None:
    plain = presets.get(
        kind, "quick", steps=126, learning_starts=120, eval_every=63, checkpoint_seconds=0.0, device="cpu"
    )
    config = KINDS[kind](**vars(plain), predictor=predictor, context=5)
    unbroken = assert_resumes(config, tmp_path / "run", Training, "add_row", 126)
    assert unbroken.curve["loss"].notna().any()


@pytest.mark.usefixtures("stored")
def test_agents_of_different_seeds_draw_different_numbers() -> None:
    """Although all of them load the same network, which was drawn from a seed of its own."""
    plain = presets.get("sgqn", "quick", device="cpu")
    drawn = []
    for seed in (1, 2):
        config = PredictiveSGQNConfig(**{**vars(plain), "seed": seed})
        env = envs.make(config.env, **config.env_kwargs)
        assert build_agent(config, env).predictor
        drawn.append(torch.rand(1))
    assert drawn[0] != drawn[1]


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("kwargs", "complaint"),
    [
        ({"size": (24, 24)}, r"size of \(32, 32\); the agent's is \(24, 24\)"),
        ({"repeat": 4}, "repeat of 8; the agent's is 4"),
        ({"task": "pendulum-swingup"}, "the agent's task is pendulum-swingup"),
        ({"quality": "full"}, "quality of fast; the agent's is full"),
        ({"mode": "color_hard"}, "mode of train; the agent's is color_hard"),
    ],
)
def test_a_network_for_other_frames_is_refused(kwargs: dict, complaint: str) -> None:
    plain = vars(presets.get("sgqn", "quick", device="cpu"))
    config = PredictiveSGQNConfig(**{**plain, "env_kwargs": {**plain["env_kwargs"], **kwargs}})
    with pytest.raises(ValueError, match=complaint):
        build_predictor(config, torch.device("cpu"))


@pytest.mark.usefixtures("stored")
def test_what_is_usual_may_be_said() -> None:
    plain = vars(presets.get("sgqn", "quick", device="cpu"))
    said = {"quality": "fast", "camera": 0, "mode": "train", "videos": "procedural", "labels": True}
    config = PredictiveSGQNConfig(**{**plain, "env_kwargs": {**plain["env_kwargs"], **said}})
    assert build_predictor(config, torch.device("cpu"))


def test_the_oracle_is_only_for_the_usual_scene() -> None:
    config = presets.get("predictive-sgqn-oracle", "quick", env_kwargs={"mode": "video_easy"}, device="cpu")
    with pytest.raises(ValueError, match="mode is video_easy; the oracle knows the simulator"):
        build_predictor(config, torch.device("cpu"))


def test_a_network_that_is_missing_is_named_at_the_start_of_a_training_and_not_missed_to_act(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIXELRL_RUNS", str(tmp_path))
    monkeypatch.setenv("PIXELRL_TRAININGS", str(tmp_path))
    assert small_agent(predictor="cdna").act(small_batch().obs.numpy(), explore=False).shape == (6, 2)
    with pytest.raises(FileNotFoundError, match="no run 'cdna-48'.*python -m pixelrl train cdna-48 --preset quick"):
        Training(presets.get("predictive-sgqn", "quick"))


@pytest.mark.usefixtures("stored")
def test_a_training_goes_on_with_no_other_network_than_it_began_with(tmp_path: Path) -> None:
    plain = presets.get("sac", "quick", steps=126, learning_starts=120, eval_every=63, eval_modes=(), device="cpu")
    config = PredictiveSACConfig(**{**vars(plain), "checkpoint_seconds": 0.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "judge", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(config, tmp_path / "run")
    folder = runs.library() / "cdna-48" / "seed-0"
    network = runs.read(folder)
    digest = runs.digest([network])
    runs.save(folder, replace(network, policy={name: x + 1 for name, x in network.policy.items()}))
    with pytest.raises(ValueError, match="cdna-48 is not what it was when this training began"):
        train(config, tmp_path / "run")
    runs.save(folder, network)
    assert train(config, tmp_path / "run").meta["built_on"] == {"cdna-48": digest}


@pytest.mark.parametrize(
    ("task", "same"), [("walker-walk", True), ("reacher-easy", False), ("finger-turn_easy", False)]
)
def test_the_oracle_is_only_for_scenes_that_the_state_tells(task: str, same: bool) -> None:
    config = presets.get("predictive-sgqn-oracle", "quick", env_kwargs={"task": task}, device="cpu")
    if same:
        assert build_predictor(config, torch.device("cpu"))
    else:
        with pytest.raises(ValueError, match=f"{task} has another scene in each episode"):
            build_predictor(config, torch.device("cpu"))
