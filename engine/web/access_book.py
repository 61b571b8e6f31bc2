"""The recorded accesses as this process knows them: read anew every second while somebody asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from engine.domain.credentials import hash_token
from engine.errors import ServiceUnreachable
from engine.stores.stores import Stores
from engine.web.outages import PATIENCE, Outages
from engine.web.sessions import Sessions

if TYPE_CHECKING:
    from engine.app.app import App
    from engine.domain.access import Access

FRESH: Final = 1.0
"""Seconds for which a reading of the accesses is used: a removed access is void after at most this."""


class AccessBook:
    """The accesses by name and by token, and the key of the sessions.

    While MongoDB does not answer, what was read last holds; without any reading nobody can be recognised.
    """

    def __init__(self, app: App, outages: Outages) -> None:
        self._app, self._outages = app, outages
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._known: Mapping[str, Access] | None = None
        self._tokens: Mapping[str, Access] = {}
        self._sessions: Sessions | None = None

    def accesses(self, *, anew: bool = False) -> Mapping[str, Access]:
        """Return the accesses by name; `anew` reads them now. Raises `ServiceUnreachable`."""
        with self._lock:
            if anew or time.monotonic() - self._read_at > FRESH:
                self._read()
            if self._known is None:
                raise ServiceUnreachable(
                    "MongoDB does not answer, so nobody knows who may see the pages",
                    remedy="tidegate status shows the services",
                )
            return self._known

    def of_token(self, token: str) -> Access | None:
        """Return the access of a token; None if there is none. Raises `ServiceUnreachable`."""
        self.accesses()
        return self._tokens.get(hash_token(token))

    def sessions(self) -> Sessions:
        """Return the sessions of the installation. Raises `ServiceUnreachable`."""
        self.accesses()
        with self._lock:
            if self._sessions is None:
                with Stores.within(PATIENCE):
                    key = self._app.access_control.session_key()
                web = self._app.settings.web
                self._sessions = Sessions(key, web.session, https=web.https)
            return self._sessions

    def _read(self) -> None:
        if self._outages.rests("MongoDB"):
            return
        try:
            with Stores.within(PATIENCE):
                accesses = self._app.access_control.everything()
        except self._outages.kinds:
            self._outages.lost("MongoDB")
            return
        self._known = {access.name: access for access in accesses}
        self._tokens = {access.token: access for access in accesses if access.token}
        self._read_at = time.monotonic()
