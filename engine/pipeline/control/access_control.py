"""Add, list and remove accesses to the pages, and find out whose password or token was given."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Collection
from datetime import timedelta
from typing import Final

from engine.clock import Clock
from engine.decisions.login_delay import LONGEST_FOR_ADDRESS, LONGEST_FOR_NAME, REMEMBERED, login_delay
from engine.domain.access import LOCAL, Access, Role
from engine.domain.credentials import hash_password, hash_token, new_token, password_fits
from engine.errors import NotFound, WrongCall
from engine.pipeline.ports.access import AccessStore, FailedLogins
from engine.telemetry.events import emit

SHORTEST: Final = 10
"""Characters of the shortest password."""
LONGEST: Final = 1_024
"""Characters of the longest."""
WAITING: Final = 4
"""Log-ins that this process handles or lets wait at a time; further ones are to try again."""
BUSY: Final = 1.0
"""Seconds after which those may try again."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class AccessControl:
    """The accesses of an installation; `outages` are the exceptions of a store that does not answer."""

    def __init__(
        self, store: AccessStore, failures: FailedLogins, clock: Clock, outages: tuple[type[BaseException], ...]
    ) -> None:
        self._store, self._failures, self._clock, self._outages = store, failures, clock, outages
        self._one_at_a_time = threading.Lock()
        self._queue = threading.BoundedSemaphore(WAITING)

    def everything(self) -> list[Access]:
        """Return every access, by name."""
        return self._store.everything()

    def session_key(self) -> str:
        """Return the key that signs sessions; it is made at the first call in the installation."""
        return self._store.session_key(secrets.token_hex(32))

    def add_password(
        self, name: str, role: Role, password: str, workspace: str | None, workspaces: Collection[str]
    ) -> Access:
        """Add an access that logs in with a password. Raises `WrongCall` and `NotFound` for what cannot be."""
        if not SHORTEST <= len(password) <= LONGEST:
            raise WrongCall(f"a password has {SHORTEST} to {LONGEST} characters", remedy="take a longer one")
        access = self._new(name, role, workspace, workspaces, password=hash_password(password))
        return self._added(access)

    def add_token(
        self, name: str, role: Role, workspace: str | None, workspaces: Collection[str]
    ) -> tuple[Access, str]:
        """Add an access for scripts; return it with its token, which nobody can read again.

        Raises `WrongCall` and `NotFound` for what cannot be.
        """
        token = new_token()
        access = self._new(name, role, workspace, workspaces, token=hash_token(token))
        return self._added(access), token

    def remove(self, name: str) -> None:
        """Remove an access: its sessions and its token are void at once. Raises `NotFound`."""
        if not self._store.remove(name):
            names = ", ".join(access.name for access in self._store.everything()) or "none"
            raise NotFound(f"there is no access {name}", remedy=f"there are: {names}")
        emit("access.removed", access=name)

    def log_in(self, name: str, password: str, address: str) -> Access | float:
        """Return the access whose name and password these are, or how long (s) to wait for the next try; 0: try again.

        Failures delay the next try of the name and of the address. One password is compared at a time and few wait for
        it, so guesses take neither the processor nor the threads from the pages.
        """
        if not self._queue.acquire(blocking=False):
            return BUSY
        try:
            with self._one_at_a_time:
                return self._log_in(name, password, address)
        finally:
            self._queue.release()

    def _log_in(self, name: str, password: str, address: str) -> Access | float:
        named, addressed = f"name {name}", f"address {address}"
        if left := self._wait((named, addressed)):
            return left
        access = next((access for access in self._store.everything() if access.name == name), None)
        if password_fits(password[:LONGEST], "" if access is None else access.password) and access is not None:
            self._forget(named)
            emit("access.granted", access=name, text=address)
            return access
        emit("access.refused", access=name[:64], text=address)
        delays = [self._failed(named, LONGEST_FOR_NAME), self._failed(addressed, LONGEST_FOR_ADDRESS)]
        return max(delays)

    def _wait(self, whom: Collection[str]) -> float:
        try:
            return self._failures.wait(whom)
        except self._outages:
            return 0.0

    def _failed(self, who: str, longest: timedelta) -> float:
        try:
            delay = login_delay(self._failures.failed(who, REMEMBERED), longest)
            if delay:
                self._failures.delay(who, delay)
        except self._outages:
            return 0.0
        return delay.total_seconds()

    def _forget(self, who: str) -> None:
        try:
            self._failures.forget(who)
        except self._outages:
            return

    def _new(
        self,
        name: str,
        role: Role,
        workspace: str | None,
        workspaces: Collection[str],
        *,
        password: str = "",
        token: str = "",
    ) -> Access:
        if not _NAME.fullmatch(name) or name == LOCAL:
            raise WrongCall(
                f"{name[:64]!r} cannot name an access", remedy="take letters, digits, `.`, `_`, `@` and `-`, at most 64"
            )
        if workspace is not None and workspace not in workspaces:
            known = ", ".join(sorted(workspaces)) or "none"
            raise NotFound(f"there is no workspace {workspace}", remedy=f"there are: {known}")
        return Access(name, role, workspace, secrets.token_hex(8), self._clock.system_now(), password, token)

    def _added(self, access: Access) -> Access:
        if not self._store.add(access):
            raise WrongCall(
                f"there is an access {access.name}", remedy=f"remove it first: tidegate access remove {access.name}"
            )
        emit("access.added", access=access.name, workspace=access.workspace, kind=access.role.value)
        return access
