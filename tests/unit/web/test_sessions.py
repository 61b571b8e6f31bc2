"""Sessions in signed cookies."""

from __future__ import annotations

from datetime import timedelta

import pytest
from starlette.responses import Response

from engine.web.sessions import Sessions

KEY = "k" * 64


def cookie_of(sessions: Sessions, name: str = "ann") -> tuple[str, str]:
    """Give a session of `name`; return the whole header and the cookie's value."""
    response = Response()
    sessions.give(response, sessions.new(name, "7"))
    header = response.headers["set-cookie"]
    return header, header.partition("=")[2].partition(";")[0]


def test_a_cookie_names_who_logged_in() -> None:
    sessions = Sessions(KEY, timedelta(hours=1), https=False)
    read = sessions.read(cookie_of(sessions)[1])
    assert read is not None
    assert (read.name, read.number) == ("ann", "7")


def test_a_cookie_of_another_key_or_past_its_time_is_nobodys() -> None:
    sessions = Sessions(KEY, timedelta(hours=1), https=False)
    assert sessions.read(cookie_of(Sessions("x" * 64, timedelta(hours=1), https=False))[1]) is None
    ended = Sessions(KEY, timedelta(seconds=-1), https=False)
    assert ended.read(cookie_of(sessions)[1]) is None
    assert sessions.read(None) is None
    assert sessions.read("") is None


@pytest.mark.parametrize("https", [False, True])
def test_a_cookie_is_closed_to_scripts_and_with_https_to_plain_connections(https: bool) -> None:
    header, _ = cookie_of(Sessions(KEY, timedelta(hours=1), https=https))
    assert "HttpOnly" in header
    assert "SameSite=lax" in header
    assert ("Secure" in header) == https
    assert header.startswith("__Host-") == https


def test_a_form_token_fits_its_session_alone() -> None:
    sessions = Sessions(KEY, timedelta(hours=1), https=False)
    token = sessions.form_token("one")
    assert sessions.form_fits("one", token)
    assert not sessions.form_fits("two", token)
    assert not sessions.form_fits("", sessions.form_token(""))
    assert not sessions.form_fits("one", "")
    assert not sessions.form_fits("one", "ä")
