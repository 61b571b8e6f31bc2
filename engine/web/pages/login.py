"""`/login` and `/logout`."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Final

from starlette.responses import Response

from engine.web.page import Call, Page, Reach


def form(call: Call) -> Response:
    """Show the log-in form."""
    return call.show("login.html", title="Log in", command="", next=_local(call.asked("next")), failed="", name="")


def log_in(call: Call) -> Response:
    """Check name and password; answer with a session, or with the form and how long to wait."""
    name, password = call.form.get("name", ""), call.form.get("password", "")
    client = call.request.client
    outcome = call.app.access_control.log_in(name, password, client.host if client else "")
    after = _local(call.form.get("next", ""))
    if not isinstance(outcome, float):
        call.site.guard.begin_session(call.request, outcome)
        return call.see(after)
    status, failed = HTTPStatus.UNAUTHORIZED, "name or password is wrong"
    if outcome:
        status, failed = HTTPStatus.TOO_MANY_REQUESTS, f"log-in failed too often: try again in {math.ceil(outcome)} s"
    answer = call.show(
        "login.html", title="Log in", command="", status=status, next=after, failed=failed, name=name[:64]
    )
    if outcome:
        answer.headers["Retry-After"] = str(math.ceil(outcome))
    return answer


def log_out(call: Call) -> Response:
    """End the session."""
    call.site.guard.begin_session(call.request, None)
    return call.see("/login")


def _local(path: str) -> str:
    """Return `path` if it is an address of ours, else `/`: a log-in must not lead to another site."""
    safe = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and "\\" not in path
    return path if safe and path.isascii() else "/"


PAGES: Final = (
    Page("/login", form, Reach.OPEN),
    Page("/login", log_in, Reach.OPEN, method="POST"),
    Page("/logout", log_out, Reach.OPEN, method="POST"),
)
