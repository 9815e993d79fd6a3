"""Imagination: every rollout belongs to its own board and action, and gradients go where they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import assert_resumes
from torch import nn

from pixelrl import dynamics, envs, parallel, presets, runs
from pixelrl.agents import build_agent
from pixelrl.dynamics import CopyModel, EnvironmentModel, Play
from pixelrl.i2a import I2A, Imagined, RolloutEncoder, distil_loss, imagine
from pixelrl.parallel import ParallelTraining
from pixelrl.train import train

SHAPE = (4, 10, 10)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stored runs: an agent that has hardly learned, and a model that has hardly learned from it."""
    folder = tmp_path_factory.mktemp("library")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIXELRL_RUNS", str(folder))
        for method in ("a2c-partly", "breakout-model"):
            train(presets.get(method, "quick"), folder / "trainings" / method)
            runs.store(folder / "trainings" / method, folder)
    return folder


@pytest.fixture
def stored(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package finds them."""
    monkeypatch.setenv("PIXELRL_RUNS", str(library))


def boards(n: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 2, (n, *SHAPE), dtype=np.uint8))


class Marking(nn.Module):
    """A game in which a board is a number, to which each action adds; it ends above a limit."""

    def __init__(self, limit: float = 1e9) -> None:
        super().__init__()
        self.limit = limit

    def step(self, board: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, ...]:
        board = board * 4 + action[:, None, None, None]
        over = (board[:, 0, 0, 0] > self.limit).float()
        return board, torch.ones(len(board)), over


class Always(nn.Module):
    """A rollout policy that has one answer."""

    def __init__(self, action: int) -> None:
        super().__init__()
        self.action = action

    def forward(self, board: torch.Tensor) -> torch.Tensor:
        return torch.full((len(board), 3), -1e9).index_fill(1, torch.tensor(self.action), 0.0)


@pytest.mark.parametrize("n", [1, 16, 80])
def test_each_rollout_belongs_to_its_board_and_its_action(n: int) -> None:
    start = torch.arange(n, dtype=torch.int64)[:, None, None, None].expand(n, 1, 1, 1)
    imagined = imagine(Marking(), Always(2), start, 3, 3)
    assert imagined.board.shape == (n, 3, 3, 1, 1, 1)
    for b in range(n):
        for a in range(3):
            first = 4 * b + a
            assert imagined.board[b, a].flatten().tolist() == [first, 4 * first + 2, 16 * first + 10]


def test_nothing_happens_after_the_end() -> None:
    start = torch.tensor([0, 5])[:, None, None, None]
    imagined = imagine(Marking(limit=10), Always(1), start, 3, 3)
    assert imagined.alive[1].tolist() == [[0, 0, 0]] * 3  # 20 and more at once
    assert imagined.reward[1].tolist() == [[1, 0, 0]] * 3  # the step that ended it still counts
    assert imagined.board[1, 2].flatten().tolist() == [22, 22, 22]
    assert imagined.alive[0, 0].tolist() == [1, 1, 1]  # 0, 1, 5
    assert imagined.alive[0, 2].tolist() == [1, 1, 0]  # 2, 9, 37


def test_the_copy_model_changes_nothing() -> None:
    start = boards(5)
    imagined = imagine(CopyModel(), Always(0), start, 3, 4)
    assert (imagined.board == start[:, None, None]).all()
    assert not imagined.reward.any()
    assert imagined.alive.all()


def test_rollouts_are_read_from_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against one step of the recurrent network after another, in float32."""
    monkeypatch.setattr("pixelrl.i2a.fastest_dtype", lambda device: torch.float32)
    torch.manual_seed(0)
    encoder = RolloutEncoder(SHAPE, width=4, hidden=8, code=6)
    imagined = Imagined(boards(2 * 3 * 4).unflatten(0, (2, 3, 4)), torch.rand(2, 3, 4), torch.ones(2, 3, 4))
    codes = encoder(imagined)
    for b, a in np.ndindex(2, 3):
        state = None
        for t in (3, 2, 1, 0):
            told = torch.stack([imagined.reward[b, a, t], imagined.alive[b, a, t]])
            planes = torch.cat([imagined.board[b, a, t].float(), told[:, None, None].expand(2, 10, 10)])
            _, state = encoder.memory(encoder.features(planes[None])[None], state)
        torch.testing.assert_close(codes[b, a], state[0][0, 0])


def test_distillation_is_a_cross_entropy_and_falls() -> None:
    """Well-known versions have its sign wrong, or take logits for probabilities."""
    teacher = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]], requires_grad=True)
    student = torch.zeros(2, 3, requires_grad=True)
    loss = distil_loss(teacher, student)
    expected = -(teacher.softmax(dim=1) * student.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(loss, expected)
    optimizer = torch.optim.Adam([student], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        distil_loss(teacher, student).backward()
        optimizer.step()
    assert teacher.grad is None
    torch.testing.assert_close(student.softmax(dim=1), teacher.softmax(dim=1), rtol=0, atol=1e-2)


@pytest.mark.usefixtures("stored")
def test_gradients_reach_the_encoder_and_neither_model_nor_rollout_policy() -> None:
    config = presets.get("i2a", "quick", device="cpu")
    env = envs.make(config.env, **config.env_kwargs)
    agent: I2A = build_agent(config, env)
    logits, value = agent.net(*agent.look(boards(6).numpy()))
    (logits.square().sum() + value.sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in agent.net.encoder.parameters())
    assert all(p.grad is None for p in agent.rollout_policy.parameters())
    assert not any(p.requires_grad for p in agent.model.parameters())
    env.close()


@pytest.mark.usefixtures("stored")
def test_an_update_moves_the_rollout_policy_towards_the_policy() -> None:
    training = ParallelTraining(presets.get("i2a", "quick", distil_lr=1e-2, device="cpu"))
    training.restart()
    rollout = training.collect()
    losses = [float(training.agent.update(rollout)["distil_loss"]) for _ in range(60)]
    entropy = -(rollout.logits.softmax(-1) * rollout.logits.log_softmax(-1)).sum(-1).mean()
    assert losses[0] > losses[-1] >= float(entropy) - 1e-4


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("method", ["i2a", "i2a-copy", "i2a-1"])
def test_a_resumed_training_equals_an_unbroken_one(method: str, tmp_path: Path) -> None:
    config = presets.get(method, "quick", checkpoint_seconds=0.0, device="cpu")
    unbroken = assert_resumes(config, tmp_path, ParallelTraining, "add_row", 80)
    agent = unbroken.agent()
    assert agent.act(boards(7).numpy(), explore=False).shape == (7,)


@pytest.mark.usefixtures("stored")
def test_agents_of_different_seeds_draw_different_numbers() -> None:
    """Although all of them load the same model, which was drawn from a seed of its own."""
    drawn = []
    for seed in (1, 2):
        config = presets.get("i2a", "quick", device="cpu", seed=seed)
        build_agent(config, envs.make(config.env, **config.env_kwargs))
        drawn.append(torch.rand(1))
    assert drawn[0] != drawn[1]


def test_a_missing_model_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIXELRL_RUNS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="breakout-model"):
        ParallelTraining(presets.get("i2a", "quick"))


@pytest.mark.usefixtures("stored")
def test_recorded_play_hangs_together() -> None:
    teacher = runs.load("a2c-partly")[0]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    play = dynamics.record(teacher, 960, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(play.action) == 960
    assert not torch.equal(dynamics.record(teacher, 960, seed=2).action, play.action)
    assert torch.equal(dynamics.record(teacher, 960, seed=1).next_board, play.next_board)
    rooms = [part.unflatten(0, (30, 32)) for part in play]
    board, _, reward, following, ended = rooms
    goes_on = ended[:-1] == 0
    same = (following[:-1] == board[1:]).all(dim=(2, 3, 4))
    cut = ~same & goes_on  # by the limit of thirty steps, where a new game begins
    assert same[goes_on].float().mean() > 0.9
    assert cut.sum() <= 32
    assert ended.sum() > 10
    lost = play.next_board[play.ended == 1]
    assert lost[:, 1, 9].any(dim=1).all()  # the ball is in the lowest row
    bricks = play.board[:, 3].sum((1, 2)).int() - play.next_board[:, 3].sum((1, 2)).int()
    assert torch.equal(bricks, play.reward.int())


def small_play(n: int = 6) -> Play:
    rng = np.random.default_rng(1)
    action, outcomes = rng.integers(0, 3, n), rng.integers(0, 2, (2, n)).astype(np.float32)
    following = torch.from_numpy(rng.integers(0, 2, (n, *SHAPE), dtype=np.uint8))
    return Play(
        boards(n), torch.from_numpy(action), torch.from_numpy(outcomes[0]), following, torch.from_numpy(outcomes[1])
    )


def test_the_models_loss_is_the_likelihood_of_what_came() -> None:
    torch.manual_seed(0)
    model, play = EnvironmentModel(SHAPE, 3, 4), small_play()
    said = model(play.board, play.action)
    board, reward, ended = (logits.detach().sigmoid().double() for logits in said)
    expected = 0.0
    for i in range(6):
        for p, truth in ((board[i], play.next_board[i]), (reward[i], play.reward[i]), (ended[i], play.ended[i])):
            expected -= float(torch.where(truth == 1, p, 1 - p).log().sum())
    assert float(dynamics.model_loss(said, play).detach()) == pytest.approx(expected / 6, rel=1e-5)


def test_a_model_learns_what_an_action_does() -> None:
    torch.manual_seed(0)
    model, play = EnvironmentModel(SHAPE, 3, 16), small_play(12)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(400):
        optimizer.zero_grad()
        dynamics.model_loss(model(play.board, play.action), play).backward()
        optimizer.step()
    found = dynamics.accuracy(model, play)
    assert found["rewards_found"] == found["ends_found"] == 1.0
    others = model(play.board, (play.action + 1) % 3)
    assert not torch.allclose(others.board, model(play.board, play.action).board, atol=0.1)


def test_the_copy_is_right_where_nothing_moves() -> None:
    play = small_play(4)
    play = play._replace(
        next_board=torch.cat([play.board[:3], 1 - play.board[3:]]), reward=torch.tensor([0.0, 1, 0, 1])
    )
    found = dynamics.accuracy(CopyModel(), play)
    assert found["boards_right"] == 0.75
    assert found["rewards_found"] == 0.0


@pytest.mark.usefixtures("stored")
def test_how_it_is_evaluated_changes_nothing_of_what_is_learned() -> None:
    """Although what it imagines in these episodes is drawn."""
    one, other = (
        train(presets.get("i2a", "quick", eval_episodes=episodes, device="cpu")).policy for episodes in (1, 3)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    training = ParallelTraining(presets.get("i2a", "quick", device="cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "evaluate", lambda *arguments: float(torch.rand(1)))
        drawn = [training.played(4, seed) for seed in (7, 7, 8)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_game_is_judged_in_environments_with_seeds_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    monkeypatch.setattr(dynamics, "record", lambda teacher, steps, seed: seeds.append(seed) or small_play())
    dynamics.ModelTraining(presets.get("breakout-model", "quick", device="cpu"))
    assert abs(seeds[1] - seeds[0]) >= dynamics.ROOMS
