"""A browser without a browser: requests to the pages of a world, through the real application."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from engine.domain.access import Role, Viewer
from engine.web.page import Call, Page, Regions
from engine.web.pages import ALL
from engine.web.site import Site
from tests.support.pipeline_world import World

BASE = "http://localhost:8400"
PASSWORD = "correct horse battery"
_TOKEN = re.compile(r'name="csrf" value="([^"]*)"')


class Pages:
    """The site of a world, and clients of it; `client()` makes one for each person, with cookies of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.site = Site(world.app, ALL)
        self._application = self.site.asgi()
        self._clients: list[TestClient] = []

    def serve(self, site: Site) -> None:
        """Serve another site from now on, as another process would."""
        self.site.stop()
        self.site = site
        self._application = site.asgi()

    def client(self, *, peer: str = "127.0.0.1", base: str = BASE, **headers: str) -> TestClient:
        """Return a client at the address `peer` that asks for `base`; `headers` go with each request."""
        made = TestClient(
            self._application,
            base_url=base,
            headers=headers,
            client=(peer, 50_000),
            follow_redirects=False,
            raise_server_exceptions=False,
        )
        self._clients.append(made)
        return made

    def get(self, path: str, client: TestClient | None = None, **more: Any) -> str:
        """Return a page as somebody on this machine gets it, while no access is configured; fail if it is an error."""
        answer = (client or self.client()).get(path, **more)
        assert answer.status_code == 200, f"{path}: {answer.status_code}\n{answer.text[:2000]}"
        return answer.text

    def regions(self, page: Page, path: str) -> dict[str, str]:
        """Return the live blocks of a page as open browsers get them."""
        route = Route(page.path, lambda _: Response())
        url = urlsplit(path)
        scope = {"type": "http", "method": "GET", "path": url.path, "query_string": url.query.encode(), "headers": []}
        _, matched = route.matches(scope)
        request = Request({**scope, **matched, "server": ("localhost", 8400), "scheme": "http"})
        answer = page.answer(Call(self.site, page, request, Viewer("", Role.READ), live=True))
        assert isinstance(answer, Regions)
        return answer.regions

    def send(self, client: TestClient, path: str, *, page: str | None = None, **fields: str) -> Any:
        """Send a form as a browser does: with the token of `page` (the same address) and the origin of our pages."""
        token = _TOKEN.search(self.get(page or path, client))
        assert token, f"{page or path} has no form"
        return self.post(client, path, csrf=token[1], **fields)

    def post(self, client: TestClient, path: str, **fields: str) -> Any:
        """Send these fields alone, with the origin of our pages."""
        headers = {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        return client.post(path, data=fields, headers=headers)

    def access(self, name: str, role: Role, workspace: str | None = None) -> TestClient:
        """Add an access with `PASSWORD`; return a client that has logged in with it."""
        self.world.app.access_control.add_password(name, role, PASSWORD, workspace, tuple(self.world.app.catalogues))
        self.site.guard.book.accesses(anew=True)
        client = self.client()
        answer = self.log_in(client, name)
        assert answer.status_code == 303, answer.text
        return client

    def log_in(self, client: TestClient, name: str, password: str = PASSWORD) -> Any:
        """Send the log-in form."""
        return self.send(client, "/login", name=name, password=password)

    def token(self, name: str, role: Role, workspace: str | None = None) -> TestClient:
        """Add an access with a token; return a client that sends it."""
        known = tuple(self.world.app.catalogues)
        _, token = self.world.app.access_control.add_token(name, role, workspace, known)
        self.site.guard.book.accesses(anew=True)
        return self.client(Authorization=f"Bearer {token}")

    def close(self) -> None:
        """End the threads of the site and the clients."""
        self.site.stop()
        for client in self._clients:
            client.close()


def text_of(html: str) -> str:
    """Return what a reader sees of a page: without tags, with single blanks."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())
