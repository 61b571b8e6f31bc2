"""The pages in a real browser, with a running installation behind them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from engine.domain.access import Role
from tests.browser.conftest import Visit
from tests.support.installation import Installation
from tests.support.pipeline_shop import POLICIES
from tests.support.web_pages import PASSWORD

pytestmark = pytest.mark.long(seconds=60)

Running = Callable[[], str]
Open = Callable[..., Visit]
PAGES = (
    "/",
    "/campaigns",
    "/w/shop/campaigns/hello",
    "/w/shop/campaigns/hello/plan",
    "/lanes",
    "/lanes/fast",
    "/queries",
    "/policies",
    "/gate",
    "/gate/set",
    "/logs?q=campaign:hello&since=1h",
    "/w/shop/users?q=nobody",
    "/w/shop/user?id=u1",
)
HOSTILE = "\"><script>window.hurt=1</script><img src=x onerror='window.hurt=1'>"
SOON = 30_000
"""Milliseconds within which a page shows what has happened, on a busy machine."""


def faults_of(page: Page) -> list[str]:
    """Return the serious and critical faults that axe-core finds."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['help']} {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in SERIOUS]


SERIOUS = ("serious", "critical")


def launched(installation: Installation, users: int = 300) -> None:
    """Let a campaign go out to some users, so that every page has something to show."""
    world = installation.world
    world.users([f"u{n}" for n in range(users)], plan="free")
    world.apply({"campaign": "hello", "kind": "one_off", "audience": {"plan": "free"}})
    world.launch("hello")


def test_each_page_opens_without_a_complaint_and_without_a_serious_fault(
    installation: Installation, running: Running, visit: Open
) -> None:
    launched(installation)
    url = running()
    for scheme in ("light", "dark"):
        window = visit(url, color_scheme=scheme, viewport={"width": 1280, "height": 900})
        for path in PAGES:
            page = window.open(path)
            expect(page.locator("h1")).to_be_visible()
            assert "the same:" in page.inner_text("main")
            assert not faults_of(page), f"{path} in {scheme}"
    narrow = visit(url, viewport={"width": 400, "height": 800})
    for path in PAGES:
        page = narrow.open(path)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 400, f"{path} is {wide} px wide"


def test_the_map_follows_what_happens_without_a_reload(
    installation: Installation, running: Running, visit: Open
) -> None:
    world = installation.world
    lanes = {**POLICIES["lanes"], "fast": {"kind": "decide", "alarm": "2s"}}
    world.policies({**POLICIES, "lanes": lanes, "fleets": {**POLICIES["fleets"]}})
    world.users([f"u{n}" for n in range(5)], plan="free")
    world.apply({"campaign": "hello", "audience": {"plan": "free"}})
    url = running()
    page = visit(url).open("/")
    node = page.locator('[data-node="lane/fast"]')
    expect(node).to_have_class("idle", timeout=SOON)
    # slices that nobody takes: put into the store as a flood of another installation's would be
    uid = world.record("hello").uid
    world.database["campaigns"].update_one({"_id": uid}, {"$set": {"state": "live"}})
    world.database["slices"].insert_many(
        [
            {
                "_id": f"shop/{uid}/flood/{n:04d}",
                "run": None,
                "workspace": "shop",
                "campaign": uid,
                "kind": "candidates",
                "as_of": int(world.now),
                "first": "0",
                "until": "g",
                "state": "open",
                "attempt": 0,
                "suspect": False,
                "deaths": 0,
                "errors": 0,
                "results": {},
                "lease": {"token": "x"},
            }
            for n in range(5)
        ]
    )
    free = {"$unset": {"lease": ""}, "$currentDate": {"rung_at": True}}
    world.database["slices"].update_many({"_id": {"$regex": "/flood/"}}, free)
    world.database["slices"].update_many(
        {"_id": {"$regex": "/flood/"}}, [{"$set": {"free_at": {"$subtract": ["$$NOW", 3_000]}}}]
    )
    expect(node).to_have_class("failing", timeout=SOON)
    expect(page.locator("#main")).to_contain_text("longer than 2s")
    world.database["slices"].delete_many({"_id": {"$regex": "/flood/"}})
    expect(node).to_have_class(re.compile("idle|fine"), timeout=SOON)


def test_a_campaign_is_launched_paused_resumed_and_replayed_by_clicking(
    installation: Installation, running: Running, visit: Open
) -> None:
    world = installation.world
    world.users([f"u{n}" for n in range(20)], plan="free")
    world.apply({"campaign": "hello", "audience": {"plan": "free"}})
    world.app.access_control.add_password("ann", Role.OPERATE, PASSWORD, None, ())
    url = running()
    window = visit(url)
    window.expected = "401 (Unauthorized)"  # the wrong password below
    page = window.page
    page.goto(f"{url}/w/shop/campaigns/hello")
    page.get_by_label("Name").fill("ann")
    page.get_by_label("Password").fill("wrong password")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("main")).to_contain_text(re.compile("wrong|not known|do not", re.IGNORECASE))
    page.get_by_label("Name").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("h1")).to_contain_text("hello", timeout=SOON)
    page.get_by_role("link", name="Launch", exact=True).click()
    page.locator("input[name=expect], input[name=count]").first.fill("20")
    page.get_by_role("button", name="Launch", exact=True).click()
    expect(page.locator(".state").first).to_have_text("live", timeout=SOON)
    installation.until(lambda: len(world.mails()) == 20, "the mails")
    page.get_by_role("link", name="Pause", exact=True).click()
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator(".state").first).to_have_text("paused", timeout=SOON)
    assert world.state("hello") == "paused"
    page.get_by_role("link", name="Resume", exact=True).click()
    page.keyboard.press("Tab")  # the keyboard alone suffices
    page.get_by_role("button", name="Resume").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".state").first).to_have_text("live", timeout=SOON)
    page.get_by_role("link", name="Replay failed").click()
    page.get_by_role("button", name=re.compile("Replay", re.IGNORECASE)).click()
    expect(page.locator("main")).to_contain_text(re.compile("0 |no failed|nothing", re.IGNORECASE), timeout=SOON)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible(timeout=SOON)


def test_who_may_only_read_sees_no_act_and_a_forged_form_does_nothing(
    installation: Installation, running: Running, visit: Open
) -> None:
    world = installation.world
    world.users(["u1"], plan="free")
    world.start({"campaign": "hello", "audience": {"plan": "free"}})
    world.app.access_control.add_password("rob", Role.READ, PASSWORD, None, ())
    url = running()
    window = visit(url)
    page = window.page
    page.goto(url)
    page.get_by_label("Name").fill("rob")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("h1")).to_have_text("Overview", timeout=SOON)
    window.open("/w/shop/campaigns/hello")
    expect(page.get_by_role("link", name="Pause")).to_have_count(0)
    answer = window.context.request.post(f"{url}/w/shop/campaigns/hello/pause", form={"csrf": "forged"})
    assert answer.status == 403
    assert world.state("hello") == "live"


def test_what_users_and_campaign_files_bring_is_shown_as_text(
    installation: Installation, running: Running, visit: Open
) -> None:
    world = installation.world
    world.users([HOSTILE], plan=HOSTILE, first_name=HOSTILE)
    world.apply(
        {
            "campaign": "hello",
            "kind": "one_off",
            "audience": {"first_name": {"exists": True}},
            "messages": [{"name": "one", "subject": HOSTILE}],
        }
    )
    world.launch("hello")
    world.tick()
    world.app.commands.pause(world.record("hello"), HOSTILE)
    url = running()
    window = visit(url)
    quoted = "%22%3E%3Cscript%3Ewindow.hurt%3D1%3C%2Fscript%3E%3Cimg%20src%3Dx%20onerror%3D%27window.hurt%3D1%27%3E"
    for path in (
        "/",
        "/campaigns?q=" + quoted,
        "/w/shop/campaigns/hello",
        f"/w/shop/user?id={quoted}",
        f"/w/shop/users?q={quoted}x",
        f"/logs?q={quoted}",
    ):
        page = window.open(path)
        page.wait_for_load_state("networkidle", timeout=SOON) if path.startswith("/logs") else None
        assert page.evaluate("window.hurt") is None, path
        assert page.locator("main script").count() == 0, path
