"""`/campaigns` and one campaign's page, on a real engine."""

from __future__ import annotations

from engine.domain.work import AccessPath
from tests.support.pipeline_world import World
from tests.support.web_pages import Pages, text_of

WINBACK = "/w/shop/campaigns/winback"


def counted(world: World, name: str) -> None:
    """Count a campaign exactly, as the clock does now and then."""
    world.app.tally_keeper.count(world.record(name))


def test_the_list_shows_each_campaign_with_its_state_and_its_counts(world: World, pages: Pages) -> None:
    world.users(["u1", "u2", "u3"])
    world.start({"campaign": "winback"})
    world.apply({"campaign": "later"})
    counted(world, "winback")
    shown = text_of(pages.get("/campaigns"))
    assert (
        "winback shop live continuous fast 3 3 3 0 0 0 now" in shown or "winback shop live continuous fast 3" in shown
    )
    assert "later shop draft continuous fast not launched" in shown


def test_the_list_is_filtered_by_state_and_name_and_goes_on_a_page_at_a_time(world: World, pages: Pages) -> None:
    for number in range(53):
        world.apply({"campaign": f"c-{number:02}"})
    world.apply({"campaign": "of-another", "workspace": "other"})
    first = pages.get("/campaigns")
    assert first.count('<th scope="row">') == 50
    assert "after=shop%2Fc-48" in first  # `of-another` of the workspace `other` comes first
    rest = pages.get("/campaigns?after=shop/c-48")
    assert rest.count('<th scope="row">') == 4
    assert "c-52" in rest
    assert pages.get("/campaigns?q=C-1").count('<th scope="row">') == 10
    assert pages.get("/campaigns?state=live").count('<th scope="row">') == 0
    assert pages.get("/campaigns?workspace=other").count('<th scope="row">') == 1
    assert pages.get("/campaigns?q=.*").count('<th scope="row">') == 0, "what is typed is no expression"


def test_a_campaigns_page_shows_counts_that_add_up_runs_policy_and_file(world: World, pages: Pages) -> None:
    world.users(["u1", "u2", "u3"])
    world.start({"campaign": "winback", "messages": [{"name": "one"}, {"name": "two", "wait": "1d"}]})
    counted(world, "winback")
    shown = text_of(pages.get(WINBACK))
    assert "entered 3 3 active" in shown
    assert "they add up" in shown
    assert "one 3 0 0 3 0 0" in shown, "decided, queued, attempting, sent, failed, unknown"
    assert "launch decided" in shown
    assert "profile default" in shown
    assert "campaign: winback" in shown
    assert "tidegate campaign report winback -w shop" in shown


def test_a_campaign_that_was_never_counted_says_so(world: World, pages: Pages) -> None:
    world.users(["u1"])
    world.start({"campaign": "winback"})
    assert "the clock has not counted it yet" in pages.get(WINBACK)


def test_failures_stand_by_reason(world: World, pages: Pages) -> None:
    world.users(["u1", "u2"], age=0)
    world.start({"campaign": "winback", "messages": [{"name": "one", "body": "{{ 10 | divided_by: user.age }}"}]})
    counted(world, "winback")
    assert "Failed deliveries by reason" in pages.get(WINBACK)


def test_the_plan_compares_the_access_paths(world: World, pages: Pages) -> None:
    world.users([f"u{number}" for number in range(7)])
    world.apply({"campaign": "winback"})
    shown = text_of(pages.get(f"{WINBACK}/plan"))
    assert "7 of 7 users" in shown
    assert f"▶ {AccessPath.SCAN.value}" in shown


def test_a_campaign_that_does_not_exist_is_not_found(pages: Pages) -> None:
    answer = pages.client().get("/w/shop/campaigns/nosuch")
    assert answer.status_code == 404
    assert "there is no campaign nosuch" in answer.text


def test_what_people_and_files_write_reaches_no_browser_as_markup(world: World, pages: Pages) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    world.users(["u1"])
    world.start({"campaign": "winback", "messages": [{"name": "one", "subject": evil}]})
    world.app.commands.pause(world.record("winback"), evil)
    counted(world, "winback")
    for path in ("/campaigns", WINBACK, f"{WINBACK}/resume", f"/campaigns?q={evil}", f"/{evil}", f"/login?next={evil}"):
        html = pages.client().get(path).text
        assert "alert(1)</script>" not in html, path
        assert "<img src=x" not in html, path
