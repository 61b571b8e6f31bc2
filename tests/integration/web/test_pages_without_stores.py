"""Pages while MongoDB, Redis or Elasticsearch is away: each says what is missing and shows the rest."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from engine.app.app import App
from engine.domain.access import Role
from engine.settings import Settings
from engine.web.pages import ALL
from engine.web.site import Site
from tests.support.pipeline_world import World
from tests.support.web_pages import Pages, text_of

NOWHERE = {
    "mongo_url": "mongodb://127.0.0.1:9/?replicaSet=rs0",
    "broker_url": "redis://127.0.0.1:9/0",
    "cache_url": "redis://127.0.0.1:9/0",
    "elastic_url": "http://127.0.0.1:9",
}
PATIENCE = 8.0
"""Seconds within which a page answers even if a store has just gone; generous for a loaded machine."""


def without(world: World, name: str) -> Settings:
    """Return the settings of a world with one service at an address where nothing serves."""
    services = world.settings.services.model_copy(update={name: SecretStr(NOWHERE[name])})
    return world.settings.model_copy(update={"services": services})


@pytest.fixture
def half(world: World, request: pytest.FixtureRequest) -> Iterator[Pages]:
    """The pages of a process that does not reach one service; the accesses were read before it went."""
    pages = Pages(world)
    app = App(without(world, request.param))
    book = pages.site.guard.book
    pages.get("/campaigns")
    pages.serve(Site(app, ALL))
    pages.site.guard.book = book
    yield pages
    pages.close()
    app.close()


@pytest.mark.parametrize("half", ["mongo_url", "broker_url"], indirect=True)
@pytest.mark.parametrize("path", ["/", "/campaigns"])
def test_a_page_says_what_is_missing_and_shows_the_rest(half: Pages, path: str) -> None:
    began = time.monotonic()
    shown = text_of(half.get(path))
    assert time.monotonic() - began < PATIENCE
    if path == "/":
        assert "does not answer: what it knows is missing here" in shown
        assert "lane" in shown


@pytest.mark.parametrize("half", ["mongo_url"], indirect=True)
def test_the_second_page_does_not_wait_for_a_store_again(half: Pages) -> None:
    half.get("/campaigns")
    began = time.monotonic()
    assert "MongoDB does not answer: the campaigns cannot be shown" in half.get("/campaigns")
    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize("half", ["mongo_url"], indirect=True)
def test_a_page_that_is_about_one_document_says_that_it_cannot_be_read(half: Pages) -> None:
    answer = half.client().get("/w/shop/campaigns/winback")
    assert answer.status_code == 503
    assert "tidegate status shows the services" in answer.text


def test_a_process_that_never_read_the_accesses_shows_nothing(world: World) -> None:
    pages = Pages(world)
    app = App(without(world, "mongo_url"))
    pages.serve(Site(app, ALL))
    answer = pages.client().get("/campaigns")
    assert answer.status_code == 503
    assert "nobody knows who may see the pages" in answer.text
    assert pages.client().get("/livez").status_code == 200
    assert pages.client().get("/readyz").status_code == 503
    pages.close()
    app.close()


@pytest.mark.parametrize("half", ["broker_url"], indirect=True)
def test_failed_log_ins_are_slowed_without_redis(half: Pages) -> None:
    half.access("ann", Role.OPERATE)
    client = half.client()
    codes = [half.log_in(client, "ann", "a wrong password").status_code for _ in range(4)]
    assert codes == [401, 401, 401, 429]
    assert half.log_in(client, "ann").status_code == 429


@pytest.mark.parametrize("half", list(NOWHERE), indirect=True)
def test_every_page_of_the_installation_is_shown_whichever_store_is_away(half: Pages) -> None:
    for path in ("/", "/lanes", "/lanes/fast", "/queries", "/policies", "/gate", "/logs?q=event:x.y&since=1h"):
        began = time.monotonic()
        assert "</html>" in half.get(path), path
        assert time.monotonic() - began < PATIENCE, path


@pytest.mark.parametrize("half", ["elastic_url"], indirect=True)
def test_without_elasticsearch_logs_come_from_the_files_and_users_are_found_by_their_ids(half: Pages) -> None:
    half.world.users(["u1"])
    assert "the log files of this machine" in text_of(half.get("/logs?q=event:x.y&since=1h"))
    assert half.client().get("/w/shop/users?q=u1").status_code == 303
    assert "only once Elasticsearch holds them" in text_of(half.get("/w/shop/users?q=a@x.example"))
