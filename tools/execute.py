"""Run the chapters side by side, one on each core, into the cache from which the site is built.

A chapter runs again when one of its code cells has changed; Jupyter Book's cache sees to that. It does not see that the
package, the stored runs or the preset have changed: then the outputs are thrown away here, and all chapters run again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
CACHE, PAGES, TRAININGS = ".jupyter_cache", ".doctrees", "trainings"  # in it: outputs, pages as Sphinx read them, runs
TIMEOUT = 600  # seconds a cell


def fingerprint(root: Path) -> str:
    """A sum over everything that the outputs depend on besides the notebooks themselves."""
    digest = hashlib.sha256(os.environ.get("PIXELRL_PRESET", "default").encode())
    files = [*root.glob("pixelrl/**/*.py"), *root.glob("runs/**/SHA256SUMS"), root / "constraints.txt"]
    for path in sorted(files):
        digest.update(f"\n{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def forget_if_changed(root: Path, build: Path) -> None:
    """Remove the cached outputs where they were made by another package, from other runs or at another preset."""
    note, now = build / CACHE / "fingerprint", fingerprint(root)
    if note.is_file() and note.read_text() == now:
        return
    for name in (CACHE, PAGES, TRAININGS):
        shutil.rmtree(build / name, ignore_errors=True)
    note.parent.mkdir(parents=True)
    note.write_text(now)


def execute(notebooks: list[Path], cache_folder: Path) -> list[str]:
    """Run the notebooks whose outputs are not in the cache. Returns the names of those that failed."""
    cache = get_cache(cache_folder)
    for path in notebooks:
        cache.add_nb_to_project(str(path))
    uris = [str(path) for path in notebooks]
    done = load_executor("local-parallel", cache).run_and_cache(filter_uris=uris, timeout=TIMEOUT)
    for uri in done.succeeded:
        seconds = cache.get_cached_project_nb(uri).data["execution_seconds"]
        print(f"{Path(uri).name}: {seconds:.0f} s")
    return [Path(uri).name for uri in done.excepted + done.errored]


def main() -> None:
    """Run what has to run; a failing cell is an error."""
    # Each chapter has a core to itself; more threads would only get into each other's way.
    os.environ |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PIXELRL_TRAININGS": str(BUILD / TRAININGS)}
    forget_if_changed(ROOT, BUILD)
    start = time.perf_counter()
    if failed := execute(sorted((ROOT / "notebooks").glob("*.ipynb")), BUILD / CACHE):
        sys.exit(f"error: {', '.join(failed)} failed; the cell and its error are above")
    print(f"the chapters are up to date ({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
