"""Choose the exact versions of everything that is installed: `python tools/pin.py` rewrites constraints.txt.

uv (`pip install uv`) finds one set for Python 3.10 to 3.14, from requirements.txt and the extras `book` and `test`.
Nothing is installed and no package is downloaded, only its metadata.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# One version for every Python, where there is one; the site's look may be newer than Python 3.10 allows.
CHOICES = """
torch==2.13.0
numpy<2.3; python_version < "3.14"
scipy<1.16; python_version < "3.14"
sphinx-book-theme>=1.3; python_version >= "3.11"
sphinx-design>=0.8; python_version >= "3.11"
"""
HEADER = """\
# The exact versions that the tests and the site use, for Python 3.10 to 3.14: pip install -c constraints.txt ...
# Made by `python tools/pin.py`. The CUDA packages that torch brings on some systems are torch's own choice.
"""
OTHERS = re.compile(r"nvidia-|cuda-|triton==|.*(sys_platform == '(win32|darwin)'|implementation_name)")
COMMAND = "uv pip compile requirements.txt pyproject.toml --extra book --extra test --constraint - --universal".split()
OPTIONS = "--python-version 3.10 --fork-strategy fewest --no-python-downloads --no-annotate --no-header --quiet".split()


def pins(resolved: str) -> list[str]:
    """The lines of a resolution that serve us; a marker is kept only where it tells two versions apart."""
    lines = [line for line in resolved.splitlines() if line and not OTHERS.match(line)]
    names = [line.partition("==")[0] for line in lines]
    return [line if names.count(name) > 1 else line.partition(" ;")[0] for name, line in zip(names, lines, strict=True)]


def main() -> None:
    """Resolve, and write constraints.txt."""
    done = subprocess.run([*COMMAND, *OPTIONS], cwd=ROOT, input=CHOICES, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit("uv found no set of versions; constraints.txt is as it was.")
    (ROOT / "constraints.txt").write_text(HEADER + "".join(f"{line}\n" for line in pins(done.stdout)))


if __name__ == "__main__":
    main()
