"""Serve MathJax from the site itself, so that its equations are there without a network and from file:// too.

The files come from the package `sphinx-mathjax-offline`, which holds MathJax 3.2.2. Of its 20 MB the site needs
2.7: the script that draws equations as SVG, which asks for no fonts, and the TeX extensions that it loads when
an equation uses one. (The package's own Sphinx extension copies everything.)
"""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

PACKAGE = "sphinx-mathjax-offline"
NEEDED = ("tex-svg.js", "input/tex/extensions")


def mathjax_folder() -> Path:
    """Where the package keeps MathJax. Its name has hyphens, so that it cannot be imported by a statement."""
    try:
        return Path(distribution(PACKAGE).locate_file(f"{PACKAGE}/static/mathjax"))
    except PackageNotFoundError as error:
        raise ExtensionError(f"the site needs {PACKAGE}, for its equations: pip install '.[book]'") from error


def copy_files(app: Sphinx, exception: Exception | None) -> None:
    """After a build: put MathJax beside the site's other static files."""
    if exception is not None or app.builder.format != "html":
        return
    target = Path(app.outdir, "_static", "mathjax")
    for name in NEEDED:
        source = mathjax_folder() / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / name, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target / name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    mathjax_folder()  # a missing package is an error before anything is built
    app.config.mathjax_path = "mathjax/tex-svg.js"
    app.connect("build-finished", copy_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
