"""`/`: the whole installation on one page."""

from __future__ import annotations

import pytest

from engine.domain.access import Role
from engine.telemetry.events import listening
from engine.web.pages import ALL
from tests.support.pipeline_world import World
from tests.support.web_pages import Pages, text_of


def test_the_overview_draws_the_installation_and_says_what_is_not_well(world: World, pages: Pages) -> None:
    html = pages.get("/")
    assert '<svg xmlns="http://www.w3.org/2000/svg" class="map"' in html
    assert "style=" not in html, "the content policy allows no style inside a page"
    assert "<style" not in html
    shown = text_of(html)
    assert "producer clock : no clock works" in shown
    assert "no process of it is alive" in shown
    assert "tidegate map" in shown


def test_the_names_of_another_workspace_stay_out_of_the_picture(world: World, pages: Pages) -> None:
    world.users(["u1"])
    world.start({"campaign": "winback"})
    assert "shop/winback" in pages.get("/", pages.access("ann", Role.READ)), "the worst case names its campaign"
    assert "winback" not in pages.get("/", pages.access("oda", Role.READ, "other"))


def test_an_unknown_page_says_so_as_a_page(pages: Pages) -> None:
    answer = pages.client().get("/nothing")
    assert answer.status_code == 404
    assert "there is no such page" in answer.text


def test_every_answer_forbids_foreign_scripts_and_frames(pages: Pages) -> None:
    for path in ("/", "/nothing", "/static/style.css"):
        headers = pages.client().get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_a_page_that_fails_says_so_without_its_error_and_with_our_headers(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(pages.site, "drawing", failing)
    with listening() as events:
        answer = pages.client().get("/")
        assert events.of("engine.failed", process="web")
    assert answer.status_code == 500
    assert "this page failed" in answer.text
    assert "a secret of the inside" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_every_live_page_renders_its_regions_without_the_rest(world: World, pages: Pages) -> None:
    world.users(["u1"])
    world.start({"campaign": "winback"})
    for page in ALL:
        if page.every is not None:
            path = page.path.format(workspace="shop", name="winback", user="u1", lane="fast")
            html = pages.get(path)
            regions = pages.regions(page, path)
            named = {name for name in regions if not name.startswith("@")}
            assert named, path
            assert all(f'data-live="{name}"' in html for name in named), f"{path}: a region has no place in the page"
            assert "csrf" not in "".join(regions.values()), f"{path}: regions are shared, so they hold no form"
