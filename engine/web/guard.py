"""Decides for each request who sends it and whether the page may answer: the one place that does.

In this order: the name under which the browser asks (a foreign name may be bound to our address), who it is, what the
page shows, and for a form whether this viewer's own page sent it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from engine.domain.access import LOCAL, Access, Role, Viewer
from engine.errors import EngineError, NotFound
from engine.web.access_book import AccessBook
from engine.web.outages import Outages
from engine.web.page import FORM_LIMIT, Page, Reach
from engine.web.sessions import Session, Sessions

if TYPE_CHECKING:
    from engine.app.app import App

NOBODY: Final = Viewer("", Role.READ)
"""The viewer of pages that need no log-in, before one."""
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip")
_NEW_SESSION: Final = "new_session"


class Denied(EngineError):
    """This request gets no page: `status` is the answer's code."""

    def __init__(self, message: str, status: HTTPStatus, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.status = status


class Guard:
    """The guard of one process."""

    def __init__(self, app: App, outages: Outages) -> None:
        self._app = app
        self.book = AccessBook(app, outages)
        self._hosts = LOOPBACK_NAMES | set(app.settings.web.hosts.split())

    def open(self) -> bool:
        """Return whether no access is configured, so that this machine's own people may do everything."""
        return not self.book.accesses()

    def form_token(self, viewer: Viewer) -> str:
        """Return the token that forms of this viewer carry; empty for one without a session."""
        return self.book.sessions().form_token(viewer.session) if viewer.session else ""

    async def admit(self, request: Request, page: Page) -> Response | tuple[Viewer, Mapping[str, str]]:
        """Return the viewer and the form of a request that `page` may answer, or where to log in.

        Raises `Denied`, `NotFound` for a page of another workspace, and `ServiceUnreachable`.
        """
        form = await _form(request) if page.method == "POST" else {}
        return await run_in_threadpool(self.judge, request, page, form)

    def judge(
        self, request: Request, page: Page, form: Mapping[str, str]
    ) -> Response | tuple[Viewer, Mapping[str, str]]:
        """Do the same once the form is read."""
        token = _bearer(request)
        if page.reach is Reach.PROBE:
            return NOBODY, form
        viewer = self._of_token(token) if token is not None else self._of_browser(request, page)
        if isinstance(viewer, Response):
            return viewer
        if page.reach is not Reach.OPEN:
            _require(viewer, page, request)
        if page.method == "POST" and token is None:
            self._require_own_form(request, viewer, form)
        return viewer, form

    def give_session(self, request: Request, response: Response) -> None:
        """Set the cookie of a session that began with this request."""
        session = getattr(request.state, _NEW_SESSION, None)
        if session is not None:
            self.book.sessions().give(response, session)

    def begin_session(self, request: Request, access: Access | None) -> None:
        """Begin a new session with this request: of an access that logged in, or of nobody after a log-out."""
        sessions = self.book.sessions()
        made = sessions.new() if access is None else sessions.new(access.name, access.number)
        setattr(request.state, _NEW_SESSION, made)

    def _of_token(self, token: str) -> Viewer:
        access = self.book.of_token(token)
        if access is None:
            raise Denied("this token is not known", HTTPStatus.UNAUTHORIZED, remedy="tidegate access add NAME --token")
        return Viewer(access.name, access.role, access.workspace)

    def _of_browser(self, request: Request, page: Page) -> Viewer | Response:
        """Return the viewer by the cookie, or where to log in. Raises `Denied`."""
        changes = page.method == "POST"
        accesses = self.book.accesses(anew=changes)
        self._require_host(request, configured=bool(accesses))
        sessions = self.book.sessions()
        session = self._session(request, sessions)
        if not accesses:
            _require_this_machine(request)
            return Viewer(LOCAL, Role.OPERATE, None, session.id)
        access = accesses.get(session.name)
        if access is not None and access.number == session.number:
            return Viewer(access.name, access.role, access.workspace, session.id)
        if page.reach is Reach.OPEN:
            return Viewer("", Role.READ, None, session.id)
        if page.method == "GET" and "text/event-stream" not in request.headers.get("accept", ""):
            asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"/login?next={quote(asked, safe='')}", HTTPStatus.SEE_OTHER)
        raise Denied("log in first", HTTPStatus.UNAUTHORIZED)

    def _session(self, request: Request, sessions: Sessions) -> Session:
        """Return the session of the cookie, or a new one of nobody."""
        session = sessions.read(request.cookies.get(sessions.cookie))
        if session is None:
            session = sessions.new()
            setattr(request.state, _NEW_SESSION, session)
        return session

    def _require_host(self, request: Request, *, configured: bool) -> None:
        """Refuse a name that is not ours: a foreign name that somebody bound to our address (DNS rebinding).

        With accesses, an address in digits will do: no foreign name hides behind it.
        """
        host = request.headers.get("host", "").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        if {host, name} & self._hosts or (configured and _is_address(name)):
            return
        raise Denied(
            f"these pages are not served under the name {name[:100]!r}",
            HTTPStatus.MISDIRECTED_REQUEST,
            remedy="add the name to web.hosts, or ask for localhost",
        )

    def _require_own_form(self, request: Request, viewer: Viewer, form: Mapping[str, str]) -> None:
        """Refuse a form that another site sent, or that was made for another session."""
        if not _same_origin(request) or not self.book.sessions().form_fits(viewer.session, form.get("csrf", "")):
            raise Denied(
                "this form was not sent by a page of this session",
                HTTPStatus.FORBIDDEN,
                remedy="load the page again, then repeat it",
            )


def _require(viewer: Viewer, page: Page, request: Request) -> None:
    """Refuse a viewer whose access does not cover the page. Raises `Denied` and `NotFound`."""
    if not viewer.role.covers(page.role):
        raise Denied(
            f"the access {viewer.name} may read, not act", HTTPStatus.FORBIDDEN, remedy="ask for the role operate"
        )
    if page.reach is Reach.INSTALLATION and viewer.workspace is not None:
        raise Denied(
            f"the access {viewer.name} sees the workspace {viewer.workspace} only; this page shows all workspaces",
            HTTPStatus.FORBIDDEN,
        )
    if page.reach is Reach.WORKSPACE and not viewer.sees(str(request.path_params["workspace"])):
        raise NotFound("there is no such page")


def _require_this_machine(request: Request) -> None:
    """Refuse a request from elsewhere while no access is configured, also one that a proxy here passes on."""
    client = request.client
    here = client is not None and _is_loopback(client.host)
    if not here or any(name in request.headers for name in _FORWARDED):
        raise Denied(
            "no access is configured, so the pages are served to this machine only",
            HTTPStatus.FORBIDDEN,
            remedy="configure one: tidegate access add NAME --role operate",
        )


def _same_origin(request: Request) -> bool:
    """Return whether a browser says that a page of ours sent the request; one that says nothing is refused."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin") or request.headers.get("referer")
    return bool(origin) and urlsplit(origin or "").netloc.lower() == request.headers.get("host", "").lower()


def _bearer(request: Request) -> str | None:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


async def _form(request: Request) -> Mapping[str, str]:
    """Return the fields of a form, the last of each name. Raises `Denied` for one that is too long or no form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Denied("expected a form", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > FORM_LIMIT:
            raise Denied("the form is too long", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    try:
        return dict(parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=200))
    except (UnicodeDecodeError, ValueError) as error:
        raise Denied("the form cannot be read", HTTPStatus.BAD_REQUEST) from error
