"""The surroundings of one import: the application of its workspace, opened when the import begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from engine.cli.opening import migrate, opened

if TYPE_CHECKING:
    from engine.cli.importing import ImportSetting
    from engine.pipeline.importing.ports import ImportStores
    from engine.predicate.fields import Catalogue


@dataclass(frozen=True, slots=True)
class Importing:
    """What an import of one workspace needs; whoever changes is followed by the feed."""

    catalogue: Catalogue
    stores: ImportStores


@contextmanager
def open_import(context: typer.Context, workspace: str) -> Iterator[ImportSetting]:
    """The surroundings of one import."""
    with opened(context) as app:
        migrate(app)
        app.recording.start("import")
        yield Importing(app.book.catalogue(workspace), app.imports(workspace))
