"""Where the pages are served."""

from __future__ import annotations

import socket

import pytest

from engine.errors import OperatorError, WrongCall
from engine.web.server import DEFAULT_PORT, bound, is_loopback, wanted_port


@pytest.mark.parametrize(
    ("given", "setting", "environment", "expected"),
    [
        (9000, 9001, {"PORT": "5700"}, (9000, False)),
        (0, None, {}, (0, False)),
        (None, 9001, {"PORT": "5700"}, (9001, False)),
        (None, None, {"PORT": "5700"}, (5700, False)),
        (None, None, {"PORT": "5700", "TIDEGATE_PROCESS": "web"}, (5700, True)),
        (None, None, {}, (DEFAULT_PORT, True)),
    ],
)
def test_a_flag_comes_before_the_setting_and_that_before_the_port_of_a_supervisor(
    monkeypatch: pytest.MonkeyPatch,
    given: int | None,
    setting: int | None,
    environment: dict[str, str],
    expected: tuple[int, bool],
) -> None:
    for name in ("PORT", "TIDEGATE_PROCESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wanted_port(given, setting) == expected


@pytest.mark.parametrize("text", ["http", "0", "70000", "-1", "٣"])
def test_a_port_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PORT", text)
    with pytest.raises(WrongCall, match="which is no port"):
        wanted_port(None, None)


def test_another_port_is_taken_only_where_that_will_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OperatorError, match="Address already in use"):
            bound("127.0.0.1", port, another=False)
        with bound("127.0.0.1", port, another=True) as other:
            assert other.getsockname()[1] != port


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.9.1", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "")),  # noqa: S104 - compared only
    ],
)
def test_loopback_addresses_are_known(host: str, here: bool) -> None:
    assert is_loopback(host) is here
