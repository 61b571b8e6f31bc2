"""A browser without a browser: requests to the pages of a world, through the real application."""

from __future__ import annotations

from typing import Any

from starlette.testclient import TestClient

from engine.web.pages import ALL
from engine.web.site import Site
from tests.support.pipeline_world import World

BASE = "http://localhost:8400"


class Pages:
    """The site of a world, and clients of it; `client()` makes one for each person, with cookies of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.site = Site(world.app, ALL)
        self._application = self.site.asgi()
        self._clients: list[TestClient] = []

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

    def get(self, path: str, **more: Any) -> str:
        """Return a page as somebody on this machine gets it, while no access is configured; fail if it is an error."""
        answer = self.client().get(path, **more)
        assert answer.status_code == 200, f"{path}: {answer.status_code}\n{answer.text[:2000]}"
        return answer.text

    def close(self) -> None:
        """End the threads of the site and the clients."""
        self.site.stop()
        for client in self._clients:
            client.close()
