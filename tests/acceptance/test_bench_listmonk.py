"""The bench's requests to listmonk, against a small HTTP server that answers as its API does, and sends mails."""

from __future__ import annotations

import csv
import io
import json
import smtplib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bench.installation import BODY, user_rows
from bench.peers import listmonk
from bench.peers.listmonk import Listmonk, PeerFailed, in_its_words, subscribers, tuned
from bench.sink_process import sink

SETTINGS: dict[str, Any] = {
    "app.concurrency": 10,
    "app.lang": "en",
    "smtp": [{"host": "elsewhere", "port": 25, "enabled": True, "uuid": "u", "idle_timeout": "15s"}, {"host": "more"}],
}


class Api:
    """The part of listmonk that the bench uses: it records requests, and mails the imported people."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.settings = SETTINGS
        self.addresses: list[str] = []
        self.imported = "finished"
        self.campaign = "draft"

    def answer(self, method: str, path: str, body: bytes, authorization: str | None) -> tuple[int, Any]:
        if authorization != "token bench:secret":
            return 403, {"message": "invalid API credentials"}
        given = None if not body or b"form-data" in body else json.loads(body)
        self.requests.append((method, path, given))
        match method, path.split("/")[2]:
            case "PUT", "settings":
                self.settings = given
            case "POST", "import":
                file = body.split(b"text/csv\r\n\r\n")[1].split(b"\r\n--")[0].decode()
                self.addresses = [row["email"] for row in csv.DictReader(io.StringIO(file))]
            case "PUT", "campaigns":
                self.campaign = "finished"
                self._send()
        answers: dict[str, Any] = {"settings": self.settings, "import": {"status": self.imported}, "maintenance": {}}
        answers |= {"lists": {"id": 7}, "templates": {"id": 8}, "campaigns": {"id": 9, "status": self.campaign}}
        return 200, {"data": answers[path.split("/")[2]]}

    def _send(self) -> None:
        server = self.settings["smtp"][0]
        with smtplib.SMTP(server["host"], server["port"]) as client:
            for address in self.addresses:
                client.sendmail("news@example.org", [address], "Subject: x\r\n\r\nx")


@pytest.fixture
def api() -> Iterator[tuple[Api, str]]:
    own = Api()

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, answer = own.answer(self.command, self.path, body, self.headers.get("Authorization"))
            data = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its signature
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield own, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_one_campaign_goes_to_the_imported_users_and_leaves_nothing(
    api: tuple[Api, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, url = api
    monkeypatch.setattr(Listmonk, "usage", lambda _: None)  # the server is this process, so its cost is not counted
    with sink() as server:
        sent = Listmonk(url, "bench", "secret").send(5, server)
        assert server.now()["recipients"] == 5
    assert (sent.users, sent.missing, sent.doubled, sent.cost) == (5, 0, 0, None)
    assert 0 < sent.first <= sent.last
    requests_made = [(method, path) for method, path, _ in own.requests if method != "GET"]
    assert requests_made == [
        ("PUT", "/api/settings"),
        ("POST", "/api/lists"),
        ("POST", "/api/import/subscribers"),
        ("DELETE", "/api/import/subscribers"),
        ("POST", "/api/templates"),
        ("POST", "/api/campaigns"),
        ("PUT", "/api/campaigns/9/status"),
        ("DELETE", "/api/campaigns/9"),
        ("DELETE", "/api/templates/8"),
        ("DELETE", "/api/lists/7"),
        ("DELETE", "/api/maintenance/subscribers/orphan"),
    ]
    campaign = next(given for method, path, given in own.requests if (method, path) == ("POST", "/api/campaigns"))
    assert campaign["lists"] == [7]
    assert campaign["template_id"] == 8
    assert "{{ .Subscriber.Attribs.city }}" in campaign["body"]


def test_a_refusal_names_the_request_and_listmonks_words(api: tuple[Api, str]) -> None:
    _, url = api
    with pytest.raises(PeerFailed, match=r"GET http.*/api/settings: 403 .*invalid API credentials"):
        Listmonk(url, "bench", "wrong").call("GET", "/api/settings")


def test_a_failed_import_is_reported(api: tuple[Api, str]) -> None:
    own, url = api
    own.imported = "failed"
    with pytest.raises(PeerFailed, match="the import ended as failed"):
        Listmonk(url, "bench", "secret").bring_in(3, 7)


def test_an_unreachable_listmonk_is_reported() -> None:
    with pytest.raises(PeerFailed, match="refused"):
        Listmonk("http://127.0.0.1:1", "bench", "secret").call("GET", "/api/lists")


def test_only_the_sink_and_the_speed_settings_of_listmonk_change() -> None:
    new = tuned(SETTINGS, 2525)
    assert [(one["host"], one["port"], one["max_conns"], one["uuid"]) for one in new["smtp"]] == [
        ("127.0.0.1", 2525, listmonk.CONNECTIONS, "u")
    ]
    assert new["app.lang"] == "en"
    assert SETTINGS["app.concurrency"] == 10


def test_subscribers_are_our_users() -> None:
    rows = list(csv.DictReader(io.StringIO(subscribers(user_rows(3, 0, 0)).decode())))
    assert [row["email"] for row in rows] == ["u0@big.example", "u1@big.example", "u2@big.example"]
    assert json.loads(rows[1]["attributes"]) == {"plan": "free", "city": "City1", "points": 1, "team": "team1"}


def test_every_placeholder_translates_to_listmonk() -> None:
    assert "{{ user." not in in_its_words(BODY)
    with pytest.raises(ValueError, match=r"user\.shoe_size"):
        in_its_words("{{ user.shoe_size }}")


def test_the_environment_names_url_user_and_token_or_none() -> None:
    assert Listmonk.of_environment({}) is None
    with pytest.raises(PeerFailed, match="BENCH_LISTMONK_TOKEN"):
        Listmonk.of_environment({"BENCH_LISTMONK_URL": "http://127.0.0.1:9000"})
