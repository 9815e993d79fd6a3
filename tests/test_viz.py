"""Pictures and videos: what is in the page, and that a decoder reads it back."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import av
import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from pixelrl import envs, presets, viz
from pixelrl.dqn import DQN
from pixelrl.evaluate import play
from pixelrl.runs import Run


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The HTML of everything that is displayed."""
    pages: list[str] = []

    def keep(item: Any, raw: bool = False) -> None:
        pages.append(item["text/html"] if raw else item.data)

    monkeypatch.setattr(viz, "display", keep)
    return pages


def content(page: str, kind: str) -> bytes:
    return base64.b64decode(re.search(f"data:{kind};base64,([^\"']+)", page)[1])


def test_enlarged_pixels_are_squares() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    large = viz.enlarged(picture, 5)
    np.testing.assert_array_equal(large, cv2.resize(picture, (10, 10), interpolation=cv2.INTER_NEAREST))


def test_figure_carries_its_picture_and_its_text(shown: list[str]) -> None:
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, 1])
    viz.figure(fig, alt='rises from 0 to "1" & stops')
    picture = cv2.imdecode(np.frombuffer(content(shown[0], "image/png"), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] > picture.shape[0] > 100
    assert 'alt="rises from 0 to &quot;1&quot; &amp; stops"' in shown[0]
    assert not plt.fignum_exists(fig.number)


def test_a_picture_without_text_is_refused(shown: list[str]) -> None:
    with pytest.raises(ValueError, match="needs a text"):
        viz.figure(plt.figure(), alt="  ")
    assert shown == []


@pytest.mark.parametrize("shape", [(64, 96, 3), (65, 97, 3), (64, 96)])
def test_video_is_h264_with_the_frames_that_went_in(shape: tuple[int, ...]) -> None:
    frames = [np.full(shape, 40 * i, np.uint8) for i in range(6)]
    with av.open(io.BytesIO(viz.encode(frames, fps=20))) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"  # what every browser plays
        assert stream.average_rate == 20
        decoded = [frame.to_ndarray(format="gray") for frame in container.decode(stream)]
    assert [picture.shape for picture in decoded] == [(64, 96)] * 6
    assert np.allclose([picture.mean() for picture in decoded], [40 * i for i in range(6)], atol=4)


def test_video_colours_are_not_swapped() -> None:
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    with av.open(io.BytesIO(viz.encode([red], fps=10))) as container:
        (frame,) = container.decode(video=0)
    assert frame.to_ndarray(format="rgb24").mean((0, 1)) == pytest.approx([255, 0, 0], abs=12)


def test_video_says_what_it_shows(shown: list[str]) -> None:
    viz.video([np.zeros((16, 16, 3), np.uint8)], alt="nothing")
    assert 'aria-label="nothing"' in shown[0]
    assert content(shown[0], "video/mp4")[4:8] == b"ftyp"


@pytest.mark.parametrize("frames", [[], [np.zeros((8, 8, 3), np.float32)]])
def test_frames_that_are_none_are_refused(frames: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="at least one frame|must be uint8"):
        viz.encode(frames, fps=10)


def test_explorer_holds_every_picture_and_caption(shown: list[str]) -> None:
    pictures = [np.full((8, 8, 3), 100 * i, np.uint8) for i in range(3)]
    viz.explorer({"grey": ["one", "two", "three <b>"]}, pictures, alt="three greys")
    urls = re.findall(r'"(data:image/jpeg;base64,[^"]+)"', re.search(r"urls = (\[.*?\])", shown[0])[1])
    assert len(urls) == 3
    assert 'max="2"' in shown[0]
    assert '"two"' in shown[0]


def test_explorer_moves_with_its_slider(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = []
    monkeypatch.setattr(viz.ipywidgets, "VBox", lambda children: boxes.append(children) or viz.ipywidgets.Box(children))
    monkeypatch.setattr(viz, "display", lambda *args, **kwargs: None)
    greys = [np.full((8, 8, 3), 40 * i, np.uint8) for i in range(6)]
    viz.explorer({"first": ["a", "b"], "second": ["x", "y", "z"]}, greys, alt="six greys")
    first, second, picture, caption = boxes[0]
    seen = {caption.value: picture.value}
    for i, j in ((0, 1), (0, 2), (1, 0), (1, 1), (1, 2)):
        first.value, second.value = i, j
        seen[caption.value] = picture.value
    assert list(seen) == ["a · x", "a · y", "a · z", "b · x", "b · y", "b · z"]
    means = [cv2.imdecode(np.frombuffer(value, np.uint8), 0).mean() for value in seen.values()]
    assert np.allclose(means, [0, 40, 80, 120, 160, 200], atol=2)


def test_explorer_wants_a_picture_for_each_combination() -> None:
    with pytest.raises(ValueError, match="1 pictures, but 2 combinations of step"):
        viz.explorer({"step": ["a", "b"]}, [np.zeros((8, 8, 3), np.uint8)], alt="x")


def test_heat_leaves_what_has_no_part_and_shines_at_the_top() -> None:
    frame = np.full((2, 2, 3), 60, np.uint8)
    shown = viz.heat(frame, np.array([[0.0, 2.0], [0.5, 4.0]]), top=2.0)
    assert shown[0, 0].tolist() == [60, 60, 60]
    assert shown[0, 1].sum() > 600
    assert (shown[0, 1] == shown[1, 1]).all()
    assert 60 * 3 < shown[1, 0].sum() < shown[0, 1].sum()
    with pytest.raises(ValueError, match="top is"):
        viz.heat(frame, np.zeros((2, 2)), top=0.0)


def test_images_show_every_title(shown: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(viz, "figure", lambda fig, alt: figures.append(fig))
    viz.images([np.zeros((4, 6), np.uint8)] * 5, [f"p{i}" for i in range(5)], alt="five", columns=3)
    titles = [ax.get_title() for ax in figures[0].axes]
    assert titles[:5] == ["p0", "p1", "p2", "p3", "p4"]
    with pytest.raises(ValueError, match="2 pictures and 1 titles"):
        viz.images([np.zeros((4, 6), np.uint8)] * 2, ["one"], alt="two")


def test_discounted_returns_by_hand() -> None:
    assert viz.discounted_returns(np.array([1.0, 2.0, 4.0]), 0.5).tolist() == [3.0, 4.0, 4.0]


def test_q_values_are_the_agents() -> None:
    env = envs.make("CartPole-v1", render_mode="rgb_array")
    agent = DQN(presets.get("dqn-cartpole", "quick"), env.observation_space, env.action_space)
    episode = play(agent, env, max_steps=5)
    fig, ax = plt.subplots()
    q = viz.q_values(ax, agent, episode, ["left", "right"], gamma=0.99)
    assert np.allclose(ax.lines[1].get_ydata(), agent.q_values(episode.obs)[:, 1])
    assert q.shape == (len(episode.frames), 2)
    plt.close(fig)


def test_curves_draw_the_mean_and_each_seed() -> None:
    config = presets.get("dqn-cartpole", "quick")
    runs = [Run(config, pd.DataFrame({"step": [1, 2], "return": [v, v + 1]}), {}, {}) for v in (0.0, 2.0)]
    fig, ax = plt.subplots()
    viz.curves(ax, {"both": runs})
    assert ax.lines[0].get_ydata().tolist() == [1.0, 2.0]
    assert [line.get_ydata().tolist() for line in ax.lines[1:]] == [[0.0, 1.0], [2.0, 3.0]]
    viz.curves(ax, {"one": runs[:1]})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["both (2)", "one (1)"]
    assert [ax.lines[i].get_linestyle() for i in (0, 3)] == ["-", "--"]  # a single run is not taken for a mean
    plt.close(fig)


def test_a_table_has_all_cells_and_keeps_an_interval_on_one_line(shown: list[str]) -> None:
    frame = pd.DataFrame({"method": ["a <b>"], "return": ["1 [0, 2]"], "hours": [1.26]}, index=[7])
    viz.table(frame)
    cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", shown[0])
    assert cells == ["method", "return", "hours", "a &lt;b&gt;", "1 [0,&nbsp;2]", "1.3"]


def test_the_gap_is_drawn_with_its_seeds() -> None:
    runs = []
    for seed, returns in enumerate(([10.0, 20.0], [30.0, 60.0])):
        table = pd.DataFrame({"mode": ["train", "video_hard"], "videos": ["", "x"], "episode": 0, "return": returns})
        runs.append(Run(presets.get("sac", "quick", seed=seed), pd.DataFrame(), {}, {}, table))
    _, ax = plt.subplots()
    viz.gap(ax, {"SAC": runs}, {"usual": ("train", ""), "video": ("video_hard", "x")})
    assert [bar.get_height() for bar in ax.patches] == [20.0, 40.0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["usual", "video"]
    dots = [line.get_ydata().tolist() for line in ax.lines if line.get_marker() == "."]
    assert dots == [[10.0, 20.0], [30.0, 60.0]]
    assert ax.get_legend().get_texts()[0].get_text() == "SAC (2)"
