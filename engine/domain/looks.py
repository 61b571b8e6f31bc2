"""Looks: users who changed, and what of them, until every campaign that names it has looked at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

EVERYTHING = "*"
"""Among the names of a look: every campaign looks, whatever it names (a new user, a deleted one, a gap in the feed)."""


@dataclass(frozen=True, slots=True)
class Changed:
    """One change of one user: the user's key, and what changed, by the catalogue's names (`list:NAME` for a list)."""

    user: str
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Look:
    """A user who is to be looked at because of `names`; `mark` tells later changes of the same user apart."""

    user: str
    names: frozenset[str]
    mark: str


@dataclass(frozen=True, slots=True)
class DirtyRange:
    """So many users of a range changed that all of them are looked at: suffixes in [first, until) of a workspace.

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
    """How far the feed is: every change up to `position` (cluster time, seconds << 32 | counter) has been handled.

    `generation` rises with each gap, after which nothing that was cached before counts any more. `token` resumes the
    change stream. `index` is the identity of the Elasticsearch index that was filled, or is being filled while there
    are requests to index users (None: the next one that is there). `shapes` gives for each workspace what the users in
    it look like (`engine.predicate.workspace_set.indexed_shape`), `derived` which aggregates its users were asked to be
    brought in line with (`derived_shape`). `searched` names the workspaces whose users are to be found by
    Elasticsearch: a campaign of theirs asks something of its users.
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
        """The name of `index`, without what tells it from one of the same name."""
        return None if self.index is None else self.index.partition("/")[0]
