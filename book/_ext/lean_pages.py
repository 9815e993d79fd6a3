"""Leave out of the pages what no page uses: the scripts of Thebe, which would run cells on a server.

Jupyter Book and its theme both add them, and what is declared twice is an error in the browser's console.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def is_thebe(script: Any) -> bool:
    """Whether a script of a page belongs to Thebe."""
    attributes = getattr(script, "attributes", {})
    return "thebe" in f"{getattr(script, 'filename', script)} {attributes.get('body', '')}".lower()


def without_thebe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Drop its scripts from a page that is about to be written."""
    context["script_files"] = [script for script in context["script_files"] if not is_thebe(script)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("html-page-context", without_thebe, priority=900)  # after those who add
    return {"parallel_read_safe": True, "parallel_write_safe": True}
