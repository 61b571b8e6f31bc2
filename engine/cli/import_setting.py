"""The surroundings of one import: the application of its workspace, opened when the import begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from engine.cli.opening import migrate, opened

if TYPE_CHECKING:
    from engine.app import App
    from engine.cli.importing import ImportSetting
    from engine.pipeline.importing.run import Surroundings


class Importing:
    """What an import of one workspace needs, as the workspace's file has it at each moment.

    Whoever changes is followed by the feed.
    """

    def __init__(self, app: App, workspace: str) -> None:
        self._app = app
        self._workspace = workspace
        self._kept: Surroundings | None = None

    def follow(self) -> Surroundings:
        """The catalogue in force, and the stores that go with it."""
        from engine.pipeline.importing.run import Surroundings

        if self._kept is not None:
            self._app.workspace_watcher.look()
        catalogue = self._app.book.catalogue(self._workspace)
        if self._kept is None or self._kept.catalogue is not catalogue:
            self._kept = Surroundings(catalogue, self._app.imports(self._workspace))
        return self._kept


@contextmanager
def open_import(context: typer.Context, workspace: str) -> Iterator[ImportSetting]:
    """The surroundings of one import."""
    with opened(context) as app:
        migrate(app)
        app.recording.start("import")
        yield Importing(app, workspace)
