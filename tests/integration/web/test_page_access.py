"""Who gets which page: a table over every route, and each way around it that must not exist."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from engine.domain.access import Role
from engine.telemetry.events import listening
from engine.web.page import Page, Reach
from engine.web.pages import ALL
from tests.support.pipeline_world import World
from tests.support.web_pages import PASSWORD, Pages

PARTS = {
    "workspace": "shop",
    "name": "hush-hush",
    "lane": "fast",
    "version": "0123456789ab",
    "query": "campaigns.page",
}
NOT_THERE = {"/policies/{version}"}
"""Pages of things that this table names and that do not exist: those who may see them are told so."""
READ_OTHER, READ_ALL, OPERATE_ALL, OPERATE_OTHER = "read other", "read all", "operate all", "operate other"


def address(page: Page) -> str:
    """Return a page's address with its parts filled in; fail for a part that this table does not know."""
    return re.sub(r"\{(\w+)\}", lambda part: PARTS[part[1]], page.path)


@pytest.fixture
def filled(world: World) -> World:
    """A campaign in each of two workspaces."""
    world.users(["u1"])
    world.start({"campaign": "hush-hush"})
    world.apply({"campaign": "secret-plan", "workspace": "other"})
    world.app.stores.policy_versions.record("none", world.app.policies.plain(), 1)
    return world


@pytest.fixture
def people(filled: World, pages: Pages) -> dict[str, TestClient]:
    """A client of each kind of access."""
    return {
        OPERATE_ALL: pages.access("ann", Role.OPERATE),
        READ_ALL: pages.access("rob", Role.READ),
        READ_OTHER: pages.access("oda", Role.READ, "other"),
        OPERATE_OTHER: pages.token("bot", Role.OPERATE, "other"),
        "nobody": pages.client(),
        "wrong token": pages.client(Authorization="Bearer tidegate_wrong"),
    }


def expected(page: Page, who: str) -> set[int]:
    """Return the statuses that this page may answer to `who`."""
    fine = {200, 303, 400, 409, *([404] if page.path in NOT_THERE else [])}
    if page.reach in (Reach.OPEN, Reach.PROBE):
        return {401, 403} if who == "wrong token" and page.reach is Reach.OPEN else {*fine, 401, 403, 503}
    if who == "nobody":
        return {303} if page.method == "GET" else {401}
    if who == "wrong token":
        return {401}
    if page.role is Role.OPERATE and who in (READ_ALL, READ_OTHER):
        return {403}
    if who in (READ_OTHER, OPERATE_OTHER):
        if page.reach is Reach.WORKSPACE:
            return {404}
        if page.reach is Reach.INSTALLATION:
            return {403}
    if page.method == "POST" and who != OPERATE_OTHER:
        return {403}  # a form without a token
    return fine


@pytest.mark.parametrize("who", [OPERATE_ALL, READ_ALL, READ_OTHER, OPERATE_OTHER, "nobody", "wrong token"])
def test_every_page_answers_those_alone_who_may_see_it(pages: Pages, people: dict[str, TestClient], who: str) -> None:
    for page in ALL:
        sent = people[who].request(
            page.method, address(page), **({"data": {"x": "y"}} if page.method == "POST" else {})
        )
        allowed = expected(page, who)
        assert sent.status_code in allowed, f"{who}: {page.method} {page.path}: {sent.status_code}\n{sent.text[:500]}"
        if who == "nobody" and sent.status_code == 303 and page.reach not in (Reach.OPEN, Reach.PROBE):
            assert sent.headers["location"].startswith("/login?next=")


def test_every_page_of_a_workspace_names_it_in_its_address() -> None:
    for page in ALL:
        assert ("{workspace}" in page.path) == (page.reach is Reach.WORKSPACE), page.path
        assert page.method == "GET" or page.role is Role.OPERATE or page.path in ("/login", "/logout"), page.path


def test_pages_that_keep_to_their_viewer_name_nothing_of_another_workspace(
    pages: Pages, people: dict[str, TestClient]
) -> None:
    for page in ALL:
        if page.reach is Reach.OWN and page.method == "GET":
            for query in ("", "?workspace=shop", "?q=hush"):
                answer = people[READ_OTHER].get(address(page) + query)
                assert answer.status_code == 200
                body = answer.text.replace('value="hush"', "")
                assert "hush-hush" not in body, f"{page.path}{query} shows a campaign of another workspace"
    assert "secret-plan" in pages.get("/campaigns", people[READ_OTHER])


def test_live_regions_keep_to_their_viewer(pages: Pages, people: dict[str, TestClient]) -> None:
    for page in ALL:
        if page.every is not None and page.reach is Reach.WORKSPACE:
            answer = people[READ_OTHER].get(address(page), headers={"Accept": "text/event-stream"})
            assert answer.status_code == 404, page.path


# the form


def test_a_form_needs_the_token_of_its_session(filled: World, pages: Pages, people: dict[str, TestClient]) -> None:
    client = people[OPERATE_ALL]
    pause = "/w/shop/campaigns/hush-hush/pause"
    other = pages.access("eve", Role.OPERATE)
    foreign = re.search(r'name="csrf" value="([^"]*)"', pages.get(pause, other))
    assert foreign
    for fields in ({"x": "y"}, {"csrf": ""}, {"csrf": "x" * 48}, {"csrf": foreign[1]}):
        assert pages.post(client, pause, **fields).status_code == 403
    assert filled.state("hush-hush") == "live"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
        {"Origin": "http://localhost:8400", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://localhost:8400", "Sec-Fetch-Site": "same-site"},
        {"Referer": "http://evil.example/localhost:8400"},
        {},
    ],
)
def test_a_form_of_another_site_is_refused(
    filled: World, pages: Pages, people: dict[str, TestClient], headers: dict[str, str]
) -> None:
    client = people[OPERATE_ALL]
    pause = "/w/shop/campaigns/hush-hush/pause"
    token = re.search(r'name="csrf" value="([^"]*)"', pages.get(pause, client))
    assert token
    assert client.post(pause, data={"csrf": token[1]}, headers=headers).status_code == 403
    assert filled.state("hush-hush") == "live"
    assert pages.post(client, pause, csrf=token[1]).status_code == 303


def test_a_form_that_is_no_form_or_too_long_is_refused(pages: Pages, people: dict[str, TestClient]) -> None:
    client = people[OPERATE_ALL]
    assert client.post("/gate/set", json={"hold": "open"}).status_code == 415
    assert client.post("/gate/set", data={"why": "x" * 70_000}).status_code == 413


# log-in and sessions


def test_a_wrong_password_and_an_unknown_name_look_the_same(pages: Pages, people: dict[str, TestClient]) -> None:
    wrong = pages.log_in(pages.client(), "ann", "not the password")
    unknown = pages.log_in(pages.client(), "nobody-of-this-name", "not the password")
    assert wrong.status_code == unknown.status_code == 401
    assert "name or password is wrong" in wrong.text
    assert "name or password is wrong" in unknown.text


def test_failed_log_ins_are_slowed_even_with_the_right_password(pages: Pages, people: dict[str, TestClient]) -> None:
    client = pages.client()
    with listening() as events:
        codes = [pages.log_in(client, "ann", "wrong password").status_code for _ in range(4)]
        assert len(events.of("access.refused", access="ann")) == 4
    assert codes == [401, 401, 401, 429]
    refused = pages.log_in(client, "ann", PASSWORD)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert pages.log_in(pages.client(peer="10.1.1.1"), "ann", PASSWORD).status_code == 429, (
        "the name waits, from anywhere"
    )
    assert pages.get("/campaigns", people[OPERATE_ALL]), "who has logged in already is not disturbed"


def test_a_session_ends_when_its_access_is_removed(filled: World, pages: Pages, people: dict[str, TestClient]) -> None:
    client, bot = people[OPERATE_ALL], people[OPERATE_OTHER]
    assert client.get("/campaigns").status_code == 200
    for name in ("ann", "bot"):
        filled.app.access_control.remove(name)
    pages.site.guard.book.accesses(anew=True)
    assert client.get("/campaigns").status_code == 303
    assert bot.get("/campaigns").status_code == 401
    filled.app.access_control.add_password("ann", Role.OPERATE, PASSWORD, None, ())
    pages.site.guard.book.accesses(anew=True)
    assert client.get("/campaigns").status_code == 303, "a new access of the name does not revive old sessions"


def test_a_changed_cookie_is_nobodys(pages: Pages, people: dict[str, TestClient]) -> None:
    cookie = people[READ_ALL].cookies["tidegate_session"]
    for changed in (cookie[:-2] + "xx", cookie.split(".")[0], "", "." * 5):
        assert pages.client().get("/campaigns", headers={"Cookie": f"tidegate_session={changed}"}).status_code == 303


def test_the_cookie_is_closed_to_scripts_and_to_other_sites(pages: Pages, people: dict[str, TestClient]) -> None:
    given = pages.client().get("/login").headers["set-cookie"]
    assert "HttpOnly" in given
    assert "SameSite=lax" in given


def test_a_log_out_ends_the_session_in_this_browser(pages: Pages, people: dict[str, TestClient]) -> None:
    client = people[READ_ALL]
    assert pages.send(client, "/logout", page="/campaigns").status_code == 303
    assert client.get("/campaigns").status_code == 303


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", ""])
def test_a_log_in_leads_to_our_own_pages_only(pages: Pages, people: dict[str, TestClient], to: str) -> None:
    answer = pages.send(pages.client(), "/login", name="rob", password=PASSWORD, next=to)
    assert answer.headers["location"] == "/"


# without any access


@pytest.mark.parametrize(
    ("peer", "base", "headers"),
    [
        ("10.0.0.7", "http://localhost:8400", {}),
        ("127.0.0.1", "http://evil.example", {}),
        ("127.0.0.1", "http://evil.example:8400", {}),
        ("127.0.0.1", "http://10.0.0.1:8400", {}),
        ("127.0.0.1", "http://localhost:8400", {"X-Forwarded-For": "10.0.0.7"}),
        ("127.0.0.1", "http://localhost:8400", {"Forwarded": "for=10.0.0.7"}),
    ],
)
def test_without_an_access_this_machine_alone_is_served(
    pages: Pages, peer: str, base: str, headers: dict[str, str]
) -> None:
    answer = pages.client(peer=peer, base=base, **headers).get("/campaigns")
    assert answer.status_code in (403, 421)
    assert pages.get("/campaigns")


@pytest.mark.parametrize("base", ["http://localhost:8400", "http://127.0.0.1", "http://[::1]:8400"])
def test_this_machines_own_names_are_served(pages: Pages, base: str) -> None:
    assert pages.get("/campaigns", pages.client(base=base))


def test_without_an_access_people_of_this_machine_act_with_forms_all_the_same(filled: World, pages: Pages) -> None:
    client = pages.client()
    pause = "/w/shop/campaigns/hush-hush/pause"
    assert pages.post(client, pause, x="y").status_code == 403
    assert pages.send(client, pause).status_code == 303
    assert filled.record("hush-hush").paused_reason == "by local"


def test_with_an_access_a_foreign_name_is_refused_and_an_address_in_digits_is_not(
    pages: Pages, people: dict[str, TestClient]
) -> None:
    assert pages.client(peer="10.0.0.7", base="http://evil.example").get("/login").status_code == 421
    assert pages.client(peer="10.0.0.7", base="http://10.0.0.1:8400").get("/login").status_code == 200
