"""Re-evaluation requests: a changed user waits until every campaign that names the change has evaluated them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

EVERYTHING = "*"
"""Among the names of a request: every campaign evaluates the user, whatever the campaign names. Used for a new user, a
deleted user, and a gap in the feed."""


@dataclass(frozen=True, slots=True)
class Changed:
    """One change of one user: the user's key, and what changed, by the catalogue's names (`list:NAME` for a list)."""

    user: str
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class RecheckRequest:
    """A request to re-evaluate a user because of `names`; `mark` distinguishes later changes of the same user."""

    user: str
    names: frozenset[str]
    mark: str


@dataclass(frozen=True, slots=True)
class DirtyRange:
    """A range with so many changed users that all its users are evaluated: suffixes in [first, until) of a workspace.

    `cursor` is the last suffix whose work is done.
    """

    id: str
    workspace: str
    first: str
    until: str
    names: frozenset[str]
    mark: str
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class FeedState:
    """The progress of the feed: it has handled every change up to `position` (cluster time, seconds << 32 | counter).

    `generation` rises with each gap; a gap invalidates everything cached before it. `token` resumes the change stream.
    `index` is the identity of the Elasticsearch index that is filled, or is being filled while requests to index users
    exist (None: use the next index that appears). `shapes` gives for each workspace the shape of its indexed users
    (`engine.catalogue.workspace_set.indexed_shape`). `derived` gives for each workspace the aggregates for which an
    update of its users was requested (`derived_shape`). `searched` names the workspaces whose users Elasticsearch must
    be able to find, because a campaign there queries its users.
    """

    position: int = 0
    generation: int = 1
    token: str | None = None
    index: str | None = None
    shapes: Mapping[str, str] = field(default_factory=dict)
    derived: Mapping[str, str] = field(default_factory=dict)
    searched: frozenset[str] = frozenset()

    @property
    def index_name(self) -> str | None:
        """The name in `index`, without the part that distinguishes indexes of the same name."""
        return None if self.index is None else self.index.partition("/")[0]
