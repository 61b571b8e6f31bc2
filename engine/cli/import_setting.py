"""The environment of one import: the application of its workspace, opened when the import begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from engine.cli.context import migrate, opened
from engine.query_metrics import working_on

if TYPE_CHECKING:
    from engine.app.app import App
    from engine.cli.importing import ImportSetting
    from engine.pipeline.importing.run_import import Surroundings


class Importing:
    """Gives an import its catalogue and stores, following edits of the workspace's file.

    The feed follows the users that the import changes.
    """

    def __init__(self, app: App, workspace: str) -> None:
        self._app = app
        self._workspace = workspace
        self._kept: Surroundings | None = None

    def follow(self) -> Surroundings:
        """Return the catalogue in force, and its stores."""
        from engine.pipeline.importing.run_import import Surroundings

        if self._kept is not None:
            self._app.workspace_watcher.look()
        catalogue = self._app.campaign_cache.catalogue(self._workspace)
        if self._kept is None or self._kept.catalogue is not catalogue:
            self._kept = Surroundings(catalogue, self._app.imports(self._workspace))
        return self._kept


@contextmanager
def open_import(context: typer.Context, workspace: str) -> Iterator[ImportSetting]:
    """Open the environment of one import."""
    with opened(context) as app:
        migrate(app)
        app.statistics_recorder.start("import")
        app.gate_keeper.start("import")
        with working_on("", "", app.bulk_gate):
            yield Importing(app, workspace)
