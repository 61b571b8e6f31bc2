"""What a page is: its address, who may see it, and the function that answers a call of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from engine.domain.access import LOCAL, Role, Viewer
from engine.errors import NotFound
from engine.web.outages import Missing

if TYPE_CHECKING:
    from engine.app.app import App
    from engine.clock import Instant
    from engine.web.site import Site

T = TypeVar("T")
Method = Literal["GET", "POST"]


class Reach(StrEnum):
    """Whose data a page shows, which decides who may see it.

    `workspace`: data of the workspace in its address, `/w/{workspace}/...`. `installation`: data of all workspaces, so
    an access of one workspace does not get it. `own`: the page itself keeps to `Call.viewer.workspace`. `open`:
    no data; everybody gets it, also without a log-in. `probe`: the same, whatever name the request asks for.
    """

    WORKSPACE = "workspace"
    INSTALLATION = "installation"
    OWN = "own"
    OPEN = "open"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class Page:
    """A page or an act. `answer` runs in a thread and may block.

    With `every`, its live blocks are sent anew every so many seconds while a browser shows it. `POST` pages receive
    checked forms (`engine.web.guard`).
    """

    path: str
    answer: Callable[[Call], Response]
    reach: Reach
    role: Role = Role.READ
    method: Method = "GET"
    every: float | None = None


class Regions(Response):
    """The live blocks of a page instead of the whole, for browsers that show it already."""

    def __init__(self, regions: Mapping[str, str]) -> None:
        super().__init__()
        self.regions = dict(regions)


@dataclass(slots=True)
class Call:
    """One request of a page, by a viewer who may see it, with the form that was sent, if it is a POST.

    `live` is true if only the live blocks are wanted.
    """

    site: Site
    page: Page
    request: Request
    viewer: Viewer
    form: Mapping[str, str] = field(default_factory=dict)
    live: bool = False
    missing: Missing = field(init=False)

    def __post_init__(self) -> None:
        self.missing = Missing(self.site.outages)

    @property
    def app(self) -> App:
        """The engine of this process."""
        return self.site.app

    def part(self, name: str) -> str:
        """Return a part of the address, e.g. `workspace` of `/w/{workspace}`."""
        return str(self.request.path_params[name])

    def asked(self, name: str, default: str = "") -> str:
        """Return a parameter of the address after the `?`, at most 200 characters."""
        return self.request.query_params.get(name, default)[:200]

    def whole(self, name: str, default: int, most: int) -> int:
        """Return a whole number from the address after the `?`, between 1 and `most`; `default` if it is none."""
        text = self.asked(name)
        return min(max(1, int(text)), most) if text.isascii() and text.isdigit() and len(text) < 10 else default

    def read(self, service: str, what: str, fetch: Callable[[], T]) -> T | None:
        """Return what `fetch` reads from `service`; None if that does not answer: the page then says so."""
        return self.missing.read(service, what, fetch)

    def need(self, service: str, fetch: Callable[[], T]) -> T:
        """Return what `fetch` reads from `service`, without which there is no page. Raises the stores' outages."""
        return self.missing.need(service, fetch)

    def show(
        self,
        template: str,
        *,
        title: str,
        command: str,
        at: Instant | None = None,
        status: int = HTTPStatus.OK,
        **values: Any,  # whatever the template shows
    ) -> Response:
        """Return the page.

        `command` is the command that shows the same; `at` is the system time of the figures (None: now). The
        values are those of the template.
        """
        now = self.app.system.system_now()
        known = {
            "title": title,
            "command": command,
            "at": now if at is None else at,
            "now": now,
            "missing": self.missing.sentences,
            "viewer": self.viewer,
            "operates": self.viewer.role.covers(Role.OPERATE),
            "limited": self.viewer.workspace is not None,
            "path": self.request.url.path,
            "csrf": "" if self.live else self.site.guard.form_token(self.viewer),
            "live": self.site.live_address(self) if self.page.every else "",
            "every": self.page.every or 0,
            "told": "" if self.live else self.site.told(self.viewer),
            "open_access": self.viewer.name == LOCAL,
        }
        if self.live:
            return Regions(self.site.templates.regions(template, known | values) | _stamp(known))
        return HTMLResponse(self.site.templates.page(template, known | values), status)

    def see(self, path: str) -> Response:
        """Return a redirection to another page, after an act."""
        return RedirectResponse(path, HTTPStatus.SEE_OTHER)


def _stamp(known: Mapping[str, Any]) -> dict[str, str]:
    return {"@at": str(known["at"]), "@now": str(known["now"]), "@missing": "\n".join(known["missing"])}


def not_there(what: str) -> NotFound:
    """Return the error of a thing that does not exist or that this viewer may not see: both look the same."""
    return NotFound(f"there is no {what}")


FORM_LIMIT: Final = 64 * 1024
"""Bytes of a form; the longest field is a reason in words."""
