"""The files that come with the engine: the Procfile, `policies/`, `conf/` and the example of `tidegate init`.

A checkout has them at its top; a wheel has them in `engine/shipped_files` (`pyproject.toml` maps them).
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

START: Final = "examples/start"
"""The example that `tidegate init` writes."""


def shipped(name: str) -> Traversable:
    """Return a file or folder that comes with the engine, e.g. `conf/index-templates/users.json`; it may be missing."""
    packed = files("engine") / "shipped_files"
    place: Traversable = packed if packed.is_dir() else Path(__file__).resolve().parents[1]
    for part in name.split("/"):
        place /= part
    return place


def shipped_files(name: str) -> Iterator[tuple[str, Traversable]]:
    """Yield every file of a shipped folder, or the file itself, by name: its path below `name`, and the file."""
    place = shipped(name)
    if place.is_file():
        yield "", place
        return
    yield from _below(place, "")


def _below(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _below(entry, f"{path}{entry.name}/")
        else:
            yield f"{path}{entry.name}", entry
