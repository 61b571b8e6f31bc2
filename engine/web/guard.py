"""Decides for each request who sends it and whether the page may answer: the one place that does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from engine.domain.access import LOCAL, Role, Viewer
from engine.web.page import Page

if TYPE_CHECKING:
    from engine.app.app import App


class Guard:
    """The guard of one process."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.open = True

    def csrf_token(self, viewer: Viewer) -> str:
        """Return the token that forms of this viewer carry."""
        return viewer.session

    async def admit(self, request: Request, page: Page) -> Response | tuple[Viewer, Mapping[str, str]]:
        """Return the viewer and the form of a request that `page` may answer, or the answer to give instead."""
        del request, page
        return Viewer(LOCAL, Role.OPERATE), {}
