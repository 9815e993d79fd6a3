"""The built site: nothing dead, nothing without words, nothing from another server. Skipped where it is not built."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parent.parent
SITE = ROOT / "_build" / "html"
MAX_BYTES = 3_000_000
KINDS = ("link", "alt", "video", "weight", "outside")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LOADED_LINKS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "manifest"}


class Page(HTMLParser):
    """What one HTML file links to, loads, and says about its pictures and videos."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.anchors: set[str] = set()
        self.links: list[str] = []
        """Where a click leads."""
        self.loads: list[str] = []
        """What the browser fetches by itself."""
        self.media: set[str] = set()
        """Those of them that are pictures and videos."""
        self.without_alt: list[str] = []
        self.videos: list[tuple[str, list[str]]] = []
        """Their labels and sources."""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        source = given.get("src", "")
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and LOADED_LINKS & set(given.get("rel", "").split()):
            self.loads.append(given.get("href", ""))
        elif tag == "meta" and given.get("http-equiv", "").lower() == "refresh":
            self.links.append(given["content"].partition("url=")[2])
        elif tag == "img" and not given.get("alt", "").strip():
            self.without_alt.append(source)
        elif tag == "video":
            self.videos.append((given.get("aria-label", ""), [source] if source else []))
        elif tag == "source" and self.videos:
            self.videos[-1][1].append(source)
        self.loads += [given[name] for name in ("src", "poster") if given.get(name)]
        if tag in ("img", "video", "source", "audio"):
            self.media |= {given[name] for name in ("src", "poster") if given.get(name)}


def is_outside(address: str) -> bool:
    """Whether an address leads to another server."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https")


def is_local(address: str) -> bool:
    """Whether an address names a file of the site: it has neither a server nor a scheme such as `data:`."""
    return not is_outside(address) and not urlsplit(address).scheme


def target(page: Page, address: str) -> Path:
    """The file that a local address means."""
    path = unquote(urlsplit(address).path)
    file = (page.path.parent / path).resolve() if path else page.path
    return file / "index.html" if path.endswith("/") else file


def dead_links(page: Page, pages: dict[Path, Page]) -> list[str]:
    """Local addresses that lead to no file, or to no place in it."""
    dead = []
    for address in filter(is_local, [*page.links, *page.loads]):
        file, anchor = target(page, address), unquote(urlsplit(address).fragment)
        if not file.is_file():
            dead.append(f"{address}: no such file")
        elif anchor and file in pages and anchor not in pages[file].anchors:
            dead.append(f"{address}: no such place in the page")
    return dead


def silent_videos(page: Page) -> list[str]:
    """Videos that say nothing to those who do not see them, or that have nothing to play."""
    return [
        f"label {label!r}, {len(sources)} sources"
        for label, sources in page.videos
        if not label.strip() or not sources or not all(s.startswith("data:video/") or is_local(s) for s in sources)
    ]


def weight(page: Page) -> int:
    """Bytes of a page with its pictures and videos. What all pages share, styles and scripts, is not counted."""
    files = {target(page, address) for address in filter(is_local, page.media)}
    return page.path.stat().st_size + sum(file.stat().st_size for file in files if file.is_file())


def as_seen(page: Path, profile: Path) -> str:
    """The HTML that a browser has made of a page when its scripts have run."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", f"--user-data-dir={profile}"]
    command = [str(BROWSER), *flags, "--dump-dom", page.resolve().as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def wrong_equations(seen: str) -> list[str]:
    """What MathJax complains of: errors, commands that it does not know, and equations left as they were written."""
    errors = re.findall(r'<merror data-mjx-error="([^"]*)"', seen)
    unknown = re.findall(r'<mtext mathcolor="red">([^<]*)', seen)
    left = seen.count('class="math ') - seen.count("<mjx-container")
    return [*errors, *unknown, *([f"{left} not set"] if left > 0 else [])]


def defects(site: Path) -> dict[str, list[str]]:
    """Everything that is wrong with a site, by kind."""
    pages = {path.resolve(): Page(path.resolve()) for path in sorted(site.rglob("*.html"))}
    shown = {file: page for file, page in pages.items() if "_static" not in file.relative_to(site.resolve()).parts}
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for file, page in shown.items():
        name = file.relative_to(site.resolve())
        found["link"] += [f"{name}: {dead}" for dead in dead_links(page, pages)]
        found["alt"] += [f"{name}: {source[:80]} has no alt text" for source in page.without_alt]
        found["video"] += [f"{name}: a video has {silent}" for silent in silent_videos(page)]
        found["outside"] += [f"{name} loads {address}" for address in page.loads if is_outside(address)]
        if weight(page) > MAX_BYTES:
            found["weight"].append(f"{name} weighs {weight(page):,} bytes; at most {MAX_BYTES:,} are allowed")
    for file in site.rglob("*.css"):
        urls = re.findall(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')]+)""", file.read_text(encoding="utf-8"))
        found["outside"] += [f"{file.relative_to(site)} loads {url}" for url in urls]
    return found


SOUND = """<html><head><link rel="stylesheet" href="a.css"><link rel="canonical" href="https://example.org/"></head><body>
<p id="here"><a href="#here">a</a> <a href="other.html#there">b</a> <a href="https://example.org/x">c</a>
<a href="#">d</a></p>
<img src="a.png" alt="a plot"><video src="data:video/mp4;base64,AA==" aria-label="a pole falls"></video>
<script src="a.js"></script></body></html>"""
BROKEN = [
    ("link", '<a href="missing.html">x</a>', "missing.html"),
    ("link", '<a href="other.html#nowhere">x</a>', "#nowhere"),
    ("link", '<a href="#nowhere">x</a>', "#nowhere"),
    ("link", '<video src="missing.mp4" aria-label="x"></video>', "missing.mp4"),
    ("link", '<script src="missing.js"></script>', "missing.js"),
    ("alt", '<img src="a.png">', "a.png"),
    ("alt", '<img src="a.png" alt=" ">', "a.png"),
    ("video", '<video src="data:video/mp4;base64,AA=="></video>', "label ''"),
    ("video", '<video aria-label="a pole falls"></video>', "0 sources"),
    ("weight", f'<img src="data:image/png;base64,{"A" * MAX_BYTES}" alt="x">', "weighs"),
    ("weight", '<img src="large.png" alt="x">', "weighs"),
    ("outside", '<script src="https://example.org/x.js"></script>', "https://example.org/x.js"),
    ("outside", '<script src="//example.org/x.js"></script>', "//example.org/x.js"),
    ("outside", '<link rel="stylesheet" href="https://example.org/x.css">', "https://example.org/x.css"),
    ("outside", '<img src="https://example.org/x.png" alt="x">', "https://example.org/x.png"),
]


def small_site(folder: Path, extra: str = "") -> Path:
    """Two pages with what they load, without a defect but those of `extra`."""
    (folder / "index.html").write_text(SOUND.replace("</body>", f"{extra}</body>"), encoding="utf-8")
    (folder / "other.html").write_text('<h1 id="there">b</h1>', encoding="utf-8")
    for name in ("a.css", "a.js", "a.png"):
        (folder / name).write_text("")
    (folder / "large.png").write_bytes(bytes(MAX_BYTES))
    return folder


def test_the_checker_finds_nothing_on_a_sound_site(tmp_path: Path) -> None:
    assert defects(small_site(tmp_path)) == {kind: [] for kind in KINDS}


@pytest.mark.parametrize(("kind", "extra", "named"), BROKEN)
def test_the_checker_finds_each_defect_and_no_other(tmp_path: Path, kind: str, extra: str, named: str) -> None:
    found = defects(small_site(tmp_path, extra))
    assert [key for key in KINDS if found[key]] == [kind]
    assert len(found[kind]) == 1
    assert named in found[kind][0]


def test_the_checker_reads_style_sheets(tmp_path: Path) -> None:
    (small_site(tmp_path) / "a.css").write_text('@import "https://example.org/x.css"; b {background: url(a.png)}')
    assert defects(tmp_path)["outside"] == ["a.css loads https://example.org/x.css"]


@pytest.fixture(scope="module")
def built() -> dict[str, list[str]]:
    """The defects of the built site."""
    if not (SITE / "index.html").is_file():
        pytest.skip("the site is not built: make book")
    return defects(SITE)


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium or Chrome")
@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        (r"\(x^2\)", []),
        (r"\(x^2^2\)", ["Double exponent: use braces to clarify"]),
        (r"\(\tfrac12 \gama\)", [r"\gama"]),
        ("x^2", ["1 not set"]),
    ],
)
def test_the_browser_finds_wrong_equations(
    built: dict[str, list[str]], tmp_path: Path, written: str, wrong: list[str]
) -> None:
    script = (SITE / "_static" / "mathjax" / "tex-svg.js").as_uri()
    page = tmp_path / "page.html"
    page.write_text(f'<script src="{script}"></script><p><span class="math notranslate">{written}</span></p>')
    assert wrong_equations(as_seen(page, tmp_path / "profile")) == wrong


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium or Chrome")
def test_equations_of_the_built_site(built: dict[str, list[str]], tmp_path: Path) -> None:
    found = {page.name: wrong_equations(as_seen(page, tmp_path)) for page in SITE.glob("*/*.html")}
    assert found
    assert not {name: wrong for name, wrong in found.items() if wrong}


@pytest.mark.parametrize("kind", KINDS)
def test_built_site(built: dict[str, list[str]], kind: str) -> None:
    assert not built[kind], "\n".join(built[kind])


def test_search_finds_the_chapters(built: dict[str, list[str]]) -> None:
    script = (SITE / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(script[script.index("{") : script.rindex("}") + 1])
    places = index["terms"]["bootstrap"]
    pages = {index["docnames"][place] for place in ([places] if isinstance(places, int) else places)}
    assert {"book/glossary", "notebooks/01_dqn_cartpole"} <= pages


@pytest.mark.parametrize("chapter", sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")))
def test_each_chapter_opens_in_colab(built: dict[str, list[str]], chapter: str) -> None:
    links = Page(SITE / "notebooks" / f"{chapter}.html").links
    assert any(re.fullmatch(rf"https://colab\.research.*/blob/main/notebooks/{chapter}\.ipynb", link) for link in links)


@pytest.mark.parametrize(
    "line",
    [
        "(B, *shape) and *both*, |error| + eps, Q_target(s', a') and trailing_ one, p_i^alpha, a \\ b",
        "plain words: with a colon, ε and <brackets>",
    ],
)
def test_docstrings_keep_every_sign_on_the_api_page(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    core = pytest.importorskip("docutils.core")
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    from plain_docstrings import plain

    assert "plain_docstrings" in sys.modules
    document = core.publish_doctree("\n".join(plain([line], verbatim=False)), settings_overrides={"report_level": 5})
    assert document.astext() == line
