"""The application that a web process serves: pages behind a guard, static files, errors as pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from actors.broker.queue_views import watch_queues
from engine.domain.access import Viewer
from engine.errors import EngineError, NotFound, ServiceUnreachable, WrongCall
from engine.pipeline.insight.statistics import queries
from engine.pipeline.insight.system_map.svg import svg
from engine.stores.stores import Stores
from engine.telemetry.events import emit
from engine.web.guard import NOBODY, Denied, Guard
from engine.web.headers import SecurityHeaders
from engine.web.live_pages import LivePages
from engine.web.navigation import LINKS
from engine.web.outages import Outages
from engine.web.page import Call, Page, Reach, Regions
from engine.web.rendering import Static, Templates
from engine.web.shared_reading import SharedReading

if TYPE_CHECKING:
    from engine.app.app import App
    from engine.domain.system_view import Late, SystemView
    from engine.pipeline.insight.plan_and_report import Plan
    from engine.stores.search.log_index import LogIndex

T = TypeVar("T")
EVENTS: Final = "text/event-stream"
MEASURED: Final = timedelta(hours=1)
"""How far back the figures of the named queries reach."""
QUERIES_EVERY: Final = 15.0
"""Seconds between two readings of the named queries, while a page shows them."""
SYSTEM_EVERY: Final = 1.5
"""Seconds between two readings of the installation, while somebody watches it."""
LATE_EVERY: Final = 5.0
"""Seconds between two searches for late campaigns, while somebody watches."""
METRICS_EVERY: Final = 2.0
"""Seconds between two readings of the metrics, while somebody scrapes them."""
MOST_NOTES: Final = 1_000
"""Notes to sessions that are kept until their next page."""
READ_LIMIT: Final = 2.5
"""Seconds that MongoDB gets for one reading that viewers share."""
PAGE_LIMIT: Final = 10.0
"""Seconds that all of MongoDB's calls of one page may take together; an act may take `ACT_LIMIT`."""
ACT_LIMIT: Final = 60.0
_KEPT_LONG: Final = "public, max-age=31536000, immutable"


class Site:
    """What all pages of one process share."""

    def __init__(self, app: App, pages: Sequence[Page]) -> None:
        self.app = app
        self.pages = tuple(pages)
        self.outages = Outages(app.stores.OUTAGES)
        self.static = Static()
        self.templates = Templates(static=self.static.address, links=LINKS)
        self.guard = Guard(app, self.outages)
        self.live_pages = LivePages()
        if app.hooks.queues is None:
            watch_queues(app)
        self.system = SharedReading("system", app.system_reader.read, SYSTEM_EVERY)
        self.late = SharedReading("late", _bounded(app.lateness.late), LATE_EVERY)
        self._drawn: dict[str | None, tuple[int, Markup]] = {}
        self._notes: dict[str, str] = {}
        self.metrics = SharedReading("metrics", app.metrics.read, METRICS_EVERY)
        self.plans: dict[tuple[str, int], tuple[float, Plan]] = {}
        self.queries = SharedReading(
            "queries", _bounded(lambda: queries(app.statistics.measured(MEASURED))), QUERIES_EVERY
        )

    def late_of(self, viewer: Viewer) -> tuple[list[Late], str]:
        """Return the late campaigns that a viewer may see, the latest first, and why they cannot be read (or empty)."""
        reading = self.late.latest()
        return [late for late in reading.value or () if viewer.sees(late.workspace)], reading.error

    def drawing(self, view: SystemView, number: int, workspace: str | None) -> Markup:
        """Return the picture as SVG, drawn once for each reading (`number`) and each workspace (None: all)."""
        drawn = self._drawn.get(workspace)
        if drawn is None or drawn[0] != number:
            drawn = self._drawn[workspace] = (number, Markup(svg(view, self._link, style=False)))  # noqa: S704 - escaped
        return drawn[1]

    def _link(self, kind: str, name: str) -> str | None:
        """Return where a box of the picture leads: to its page if there is one, else to its row below the picture."""
        path = f"/{kind}s/{{{kind}}}"
        if any(page.path == path for page in self.pages):
            return f"/{kind}s/{quote(name, safe='')}"
        return f"#{kind}-{quote(name, safe='')}"

    def say(self, viewer: Viewer, text: str) -> None:
        """Tell a viewer something on the next page that this process shows to the same session."""
        if viewer.session:
            if len(self._notes) > MOST_NOTES:
                self._notes.clear()
            self._notes[viewer.session] = text

    def told(self, viewer: Viewer) -> str:
        """Return what the viewer is to be told, once."""
        return self._notes.pop(viewer.session, "") if viewer.session else ""

    def live_address(self, call: Call) -> str:
        """Return where a page's live blocks come from: its own address, asked for as events."""
        url = call.request.url
        return f"{url.path}?{url.query}" if url.query else url.path

    def stop(self) -> None:
        """End the open streams and the threads that read for the pages. Safe to repeat."""
        self.live_pages.stopping = True
        for reading in (self.system, self.late, self.queries, self.metrics):
            reading.stop()

    @cached_property
    def logs(self) -> LogIndex | None:
        """The log search; None without Elasticsearch."""
        client = self.app.stores.elastic
        if client is None:
            return None
        from engine.stores.search.log_index import LogIndex

        return LogIndex(client, self.app.system)

    def asgi(self) -> Starlette:
        """Return the application for a server or a test client."""
        routes = [Route(page.path, self._endpoint(page), methods=[page.method]) for page in self.pages]
        routes.append(Route("/static/{name}", self._file))
        app = Starlette(
            routes=routes,
            middleware=[Middleware(SecurityHeaders)],
            exception_handlers={HTTPException: self._refused},
        )
        app.state.site = self
        return app

    def _endpoint(self, page: Page) -> Any:  # Starlette's endpoint
        async def endpoint(request: Request) -> Response:
            try:
                response = await self._answer(page, request)
                self.guard.give_session(request, response)
                return response
            except EngineError as error:
                return await run_in_threadpool(self.error_page, request, error, _status(error))
            except self.outages.kinds as error:
                return await run_in_threadpool(self.error_page, request, _away(error), HTTPStatus.SERVICE_UNAVAILABLE)
            except Exception as error:  # noqa: BLE001 - the reader gets a page with our headers, the log gets the error
                return await self._failed(request, error)

        return endpoint

    async def _answer(self, page: Page, request: Request) -> Response:
        admitted = await self.guard.admit(request, page)
        if isinstance(admitted, Response):
            return admitted
        viewer, form = admitted
        if page.every is not None and EVENTS in request.headers.get("accept", ""):
            return self._streamed(page, request, viewer)
        return await run_in_threadpool(_answered, page, Call(self, page, request, viewer, form))

    def _streamed(self, page: Page, request: Request, viewer: Viewer) -> Response:
        """Return the stream of a page's live blocks; it ends when the viewer may no longer see the page."""
        every = page.every or 1.0
        key = (str(request.url.path), str(request.url.query), viewer.workspace, viewer.role)

        def render() -> Mapping[str, str]:
            call = Call(self, page, request, Viewer("", viewer.role, viewer.workspace), live=True)
            answer = _answered(page, call)
            return answer.regions if isinstance(answer, Regions) else {}

        async def regions() -> Mapping[str, str] | None:
            try:
                if isinstance(await self.guard.admit(request, page), Response):
                    return None
            except EngineError:
                return None
            return await self.live_pages.regions(key, every, lambda: run_in_threadpool(render))

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self.live_pages.stream(every, regions), media_type=EVENTS, headers=headers)

    async def _file(self, request: Request) -> Response:
        found = self.static.get(request.path_params["name"])
        if found is None:
            return Response("", HTTPStatus.NOT_FOUND)
        raw, kind, digest = found
        asked = request.query_params.get("v")
        return Response(raw, media_type=kind, headers={"Cache-Control": _KEPT_LONG} if asked == digest else None)

    def error_page(self, request: Request, error: EngineError, status: int) -> Response:
        """Return a page that says what is wrong and what to do."""
        lines = [line for line in str(error).splitlines() if line]
        title = HTTPStatus(status).phrase.capitalize()
        call = Call(self, Page(request.url.path, _nothing, Reach.OPEN), request, NOBODY)
        return call.show("error.html", title=title, command="", status=status, lines=lines, remedy=error.remedy)

    async def _refused(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.BAD_REQUEST
        kind = {HTTPStatus.NOT_FOUND: "there is no such page"}.get(HTTPStatus(status), HTTPStatus(status).phrase)
        return await run_in_threadpool(self.error_page, request, WrongCall(kind), status)

    async def _failed(self, request: Request, error: Exception) -> Response:
        emit("engine.failed", process="web", reason=type(error).__name__, error=error)
        shown = EngineError(
            "this page failed", remedy="the log has the error: tidegate logs search event:engine.failed"
        )
        return await run_in_threadpool(self.error_page, request, shown, HTTPStatus.INTERNAL_SERVER_ERROR)


def _bounded(read: Callable[[], T]) -> Callable[[], T]:
    """Let `read` give up MongoDB's calls after `READ_LIMIT`."""

    def bounded() -> T:
        with Stores.within(READ_LIMIT):
            return read()

    return bounded


def _answered(page: Page, call: Call) -> Response:
    """Return the page's answer; raise MongoDB's time-out if its calls take too long together."""
    with Stores.within(PAGE_LIMIT if page.method == "GET" else ACT_LIMIT):
        return page.answer(call)


def _nothing(call: Call) -> Response:  # noqa: ARG001 - an answer's signature
    return Response("")


def _status(error: EngineError) -> int:
    match error:
        case Denied():
            return error.status
        case NotFound():
            return HTTPStatus.NOT_FOUND
        case ServiceUnreachable():
            return HTTPStatus.SERVICE_UNAVAILABLE
        case WrongCall():
            return HTTPStatus.BAD_REQUEST
        case _:
            return HTTPStatus.CONFLICT if error.exit_code else HTTPStatus.INTERNAL_SERVER_ERROR


def _away(error: BaseException) -> ServiceUnreachable:
    from engine.stores.driver_errors import trouble_of

    trouble = trouble_of(error) if isinstance(error, Exception) else None
    text = "a service does not answer" if trouble is None else str(trouble)
    return ServiceUnreachable(text, remedy="tidegate status shows the services")
