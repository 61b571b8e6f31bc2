"""Who may see the pages and act: roles, the recorded accesses, and the viewer of one request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from engine.clock import Instant


class Role(StrEnum):
    """What an access may do: `read` sees everything, `operate` also acts."""

    READ = "read"
    OPERATE = "operate"

    def covers(self, other: Role) -> bool:
        """Return whether this role may do what needs `other`."""
        return self is Role.OPERATE or other is Role.READ


@dataclass(frozen=True, slots=True)
class Access:
    """One recorded access: `name` logs in by a password, or sends a token; one of both hashes is empty.

    `workspace` limits it to one workspace (None: all). `number` changes whenever the secret is set anew, which ends the
    sessions of the one before. `created` is system time.
    """

    name: str
    role: Role
    workspace: str | None
    number: str
    created: Instant
    password: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who sends a request: the name of an access, its role, and its workspace (None: all).

    `session` names the session that its forms are bound to; it is empty for a token, which sends no forms.
    """

    name: str
    role: Role
    workspace: str | None = None
    session: str = ""

    def sees(self, workspace: str) -> bool:
        """Return whether this viewer may see data of a workspace."""
        return self.workspace is None or self.workspace == workspace


LOCAL: str = "local"
"""The name of whoever uses the pages on the machine itself while no access is configured."""
