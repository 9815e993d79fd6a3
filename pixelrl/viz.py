"""Pictures, videos and explorers, each with a text for those who do not see it, and tables.

Everything is shown as HTML with its picture inside, so that it looks the same in Colab, in Jupyter and on
the site, and so that the text travels along.
"""

from __future__ import annotations

import base64
import html
import io
import json
from itertools import product
from typing import Any
from uuid import uuid4

import av
import cv2
import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixelrl import stats
from pixelrl.evaluate import Episode
from pixelrl.runs import Run

sns.set_theme(style="ticks", palette="colorblind", rc={"axes.spines.top": False, "axes.spines.right": False})


def figure(fig: Figure, alt: str, width: int = 720) -> None:
    """Show a Matplotlib figure and close it.

    Args:
        fig: to show.
        alt: what it says, for those who do not see it.
        width: on the page, in pixels; on a narrow screen it shrinks.
    """
    fig.tight_layout()
    buffer = io.BytesIO()
    # Left to itself, Matplotlib cuts off the label of an axis that is shorter than its label.
    labels = [axis.label for ax in fig.axes for axis in (ax.xaxis, ax.yaxis)]
    shown = [*fig.get_default_bbox_extra_artists(), *labels]
    fig.savefig(buffer, format="png", dpi=144, bbox_inches="tight", bbox_extra_artists=shown)
    plt.close(fig)
    display(HTML(f'<img src="{data_url(buffer.getvalue(), "image/png")}" {described(alt)} style="width:{width}px">'))


def video(frames: list[np.ndarray], alt: str, fps: int = 30, width: int = 480) -> None:
    """Show frames (H, W, 3) or (H, W) uint8 as an H.264 video inside the page."""
    content, text = encode(frames, fps), checked(alt)
    poster = data_url(cv2.imencode(".jpg", bgr(frames[0]))[1].tobytes(), "image/jpeg")
    display(
        HTML(
            f'<video src="{data_url(content, "video/mp4")}" poster="{poster}" controls loop muted playsinline '
            f'aria-label="{text}" style="width:{width}px;max-width:100%"></video>'
        )
    )


def encode(frames: list[np.ndarray], fps: int) -> bytes:
    """An MP4 file with H.264 video that every browser plays.

    Args:
        frames: (H, W, 3) or (H, W) uint8, all of one size. An odd last row or column is cut off: the
            format stores colour at half resolution.
        fps: frames a second.
    """
    if len(frames) == 0:
        raise ValueError("a video needs at least one frame.")
    height, width = (length // 2 * 2 for length in frames[0].shape[:2])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(bgr(frame)[:height, :width], format="bgr24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def bgr(frame: np.ndarray) -> np.ndarray:
    """A frame (H, W) or (H, W, 3) uint8 in the order that OpenCV writes, contiguous."""
    if frame.dtype != np.uint8:
        raise ValueError(f"a frame must be uint8, 0 to 255; this one is {frame.dtype}.")
    return cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR if frame.ndim == 2 else cv2.COLOR_RGB2BGR)


def data_url(content: bytes, kind: str) -> str:
    """Bytes as an address that holds them itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def described(alt: str) -> str:
    """The `alt` attribute of a picture."""
    return f'alt="{checked(alt)}"'


def checked(alt: str) -> str:
    """A text as an attribute has it; an empty one is refused."""
    if not alt.strip():
        raise ValueError("a picture needs a text that says what it shows: alt='...'.")
    return html.escape(alt)


def images(pictures: list[np.ndarray], titles: list[str], alt: str, columns: int = 4, **imshow: Any) -> None:
    """Show pictures (H, W) or (H, W, 3) side by side, each under its title.

    Raises:
        ValueError: there are not as many titles as pictures.
    """
    if len(pictures) != len(titles):
        raise ValueError(f"there are {len(pictures)} pictures and {len(titles)} titles.")
    rows = -(-len(pictures) // columns)
    height, width = pictures[0].shape[:2]
    fig, axes = plt.subplots(rows, columns, figsize=(10, rows * (10 / columns * height / width + 0.4)), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, picture, title in zip(axes.flat, pictures, titles, strict=False):
        ax.imshow(picture, **{"cmap": "gray", "interpolation": "nearest", **imshow})
        ax.set_title(title, fontsize=10)
    figure(fig, alt)


def table(rows: pd.DataFrame) -> None:
    """Show a table without its index, as wide as the page; no line breaks within an interval."""
    page = rows.to_html(index=False, float_format="{:.1f}".format, border=0)
    display(HTML(page.replace(", ", ",&nbsp;")))


def curves(
    ax: Axes, groups: dict[str, list[Run]], y: str = "return", x: str = "step", statistic: stats.Statistic = np.mean
) -> None:
    """Draw the mean over seeds of each group of runs, with its 95 % bootstrap interval, and each seed thinly.

    The line of a single run, which has no interval, is dashed.

    Args:
        ax: to draw on.
        groups: runs by label.
        y, x: columns of the curves.
        statistic: over seeds.
    """
    for label, runs in groups.items():
        steps, values = stats.curves(runs, y, x)
        estimate = stats.estimate(values, statistic)
        style = "-" if len(runs) > 1 else "--"
        (line,) = ax.plot(steps, estimate.value, style, label=f"{label} ({len(runs)})")
        ax.fill_between(steps, estimate.low, estimate.high, color=line.get_color(), alpha=0.2, linewidth=0)
        ax.plot(steps, values.T, color=line.get_color(), linewidth=0.4, alpha=0.5)
    ax.set_xlabel("agent steps" if x == "step" else x)
    ax.set_ylabel("mean " + y.replace("_", ", ", 1) if y.startswith("return") else y)
    ax.legend(frameon=False)


def gap(ax: Axes, groups: dict[str, list[Run]], modes: dict[str, tuple[str, str]]) -> None:
    """Draw the mean return of each group of runs in each mode, with its 95 % bootstrap interval, and each seed.

    Args:
        ax: to draw on.
        groups: runs by label.
        modes: by label, the mode and its videos, as `stats.mode_means` takes them.
    """
    width = 0.8 / len(groups)
    for i, (label, runs) in enumerate(groups.items()):
        at = np.arange(len(modes)) + (i - (len(groups) - 1) / 2) * width
        values = np.stack([stats.mode_means(runs, *mode) for mode in modes.values()], axis=1)  # (seeds, modes)
        estimate = stats.estimate(values)
        error = np.stack([estimate.value - estimate.low, estimate.high - estimate.value])
        bars = ax.bar(at, estimate.value, width * 0.9, yerr=error, label=f"{label} ({len(runs)})", alpha=0.6)
        for seed in values:
            ax.plot(at, seed, ".", color=bars[0].get_facecolor()[:3], markersize=4)
    ax.set_xticks(np.arange(len(modes)), modes)
    ax.set_ylabel("mean return")
    ax.legend(frameon=False)


def heat(frame: np.ndarray, attribution: np.ndarray, top: float) -> np.ndarray:
    """A frame (H, W, 3) uint8, in grey, under its attribution (H, W), not negative: bright yellow at `top` and above.

    Take one `top` for a whole episode. A map that is stretched to its own largest number looks the same whether the
    answer hangs on these pixels or on nothing.
    """
    if top <= 0.0:
        raise ValueError(f"top is {top}; it must be positive.")
    share = np.clip(attribution / top, 0.0, 1.0)
    colour = 255 * plt.colormaps["inferno"](share)[..., :3]
    weight = np.sqrt(share)[..., None]  # so that weak ones are seen as well
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None]
    return ((1 - weight) * grey + weight * colour).astype(np.uint8)


def enlarged(picture: np.ndarray, times: int) -> np.ndarray:
    """A picture whose pixels are squares of `times` × `times`."""
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def q_values(ax: Axes, agent: Any, episode: Episode, labels: list[str], gamma: float) -> np.ndarray:
    """Draw the values of all actions along an episode beside the return that really followed.

    Args:
        ax: to draw on.
        agent: whose `q_values` are asked.
        episode: from `evaluate.play`.
        labels: names of the actions.
        gamma: discount of the returns.

    Returns:
        The values, (T, actions).
    """
    q = agent.q_values(episode.obs)
    for action, label in enumerate(labels):
        ax.plot(q[:, action], label=f"Q(s, {label})")
    ax.plot(discounted_returns(episode.rewards, gamma), "k--", linewidth=1, label="discounted return that followed")
    ax.set_xlabel("agent steps")
    ax.legend(frameon=False)
    return q


def discounted_returns(rewards: np.ndarray, gamma: float) -> np.ndarray:
    """G_t = r_t + gamma G_{t+1} for every step of an episode, (T,); nothing follows the last reward."""
    returns = np.zeros(len(rewards) + 1)
    for t in reversed(range(len(rewards))):
        returns[t] = rewards[t] + gamma * returns[t + 1]
    return returns[:-1]


def explorer(axes: dict[str, list[str]], pictures: list[np.ndarray], alt: str, width: int = 480) -> None:
    """Slide through pictures along one axis or several, such as time, or a method and a threshold.

    Where a kernel runs, these are ipywidgets sliders; on the static page, the same pictures behind sliders
    of plain HTML.

    Args:
        axes: by name, what each of its steps is called.
        pictures: (H, W, 3) uint8, one for each combination of steps; the last axis changes fastest.
        alt: what they show, for those who do not see them.
        width: on the page, in pixels.
    """
    captions = [" · ".join(steps) for steps in product(*axes.values())]
    if len(pictures) != len(captions):
        raise ValueError(f"{len(pictures)} pictures, but {len(captions)} combinations of {' and '.join(axes)}.")
    files = [cv2.imencode(".jpg", bgr(picture), [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes() for picture in pictures]
    lengths = [len(steps) for steps in axes.values()]
    sliders = [
        ipywidgets.IntSlider(max=len(steps) - 1, description=name, readout=False) for name, steps in axes.items()
    ]
    picture = ipywidgets.Image(value=files[0], format="jpeg", width=width)
    caption = ipywidgets.Label(captions[0])

    def show(_: dict[str, Any]) -> None:
        number = int(np.ravel_multi_index([slider.value for slider in sliders], lengths))
        picture.value, caption.value = files[number], captions[number]

    for slider in sliders:
        slider.observe(show, "value")
    bundle = ipywidgets.VBox([*sliders, picture, caption])._repr_mimebundle_()
    display({**bundle, "text/html": static_explorer(axes, files, captions, alt, width)}, raw=True)


def static_explorer(axes: dict[str, list[str]], files: list[bytes], captions: list[str], alt: str, width: int) -> str:
    """The explorer without a kernel: JPEG files and captions behind HTML sliders."""
    name = f"explorer-{uuid4().hex}"
    urls = [data_url(file, "image/jpeg") for file in files]
    sliders = "".join(
        f'<label style="display:flex;gap:12px">{html.escape(axis)}'
        f'<input type="range" min="0" max="{len(steps) - 1}" value="0" style="flex:1"></label>'
        for axis, steps in axes.items()
    )
    return f"""<div id="{name}" class="explorer" style="max-width:{width}px">{sliders}
<img src="{urls[0]}" {described(alt)} style="width:100%"><div class="caption">{html.escape(captions[0])}</div>
<script>(function() {{
  const box = document.getElementById("{name}"), urls = {json.dumps(urls)}, captions = {json.dumps(captions)};
  const sliders = [...box.querySelectorAll("input")];
  box.addEventListener("input", function() {{
    const number = sliders.reduce((sum, slider) => sum * (Number(slider.max) + 1) + Number(slider.value), 0);
    box.querySelector("img").src = urls[number];
    box.querySelector(".caption").textContent = captions[number];
  }});
}})();</script></div>"""
