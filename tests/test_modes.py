"""The generalisation modes: what is kept, what is replaced, and where backgrounds come from."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import gymnasium as gym
import numpy as np
import pytest

from pixelrl import envs
from pixelrl.envs import modes, videos
from pixelrl.envs.camera import FIXED, FLOOR, SKY
from pixelrl.evaluate import videos_shown

PIXELS = "pixelrl/ControlPixels-v0"
ZERO = np.zeros(1, np.float32)


def see(mode: str, seed: int = 0, **kwargs: object) -> tuple[np.ndarray, np.ndarray]:
    """The newest frame (84, 84, 3) of a mode after a few steps, and its labels."""
    env = gym.make(PIXELS, mode=mode, stack=1, labels=True, **kwargs)
    env.reset(seed=seed)
    for _ in range(4):
        obs, _, _, _, info = env.step(np.ones(1, np.float32))
    return obs.transpose(1, 2, 0), info["labels"]


@pytest.mark.parametrize("quality", ["full", "fast"])
@pytest.mark.parametrize("mode", ["video_easy", "video_hard"])
def test_every_pixel_of_a_body_is_kept_and_every_other_replaced(mode: str, quality: str) -> None:
    """Compared where the picture is drawn, before it is averaged, on the very same scene."""
    env = gym.make(PIXELS, mode=mode, quality=quality).unwrapped
    lens = env.make_camera((84, 84), 0, quality)
    env.reset(seed=0)
    scenery = modes.make_scenery(mode, "procedural")
    scenery.start(0)
    plain, shot = lens.shoot(env.data, labels=True), scenery.shoot(lens, env.data)
    kept = plain.labels >= FIXED if mode == "video_hard" else plain.labels != SKY
    assert all((plain.labels == label).any() for label in (SKY, FLOOR, FIXED, FIXED + 1, FIXED + 2))
    np.testing.assert_array_equal(shot.rgb[kept], plain.rgb[kept])
    background = cv2.resize(scenery.frame, kept.shape[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(shot.rgb[~kept], background[~kept])


@pytest.mark.parametrize("mode", ["video_easy", "video_hard"])
def test_whole_pixels_of_bodies_are_kept_in_the_finished_frame(mode: str) -> None:
    plain, labels = see("train")
    shown, _ = see(mode)
    inside = cv2.erode((labels >= FIXED + 1).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    assert inside.sum() > 10
    np.testing.assert_array_equal(shown[inside], plain[inside])


def test_the_floor_stays_in_easy_and_goes_in_hard() -> None:
    plain, labels = see("train")
    floor = cv2.erode((labels == FLOOR).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    np.testing.assert_array_equal(see("video_easy")[0][floor], plain[floor])
    assert (see("video_hard")[0][floor] != plain[floor]).any(axis=1).mean() > 0.9


def test_colours_are_as_far_from_the_usual_ones_as_their_mode_says() -> None:
    usual = np.array([modes.SKY_RGB, modes.FLOOR_RGB, modes.BODY_RGB])
    for mode, spread in modes.SPREAD.items():
        colours = modes.Colours(spread)
        drawn = []
        for number in range(2_000):
            colours.start(number)
            drawn.append(colours.tint * usual)
        drawn = np.stack(drawn)
        away_from_the_ends = (usual > 2 * spread) & (usual < 1 - 2 * spread)
        np.testing.assert_allclose((drawn - usual).std(axis=0)[away_from_the_ends], spread, rtol=0.1, err_msg=mode)
        assert drawn.min() >= 0
        assert drawn.max() <= 1 + 1e-6


def test_a_colour_is_what_the_simulator_itself_would_draw() -> None:
    """The bodies' colour, changed in the model, against the picture that is tinted afterwards."""
    env = gym.make(PIXELS, mode="color_hard").unwrapped
    env.reset(seed=0)
    lens = env.make_camera((84, 84), 0, "fast")
    colours = modes.Colours(0.2)
    colours.start(5)
    tinted, labels = colours.shoot(lens, env.data)
    material = env.model.geom_matid[env.model.geom("cart").id]
    env.model.mat_rgba[material, :3] *= colours.tint[2]
    drawn = lens.shoot(env.data).rgb
    bodies = (labels > FIXED) & (drawn.max(axis=2) < 255)
    assert np.abs(drawn[bodies].astype(int) - tinted[bodies]).max() <= 8  # a highlight has no colour of its own


def test_each_part_of_the_scene_has_its_own_tint() -> None:
    env = gym.make(PIXELS, mode="color_hard").unwrapped
    env.reset(seed=0)
    lens, colours = env.make_camera((84, 84), 0, "fast"), modes.Colours(0.2)
    colours.tint = np.array([[0.5] * 3, [0.25] * 3, [1.0] * 3], np.float32)
    plain, tinted = lens.shoot(env.data, labels=True), colours.shoot(lens, env.data)
    for label, tint in ((SKY, 0.5), (FLOOR, 0.25), (FIXED + 1, 1.0)):
        there = plain.labels == label
        assert there.any()
        np.testing.assert_allclose(tinted.rgb[there], tint * plain.rgb[there], atol=1)


def test_a_number_picks_the_video_and_otherwise_the_seed_does() -> None:
    env = gym.make(PIXELS, mode="video_hard", size=(32, 32))
    first = env.reset(seed=0, options={"scenery": 5})[0]
    np.testing.assert_array_equal(first, env.reset(seed=0, options={"scenery": 5})[0])
    assert (first != env.reset(seed=0, options={"scenery": 6})[0]).mean() > 0.5
    assert (first != env.reset(seed=0)[0]).mean() > 0.5


def test_one_frame_of_the_video_passes_with_each_agent_step() -> None:
    scenery = gym.make(PIXELS, mode="video_hard", size=(32, 32), repeat=8)
    scenery.reset(seed=0, options={"scenery": 3})
    clip = videos.Procedural().open(3)
    for _ in range(4):
        expected = clip.read()
        np.testing.assert_array_equal(scenery.get_wrapper_attr("scenery").frame, expected)
        scenery.step(ZERO)


def test_procedural_videos_move_differ_and_are_the_same_again() -> None:
    clips = [videos.Procedural().open(number) for number in (0, 1, 0, 100)]
    first = [clip.read() for clip in clips]
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(first[0], first[3])  # there are a hundred
    assert np.abs(first[0].astype(int) - first[1]).mean() > 20
    for clip, before in zip(clips[:2], first[:2], strict=True):
        assert (clip.read() != before).mean() > 0.1


def test_procedural_videos_have_many_looks() -> None:
    means = np.stack([videos.Procedural().open(k).read().mean((0, 1)) for k in range(videos.COUNT)])
    assert len(np.unique(means.round(), axis=0)) == videos.COUNT
    assert means.std(axis=0).min() > 20


def write_video(path: Path, frames: np.ndarray) -> None:
    """An H.264 file of frames (T, H, W, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Videos in the benchmark's layout: video k is grey, 10 (k + 1) at first, and one step brighter each frame."""
    for k in (0, 1, 2, 10):
        grey = 10 * (k + 1) + np.arange(4)
        frames = np.broadcast_to(grey[:, None, None, None], (4, 32, 48, 3)).astype(np.uint8)
        write_video(tmp_path / "video_hard" / f"video{k}.mp4", frames)
    return tmp_path


def test_a_folder_is_read_frame_by_frame_in_the_order_of_its_numbers_and_anew_at_the_end(folder: Path) -> None:
    found = modes.open_videos(str(folder), "video_hard")
    assert [path.stem for path in found.files] == ["video0", "video1", "video2", "video10"]
    clip = found.open(7)  # of four: the last one
    means = [clip.read().mean() for _ in range(6)]
    np.testing.assert_allclose(means, [110, 111, 112, 113, 110, 111], atol=1.5)


def test_the_variable_names_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELRL_VIDEOS", str(folder))
    assert isinstance(modes.make_scenery("video_hard").videos, videos.Folder)
    assert isinstance(modes.make_scenery("video_hard", "procedural").videos, videos.Procedural)
    monkeypatch.delenv("PIXELRL_VIDEOS")
    assert isinstance(modes.make_scenery("video_hard").videos, videos.Procedural)


def test_a_folder_without_videos_or_with_something_else_is_told(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*video_easy.*PIXELRL_VIDEOS"):
        gym.make(PIXELS, mode="video_easy", videos=str(folder))
    (folder / "video_easy").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no \*\.mp4 in"):
        gym.make(PIXELS, mode="video_easy", videos=str(folder))
    (folder / "video_easy" / "notes.mp4").write_text("no video at all")
    env = gym.make(PIXELS, mode="video_easy", videos=str(folder), size=(32, 32))
    with pytest.raises(ValueError, match=r"notes\.mp4 holds no video that can be decoded"):
        env.reset(seed=0)


def test_colour_keying_loses_what_segmentation_keeps() -> None:
    """Why the modes do not key by colour: the rail is blue, and blue is near enough to the key's green."""
    plain, labels = see("train")
    assert (labels == FIXED).sum() > 20
    hsv = cv2.cvtColor(plain, cv2.COLOR_RGB2HSV_FULL)
    keyed = (hsv[..., 0] >= 100) & (hsv[..., 0] <= 185) & (hsv[..., 1] >= 80) & (hsv[..., 2] >= 70)
    assert keyed[labels == FIXED].mean() > 0.5


def test_all_modes_are_listed() -> None:
    assert envs.MODES == ("train", "color_easy", "color_hard", "video_easy", "video_hard")


@pytest.mark.parametrize("task", ["finger-turn_hard", "ball_in_cup-catch"])
def test_what_is_drawn_and_has_no_body_is_kept(task: str) -> None:
    """Of the one, the place to turn to; of the other, the string: in front of a video as in the usual scene."""
    env = gym.make(PIXELS, mode="video_hard", task=task).unwrapped
    env.reset(seed=0)
    lens = env.make_camera((84, 84), 0, "fast")
    whole, without = lens.shoot(env.data, labels=True), lens.shoot(env.data, sky=False)
    drawn = (without.rgb != 0).any(axis=2) & (whole.labels != FLOOR)
    assert (whole.labels[drawn] != SKY).all()
    lens.option.sitegroup[:] = lens.option.tendongroup[:] = 0
    bare = lens.shoot(env.data, labels=True)
    assert ((whole.labels != SKY) & (bare.labels == SKY)).sum() > 5


def test_a_folder_of_videos_is_known_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    assert videos_shown("video_hard", ".") == videos_shown("video_hard", str(folder / "here")) == "here"
    assert videos_shown("video_hard", "procedural") == "procedural"
    assert videos_shown("color_hard", ".") == ""
    with pytest.raises(ValueError, match="must not be called 'procedural'"):
        modes.make_scenery("video_easy", str(folder / "procedural"))
