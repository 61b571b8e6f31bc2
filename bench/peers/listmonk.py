"""listmonk as a peer: sends the same text to the same users through our sink, by its API.

The bench installs no listmonk; the environment names a running one: `BENCH_LISTMONK_URL`, e.g. `http://127.0.0.1:9000`,
and `BENCH_LISTMONK_USER` and `BENCH_LISTMONK_TOKEN` of an API user with all rights. The bench overwrites its SMTP
server, concurrency, batch and rate, and creates a list and a campaign: give the bench a listmonk of its own.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

import psutil

from bench.installation import BODY, SUBJECT, user_rows
from bench.processes import Usage, family, used_by
from bench.sink_process import Sink

CONNECTIONS: Final = 50
BATCH: Final = 10_000
"""Connections and workers, and subscribers fetched at once: the best of many settings on 2 cores."""
_UNBOUNDED: Final = 100_000
"""Mails a second that each worker may send: more than it can."""
_ANSWER: Final = 300.0
_RESTART: Final = 60.0
"""Seconds for one answer, and for the restart after its settings have changed."""
_QUIET: Final = 0.4
"""Processor seconds in two seconds below which it counts as quiet."""
_PLACES: Final = {
    "{{ user.first_name }}": "{{ .Subscriber.FirstName }}",
    "{{ user.city }}": "{{ .Subscriber.Attribs.city }}",
    "{{ user.plan }}": "{{ .Subscriber.Attribs.plan }}",
    "{{ user.team }}": "{{ .Subscriber.Attribs.team }}",
    "{{ user.points }}": "{{ .Subscriber.Attribs.points }}",
}


class PeerFailed(Exception):
    """listmonk refused a request, or does not answer."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One campaign of listmonk: seconds to the first and last mail, counts, and local processor seconds by kind."""

    users: int
    first: float
    last: float
    missing: int
    doubled: int
    imported: float
    spent: dict[str, float]

    @property
    def rate(self) -> float:
        """Mails a second from the launch to the last mail."""
        return (self.users - self.missing) / self.last if self.last > 0 else 0.0

    @property
    def cost(self) -> float | None:
        """Processor microseconds a mail of listmonk and PostgreSQL; None if they run on another machine."""
        return sum(self.spent.values()) / self.users * 1e6 if self.spent else None


def in_its_words(text: str) -> str:
    """Translate one of our templates into listmonk's syntax. Raises `ValueError` for an unknown placeholder."""
    for ours, theirs in _PLACES.items():
        text = text.replace(ours, theirs)
    if "{{ user." in text:
        raise ValueError(f"no word of listmonk's for {text[text.index('{{ user.') :][:40]}")
    return text


def subscribers(rows: Iterable[tuple[str, str, str, str, str, int, str, str]]) -> bytes:
    """Return our users as the CSV file that listmonk imports: address, name, the other attributes as JSON."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("email", "name", "attributes"))
    for _, address, name, plan, city, points, team, _ in rows:
        attributes = {"plan": plan, "city": city, "points": points, "team": team}
        writer.writerow((address, name, json.dumps(attributes)))
    return file.getvalue().encode()


def tuned(settings: Mapping[str, Any], port: int) -> dict[str, Any]:
    """Return its settings with our sink as the only SMTP server, and the fastest values; keep all others."""
    server = {
        **settings["smtp"][0],
        "enabled": True,
        "host": "127.0.0.1",
        "port": port,
        "auth_protocol": "none",
        "username": "",
        "password": "",
        "tls_type": "none",
        "max_conns": CONNECTIONS,
    }
    fast = {"app.concurrency": CONNECTIONS, "app.batch_size": BATCH, "app.message_rate": _UNBOUNDED}
    return {**settings, **fast, "app.message_sliding_window": False, "smtp": [server]}


class Listmonk:
    """The API of a running listmonk."""

    def __init__(self, url: str, user: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._authorization = f"token {user}:{token}"

    @classmethod
    def of_environment(cls, variables: Mapping[str, str] = os.environ) -> Self | None:
        """Return the listmonk that the environment names, or None. Raises `PeerFailed` if user or token is missing."""
        url = variables.get("BENCH_LISTMONK_URL", "")
        user, token = variables.get("BENCH_LISTMONK_USER", ""), variables.get("BENCH_LISTMONK_TOKEN", "")
        if not url:
            return None
        if not user or not token:
            raise PeerFailed("BENCH_LISTMONK_URL is set: set BENCH_LISTMONK_USER and BENCH_LISTMONK_TOKEN too")
        return cls(url, user, token)

    def send(self, users: int, server: Sink) -> Sent:
        """Import `users` users into a new list, send one campaign to them, and delete list and campaign."""
        self.point_to(server.port)
        mailing = self.call(
            "POST", "/api/lists", {"name": f"bench {uuid.uuid4()}", "type": "private", "optin": "single"}
        )
        began = time.monotonic()
        self.bring_in(users, mailing["id"])
        imported = time.monotonic() - began
        bare = {"name": f"bench {uuid.uuid4()}", "type": "campaign", "body": '{{ template "content" . }}'}
        template = self.call("POST", "/api/templates", bare)
        campaign = self.call(
            "POST",
            "/api/campaigns",
            {
                "name": f"bench {users}",
                "subject": in_its_words(SUBJECT),
                "lists": [mailing["id"]],
                "from_email": "Example <news@example.org>",
                "type": "regular",
                "content_type": "html",
                "messenger": "email",
                "template_id": template["id"],
                "body": in_its_words(BODY),
            },
        )
        before = self.usage()
        if before is not None:
            before = self._quiet(before)  # what the import leaves to be done is no mail's cost: ours waits too
        launched = time.time()
        self.call("PUT", f"/api/campaigns/{campaign['id']}/status", {"status": "running"})
        self._await(campaign["id"], users, server)
        spent = self._quiet(before).since(before) if before is not None else {}
        counts = server.now()
        groups = counts["groups"].values()
        self.call("DELETE", f"/api/campaigns/{campaign['id']}")
        self.call("DELETE", f"/api/templates/{template['id']}")
        self.call("DELETE", f"/api/lists/{mailing['id']}")
        self.call("DELETE", "/api/maintenance/subscribers/orphan")  # else the next import writes over them
        return Sent(
            users=users,
            first=min((group[1] for group in groups), default=launched) - launched,
            last=max((group[2] for group in groups), default=launched) - launched,
            missing=users - counts["recipients"],
            doubled=counts["repeated"],
            imported=imported,
            spent=spent,
        )

    def point_to(self, port: int) -> None:
        """Make listmonk send to our sink with its best settings, and wait for the restart that this causes."""
        self.call("PUT", "/api/settings", tuned(self.call("GET", "/api/settings"), port))
        deadline = time.monotonic() + _RESTART
        time.sleep(2)  # it still answers for half a second before it restarts
        while True:
            try:
                serving = self.call("GET", "/api/settings")["smtp"][0]["port"] == port
            except PeerFailed:
                serving = False
            if serving:
                return
            if time.monotonic() > deadline:
                raise PeerFailed(f"{self._url} does not answer {_RESTART:.0f} s after its settings were written")
            time.sleep(0.5)

    def bring_in(self, users: int, mailing: int) -> None:
        """Import the users with its CSV import, and wait for the end."""
        order = {
            "mode": "subscribe",
            "subscription_status": "confirmed",
            "overwrite": True,
            "delim": ",",
            "lists": [mailing],
        }
        edge = uuid.uuid4().hex
        body = b"".join(
            (
                f'--{edge}\r\nContent-Disposition: form-data; name="params"\r\n\r\n{json.dumps(order)}\r\n'.encode(),
                f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="users.csv"\r\n'.encode(),
                b"Content-Type: text/csv\r\n\r\n",
                subscribers(user_rows(users, 0, 0)),
                f"\r\n--{edge}--\r\n".encode(),
            )
        )
        self._request("POST", "/api/import/subscribers", body, f"multipart/form-data; boundary={edge}")
        while (status := self.call("GET", "/api/import/subscribers")["status"]) in {"importing", "stopping"}:
            time.sleep(0.5)
        self.call("DELETE", "/api/import/subscribers")
        if status != "finished":
            raise PeerFailed(f"{self._url}: the import ended as {status}, see its page Import")

    def call(self, method: str, path: str, data: object = None) -> Any:
        """Send a request with JSON; return the `data` of the answer. Raises `PeerFailed`."""
        body = None if data is None else json.dumps(data).encode()
        return self._request(method, path, body, "application/json")

    def _request(self, method: str, path: str, body: bytes | None, kind: str) -> Any:
        headers = {"Authorization": self._authorization, "Content-Type": kind}
        request = urllib.request.Request(f"{self._url}{path}", body, headers, method=method)  # noqa: S310 - as given
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER) as answer:  # noqa: S310 - as given
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            words = refused.read(500).decode(errors="replace")
            raise PeerFailed(f"{method} {self._url}{path}: {refused.code} {words}") from refused
        except OSError as failed:
            raise PeerFailed(f"{method} {self._url}{path}: {failed}") from failed

    def _await(self, campaign: int, users: int, server: Sink) -> None:
        """Wait until the sink has a mail of everybody, or listmonk has finished and no more mails come."""
        taken = -1
        while (now := server.now()["recipients"]) < users:
            status = self.call("GET", f"/api/campaigns/{campaign}")["status"]
            if status in {"finished", "cancelled", "paused"} and now == taken:
                return
            taken = now
            time.sleep(1)

    def usage(self) -> Usage | None:
        """Return the usage of listmonk and PostgreSQL if they run on this machine, else None."""
        port = int(self._url.rpartition(":")[2].partition("/")[0]) if self._url.count(":") > 1 else 80
        here = [
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid
        ]
        if not here:
            return None
        postgres = [process for process in psutil.process_iter(["name"]) if process.info["name"] == "postgres"]
        usage = used_by([*family(here[0]), *postgres])
        for process in postgres:
            with suppress(psutil.Error):
                ended = process.cpu_times()  # its backends that have ended meanwhile, autovacuum's among them
                usage.cpu["postgres"] += ended.children_user + ended.children_system
        return usage

    def _quiet(self, before: Usage) -> Usage:
        usage, quiet = before, 0
        for _ in range(60):
            time.sleep(2)
            now = self.usage() or usage
            quiet = quiet + 1 if now.total - usage.total < _QUIET else 0
            usage = now
            if quiet == 3:
                break
        return usage
