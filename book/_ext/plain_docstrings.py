"""Let the package's docstrings be plain text: `code` between backticks, Google's sections, and nothing else.

Sphinx reads docstrings as reStructuredText, in which `(B, *shape)` opens an emphasis and `|error|` asks for a
substitution. Here such signs are escaped where they stand in running text, and indented paragraphs of a module's
docstring (lists of files, for instance) are shown line by line, as they are written.

Classes that are a list of fields are shown without a signature: the fields follow, each with its meaning.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from sphinx.application import Sphinx

CODE = re.compile(r"(``.*?``|`[^`]*`)")
MARKUP = re.compile(r"([*|\\]|(?<=\w)_(?!\w))")


def escape(line: str) -> str:
    """Escape in a line whatever reStructuredText would take for markup, except between backticks."""
    parts = CODE.split(line)
    return "".join(part if CODE.fullmatch(part) else MARKUP.sub(r"\\\1", part) for part in parts)


def plain(lines: list[str], verbatim: bool) -> list[str]:
    """A docstring as reStructuredText that shows what it says.

    Args:
        lines: of the docstring, without its common indentation.
        verbatim: whether indented paragraphs are shown line by line.
    """
    result: list[str] = []
    before = ""
    for line in lines:
        indented = line.startswith(" ")
        if verbatim and indented:
            if not before.strip():
                result += ["::", ""]
            result.append(line)
        elif line.lstrip().startswith(">>>"):
            result.append(line)
        else:
            result.append(escape(line))
        before = line
    return result


def rewrite(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Replace a docstring's lines, before napoleon turns its sections into fields."""
    lines[:] = plain(lines, verbatim=what == "module")
    if what == "attribute" and lines:
        lines[0] = f": {lines[0]}"  # or napoleon takes what stands before the first colon for a type


def is_record(obj: Any) -> bool:
    """Whether a class is a list of fields: a dataclass or a named tuple."""
    return dataclasses.is_dataclass(obj) or (issubclass(obj, tuple) and hasattr(obj, "_fields"))


def shorten(app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str) -> Any:
    """No signature for a list of fields; None leaves any other as it is."""
    return ("", None) if what == "class" and is_record(obj) else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", rewrite, priority=400)  # napoleon's priority is 500
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
