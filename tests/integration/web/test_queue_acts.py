"""Dead letters on the pages: chosen ones are queued again or dropped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.broker.queue_admin import list_dead
from engine.domain.access import Role
from engine.web.pages import ALL
from engine.web.queues import broker_of
from engine.web.site import Site
from tests.support.pipeline_world import World
from tests.support.web_pages import Pages


@pytest.fixture
def dead(world: World) -> Iterator[Pages]:
    """The pages of a process of its own, with three dead letters in the lane `fast`."""
    pages = Pages(world)
    app = world.open()
    pages.serve(Site(app, ALL))
    broker = broker_of(app)
    for number in range(3):
        app.messenger().process([(f"slice-{number}", "fast")])
    consumer = broker.consume("fast", prefetch=3, timeout=200)
    for _ in range(3):
        message = next(consumer)
        assert message is not None
        consumer.nack(message)
    consumer.close()
    assert len(list_dead(broker, "fast")) == 3
    yield pages
    pages.close()
    broker.flush_all()
    broker.close()
    app.close()


def letters(pages: Pages) -> list[str]:
    """Return the ids of the dead letters, the latest first."""
    return [letter.id for letter in list_dead(broker_of(pages.site.app), "fast")]


@pytest.mark.parametrize(("act", "told"), [("replay", "queued again"), ("drop", "deleted")])
def test_chosen_dead_letters_are_replayed_or_dropped_the_others_stay(dead: Pages, act: str, told: str) -> None:
    client = dead.access("ann", Role.OPERATE)
    first, *others = letters(dead)
    assert first in dead.get(f"/queue/fast/{act}", client)
    assert dead.send(client, f"/queue/fast/{act}").status_code == 400, "none was chosen"
    assert dead.send(client, f"/queue/fast/{act}", **{f"id.{first}": "yes"}).status_code == 303
    assert letters(dead) == others
    assert f"1 dead letters of fast are {told}" in dead.get("/", client)
    assert dead.send(client, f"/queue/fast/{act}", all="yes").status_code == 303
    assert letters(dead) == []


def test_an_unknown_lane_is_named(dead: Pages) -> None:
    client = dead.access("ann", Role.OPERATE)
    answer = client.get("/queue/nosuch/drop")
    assert answer.status_code in (400, 404)
    assert "nosuch" in answer.text
