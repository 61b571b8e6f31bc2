"""The links at the top of each page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Link:
    """A page that has a link at the top; `installation` says that an access of one workspace does not see it."""

    path: str
    label: str
    installation: bool = False


LINKS: Final = (
    Link("/", "Overview"),
    Link("/campaigns", "Campaigns"),
    Link("/lanes", "Lanes", installation=True),
    Link("/queries", "Queries", installation=True),
    Link("/policies", "Policies", installation=True),
    Link("/gate", "Gate", installation=True),
    Link("/logs", "Logs"),
)
