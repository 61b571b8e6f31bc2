"""Names that are promises: what is queued, stored, logged or typed goes by them, also across a deployment.

`.venv/bin/python -m tests.unit.wire_names` writes `wire_names.json` anew; `test_wire_names.py` fails where a name was
lost or changed, for instance since a function or a module was renamed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

import actors.setup  # noqa: F401 - registers every actor
from actors.registry import SPECS
from engine.campaign.schema import schemas
from engine.cli import main
from engine.failpoints import POINTS
from engine.settings.describe import keys
from engine.stores import migrations
from engine.telemetry.contract import EVENTS
from engine.telemetry.metric_types import METRICS

FILE: Final = Path(__file__).with_name("wire_names.json")


def wire_names() -> dict[str, Any]:
    """Every name that is a promise, by kind."""
    return {
        "actors": {name: spec.queue for name, spec in sorted(SPECS.items())},
        "collections": sorted(migrations.COLLECTIONS),
        "indexes": {
            name: sorted(index.document["name"] for index in indexes)
            for name, indexes in sorted(migrations.INDEXES.items())
        },
        "events": sorted(EVENTS),
        "metrics": {metric.sample: list(metric.labels) for metric in METRICS.values()},
        "failpoints": sorted(POINTS),
        "settings": sorted(keys()),
        "commands": {words: sorted(_options(command)) for words, command in sorted(_commands())},
        "schemas": {name: sorted(_properties(json.loads(text))) for name, text in sorted(schemas().items())},
    }


def _commands() -> Iterator[tuple[str, Any]]:
    """Every command of the command line by its words."""
    app = typer.Typer()
    for mount in main.MOUNTS:
        mount(app)

    def leaves(group: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from leaves(command, (*words, name))
            else:
                yield " ".join((*words, name)), command

    yield from leaves(typer.main.get_command(app), ())


def _options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from parameter.opts
        yield from parameter.secondary_opts


def _properties(schema: Any, path: str = "") -> Iterator[str]:
    """The paths of all keys that a JSON Schema allows."""
    if isinstance(schema, list):
        for part in schema:
            yield from _properties(part, path)
    elif isinstance(schema, dict):
        for key, inner in schema.items():
            if key == "properties":
                for name, value in inner.items():
                    yield f"{path}.{name}"
                    yield from _properties(value, f"{path}.{name}")
            elif key == "$defs":
                for name, value in inner.items():
                    yield from _properties(value, name)
            else:
                yield from _properties(inner, path)


def text() -> str:
    """`wire_names.json` as it should be."""
    return json.dumps(wire_names(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
